"""How good is a point cloud: how near to the truth, and how much of it."""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .data.matlab import read_mat
from .errors import InputError

__all__ = [
    "CloudMetrics",
    "ObservationMask",
    "cloud_metrics",
    "dtu_metrics",
    "read_observation_mask",
    "thin_cloud",
]

#: DTU's rules, in millimetres: how dense a cloud may be, which distances count, what is too far to search.
DTU_SPACING, DTU_MAX_DISTANCE, DTU_CELL = 0.2, 20.0, 60.0


class CloudMetrics(NamedTuple):
    """What :func:`cloud_metrics` measures.

    Attributes:
        accuracy: mean distance from an estimated point to the truth, in world units; small is good.
        completeness: mean distance from a true point to the estimate, in world units; small is good.
        overall: the mean of the two.
        precision: share of the estimated points that are nearer to the truth than the threshold.
        recall: share of the true points that are nearer to the estimate than the threshold.
        f_score: harmonic mean of precision and recall.
    """

    accuracy: float
    completeness: float
    overall: float
    precision: float
    recall: float
    f_score: float


def cloud_metrics(
    estimated: ArrayLike, ground_truth: ArrayLike, threshold: float, max_distance: float | None = None
) -> CloudMetrics:
    """Compare two clouds by the distance from every point of each to the nearest point of the other.

    Accuracy and completeness answer "how far off?", and one wild point can spoil them. Precision and recall
    answer "what share is good enough?".

    Every point counts once, so a region that is sampled more densely weighs more. Tanks and Temples puts the
    points of each voxel of half the threshold together first; ``thin_cloud`` with half the threshold serves
    the same purpose.

    Args:
        estimated: (N, 3) points.
        ground_truth: (M, 3) points, in the same coordinates.
        threshold: the distance below which a point is good, in world units.
        max_distance: distances from here on do not enter accuracy and completeness (where all are so large
            they are infinite); precision and recall always count every point. DTU uses 20 mm, to forgive
            what its scanner did not see.

    Returns:
        the six numbers.

    Raises:
        ValueError: if a cloud is empty, is no (N, 3) array or has coordinates that are not finite, or the
            threshold or the largest distance is not positive.

    Source: the evaluation code of DTU (accuracy, completeness) and of Tanks and Temples (precision, recall,
    f-score), without their masks and their thinning of the clouds.

    >>> metrics = cloud_metrics([[0, 0, 0], [3, 0, 0]], [[0, 0, 0], [0, 1, 0]], threshold=1.5)
    >>> metrics.accuracy, metrics.completeness, metrics.overall
    (1.5, 0.5, 1.0)
    >>> metrics.precision, metrics.recall, round(metrics.f_score, 4)
    (0.5, 1.0, 0.6667)
    """
    for name, limit in (("threshold", threshold), ("max_distance", max_distance)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} must be positive, not {limit}")
    estimated, ground_truth = _points(estimated, "estimated"), _points(ground_truth, "ground truth")
    to_truth, to_estimate = _nearest(estimated, ground_truth), _nearest(ground_truth, estimated)
    return _metrics(to_truth, to_estimate, threshold, max_distance)


class ObservationMask(NamedTuple):
    """Where DTU's scanner looked, and which part of what it found is to be found again.

    Attributes:
        voxels: (X, Y, Z) bool, True where space was observed.
        box: (2, 3), the centre of the first voxel and the far corner, in millimetres.
        resolution: size of a voxel, in millimetres.
        ground: (4,), the plane of the table: (x, y, z, 1) . ground is positive above it.

    Source: ``ObsMask*_10.mat`` and ``Plane*.mat`` of DTU's SampleSet.
    """

    voxels: np.ndarray
    box: np.ndarray
    resolution: float
    ground: np.ndarray

    def counts_estimated(self, points: np.ndarray) -> np.ndarray:
        """Which estimated points (N, 3) lie in observed space, (N,) bool: elsewhere nobody knows the truth.

        >>> box = np.array([[0, 0, 0], [20, 30, 40]])
        >>> mask = ObservationMask(np.ones((2, 3, 4), bool), box, 10, np.zeros(4))
        >>> mask.counts_estimated(np.array([[14, 24, 34], [16, 24, 34], [-6, 0, 0]])).tolist()
        [True, False, False]
        """
        index = np.floor((points - self.box[0]) / self.resolution + 0.5).astype(int)  # MATLAB rounds half up
        inside = ((index >= 0) & (index < self.voxels.shape)).all(axis=1)
        x, y, z = np.where(inside[:, None], index, 0).T
        return inside & self.voxels[x, y, z] & self._near(points)

    def counts_true(self, points: np.ndarray) -> np.ndarray:
        """Which true points (M, 3) are to be found again, (M,) bool: those above the table.

        >>> mask = ObservationMask(np.ones((2, 3, 4), bool), np.zeros((2, 3)), 10, np.array([0, 0, 1, -5]))
        >>> mask.counts_true(np.array([[0, 0, 4], [0, 0, 6], [0, 0, 61]])).tolist()
        [False, True, False]
        """
        return (points @ self.ground[:3] + self.ground[3] > 0) & self._near(points)

    def _near(self, points: np.ndarray) -> np.ndarray:
        """Inside the cells of 60 mm that cover the box: the original measures no distance from elsewhere."""
        low, high = self.box
        size = (np.floor((high - low) / DTU_CELL) + 1) * DTU_CELL
        return ((points >= low) & (points < low + size)).all(axis=1)


def dtu_metrics(
    estimated: ArrayLike,
    ground_truth: ArrayLike,
    mask: ObservationMask | None = None,
    threshold: float = 1.0,
    seed: int = 0,
) -> CloudMetrics:
    """Compare two clouds by DTU's rules; all lengths are in millimetres.

    The estimate is thinned until its points are more than 0.2 mm apart (the truth comes so). With a mask, all
    points serve as neighbours, but only estimated points in observed space and true points above the table
    count. Accuracy and completeness are means over the distances below 20 mm.

    Args:
        estimated: (N, 3) points.
        ground_truth: (M, 3) points, in the same coordinates.
        mask: of the same scan; everything counts if None.
        threshold: for precision and recall, which the paper gives for 1 and 2 mm.
        seed: for the order in which points are thinned.

    Returns:
        the six numbers.

    Raises:
        ValueError: as :func:`cloud_metrics`, or if no point of a cloud counts.

    Source: the MATLAB code of DTU, ``PointCompareMain.m``, ``BaseEvalMain_web.m`` and ``ComputeStat_web.m``.

    >>> grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0), [0.0]), axis=-1).reshape(-1, 3)
    >>> dtu_metrics(np.concatenate([grid + [0, 0, 0.5], grid + [0, 0, 0.5], [[0, 0, 90]]]), grid).overall
    0.5
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, not {threshold}")
    estimated, ground_truth = _points(estimated, "estimated"), _points(ground_truth, "ground truth")
    estimated = thin_cloud(estimated, DTU_SPACING, seed)
    to_truth, to_estimate = _nearest(estimated, ground_truth), _nearest(ground_truth, estimated)
    if mask is not None:
        to_truth = to_truth[mask.counts_estimated(estimated)]
        to_estimate = to_estimate[mask.counts_true(ground_truth)]
    for name, distances in (("estimated", to_truth), ("ground truth", to_estimate)):
        if not len(distances):
            raise ValueError(f"the {name} cloud has no points where the mask looks")
    return _metrics(to_truth, to_estimate, threshold, DTU_MAX_DISTANCE)


def thin_cloud(points: ArrayLike, spacing: float, seed: int = 0) -> np.ndarray:
    """Leave out points until no two are closer than they may be.

    Points are taken up in random order; each that is still there removes all others within the spacing.
    They are taken up in batches here, each twice as large as the one before, which changes nothing but the
    time: a batch first loses what earlier points remove, and then settles among itself.

    Args:
        points: (N, 3).
        spacing: in world units.
        seed: for the order.

    Returns:
        (M, 3), those that remain, in the order of ``points``; all are more than the spacing apart, and none
        that is gone is farther than it from all of them.

    Raises:
        ValueError: if the points are no (N, 3) array of finite numbers, or the spacing is not positive.

    Source: ``reducePts_haa.m`` of DTU's MATLAB code.

    >>> thin_cloud([[0.0, 0, 0], [0.1, 0, 0], [5, 0, 0]], 0.2)[:, 0].round().tolist()
    [0.0, 5.0]
    """
    if not spacing > 0:
        raise ValueError(f"spacing must be positive, not {spacing}")
    points = _points(points, "given")
    order = np.random.default_rng(seed).permutation(len(points))
    kept, start, size = order[:0], 0, 1000
    while start < len(order):
        batch = order[start : start + size]
        free = batch[~_any_within(points[batch], points[kept], spacing)]
        kept = np.concatenate([kept, free[_stays(points[free], spacing)]])
        start, size = start + size, 2 * size
    return points[np.sort(kept)]


def read_observation_mask(mask: str | PathLike[str], plane: str | PathLike[str]) -> ObservationMask:
    """Read the two files that DTU brings for each scan.

    Args:
        mask: ``ObsMask1_10.mat`` and the like, with ``ObsMask``, ``BB`` and ``Res``.
        plane: ``Plane1.mat`` and the like, with ``P``.

    Returns:
        what they say.

    Raises:
        InputError: a file cannot be read, or lacks what it should hold.

    Source: ``PointCompareMain.m`` of DTU's MATLAB code.
    """
    voxels, box, resolution = _read_mat(mask, ObsMask=None, BB=(2, 3), Res=(1, 1))
    (ground,) = _read_mat(plane, P=(4, 1))
    if voxels.ndim != 3 or not resolution.item() > 0:
        raise InputError(f"{mask} has no grid of voxels with a positive size.")
    return ObservationMask(
        voxels != 0, box.astype(float), float(resolution.item()), ground[:, 0].astype(float)
    )


def _read_mat(path: str | PathLike[str], **shapes: tuple[int, ...] | None) -> list[np.ndarray]:
    """Arrays of a MATLAB file, of these shapes where one is given."""
    found = read_mat(path)
    for name, shape in shapes.items():
        values = found.get(name)
        if values is None or shape not in (None, values.shape) or not np.isfinite(values).all():
            wanted = "" if shape is None else f" of shape {shape}"
            raise InputError(f"{path} has no array {name}{wanted}, as DTU's files have.")
    return [found[name] for name in shapes]


def _any_within(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which points (N, 3) have one of the others at this distance or nearer, (N,) bool."""
    from scipy.spatial import cKDTree

    if not len(others):
        return np.zeros(len(points), bool)
    bound = np.nextafter(distance, np.inf)  # the search itself leaves the bound out
    return cKDTree(others).query(points, distance_upper_bound=bound, workers=-1)[0] <= distance


def _stays(points: np.ndarray, spacing: float) -> np.ndarray:
    """Which points (N, 3) stay, (N,) bool, if each that stays removes those after it within the spacing.

    A point with no doubtful one before it stays for sure, so all such points can act at once.
    """
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(spacing, output_type="ndarray")  # (P, 2), the earlier point first
    stays = np.ones(len(points), bool)
    while len(pairs):
        before, after = pairs.T
        doubtful = np.zeros(len(points), bool)
        doubtful[after] = True
        stays[after[~doubtful[before]]] = False
        pairs = pairs[stays[before] & stays[after]]
    return stays


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance from each point (N, 3) to the nearest of the others, (N,)."""
    from scipy.spatial import cKDTree

    return cKDTree(others).query(points, workers=-1)[0]


def _metrics(
    to_truth: np.ndarray, to_estimate: np.ndarray, threshold: float, max_distance: float | None
) -> CloudMetrics:
    accuracy, completeness = _mean_below(to_truth, max_distance), _mean_below(to_estimate, max_distance)
    precision, recall = float((to_truth < threshold).mean()), float((to_estimate < threshold).mean())
    f_score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return CloudMetrics(accuracy, completeness, (accuracy + completeness) / 2, precision, recall, f_score)


def _points(values: ArrayLike, name: str) -> np.ndarray:
    points = np.asarray(values, np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"the {name} cloud must be an array (N, 3), not {points.shape}")
    if len(points) == 0:
        raise ValueError(f"the {name} cloud has no points")
    if not np.isfinite(points).all():
        raise ValueError(f"the {name} cloud has coordinates that are not finite")
    return points


def _mean_below(distances: np.ndarray, limit: float | None) -> float:
    counted = distances if limit is None else distances[distances < limit]
    return float(counted.mean()) if len(counted) else float("inf")
