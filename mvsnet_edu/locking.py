"""One process at a time in a folder of results, and no leftovers of one that was killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .data.formats import UNFINISHED, reason
from .errors import InputError

__all__ = ["locked"]

#: Folders that this process holds: the system lifts a lock when any opening of its file is closed.
HELD: set[Path] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; the system lifts the lock however this process ends.

    What a process that was killed had not finished, in the folder or one below, is removed. A function that
    holds a folder may call others that ask for it too.

    Args:
        folder: where results are written; made if absent.

    Raises:
        InputError: if another process holds it, or nothing can be written there.

    Source: ours.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, locked(Path(folder)), locked(Path(folder)):
    ...     [path.name for path in Path(folder).iterdir()]
    ['lock']
    """
    place = folder.resolve()
    if place in HELD:
        yield
        return
    with _lock_file(folder) as file:
        _lock(file, folder)
        HELD.add(place)
        try:
            _sweep(folder)
            yield
        finally:
            HELD.discard(place)


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / "lock", "a")  # which changes nothing in one that is there
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {reason(error)}.") from error


def _lock(file: IO[str], folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return
    try:
        # not flock: the processes that load data would inherit that, and outlive this one a little
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise InputError(f"{folder} is in use: another process is writing there.") from None
    except OSError:
        pass  # some network drives have no locks


def _sweep(folder: Path) -> None:
    for path in (*folder.glob(UNFINISHED), *folder.glob(f"*/{UNFINISHED}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
