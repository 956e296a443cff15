"""How good is a point cloud: how near to the truth, and how much of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["CloudMetrics", "cloud_metrics"]


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

    Args:
        estimated: (N, 3) points.
        ground_truth: (M, 3) points, in the same coordinates.
        threshold: the distance below which a point is good, in world units.
        max_distance: distances from here on do not enter accuracy and completeness (where all are so large
            they
            are infinite); precision and recall always count every point. DTU uses 20 mm, to forgive what its
            scanner did not see.

    Returns:
        the six numbers.

    Raises:
        ValueError: if a cloud is empty, is no (N, 3) array or has coordinates that are not finite, or the
            threshold
            or the largest distance is not positive.

    Source: the evaluation code of DTU (accuracy, completeness) and of Tanks and Temples (precision, recall,
    f-score), without their masks and their thinning of the clouds.

    >>> metrics = cloud_metrics([[0, 0, 0], [3, 0, 0]], [[0, 0, 0], [0, 1, 0]], threshold=1.5)
    >>> metrics.accuracy, metrics.completeness, metrics.overall
    (1.5, 0.5, 1.0)
    >>> metrics.precision, metrics.recall, round(metrics.f_score, 4)
    (0.5, 1.0, 0.6667)
    """
    from scipy.spatial import cKDTree

    for name, limit in (("threshold", threshold), ("max_distance", max_distance)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} must be positive, not {limit}")
    estimated, ground_truth = _points(estimated, "estimated"), _points(ground_truth, "ground truth")
    to_truth, _ = cKDTree(ground_truth).query(estimated)  # (N,)
    to_estimate, _ = cKDTree(estimated).query(ground_truth)  # (M,)
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
