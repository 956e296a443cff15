"""The folder of a training run: a checkpoint that is always whole, and a log that fits it."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import torch

from .checkpoints import read_tensors
from .data.formats import atomic_write, reason
from .errors import InputError

__all__ = ["RunFolder"]


class RunFolder:
    """Checkpoint and log of one run.

    Args:
        path: where; made if absent.

    Source: ours.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     run = RunFolder(Path(folder) / "run")
    ...     run.save({"step": 2})
    ...     run.load()["step"]
    2
    """

    def __init__(self, path: Path):
        self.path, self.checkpoint, self.lines = path, path / "state.pt", path / "log.jsonl"
        path.mkdir(parents=True, exist_ok=True)
        for file in (self.checkpoint, self.lines, path / "lock"):
            if file.is_symlink() or file.exists() and not file.is_file():
                raise InputError(f"{file} is no file of a run's own: a link would lead out of its folder.")

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint; until it is on the disk, the earlier one stays."""
        content = io.BytesIO()  # of a full disk, torch would complain in terms of its own code
        torch.save(state, content)
        with atomic_write(self.checkpoint) as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, on the CPU; None if there is none yet.

        Raises:
            InputError: if it is damaged, or holds anything but tensors and plain values.
        """
        if not self.checkpoint.is_file():
            return None
        try:
            return read_tensors(self.checkpoint)
        except ValueError:
            raise InputError(f"{self.checkpoint} is no checkpoint of a training run, or damaged.") from None

    def log(self, values: dict[str, Any]) -> None:
        """Add a line.

        Raises:
            InputError: if it cannot be written.
        """
        try:
            with open(self.lines, "a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise InputError(f"{self.lines} cannot be written: {reason(error)}.") from error

    def rewind(self, step: int) -> None:
        """Drop the lines of steps that the checkpoint has not seen: they will be done again."""
        if not self.lines.is_file():
            return
        lines = self.lines.read_text(errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= step]  # whole ones
        with atomic_write(self.lines) as file:
            file.write("".join(kept).encode())


def _step_of(line: str) -> float:
    """What a line of the log is about; infinite for what is no such line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        return math.inf
