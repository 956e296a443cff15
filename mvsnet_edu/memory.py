"""How much memory there is to work with."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

__all__ = ["free_memory", "is_out_of_memory", "keep_freed_memory"]

#: Supposed where the system does not tell (Windows).
UNKNOWN = 4 << 30


def free_memory(device: torch.device | str) -> int:
    """Bytes that a program can still take without harm to others.

    On a GPU that is what the driver calls free, with what torch holds in reserve. Elsewhere it is what Linux
    calls available, or the limit of the container if that is lower; half of all there is on macOS, which
    does not tell; 4 GiB where nothing is known.

    Args:
        device: of what.

    Returns:
        bytes.

    Source: ours.

    >>> free_memory("cpu") > 0
    True
    """
    device = torch.device(device)
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    return min(_free_in_system(), _free_in_container())


def keep_freed_memory() -> bool:
    """Let the C library keep up to 256 MB that this process frees, for its next tensors.

    By default it gives them back to the system, which hands out fresh pages, filled with zeros, a moment
    later: a tenth of the time of a training step on small images. Where there is no glibc, nothing happens.

    Returns:
        whether it does.

    Source: ours; see mallopt(3).

    >>> keep_freed_memory() in (True, False)
    True
    """
    trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 256 << 20))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch's for the CPU is a plain RuntimeError.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "memory" in str(error).lower()


def _free_in_system(meminfo: Path = Path("/proc/meminfo")) -> int:
    try:
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return _half_of_all()


def _half_of_all() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return UNKNOWN


def _free_in_container(groups: Path = Path("/sys/fs/cgroup")) -> int | float:
    """What Docker and the like leave to this process; the files of version 2 of control groups, then 1."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int((groups / limit).read_text()) - int((groups / used).read_text()))
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
    return float("inf")
