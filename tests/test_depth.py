from __future__ import annotations

import math

import pytest
import torch
from cameras import DEVICES
from hypothesis import given, settings
from hypothesis import strategies as st

from mvsnet_edu import inverse_depths, probability_map, soft_argmin, uniform_depths, winner_take_all
from mvsnet_edu.depth import winner_of_sweep


def one_hot_cost(index: list[int], D: int) -> torch.Tensor:
    """(1, D, 1, n): all probability at the given planes."""
    cost = torch.full((1, D, 1, len(index)), 200.0)
    for i, j in enumerate(index):
        cost[0, j, 0, i] = 0
    return cost


def random_probability(B: int, D: int, h: int, w: int) -> torch.Tensor:
    return torch.softmax(3 * torch.randn(B, D, h, w, dtype=torch.float64), dim=1)


# Hypotheses


@given(st.floats(1e-3, 1e4), st.floats(1e-4, 1e2), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_uniform_depths_for_any_range(depth_min, interval, D):
    depths = uniform_depths(torch.tensor([depth_min], dtype=torch.float64), interval, D)
    assert depths.shape == (1, D)
    assert depths[0, -1].item() == pytest.approx(depth_min + (D - 1) * interval, rel=1e-12)
    steps = torch.full((1, D - 1), interval, dtype=torch.float64)
    torch.testing.assert_close(depths.diff(), steps, rtol=1e-6, atol=0)


def test_inverse_depths_may_descend():
    depths = inverse_depths(4.0, 1.0, 4)
    assert torch.equal(depths, inverse_depths(1.0, 4.0, 4).flip(0))


def test_a_batch_has_a_range_per_image():
    depths = uniform_depths(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0]), 3)
    assert depths.tolist() == [[1.0, 1.5, 2.0], [2.0, 3.0, 4.0]]
    depths = inverse_depths(torch.tensor([1.0, 2.0]), 4.0, 4)
    each = [inverse_depths(1.0, 4.0, 4), inverse_depths(2.0, 4.0, 4)]
    torch.testing.assert_close(depths, torch.stack(each))


def test_numbers_take_the_type_of_the_tensor_beside_them():
    double = torch.tensor([1.0], dtype=torch.float64)
    assert inverse_depths(double, 4.1, 3)[0, -1].item() == 4.1
    assert inverse_depths(0.3, 4 * double, 3)[0, 0].item() == 0.3
    assert uniform_depths(0.3, double, 2).tolist() == [[0.3, 1.3]]
    assert uniform_depths(1, 2, 3).tolist() == [1.0, 3.0, 5.0]


@pytest.mark.parametrize("sample", [uniform_depths, inverse_depths])
def test_one_plane_is_the_first_and_none_is_an_error(sample):
    assert sample(2.0, 5.0, 1).tolist() == [2.0]
    with pytest.raises(ValueError, match="at least 1"):
        sample(2.0, 5.0, 0)


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sample", [uniform_depths, inverse_depths])
def test_hypotheses_keep_precision_and_device(sample, dtype, device):
    depths = sample(1.0, torch.tensor([0.5, 2.0], dtype=dtype, device=device), 3)
    assert depths.dtype == dtype and depths.device.type == device
    assert sample(1.0, 2.0, 3).dtype == torch.float32


# Soft argmin


@pytest.mark.parametrize("device", DEVICES)
def test_soft_argmin_equals_a_loop(device):
    B, D, h, w = 2, 5, 3, 4
    cost = torch.randn(B, D, h, w, dtype=torch.float64)
    depths = uniform_depths(torch.tensor([1.0, 3.0], dtype=torch.float64), 0.5, D)
    depth, probability = soft_argmin(cost.to(device), depths.to(device))
    assert depth.shape == (B, h, w) and probability.shape == (B, D, h, w)
    for b in range(B):
        for i in range(h):
            for j in range(w):
                weights = [math.exp(-c) for c in cost[b, :, i, j].tolist()]
                expected = sum(p * d for p, d in zip(weights, depths[b].tolist(), strict=True)) / sum(weights)
                assert depth[b, i, j].item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(probability.sum(dim=1).cpu(), torch.ones(B, h, w, dtype=torch.float64))


def test_every_pixel_may_have_hypotheses_of_its_own():
    B, D, h, w = 2, 6, 3, 4
    depths = (1 + torch.rand(B, D, h, w, dtype=torch.float64)).cumsum(dim=1)
    cost = torch.randn(B, D, h, w, dtype=torch.float64)
    depth, probability = soft_argmin(cost, depths)
    best, _ = winner_take_all(probability, depths)
    trust = probability_map(probability, depth, depths)
    for b, i, j in [(0, 0, 0), (0, 2, 3), (1, 1, 2), (1, 2, 0)]:
        pixel = (slice(b, b + 1), slice(None), slice(i, i + 1), slice(j, j + 1))
        own_depth, own_probability = soft_argmin(cost[pixel], depths[b, :, i, j])
        assert depth[b, i, j].item() == pytest.approx(own_depth.item())
        assert best[b, i, j] == winner_take_all(own_probability, depths[b, :, i, j])[0].item()
        own_trust = probability_map(own_probability, own_depth, depths[b, :, i, j])
        assert trust[b, i, j].item() == pytest.approx(own_trust.item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_costs_are_summed_in_float32(dtype):
    cost, depths = torch.randn(1, 192, 3, 4).to(dtype), uniform_depths(425.0, 2.65, 192)
    depth, probability = soft_argmin(cost, depths)
    assert depth.dtype == probability.dtype == torch.float32
    torch.testing.assert_close(depth, soft_argmin(cost.float(), depths)[0], rtol=0, atol=0)


def test_huge_costs_do_not_overflow():
    """Pitfall 11: exp(90) is infinite in float32."""
    depths = uniform_depths(1.0, 1.0, 3)
    cost = torch.tensor([-1e4, 1e4, 1e4]).view(1, 3, 1, 1)
    assert soft_argmin(cost, depths)[0].item() == 1.0


def test_gradients_of_soft_argmin_are_right():
    cost = torch.randn(2, 5, 2, 3, dtype=torch.float64, requires_grad=True)
    depths = uniform_depths(torch.tensor([1.0, 2.0], dtype=torch.float64), 0.5, 5).requires_grad_()
    assert torch.autograd.gradcheck(soft_argmin, (cost, depths))


# Winner takes all


def test_winner_take_all_equals_a_loop():
    probability = random_probability(2, 7, 3, 4)
    depths = uniform_depths(torch.tensor([1.0, 5.0]), 0.25, 7)
    depth, best = winner_take_all(probability, depths)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                column = probability[b, :, i, j].tolist()
                winner = column.index(max(column))
                assert best[b, i, j].item() == max(column)
                assert depth[b, i, j] == depths[b, winner]


# The winner of a sweep


@pytest.mark.parametrize("shape", [(11,), (2, 11), (2, 11, 3, 5)])
def test_the_winner_of_a_sweep_is_that_of_the_whole_volume(shape):
    B, D, h, w = 2, 11, 3, 5
    scores, depths = 4 * torch.randn(B, D, h, w).double(), torch.rand(shape)
    axis = 0 if depths.ndim == 1 else 1
    slabs = zip(scores.split([1, 6, 4], dim=1), depths.split([1, 6, 4], dim=axis), strict=True)
    depth, probability = winner_of_sweep(slabs)
    expected = winner_take_all(scores.softmax(dim=1), depths)
    torch.testing.assert_close(depth, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(probability, expected[1])


def test_of_equal_scores_the_first_wins():
    scores, depths = torch.zeros(1, 4, 1, 1), torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    for parts in (1, 2, 4):
        slabs = zip(scores.split(parts, dim=1), depths.split(parts, dim=1), strict=True)
        depth, probability = winner_of_sweep(slabs)
        assert (depth.item(), probability.item()) == (4.0, 0.25)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_of_a_sweep_are_summed_in_float32(dtype):
    scores, depths = (9 * torch.randn(2, 64, 3, 4)).to(dtype), torch.arange(64.0)
    depth, probability = winner_of_sweep(zip(scores.split(16, dim=1), depths.split(16), strict=True))
    expected = winner_take_all(scores.float().softmax(dim=1), depths)
    assert torch.equal(depth, expected[0]) and probability.dtype == torch.float32
    torch.testing.assert_close(probability, expected[1])


# Probability map


def four_bins(probability: list[float], e: float) -> float:
    """Two bins at or below the index e and two above it, those that exist."""
    i = math.floor(e)
    return sum(probability[k] for k in (i - 1, i, i + 1, i + 2) if 0 <= k < len(probability))


def test_probability_map_equals_a_loop():
    B, D, h, w = 2, 9, 5, 6
    probability = random_probability(B, D, h, w)
    start, interval = torch.tensor([1.0, 4.0], dtype=torch.float64), 0.5
    index = torch.rand(B, h, w, dtype=torch.float64) * (D - 1)
    depth = start[:, None, None] + interval * index
    trust = probability_map(probability, depth, uniform_depths(start, interval, D))
    assert trust.shape == (B, h, w)
    for b in range(B):
        for i in range(h):
            for j in range(w):
                expected = four_bins(probability[b, :, i, j].tolist(), index[b, i, j].item())
                assert trust[b, i, j].item() == pytest.approx(expected)


@pytest.mark.parametrize("e", [0, 1, 3, 6, 7])
def test_probability_map_on_a_plane_and_at_the_borders_counts_no_bin_twice(e):
    """Pitfall 8: the original's clipped indices sum to 2 on a plane and to 3 at a border."""
    probability = random_probability(1, 8, 1, 1).float()
    depths = uniform_depths(2.0, 0.5, 8)
    trust = probability_map(probability, depths[e].view(1, 1, 1), depths)
    assert trust.item() == pytest.approx(four_bins(probability.flatten().tolist(), e))
    certain = torch.zeros(1, 8, 1, 1).index_fill(1, torch.tensor(e), 1.0)
    assert probability_map(certain, depths[e].view(1, 1, 1), depths).item() == 1.0


@given(st.integers(1, 12), st.floats(0.1, 30))
@settings(max_examples=25, deadline=None)
def test_probability_map_lies_between_0_and_1(D, spread):
    torch.manual_seed(0)
    depths = uniform_depths(1.0, 1 / 3, D)
    depth, probability = soft_argmin(spread * torch.randn(2, D, 5, 7), depths)
    trust = probability_map(probability, depth, depths)
    assert trust.min() >= 0 and trust.max() <= 1


def test_probability_map_in_the_float_noise_around_a_plane_moves_by_one_bin_only():
    """Pitfall 8: e = 2.9999998 and e = 3.0 choose neighbouring sets of bins."""
    probability = random_probability(1, 8, 1, 1).float()
    p, depths = probability.flatten().tolist(), uniform_depths(0.0, 1.0, 8)
    below = probability_map(probability, torch.nextafter(torch.tensor([[[3.0]]]), torch.tensor(0.0)), depths)
    at = probability_map(probability, torch.tensor([[[3.0]]]), depths)
    assert at.item() - below.item() == pytest.approx(p[5] - p[1], abs=1e-6)


def test_probability_map_with_descending_hypotheses_mirrors_the_ascending_ones():
    probability = random_probability(2, 9, 4, 5)
    depths = uniform_depths(torch.tensor([1.0, 2.0], dtype=torch.float64), 0.5, 9)
    depth = (probability * depths[:, :, None, None]).sum(dim=1)  # almost surely between two planes
    ascending = probability_map(probability, depth, depths)
    torch.testing.assert_close(probability_map(probability.flip(1), depth, depths.flip(1)), ascending)


def test_probability_map_with_hypotheses_in_inverse_depth():
    """Pitfall 20: the bins are found by comparison, so their spacing does not matter."""
    probability = random_probability(1, 8, 1, 1).float()
    depths = inverse_depths(1.0, 20.0, 8)
    between = (depths[4] + depths[5]) / 2
    trust = probability_map(probability, between.view(1, 1, 1), depths)
    assert trust.item() == pytest.approx(probability[0, 3:7].sum().item())


@pytest.mark.parametrize("outside, bins", [(-5.0, [0, 1]), (50.0, [6, 7])])
def test_an_estimate_beyond_the_planes_keeps_the_bins_that_exist(outside, bins):
    probability = random_probability(1, 8, 1, 1).float()
    trust = probability_map(probability, torch.tensor([[[outside]]]), uniform_depths(0.0, 1.0, 8))
    assert trust.item() == pytest.approx(probability[0, bins].sum().item())


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_depth_and_trust_stay_on_the_device(device):
    cost, depths = torch.rand(2, 9, 3, 4, device=device), torch.arange(9.0, device=device)
    depth, probability = soft_argmin(cost, depths)
    assert probability_map(probability, depth, depths).device.type == device
    assert winner_take_all(probability, depths)[0].device.type == device
