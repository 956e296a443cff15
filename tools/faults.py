"""Kill train, depth, fuse and reconstruct at random moments, fill the disk under them, start them twice.

    make faults        # or: python tools/faults.py --kills 50 --disks 20 --seed 0

Whatever happens, the command is then started again in the same folder, and must end with what an undisturbed
run ends with, bit for bit. And at any moment a file that bears its final name is complete: after each fault
all of them are read and compared.

A parent process imports everything and forks a child for each run, on scenes so small that a run takes a
second. A child is killed in one of three ways: just before its n-th change of the file system; by the kernel,
at the n-th byte that it writes into a file; at a random moment, from outside. A few commands are
killed as processes of their own. The disk is a small one, filled just before the n-th change; only root may
mount it, and without it the size of files is limited.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process with threads must not fork

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_scenes import small_scene

from mvsnet_edu import MVSNet, cli
from mvsnet_edu.data import Scene
from mvsnet_edu.data.formats import UNFINISHED
from mvsnet_edu.run_folder import RunFolder

#: Names of what is at work, or not complete yet.
PASSING = (UNFINISHED, ".*.new", "*.tmp", "*.db-*", "sparse.new", "lock")

#: Of log and checkpoint, what differs from run to run.
TIMES = ("seconds", "steps_per_s", "waiting")

RECIPE = """\
report = 2
[data]
kind = "scenes"
root = "{scene}"
held_out = "{scene}"
workers = 0
[optimizer]
ema = 0.9
[validation]
every = 3
samples = 1
[[stage]]
steps = 6
rate = 1e-3
views = [2, 3]
depth_num = 16
"""

ANYTHING = [
    "--min-probability",
    "0",
    "--min-views",
    "1",
    "--max-relative-depth",
    "1",
]  # noise makes a cloud too


@dataclass
class Command:
    """What is tried.

    Args:
        name: of the command.
        words: that start it, with the folder of its results.
        begin: puts into that folder what the command needs there.
    """

    name: str
    words: Callable[[Path], list[str]]
    begin: Callable[[Path], Any] = lambda out: None

    def start(self, out: Path, before: Callable[[], Any] = lambda: None) -> int:
        """A child that runs it; what it says goes to a file beside the folder. Its process number."""
        number = os.fork()
        if number:
            return number
        code = 99
        try:
            with open(saying(out), "w") as file:
                os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            sys.stdout.reconfigure(line_buffering=True)  # its last line is the last that was said
            before()
            code = cli.main(self.words(out))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)

    def run(self, out: Path, before: Callable[[], Any] = lambda: None) -> int:
        """Its exit code; minus the signal that ended it."""
        return ended(self.start(out, before))


def saying(out: Path) -> Path:
    """Not beside the folder: that disk may be full."""
    return out.parent.with_name(f"{out.parent.name}.said")


def ended(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("commands", nargs="*", help="(default: all four)")
    add("--kills", type=int, default=50, help="of each command (default: 50)")
    add("--disks", type=int, default=20, help="full disks of each command (default: 20)")
    add("--pairs", type=int, default=5, help="second runs on one folder, of each command (default: 5)")
    add("--processes", type=int, default=2, help="kills of processes of their own, of each (default: 2)")
    add("--seed", default="0", help="any word (default: 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())  # which stays if something is wrong
    commands = prepare(folder)
    for name in options.commands or commands:
        trial = Trial(commands[name], folder / name, random.Random(f"{options.seed} {name}"))
        try:
            trial.kill(options.kills)
            trial.kill_processes(options.processes)
            trial.fill(options.disks)
            trial.pair(options.pairs)
        finally:  # what it has survived, also if somebody or something stops it
            counts = ", ".join(f"{count} {what}" for what, count in sorted(trial.counts.items()))
            print(f"{name}: {counts}", flush=True)
    shutil.rmtree(folder)


def prepare(folder: Path) -> dict[str, Command]:
    """The commands and what they work on; everything that they import is imported."""
    import lightning_fabric  # noqa: F401
    import pycolmap  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import mvsnet_edu.figures
    import mvsnet_edu.native
    import mvsnet_edu.reconstruction
    import mvsnet_edu.training  # noqa: F401

    # Compiled here, once: a child without room for files could not, and without C the last bits are others.
    mvsnet_edu.native.available(torch.zeros(1, 8))
    scene, photos, cpu = small_scene(folder / "scene"), small_photos(folder / "photos"), ["--device", "cpu"]
    (folder / "recipe.toml").write_text(RECIPE.format(scene=scene))
    depth = Command("depth", lambda out: ["depth", str(scene), str(out), *cpu])
    assert depth.run(folder / "given" / "out") == 0
    tiny = ["--size", "96", "--planes", "16"]
    return {
        "train": Command(
            "train", lambda out: ["train", str(folder / "recipe.toml"), "--out", str(out), *cpu]
        ),
        "depth": depth,
        "fuse": Command(
            "fuse",
            lambda out: ["fuse", str(scene), str(out), *ANYTHING],
            lambda out: shutil.copytree(folder / "given" / "out", out),
        ),
        "reconstruct": Command(
            "reconstruct", lambda out: ["reconstruct", str(photos), str(out), *tiny, *cpu, *ANYTHING]
        ),
    }


def small_photos(folder: Path) -> Path:
    """Four photographs of the still life, just large enough to find the cameras."""
    folder.mkdir()
    for path in list(Scene.open(ROOT / "data" / "still_life").image_paths.values())[:4]:
        Image.open(path).resize((200, 160)).save(folder / path.name, quality=95)
    return folder


# --- what must hold ----------------------------------------------------------------------------------


def final_files(out: Path) -> dict[str, Path]:
    """All files but those whose name, or that of a folder above, says that they are not complete."""
    found = {path.relative_to(out): path for path in sorted(out.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in found.items()
        if not any(part.match(pattern) for part in map(Path, name.parts) for pattern in PASSING)
    }


def leftovers(out: Path) -> list[str]:
    """Files that nobody will need; a database that could not be closed keeps its journal."""
    everything = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    journals = {name for name in everything if ".db-" in name}
    return sorted(everything - set(final_files(out)) - journals - {"lock"})


def content(path: Path) -> Any:
    """What a file with its final name says; an exception if it is not whole."""
    if path.name.startswith("events.out"):
        return None  # TensorBoard's, which grow; their readers expect that
    if path.suffix == ".pt":
        state = RunFolder(path.parent).load()
        return flat({name: value for name, value in state.items() if name not in ("seconds", "recipe")})
    if path.suffix == ".safetensors":
        return flat(MVSNet.from_pretrained(path).state_dict())
    if path.suffix == ".jsonl":
        return [
            json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]
    if path.suffix == ".db":
        return database(path)
    if path.parent.name == "steps":
        return json.loads(path.read_bytes()) and None  # the sizes of a database vary
    return path.read_bytes()


def flat(tree: Any) -> Any:
    """Tensors as bytes, so that == compares bits."""
    if isinstance(tree, dict):
        return {name: flat(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [flat(value) for value in tree]
    return tree.numpy().tobytes() if isinstance(tree, torch.Tensor) else tree


def database(path: Path) -> None:
    """SQLite's own check, of a copy, as opening one that was left in disorder tidies it up."""
    with tempfile.TemporaryDirectory() as folder:
        for each in path.parent.glob(f"{path.name}*"):
            shutil.copy(each, folder)
        connection = sqlite3.connect(Path(folder) / path.name)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), path
        connection.close()


def check_whole(out: Path, expected: dict[str, Any]) -> None:
    """Every file with a final name is complete: it reads, and of those that are written once, bit for bit."""
    for name, path in final_files(out).items():
        found = content(path)
        grows = path.suffix in (".pt", ".safetensors", ".jsonl")
        assert grows or path.name.startswith("events.out") or found == expected.get(name), (
            f"{name} is not whole"
        )


def contents(out: Path) -> dict[str, Any]:
    """What a finished run has left, but for the time that it took."""
    named = {name: content(path) for name, path in final_files(out).items() if "events.out" not in name}
    for line in named.get("log.jsonl", []):
        for name in TIMES:
            line.pop(name, None)
    return named


def check_finished(out: Path, expected: dict[str, Any]) -> None:
    found = contents(out)
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    different = [name for name in found if found[name] != expected[name]]
    assert not different, f"{different} differ from an undisturbed run"
    assert not leftovers(out), f"{leftovers(out)} are left over"


# --- faults ------------------------------------------------------------------------------------------


class Trial:
    """One command, what an undisturbed run of it leaves, and the faults that it has survived.

    Args:
        command: what is tried.
        folder: for everything.
        dice: when the faults come.
    """

    def __init__(self, command: Command, folder: Path, dice: random.Random):
        self.command, self.folder, self.dice, self.counts = command, folder, dice, Counter()
        start, out = time.monotonic(), self.fresh(folder / "undisturbed")
        with told(out):
            assert command.run(out, lambda: count_changes(out, folder / "changes")) == 0
        self.seconds, self.changes = time.monotonic() - start, (folder / "changes").stat().st_size
        self.expected = contents(out)
        self.sizes = sorted(path.stat().st_size for path in out.rglob("*") if path.is_file())

    def fresh(self, place: Path) -> Path:
        """A folder there in which the command has not yet run."""
        shutil.rmtree(place / "out", ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        self.command.begin(place / "out")
        return place / "out"

    def kill(self, total: int) -> None:
        """So many kills, of runs that are killed once or several times and then left alone."""
        ways = {
            "kills before a change": self.kill_before_a_change,
            "kills within a write": self.kill_within_a_write,
            "kills at a moment": self.kill_at_a_moment,
        }
        while sum(self.counts[name] for name in ways) < total:
            out = self.fresh(self.folder / "killed")
            with told(out):
                for name in self.dice.choices(list(ways), k=self.dice.choice((1, 1, 2, 3, 5))):
                    self.counts[name] += ways[name](out)
                    check_whole(out, self.expected)
                self.go_on(out)

    def kill_before_a_change(self, out: Path) -> bool:
        number = self.dice.randint(1, self.changes)
        return self.command.run(out, lambda: signal_at_change(out, number, signal.SIGKILL)) < 0

    def kill_within_a_write(self, out: Path) -> bool:
        size = self.dice.randint(0, self.dice.choice(self.sizes))
        return self.command.run(out, lambda: limit_files(size, signal.SIG_DFL)) < 0

    def kill_at_a_moment(self, out: Path) -> bool:
        number = self.command.start(out)
        time.sleep(self.dice.uniform(0, self.seconds))
        os.kill(number, signal.SIGKILL)
        return ended(number) < 0

    def kill_processes(self, total: int) -> None:
        """As a user's command is killed."""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        for _ in range(total):
            out = self.fresh(self.folder / "killed")
            words = [sys.executable, "-m", "mvsnet_edu", *self.command.words(out)]
            with told(out), subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment) as process:
                while process.poll() is None and not (out / "lock").exists():  # it still imports
                    time.sleep(0.01)
                time.sleep(self.dice.uniform(0, self.seconds))
                process.kill()
                self.counts["kills of a process"] += process.wait() < 0
                check_whole(out, self.expected)
                self.go_on(out)

    def fill(self, total: int) -> None:
        """A disk that somebody fills during the run; then there is room again."""
        with small_disk(self.folder / "disk", 2 * sum(self.sizes) + (32 << 20)) as mounted:
            for _ in range(total):
                out = self.fresh(self.folder / "disk")
                with told(out):
                    code = self.run_without_room(out, mounted)
                    self.counts["full disks" if code else "disks that were large enough"] += 1
                    check_whole(out, self.expected)
                    assert code <= 0 or not leftovers(out), f"{leftovers(out)} are left over"
                    self.go_on(out)

    def run_without_room(self, out: Path, mounted: bool) -> int:
        """Its exit code; it must end with one sentence."""
        if mounted:
            number = self.dice.randint(1, self.changes)
            room = self.dice.randint(0, self.dice.choice(self.sizes))
            code = self.command.run(out, lambda: fill_at_change(out, number, room))
            filler(out).unlink(missing_ok=True)
        else:
            size = self.dice.randint(4096, max(self.sizes))
            code = self.command.run(out, lambda: limit_files(size, signal.SIG_IGN))
        said = saying(out).read_text()
        if not mounted and code == -signal.SIGABRT and "database or disk is full" in said:
            # In a thread of pycolmap's own. We ask how much of a disk is free, not how large a file may be.
            self.counts["aborts by pycolmap"] += 1
            return code
        assert code == 0 or (code == 2 and said.splitlines()[-1].startswith("mvsnet-edu: ")), f"code {code}"
        assert "Traceback" not in said and said.count("mvsnet-edu: ") == (code != 0), "not one sentence"
        return code

    def pair(self, total: int) -> None:
        """A second run while the first one is held up before one of its changes."""
        for _ in range(total):
            out = self.fresh(self.folder / "pair")
            with told(out):
                first = self.start_and_stop(out, self.dice.randint(1, self.changes))
                self.second(out)
                os.kill(first, signal.SIGCONT)
                assert ended(first) == 0
                check_finished(out, self.expected)

    def start_and_stop(self, out: Path, number: int) -> int:
        """A child that waits before the change of that number."""
        child = self.command.start(out, lambda: signal_at_change(out, number, signal.SIGSTOP))
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
        return child

    def second(self, out: Path) -> None:
        """It does all the work if the first one has not yet begun, else it is turned away."""
        before = {path: path.stat().st_mtime_ns for path in (out, *out.rglob("*")) if path.exists()}
        if self.command.run(out) == 0:
            self.counts["second runs that were the first"] += 1
            return
        self.counts["second runs turned away"] += 1
        said = saying(out).read_text().splitlines()
        assert said[-1:] == [f"mvsnet-edu: {out} is in use: another process is writing there."]
        assert before == {path: path.stat().st_mtime_ns for path in (out, *out.rglob("*"))}

    def go_on(self, out: Path) -> None:
        """Start the command again: it ends, and with what an undisturbed run ends with."""
        assert self.command.run(out) == 0, "it does not go on"
        check_finished(out, self.expected)
        self.counts["restarts"] += 1


@contextmanager
def told(out: Path) -> Iterator[None]:
    """If something is wrong, say where it lies, and what the command said last."""
    try:
        yield
    except BaseException:
        print(
            f"{out} is left as it is. The command said:\n{saying(out).read_text()[-3000:]}", file=sys.stderr
        )
        raise


def watch_changes(out: Path, noted: Callable[[], Any]) -> None:
    """In a child: whenever a file in the folder is opened for writing, renamed or removed, just before it."""

    def hook(event: str, words: tuple) -> None:
        if event == "open":
            change = str(out) in str(words[0]) and (words[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        else:  # rmtree knows the folder by a descriptor
            change = event in CHANGES and (str(out) in str(words[0]) or words[-1] not in (-1, None))
        if change:
            noted()

    sys.addaudithook(hook)


CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def count_changes(out: Path, report: Path) -> None:
    """In a child: a byte in the report for each."""
    file = os.open(report, os.O_WRONLY | os.O_CREAT)
    watch_changes(out, lambda: os.write(file, b"."))


def signal_at_change(out: Path, number: int, what: signal.Signals) -> None:
    """In a child: before the change of that number."""
    left = iter(range(number - 1, -1, -1))
    watch_changes(out, lambda: next(left, 1) or os.kill(os.getpid(), what))


def fill_at_change(out: Path, number: int, room: int) -> None:
    """In a child: before the change of that number, leave only so many bytes of the disk free."""

    def fill() -> None:
        filler(out).write_bytes(bytes(max(0, shutil.disk_usage(out.parent).free - room)))

    left = iter(range(number - 1, -1, -1))
    watch_changes(out, lambda: next(left, 1) or fill())


def filler(out: Path) -> Path:
    return out.with_name("filler")


def limit_files(size: int, action: signal.Handlers) -> None:
    """In a child: no file may become larger; trying that is the end, or an error if the signal is ignored."""
    signal.signal(signal.SIGXFSZ, action)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system in memory; whether that worked."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(words, capture_output=True).returncode == 0
    if not mounted:
        print("No disk can be mounted here: files are limited in size instead.", file=sys.stderr)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


if __name__ == "__main__":
    main()
