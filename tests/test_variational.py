"""Refinement by photo-consistency: on a slanted plane that is known; the correlation in plain loops."""

from __future__ import annotations

import pytest
import torch
from cameras import pose, rotation
from torch import Tensor

from mvsnet_edu import backproject, camera_center
from mvsnet_edu.variational import WINDOW, photo_inconsistency, variational_refinement

H, W = 40, 52
SLOPE = torch.tensor([0.15, -0.1, 1.0], dtype=torch.float64)  # of the plane x . SLOPE = 4


def rig() -> tuple[Tensor, Tensor]:
    K = torch.tensor([[60.0, 0, 27], [0, 58, 19], [0, 0, 1]]).double().expand(1, 3, 3, 3)
    E = [torch.eye(4).double(), pose(rotation(0.01, 0.06, 0.1), [-0.4, 0.0, 0.05])]
    E.append(pose(rotation(-0.05, 0.02, -0.1), [0.05, 0.4, 0.0]))
    return K, torch.stack(E)[None]


def along(K: Tensor, E: Tensor) -> tuple[Tensor, Tensor]:
    """Where the rays of a view meet the plane, (H, W, 3), and their depths, (1, H, W)."""
    here = camera_center(E)
    rays = backproject(torch.ones(1, H, W).double(), K[None], E[None])[0] - here
    depth = (4 - here @ SLOPE) / (rays @ SLOPE)
    return here + depth.unsqueeze(-1) * rays, depth[None]


@pytest.fixture
def plane() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """True depth (1, H, W) of view 0, photographs with a gain each, cameras."""
    K, E = rig()
    photos = []
    for v, gain in enumerate((1.0, 0.8, 1.2)):
        points, _ = along(K[0, v], E[0, v])
        x, y, z = points.unbind(dim=-1)
        waves = torch.sin(12 * x + 3 * y) + torch.sin(10 * y - 4 * x) * torch.sin(5 * z)
        photos.append(0.5 + 0.2 * gain * waves.expand(3, H, W))
    return along(K[0, 0], E[0, 0])[1], torch.stack(photos)[None], K, E


def test_windows_are_compared_by_their_correlation(plane):
    depth, images, K, E = plane
    shifted = depth[:, None] + 0.1 * torch.rand(1, 2, H, W).double()
    identity = E[:, :1].expand(1, 2, 4, 4)  # a second camera in the same place: the warp does nothing
    found = photo_inconsistency(shifted, images[:, :2], K[:, :1].expand(1, 2, 3, 3), identity)
    one, other = images[0, :2].mean(dim=1)
    for y, x in ((20, 30), (7, 3), (0, 0), (39, 51)):
        r = WINDOW // 2
        rows, columns = slice(max(0, y - r), y + r + 1), slice(max(0, x - r), x + r + 1)
        a, b = one[rows, columns].flatten(), other[rows, columns].flatten()
        scale = (a.var(correction=0) + 1e-4).sqrt() * (b.var(correction=0) + 1e-4).sqrt()
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        assert found[0, 0, y, x].item() == pytest.approx(1 - (covariance / scale).item(), abs=1e-6)


def test_the_true_depth_is_more_consistent_than_others(plane):
    depth, images, K, E = plane
    around = torch.stack([depth - 0.3, depth, depth + 0.3], dim=1)
    cost = photo_inconsistency(around, images, K, E)[0, :, 5:-5, 5:-5]
    assert (cost.argmin(dim=0) == 1).float().mean() > 0.9 and cost[1].median() < 0.1


@pytest.mark.parametrize("smoothness", [0.0, 0.02])
def test_it_takes_most_of_the_error_of_a_quantised_depth(plane, smoothness):
    """As the winner of a sweep is: rounded to the nearest plane."""
    depth, images, K, E = plane
    rounded = (depth / 0.5).round() * 0.5
    refined = variational_refinement(rounded, images, K, E, 0.5, smoothness=smoothness)
    before, after = ((each - depth).abs()[..., 5:-5, 5:-5].mean() for each in (rounded, refined))
    assert after < 0.5 * before


def test_no_pixel_moves_by_more_than_an_interval(plane):
    depth, images, K, E = plane
    wrong = depth + 3
    moved = variational_refinement(wrong, images, K, E, 0.2, rounds=6) - wrong
    assert moved.abs().max() <= 0.2 + 1e-9


def test_flat_photographs_move_nothing_but_roughness(plane):
    depth, images, K, E = plane
    flat = torch.full_like(images, 0.3)
    assert torch.equal(variational_refinement(depth, flat, K, E, 0.2, smoothness=0.0), depth)
    rough = depth + 0.05 * torch.randn(1, H, W).double()
    smooth = variational_refinement(rough, flat, K, E, 0.4)
    assert (smooth - depth).abs().mean() < 0.8 * (rough - depth).abs().mean()


def test_another_unit_and_another_batch_change_nothing(plane):
    depth, images, K, E = plane
    rounded = (depth / 0.2).round() * 0.2
    metres = E.clone()
    metres[..., :3, 3] *= 1000
    both = variational_refinement(
        torch.cat([rounded, 1000 * rounded]),
        images.expand(2, 3, 3, H, W),
        K.expand(2, 3, 3, 3),
        torch.cat([E, metres]),
        torch.tensor([0.2, 200.0]),
    )
    torch.testing.assert_close(both[1], 1000 * both[0])
    torch.testing.assert_close(both[:1], variational_refinement(rounded, images, K, E, 0.2))


def test_images_of_another_size_are_refused_in_a_sentence():
    K, E = rig()
    with pytest.raises(ValueError, match="104 x 80 pixels must have the size of the depth map, 52 x 40"):
        variational_refinement(torch.ones(1, H, W), torch.rand(1, 3, 3, 2 * H, 2 * W), K, E, 0.1)
