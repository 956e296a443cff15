"""Enlarging images against the line it must reproduce, pooling against a loop, the two around a network."""

from __future__ import annotations

import torch

from mvsnet_edu import project
from mvsnet_edu.enlargement import enlarge_images, estimate_enlarged, pool_estimate
from mvsnet_edu.models import DepthEstimate


def test_a_ramp_stays_where_it_is():
    """The value at a place does not change: no half pixel is lost, which would change it by 0.01."""
    H, W, times = 12, 17, 3

    def ramp(zoom: int) -> torch.Tensor:
        x = (torch.arange(W * zoom) + 0.5) / zoom
        y = (torch.arange(H * zoom)[:, None] + 0.5) / zoom
        return (0.2 + 0.02 * x + 0.03 * y).expand(2, 3, -1, -1)

    inside = slice(3 * times, -3 * times)  # bicubic interpolation reads two pixels around
    larger = enlarge_images(ramp(1), times)
    assert torch.allclose(larger[..., inside, inside], ramp(times)[..., inside, inside], atol=2e-3)


def test_enlarged_images_stay_between_black_and_white():
    images = (torch.rand(2, 3, 3, 6, 9) > 0.5).float()  # bicubic interpolation swings over
    larger = enlarge_images(images, 2)
    assert larger.shape == (2, 3, 3, 12, 18) and larger.min() >= 0 and larger.max() <= 1
    assert torch.allclose(larger[1, 2], enlarge_images(images[1, 2], 2))


def test_pooling_is_a_mean_weighted_by_trust():
    times, (B, h, w) = 3, (2, 4, 5)
    depth, refined, trust = torch.rand(3, B, h * times, w * times) + 0.1
    pooled = pool_estimate(DepthEstimate(depth, trust, refined), times)
    for b in range(B):
        for i in range(h):
            for j in range(w):
                block = b, slice(i * times, (i + 1) * times), slice(j * times, (j + 1) * times)
                share = trust[block] / trust[block].sum()
                assert torch.isclose(pooled.depth[b, i, j], (depth[block] * share).sum(), rtol=1e-4)
                assert torch.isclose(pooled.refined_depth[b, i, j], (refined[block] * share).sum(), rtol=1e-4)
                assert torch.isclose(pooled.probability_map[b, i, j], trust[block].mean())


def test_a_block_without_any_trust_has_a_depth():
    depth = torch.tensor([[[2.0, 4.0], [6.0, 8.0]]])
    pooled = pool_estimate(DepthEstimate(depth, torch.zeros(1, 2, 2), None), 2)
    assert torch.isclose(pooled.depth, torch.tensor([[[5.0]]])).all()
    assert pooled.probability_map.item() == 0 and pooled.refined_depth is None


def test_the_depth_learns_and_the_trust_does_not():
    depth, trust = torch.rand(2, 1, 4, 6).unbind()
    depth, trust = depth.clone().requires_grad_(), trust.clone().requires_grad_()
    pool_estimate(DepthEstimate(depth, trust, None), 2).depth.sum().backward()
    assert depth.grad.abs().min() > 0 and trust.grad is None


def test_a_point_of_the_scene_stays_at_its_place_in_the_image():
    """What the network is given belongs together: a point lies at the same share of width and height."""
    images, depths = torch.rand(2, 3, 3, 40, 56), torch.rand(2, 8) + 1
    K = torch.tensor([[50.0, 0, 30], [0, 52, 18], [0, 0, 1]]).expand(2, 3, 3, 3)
    poses, seen = torch.eye(4).expand(2, 3, 4, 4), []

    def network(*views: torch.Tensor) -> DepthEstimate:
        seen.append(views)
        return DepthEstimate(*torch.ones(2, 2, views[0].shape[-2] // 4, views[0].shape[-1] // 4), None)

    estimate = estimate_enlarged(network, images, K, poses, depths, 2)
    assert estimate.depth.shape == (2, 10, 14)
    (larger, larger_K, same_poses, same_depths), point = seen[0], torch.tensor([0.1, -0.2, 2.0])
    before, _ = project(point, K[0, 0], poses[0, 0])
    after, _ = project(point, larger_K[0, 0], same_poses[0, 0])
    size, larger_size = (torch.tensor(x.shape[-2:][::-1]) for x in (images, larger))
    assert torch.allclose(before / size, after / larger_size)
    assert torch.equal(same_depths, depths)

    estimate_enlarged(network, images, K, poses, depths, 1)
    assert all(torch.equal(*pair) for pair in zip(seen[1], (images, K, poses, depths), strict=True))
