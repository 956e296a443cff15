from __future__ import annotations

import math

import pytest
import torch
from cameras import DEVICES, QUARTER_TURN, pose, rig, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvsnet_edu import (
    backproject,
    camera_center,
    depth_warp,
    homography_warp,
    pixel_grid,
    plane_homographies,
    project,
)

ROLLS = [0.0, QUARTER_TURN, 2 * QUARTER_TURN]


def views(K: Tensor, E: Tensor, source: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return K[:, 0], E[:, 0], K[:, source], E[:, source]


def apply(H: Tensor, pixels: Tensor) -> Tensor:
    """(3, 3) on pixels (..., 2)."""
    x = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1) @ H.T
    return x[..., :2] / x[..., 2:]


def bilinear(image: Tensor, x: float, y: float) -> Tensor:
    """(C, H, W) at the pixel (x, y), centres at +0.5, zeros outside; straight from the definition."""
    _, H, W = image.shape
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    fx, fy = x - 0.5 - column, y - 0.5 - row
    value = torch.zeros_like(image[:, 0, 0])
    for i, wy in ((row, 1 - fy), (row + 1, fy)):
        for j, wx in ((column, 1 - fx), (column + 1, fx)):
            if 0 <= i < H and 0 <= j < W:
                value = value + wx * wy * image[:, i, j]
    return value


def warp_by_loop(features: Tensor, K: Tensor, E: Tensor, depth: Tensor) -> Tensor:
    """Back-project a depth map (B, h, w), project it into view 1 and read there, pixel by pixel."""
    pixels, z = project(backproject(depth, K[:, 0], E[:, 0]), K[:, 1], E[:, 1])
    B, h, w = depth.shape
    out = features.new_zeros(B, features.shape[1], h, w)
    for b in range(B):
        for i in range(h):
            for j in range(w):
                if z[b, i, j] > 0:
                    out[b, :, i, j] = bilinear(features[b], *pixels[b, i, j].tolist())
    return out


# The homographies


@pytest.mark.parametrize("roll", ROLLS)
def test_homography_equals_the_corrected_equation_1(roll):
    """K_i R_i (I - (c_i - c_1) n_1^T / d) R_1^T K_1^-1, with n_1^T the third row of R_1."""
    K, E = rig(2, 2, 9, 14, roll)
    K1, E1, Ki, Ei = views(K, E)
    R1, Ri = E1[:, :3, :3], Ei[:, :3, :3]
    between = (camera_center(Ei) - camera_center(E1)).unsqueeze(-1)
    eye = torch.eye(3, dtype=torch.float64)
    expected = Ki @ Ri @ (eye - between @ R1[:, 2:] / 4.5) @ R1.transpose(1, 2) @ torch.linalg.inv(K1)
    H = plane_homographies(K1, E1, Ki, Ei, torch.full((2, 1), 4.5, dtype=torch.float64))
    torch.testing.assert_close(H[:, 0], expected, rtol=0, atol=1e-9)


def dtu_like_rig() -> tuple[Tensor, Tensor]:
    """Two cameras some 160 apart that look at a point 650 away, in a world frame of their own."""
    K = torch.tensor([[2890.0, 0, 823], [0, 2883, 619], [0, 0, 1]], dtype=torch.float64) / 4
    K[2, 2] = 1
    E1 = pose(rotation(0.2, -0.4, 0.1), [-190, -30, 640])
    turned = rotation(y=0.25)
    target = torch.tensor([0.0, 0, 650], dtype=torch.float64)
    Ei = pose(turned, target - turned @ target) @ E1
    return K.expand(1, 2, 3, 3), torch.stack([E1, Ei])[None]


def test_equation_1_as_printed_is_hundreds_of_pixels_off():
    """Facts 1.3: the paper prints K^T for K^-1 and t for the camera centre; either slip is visible."""
    K, E = dtu_like_rig()
    K1, E1, Ki, Ei = (x[0] for x in views(K, E))
    d, eye = 650.0, torch.eye(3, dtype=torch.float64)
    between = Ei[:3, 3:] - E1[:3, 3:]  # t, not c
    middle = Ki @ Ei[:3, :3] @ (eye - between @ E1[2:3, :3] / d) @ E1[:3, :3].T
    ours = plane_homographies(*views(K, E), torch.tensor([[d]], dtype=torch.float64))[0, 0]
    pixels = pixel_grid(300, 400, dtype=torch.float64)[::50, ::50]
    as_printed = apply(middle @ K1.T, pixels) - apply(ours, pixels)
    inverse_fixed = apply(middle @ torch.linalg.inv(K1), pixels) - apply(ours, pixels)
    assert as_printed.norm(dim=-1).min() > 100
    assert inverse_fixed.norm(dim=-1).min() > 2


def test_the_depth_moves_the_third_column_only():
    """For K ends in (0, 0, 1): H(d) = H(infinity) + K_s t e_3^T / d."""
    K, E = rig(2, 2, 9, 14)
    depths = torch.tensor([[3.0, 9, torch.inf], [2, 5, torch.inf]], dtype=torch.float64)
    H = plane_homographies(*views(K, E), depths)
    moved = H - H[:, 2:]
    assert moved[..., :2].abs().max() < 1e-12
    origin_seen = K[:, 1] @ (E[:, 1] @ torch.linalg.inv(E[:, 0]))[:, :3, 3:]  # (2, 3, 1)
    expected = origin_seen.transpose(1, 2) / depths[..., None]
    torch.testing.assert_close(moved[..., 2], expected, rtol=0, atol=1e-9)


def test_equation_1_with_both_confirmed_corrections_needs_a_normal_that_points_at_the_camera():
    """With c_1 - c_i the normal is -R_1^T e_z; with the viewing direction itself the warp is pixels off."""
    K, E = dtu_like_rig()
    K1, E1, Ki, Ei = (x[0] for x in views(K, E))
    between, eye = (camera_center(E1) - camera_center(Ei))[:, None], torch.eye(3, dtype=torch.float64)
    ours = plane_homographies(*views(K, E), torch.tensor([[650.0]], dtype=torch.float64))[0, 0]
    pixels = pixel_grid(300, 400, dtype=torch.float64)[::50, ::50]
    for sign, limits in ((-1, (0, 1e-9)), (1, (2, torch.inf))):
        corrected = Ki @ Ei[:3, :3] @ (eye - sign * between @ E1[2:3, :3] / 650) @ E1[:3, :3].T
        miss = (apply(corrected @ torch.linalg.inv(K1), pixels) - apply(ours, pixels)).norm(dim=-1)
        assert limits[0] <= miss.min() and miss.max() < limits[1]


def test_cameras_far_from_the_origin_keep_their_precision_in_float32():
    K, E = rig(1, 2, 9, 14)
    far = pose(torch.eye(3), [3000.0, -2000, 1000])
    depths = torch.full((1, 1), 4.0, dtype=torch.float64)
    exact = plane_homographies(*views(K, E), depths)[0, 0]
    moved = plane_homographies(*(x.float() for x in views(K, E @ far)), depths.float())[0, 0]
    pixels = pixel_grid(9, 14, dtype=torch.float64)
    rounding = apply(moved.double(), pixels) - apply(exact, pixels)
    assert rounding.abs().max() < 5e-3  # what float32 leaves of extrinsics in the thousands


# Warping


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_the_identity_returns_the_input_exactly(height, width):
    """Pitfall 1: bit for bit, at every size, odd ones among them."""
    torch.manual_seed(0)
    features = torch.randn(2, 3, height, width)
    warped = homography_warp(features, torch.eye(3).expand(2, 2, 3, 3))
    assert warped.shape == (2, 3, 2, height, width)
    assert torch.equal(warped[:, :, 0], features) and torch.equal(warped[:, :, 1], features)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(30, 37), (120, 161), (5, 255)])
def test_one_real_camera_twice_returns_the_input_exactly(size, device):
    """Pitfall 1, with the cameras of a rig, where the identity is the outcome of a computation."""
    K, E = (x.float().to(device) for x in rig(2, 2, *size))
    features = torch.randn(2, 3, *size, device=device)
    K1, E1 = K[:, 0], E[:, 0]
    depths = torch.tensor([[2.0, 7.3, 111.0]], device=device).expand(2, 3)
    warped = homography_warp(features, plane_homographies(K1, E1, K1, E1, depths))
    by_pixel = depth_warp(features, K1, E1, K1, E1, depths[:, :, None, None].expand(2, 3, *size))
    for d in range(3):
        assert torch.equal(warped[:, :, d], features) and torch.equal(by_pixel[:, :, d], features)


def test_a_shift_by_whole_pixels_moves_the_image_and_fills_with_zeros():
    """Pitfall 1: no error that varies over the image, and full weight up to the border."""
    features = torch.rand(1, 2, 7, 11)
    H = torch.eye(3).repeat(1, 1, 1, 1)
    H[..., 0, 2], H[..., 1, 2] = 3, -2
    expected = torch.zeros(1, 2, 7, 11)
    expected[..., 2:, :8] = features[..., :5, 3:]
    assert torch.equal(homography_warp(features, H)[:, :, 0], expected)


def test_a_quarter_turn_of_the_camera_turns_the_image():
    """Facts 1.3: forgetting the half pixel shifts by a whole pixel here."""
    H, W = 5, 8
    source = torch.rand(1, 3, H, W, dtype=torch.float64)
    K_ref = torch.tensor([[[10.0, 0, H / 2], [0, 10, W / 2], [0, 0, 1]]], dtype=torch.float64)
    K_src = torch.tensor([[[10.0, 0, W / 2], [0, 10, H / 2], [0, 0, 1]]], dtype=torch.float64)
    E_ref, E_src = torch.eye(4, dtype=torch.float64)[None], pose(rotation(z=QUARTER_TURN), [0, 0, 0])[None]
    depths = torch.tensor([[3.0]], dtype=torch.float64)
    homographies = plane_homographies(K_ref, E_ref, K_src, E_src, depths)
    warped = homography_warp(source, homographies, size=(W, H))[:, :, 0]
    # a camera rolled by +90 degrees sees (x, y) at (-y, x)
    torch.testing.assert_close(warped, torch.rot90(source, 1, (-2, -1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("roll", ROLLS)
def test_warping_equals_a_loop_over_pixels(roll):
    """Another size for the source, two batch elements, and points outside of it."""
    height, width = 5, 8
    K, E = rig(2, 2, height, width, roll)
    features = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    depths = torch.tensor([[3.0, 6.0], [2.5, 4.0]], dtype=torch.float64)
    warped = homography_warp(features, plane_homographies(*views(K, E), depths), size=(height, width))
    for d in range(2):
        expected = warp_by_loop(features, K, E, depths[:, d, None, None].expand(2, height, width))
        torch.testing.assert_close(warped[:, :, d], expected, rtol=0, atol=1e-10)
    assert (warped == 0).any() and (warped != 0).any()


def test_warping_every_pixel_at_its_own_depths_equals_a_loop():
    height, width = 5, 8
    K, E = rig(2, 2, height, width)
    features = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    depths = 2 + 4 * torch.rand(2, 3, height, width, dtype=torch.float64)
    warped = depth_warp(features, *views(K, E), depths)
    assert warped.shape == (2, 3, 3, height, width)
    for d in range(3):
        expected = warp_by_loop(features, K, E, depths[:, d])
        torch.testing.assert_close(warped[:, :, d], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_both_warps_agree_where_all_pixels_share_their_depths(device):
    K, E = (x.float().to(device) for x in rig(2, 2, 9, 14))
    features = torch.randn(2, 3, 9, 14, device=device)
    depths = torch.tensor([[3.0, 6.0], [2.5, 4.0]], device=device)
    one = homography_warp(features, plane_homographies(*views(K, E), depths))
    other = depth_warp(features, *views(K, E), depths[:, :, None, None].expand(2, 2, 9, 14))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_two_photographs_of_a_textured_plane_meet_at_its_depth_only():
    """The plane z = 4 of the reference, painted with a function of the world and seen by both cameras."""
    height, width = 24, 31
    K, E = rig(1, 2, height, width)
    E[:, 1] = pose(rotation(0.02, 0.05, 0.3), [0.9, -0.4, 0.05]) @ E[:, 0]
    normal, center = E[0, 0, 2, :3], camera_center(E[0, 0])

    def photograph(v: int) -> Tensor:
        here = camera_center(E[0, v])
        rays = backproject(torch.ones(1, height, width, dtype=torch.float64), K[:, v], E[:, v])[0] - here
        t = (4 - (here - center) @ normal) / (rays @ normal)
        points = here + t.unsqueeze(-1) * rays
        return torch.sin(2 * points).movedim(-1, 0)[None]  # (1, 3, H, W)

    H = plane_homographies(*views(K, E), torch.tensor([[3.0, 4.0, 6.0]], dtype=torch.float64))
    warped = homography_warp(photograph(1), H)
    inner = (..., slice(8, -8), slice(10, -10))
    error = (warped - photograph(0).unsqueeze(2))[inner].abs().mean(dim=(0, 1, 3, 4))
    assert error[1] < 0.01 < 0.05 < min(error[0], error[2])


# Behind the camera


def facing_away() -> Tensor:
    return pose(rotation(y=math.pi), [0, 0, 0])


def test_a_camera_that_looks_away_sees_nothing():
    """Pitfall 4: dividing by a negative z would show the scene upside down."""
    K, E = rig(1, 2, 5, 8)
    E[:, 1] = facing_away() @ E[:, 0]
    features = torch.rand(1, 2, 5, 8, dtype=torch.float64)
    depths = torch.tensor([[2.0, 4.0]], dtype=torch.float64)
    assert homography_warp(features, plane_homographies(*views(K, E), depths)).abs().max() == 0
    assert depth_warp(features, *views(K, E), depths[..., None, None].expand(1, 2, 5, 8)).abs().max() == 0


def test_where_a_plane_passes_through_the_source_camera_only_the_front_is_read():
    """Pitfall 4: zero exactly where the point is behind, for a camera turned by 80 degrees."""
    K, E = rig(1, 2, 20, 31)
    E[:, 1] = pose(rotation(y=1.4), [0, 0, 0]) @ E[:, 0]
    plane = torch.full((1, 20, 31), 4.0, dtype=torch.float64)
    pixels, z = project(backproject(plane, K[:, 0], E[:, 0]), K[:, 1], E[:, 1])
    inside = (z > 0) & (pixels > 0).all(-1) & (pixels < torch.tensor([31, 20])).all(-1)
    H = plane_homographies(*views(K, E), torch.tensor([[4.0]], dtype=torch.float64))
    warped = homography_warp(torch.ones(1, 1, 20, 31, dtype=torch.float64), H)[:, 0, 0]
    assert (z < 0).any() and (z > 0).any()
    assert (warped[z <= 0] == 0).all() and (warped[inside] > 0).all()


@pytest.mark.parametrize("far", [3e38, -3e38])
@pytest.mark.parametrize("row", [0, 1])
def test_pixels_beyond_the_largest_number_read_zero(row, far):
    """Infinity minus infinity would be NaN."""
    H = torch.eye(3).repeat(1, 1, 1, 1)
    H[..., row, 2], H[..., 2, 2] = far, 1e-3
    assert (homography_warp(torch.rand(1, 2, 5, 8), H) == 0).all()


# Precision and gradients


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_read_at_exact_pixels(dtype):
    features = torch.rand(1, 2, 3, 301).to(dtype)
    H = torch.eye(3).repeat(1, 1, 1, 1)
    assert torch.equal(homography_warp(features, H)[:, :, 0], features)
    H[..., 0, 2] = 0.25
    expected = homography_warp(features.float(), H)
    warped = homography_warp(features, H)
    assert warped.dtype == dtype
    torch.testing.assert_close(warped, expected.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_does_not_round_the_pixels(device):
    features = torch.rand(1, 2, 3, 301, device=device)
    H = torch.eye(3, device=device).repeat(1, 1, 1, 1)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(homography_warp(features, H)[:, :, 0], features)


def test_the_features_and_the_cameras_decide_the_precision():
    K, E = rig(2, 2, 9, 14)
    features, depths = torch.rand(2, 3, 9, 14), torch.tensor([[3.0, 6.0], [2.5, 4.0]]).double()
    exact = homography_warp(features.double(), plane_homographies(*views(K, E), depths))
    warped = homography_warp(features, plane_homographies(*views(K, E), depths))
    by_pixel = depth_warp(features, *views(K, E), depths[:, :, None, None].expand(2, 2, 9, 14))
    assert exact.dtype == torch.float64 and warped.dtype == by_pixel.dtype == torch.float32
    torch.testing.assert_close(warped.double(), exact, rtol=0, atol=1e-5)
    of_singles = plane_homographies(*views(K.float(), E.float()), depths.float())
    assert of_singles.dtype == torch.float32
    torch.testing.assert_close(by_pixel, warped, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_warps_stay_on_the_device(device):
    cameras = [x.to(device) for x in views(*rig(2, 2, 9, 14))]
    features, depths = torch.rand(2, 3, 9, 14, device=device), torch.ones(2, 4, device=device)
    assert homography_warp(features, plane_homographies(*cameras, depths)).device.type == device
    assert depth_warp(features, *cameras, depths.view(2, 4, 1, 1).expand(2, 4, 9, 14)).device.type == device


def test_gradients_of_warping_are_right():
    """Bilinear reading has kinks at pixel centres, which random pixels miss."""
    K, E = rig(2, 2, 3, 4)
    features = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    depths = (3 + torch.rand(2, 2, dtype=torch.float64)).requires_grad_()
    per_pixel = (3 + torch.rand(2, 2, 3, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, d: homography_warp(f, plane_homographies(*views(K, E), d)), (features, depths)
    )
    assert torch.autograd.gradcheck(lambda f, d: depth_warp(f, *views(K, E), d), (features, per_pixel))


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu():
    K, E = (x.float() for x in rig(2, 2, 9, 14))
    features, depths = torch.randn(2, 3, 9, 14), torch.tensor([[3.0, 6.0], [2.5, 4.0]])
    H = plane_homographies(*views(K, E), depths)
    on_gpu = homography_warp(features.cuda(), plane_homographies(*views(K.cuda(), E.cuda()), depths.cuda()))
    torch.testing.assert_close(on_gpu.cpu(), homography_warp(features, H), rtol=1e-4, atol=1e-4)
