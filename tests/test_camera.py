from __future__ import annotations

import pytest
import torch
from cameras import DEVICES, QUARTER_TURN, intrinsics, pose, rig, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from mvsnet_edu import backproject, camera_center, crop_intrinsics, pixel_grid, project, scale_intrinsics


def test_pixel_grid_holds_x_then_y_at_pixel_centres():
    grid = pixel_grid(3, 5, dtype=torch.float64)
    assert grid.shape == (3, 5, 2) and grid.dtype == torch.float64
    for row in range(3):
        for column in range(5):
            assert grid[row, column].tolist() == [column + 0.5, row + 0.5]


def test_shrinking_an_image_by_block_averages_scales_its_pixel_centres_exactly():
    """Pitfall 3: with centres at +0.5 a plain multiplication is exact, without a half-pixel term."""
    fine, coarse = pixel_grid(12, 20), pixel_grid(3, 5)
    blocks = fine.reshape(3, 4, 5, 4, 2).mean(dim=(1, 3))
    assert torch.equal(blocks, 4 * coarse)


def test_project_equals_the_textbook_one_point_at_a_time():
    K, E = rig(2, 1, 30, 50)
    K, E = K[:, 0], E[:, 0]
    points = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    pixels, depth = project(points, K, E)
    assert pixels.shape == (2, 3, 4, 2) and depth.shape == (2, 3, 4)
    for b, i, j in [(0, 0, 0), (0, 2, 3), (1, 1, 2), (1, 2, 0)]:
        x, y, z = (E[b, :3, :3] @ points[b, i, j] + E[b, :3, 3]).tolist()
        u, v = K[b, 0, 0] * x / z + K[b, 0, 2], K[b, 1, 1] * y / z + K[b, 1, 2]
        torch.testing.assert_close(pixels[b, i, j], torch.stack([u, v]), rtol=1e-12, atol=1e-9)
        assert depth[b, i, j].item() == pytest.approx(z, abs=1e-12)


def test_one_camera_projects_points_of_any_leading_shape():
    K, E = intrinsics(30, 50), pose(rotation(0.1, 0.2, 0.3), [0.1, 0.2, 5])
    points = torch.randn(4, 5, 3, dtype=torch.float64)
    pixels, depth = project(points, K, E)
    one_pixel, one_depth = project(points[3, 2], K, E)
    torch.testing.assert_close(pixels[3, 2], one_pixel)
    torch.testing.assert_close(depth[3, 2], one_depth)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("roll", [0.0, QUARTER_TURN, 2 * QUARTER_TURN])
def test_project_undoes_backproject(device, roll):
    K, E = (x[:, -1].to(device) for x in rig(2, 3, 7, 11, roll))
    depth = 2 + 3 * torch.rand(2, 7, 11, dtype=torch.float64, device=device)
    pixels, seen = project(backproject(depth, K, E), K, E)
    grid = pixel_grid(7, 11, dtype=torch.float64, device=device).expand_as(pixels)
    torch.testing.assert_close(pixels, grid, rtol=0, atol=1e-9)
    torch.testing.assert_close(seen, depth, rtol=0, atol=1e-9)


def test_depth_is_z_and_not_the_distance_along_the_ray():
    K, E = rig(1, 1, 9, 13)
    points = backproject(torch.full((1, 9, 13), 4.0, dtype=torch.float64), K[:, 0], E[:, 0])[0]
    in_camera = points @ E[0, 0, :3, :3].T + E[0, 0, :3, 3]
    torch.testing.assert_close(in_camera[..., 2], torch.full((9, 13), 4.0, dtype=torch.float64))
    distance = (points - camera_center(E[0, 0])).norm(dim=-1)
    assert distance[0, 0] > 4.2 and distance.min() >= 4.0


def test_the_candidates_of_a_pixel_lie_on_the_line_of_the_fundamental_matrix():
    """p_s . (K_s^-T [t]x R K^-1) p = 0 at all depths, by the textbook's formula for two cameras."""
    K, E = (x[0] for x in rig(1, 2, 30, 50, QUARTER_TURN))
    x, y, z = ((E[1] @ torch.linalg.inv(E[0]))[:3, 3]).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    turn = E[1, :3, :3] @ E[0, :3, :3].T
    F = torch.linalg.inv(K[1]).T @ cross @ turn @ torch.linalg.inv(K[0])
    for depth in (2.0, 3.5, 60.0):
        plane = torch.full((1, 30, 50), depth, dtype=torch.float64)
        seen, _ = project(backproject(plane, K[:1], E[:1])[0], K[1], E[1])
        pixel, match = (torch.cat([p[3, 41], torch.ones(1)]) for p in (pixel_grid(30, 50).double(), seen))
        line = F @ pixel
        assert abs(match @ line) / line[:2].norm() < 1e-9


def test_camera_center_is_the_origin_of_the_camera():
    _, E = rig(2, 3, 4, 4)
    center = camera_center(E)
    assert center.shape == (2, 3, 3)
    in_camera = E[..., :3, :3] @ center.unsqueeze(-1) + E[..., :3, 3:]
    assert in_camera.abs().max() < 1e-12


@given(st.floats(0.1, 4), st.floats(0.1, 4))
@settings(max_examples=15, deadline=None)
def test_projecting_into_the_resized_image_scales_the_pixels(sx, sy):
    torch.manual_seed(0)
    K, E = (x[0, 0] for x in rig(1, 1, 30, 50))
    points = torch.randn(6, 3, dtype=torch.float64) + camera_center(E) + 5 * E[2, :3]
    pixels, depth = project(points, K, E)
    scaled, same_depth = project(points, scale_intrinsics(K, (sx, sy)), E)
    torch.testing.assert_close(scaled, pixels * torch.tensor([sx, sy], dtype=torch.float64))
    assert torch.equal(depth, same_depth)


def test_cropping_moves_the_pixels_by_what_was_cut_off():
    K, E = (x[0, 0] for x in rig(1, 1, 30, 50))
    points = torch.randn(6, 3, dtype=torch.float64)
    shift = torch.tensor([7.0, 2.0], dtype=torch.float64)
    pixels, cropped = (project(points, k, E)[0] for k in (K, crop_intrinsics(K, 7, 2)))
    torch.testing.assert_close(cropped, pixels - shift)


def test_the_intrinsics_of_the_training_set_agree_with_its_crop():
    """DTU: 1600 x 1200, halved, cropped by (80, 44), quartered; the published cx is 82.90."""
    K = torch.tensor([[2892.33, 0, 823.205], [0, 2883.18, 619.07], [0, 0, 1]])
    quarter = scale_intrinsics(crop_intrinsics(scale_intrinsics(K, 0.5), 80, 44), 0.25)
    assert quarter[0, 2].item() == pytest.approx(82.90, abs=0.005)


def test_scaling_keeps_the_argument_and_its_type():
    K = intrinsics(30, 50).float()
    before = K.clone()
    assert scale_intrinsics(K, 0.5).dtype == crop_intrinsics(K, 1, 2).dtype == torch.float32
    assert torch.equal(K, before)


def test_a_point_behind_the_camera_has_a_negative_depth_and_one_beside_it_no_pixel():
    K, E = intrinsics(30, 50), torch.eye(4, dtype=torch.float64)
    points = torch.tensor([[0.5, 0.25, -2.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    pixels, depth = project(points, K, E)
    assert depth.tolist() == [-2.0, 0.0, 0.0]
    assert pixels[0].isfinite().all() and not pixels[1:].isfinite().any()


def test_gradients_of_projection_are_right():
    K, E = (x[:, 0].requires_grad_() for x in rig(1, 1, 2, 3))
    depth = (2 + torch.rand(1, 2, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(backproject, (depth, K, E))
    points = backproject(depth, K, E).detach().requires_grad_()
    assert torch.autograd.gradcheck(project, (points, K, E))


def test_autocast_rounds_no_pixels():
    """Under autocast a matrix product keeps 8 bits, so that pixel 600 would come back as 600 or 604."""
    K, E = (x[:, 0].float() for x in rig(2, 1, 30, 50))
    depth = 2 + torch.rand(2, 30, 50)
    with torch.autocast("cpu", torch.bfloat16):
        points, center = backproject(depth, K, E), camera_center(E)
        pixels, back = project(points, K, E)
    assert points.dtype == center.dtype == pixels.dtype == torch.float32
    assert torch.equal(points, backproject(depth, K, E)) and torch.equal(center, camera_center(E))
    assert (pixels - pixel_grid(30, 50)).abs().max() < 1e-3 and torch.allclose(back, depth, rtol=1e-5)
