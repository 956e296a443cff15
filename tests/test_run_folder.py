"""The folder of a run: whole checkpoints, nothing unpickled, one process at a time."""

from __future__ import annotations

import json
import os

import pytest
import torch
from full_disk import no_room_beyond

from mvsnet_edu import InputError
from mvsnet_edu.run_folder import RunFolder


def test_a_checkpoint_comes_back_and_replaces_the_one_before(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    assert folder.load() is None
    folder.save({"step": 1, "weights": {"x": torch.arange(3.0)}, "recipe": "{}"})
    folder.save({"step": 2, "weights": {"x": torch.arange(4.0)}, "recipe": "{}"})
    state = folder.load()
    assert state["step"] == 2 and torch.equal(state["weights"]["x"], torch.arange(4.0))
    assert sorted(os.listdir(folder.path)) == ["state.pt"]


def test_a_checkpoint_that_cannot_be_finished_leaves_the_one_before(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save({"step": 1})
    with pytest.raises(Exception, match="pickle|local object"):
        folder.save({"step": 2, "no": lambda: None})
    assert folder.load() == {"step": 1} and sorted(os.listdir(tmp_path)) == ["state.pt"]


def test_without_room_the_file_is_named_and_the_checkpoint_before_stays(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save({"step": 1})
    with no_room_beyond(10_000):
        with pytest.raises(InputError, match="state.pt cannot be written: File too large"):
            folder.save({"step": 2, "weights": torch.rand(10_000)})
        with pytest.raises(InputError, match="log.jsonl cannot be written: File too large"):
            folder.log({"step": 2, "much": "x" * 10_000})
    assert folder.load() == {"step": 1}
    folder.rewind(1)
    assert folder.lines.read_text() == ""


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_what_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path)
    torch.save({"step": Trap()}, folder.checkpoint)
    with pytest.raises(InputError, match="state.pt is no checkpoint of a training run, or damaged"):
        folder.load()
    assert not (tmp_path / "sprung").exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save({"weights": torch.rand(1000)})
    whole = folder.checkpoint.read_bytes()
    for damaged in (b"", b"no checkpoint", whole[:100], whole[: len(whole) // 2]):
        folder.checkpoint.write_bytes(damaged)
        with pytest.raises(InputError, match="state.pt is no checkpoint"):
            folder.load()


def test_the_log_forgets_the_steps_that_will_be_done_again(tmp_path):
    folder = RunFolder(tmp_path)
    folder.rewind(0)  # there is none yet
    for step in (2, 4, 4, 6):
        folder.log({"step": step, "loss": step / 3})
    with open(folder.lines, "a") as file:
        file.write('{"step": 4, "lo')  # killed while it wrote
    folder.rewind(4)
    kept = [json.loads(line) for line in folder.lines.read_text().splitlines()]
    assert kept == [{"step": step, "loss": step / 3} for step in (2, 4, 4)]
    with open(folder.lines, "a") as file:
        file.write('{"step": 4, "held_out": {"error": 1.5}')  # killed just before the end
    folder.rewind(4)
    assert len(folder.lines.read_text().splitlines()) == 3
    folder.log({"step": 6})
    assert len(folder.lines.read_text().splitlines()) == 4
