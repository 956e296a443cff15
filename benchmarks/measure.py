"""Time and memory of programs to compare: in turn, without disturbed samples, peaks from fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

#: A sample that took longer than so many times the fastest was disturbed by something else.
SLACK = 1.25

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Timing(NamedTuple):
    """Of one program: the median of the samples that count, and how many of all that were taken do."""

    seconds: float
    kept: int
    taken: int


def wait(device: str) -> None:
    """Until the device has done what it was asked to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def in_turn(
    programs: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each program in each round; a disturbance that lasts hits all of them alike."""
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            samples[name].append(seconds(program, device))
    return samples


def seconds(program: Callable[[], Any], device: str = "cpu") -> float:
    """One sample."""
    clock = time.process_time if clock_name(device) == "processor" else time.perf_counter
    wait(device)
    start = clock()
    program()
    wait(device)
    return clock() - start


def clock_name(device: str = "cpu") -> str:
    """A single thread is timed by the processor's clock, which stands still while others have their turn."""
    return "processor" if device == "cpu" and torch.get_num_threads() == 1 else "wall"


def timing(samples: Sequence[float], slack: float = SLACK) -> Timing:
    """The median without the disturbed samples."""
    kept = [sample for sample in samples if sample <= slack * min(samples)]
    return Timing(statistics.median(kept), len(kept), len(samples))


def peak_growth(call: Callable[[], Any], device: str = "cpu") -> int:
    """Bytes by which the peak of this process' memory grows; on a GPU, of what torch allocates there.

    On Linux the peak so far is forgotten first. Elsewhere it counts: what an earlier moment needed more than
    the last one before the call is then missing from the result.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget_peak()
    before = _peak(device)
    call()
    wait(device)
    return _peak(device) - before


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:  # Linux: getrusage would begin with what the process that started this one had at that moment
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    """On Linux: the peak is what the process has now."""
    try:
        FORGET.write_text("5")
    except OSError:
        pass


def fresh_process(*arguments: str) -> int:
    """The whole number that a Python process of its own prints last."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line that fits best."""
    return statistics.linear_regression(x, y).slope


def matmul_rate(device: str = "cpu", size: int = 1024, rounds: int = 7) -> float:
    """Floating-point operations per second in a product of two matrices, the best of several."""
    a, b = torch.rand(2, size, size, device=device)
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(rounds))


def copy_rate(device: str = "cpu", floats: int = 1 << 25, rounds: int = 7) -> float:
    """Bytes per second, read and written, of a copy that fits no cache; the best of several."""
    source, target = torch.ones(2, floats, device=device)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source), device) for _ in range(rounds))
