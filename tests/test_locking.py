"""One process at a time in a folder: the second says so in one sentence and touches nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_scenes import small_scene

from mvsnet_edu import InputError
from mvsnet_edu.cli import main
from mvsnet_edu.data.formats import unfinished, write_image
from mvsnet_edu.locking import locked

fcntl = pytest.importorskip("fcntl")

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

RECIPE = """\
[data]
kind = "scenes"
root = "{scene}"
held_out = "{scene}"
workers = 0
[[stage]]
steps = 1
rate = 1e-3
"""


@contextmanager
def another_process(folder: Path) -> Iterator[None]:
    """That holds a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-S", "-c", HOLD, str(folder / "lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    everything = [path for path in (folder, *folder.rglob("*"))]
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in everything}


def test_a_second_process_is_turned_away_until_the_first_one_ends(tmp_path):
    with another_process(tmp_path):
        with pytest.raises(InputError, match=f"{tmp_path} is in use: another process is writing there"):
            with locked(tmp_path):
                raise AssertionError
    with locked(tmp_path):
        pass


def test_a_function_that_holds_a_folder_may_call_another_that_asks_for_it(tmp_path):
    """And afterwards it still holds it."""
    code = HOLD.replace("LOCK_EX", "LOCK_EX | fcntl.LOCK_NB")
    with locked(tmp_path):
        with locked(tmp_path / "." / ""):
            pass
        done = subprocess.run([sys.executable, "-S", "-c", code, str(tmp_path / "lock")], capture_output=True)
        assert b"BlockingIOError" in done.stderr
    with another_process(tmp_path):
        pass


def test_what_a_killed_process_had_not_finished_is_removed(tmp_path):
    kept = [
        tmp_path / "mine.tmp",
        tmp_path / "depth" / ".hidden",
        tmp_path / "a" / "b" / unfinished(tmp_path).name,
    ]
    for path in [
        *kept,
        unfinished(tmp_path / "a"),
        unfinished(tmp_path / "depth" / "a"),
        unfinished(tmp_path / "b") / "c",
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with locked(tmp_path):
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*kept, tmp_path / "lock"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(InputError, match=f"{tmp_path} cannot be written to: Permission denied"),
        locked(tmp_path),
    ):
        pass


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out cannot be written to: File exists"), locked(tmp_path / "out"):
        pass


@pytest.fixture
def commands(tmp_path) -> dict[str, list[str]]:
    """The four commands, each with something to do in tmp_path/out."""
    scene, photos = small_scene(tmp_path / "scene"), tmp_path / "photos"
    (tmp_path / "recipe.toml").write_text(RECIPE.format(scene=scene))
    for number in range(3):
        write_image(photos / f"{number}.png", torch.rand(3, 24, 32))
    out = str(tmp_path / "out")
    return {
        "train": ["train", str(tmp_path / "recipe.toml"), "--out", out, "--device", "cpu"],
        "depth": ["depth", str(scene), out, "--device", "cpu"],
        "fuse": ["fuse", str(scene), out, "--min-probability", "0", "--min-views", "1"],
        "reconstruct": ["reconstruct", str(photos), out],
    }


@pytest.mark.parametrize("command", ["train", "depth", "fuse", "reconstruct"])
def test_the_second_of_two_runs_says_so_and_touches_nothing(command, commands, tmp_path, capsys):
    out = tmp_path / "out"
    if command == "reconstruct":
        pytest.importorskip("pycolmap")
        (out / "steps").mkdir(parents=True)  # as an earlier run leaves it
    else:
        assert main(commands["depth"]) == 0
    with another_process(out):
        before = files(out)
        capsys.readouterr()
        assert main(commands[command]) == 2
        said = capsys.readouterr()
        assert (
            said.err == f"mvsnet-edu: {out} is in use: another process is writing there.\n" and not said.out
        )
        assert files(out) == before


def test_where_there_are_no_locks_one_writes_without(tmp_path, monkeypatch):
    """Windows has no fcntl, and some network drives refuse."""
    with monkeypatch.context() as windows:
        windows.setitem(sys.modules, "fcntl", None)
        with locked(tmp_path), locked(tmp_path):
            pass
    monkeypatch.setattr(fcntl, "lockf", raise_(OSError(errno.ENOLCK, "No locks available")))
    with locked(tmp_path):
        assert os.listdir(tmp_path) == ["lock"]


def raise_(error: OSError) -> Callable:
    def fail(*words: object) -> None:
        raise error

    return fail
