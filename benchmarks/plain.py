"""MVSNet as its public PyTorch ports write it, with the weights and the conventions of the package.

Every source is warped onto all planes at once and stored; the volumes of sums and of sums of squares are
filled in place; the variance goes through the 3D network as a whole. This is what the package's speed is
compared with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsnet_edu import CostRegNet, FeatureNet, MVSNet, scale_intrinsics, standardize
from mvsnet_edu.features import STRIDE
from mvsnet_edu.models import DepthEstimate


def plain_forward(
    network: MVSNet, images: Tensor, intrinsics: Tensor, extrinsics: Tensor, depth_values: Tensor
) -> DepthEstimate:
    """The same as ``network(...)``, for depth values (B, D) that are equally far apart."""
    images = standardize(images)
    features = [plain_features(network.feature_net, view) for view in images.unbind(1)]  # V of (B, 32, h, w)
    volume = plain_volume(features, scale_intrinsics(intrinsics, 1 / STRIDE), extrinsics, depth_values)
    probability = F.softmax(-plain_regularization(network.cost_reg_net, volume), dim=1)  # (B, D, h, w)
    depth = (probability * depth_values[..., None, None]).sum(1)  # (B, h, w)
    trust = plain_probability_map(probability)
    return DepthEstimate(depth, trust, network.refine(depth, images[:, 0], depth_values))


def plain_features(network: FeatureNet, image: Tensor) -> Tensor:
    """Layer by layer, one channel after the other in memory; the image's sizes are multiples of 16."""
    return network.tail(network.head(image.contiguous()))


def plain_regularization(network: CostRegNet, x: Tensor) -> Tensor:
    """The 3D U-Net in PyTorch's own layers; (B, 32, D, h, w), multiples of 8 -> (B, D, h, w)."""
    skip0, x1 = _block(network.conv0_1, x), _block(network.conv1_0, x)
    skip1, x2 = _block(network.conv1_1, x1), _block(network.conv2_0, x1)
    skip2, x3 = _block(network.conv2_1, x2), _block(network.conv3_1, _block(network.conv3_0, x2))
    x = _block(network.conv5_0, _block(network.conv4_0, x3) + skip2) + skip1
    x = _block(network.conv6_0, x) + skip0
    return F.conv3d(x, network.conv6_2.weight, padding=1).squeeze(1)


def _block(block: nn.Sequential, x: Tensor) -> Tensor:
    convolution, norm, _ = block
    if isinstance(convolution, nn.ConvTranspose3d):
        x = F.conv_transpose3d(x, convolution.weight, stride=2, padding=1, output_padding=1)
    else:
        x = F.conv3d(x, convolution.weight, stride=convolution.stride, padding=1)
    return F.relu(norm(x), inplace=True)


def plain_volume(
    features: list[Tensor], intrinsics: Tensor, extrinsics: Tensor, depth_values: Tensor
) -> Tensor:
    """Variance as the mean of squares less the square of the mean, (B, C, D, h, w)."""
    V, D = len(features), depth_values.shape[1]
    projections = extrinsics.clone()  # (B, V, 4, 4): world to homogeneous pixels
    projections[:, :, :3] = intrinsics @ extrinsics[:, :, :3]
    total = features[0].unsqueeze(2).repeat(1, 1, D, 1, 1)
    squares = total**2
    for v in range(1, V):
        warped = plain_warp(features[v], projections[:, v], projections[:, 0], depth_values)
        if warped.requires_grad:
            total, squares = total + warped, squares + warped**2
        else:
            total += warped
            squares += warped.pow_(2)
        del warped  # else the next one would be made beside it
    return squares.div_(V).sub_(total.div_(V).pow_(2))


def plain_warp(features: Tensor, source: Tensor, reference: Tensor, depth_values: Tensor) -> Tensor:
    """Features (B, C, h, w) of a source on all planes of the reference, (B, C, D, h, w)."""
    B, C, h, w = features.shape
    D = depth_values.shape[1]
    with torch.no_grad():
        grid = _sampling_grid(source, reference, depth_values, h, w)  # (B, D, h * w, 2)
    warped = F.grid_sample(features, grid.view(B, D * h, w, 2), align_corners=False)
    return warped.view(B, C, D, h, w)


def _sampling_grid(source: Tensor, reference: Tensor, depth_values: Tensor, h: int, w: int) -> Tensor:
    """Where each pixel of the reference, moved to each depth, appears in the source: -1 to 1."""
    motion = source @ torch.inverse(reference)  # (B, 4, 4)
    y, x = (torch.arange(size, dtype=source.dtype, device=source.device) + 0.5 for size in (h, w))
    y, x = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).view(1, 3, -1)
    rays = motion[:, :3, :3] @ pixels  # (B, 3, h * w)
    points = rays.unsqueeze(2) * depth_values[:, None, :, None] + motion[:, :3, 3, None, None]
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]  # (B, D, h * w) each
    return torch.stack([2 * x / w - 1, 2 * y / h - 1], dim=-1)


@torch.no_grad()
def plain_probability_map(probability: Tensor) -> Tensor:
    """Sum of the four bins around the expected one, (B, h, w)."""
    D = probability.shape[1]
    of_four = 4 * F.avg_pool3d(F.pad(probability.unsqueeze(1), (0, 0, 0, 0, 1, 2)), (4, 1, 1), stride=1)
    bins = torch.arange(D, device=probability.device, dtype=probability.dtype).view(1, D, 1, 1)
    expected = (probability * bins).sum(1, keepdim=True).long().clamp(0, D - 1)
    return of_four.squeeze(1).gather(1, expected).squeeze(1)
