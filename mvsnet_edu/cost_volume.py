"""The cost volume: how much the views disagree at every pixel and every depth."""

from __future__ import annotations

import torch
from torch import Tensor

from .homography import depth_warp, homography_warp, plane_homographies

__all__ = ["variance_cost_volume"]


def variance_cost_volume(
    features: Tensor, intrinsics: Tensor, extrinsics: Tensor, depth_values: Tensor
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
    mean = features[:, 0].unsqueeze(2)  # (B, C, 1, h, w), the same at every depth
    squares = torch.zeros_like(mean)
    for v in range(1, V):
        deviation = _warp(features, intrinsics, extrinsics, depth_values, v) - mean  # (B, C, D, h, w)
        mean = mean + deviation / (v + 1)
        squares = squares + deviation.square() * (v / (v + 1))
    return squares / V


def _warp(features: Tensor, intrinsics: Tensor, extrinsics: Tensor, depth_values: Tensor, v: int) -> Tensor:
    """View v's features at every hypothesis of the reference, (B, C, D, h, w)."""
    cameras = intrinsics[:, 0], extrinsics[:, 0], intrinsics[:, v], extrinsics[:, v]
    if depth_values.ndim == 4:
        return depth_warp(features[:, v], *cameras, depth_values)
    return homography_warp(features[:, v], plane_homographies(*cameras, depth_values))
