"""Depth from enlarged images: a network is as precise as its feature pixels are small."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from .camera import scale_intrinsics
from .models import DepthEstimate

__all__ = ["enlarge_images", "estimate_enlarged", "pool_estimate"]


def enlarge_images(images: Tensor, times: int) -> Tensor:
    """Images with more pixels and no more detail.

    Args:
        images: (..., 3, H, W), in [0, 1].
        times: how many times as wide and as high.

    Returns:
        (..., 3, times * H, times * W), in [0, 1], by bicubic interpolation.

    Source: ours.

    >>> import torch
    >>> enlarge_images(torch.full((1, 2, 3, 4, 5), 0.5), 2).shape
    torch.Size([1, 2, 3, 8, 10])
    """
    flat = images.flatten(0, -4) if images.ndim > 3 else images[None]  # (N, 3, H, W)
    enlarged = F.interpolate(flat, scale_factor=times, mode="bicubic", align_corners=False)
    return enlarged.clamp(0, 1).reshape(*images.shape[:-2], *enlarged.shape[-2:])


def pool_estimate(estimate: DepthEstimate, times: int) -> DepthEstimate:
    """One pixel from every block of ``times`` x ``times``: the mean of its depths, each as it is trusted.

    Where a depth edge runs through a block, the side that is trusted more has more to say.

    Args:
        estimate: maps of (B, times * h, times * w).
        times: side of a block.

    Returns:
        maps of (B, h, w).

    Source: ours.

    >>> import torch
    >>> depth, trust = torch.tensor([[[1.0, 1.0], [1.0, 5.0]]]), torch.tensor([[[0.5, 0.5], [0.5, 0.0]]])
    >>> pool_estimate(DepthEstimate(depth, trust, None), 2).depth
    tensor([[[1.0000]]])
    """
    trust = estimate.probability_map
    weights = trust.detach() + 1e-6  # a block that nothing is known about still has a mean
    total = F.avg_pool2d(weights, times)

    def pooled(depth: Tensor) -> Tensor:
        return F.avg_pool2d(depth * weights, times) / total

    refined = None if estimate.refined_depth is None else pooled(estimate.refined_depth)
    return DepthEstimate(pooled(estimate.depth), F.avg_pool2d(trust, times), refined)


def estimate_enlarged(
    network: Callable[..., DepthEstimate],
    images: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    depth_values: Tensor,
    times: int = 2,
) -> DepthEstimate:
    """What a network says of images after they were enlarged, in maps as large as without.

    Sub-pixel precision comes to an end at a few hundredths of a *feature* pixel, which is four image pixels
    wide. In an enlarged image it is half as wide, say, and so is the error; the price is ``times`` squared.

    Args:
        network: an MVSNet, or anything that is called alike.
        images: (B, V, 3, H, W), RGB in [0, 1]; view 0 is the reference.
        intrinsics: (B, V, 3, 3), in pixels of the images.
        extrinsics: (B, V, 4, 4), world to camera.
        depth_values: (B, D), in world units.
        times: how many times as wide and as high.

    Returns:
        depth, probability map and refined depth of (B, H // 4, W // 4).

    Source: ours.

    >>> import torch
    >>> from mvsnet_edu import MVSNet
    >>> images, K, pose = torch.rand(1, 2, 3, 32, 48), torch.eye(3).expand(1, 2, 3, 3), torch.eye(4)
    >>> estimate = estimate_enlarged(MVSNet(), images, K, pose.expand(1, 2, 4, 4), torch.ones(1, 8).cumsum(1))
    >>> estimate.depth.shape
    torch.Size([1, 8, 12])
    """
    if times == 1:
        return network(images, intrinsics, extrinsics, depth_values)
    larger = enlarge_images(images, times), scale_intrinsics(intrinsics, float(times))
    return pool_estimate(network(*larger, extrinsics, depth_values), times)
