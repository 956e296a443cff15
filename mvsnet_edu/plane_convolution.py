"""A 3 x 3 x 3 convolution of a volume that comes by a few planes at a time, each of them once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PlaneConvolution", "as_autocast", "wide"]

#: For a convolution's stride: which planes it reads alike (every stride-th, from which on), with which taps.
READS = {1: [(0, (0, 1, 2))], 2: [(0, (1,)), (1, (0, 2))]}


class PlaneConvolution:
    """A 3 x 3 x 3 convolution fed plane by plane: 3 x 3 convolutions of each, added where they belong.

    Args:
        kernel: (C1, C, 3, 3, 3); the padding is 1.
        stride: 1 or 2, in all directions.

    Source: ours.

    >>> volume, kernel = torch.rand(1, 4, 6, 8, 8), torch.rand(3, 4, 3, 3, 3)
    >>> convolution = PlaneConvolution(kernel, stride=1)
    >>> result = convolution.result(1, 6, 8, 8)
    >>> for planes in (slice(0, 4), slice(4, 6)):
    ...     convolution.add(volume[0, :, planes].transpose(0, 1), planes.start, result[0])
    >>> torch.allclose(result.movedim(-1, 1), F.conv3d(volume, kernel, padding=1), atol=1e-5)
    True
    """

    def __init__(self, kernel: Tensor, stride: int):
        self.kernel, self.stride = kernel, stride
        self.kernels = [torch.cat([kernel[:, :, tap] for tap in taps]) for _, taps in READS[stride]]
        self.gradients = [torch.zeros_like(flat) for flat in self.kernels]

    def result(self, B: int, D: int, h: int, w: int) -> Tensor:
        """Zeros to add to: (B, D, h, w, C1), of a volume of this size."""
        s = self.stride
        return self.kernel.new_zeros(B, D // s, h // s, w // s, len(self.kernel))

    def _reads(self, first: int, count: int) -> Iterator[tuple[int, slice, list[int]]]:
        """Number of a kernel, which of these planes it reads, the result's plane where each tap begins."""
        for number, (phase, taps) in enumerate(READS[self.stride]):
            skip = (phase - first) % self.stride
            if skip < count:
                yield (
                    number,
                    slice(skip, None, self.stride),
                    [(first + skip + 1 - tap) // self.stride for tap in taps],
                )

    def add(self, volume: Tensor, first: int, result: Tensor) -> None:
        """Add to the result (D, h, w, C1) the share of planes (n, C, h, w) of the volume, from a first on."""
        for number, planes, starts in self._reads(first, len(volume)):
            out = F.conv2d(volume[planes], self.kernels[number], stride=self.stride, padding=1).permute(
                0, 2, 3, 1
            )
            for start, part in zip(starts, out.split(len(self.kernel), dim=-1), strict=True):
                low, high = max(start, 0), min(start + len(part), len(result))
                result[low:high] += part[low - start : high - start]

    def backward(self, volume: Tensor, first: int, gradient: Tensor, others: Tensor | None) -> Tensor:
        """Gradient of these planes, from that of the result, added to others; the kernel's is added up."""
        of_volume = torch.zeros_like(volume) if others is None and self.stride > 1 else others
        geometry = [self.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        for number, planes, starts in self._reads(first, len(volume)):
            x = volume[planes]
            of_out = torch.cat([_padded(gradient, start, len(x)) for start in starts], dim=-1).permute(
                0, 3, 1, 2
            )
            of_x, of_kernel, _ = torch.ops.aten.convolution_backward(
                of_out, x, self.kernels[number], None, *geometry, [True, True, False]
            )
            if of_volume is None:  # with stride 1 there is one part, of all planes
                of_volume = of_x
            else:
                of_volume[planes] += of_x
            self.gradients[number] += of_kernel
        return of_volume

    def gradient(self) -> Tensor:
        """The kernel's gradient."""
        gradient = torch.empty_like(self.kernel)
        for (_, taps), flat in zip(READS[self.stride], self.gradients, strict=True):
            for tap, part in zip(taps, flat.split(len(self.kernel)), strict=True):
                gradient[:, :, tap] = part
        return gradient


def _padded(planes: Tensor, start: int, count: int) -> Tensor:
    """So many planes from a start on, zeros where there are none."""
    low, high = max(start, 0), min(start + count, len(planes))
    return F.pad(planes[low:high], (0, 0, 0, 0, 0, 0, low - start, start + count - high))


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
