"""A 3 x 3 x 3 convolution of a volume that comes by a few planes at a time, each of them once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PlaneConvolution", "as_autocast", "wide"]

#: For a convolution's stride: the taps that even planes go through, and odd ones; or all, which are alike.
TAPS = {1: [(0, 1, 2)], 2: [(1,), (0, 2)]}


class PlaneConvolution:
    """A 3 x 3 x 3 convolution fed plane by plane: 3 x 3 convolutions of each, added where they belong.

    Args:
        kernel: (C1, C, 3, 3, 3); the padding is 1.
        stride: 1 or 2, in all directions. With 2, even planes come with even ones, odd ones with odd ones.

    Source: ours.

    >>> volume, kernel = torch.rand(1, 4, 6, 8, 8), torch.rand(3, 4, 3, 3, 3)
    >>> convolution = PlaneConvolution(kernel, stride=2)
    >>> result = convolution.result(1, 6, 8, 8)
    >>> for planes in (slice(0, 6, 2), slice(1, 3, 2), slice(3, 6, 2)):
    ...     convolution.add(volume[0, :, planes].transpose(0, 1), planes, result[0])
    >>> right = F.conv3d(volume, kernel, stride=2, padding=1)
    >>> torch.allclose(result.movedim(-1, 1), right, atol=1e-5)
    True
    """

    def __init__(self, kernel: Tensor, stride: int):
        self.kernel, self.stride = kernel, stride
        self.kernels = [torch.cat([kernel[:, :, tap] for tap in taps]) for taps in TAPS[stride]]
        self.gradients = [torch.zeros_like(flat) for flat in self.kernels]

    def result(self, B: int, D: int, h: int, w: int) -> Tensor:
        """Zeros to add to: (B, D, h, w, C1), of a volume of this size."""
        s = self.stride
        return self.kernel.new_zeros(B, D // s, h // s, w // s, len(self.kernel))

    def add(self, volume: Tensor, planes: slice, result: Tensor) -> None:
        """Add to the result (D, h, w, C1) the share of these planes of the volume, (n, C, h, w)."""
        kernel = self.kernels[planes.start % self.stride]
        out = F.conv2d(volume, kernel, stride=self.stride, padding=1).permute(0, 2, 3, 1)
        for part, (inside, there) in self._by_tap(out, planes, result):
            result[there] += part[inside]

    def backward(self, volume: Tensor, planes: slice, gradient: Tensor, others: Tensor | None) -> Tensor:
        """Gradient of these planes, from that of the result, added to others; the kernel's is added up."""
        number, geometry = planes.start % self.stride, ([self.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1)
        kernel = self.kernels[number]
        of_out = gradient.new_zeros(len(volume), *gradient.shape[1:3], len(kernel))
        for part, (inside, there) in self._by_tap(of_out, planes, gradient):
            part[inside] = gradient[there]
        of_volume, of_kernel, _ = torch.ops.aten.convolution_backward(
            of_out.permute(0, 3, 1, 2), volume, kernel, None, *geometry, [True, True, False]
        )
        self.gradients[number] += of_kernel
        return of_volume if others is None else others.add_(of_volume)

    def _by_tap(
        self, out: Tensor, planes: slice, result: Tensor
    ) -> Iterator[tuple[Tensor, tuple[slice, slice]]]:
        """What each tap gives, (n, h, w, C1); which planes of it there are in the result, and where."""
        step = (planes.step or 1) // self.stride
        taps = TAPS[self.stride][planes.start % self.stride]
        for tap, part in zip(taps, out.split(len(self.kernel), dim=-1), strict=True):
            yield part, _overlap((planes.start + 1 - tap) // self.stride, step, len(out), len(result))

    def gradient(self) -> Tensor:
        """The kernel's gradient."""
        gradient = torch.empty_like(self.kernel)
        for taps, flat in zip(TAPS[self.stride], self.gradients, strict=True):
            for tap, part in zip(taps, flat.split(len(self.kernel)), strict=True):
                gradient[:, :, tap] = part
        return gradient


def _overlap(first: int, step: int, count: int, size: int) -> tuple[slice, slice]:
    """Of so many planes, from a first (-1 or later) on: which lie in a volume of this size, and where."""
    skip, stop = int(first < 0), min(first + step * count, size)
    return slice(skip, len(range(first, stop, step))), slice(first + skip * step, stop, step)


def as_autocast(kernel: Tensor) -> Tensor:
    """A kernel as a convolution would take it here: rounded, under autocast.

    Args:
        kernel: of any shape.

    Returns:
        the same, or a copy in half precision.

    Source: ours.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     as_autocast(torch.ones(2)).dtype
    torch.bfloat16
    """
    kind = kernel.device.type
    return kernel.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else kernel


def wide(x: Tensor) -> Tensor:
    """At least float32.

    Args:
        x: of any shape.

    Returns:
        the same, or a copy.

    Source: ours.

    >>> wide(torch.ones(2, dtype=torch.float16)).dtype, wide(torch.ones(2).double()).dtype
    (torch.float32, torch.float64)
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
