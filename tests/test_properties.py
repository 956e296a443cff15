"""Laws that the public functions obey at every size, batch, number of views and precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cameras import QUARTER_TURN, pose, rig, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvsnet_edu import (
    CostRegNet,
    DepthEstimate,
    FeatureNet,
    RMVSNet,
    backproject,
    camera_center,
    cloud_metrics,
    depth_warp,
    fuse_depth_maps,
    homography_warp,
    mvsnet_classification_loss,
    mvsnet_loss,
    mvsnet_regression_loss,
    pixel_grid,
    plane_homographies,
    project,
    soft_argmin,
    standardize,
    uniform_depths,
    winner_take_all,
)
from mvsnet_edu.data import angle_weight, baseline_angles, depth_range, plane_count
from mvsnet_edu.data.dice import Dice
from mvsnet_edu.depth import winner_of_sweep
from mvsnet_edu.enlargement import enlarge_images, pool_estimate
from mvsnet_edu.evaluation import thin_cloud
from mvsnet_edu.fusion import depth_normals, sample_depth
from mvsnet_edu.layers import pad_to_multiple
from mvsnet_edu.optimization import learning_rate
from mvsnet_edu.recipe import StageTable
from mvsnet_edu.recurrence import ConvGRUCell
from mvsnet_edu.tiles import cut_into_tiles
from mvsnet_edu.variational import variational_refinement

batches, views, planes, sides = st.integers(1, 3), st.integers(2, 5), st.integers(2, 9), st.integers(2, 11)
rolls = st.sampled_from([0.0, 0.3, QUARTER_TURN, 2 * QUARTER_TURN])
precisions = st.sampled_from([torch.float32, torch.float64])
shapes_of_depths = st.sampled_from(["shared", "image", "pixel"])
schedules = st.sampled_from(["cosine", "exponential"])
seeds = st.integers(0, 2**32 - 1)
few, some = (settings(max_examples=n, deadline=None) for n in (5, 12))


def source(K: Tensor, E: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return K[:, 0], E[:, 0], K[:, 1], E[:, 1]


def near(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}


# Cameras and warps


@given(B=batches, h=sides, w=sides, roll=rolls, dtype=precisions, seed=seeds)
@some
def test_projection_undoes_backprojection_and_the_centre_has_no_depth(B, h, w, roll, dtype, seed):
    torch.manual_seed(seed)
    K, E = (x[:, 1].to(dtype) for x in rig(B, 2, h, w, roll))
    depth = 2 + 3 * torch.rand(B, h, w, dtype=dtype)
    pixels, seen = project(backproject(depth, K, E), K, E)
    torch.testing.assert_close(pixels, pixel_grid(h, w, dtype=dtype).expand(B, h, w, 2), **near(dtype))
    torch.testing.assert_close(seen, depth, **near(dtype))
    _, none = project(camera_center(E), K, E)
    assert none.abs().max() < (1e-12 if dtype == torch.float64 else 1e-5)


@given(B=batches, C=st.integers(1, 4), D=planes, h=sides, w=sides, roll=rolls, dtype=precisions, seed=seeds)
@some
def test_warping_is_linear_stays_within_the_features_and_is_one_for_both_kinds_of_depths(
    B, C, D, h, w, roll, dtype, seed
):
    torch.manual_seed(seed)
    cameras = source(*(x.to(dtype) for x in rig(B, 2, h, w, roll)))
    one, other = torch.rand(2, B, C, h + 1, w + 2, dtype=dtype)
    depths = uniform_depths(2 + torch.rand(B, dtype=dtype), 0.7, D)
    H = plane_homographies(*cameras, depths)
    warped = homography_warp(one, H, size=(h, w))
    assert warped.shape == (B, C, D, h, w) and warped.dtype == dtype
    assert warped.min() >= 0 and warped.max() <= one.max() * (1 + 1e-5)
    both = homography_warp(2 * one - other, H, size=(h, w))
    torch.testing.assert_close(both, 2 * warped - homography_warp(other, H, size=(h, w)), **near(dtype))
    by_pixel = depth_warp(one, *cameras, depths[:, :, None, None].expand(B, D, h, w))
    tolerance = 1e-9 if dtype == torch.float64 else 2e-3  # a pixel of float32 in steep features
    torch.testing.assert_close(by_pixel, warped, rtol=0, atol=tolerance)


# Networks


@given(lead=st.lists(st.integers(1, 3), max_size=2), h=st.integers(3, 20), w=st.integers(3, 20), seed=seeds)
@some
def test_standardising_takes_out_any_gain_and_offset(lead, h, w, seed):
    torch.manual_seed(seed)
    images = torch.rand(*lead, 3, h, w, dtype=torch.float64)
    gain, offset = 0.1 + torch.rand(3, 1, 1).double(), torch.randn(3, 1, 1).double()
    once = standardize(images)
    torch.testing.assert_close(standardize(gain * images + offset), once, rtol=0, atol=1e-3)
    torch.testing.assert_close(standardize(once), once, rtol=0, atol=1e-4)


@given(B=batches, H=st.integers(4, 41), W=st.integers(4, 41), kind=st.sampled_from(["paper", "unet"]))
@few
def test_features_of_any_image_do_not_depend_on_the_batch(B, H, W, kind):
    torch.manual_seed(0)
    net, images = FeatureNet(kind).double(), torch.randn(B, 3, H, W).double()
    with torch.no_grad():
        features = net(images)
        assert features.shape == (B, 32, H // 4, W // 4) and features.isfinite().all()
        torch.testing.assert_close(net(images[-1:]), features[-1:])


@given(B=batches, D=st.integers(1, 9), h=st.integers(1, 9), w=st.integers(1, 9))
@few
def test_the_cost_of_any_volume_does_not_depend_on_the_batch(B, D, h, w):
    torch.manual_seed(0)
    net, volume = CostRegNet().double(), torch.rand(B, 32, D, h, w).double()
    with torch.no_grad():
        cost = net(volume)
        assert cost.shape == (B, D, h, w) and cost.isfinite().all()
        torch.testing.assert_close(net(volume[-1:]), cost[-1:])


@given(B=batches, V=views, H=st.integers(8, 33), W=st.integers(8, 33), D=planes, descending=st.booleans())
@few
def test_r_mvsnet_answers_with_one_of_its_planes(B, V, H, W, D, descending):
    torch.manual_seed(0)
    K, E = (x.float() for x in rig(B, V, H, W))
    depths = uniform_depths(torch.linspace(2, 3, B), 0.5, D)
    depths = depths.flip(1) if descending else depths
    with torch.no_grad():
        out = RMVSNet()(torch.rand(B, V, 3, H, W), K, E, depths)
    assert out.depth.shape == out.probability_map.shape == (B, H // 4, W // 4)
    assert (out.depth.unsqueeze(1) == depths[:, :, None, None]).any(dim=1).all()
    assert (out.probability_map >= 1 / D - 1e-6).all() and (out.probability_map <= 1 + 1e-6).all()


@given(B=batches, width=st.integers(1, 5), h=sides, w=sides, size=st.floats(0, 1e4))
@some
def test_the_memory_of_a_cell_stays_between_minus_one_and_one(B, width, h, w, size):
    torch.manual_seed(0)
    state = ConvGRUCell(3, width)(size * torch.randn(B, 3, h, w), 2 * torch.rand(B, width, h, w) - 1)
    assert state.shape == (B, width, h, w) and state.abs().max() <= 1


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@some
def test_padding_adds_less_than_a_multiple_and_can_be_cropped(size, multiple, dtype):
    x = torch.randn(2, 3, *size).to(dtype)
    padded = pad_to_multiple(x, multiple, dims=len(size))
    assert list(padded.shape[2:]) == [multiple * math.ceil(n / multiple) for n in size]
    assert padded.dtype == dtype and torch.equal(padded[(..., *(slice(n) for n in size))], x)


# Depth


@given(B=batches, D=st.integers(1, 20), h=sides, w=sides, per_pixel=st.booleans(), seed=seeds)
@some
def test_soft_argmin_follows_the_planes_and_forgets_what_all_costs_share(B, D, h, w, per_pixel, seed):
    torch.manual_seed(seed)
    cost, depths = torch.randn(B, D, h, w).double(), torch.rand(B, D, *[h, w] * per_pixel).double()
    depth, probability = soft_argmin(cost, depths)
    moved, same = soft_argmin(cost + torch.randn(B, 1, h, w), 3 * depths + 2)
    torch.testing.assert_close(moved, 3 * depth + 2)
    torch.testing.assert_close(same, probability)
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(B, h, w).double())


@given(B=batches, D=st.integers(1, 20), h=sides, w=sides, shape=shapes_of_depths, seed=seeds)
@some
def test_the_winner_is_numpys_and_that_of_any_sweep(B, D, h, w, shape, seed):
    torch.manual_seed(seed)
    scores = 4 * torch.randn(B, D, h, w).double()
    depths = torch.rand({"shared": (D,), "image": (B, D), "pixel": (B, D, h, w)}[shape]).double()
    probability = scores.softmax(dim=1)
    depth, best = winner_take_all(probability, depths)
    index = torch.from_numpy(probability.numpy().argmax(axis=1)[:, None])
    everywhere = depths if shape == "pixel" else depths.view(-1, D, 1, 1)
    assert torch.equal(depth, everywhere.expand(B, D, h, w).gather(1, index)[:, 0])
    cut = torch.randint(1, D + 1, ()).item()
    axis = 0 if depths.ndim == 1 else 1
    parts = [(scores[:, a:b], depths.narrow(axis, a, b - a)) for a, b in ((0, cut), (cut, D)) if b > a]
    swept, certainty = winner_of_sweep(parts)
    assert torch.equal(swept, depth)
    torch.testing.assert_close(certainty, best)


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=60), st.floats(0, 0.5))
@some
def test_the_range_of_depths_is_positive_holds_the_middle_and_has_the_scenes_unit(depths, margin):
    depths = torch.tensor(depths, dtype=torch.float64)
    least, most = depth_range(depths, margin)
    assert 0 < least < most and least <= depths.quantile(0.5) <= most
    assert depth_range(1000 * depths, margin) == pytest.approx((1000 * least, 1000 * most), rel=1e-9)


@given(st.floats(1e-2, 1e3), st.floats(1.001, 1e3), st.floats(1, 1e4))
@some
def test_planes_come_in_eights_and_finer_images_need_more(near, ratio, focal):
    count, more = (plane_count(near, near * ratio, f) for f in (focal, 2 * focal))
    assert count % 8 == 0 and 32 <= count <= more <= 256


# Losses


@given(B=batches, D=planes, h=sides, w=sides, measured=st.floats(0, 1), dtype=precisions, seed=seeds)
@some
def test_cross_entropy_is_that_of_torch_and_forgets_what_all_logits_share(B, D, h, w, measured, dtype, seed):
    torch.manual_seed(seed)
    logits, label = 3 * torch.randn(B, D, h, w, dtype=dtype), torch.randint(0, D, (B, h, w))
    known = torch.rand(B, h, w) < measured
    depths = uniform_depths(torch.rand(B, dtype=dtype) + 1, 0.5, D)
    wobble = 0.2 * (2 * torch.rand(B, h, w, dtype=dtype) - 1)
    truth = torch.where(known, depths.gather(1, label.flatten(1)).view(B, h, w) + wobble, 0)
    loss = mvsnet_classification_loss(logits, truth, depths)
    label = torch.where(known, label, -1)
    each = [F.cross_entropy(logits[b, None], label[b, None], ignore_index=-1) for b in range(B)]
    expected = sum(one.item() if known[b].any() else 0.0 for b, one in enumerate(each)) / B
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    shifted = mvsnet_classification_loss(logits + torch.randn(B, 1, h, w, dtype=dtype), truth, depths)
    torch.testing.assert_close(shifted, loss, rtol=1e-4, atol=1e-5)


@given(B=batches, h=sides, w=sides, measured=st.floats(0, 1), dtype=precisions, seed=seeds)
@some
def test_the_measures_are_ordered_shares_and_the_training_loss_lies_between_its_two(
    B, h, w, measured, dtype, seed
):
    torch.manual_seed(seed)
    truth = torch.where(torch.rand(B, h, w) < measured, 5 + torch.rand(B, h, w), 0).to(dtype)
    initial, refined = truth + torch.randn(2, B, h, w, dtype=dtype)
    loss0, one, three = mvsnet_regression_loss(initial, truth, 0.4)
    loss1 = mvsnet_regression_loss(refined, truth, 0.4)[0]
    assert 0 <= one <= three <= 1 and loss0 >= 0
    both = mvsnet_loss(initial, refined, truth, 0.4)
    assert min(loss0, loss1) - 1e-5 <= both <= max(loss0, loss1) + 1e-5


@given(steps=st.integers(1, 1000), warm_up=st.integers(0, 50), schedule=schedules)
@some
def test_the_learning_rate_is_never_above_its_own_nor_below_zero(steps, warm_up, schedule):
    stage = StageTable(steps=steps, rate=0.5, warm_up=warm_up, schedule=schedule)
    rates = [learning_rate(stage, step) for step in range(1, steps + 1)]
    assert all(-1e-12 <= rate <= 0.5 for rate in rates)
    after = rates[warm_up:]
    assert all(b <= a + 1e-12 for a, b in zip(after, after[1:], strict=False))


# Views, tiles, enlargement, refinement without learning


@given(N=st.integers(1, 20), V=st.integers(1, 4), seed=seeds)
@some
def test_angles_are_symmetric_and_unmoved_by_rigid_motions(N, V, seed):
    torch.manual_seed(seed)
    points, center, others = torch.randn(N, 3).double(), torch.randn(3).double(), torch.randn(V, 3).double()
    angles = baseline_angles(points, center, others)
    assert angles.shape == (V, N) and angles.min() >= 0 and angles.max() <= 180
    back = torch.cat([baseline_angles(points, other, center[None]) for other in others])
    torch.testing.assert_close(back, angles, rtol=0, atol=1e-5)
    turn = rotation(*torch.randn(3).tolist())
    moved = baseline_angles(*(x @ turn.T + 7 for x in (points, center, others)))
    torch.testing.assert_close(moved, angles, rtol=0, atol=1e-4)
    weights = angle_weight(angles)
    assert (weights >= 0).all() and (weights <= 1).all()


@given(h=st.integers(1, 300), w=st.integers(1, 300), room=st.integers(72 * 72, 300 * 300))
@some
def test_tiles_hold_every_pixel_once_and_fit(h, w, room):
    tiles = cut_into_tiles((h, w), lambda size: size[0] * size[1] <= room)
    count = np.zeros((1, h, w), int)
    for tile in tiles:
        top, left, height, width = tile.window
        assert height * width <= room
        place = np.arange(h * w).reshape(1, h, w)
        window = place[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(window[tile.inner], place[tile.core])
        count[tile.core] += 1
    assert not tiles or (count == 1).all()


@given(B=batches, h=sides, w=sides, times=st.integers(1, 3), seed=seeds)
@some
def test_what_is_pooled_lies_within_its_block_and_enlarged_images_are_images(B, h, w, times, seed):
    torch.manual_seed(seed)
    depth, trust = 1 + torch.rand(B, times * h, times * w), torch.rand(B, times * h, times * w)
    pooled = pool_estimate(DepthEstimate(depth, trust, None), times)
    blocks = depth.reshape(B, h, times, w, times)
    assert (pooled.depth <= blocks.amax(dim=(2, 4)) + 1e-5).all()
    assert (pooled.depth >= blocks.amin(dim=(2, 4)) - 1e-5).all()
    mean = trust.reshape(B, h, times, w, times).mean(dim=(2, 4))
    torch.testing.assert_close(pooled.probability_map, mean)
    larger = enlarge_images(torch.rand(B, 2, 3, h, w), times)
    assert larger.shape == (B, 2, 3, times * h, times * w) and larger.min() >= 0 and larger.max() <= 1


@given(B=batches, V=views, h=sides, w=sides, unit=st.sampled_from([0.01, 100.0]), seed=seeds)
@few
def test_variational_refinement_moves_by_an_interval_at_most_and_has_no_unit(B, V, h, w, unit, seed):
    torch.manual_seed(seed)
    K, E = rig(B, V, h, w)
    images, depth, interval = torch.rand(B, V, 3, h, w).double(), 4 + torch.rand(B, h, w).double(), 0.1
    refined = variational_refinement(depth, images, K, E, interval)
    assert (refined - depth).abs().max() <= interval * (1 + 1e-9)
    elsewhere = E.clone()
    elsewhere[..., :3, 3] *= unit
    other = variational_refinement(unit * depth, images, K, elsewhere, unit * interval)
    torch.testing.assert_close(other, unit * refined, rtol=1e-6, atol=0)


# Clouds


@given(N=st.integers(1, 40), M=st.integers(1, 40), scale=st.floats(0.1, 10), seed=seeds)
@some
def test_metrics_follow_the_unit_and_no_rigid_motion_or_order(N, M, scale, seed):
    torch.manual_seed(seed)
    one, other = torch.rand(N, 3).double(), torch.rand(M, 3).double()
    metrics = cloud_metrics(one, other, 0.2)
    turn = rotation(*torch.randn(3).tolist())
    moved = cloud_metrics(*(scale * x.flip(0) @ turn.T + 3 for x in (one, other)), 0.2 * scale)
    factors = [scale] * 3 + [1] * 3
    assert list(moved) == pytest.approx([f * m for f, m in zip(factors, metrics, strict=True)], rel=1e-6)
    mirrored = cloud_metrics(other, one, 0.2)
    assert mirrored.accuracy == metrics.completeness and mirrored.precision == metrics.recall
    assert mirrored.f_score == pytest.approx(metrics.f_score)


@given(N=st.integers(1, 60), spacing=st.floats(0.01, 1), seed=seeds)
@some
def test_a_thinned_cloud_is_sparse_and_covers_the_cloud(N, spacing, seed):
    points = np.random.default_rng(seed).random((N, 3))
    kept = thin_cloud(points, spacing)
    between = np.linalg.norm(kept[:, None] - kept, axis=-1) + 9 * np.eye(len(kept))
    assert between.min() > spacing
    assert np.linalg.norm(points[:, None] - kept, axis=-1).min(axis=1).max() <= spacing


@given(h=sides, w=sides, unit=st.sampled_from([0.01, 1.0, 100.0]), seed=seeds)
@some
def test_a_sampled_depth_is_near_its_neighbours_and_a_normal_faces_the_camera(h, w, unit, seed):
    torch.manual_seed(seed)
    K, E = (x[0, 0] for x in rig(1, 1, h, w))
    depth = unit * (1 + torch.rand(h, w).double())
    pixels = torch.rand(30, 2).double() * torch.tensor([w, h])
    sampled = sample_depth(depth, pixels)
    assert (sampled > depth.min() / 1.1).all() and (sampled < depth.max() * 1.1).all()
    torch.testing.assert_close(sample_depth(2 * depth, pixels), 2 * sampled)
    pose_of_unit = pose(E[:3, :3], unit * E[:3, 3])
    normals = depth_normals(depth, K, pose_of_unit)
    rays = backproject(depth[None], K[None], pose_of_unit[None])[0] - camera_center(pose_of_unit)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(h, w).double())
    assert ((normals * rays).sum(dim=-1) < 0).all()


@given(V=views, h=st.integers(6, 12), w=st.integers(6, 12), tilt=st.floats(-0.15, 0.15), seed=seeds)
@few
def test_the_cloud_of_a_plane_lies_in_the_plane_whatever_the_views(V, h, w, tilt, seed):
    """z = 4 + tilt x, without steps that look like edges, and no more points than pixels."""
    torch.manual_seed(seed)
    K, _ = rig(1, V, 4 * h, 4 * w)
    small = K[0] * torch.tensor([[0.25], [0.25], [1.0]])
    poses = [pose(rotation(z=0.2 * v), 0.1 * torch.randn(3)) for v in range(V)]
    depths = []
    for k, E in zip(small, poses, strict=True):
        center = camera_center(E)
        rays = backproject(torch.ones(1, h, w).double(), k[None], E[None])[0] - center
        depths.append((4 + tilt * center[0] - center[2]) / (rays[..., 2] - tilt * rays[..., 0]))
    images = torch.rand(V, 3, 4 * h, 4 * w)
    cloud = fuse_depth_maps(depths, [torch.ones(h, w)] * V, images, list(K[0]), poses, min_views=2)
    x, _, z = torch.as_tensor(np.asarray(cloud.points)).double().T
    assert len(x) <= V * h * w
    torch.testing.assert_close(z, 4 + tilt * x, rtol=0, atol=1e-5)


@given(seed=seeds, low=st.floats(-5, 5), width=st.floats(0.01, 10))
@some
def test_dice_repeat_and_stay_between_their_bounds(seed, low, width):
    def draw() -> list[float]:
        dice = Dice(seed, 7)
        return [dice.number(low, low + width), dice.power(1, 1 + width), dice.integer(3, 5), *dice.normal(2)]

    number, power, integer, *_ = first = draw()
    assert first == draw() and all(math.isfinite(x) for x in first)
    assert low <= number <= low + width and 1 <= power <= 1 + width and integer in (3, 4, 5)
