import math

import numpy as np
import pytest
import torch

from mvsnet_edu.evaluation import cloud_metrics


def grid(n, m, z=0.0):
    x, y = np.meshgrid(np.arange(n), np.arange(m))
    return np.stack([x, y, np.full_like(x, z, dtype=float)], axis=-1).reshape(-1, 3)


def by_brute_force(a, b, threshold):
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    there, back = distance.min(axis=1), distance.min(axis=0)
    p, r = np.mean(there < threshold), np.mean(back < threshold)
    return [there.mean(), back.mean(), (there.mean() + back.mean()) / 2, p, r, 2 * p * r / (p + r)]


def test_the_same_cloud_is_perfect():
    assert cloud_metrics(grid(4, 3), grid(4, 3), 1e-9) == (0, 0, 0, 1, 1, 1)


def test_a_shifted_plane_is_off_by_the_shift_both_ways():
    metrics = cloud_metrics(grid(5, 4, z=0.25), grid(5, 4), threshold=0.3)
    assert metrics == (0.25, 0.25, 0.25, 1, 1, 1)


def test_the_threshold_itself_is_not_below_the_threshold():
    assert cloud_metrics(grid(5, 4, z=0.25), grid(5, 4), threshold=0.25)[3:] == (0, 0, 0)


def test_half_a_cloud_is_accurate_and_incomplete():
    metrics = cloud_metrics(grid(2, 5), grid(4, 5), threshold=0.5)
    assert metrics.accuracy == 0 and metrics.precision == 1
    assert metrics.completeness == pytest.approx((0 + 0 + 1 + 2) / 4) and metrics.recall == 0.5
    assert metrics.f_score == pytest.approx(2 / 3)


def test_accuracy_and_completeness_are_each_others_mirror():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(25, 3))
    one, other = cloud_metrics(a, b, 0.4), cloud_metrics(b, a, 0.4)
    assert one.accuracy != one.completeness
    assert (one.accuracy, one.precision) == (other.completeness, other.recall)


@pytest.mark.parametrize("seed", range(3))
def test_equals_all_pairs(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(70, 3)), rng.normal(size=(90, 3)) * 1.3
    assert cloud_metrics(a, b, 0.5) == pytest.approx(by_brute_force(a, b, 0.5), rel=1e-12)


def test_far_points_leave_the_means_but_not_the_shares():
    truth = grid(4, 5)
    wild = np.concatenate([truth + [0, 0, 0.5], [[0, 0, 100]]])
    metrics = cloud_metrics(wild, truth, threshold=1, max_distance=20)
    assert metrics.accuracy == 0.5 and metrics.precision == pytest.approx(20 / 21)
    assert cloud_metrics(wild, truth, threshold=1).accuracy > 5


def test_where_nothing_is_near_the_means_are_infinite():
    metrics = cloud_metrics(grid(2, 2, z=50), grid(2, 2), threshold=1, max_distance=20)
    assert metrics == (math.inf, math.inf, math.inf, 0, 0, 0)


def test_takes_tensors_and_lists():
    assert cloud_metrics(torch.zeros(2, 3), [[0, 0, 1]], 2.0).accuracy == 1


def test_far_from_the_origin_nothing_is_lost():
    shift = np.array([5e6, 4e6, 0])
    assert cloud_metrics(grid(4, 3, z=0.001) + shift, grid(4, 3) + shift, 1).accuracy == pytest.approx(0.001)


@pytest.mark.parametrize(
    "estimated, truth, limits, message",
    [
        (np.zeros((0, 3)), grid(2, 2), {"threshold": 1}, "the estimated cloud has no points"),
        (grid(2, 2), np.zeros((0, 3)), {"threshold": 1}, "the ground truth cloud has no points"),
        (grid(2, 2)[:, :2], grid(2, 2), {"threshold": 1}, r"must be an array \(N, 3\), not \(4, 2\)"),
        (grid(2, 2), grid(2, 2, z=np.nan), {"threshold": 1}, "not finite"),
        (grid(2, 2), grid(2, 2), {"threshold": 0}, "threshold must be positive, not 0"),
        (grid(2, 2), grid(2, 2), {"threshold": math.nan}, "threshold must be positive, not nan"),
        (grid(2, 2), grid(2, 2), {"threshold": 1, "max_distance": -1}, "max_distance must be positive"),
    ],
)
def test_says_what_is_wrong(estimated, truth, limits, message):
    with pytest.raises(ValueError, match=message):
        cloud_metrics(estimated, truth, **limits)
