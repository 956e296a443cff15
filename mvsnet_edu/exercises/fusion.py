"""Exercises of the chapter on fusion and evaluation: averaging, visibility, distances between clouds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# mean-of-views


def _mean_of_views(depth: Tensor, claims: Tensor, agrees: Tensor, min_views: int) -> Tensor:
    views = 1 + agrees.sum(dim=0)
    total = depth + torch.where(agrees, claims, 0).sum(dim=0)
    return torch.where(views >= min_views, total / views, 0)


def _claims(draw: Draw) -> dict[str, Any]:
    _, h, w = draw.map_shape
    sources = (1, 2, 2, 3, 4)[draw.level]
    depth = draw.tensor(h, w, low=2, high=6)
    claims = depth + draw.tensor(sources, h, w, low=-0.5, high=0.5, step=0.25)
    agrees = draw.tensor(sources, h, w, low=0, high=1, step=1).bool()
    nothing = draw.tensor(sources, h, w, low=0, high=2, step=1) == 0
    claims = torch.where(nothing & ~agrees, torch.inf, claims)
    return {"depth": depth, "claims": claims, "agrees": agrees, "min_views": draw.whole(1, sources + 1)}


def _nobody_agrees(draw: Draw) -> dict[str, Any]:
    inputs = _claims(draw)
    claims, agrees = torch.full_like(inputs["claims"], torch.inf), torch.zeros_like(inputs["agrees"])
    return {"depth": inputs["depth"], "claims": claims, "agrees": agrees, "min_views": 1}


def _stays(answer: Answer, depth: Tensor, claims: Tensor, agrees: Tensor, min_views: int) -> tuple[Any, Any]:
    return answer(depth, claims, agrees, min_views), depth


MEAN_OF_VIEWS = Exercise(
    name="mean-of-views",
    chapter="fusion",
    difficulty=1,
    signature="mean_of_views(depth, claims, agrees, min_views)",
    question=(
        "Average a depth map with what its sources say. `depth`, `(h, w)`, is the reference's own. `claims`, "
        "`(S, h, w)`, holds the depth that each source claims at the same pixel, seen from the reference; it "
        "is infinite where a source has nothing to say. `agrees`, `(S, h, w)` of `bool`, says which claims "
        "are consistent. Return `(h, w)`: the mean over the reference and the sources that agree, and 0 "
        "where fewer than `min_views` views, *the reference included*, are of one mind."
    ),
    hint="What is infinity times 0? And how many views are there where no source agrees?",
    reference=_mean_of_views,
    inputs=_claims,
    laws=(
        Law(
            "With min_views = 1 and no source that agrees, the depth stays as it is.",
            _stays,
            inputs=_nobody_agrees,
        ),
    ),
)


# claim-pixels


def _claim_pixels(silent: Tensor, pixels: Tensor, agrees: Tensor) -> Tensor:
    h, w = silent.shape
    x, y = pixels.floor().long().unbind(dim=-1)
    inside = agrees & (x >= 0) & (x < w) & (y >= 0) & (y < h)
    result = silent.clone()
    result[y[inside], x[inside]] = True
    return result


def _points_in_a_view(draw: Draw) -> dict[str, Any]:
    h, w = ((1, 1), (1, 2), (2, 3), (2, 4), (5, 3))[draw.level]
    count = (1, 1, 2, 3, 6)[draw.level]
    x = draw.tensor(count, low=-1, high=w + 0.75, step=0.25)
    y = draw.tensor(count, low=-1, high=h + 0.75, step=0.25)
    silent = draw.tensor(h, w, low=0, high=3, step=1) == 0
    agrees = draw.tensor(count, low=0, high=3, step=1) > 0
    return {"silent": silent, "pixels": torch.stack([x, y], dim=-1), "agrees": agrees}


def _outside(draw: Draw) -> dict[str, Any]:
    inputs = _points_in_a_view(draw)
    h, w = inputs["silent"].shape
    beyond = torch.tensor([[-0.25, -0.5], [w + 0.25, 0.5], [0.5, h], [w - 0.5, -1.0]])
    return {"silent": inputs["silent"], "pixels": beyond, "agrees": torch.ones(4, dtype=torch.bool)}


def _nobody_is_silenced(answer: Answer, **inputs: Any) -> tuple[Any, Any]:
    return answer(*inputs.values()), inputs["silent"]


CLAIM_PIXELS = Exercise(
    name="claim-pixels",
    chapter="fusion",
    difficulty=2,
    signature="claim_pixels(silent, pixels, agrees)",
    question=(
        "A view has spoken. Its points project into another view at `pixels`, `(N, 2)`, x before y, pixel "
        "centres at +0.5; `agrees`, `(N,)` of `bool`, says for which of them the other view's depth agrees. "
        "`silent`, `(h, w)` of `bool`, marks the pixels of the other view that others stand for already. "
        "Return a new `silent` that also holds the pixels these points stand for. Points may fall outside "
        "of the view."
    ),
    hint="The first pixel reaches from 0 to 1. Which one holds x = -0.25, and what does .long() make of it?",
    reference=_claim_pixels,
    inputs=_points_in_a_view,
    laws=(Law("Points outside of the view silence nobody.", _nobody_is_silenced, inputs=_outside),),
)


# nearest-distances


def _nearest_distances(points: Tensor, others: Tensor) -> Tensor:
    return (points[:, None] - others[None]).norm(dim=-1).amin(dim=1)


def _two_clouds(draw: Draw) -> dict[str, Any]:
    n, m = ((1, 1), (1, 2), (2, 1), (3, 2), (5, 7))[draw.level]
    return {name: draw.tensor(count, 3, low=-4, high=4) for name, count in (("points", n), ("others", m))}


def _inside_the_other(draw: Draw) -> dict[str, Any]:
    others = _two_clouds(draw)["others"]
    return {"points": others[: draw.whole(1, len(others))], "others": others}


def _no_distance(answer: Answer, points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    return answer(points, others), torch.zeros(len(points))


NEAREST_DISTANCES = Exercise(
    name="nearest-distances",
    chapter="fusion",
    difficulty=2,
    signature="nearest_distances(points, others)",
    question=(
        "For each of the `points`, `(N, 3)`, return the Euclidean distance to the nearest of the `others`, "
        "`(M, 3)`, as a tensor `(N,)`. All pairs may be compared; there are few. `N` and `M` differ."
    ),
    hint="points[:, None] - others[None] has the shape (N, M, 3). Over which of them is the nearest chosen?",
    reference=_nearest_distances,
    inputs=_two_clouds,
    laws=(
        Law(
            "A cloud is at no distance from a cloud that contains it.", _no_distance, inputs=_inside_the_other
        ),
    ),
)


# f-score


def _f_score(to_truth: Tensor, to_estimate: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    precision = (to_truth < threshold).float().mean()
    recall = (to_estimate < threshold).float().mean()
    f_score = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
    return precision, recall, f_score


def _distances(draw: Draw) -> dict[str, Any]:
    n, m = ((1, 1), (1, 2), (3, 2), (4, 5), (8, 5))[draw.level]
    to_truth, to_estimate = (draw.tensor(count, low=0, high=4) for count in (n, m))
    return {"to_truth": to_truth, "to_estimate": to_estimate, "threshold": draw.number(0.5, 4)}


def _far_apart(draw: Draw) -> dict[str, Any]:
    inputs = _distances(draw)
    return {**inputs, "to_truth": inputs["to_truth"] + 9, "to_estimate": inputs["to_estimate"] + 9}


def _all_zero(answer: Answer, **inputs: Any) -> tuple[Any, Any]:
    return answer(*inputs.values()), (torch.zeros(()),) * 3


F_SCORE = Exercise(
    name="f-score",
    chapter="fusion",
    difficulty=1,
    signature="f_score(to_truth, to_estimate, threshold)",
    question=(
        "`to_truth`, `(N,)`, are the distances from estimated points to the truth; `to_estimate`, `(M,)`, "
        "those from true points to the estimate. Return `(precision, recall, f_score)`, three tensors "
        "without dimensions, between 0 and 1. A distance counts as good if it is *smaller than* the "
        "threshold. The f-score is the harmonic mean of the other two, and 0 where both are 0."
    ),
    hint="The mean of a tensor of bool needs .float(). Which denominator can be 0?",
    reference=_f_score,
    inputs=_distances,
    laws=(Law("Two clouds that are far apart score 0, and never NaN.", _all_zero, inputs=_far_apart),),
)


# capped-mean


def _capped_mean(distances: Tensor, counted: Tensor, max_distance: float) -> Tensor:
    good = counted & (distances < max_distance)
    return torch.where(good, distances, 0).sum() / good.sum().clamp(min=1)


def _capped(draw: Draw) -> dict[str, Any]:
    count = (1, 2, 3, 5, 9)[draw.level]
    distances = draw.tensor(count, low=0, high=8)
    counted = draw.tensor(count, low=0, high=2, step=1) > 0
    return {"distances": distances, "counted": counted, "max_distance": draw.number(1, 8)}


def _with_strays(answer: Answer, distances: Tensor, counted: Tensor, max_distance: float) -> tuple[Any, Any]:
    strays = torch.tensor([1e6, torch.inf])
    more, also = torch.cat([distances, strays]), torch.cat([counted, torch.tensor([True, False])])
    return answer(more, also, max_distance), answer(distances, counted, max_distance)


CAPPED_MEAN = Exercise(
    name="capped-mean",
    chapter="fusion",
    difficulty=2,
    signature="capped_mean(distances, counted, max_distance)",
    question=(
        "DTU's accuracy for one cloud: the mean of the `distances`, `(N,)`, over the points that are "
        "`counted`, `(N,)` of `bool` (they lie in the observation mask), and whose distance is smaller than "
        "`max_distance`. What is farther away is left out, not cut down to the maximum. Return a tensor "
        "without dimensions; 0 where nothing is left."
    ),
    hint="Make one mask of the two conditions. How many points does the mean divide by?",
    reference=_capped_mean,
    inputs=_capped,
    laws=(
        Law(
            "Points beyond the maximum change nothing: got is with two of them, expected without.",
            _with_strays,
        ),
    ),
)

EXERCISES = (MEAN_OF_VIEWS, CLAIM_PIXELS, NEAREST_DISTANCES, F_SCORE, CAPPED_MEAN)
