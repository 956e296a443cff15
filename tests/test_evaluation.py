import math

import numpy as np
import pytest
import torch
from scipy.io import savemat

from mvsnet_edu.errors import InputError
from mvsnet_edu.evaluation import (
    ObservationMask,
    cloud_metrics,
    dtu_metrics,
    read_observation_mask,
    thin_cloud,
)


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


# --- answers in closed form --------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.25, 0.5])
def test_a_grid_shifted_along_itself_is_off_by_the_shift_but_at_its_end(shift):
    """The last column of 1 in 50 has no neighbour on its other side; half a step is as far either way."""
    metrics = cloud_metrics(grid(50, 7) + [shift, 0, 0], grid(50, 7), threshold=0.4)
    assert metrics[:3] == pytest.approx((shift, shift, shift))
    assert metrics.precision == metrics.recall == (shift < 0.4)


def test_concentric_spheres_are_off_by_the_difference_of_their_radii():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    metrics = cloud_metrics(10.5 * directions[:100_000], 10 * directions[100_000:], threshold=0.6)
    # The nearest of N random points is r aside, where the mean of r^2 is the sphere's area / (pi N) = 0.004;
    # the distance's square is 0.5^2 + 1.05 r^2 then, so its mean is 0.5 + 0.0042.
    assert metrics.accuracy == pytest.approx(0.5042, abs=2e-4)
    assert metrics.f_score == 1


def test_a_sphere_that_is_shifted_is_off_by_half_the_shift():
    """|r + s cos a| - r = s |cos a|, whose mean over a sphere is s / 2; shares follow as |cos a| < t / s."""
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(400_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    metrics = cloud_metrics(
        100 * directions[:50_000] + [0, 0, 4], 100 * directions[50_000:], threshold=3, max_distance=20
    )
    assert metrics.accuracy == pytest.approx(2, rel=0.03) and metrics.precision == pytest.approx(
        3 / 4, abs=0.02
    )


# --- thinning ----------------------------------------------------------------------------------------


def thinned_by_loop(points, spacing, seed):
    """One point after the other, as the MATLAB code does it."""
    there = np.ones(len(points), bool)
    for index in np.random.default_rng(seed).permutation(len(points)):
        if there[index]:
            there &= np.linalg.norm(points - points[index], axis=1) > spacing
            there[index] = True
    return points[there]


@pytest.mark.parametrize("spacing", [0.02, 0.1, 0.5, 10])
@pytest.mark.parametrize("seed", [0, 5])
def test_thinning_equals_the_loop(spacing, seed):
    points = np.random.default_rng(3).uniform(size=(4000, 3)) * [2, 1, 0.1]
    assert np.array_equal(thin_cloud(points, spacing, seed), thinned_by_loop(points, spacing, seed))


def test_thinning_a_grid_at_its_own_step_removes_neighbours_and_at_less_removes_none():
    assert len(thin_cloud(grid(9, 7), 0.999)) == 63 and len(thin_cloud(grid(9, 7), 1.0)) < 40


def test_of_equal_points_one_remains():
    assert len(thin_cloud(np.ones((5000, 3)), 0.2)) == 1


def test_another_seed_leaves_other_points():
    points = np.random.default_rng(0).uniform(size=(500, 3))
    one, same, other = (thin_cloud(points, 0.2, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize("points, spacing", [(np.zeros((3, 2)), 1), (np.zeros((3, 3)), 0)])
def test_thinning_says_what_is_wrong(points, spacing):
    with pytest.raises(ValueError, match="must be"):
        thin_cloud(points, spacing)


# --- DTU ---------------------------------------------------------------------------------------------


def mask_by_loop(mask, point):
    """MATLAB: round((q - BB(1, :)) / Res + 1) is an index, from 1 to the size."""
    index = [math.floor((q - b) / mask.resolution + 1 + 0.5) for q, b in zip(point, mask.box[0], strict=True)]
    if not all(1 <= i <= n for i, n in zip(index, mask.voxels.shape, strict=True)):
        return False
    return bool(mask.voxels[tuple(i - 1 for i in index)])


@pytest.fixture
def mask():
    voxels = np.random.default_rng(0).uniform(size=(7, 5, 9)) < 0.6
    box = np.array([[-30.0, 12, 5], [-30 + 7 * 10, 12 + 5 * 10, 5 + 9 * 10]])
    return ObservationMask(voxels, box, 10.0, np.array([0.1, -0.2, 0.9, -20]))


def test_voxels_are_those_of_the_original(mask):
    low, high = mask.box
    points = np.random.default_rng(1).uniform(low - 6, high + 3, size=(3000, 3))
    counted = mask.counts_estimated(points)
    # The original measures distances in cells of 60 mm from the box's near corner on, not before it.
    expected = [mask_by_loop(mask, point) and bool((point >= low).all()) for point in points]
    assert counted.tolist() == expected and 0.2 < counted.mean() < 0.6


def test_the_table_does_not_count(mask):
    low, _ = mask.box
    points = np.random.default_rng(1).uniform(low - 10, low + 140, size=(3000, 3))
    cells = np.array([2, 1, 2]) * 60  # 70, 50 and 90 mm need so many
    expected = [
        bool(0.1 * x - 0.2 * y + 0.9 * z - 20 > 0 and all(low <= p) and all(p < low + cells))
        for p in points
        for x, y, z in [p]
    ]
    assert mask.counts_true(points).tolist() == expected and 0.1 < np.mean(expected) < 0.9


def test_dtu_counts_what_the_scanner_saw():
    """A plane whose right half was not observed, a table below it, and an estimate 0.5 above the plane."""
    x, y = np.meshgrid(np.arange(0.5, 100), np.arange(0.5, 60))
    plane = np.stack([x.ravel(), y.ravel(), np.full(x.size, 50.0)], axis=1)
    table = plane - [0, 0, 45]
    voxels = np.ones((101, 61, 101), bool)
    voxels[50:] = False
    mask = ObservationMask(voxels, np.array([[0.0, 0, 0], [100, 60, 100]]), 1.0, np.array([0, 0, 1.0, -10]))
    left, ghost = plane[plane[:, 0] < 40] + [0, 0, 0.5], plane[plane[:, 0] > 60] + [0, 0, 15]
    metrics = dtu_metrics(np.concatenate([left, left + 0.05, ghost]), np.concatenate([plane, table]), mask)
    assert metrics.accuracy == pytest.approx(0.5, abs=0.06) and metrics.precision == 1
    # To be found again: 40 columns at 0.5, then 21 that are up to 15 mm from the ghost or nearer to the left.
    assert metrics.completeness > 0.5 and metrics.recall == pytest.approx(0.4)
    assert dtu_metrics(left, np.concatenate([plane, table])).recall == pytest.approx(0.2)


def test_dtu_forgives_20_mm_and_thins_to_a_fifth():
    truth = grid(30, 20)
    dense = np.concatenate([truth + [0, 0, 0.25]] * 9 + [truth[:1] + [0, 0, 20], truth[:1] + [0, 0, 19]])
    metrics = dtu_metrics(dense, truth)
    assert metrics.accuracy == pytest.approx((600 * 0.25 + 19) / 601) and metrics.completeness == 0.25
    assert metrics.precision == pytest.approx(600 / 602)


def test_dtu_says_what_is_wrong():
    nowhere = ObservationMask(np.zeros((3, 3, 3), bool), np.zeros((2, 3)), 1.0, np.array([0, 0, 0, 1.0]))
    with pytest.raises(ValueError, match="the estimated cloud has no points where the mask looks"):
        dtu_metrics(grid(2, 2), grid(2, 2), nowhere)
    with pytest.raises(ValueError, match="the ground truth cloud has no points where the mask looks"):
        dtu_metrics(grid(2, 2), grid(2, 2), nowhere._replace(voxels=~nowhere.voxels, ground=np.zeros(4)))
    with pytest.raises(ValueError, match="threshold must be positive"):
        dtu_metrics(grid(2, 2), grid(2, 2), threshold=0)


@pytest.fixture
def mats(tmp_path, mask):
    savemat(
        tmp_path / "ObsMask1_10.mat",
        {"ObsMask": mask.voxels.astype(np.uint8), "BB": mask.box, "Res": mask.resolution, "Margin": 10},
    )
    savemat(tmp_path / "Plane1.mat", {"P": mask.ground[:, None]})
    return tmp_path / "ObsMask1_10.mat", tmp_path / "Plane1.mat"


def test_reads_the_files_of_dtu(mats, mask):
    read = read_observation_mask(*mats)
    assert read.voxels.dtype == bool and read.resolution == 10
    assert all(np.array_equal(a, b) for a, b in zip(read, mask, strict=True))


@pytest.mark.parametrize(
    "file, content, message",
    [
        (0, b"no mat", "ObsMask1_10.mat cannot be read as a MATLAB file"),
        (1, None, "Plane1.mat cannot be read: No such file"),
        (
            0,
            {"ObsMask": np.ones((2, 2, 2)), "Res": 10.0},
            r"ObsMask1_10.mat has no array BB of shape \(2, 3\)",
        ),
        (0, {"ObsMask": np.ones((2, 2)), "BB": np.ones((2, 3)), "Res": 10.0}, "has no grid of voxels"),
        (0, {"ObsMask": "text", "BB": np.ones((2, 3)), "Res": 10.0}, "has no array ObsMask"),
        (1, {"P": np.ones(3)}, r"Plane1.mat has no array P of shape \(4, 1\)"),
    ],
)
def test_names_the_file_that_is_broken(file, content, message, mats):
    mats[file].unlink()
    if isinstance(content, bytes):
        mats[file].write_bytes(content)
    elif content:
        savemat(mats[file], content)
    with pytest.raises(InputError, match=message):
        read_observation_mask(*mats)
