"""Pinhole cameras: pixels, intrinsics, extrinsics, projection and its inverse.

Conventions, used by every other module:

* extrinsics are 4 x 4, world to camera: ``x_camera = R x_world + t``;
* intrinsics are 3 x 3, in pixels; the centre of the first pixel is (0.5, 0.5);
* depth is the z coordinate in the camera, not the distance along the ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pixel_grid", "scale_intrinsics", "crop_intrinsics", "camera_center", "project", "backproject"]


def pixel_grid(
    height: int, width: int, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """Coordinates (x, y) of all pixel centres of an image.

    Args:
        height: rows of the image.
        width: columns of the image.
        dtype: floating type of the result; torch's default if None.
        device: device of the result.

    Returns:
        (height, width, 2), in pixels; entry [0, 0] is (0.5, 0.5).

    Source: the ``+ 0.5`` of ``homography_warping.py:get_pixel_grids``.

    >>> pixel_grid(2, 3)[1, 2]
    tensor([2.5000, 1.5000])
    """
    y = torch.arange(height, dtype=dtype or torch.get_default_dtype(), device=device) + 0.5
    x = torch.arange(width, dtype=dtype or torch.get_default_dtype(), device=device) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2)


def scale_intrinsics(intrinsics: Tensor, scale: float | tuple[float, float]) -> Tensor:
    """Intrinsics of the same camera after its image was resized.

    With pixel centres at +0.5 the upper left corner of the image is (0, 0), so a plain multiplication is
    exact.

    Args:
        intrinsics: (..., 3, 3), in pixels.
        scale: new size / old size, one number or (x, y).

    Returns:
        (..., 3, 3), in pixels of the resized image.

    Source: ``preprocess.py:scale_camera``.

    >>> scale_intrinsics(torch.tensor([[800.0, 0, 320], [0, 800, 256], [0, 0, 1]]), 0.25)
    tensor([[200.,   0.,  80.],
            [  0., 200.,  64.],
            [  0.,   0.,   1.]])
    """
    sx, sy = scale if isinstance(scale, tuple) else (scale, scale)
    return intrinsics * intrinsics.new_tensor([[sx], [sy], [1.0]])  # rows of K: x, y, 1


def crop_intrinsics(intrinsics: Tensor, left: float, top: float) -> Tensor:
    """Intrinsics of the same camera after columns and rows were cut off.

    Args:
        intrinsics: (..., 3, 3), in pixels.
        left: columns cut off on the left, in pixels (negative: padding).
        top: rows cut off at the top, in pixels (negative: padding).

    Returns:
        (..., 3, 3), in pixels of the cropped image.

    Source: ``preprocess.py:crop_mvs_input``.

    >>> crop_intrinsics(torch.tensor([[800.0, 0, 320], [0, 800, 256], [0, 0, 1]]), 80, 44)[:2, 2]
    tensor([240., 212.])
    """
    shift = intrinsics.new_tensor([[0, 0, left], [0, 0, top], [0, 0, 0]])
    return intrinsics - shift


def camera_center(extrinsics: Tensor) -> Tensor:
    """Where a camera stands in the world: c = -R^T t.

    Args:
        extrinsics: (..., 4, 4), world to camera.

    Returns:
        (..., 3), in world units.

    Source: ``homography_warping.py:get_homographies`` (``c_left``, ``c_right``).

    >>> pose = torch.eye(4)
    >>> pose[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    >>> camera_center(pose)
    tensor([-1., -2., -3.])
    """
    rotation, translation = extrinsics[..., :3, :3], extrinsics[..., :3, 3:]
    return -_times(rotation.transpose(-1, -2), translation.squeeze(-1))


def project(points: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """World points to pixels and depths.

    A point in the plane of the camera centre has no pixel: its coordinates are infinite or NaN. A point
    behind the camera has a pixel too, and a negative depth; whoever uses the pixel must look at the depth.

    Args:
        points: (..., 3), in world units. The leading dimensions start with those of the cameras.
        intrinsics: (..., 3, 3), in pixels.
        extrinsics: (..., 4, 4), world to camera.

    Returns:
        pixels (..., 2) and depth (...), the z in the camera.

    Source: ``mvsnet/depthfusion.py`` leaves this to CUDA; the equation is x ~ K (R X + t).

    >>> K = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    >>> project(torch.tensor([[0.5, 0.0, 2.0]]), K, torch.eye(4))
    (tensor([[75., 40.]]), tensor([2.]))
    """
    K, E = _over(intrinsics, points), _over(extrinsics, points)
    in_camera = _times(E[..., :3, :3], points) + E[..., :3, 3]  # (..., 3)
    homogeneous = _times(K, in_camera)  # (..., 3)
    return homogeneous[..., :2] / homogeneous[..., 2:], in_camera[..., 2]


def backproject(depth: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    """Depth maps to world points; the inverse of :func:`project` at the pixel centres.

    Args:
        depth: (B, H, W), z in the camera, in world units.
        intrinsics: (B, 3, 3), in pixels of the depth map.
        extrinsics: (B, 4, 4), world to camera.

    Returns:
        (B, H, W, 3), in world units.

    Source: the inverse of x ~ K (R X + t).

    >>> K = torch.tensor([[[100.0, 0, 1], [0, 100, 1], [0, 0, 1]]])
    >>> backproject(torch.full((1, 2, 2), 4.0), K, torch.eye(4)[None])[0, 0, 0]
    tensor([-0.0200, -0.0200,  4.0000])
    """
    B, H, W = depth.shape
    x = pixel_grid(H, W, dtype=depth.dtype, device=depth.device)  # (H, W, 2)
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1).expand(B, H, W, 3)
    rays = _times(_over(torch.linalg.inv(intrinsics), x), x)  # (B, H, W, 3), z = 1
    E = _over(extrinsics, x)
    return _times(E[..., :3, :3].transpose(-1, -2), rays * depth.unsqueeze(-1) - E[..., :3, 3])


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """(..., 3, 3) times (..., 3). Not by ``@``: autocast and TF32 would round pixels to a few bits."""
    x, y, z = vectors.unsqueeze(-1).unbind(dim=-2)  # (..., 1) each
    of_x, of_y, of_z = matrix.unbind(dim=-1)  # (..., 3) each
    return of_x * x + of_y * y + of_z * z


def _over(matrix: Tensor, points: Tensor) -> Tensor:
    """Insert dimensions so that (B, n, n) acts on points (B, ..., 3)."""
    batch = matrix.shape[:-2]
    return matrix.reshape(*batch, *[1] * (points.ndim - 1 - len(batch)), *matrix.shape[-2:])
