"""The cost volume: how much the views disagree at every pixel and every depth."""

from __future__ import annotations

import torch
from torch import Tensor

from .camera import crop_intrinsics
from .homography import depth_warp, homography_warp, plane_homographies

__all__ = ["variance_cost_volume"]


#: The part of the reference's feature map to look at: top, left, height and width.
Window = tuple[int, int, int, int]


def variance_cost_volume(
    features: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    depth_values: Tensor,
    window: Window | None = None,
) -> Tensor:
    """Variance over the views of the features that meet at each depth hypothesis of each reference pixel.

    Views are taken up one at a time (Welford's update), so memory does not grow with their number, nothing
    cancels, the result is never negative, and identical views give exactly 0. Half precision is raised to
    float32.

    Args:
        features: (B, V, C, h, w); view 0 is the reference.
        intrinsics: (B, V, 3, 3), in pixels of the feature maps.
        extrinsics: (B, V, 4, 4), world to camera.
        depth_values: (B, D), or (B, D, h, w) for hypotheses of each pixel's own.
        window: (top, left, height, width) of the part of the reference to do; h and w are then the part's,
            here and in ``depth_values``. All of it if None.

    Returns:
        (B, C, D, h, w): the biased variance (divided by V), over all views, whether they see the point or
        not.

    Raises:
        ValueError: with fewer than two views.

    Source: equation (2) of the paper; ``model.py:inference``.

    >>> features = torch.rand(1, 1, 4, 5, 6).expand(1, 3, 4, 5, 6)
    >>> K, pose = torch.eye(3).expand(1, 3, 3, 3), torch.eye(4).expand(1, 3, 4, 4)
    >>> variance_cost_volume(features, K, pose, torch.tensor([[1.0, 2.0]])).abs().max()
    tensor(0.)
    """
    B, V, C, h, w = features.shape
    if V < 2:
        raise ValueError(f"a cost volume compares at least two views, not {V}")
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    top, left, height, width = window or (0, 0, h, w)
    mean = features[:, 0, :, None, top : top + height, left : left + width]  # (B, C, 1, h, w), at every depth
    ref_intrinsics = crop_intrinsics(intrinsics[:, 0], left, top)
    squares = torch.zeros_like(mean)
    for v in range(1, V):
        cameras = ref_intrinsics, extrinsics[:, 0], intrinsics[:, v], extrinsics[:, v]
        deviation = _warp(features[:, v], cameras, depth_values, (height, width)) - mean  # (B, C, D, h, w)
        mean = mean + deviation / (v + 1)
        squares = squares + deviation.square() * (v / (v + 1))
    return squares / V


def _warp(
    features: Tensor, cameras: tuple[Tensor, ...], depth_values: Tensor, size: tuple[int, int]
) -> Tensor:
    """A source's features (B, C, h, w) at every hypothesis of a reference of this size, (B, C, D, *size)."""
    if depth_values.ndim == 4:
        return depth_warp(features, *cameras, depth_values)
    return homography_warp(features, plane_homographies(*cameras, depth_values), size)
