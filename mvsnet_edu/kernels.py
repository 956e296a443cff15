"""Warp and variance of a slab in one GPU kernel: nothing between the features and the result is stored.

:class:`mvsnet_edu.streaming.PlaneSweep` says what is computed, and computes it where this cannot. The kernel
is written in Triton, which PyTorch's builds for Linux bring along. Its logic is tested in Triton's
interpreter; how fast it is on a GPU has not been measured yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from .homography import NEAR

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["fused_spread", "usable"]

#: The first Triton that can do all that the kernel asks for.
OLDEST = 3, 2

#: Voxels that one program does. With 32 channels: 16 KiB of registers for the mean and the squares.
VOXELS = 64


def usable(table: Tensor) -> bool:
    """Whether :func:`fused_spread` can take these features: on a GPU, if it reads them, with a recent Triton.

    Args:
        table: (R, C), one row of features for each pixel.

    Returns:
        False: let PyTorch do it.

    Source: ours.

    >>> usable(torch.zeros(9, 32))
    False
    """
    C = table.shape[1]
    whole = C & (C - 1) == 0  # Triton's blocks have sizes that are powers of two
    known = table.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return table.is_cuda and whole and known and _recent()


def _recent() -> bool:
    """Whether there is a Triton, and no older one than :data:`OLDEST`."""
    if find_spec("triton") is None:
        return False
    import triton

    return TorchVersion(triton.__version__) >= OLDEST


def fused_spread(
    table: Tensor,
    reference: Tensor,
    rays: Sequence[tuple[Tensor, Tensor]],
    nearness: Tensor,
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sum over the views of the squared distances from their mean, at each voxel of a slab.

    Each program holds the mean and the squares of a few voxels in registers, in float32 whatever the features
    are, and reads four rows of the table from every source. No gradient passes through.

    Args:
        table: ((V (H + 2) (W + 2)), C), features with a border of zeros around each view; C a power of two.
        reference: (h, w) int32, the rows of the reference's pixels.
        rays: of each source (3, h, w) and (3,): a pixel's place in the table, homogeneous, is the first plus
            nearness times the second.
        nearness: (n, h, w) or (n, 1, 1), 1 / depth.
        shape: H and W.
        dtype: of the result, which is computed in float32 and rounded last.

    Returns:
        (n h w, C): V times the variance.

    Source: equation (2) of the paper.
    """
    (h, w), C, n = reference.shape, table.shape[1], len(nearness)
    far = torch.stack([far for far, _ in rays]).float().contiguous()  # (V - 1, 3, h, w)
    near = torch.stack([near for _, near in rays]).float().contiguous()  # (V - 1, 3)
    nearness = nearness.float().expand(n, h, w)  # strides of 0, no copies
    out = torch.empty(n * h * w, C, dtype=dtype, device=table.device)
    grid = -(-h * w // VOXELS), n
    tensors = table.contiguous(), reference.contiguous(), far, near, nearness, out
    sizes = *shape, h * w, w, *nearness.stride()
    _kernel()[grid](*tensors, *sizes, V=len(rays) + 1, C=C, VOXELS=VOXELS, NEAR=NEAR)
    return out


@cache
def _kernel() -> Any:
    """Triton is loaded where it is first needed; and the tests may ask for its interpreter before."""
    global tl
    import triton
    import triton.language as tl

    return triton.jit(_spread)


def _spread(
    table,  # (V * (H + 2) * (W + 2), C)
    reference,  # (h, w) int32
    far,  # (V - 1, 3, h, w) float32
    near,  # (V - 1, 3) float32
    nearness,  # (n, h, w) float32, strides below
    out,  # (n, h, w, C)
    H,
    W,
    pixels,
    w,
    stride_n,
    stride_y,
    stride_x,
    V: tl.constexpr,
    C: tl.constexpr,
    VOXELS: tl.constexpr,
    NEAR: tl.constexpr,
):
    """VOXELS pixels of one plane, all channels: Welford's update over the views."""
    pixel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    plane = tl.program_id(1).to(tl.int64)  # a slab may exceed 2^31 bytes
    inside = pixel < pixels
    channel = tl.arange(0, C)[None, :]
    place = plane * stride_n + (pixel // w) * stride_y + (pixel % w) * stride_x
    closeness = tl.load(nearness + place, mask=inside, other=1.0)
    row = tl.load(reference + pixel, mask=inside, other=0)
    mean = tl.load(table + row[:, None] * C + channel).to(tl.float32)
    squares = mean * 0.0
    for v in tl.static_range(1, V):
        ray, start = far + (v - 1) * 3 * pixels + pixel, near + (v - 1) * 3
        x = tl.load(ray, mask=inside, other=0.0) + tl.load(start) * closeness
        y = tl.load(ray + pixels, mask=inside, other=0.0) + tl.load(start + 1) * closeness
        z = tl.load(ray + 2 * pixels, mask=inside, other=1.0) + tl.load(start + 2) * closeness
        in_front = z > NEAR
        x = tl.where(in_front, x / tl.where(in_front, z, 1.0), 0.0)  # 0 lies in the border of zeros
        y = tl.where(in_front, y / tl.where(in_front, z, 1.0), 0.0)
        x = tl.minimum(tl.maximum(x, 0.0), W + 1.0)
        y = tl.minimum(tl.maximum(y, 0.0), H + 1.0)
        left, top = tl.minimum(x.to(tl.int32), W), tl.minimum(y.to(tl.int32), H)
        corner = (v * (H + 2) + top) * (W + 2) + left
        value = mean * 0.0
        for tap in tl.static_range(4):
            weight_x = x - left if tap % 2 else 1 - (x - left)
            weight_y = y - top if tap // 2 else 1 - (y - top)
            there = corner + (tap // 2) * (W + 2) + tap % 2
            read = tl.load(table + there[:, None] * C + channel).to(tl.float32)
            value += (weight_x * weight_y)[:, None] * read
        deviation = value - mean
        mean += deviation / (v + 1)
        squares += deviation * deviation * (v / (v + 1))
    voxel = plane * pixels + pixel
    tl.store(out + voxel[:, None] * C + channel, squares, mask=inside[:, None])
