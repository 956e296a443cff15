"""Refinement of a depth map without learning: each pixel moves to where the photographs agree best."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .homography import depth_warp

__all__ = ["variational_refinement", "photo_inconsistency"]

#: Windows of so many pixels are compared.
WINDOW = 5
#: Contrast, in grey levels of [0, 1], at which a window says nothing.
NOISE = 0.01


def variational_refinement(
    depth: Tensor,
    images: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    interval: float | Tensor,
    rounds: int = 3,
    smoothness: float = 0.02,
) -> Tensor:
    """Lower an energy: how much the photographs contradict the depth, and how rough it is.

    In each round, the contradiction is measured at the depth, a step before and a step behind it. Through the
    three values goes a parabola. Where it opens upwards, its lowest point attracts the depth, at most by the
    step, the more the steeper it is; and so do the neighbours, the more the more alike they look. The step is
    half an interval at first, and halves with every round. So no pixel moves by more than an interval: this
    adds precision and repairs nothing.

    Args:
        depth: (B, h, w), in world units.
        images: (B, V, 3, h, w), RGB in [0, 1], at the size of the depth map; view 0 is the reference.
        intrinsics: (B, V, 3, 3), in pixels of the depth map.
        extrinsics: (B, V, 4, 4), world to camera.
        interval: how far off the depth may be, a number or a tensor (B,).
        rounds: how often.
        smoothness: weight of the neighbours; 0 leaves each pixel to itself, which makes most maps worse.

    Returns:
        (B, h, w).

    Raises:
        ValueError: if images and depth map differ in size.

    Source: section 3.4 of the R-MVSNet paper, whose code was never released; this is not the same energy.

    >>> K, pose = torch.eye(3).expand(1, 2, 3, 3), torch.eye(4).expand(1, 2, 4, 4)
    >>> depth = torch.full((1, 8, 9), 2.0)
    >>> refined = variational_refinement(depth, torch.rand(1, 2, 3, 8, 9), K, pose, 0.1)
    >>> torch.equal(refined, depth)  # cameras in one place say nothing about depth
    True
    """
    if images.shape[-2:] != depth.shape[-2:]:
        (H, W), (h, w) = images.shape[-2:], depth.shape[-2:]
        raise ValueError(f"images of {W} x {H} pixels must have the size of the depth map, {w} x {h}")
    step = torch.as_tensor(interval, dtype=depth.dtype, device=depth.device).reshape(-1, 1, 1) / 2
    likeness = smoothness * _likeness(images[:, 0])  # (B, 4, h, w)
    for _ in range(rounds):
        around = torch.stack([depth - step, depth, depth + step], dim=1)  # (B, 3, h, w)
        before, here, behind = photo_inconsistency(around, images, intrinsics, extrinsics).unbind(dim=1)
        bend = (before - 2 * here + behind).clamp(min=0)  # (B, h, w)
        move = ((before - behind) / (2 * bend).clamp(min=1e-6)).clamp(-1, 1)
        goals = torch.cat([(depth + move * step).unsqueeze(1), _neighbours(depth)], dim=1)  # (B, 5, h, w)
        weights = torch.cat([bend.unsqueeze(1), likeness], dim=1)
        total = weights.sum(dim=1)
        goal = (weights * goals).sum(dim=1) / total.clamp(min=1e-6)
        depth = torch.where(total > 1e-6, goal.clamp(depth - step, depth + step), depth)
        step = step / 2
    return depth


def photo_inconsistency(depths: Tensor, images: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    """How little the photographs agree at given depths of each pixel: 1 minus the correlation of windows.

    Correlation does not mind a gain or an offset between two photographs. Of the sources, the better half
    counts: a pixel may be hidden from the others.

    Args:
        depths: (B, K, h, w), hypotheses of each pixel, in world units.
        images: (B, V, 3, h, w), RGB in [0, 1]; view 0 is the reference.
        intrinsics: (B, V, 3, 3), in pixels of these images.
        extrinsics: (B, V, 4, 4), world to camera.

    Returns:
        (B, K, h, w), from 0 (alike) to 2; 1 where windows are flat or outside a source.

    Source: normalised cross-correlation, as in the R-MVSNet paper.

    >>> K, pose = torch.eye(3).expand(1, 2, 3, 3), torch.eye(4).expand(1, 2, 4, 4)
    >>> image = torch.rand(1, 1, 3, 8, 9).expand(1, 2, 3, 8, 9)
    >>> photo_inconsistency(torch.ones(1, 1, 8, 9), image, K, pose).mean() < 0.05
    tensor(True)
    """
    grey = images.mean(dim=2, keepdim=True)  # (B, V, 1, h, w)
    costs = []
    for v in range(1, images.shape[1]):
        cameras = intrinsics[:, 0], extrinsics[:, 0], intrinsics[:, v], extrinsics[:, v]
        source = depth_warp(grey[:, v], *cameras, depths)[:, 0]  # (B, K, h, w)
        seen = depth_warp(torch.ones_like(grey[:, v]), *cameras, depths)[:, 0] > 0.999
        costs.append(torch.where(seen, 1 - _correlation(grey[:, 0], source), 1))
    best, _ = torch.stack(costs).sort(dim=0)  # (V - 1, B, K, h, w)
    return best[: (len(costs) + 1) // 2].mean(dim=0)


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of the windows around each pixel, (B, 1, h, w) and (B, K, h, w) -> (B, K, h, w), in [-1, 1]."""
    mean_one, mean_other = _window(one), _window(other)
    both = _window(one * other) - mean_one * mean_other
    variance = _window(one * one) - mean_one**2, _window(other * other) - mean_other**2
    deviations = [(each.clamp(min=0) + NOISE**2).sqrt() for each in variance]
    return both / (deviations[0] * deviations[1])


def _window(x: Tensor) -> Tensor:
    """Means over windows; fewer pixels at the edges of the image."""
    return F.avg_pool2d(x, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)


def _neighbours(depth: Tensor) -> Tensor:
    """Left, right, above, below: (B, h, w) -> (B, 4, h, w); the pixel itself beyond an edge."""
    padded = F.pad(depth.unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    sides = (padded[..., 1:-1, :-2], padded[..., 1:-1, 2:], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1])
    return torch.cat(sides, dim=1)


def _likeness(image: Tensor) -> Tensor:
    """How alike the four neighbours look, (B, 3, h, w) -> (B, 4, h, w), in (0, 1]."""
    grey = image.mean(dim=1)
    return torch.exp(-(_neighbours(grey) - grey.unsqueeze(1)).abs() / 0.05)
