"""The same cameras in other people's geometry: OpenCV's and kornia's functions agree with ours.

OpenCV puts the centre of the first pixel at (0, 0), half a pixel from ours in both directions.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch
from cameras import QUARTER_TURN, rig
from torch import Tensor

from mvsnet_edu import (
    backproject,
    camera_center,
    homography_warp,
    pixel_grid,
    plane_homographies,
    project,
    scale_intrinsics,
)
from mvsnet_edu.data import read_pfm, write_pfm


def present(name: str) -> bool:
    """In CI both have to be there."""
    return bool(os.environ.get("CI")) or importlib.util.find_spec(name) is not None


with_opencv = pytest.mark.skipif(not present("cv2"), reason="needs opencv-python-headless")
with_kornia = pytest.mark.skipif(not present("kornia"), reason="needs kornia")
ROLLS = [0.0, 0.4, QUARTER_TURN]
H, W = 11, 17


def two_views(roll: float) -> tuple[Tensor, Tensor]:
    """K (2, 3, 3) and E (2, 4, 4) of a reference and a rolled source."""
    K, E = rig(1, 2, H, W, roll)
    return K[0], E[0]


def to_centres_at_integers(K: Tensor) -> np.ndarray:
    shift = torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return (K - shift).numpy()


@with_opencv
@pytest.mark.parametrize("roll", ROLLS)
def test_opencv_projects_to_the_same_pixels(roll):
    import cv2

    K, E = two_views(roll)
    points = backproject(2 + 3 * torch.rand(1, H, W).double(), K[:1], E[:1])[0].flatten(0, 1)
    turn, _ = cv2.Rodrigues(E[1, :3, :3].numpy())
    theirs, _ = cv2.projectPoints(
        points.numpy(), turn, E[1, :3, 3].numpy(), to_centres_at_integers(K[1]), None
    )
    ours, _ = project(points, K[1], E[1])
    np.testing.assert_allclose(ours - 0.5, theirs[:, 0], rtol=0, atol=1e-9)


@with_opencv
@pytest.mark.parametrize("roll", ROLLS)
def test_opencv_finds_the_homography_of_a_plane_from_four_points(roll):
    """Corners of the image, back-projected to the plane z = 4 and seen by the source."""
    import cv2

    K, E = two_views(roll)
    corners = torch.tensor([[0.0, 0], [W, 0], [W, H], [0, H]]).double()
    rays = torch.cat([corners, torch.ones(4, 1)], dim=1) @ torch.linalg.inv(K[0]).T
    world = torch.cat([4 * rays, torch.ones(4, 1)], dim=1) @ torch.linalg.inv(E[0]).T
    seen, _ = project(world[:, :3], K[1], E[1])
    theirs = cv2.getPerspectiveTransform(corners.float().numpy(), seen.float().numpy())
    ours = plane_homographies(K[:1], E[:1], K[1:], E[1:], torch.tensor([[4.0]]).double())[0, 0].numpy()
    np.testing.assert_allclose(ours / ours[2, 2], theirs, rtol=1e-3, atol=1e-3)  # theirs reads float32


@with_opencv
@pytest.mark.parametrize("roll", ROLLS)
def test_opencv_warps_the_image_alike(roll):
    """remap rounds its coordinates to 1/32 of a pixel, so the image is smooth and the tolerance is wide."""
    import cv2

    K, E = two_views(roll)
    image = torch.sin(0.3 * pixel_grid(H, W).sum(dim=-1)) + 2
    homography = plane_homographies(K[:1], E[:1], K[1:], E[1:], torch.tensor([[4.0]]).double())
    ours = homography_warp(image[None, None], homography.float())[0, 0, 0].numpy()
    to_ours = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(to_ours) @ homography[0, 0].numpy() @ to_ours
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    theirs = cv2.warpPerspective(image.numpy(), matrix, (W, H), flags=flags)
    assert (ours > 0).mean() > 0.2
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.1)


@with_opencv
def test_opencv_shrinks_images_as_scaled_intrinsics_say():
    """An area average of blocks of four: a bright dot stays where the scaled camera sees its point."""
    import cv2

    K, E = two_views(0.0)
    image = np.zeros((4 * H, 4 * W), np.float32)
    image[20:24, 32:36] = 1
    small = cv2.resize(image, (W, H), interpolation=cv2.INTER_AREA)
    y, x = (axis.mean() + 0.5 for axis in small.nonzero())
    depth = torch.ones(1, 4 * H, 4 * W).double()
    dot = backproject(depth, K[:1], E[:1])[0, 20:24, 32:36].mean(dim=(0, 1))
    pixel, _ = project(dot, scale_intrinsics(K[0], 0.25), E[0])
    assert pixel.tolist() == pytest.approx([x, y])


@with_opencv
def test_opencv_reads_and_writes_the_same_pfm(tmp_path):
    import cv2

    depth = np.random.default_rng(0).random((5, 7), np.float32)
    write_pfm(tmp_path / "ours.pfm", depth)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "ours.pfm"), cv2.IMREAD_UNCHANGED), depth)
    cv2.imwrite(str(tmp_path / "theirs.pfm"), depth)
    np.testing.assert_array_equal(read_pfm(tmp_path / "theirs.pfm"), depth)


@with_kornia
@pytest.mark.parametrize("roll", ROLLS)
def test_kornia_projects_and_backprojects_alike(roll):
    """The convention of the pixel centre does not matter to it, as long as K and the pixels share it.

    Before kornia 0.9, it adds 1e-8 to the depth that it divides by.
    """
    from kornia.geometry.camera import PinholeCamera

    K, E = rig(2, 1, H, W, roll)
    K, E = K[:, 0], E[:, 0]
    K4 = torch.eye(4).double().repeat(2, 1, 1)
    K4[:, :3, :3] = K
    camera = PinholeCamera(K4, E, torch.tensor([H, H]), torch.tensor([W, W]))
    depth = 2 + 3 * torch.rand(2, H, W).double()
    points = backproject(depth, K, E)
    theirs = camera.project(points.flatten(1, 2)).view(2, H, W, 2)
    torch.testing.assert_close(project(points, K, E)[0], theirs, rtol=0, atol=1e-6)
    pixels = pixel_grid(H, W, dtype=torch.float64).expand(2, H, W, 2).flatten(1, 2)
    there = camera.unproject(pixels, depth.view(2, -1, 1)).view(2, H, W, 3)
    torch.testing.assert_close(points, there, rtol=0, atol=1e-6)


@with_kornia
@pytest.mark.parametrize("roll", ROLLS)
def test_kornia_knows_the_same_relative_pose_and_epipolar_lines(roll):
    from kornia.geometry import epipolar

    K, E = two_views(roll)
    R, t = epipolar.relative_camera_motion(*(x[None] for e in E for x in (e[:3, :3], e[:3, 3:])))
    essential = epipolar.essential_from_Rt(*(x[None] for e in E for x in (e[:3, :3], e[:3, 3:])))
    fundamental = epipolar.fundamental_from_essential(essential, K[:1], K[1:])
    center, _ = project(camera_center(E[1]), K[0], E[0])
    epipole = torch.cat([center, torch.ones(1)])
    assert (fundamental[0] @ epipole).norm() / fundamental.norm() < 1e-9 * epipole.norm()
    far = torch.tensor([[3.0]]).double()
    homography = plane_homographies(K[:1], E[:1], K[1:], E[1:], far)[0]
    n = torch.tensor([[0.0, 0, 1]]).double()
    theirs = K[1] @ (R[0] + t[0] @ n / 3) @ torch.linalg.inv(K[0])
    torch.testing.assert_close(homography[0], theirs, rtol=0, atol=1e-9)


@with_kornia
@pytest.mark.parametrize("roll", ROLLS)
def test_kornia_warps_the_image_alike(roll):
    """Its homographies act on pixels with centres at integers, as OpenCV's do."""
    from kornia.geometry.transform import warp_perspective

    K, E = two_views(roll)
    image = torch.rand(1, 3, H, W).double()
    homography = plane_homographies(K[:1], E[:1], K[1:], E[1:], torch.tensor([[4.0]]).double())
    to_ours = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]).double()
    matrix = torch.linalg.inv(homography[:, 0] @ to_ours) @ to_ours
    theirs = warp_perspective(image, matrix, (H, W), align_corners=True)
    ours = homography_warp(image, homography)[:, :, 0]
    assert (ours > 0).double().mean() > 0.2
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
