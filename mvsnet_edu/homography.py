"""Planes seen by two cameras: homographies, and warping one view's features through them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import pixel_grid

__all__ = ["plane_homographies", "homography_warp", "depth_warp"]

#: A point this close to the camera's own plane (as a share of its reference depth) counts as behind it.
NEAR = 1e-6


def plane_homographies(
    ref_intrinsics: Tensor,
    ref_extrinsics: Tensor,
    src_intrinsics: Tensor,
    src_extrinsics: Tensor,
    depth_values: Tensor,
) -> Tensor:
    """Homographies from reference pixels to source pixels by way of the reference camera's planes z = d.

    H(d) = K_s (R + t e_z^T / d) K_r^-1, where (R, t) takes reference coordinates to source coordinates. The
    third component of H(d) (x, y, 1) is the depth in the source divided by d, so its sign tells points behind
    the source.

    Args:
        ref_intrinsics: (B, 3, 3), in pixels of the map to be filled.
        ref_extrinsics: (B, 4, 4), world to camera.
        src_intrinsics: (B, 3, 3), in pixels of the map to be read.
        src_extrinsics: (B, 4, 4), world to camera.
        depth_values: (B, D), in world units.

    Returns:
        (B, D, 3, 3).

    Source: equation (1) of the paper, corrected (it prints K^T for K^-1 and t for the camera centre);
    ``homography_warping.py:get_homographies``.

    >>> eye = torch.eye(3)[None]
    >>> plane_homographies(eye, torch.eye(4)[None], eye, torch.eye(4)[None], torch.tensor([[2.0]]))[0, 0]
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    rotation, translation = _relative_pose(ref_extrinsics, src_extrinsics)  # (B, 3, 3), (B, 3, 1)
    e_z = translation.new_tensor([[0, 0, 1]])
    per_depth = translation @ e_z / depth_values.double()[..., None, None].transpose(0, 1)  # (D, B, 3, 3)
    H = src_intrinsics.double() @ (rotation + per_depth) @ torch.linalg.inv(ref_intrinsics.double())
    return H.transpose(0, 1).to(ref_intrinsics.dtype)


def homography_warp(
    src_features: Tensor, homographies: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """Source features as the reference would see them if the world were one plane, for each plane of a stack.

    Args:
        src_features: (B, C, H, W).
        homographies: (B, D, 3, 3), reference to source pixels, from :func:`plane_homographies`.
        size: (height, width) of the reference map; the source's if None.

    Returns:
        (B, C, D, height, width): bilinear samples, zero outside the source and for points behind its camera.

    Source: section 3.2 of the paper; ``homography_warping.py:tf_transform_homography``.

    >>> features = torch.rand(2, 3, 5, 7)
    >>> identity = torch.eye(3).expand(2, 4, 3, 3)
    >>> torch.equal(homography_warp(features, identity)[:, :, 2], features)
    True
    """
    height, width = size or src_features.shape[-2:]
    return _sample(src_features, transform_pixels(homographies, height, width))


def depth_warp(
    src_features: Tensor,
    ref_intrinsics: Tensor,
    ref_extrinsics: Tensor,
    src_intrinsics: Tensor,
    src_extrinsics: Tensor,
    depth_values: Tensor,
) -> Tensor:
    """:func:`homography_warp` where every pixel has its own depth hypotheses and no plane links the views.

    Args:
        src_features: (B, C, H, W).
        ref_intrinsics: (B, 3, 3).
        ref_extrinsics: (B, 4, 4), world to camera.
        src_intrinsics: (B, 3, 3).
        src_extrinsics: (B, 4, 4), world to camera.
        depth_values: (B, D, h, w), in world units.

    Returns:
        (B, C, D, h, w), zero outside the source and for points behind its camera.

    Source: the general case of section 3.2; what later cascade networks need.

    >>> K, pose = torch.eye(3)[None], torch.eye(4)[None]
    >>> features = torch.rand(1, 2, 3, 4)
    >>> torch.equal(depth_warp(features, K, pose, K, pose, torch.ones(1, 1, 3, 4))[:, :, 0], features)
    True
    """
    B, D, h, w = depth_values.shape
    rays = rays_in_source(ref_intrinsics, ref_extrinsics, src_intrinsics, src_extrinsics)
    far, near = (part.to(depth_values.dtype) for part in rays)
    rays = transform_pixels(far, h, w).unsqueeze(1)  # (B, 1, 3, h, w)
    return _sample(src_features, rays + near.view(B, 1, 3, 1, 1) / depth_values.unsqueeze(2))


def rays_in_source(
    ref_intrinsics: Tensor, ref_extrinsics: Tensor, src_intrinsics: Tensor, src_extrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    """How a source sees the reference's rays: far @ (x, y, 1) + near / depth, in homogeneous pixels.

    Args:
        ref_intrinsics: (..., 3, 3).
        ref_extrinsics: (..., 4, 4), world to camera.
        src_intrinsics: (..., 3, 3).
        src_extrinsics: (..., 4, 4), world to camera.

    Returns:
        far (..., 3, 3), where the rays go at infinity, and near (..., 3, 1), where they start, the
        reference's centre; in float64.

    Source: equation (1) of the paper, rearranged.

    >>> eye = torch.eye(3), torch.eye(4)
    >>> rays_in_source(*eye, *eye)[1].flatten()
    tensor([0., 0., 0.], dtype=torch.float64)
    """
    rotation, translation = _relative_pose(ref_extrinsics, src_extrinsics)
    K_src, K_ref_inv = src_intrinsics.double(), torch.linalg.inv(ref_intrinsics.double())
    return K_src @ rotation @ K_ref_inv, K_src @ translation


def _relative_pose(ref_extrinsics: Tensor, src_extrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and translation, reference to source; in float64, as cameras may stand far from the origin."""
    pose = src_extrinsics.double() @ torch.linalg.inv(ref_extrinsics.double())
    return pose[..., :3, :3], pose[..., :3, 3:]


def transform_pixels(matrix: Tensor, height: int, width: int) -> Tensor:
    """(..., 3, 3) times the homogeneous pixels (x, y, 1) of a map -> (..., 3, height, width).

    Not by ``@``: autocast and TF32 would round the coordinates to a few bits.
    """
    x, y = pixel_grid(height, width, dtype=matrix.dtype, device=matrix.device).unbind(dim=-1)  # (h, w)
    of_x, of_y, constant = matrix[..., None, None].unbind(dim=-3)  # (..., 3, 1, 1)
    return of_x * x + of_y * y + constant


def _sample(features: Tensor, homogeneous: Tensor) -> Tensor:
    """(B, C, H, W) read at homogeneous pixels (B, D, 3, h, w) -> (B, C, D, h, w)."""
    B, D, _, h, w = homogeneous.shape
    padded = _pad_to_powers_of_two(features)
    padded = padded.to(torch.promote_types(padded.dtype, torch.float32))  # half a float has no subpixels
    H, W = padded.shape[-2:]
    x, y, z = homogeneous.unbind(dim=2)  # (B, D, h, w) each
    in_front = z > NEAR
    per_z = 2 / torch.where(in_front, z, torch.inf)  # where comes first: the gradient of 2 / 0 is NaN
    grid = torch.stack([x * per_z / W, y * per_z / H], dim=-1) - 1  # grid_sample's [-1, 1], corner to corner
    grid = torch.where(in_front.unsqueeze(-1), grid, -3).clamp(-3, 3)  # -3 is far outside and reads 0
    grid = grid.to(padded.dtype).flatten(1, 2)  # (B, D * h, w, 2)
    sampled = F.grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.view(B, -1, D, h, w).to(features.dtype)


def _pad_to_powers_of_two(features: Tensor) -> Tensor:
    """Zeros on the right and below, until dividing by the size loses no bits: the identity warp is exact."""
    H, W = features.shape[-2:]
    return F.pad(features, (0, _power_of_two(W) - W, 0, _power_of_two(H) - H))


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
