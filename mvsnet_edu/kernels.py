"""The cost volume in one GPU kernel: warp and variance, and nothing in between is ever stored.

:func:`mvsnet_edu.cost_volume.variance_cost_volume` says what is computed, and computes it where this cannot.
The kernel is written in Triton, which PyTorch's builds for Linux bring along. Its logic is tested in Triton's
interpreter; how fast it is on a GPU has not been measured yet.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .camera import crop_intrinsics
from .cost_volume import Window
from .homography import NEAR

try:
    import triton
    import triton.language as tl
except ImportError:  # not on Linux, or a build of PyTorch for the CPU
    triton = None

__all__ = ["fused_variance", "usable"]

#: Reference pixels that one program does. With 32 channels: 16 KiB of registers for the mean and the squares.
PIXELS = 64


def usable(features: Tensor) -> bool:
    """Whether :func:`fused_variance` can take these features: on a GPU, without gradients, in a precision
    that it reads.

    Args:
        features: (B, V, C, h, w).

    Returns:
        False: use :func:`mvsnet_edu.cost_volume.variance_cost_volume`.

    Source: ours.

    >>> usable(torch.zeros(1, 2, 32, 4, 5))
    False
    """
    C = features.shape[2]
    learning = torch.is_grad_enabled() and features.requires_grad
    whole_warps = C & (C - 1) == 0  # Triton's blocks have sizes that are powers of two
    known = features.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return triton is not None and features.is_cuda and not learning and whole_warps and known


def fused_variance(
    features: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    depth_values: Tensor,
    window: Window | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """:func:`mvsnet_edu.cost_volume.variance_cost_volume` in one kernel, without gradients.

    Each program holds the mean and the squares of a few pixels at one depth in registers, in float32
    whatever the features are, and reads four taps from every source. Features that lie channels last
    (their permutation (B, V, h, w, C) is contiguous) are read where they are; others are copied first.

    Args:
        features: (B, V, C, h, w), C a power of two; view 0 is the reference.
        intrinsics: (B, V, 3, 3), in pixels of the feature maps.
        extrinsics: (B, V, 4, 4), world to camera.
        depth_values: (B, D), or (B, D, h, w) for hypotheses of each pixel's own.
        window: (top, left, height, width) of the part of the reference to do; all of it if None.
        dtype: of the result; the variance is computed in float32 and rounded last.

    Returns:
        (B, C, D, h, w), channels last in memory.

    Raises:
        ValueError: with fewer than two views.

    Source: equation (2) of the paper.
    """
    B, V, C, H, W = features.shape
    if V < 2:
        raise ValueError(f"a cost volume compares at least two views, not {V}")
    top, left, height, width = window or (0, 0, H, W)
    D = depth_values.shape[1]
    reference = crop_intrinsics(intrinsics[:, 0], left, top)
    rays = _rays(reference, extrinsics[:, 0], intrinsics, extrinsics)  # (B, V, 3, 4)
    if depth_values.ndim == 2:
        depth_values = depth_values[..., None, None]
    depths = depth_values.float().expand(B, D, height, width)  # strides of 0, no copies
    last = features.permute(0, 1, 3, 4, 2).contiguous()  # (B, V, H, W, C)
    out = torch.empty(B, D, height, width, C, dtype=dtype, device=features.device)
    grid = -(-height * width // PIXELS), D, B
    sizes = H, W, top, left, height, width, D
    _kernel()[grid](last, rays, depths, out, *sizes, *depths.stride(), V=V, C=C, PIXELS=PIXELS, NEAR=NEAR)
    return out.permute(0, 4, 1, 2, 3)


def _rays(reference: Tensor, pose: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    """(B, V, 3, 4) float32: a pixel (x, y, 1) at depth z lies in view v at [far | near] (x, y, 1, 1 / z)."""
    relative = extrinsics.double() @ torch.linalg.inv(pose.double())[:, None]  # (B, V, 4, 4)
    K = intrinsics.double()
    far = K @ relative[..., :3, :3] @ torch.linalg.inv(reference.double())[:, None]
    return torch.cat([far, K @ relative[..., :3, 3:]], dim=-1).float().contiguous()


@cache
def _kernel() -> Any:
    """Compiled where it is first called, so that the tests may ask for the interpreter instead."""
    return triton.jit(_warp_variance)


def _warp_variance(
    features,  # (B, V, H, W, C)
    rays,  # (B, V, 3, 4) float32
    depths,  # (B, D, height, width) float32, strides below
    out,  # (B, D, height, width, C)
    H,
    W,
    top,
    left,
    height,
    width,
    D,
    depth_b,
    depth_d,
    depth_y,
    depth_x,
    V: tl.constexpr,
    C: tl.constexpr,
    PIXELS: tl.constexpr,
    NEAR: tl.constexpr,
):
    """PIXELS pixels of one depth of one sample, all channels: Welford's update over the views."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    d, b = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)  # volumes exceed 2^31 bytes
    inside = pixel < height * width
    row, column = pixel // width, pixel % width
    channel = tl.arange(0, C)[None, :]
    z = tl.load(depths + b * depth_b + d * depth_d + row * depth_y + column * depth_x, mask=inside, other=1.0)
    x, y = column + 0.5, row + 0.5
    here = (b * V * H + row + top) * W + column + left
    mean = tl.load(features + here[:, None] * C + channel, mask=inside[:, None], other=0.0).to(tl.float32)
    squares = mean * 0.0
    for v in tl.static_range(1, V):
        ray = rays + (b * V + v) * 12
        source_x = tl.load(ray) * x + tl.load(ray + 1) * y + tl.load(ray + 2) + tl.load(ray + 3) / z
        source_y = tl.load(ray + 4) * x + tl.load(ray + 5) * y + tl.load(ray + 6) + tl.load(ray + 7) / z
        source_z = tl.load(ray + 8) * x + tl.load(ray + 9) * y + tl.load(ray + 10) + tl.load(ray + 11) / z
        in_front = source_z > NEAR
        safe_z = tl.where(in_front, source_z, 1.0)
        u = tl.minimum(tl.maximum(source_x / safe_z - 0.5, -2.0), W + 1.0)  # beyond, all taps are outside
        t = tl.minimum(tl.maximum(source_y / safe_z - 0.5, -2.0), H + 1.0)
        first_x, first_y = tl.floor(u), tl.floor(t)
        value = mean * 0.0
        for tap in tl.static_range(4):
            at_x, at_y = first_x.to(tl.int32) + tap % 2, first_y.to(tl.int32) + tap // 2
            weight_x = u - first_x if tap % 2 else 1 - (u - first_x)
            weight_y = t - first_y if tap // 2 else 1 - (t - first_y)
            seen = inside & in_front & (at_x >= 0) & (at_x < W) & (at_y >= 0) & (at_y < H)
            there = ((b * V + v) * H + at_y) * W + at_x
            read = tl.load(features + there[:, None] * C + channel, mask=seen[:, None], other=0.0)
            value += (weight_x * weight_y)[:, None] * read.to(tl.float32)
        deviation = value - mean
        mean += deviation / (v + 1)
        squares += deviation * deviation * (v / (v + 1))
    place = (b * D + d) * height * width + pixel
    tl.store(out + place[:, None] * C + channel, squares / V, mask=inside[:, None])
