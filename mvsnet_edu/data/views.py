"""View selection: which source views help a reference view most, and at which depths to look."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .formats import Pairs

__all__ = [
    "angle_weight",
    "baseline_angles",
    "depth_range",
    "pair_score",
    "plane_count",
    "select_sources",
    "view_scores",
]

BEST_ANGLE, SIGMA_BELOW, SIGMA_ABOVE = 5.0, 1.0, 10.0  # degrees; the paper's theta_0, sigma_1 and sigma_2


def baseline_angles(points: Tensor, center: Tensor, others: Tensor) -> Tensor:
    """The angles at which a point sees one camera centre and each of the others.

    Args:
        points: (N, 3) world points.
        center: (3,) camera centre.
        others: (V, 3) camera centres.

    Returns:
        (V, N) angles in degrees, from 0 (same direction) to 180 (from opposite sides).

    >>> others = torch.tensor([[0.0, 1, 0], [-2, 0, 0]])
    >>> baseline_angles(torch.zeros(1, 3), torch.tensor([1.0, 0, 0]), others).tolist()
    [[90.0], [180.0]]
    """
    rays = F.normalize(center.double() - points.double(), dim=-1)  # (N, 3)
    other_rays = F.normalize(others.double()[:, None] - points.double(), dim=-1)  # (V, N, 3)
    cosines = (rays * other_rays).sum(-1)  # (V, N)
    return cosines.clamp(-1, 1).arccos().rad2deg()  # rounding can leave [-1, 1], where arccos is NaN


def angle_weight(angle: Tensor) -> Tensor:
    """How much a point seen at this baseline angle helps: a Gaussian, steep below 5 degrees and wide above.

    A smaller angle locates the depth badly; a larger one makes the two images harder to match.

    Args:
        angle: any shape, in degrees.

    Returns:
        Weights in [0, 1], of the same shape.

    Source: section 4.1 of the paper; ``colmap2mvsnet.py:calc_score``.

    >>> angle_weight(torch.tensor([4.0, 5.0, 15.0])).tolist()
    [0.6065306663513184, 1.0, 0.6065306663513184]
    """
    sigma = torch.where(angle <= BEST_ANGLE, SIGMA_BELOW, SIGMA_ABOVE)
    return torch.exp(-((angle - BEST_ANGLE) ** 2) / (2 * sigma**2))


def pair_score(points: Tensor, center_a: Tensor, center_b: Tensor) -> Tensor:
    """How well two views go together: the weights of the baseline angles, summed over the shared points.

    Args:
        points: (N, 3) world points that both views see.
        center_a: (3,) camera centre of one view.
        center_b: (3,) camera centre of the other.

    Returns:
        The score, a scalar from 0 to N.

    Source: section 4.1 of the paper; ``colmap2mvsnet.py:calc_score``.

    >>> pair_score(torch.tensor([[0.0, 0, 8], [0, 0, 9]]), torch.zeros(3), torch.zeros(3)).item() < 1e-5
    True
    """
    return angle_weight(baseline_angles(points, center_a, center_b[None])).sum()


def view_scores(points: Tensor, visibility: Tensor, centers: Tensor) -> Tensor:
    """The scores of all pairs of views.

    Args:
        points: (N, 3) world points.
        visibility: (V, N) bool, which view sees which point.
        centers: (V, 3) camera centres.

    Returns:
        (V, V) float64, symmetric, with a diagonal of zeros.

    Source: section 4.1 of the paper; ``colmap2mvsnet.py:calc_score``.

    >>> points, centers = torch.tensor([[0.0, 0, 10]]), torch.tensor([[0.0, 0, 0], [1, 0, 0], [9, 9, 9]])
    >>> view_scores(points, torch.tensor([[True], [True], [False]]), centers).round(decimals=2).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    rows = []
    for center, seen in zip(centers, visibility, strict=True):
        weights = angle_weight(baseline_angles(points[seen], center, centers))  # (V, n)
        rows.append((weights * visibility[:, seen]).sum(-1))
    upper = torch.stack(rows).triu(diagonal=1)
    return upper + upper.T  # exactly symmetric: the two triangles differ by rounding


def select_sources(scores: Tensor, num: int = 10, ids: Sequence[int] | None = None) -> Pairs:
    """Choose the best sources of every view.

    A view is never its own source. Nor is one with score 0: without a shared point it can only add noise to
    the cost volume, so the list of a view with few neighbours is shorter than ``num``, and possibly empty.

    Args:
        scores: (V, V), symmetric.
        num: at most this many sources for each view; the original writes 10.
        ids: the views' numbers, which need not be contiguous; 0 to V - 1 by default.

    Returns:
        For each view its sources and their scores, best first, as ``write_pair`` takes them.

    Source: the script ``colmap2mvsnet.py``, which may list a view as its own source.

    >>> select_sources(torch.tensor([[0.0, 3, 0], [3, 0, 4], [0, 4, 0]]), num=2, ids=[10, 20, 30])
    {10: [(20, 3.0)], 20: [(30, 4.0), (10, 3.0)], 30: [(20, 4.0)]}
    """
    ids = range(len(scores)) if ids is None else ids
    others = scores.clone().fill_diagonal_(0)
    order = others.argsort(dim=-1, descending=True, stable=True)[:, :num]
    return {
        ids[i]: [(ids[j], others[i, j].item()) for j in best if others[i, j] > 0]
        for i, best in enumerate(order.tolist())
    }


def depth_range(depths: Tensor, margin: float = 0.1) -> tuple[float, float]:
    """The depths between which a view's surfaces lie, from the sparse points that it sees.

    The nearest and the farthest percent do not count: a few sparse points are always wrong. What remains is
    widened, since surfaces without texture have no sparse points: at the far end by a share of the range of
    the depth, at the near end by the same share of the range of 1 / depth, so that the result stays positive.

    Args:
        depths: (N,) positive, at least one.
        margin: the share by which the range grows at either end.

    Returns:
        the least and the greatest depth, never equal.

    Source: the script ``colmap2mvsnet.py`` for the percentiles; it has no margin.

    >>> depth_range(torch.linspace(2, 4, 101), margin=0)
    (2.0199..., 3.9800...)
    >>> depth_range(torch.tensor([3.0]))
    (2.96..., 3.03...)
    """
    percentiles = depths.double().quantile(depths.new_tensor([0.01, 0.99]).double())
    near, far = percentiles.tolist()
    if far - near < 0.01 * near:  # a plane seen from the front, or a single point
        near, far = near / 1.01, far * 1.01
    return 1 / (1 / near + margin * (1 / near - 1 / far)), far + margin * (far - near)


def plane_count(near: float, far: float, focal: float, least: int = 32, most: int = 256) -> int:
    """How many planes a range needs so that depth is cut as finely as the image, at the near end.

    One pixel at the nearest plane spans near / focal in the world. Evenly divided in 1 / depth, the range has
    as many planes as make a step of that size there. What a step moves in a source view is another question:
    it grows with the baseline.

    Args:
        near: the least depth.
        far: the greatest depth, in the same unit.
        focal: focal length in pixels.
        least: a smaller number is raised to it; a multiple of 8.
        most: a greater number is cut to it; a multiple of 8.

    Returns:
        the number, rounded up to a multiple of 8, which is what the 3D U-Net works on.

    Source: the script ``colmap2mvsnet.py``, which writes it as a fraction and without bounds.

    >>> plane_count(2.0, 4.0, focal=300.0), plane_count(2.0, 40.0, focal=3000.0)
    (152, 256)
    """
    needed = (1 - near / far) * (focal + 1)  # (1/near - 1/far) / (1/near - 1/(near + near/focal)), simplified
    return min(max(8 * math.ceil(needed / 8), least), most)
