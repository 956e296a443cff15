"""A chain of steps whose results stay on disk, so that a stopped command goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from .data.formats import atomic_write
from .errors import InputError

__all__ = ["Steps", "digest"]


def digest(paths: Iterable[Path]) -> str:
    """A short fingerprint of what files contain, and of their names.

    Args:
        paths: the files, in any order.

    Returns:
        32 hexadecimal digits.

    Raises:
        OSError: a file cannot be read.

    Source: ours.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.txt"
    ...     _ = path.write_text("one")
    ...     before = digest([path])
    ...     _ = path.write_text("two")
    ...     before == digest([path])
    False
    """
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(os.fsencode(path.name) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:32]


class Steps:
    """The steps of one command, in order; each depends on all before it.

    A step is done when its record says so: the record is written last and in one piece, and holds what went
    in and the sizes of the files that came out. So nothing half-made passes as done, and whatever changed
    (input, options, a file that was deleted) is made again, with all that follows.

    Args:
        out: the folder for everything; must be new, empty, or one that steps were done in before.

    Raises:
        InputError: the folder holds something else.

    Source: ours.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for text in ("one", "one", "two"):
    ...         steps = Steps(folder, say=lambda line: None)
    ...         path = steps.out / "file.txt"
    ...         steps.run("write", text, [path], lambda: path.write_text(text))
    True
    False
    True
    """

    def __init__(self, out: str | PathLike[str], say: Callable[[str], None] | None = None):
        self.out, self.chain = Path(out), ""
        self.records = self.out / "steps"
        self.say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file, not a folder.")
        if self.out.exists() and any(self.out.iterdir()) and not self.records.is_dir():
            raise InputError(f"{self.out} holds other files: give a new folder for the results.")
        self.records.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        name: str,
        settings: Any,
        results: list[Path],
        make: Callable[[], Any],
        resumes: bool = False,
        stale: Iterable[Path] = (),
    ) -> bool:
        """Do a step unless it is done.

        Args:
            name: what it is called.
            settings: all that it depends on besides the steps before it; JSON can write it.
            results: files and folders that it makes.
            make: does it.
            resumes: whether it can go on with what an earlier try with the same settings left behind;
                otherwise that is removed first.
            stale: what must not outlive these results.

        Returns:
            whether it was done now.
        """
        settings = json.loads(json.dumps(settings))
        self.chain = hashlib.sha256(json.dumps([self.chain, name, settings]).encode()).hexdigest()
        record = self._record(name)
        same = record.get("inputs") == self.chain
        if same and record.get("files") == self._sizes(results):
            self.say(f"{name}: done before")
            return False
        if not (same and resumes):
            _remove([*results, *stale])
        self._write(name, None)
        self.timed(name, make)
        self._write(name, self._sizes(results))
        return True

    def timed(self, name: str, make: Callable[[], Any]) -> Any:
        """Do a step that knows by itself what is done.

        Args:
            name: what it is called.
            make: does it.

        Returns:
            what it returns.
        """
        start = time.monotonic()
        self.say(f"{name} ...")
        made = make()
        self.say(f"{name}: {time.monotonic() - start:.1f} s")
        return made

    def _sizes(self, results: list[Path]) -> dict[str, int]:
        """The size of each file, in bytes; -1 for what is missing."""
        files = [file for path in results for file in (path.rglob("*") if path.is_dir() else [path])]
        names = {file.relative_to(self.out).as_posix(): file for file in sorted(files) if not file.is_dir()}
        return {name: file.stat().st_size if file.exists() else -1 for name, file in names.items()}

    def _record(self, name: str) -> dict:
        try:
            return dict(json.loads((self.records / f"{name}.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def _write(self, name: str, files: dict[str, int] | None) -> None:
        with atomic_write(self.records / f"{name}.json") as file:
            file.write(json.dumps({"inputs": self.chain, "files": files}, indent=1).encode())


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
