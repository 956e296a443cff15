"""The 21 numerical pitfalls of learned multi-view stereo: what goes wrong elsewhere, and not here.

A test's name carries the number of its pitfall. More tests of one stand with the stage that it concerns, with
"Pitfall 5", say, in their docstrings.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cameras import DEVICES, QUARTER_TURN, intrinsics, pose, rig
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features import seen_by, without_norms
from torch import Tensor, nn

from mvsnet_edu import (
    FeatureNet,
    MVSNet,
    RefineNet,
    backproject,
    crop_intrinsics,
    depth_refine,
    depth_warp,
    fuse_depth_maps,
    homography_warp,
    inverse_depths,
    less_one_percentage,
    mvsnet_classification_loss,
    mvsnet_loss,
    non_zero_mean_absolute_diff,
    pixel_grid,
    plane_homographies,
    probability_map,
    project,
    scale_intrinsics,
    soft_argmin,
    uniform_depths,
    variance_cost_volume,
)
from mvsnet_edu.data import read_cam, read_pair, read_pfm, select_sources, view_scores
from mvsnet_edu.depth import winner_of_sweep
from mvsnet_edu.fusion import filter_depth_maps, geometric_consistency
from mvsnet_edu.layers import normalization

NAN, INF = math.nan, math.inf

batches, views, planes = st.integers(1, 3), st.integers(2, 5), st.integers(2, 12)
sides = st.integers(2, 12)
rolls = st.sampled_from([0.0, 0.3, QUARTER_TURN, 2 * QUARTER_TURN])
few, many = (settings(max_examples=n, deadline=None) for n in (6, 15))


def source(K: Tensor, E: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return K[:, 0], E[:, 0], K[:, 1], E[:, 1]


def apply(H: Tensor, pixels: Tensor) -> Tensor:
    """(B, 3, 3) on pixels (h, w, 2) -> (B, h, w, 2)."""
    x = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1) @ H.transpose(1, 2).unsqueeze(1)
    return x[..., :2] / x[..., 2:]


def test_01_grid_sample_with_mixed_conventions_reads_half_a_pixel_off():
    """W - 1 belongs to align_corners=True: else column 10 of 160 is 0.44 off, and the edge halved."""
    columns = torch.arange(160.0).expand(1, 1, 3, 160)
    x, y = torch.meshgrid(2 * torch.arange(160) / 159 - 1, torch.arange(3) - 1.0, indexing="xy")
    grid = torch.stack([x, y], dim=-1)[None]
    mixed = F.grid_sample(columns, grid, align_corners=False)[0, 0, 1]
    assert mixed[10].item() == pytest.approx(10 - 0.44, abs=0.005)
    edge = F.grid_sample(torch.ones(1, 1, 3, 160), grid, align_corners=False)[0, 0, 1]
    assert edge[0].item() == pytest.approx(0.5) and edge[80] == 1
    torch.testing.assert_close(F.grid_sample(columns, grid, align_corners=True), columns)  # a consistent pair
    assert torch.equal(homography_warp(columns, torch.eye(3).view(1, 1, 3, 3))[:, :, 0], columns)


@pytest.mark.parametrize("device", DEVICES)
@given(B=batches, h=sides, w=sides, roll=rolls, depth=st.floats(2, 100))
@many
def test_02_a_homography_is_backprojection_and_projection(device, B, h, w, roll, depth):
    """To 1e-9 pixels; to itself the identity, and at infinity the rotation alone."""
    torch.manual_seed(0)
    K, E = (x.to(device) for x in rig(B, 2, h, w, roll))
    plane = torch.full((B, h, w), depth, dtype=torch.float64, device=device)
    H = plane_homographies(*source(K, E), plane[:, :1, 0])[:, 0]
    expected, z = project(backproject(plane, K[:, 0], E[:, 0]), K[:, 1], E[:, 1])
    pixels = pixel_grid(h, w, dtype=torch.float64, device=device)
    torch.testing.assert_close(apply(H, pixels), expected, rtol=1e-9, atol=1e-9)
    third = (H[:, None, None, 2, :2] * pixels).sum(-1) + H[:, None, None, 2, 2]
    torch.testing.assert_close(third * depth, z, rtol=0, atol=1e-9)


@given(roll=rolls)
@few
def test_02_the_homography_to_itself_is_the_identity_and_at_infinity_the_rotation(roll):
    """H = K_i R_i R_1^T K_1^-1 there, and H moves in its third column only."""
    torch.manual_seed(0)
    K, E = rig(2, 2, 9, 14, roll)
    K1, E1, Ki, Ei = source(K, E)
    depths = torch.tensor([[3.0, 1e15, INF], [7, 1e15, INF]], dtype=torch.float64)
    to_itself = plane_homographies(K1, E1, K1, E1, depths)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(to_itself, eye.expand(2, 3, 3, 3), rtol=0, atol=1e-12)
    rotation_alone = Ki @ Ei[:, :3, :3] @ E1[:, :3, :3].transpose(1, 2) @ torch.linalg.inv(K1)
    H = plane_homographies(K1, E1, Ki, Ei, depths)
    torch.testing.assert_close(H[:, 1:], rotation_alone[:, None].expand(2, 2, 3, 3), rtol=0, atol=1e-9)


@given(st.floats(0.1, 4), st.floats(-30, 30), st.floats(-30, 30))
@many
def test_03_scaling_and_cropping_cameras_can_be_undone(scale, left, top):
    torch.manual_seed(0)
    K = torch.stack([intrinsics(30, 50), intrinsics(40, 20)])
    torch.testing.assert_close(scale_intrinsics(scale_intrinsics(K, scale), 1 / scale), K)
    torch.testing.assert_close(crop_intrinsics(crop_intrinsics(K, left, top), -left, -top), K)
    scaled_then_cropped = crop_intrinsics(scale_intrinsics(K, scale), scale * left, scale * top)
    torch.testing.assert_close(scale_intrinsics(crop_intrinsics(K, left, top), scale), scaled_then_cropped)


def test_03_scaling_in_the_integer_centre_convention_needs_the_half_pixel():
    """OpenCV's cx is half a pixel less, and becomes (cx + 0.5) s - 0.5; s cx is 0.375 off at s = 1/4."""
    K = intrinsics(30, 50)
    opencv = K[:2, 2] - 0.5
    scaled = scale_intrinsics(K, 0.25)[:2, 2] - 0.5
    torch.testing.assert_close(scaled, (opencv + 0.5) * 0.25 - 0.5)
    torch.testing.assert_close((scaled - opencv * 0.25).abs(), torch.full((2,), 0.375, dtype=torch.float64))


@pytest.mark.parametrize("depth", [2.0, 1.999999, 1.0])
def test_04_points_beside_and_behind_a_camera_are_zeros_with_finite_gradients(depth):
    """The source stands 2 in front of the reference, so depth 2 is z = 0 exactly."""
    K = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    E_src = pose(torch.eye(3), [0.3, 0.2, -2.0])[None].requires_grad_()
    E_ref = torch.eye(4, dtype=torch.float64)[None].requires_grad_()
    features = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    depths = torch.tensor([[depth, 5.0]], dtype=torch.float64, requires_grad=True)
    by_plane = homography_warp(features, plane_homographies(K, E_ref, K, E_src, depths))
    by_pixel = depth_warp(features, K, E_ref, K, E_src, depths[..., None, None].expand(1, 2, 3, 4))
    for warped in (by_plane, by_pixel):
        assert warped.isfinite().all() and (warped[:, :, 0] == 0).all() and (warped[:, :, 1] != 0).any()
        inputs = (features, depths, K, E_ref, E_src)
        assert all(g.isfinite().all() for g in torch.autograd.grad(warped.sum(), inputs))


@pytest.mark.parametrize(
    "mean, dtype, error, negative",
    [(100, torch.float32, 0.1, 0), (10, torch.float16, 4, 0.2)],
    ids=["float32", "float16"],
)
def test_05_the_variance_in_one_pass_of_squares_is_noise_and_ours_is_not(mean, dtype, error, negative):
    """E[x^2] - E[x]^2 at a deviation of 0.1: a tenth off in float32, several times in half."""
    K, E = (x[:, :1].expand(2, 3, *x.shape[2:]).float() for x in rig(2, 2, 9, 13))
    features = (mean + 0.1 * torch.randn(2, 3, 8, 9, 13)).to(dtype)
    exact = features.double().var(dim=1, correction=0)
    naive = (features.square().mean(dim=1) - features.mean(dim=1).square()).double()
    volume = variance_cost_volume(features, K, E, torch.ones(2, 1))[:, :, 0].double()
    assert ((naive - exact) / exact.mean()).abs().max() > error and (naive < 0).double().mean() > negative
    assert ((volume - exact) / exact.mean()).abs().max() < 1e-3 and volume.min() >= 0


@pytest.mark.parametrize("D", [48, 96])
def test_06_arange_to_the_end_of_the_range_makes_one_plane_too_many(D):
    interval = 2.5 * 1.06
    assert len(np.arange(425, 425 + interval * D, interval, dtype=np.float32)) == D + 1
    expected = [425 + interval * j for j in range(D)]
    assert uniform_depths(425.0, interval, D).tolist() == pytest.approx(expected, rel=1e-6)


@given(B=batches, D=st.integers(1, 40), spread=st.floats(0.01, 100), inverse=st.booleans())
@many
def test_07_soft_argmin_ends_at_the_last_of_d_planes(B, D, spread, inverse):
    """Within the planes; one low cost gives its plane, equal costs the middle: D - 1 intervals, not D."""
    torch.manual_seed(0)
    start = 1 + torch.rand(B)
    depths = inverse_depths(start, 10.0, D) if inverse else uniform_depths(start, 0.5, D)
    low, high = (f(depths, dim=1).view(B, 1, 1) for f in (torch.amin, torch.amax))
    depth, _ = soft_argmin(spread * torch.randn(B, D, 4, 5), depths)
    assert (depth >= low * (1 - 1e-6)).all() and (depth <= high * (1 + 1e-6)).all()
    one_hot = 200 * (1 - torch.eye(D)).expand(B, 1, D, D).transpose(1, 2)  # column j: plane j
    assert torch.equal(soft_argmin(one_hot, depths)[0][:, 0], depths)
    middle, _ = soft_argmin(torch.zeros(B, D, 1, 1), depths)
    torch.testing.assert_close(middle.flatten(), depths.mean(dim=1))


def clipped_bins(probability: list[float], e: float) -> float:
    """The original's four bins: floor, ceil and their neighbours, clipped at the ends, each counted."""
    last = len(probability) - 1
    bins = (math.floor(e) - 1, math.floor(e), math.ceil(e), math.ceil(e) + 1)
    return sum(probability[min(max(k, 0), last)] for k in bins)


@pytest.mark.parametrize("e, original", [(0, 3.0), (1, 2.0), (3, 2.0), (7, 3.0)])
def test_08_clipped_bins_add_up_to_two_or_three(e, original):
    """All the probability at plane e of 8: more than certain in the original, certain here."""
    certain = torch.zeros(8).index_fill(0, torch.tensor(e), 1.0)
    assert clipped_bins(certain.tolist(), e) == original
    depths = uniform_depths(2.0, 0.5, 8)
    assert probability_map(certain.view(1, 8, 1, 1), depths[e].view(1, 1, 1), depths).item() == 1.0


@pytest.mark.parametrize("e, bins", [(3.5, 4), (3.0, 4), (0.0, 3), (0.5, 3), (6.5, 3), (7.0, 2)])
def test_08_a_uniform_probability_gives_four_over_d_and_less_at_the_ends(e, bins):
    uniform = torch.full((1, 8, 1, 1), 1 / 8)
    trust = probability_map(uniform, torch.tensor([[[2.0 + 0.5 * e]]]), uniform_depths(2.0, 0.5, 8))
    assert trust.item() == pytest.approx(bins / 8)


def test_09_two_peaks_give_a_depth_without_support_and_the_probability_map_tells():
    cost = torch.full((1, 16, 1, 1), 50.0)
    cost[0, [2, 13]] = 0
    depths = uniform_depths(1.0, 1.0, 16)
    depth, probability = soft_argmin(cost, depths)
    assert depth.item() == pytest.approx(8.5)
    assert probability_map(probability, depth, depths).item() < 1e-12


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    poison=st.sampled_from([0.0, NAN, INF, -INF]),
    measured=st.sampled_from([0.0, 0.3, 1.0]),
    unit=st.sampled_from([1e-3, 1.0, 1e3]),
)
@many
def test_10_the_loss_is_a_mean_over_measured_pixels_that_nothing_else_enters(
    shape, dtype, poison, measured, unit
):
    """Against a loop; no truth gives 0 without a gradient, the sum of the original is B times the mean."""
    torch.manual_seed(0)
    truth, error = 1 + torch.rand(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    known = torch.rand(shape) < measured
    truth, estimate = torch.where(known, truth, poison), torch.where(known, truth + error, poison or NAN)
    interval = 0.5 + torch.rand(shape[0], dtype=dtype)
    means = [sum(e[k].abs().tolist()) / max(k.sum().item(), 1) for e, k in zip(error, known, strict=True)]
    expected = sum(m / i for m, i in zip(means, interval.tolist(), strict=True)) / shape[0]
    estimate = (unit * estimate).requires_grad_()
    arguments = (estimate, unit * truth, unit * interval)
    loss = non_zero_mean_absolute_diff(*arguments)
    (gradient,) = torch.autograd.grad(loss, estimate)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert gradient.isfinite().all() and (gradient[~known] == 0).all()
    total = non_zero_mean_absolute_diff(*arguments, reduction="sum")
    torch.testing.assert_close(total, shape[0] * loss)
    assert mvsnet_loss(arguments[0], None, *arguments[1:]) == loss


def test_10_an_image_counts_once_and_an_error_of_one_interval_is_within_one():
    """The means over images and over pixels are 5.5 and 1.09 here. The share uses <= and has no gradient."""
    truth, estimate = torch.ones(2, 10, 10), torch.full((2, 10, 10), 2.0)
    truth[1], truth[1, 0, 0], estimate[1] = 0, 1, 11
    estimate.requires_grad_()
    assert non_zero_mean_absolute_diff(estimate, truth, 1.0).item() == pytest.approx(5.5)
    assert (100 * 1 + 10) / 101 == pytest.approx(1.09, abs=0.005)
    share = less_one_percentage(estimate, truth, 1.0)
    assert share.item() == pytest.approx(100 / 101) and not share.requires_grad


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_11_the_logarithm_of_a_softmax_is_infinite_and_log_softmax_is_not(size):
    logits = torch.tensor([size, -size, 0.0, 0.0]).view(1, 4, 1, 1).requires_grad_()
    assert logits.softmax(dim=1).log().isinf().any()
    loss = mvsnet_classification_loss(logits, torch.tensor([[[2.0]]]), torch.arange(1.0, 5.0))
    loss.backward()
    assert loss.item() == pytest.approx(2 * size)
    assert logits.grad.flatten().tolist() == pytest.approx([1.0, -1.0, 0.0, 0.0])


@pytest.mark.parametrize("level", [-1e4, 0.0, 90.0, 1e4])
def test_11_a_running_winner_subtracts_the_largest_score(level):
    """The running sum of the original overflows: exp(90) is infinite in float32."""
    assert torch.tensor(90.0).exp().isinf()
    scores = torch.tensor([0.0, 3.0, 1.0, 2.0]).view(1, 4, 1, 1)
    slabs = [(level + scores[:, k, None], torch.tensor([[float(k)]])) for k in range(4)]
    depth, probability = winner_of_sweep(slabs)
    assert depth.item() == 1
    assert probability.item() == pytest.approx(scores.softmax(dim=1).max().item(), rel=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_12_batch_norm_on_one_sample_is_instance_norm_until_eval(dims):
    """What the original computes, in training and in testing; eval() makes it another function."""
    x = 3 + 2 * torch.randn(1, 16, *(5, 6, 7)[-dims:])
    batch, instance = normalization("batch", 16, dims).train(), normalization("instance", 16, dims)
    trained = batch(x)
    torch.testing.assert_close(trained, instance(x), rtol=0, atol=1e-6)
    assert (batch.eval()(x) - trained).abs().max() > 0.5
    torch.testing.assert_close(instance.eval()(x), instance.train()(x), rtol=0, atol=0)


@pytest.mark.parametrize("norm, mixes", [("batch", True), ("instance", False), ("group", False)])
def test_12_only_batch_norm_mixes_the_views_that_are_stacked_into_a_batch(norm, mixes):
    net, images = FeatureNet(norm=norm).train(), torch.randn(3, 3, 20, 28)
    images[1] *= 5
    together, one_by_one = net(images), torch.cat([net(image[None]) for image in images])
    assert ((together - one_by_one).abs().max() > 0.01) == mixes


@given(B=batches, h=sides, w=sides, scale=st.sampled_from([0.01, 1.0, 1e3]), trained=st.booleans())
@many
def test_13_refinement_starts_as_the_identity_and_does_not_know_the_unit(B, h, w, scale, trained):
    """A residual of either sign, in any batch; a scene a hundred times smaller has depths so much smaller."""
    torch.manual_seed(0)
    net = RefineNet().double()
    nn.init.normal_(net.residual.weight, std=0.3 * trained)
    depth, image = 2 + 2 * torch.rand(B, 1, h, w).double(), torch.randn(B, 3, 4 * h, 4 * w).double()
    start, interval = 1 + torch.rand(B).double(), 0.1 + torch.rand(B).double()
    refined = depth_refine(depth, image, 16, start, interval, net)
    rescaled = depth_refine(scale * depth, image, 16, scale * start, scale * interval, net)
    torch.testing.assert_close(rescaled, scale * refined, rtol=1e-9, atol=0)
    assert torch.allclose(refined, depth, rtol=1e-12) != trained
    alone = depth_refine(depth[-1:], image[-1:], 16, start[-1:], interval[-1:], net)
    torch.testing.assert_close(alone, refined[-1:])


@pytest.mark.parametrize("padding, center", [("symmetric", 0), ("same", 3), ("centred", 1)])
def test_14_where_a_feature_looks_depends_on_the_padding(padding, center):
    """The middle of the 4 x 4 block is 4 i + 1.5; PyTorch's ports look at 4 i and TensorFlow at 4 i + 3."""
    rows, columns = seen_by(without_norms(FeatureNet(padding=padding)), 9, 15)
    assert rows.tolist() == list(range(4 * 9 + center - 20, 4 * 9 + center + 21))
    assert columns.tolist() == list(range(4 * 15 + center - 20, 4 * 15 + center + 21))


@given(B=batches, V=st.sampled_from([2, 3, 5]), H=st.integers(8, 41), W=st.integers(8, 41), D=planes)
@few
def test_15_any_size_and_any_number_of_planes_and_views(B, V, H, W, D):
    """No multiple of 32, nor of 8 planes: padded and cropped back."""
    torch.manual_seed(0)
    K, E = (x.float() for x in rig(B, V, H, W))
    depths = uniform_depths(torch.linspace(2, 3, B), 0.5, D)
    with torch.no_grad():
        out = MVSNet()(torch.rand(B, V, 3, H, W), K, E, depths)
    assert all(value.shape == (B, H // 4, W // 4) and value.isfinite().all() for value in out)
    near, far = (depths[:, k, None, None] for k in (0, -1))
    assert (out.depth >= near * (1 - 1e-6)).all() and (out.depth <= far * (1 + 1e-6)).all()
    assert out.probability_map.min() >= 0 and out.probability_map.max() <= 1


@given(B=batches, V=views, h=sides, w=sides, roll=rolls, order=st.randoms(use_true_random=False))
@many
def test_16_the_order_of_the_sources_does_not_matter_and_copies_have_no_variance(B, V, h, w, roll, order):
    torch.manual_seed(0)
    K, E = rig(B, V, h, w, roll)
    features, depths = torch.randn(B, V, 3, h, w).double(), torch.tensor([3.0, 4, 9]).double().expand(B, 3)
    shuffled = [0, *order.sample(range(1, V), V - 1)]
    volume = variance_cost_volume(features, K, E, depths)
    other = variance_cost_volume(features[:, shuffled], K[:, shuffled], E[:, shuffled], depths)
    torch.testing.assert_close(other, volume, rtol=1e-9, atol=1e-12)
    copies = [x[:, :1].expand_as(x).float() for x in (features, K, E)]
    assert variance_cost_volume(*copies, depths.float()).abs().max() == 0
    with pytest.raises(ValueError, match="at least two views, not 1"):
        variance_cost_volume(features[:, :1], K[:, :1], E[:, :1], depths)


def side_by_side(n: int, step: float) -> tuple[list[Tensor], list[Tensor]]:
    """Cameras that look along z, `step` apart, with images of 64 x 48."""
    K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64)
    return [K] * n, [pose(torch.eye(3), [-step * v, 0, 0]) for v in range(n)]


def test_17_exact_depths_of_a_plane_agree_to_the_border_and_zero_depth_divides_nothing():
    (K, _), (E, aside) = side_by_side(2, 0.4)
    K, depth = scale_intrinsics(K, 0.25), torch.full((12, 16), 4.0, dtype=torch.float64)
    check = geometric_consistency(depth, K, E, depth, K, aside)
    disparity = 15 * 0.4 / 4
    seen = pixel_grid(12, 16)[..., 0] >= disparity  # the rest falls outside of the source
    assert check.reprojection_error[seen].max() < 1e-12 and check.relative_depth_error[seen].max() < 1e-12
    assert check.reprojection_error[~seen].isinf().all()
    nothing = geometric_consistency(torch.zeros_like(depth), K, E, depth, K, aside)
    assert all(value.isinf().all() for value in nothing)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_17_three_views_are_a_reference_and_two_sources(n):
    intrinsics, extrinsics = side_by_side(n, 0.0)
    depths = torch.full((n, 12, 16), 4.0)
    kept = filter_depth_maps(depths, torch.ones_like(depths), intrinsics, extrinsics, min_views=3)
    assert all((views == n).all() for views in kept.views)
    assert all((depth > 0).all() == (n >= 3) for depth in kept.depths)


@pytest.mark.parametrize("limit, kept", [(1.49, False), (1.51, True)])
def test_17_thresholds_are_in_pixels_of_the_images_not_of_the_depth_maps(limit, kept):
    """1.5 pixels of disparity between the two depths; in the depth map, at a quarter, they are 0.375."""
    intrinsics, extrinsics = side_by_side(2, 0.5)
    depths = torch.tensor([4.0, 1 / (1 / 4 - 1.5 / (60 * 0.5))]).double()
    maps = depths.view(2, 1, 1).expand(2, 12, 16)
    options = {"min_views": 2, "max_reprojection": limit, "max_relative_depth": 1.0}
    images = torch.rand(2, 3, 48, 64)
    cloud = fuse_depth_maps(maps, torch.ones_like(maps), images, intrinsics, extrinsics, **options)
    assert (len(cloud.points) > 0) == kept


CAM = (
    "extrinsic\n0 -1 0 0.5\n1 0 0 -2\n0 0 1 3.25\n0 0 0 1\n\nintrinsic\n361.5 0 82.9\n0 360.25 66.4\n0 0 1\n"
)


@pytest.mark.parametrize(("scale", "order"), [("-1.0", "<"), ("1", ">"), ("-3.5e-3", "<"), ("255", ">")])
def test_18_the_rows_of_a_pfm_run_upwards_and_the_sign_gives_the_byte_order(tmp_path, scale, order):
    path = tmp_path / "depth.pfm"
    path.write_bytes(f"Pf\n3 2\n{scale}\n".encode() + struct.pack(f"{order}6f", 4, 5, 6, 1, 2, 3))
    depth = read_pfm(path)
    assert depth.dtype == np.float32 and depth.dtype.isnative and depth.flags.c_contiguous
    assert depth.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("tail", "num", "depth_max"),
    [("", None, None), (" 192", 192, 902.5), (" 192.0 935.5", 192, 935.5), (" 191.6", 192, 902.5)],
)
def test_18_a_camera_file_has_29_30_or_31_words(tmp_path, tail, num, depth_max):
    path = tmp_path / "00000000_cam.txt"
    path.write_text(CAM + "425.0 2.5" + tail)
    camera = read_cam(path)
    assert camera.extrinsics.tolist() == [[0, -1, 0, 0.5], [1, 0, 0, -2], [0, 0, 1, 3.25], [0, 0, 0, 1]]
    assert camera.intrinsics.tolist() == [[361.5, 0, 82.9], [0, 360.25, 66.4], [0, 0, 1]]
    assert (camera.depth_min, camera.depth_interval) == (425.0, 2.5)
    assert (camera.depth_num, camera.depth_max) == (num, depth_max)


def test_18_a_pair_file_keeps_its_order_and_no_view_is_its_own_source(tmp_path):
    path = tmp_path / "pair.txt"
    path.write_text("3\n0\n2 10 2.5 0 1e3\n10 \n\n0\n25\n3 0 7 25 0 10 -1\n")
    assert read_pair(path) == {0: [(10, 2.5)], 10: [], 25: [(0, 7.0), (10, -1.0)]}


@given(V=st.integers(2, 6), N=st.integers(0, 30), seen=st.floats(0, 1), far=st.sampled_from([1.0, 1e8]))
@many
def test_19_view_scores_are_finite_symmetric_and_keep_the_views_numbers(V, N, seen, far):
    """Angles of 0 and 180 degrees (cameras at one place, a point between two), and views without points."""
    torch.manual_seed(0)
    points, centers = torch.randn(N, 3).double(), far * torch.randn(V, 3).double()
    centers[1] = centers[0]
    points[: N // 2] = (centers[0] + centers[-1]) / 2
    scores = view_scores(points, torch.rand(V, N) <= seen, centers)
    assert scores.isfinite().all() and torch.equal(scores, scores.T) and (scores.diagonal() == 0).all()
    ids = [7 * v + 3 for v in range(V)]
    chosen = select_sources(scores, num=2, ids=ids)
    assert list(chosen) == ids
    for i, view in enumerate(ids):
        best = sorted(range(V), key=lambda j: (-scores[i, j], j))[:2]
        assert [s for s, _ in chosen[view]] == [ids[j] for j in best if scores[i, j] > 0]


@given(st.floats(1e-2, 1e3), st.floats(1.001, 1e3), st.integers(2, 200))
@many
def test_20_inverse_depths_have_exact_ends_and_their_index_is_affine_in_one_over_depth(near, ratio, D):
    """Monotone, and without one interval: half a step at the near end is not half a step at the far end."""
    far = near * ratio
    depths = inverse_depths(torch.tensor([near], dtype=torch.float64), far, D)[0]
    assert depths.shape == (D,) and depths[0] == near and depths[-1] == far
    assert (depths.diff() > 0).all()
    index = (1 / depths - 1 / near) / (1 / far - 1 / near) * (D - 1)
    torch.testing.assert_close(index, torch.arange(D, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_21_the_same_seed_gives_the_same_numbers(device):
    """Loss and gradients, bit by bit."""

    def run() -> Tensor:
        torch.manual_seed(7)
        net = MVSNet().to(device)
        nn.init.normal_(net.refine_net.residual.weight, std=0.1)
        K, E = (x.float().to(device) for x in rig(2, 3, 32, 40))
        depths = uniform_depths(torch.tensor([2.0, 3.0], device=device), 0.5, 8)
        out = net(torch.rand(2, 3, 3, 32, 40).to(device), K, E, depths)
        loss = mvsnet_loss(out.depth, out.refined_depth, torch.full_like(out.depth, 4.0), 0.5)
        return torch.cat([loss.view(1), *(g.flatten() for g in torch.autograd.grad(loss, net.parameters()))])

    first, second = run(), run()
    if device == "cpu":
        assert torch.equal(first, second)
    else:  # atomic additions come in any order
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)
