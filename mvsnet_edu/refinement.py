"""Depth-map refinement: a small network looks at the image and corrects the depth map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ConvBlock2d, Norm

__all__ = ["RefineNet", "depth_refine"]


class RefineNet(nn.Module):
    """(image (B, 3, h, w), normalised depth (B, 1, h, w)) -> refined normalised depth (B, 1, h, w).

    A residual network: it predicts a correction and adds it. The last layer is linear, so the correction may
    have either sign, and starts at zero, so an untrained network leaves the depth as it is (the original
    starts at random, about a third of the depth range off). Nothing is clipped.

    Args:
        norm: see :func:`mvsnet_edu.layers.normalization`; without a learned scale and shift, as in the
            original.

    Source: section 3.4 of the paper; ``cnn_wrapper/mvsnet.py:RefineNet``.

    >>> depth = torch.rand(2, 1, 5, 7)
    >>> torch.equal(RefineNet()(torch.rand(2, 3, 5, 7), depth), depth)
    True
    """

    def __init__(self, norm: Norm = "group"):
        super().__init__()
        self.body = nn.Sequential(
            ConvBlock2d(4, 32, norm=norm, affine=False),
            ConvBlock2d(32, 32, norm=norm, affine=False),
            ConvBlock2d(32, 32, norm=norm, affine=False),
        )
        self.residual = nn.Conv2d(32, 1, 3, padding=1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        """Standardised image (B, 3, h, w), depth in [0, 1] (B, 1, h, w) -> depth + residual (B, 1, h, w)."""
        return depth + self.residual(self.body(torch.cat([image, depth], dim=1)))


def depth_refine(
    init_depth_map: Tensor,
    image: Tensor,
    depth_num: int,
    depth_start: float | Tensor,
    depth_interval: float | Tensor,
    refine_net: nn.Module,
) -> Tensor:
    """Normalise the depth to [0, 1] over the range of the hypotheses, refine it, and scale it back.

    Because the network only ever sees [0, 1], a scene in metres and the same scene in millimetres give the
    same answer. The image is shrunk by averaging the pixels under each depth pixel.

    Args:
        init_depth_map: (B, 1, h, w), in world units.
        image: (B, 3, H, W), the standardised reference image, at any size.
        depth_num: number of depth hypotheses, D.
        depth_start: depth of the first hypothesis, a number or a tensor (B,).
        depth_interval: distance between hypotheses, a number or a tensor (B,).
        refine_net: (image (B, 3, h, w), depth (B, 1, h, w)) -> (B, 1, h, w), a :class:`RefineNet`.

    Returns:
        (B, 1, h, w), in world units. Gradients reach ``init_depth_map`` through the network and around it.

    Raises:
        ValueError: if the range of the hypotheses is empty (``depth_num`` below 2).

    Source: ``model.py:depth_refine``.

    >>> depth = torch.tensor([[[[2.0, 3.0]]]])
    >>> depth_refine(depth, torch.rand(1, 3, 4, 8), 5, 1.0, 0.5, RefineNet()).detach()
    tensor([[[[2., 3.]]]])
    """
    B, _, h, w = init_depth_map.shape
    if depth_num < 2:
        raise ValueError(f"normalising needs a range of at least two depth hypotheses, not {depth_num}")
    start = _per_image(depth_start, init_depth_map)  # (B or 1, 1, 1, 1)
    extent = _per_image(depth_interval, init_depth_map) * (depth_num - 1)
    small_image = F.interpolate(image, size=(h, w), mode="area")  # (B, 3, h, w)
    normalised = (init_depth_map - start) / extent
    return refine_net(small_image, normalised) * extent + start


def _per_image(value: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1, 1, 1)
