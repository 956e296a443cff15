"""Inner loops in C, compiled where there is a compiler: results are written once, and nothing else.

:class:`mvsnet_edu.streaming.Slab` says what is computed of the sweep, and computes it where this cannot.
PyTorch needs a dozen operations for it, each of which writes a slab and reads it again; and it is slow at
doubling a volume's size. The C sources lie beside this file; they take half a second to compile, at the first
use in a process, into a folder that is gone right away.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .homography import NEAR

__all__ = ["NativeSlab", "available", "moments", "upsampled"]

#: Channels that C does at once.
LANES = 8
#: For a processor like this one, if the compiler knows how.
FLAGS = (["-O3", "-march=native"], ["-O3"])


def available(x: Tensor) -> bool:
    """Whether C can take this: float32, on the CPU, with a C compiler about.

    Args:
        x: (..., C), such as a row of features for each pixel; C a multiple of eight.

    Returns:
        False: let PyTorch do it.

    Source: ours.

    >>> available(torch.zeros(9, 32, dtype=torch.float64))
    False
    """
    if torch.compiler.is_compiling():  # it sees no numbers, and neither would C
        return False
    known = x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[-1] % LANES == 0
    return known and _library() is not None


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled sources, or None."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return next(filter(None, (_compiled(compiler, flags) for flags in FLAGS)), None) if compiler else None


def _compiled(compiler: str, flags: list[str]) -> ctypes.CDLL | None:
    sources = map(str, sorted(Path(__file__).parent.glob("*.c")))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = Path(folder) / "native.so"
        command = [compiler, *flags, "-std=gnu11", "-shared", "-fPIC", *sources, "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=600)  # if all is busy
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.SubprocessError):
            return None


def _in_parallel(lines: int, work: Callable[[int, int, int], None]) -> None:
    """Give each thread its number and its share of the lines; C runs without Python's lock."""
    threads = torch.get_num_threads()
    bounds = [lines * k // threads for k in range(threads + 1)]
    if threads == 1:
        return work(0, *bounds)
    list(_pool(threads).map(work, range(threads), bounds, bounds[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _pointer(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


class _Sweep(ctypes.Structure):
    """As in sweep.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("sources", "channels", "H", "W", "n", "h", "w")),
        ("strides", ctypes.c_int64 * 3),
        ("closest", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("table", "reference", "far", "near", "nearness")),
    ]


class NativeSlab:
    """Some planes of a sweep, in the memory that C reads.

    Args:
        table: ((V (H + 2) (W + 2)), C), features with a border of zeros around each view.
        reference: (h, w) int32, the rows of the reference's pixels.
        rays: of each source (3, h, w) and (3,): a pixel's place in the table, homogeneous, is the first plus
            nearness times the second.
        nearness: (n, h, w) or (n, 1, 1), 1 / depth.
        shape: H and W.

    Source: equation (2) of the paper.
    """

    def __init__(
        self,
        table: Tensor,
        reference: Tensor,
        rays: Sequence[tuple[Tensor, Tensor]],
        nearness: Tensor,
        shape: tuple[int, int],
    ):
        (h, w), n = reference.shape, len(nearness)
        nearness = nearness.expand(n, h, w)  # strides of 0, no copies
        far, near = (torch.stack(part) for part in zip(*rays, strict=True))
        self.tensors = [x.contiguous() for x in (table, reference, far, near)] + [nearness]
        sizes = len(rays), table.shape[1], *shape, n, h, w
        strides = (ctypes.c_int64 * 3)(*nearness.stride())
        self.sweep = _Sweep(*sizes, strides, NEAR, *(x.data_ptr() for x in self.tensors))
        self.lines, self.size = n * h, (n * h * w, table.shape[1])

    def spread(self) -> Tensor:
        """V times the variance at each voxel, (N, C)."""
        out = self.tensors[0].new_empty(self.size)
        _in_parallel(self.lines, lambda _, *lines: _library().spread(*self._at(*lines), _pointer(out)))
        return out

    def add_gradient(self, gradient: Tensor, of_table: Tensor) -> None:
        """Add half of what the gradient (N, C) of :meth:`spread` makes of the table's."""
        gradient = gradient.contiguous()
        parts = [of_table] + [torch.zeros_like(of_table) for _ in range(torch.get_num_threads() - 1)]

        def add(part: int, first: int, last: int) -> None:
            _library().gradient(*self._at(first, last), _pointer(gradient), _pointer(parts[part]))

        _in_parallel(self.lines, add)
        for part in parts[1:]:
            of_table += part

    def _at(self, first: int, last: int) -> tuple:
        return ctypes.byref(self.sweep), ctypes.c_int64(first), ctypes.c_int64(last)


class _Upsampling(ctypes.Structure):
    """As in upsampling.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("channels", "result_channels", "D", "h", "w")),
        ("strides", ctypes.c_int64 * 4),
        ("start", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("x", "kernel", "result")),
    ]


def upsampled(x: Tensor, taps: Tensor, planes: slice) -> Tensor:
    """Some planes of a transposed convolution that doubles the size.

    Args:
        x: (C, D, h, w), what is convolved.
        taps: (3, 3, 3, C, C1), the kernel, contiguous in this order; see :func:`available`.
        planes: which, of 2 D.

    Returns:
        (n, 2 h, 2 w, C1), as :func:`torch.nn.functional.conv_transpose3d` makes them with stride 2, padding 1
        and output padding 1.

    Source: ours.

    >>> taps = torch.arange(27.0).view(3, 3, 3, 1, 1).repeat(1, 1, 1, 1, 8)
    >>> if available(taps):  # voxel 4 of a line sees what voxel 2 was through the tap in the middle
    ...     assert upsampled(torch.ones(1, 2, 3, 4), taps, slice(0, 4))[0, 0, 4, 0] == 13
    """
    C, D, h, w = x.shape
    out = x.new_empty(planes.stop - planes.start, 2 * h, 2 * w, taps.shape[-1])
    sizes, strides = (C, taps.shape[-1], D, h, w), (ctypes.c_int64 * 4)(*x.stride())
    what = _Upsampling(*sizes, strides, planes.start, *(each.data_ptr() for each in (x, taps, out)))
    _in_parallel(
        2 * h * len(out),
        lambda _, *lines: _library().upsample(ctypes.byref(what), *map(ctypes.c_int64, lines)),
    )
    return out


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, in one pass.

    Args:
        x: (N, C), contiguous; see :func:`available`.

    Returns:
        (C,) each.

    Source: ours.

    >>> x = torch.rand(100, 8)
    >>> not available(x) or torch.allclose(moments(x)[1], x.var(0, correction=0))
    True
    """
    sums = torch.zeros(torch.get_num_threads(), 2, x.shape[1], dtype=torch.float64)

    def add(part: int, *bounds: int) -> None:
        numbers = map(ctypes.c_int64, (x.shape[1], *bounds))
        _library().moments(_pointer(x), *numbers, _pointer(sums[part]))

    _in_parallel(len(x), add)
    first, second = sums.sum(0) / len(x)  # counted from the first of the N
    return (x[0] + first).float(), (second - first.square()).float()
