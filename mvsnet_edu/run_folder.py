"""The folder of a training run: one run at a time, a checkpoint that is always whole, a log that fits it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .checkpoints import read_tensors
from .data.formats import atomic_write
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the system lifts the lock however this process ends.

        Raises:
            InputError: if another process is training here.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            yield
            return
        with open(self.path / "lock", "w") as file:
            try:
                # not flock: the processes that load data would inherit that, and outlive this one a little
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise InputError(f"{self.path} is in use: another process is training there.") from None
            yield

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint; until it is on the disk, the earlier one stays."""
        with atomic_write(self.checkpoint) as file:
            torch.save(state, file)
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
        """Add a line."""
        with open(self.lines, "a") as file:
            file.write(json.dumps(values) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the lines of steps that the checkpoint has not seen: they will be done again."""
        if not self.lines.is_file():
            return
        kept = []
        for line in self.lines.read_text().splitlines():
            if line.endswith("}") and json.loads(line)["step"] <= step:  # the last may have been cut off
                kept.append(line + "\n")
        with atomic_write(self.lines) as file:
            file.write("".join(kept).encode())
