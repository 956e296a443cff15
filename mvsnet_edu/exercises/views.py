"""Exercises of the chapter on data and view selection: angles, scores, sources, depth ranges, planes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.views import angle_weight, pair_score, select_sources
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# angle-weight


def _angles(draw: Draw) -> dict[str, Any]:
    return {"angle": draw.tensor(draw.planes - 1, low=0, high=40)}


def _angle_of(*choices: float) -> Callable[[Draw], dict[str, Any]]:
    return lambda draw: {"angle": torch.tensor([draw.one_of(choices)])}


def _is_one(answer: Answer, angle: Tensor) -> tuple[Tensor, Tensor]:
    return answer(angle), torch.ones_like(angle)


def _one_sigma(answer: Answer, angle: Tensor) -> tuple[Tensor, Tensor]:
    return answer(angle), torch.full_like(angle, math.exp(-0.5))


ANGLE_WEIGHT = Exercise(
    name="angle-weight",
    chapter="views",
    difficulty=1,
    signature="angle_weight(angle)",
    question=(
        "How much is a point worth that two cameras see at this baseline angle? `angle` is a tensor in "
        "degrees. Return the piecewise Gaussian of the paper, of the same shape: its peak is at 5 degrees, "
        "its standard deviation is 1 degree up to there and 10 degrees beyond."
    ),
    hint="torch.where chooses a sigma for each angle. A Gaussian has a 2 below the square of sigma.",
    reference=angle_weight,
    inputs=_angles,
    laws=(
        Law("At 5 degrees the weight is 1.", _is_one, inputs=_angle_of(5.0)),
        Law("One standard deviation away it is exp(-1/2).", _one_sigma, inputs=_angle_of(4.0, 15.0)),
    ),
)


# pair-score


def _pairs(draw: Draw) -> dict[str, Any]:
    count = draw.level + 1
    depth = draw.tensor(count, 1, low=4, high=20)
    points = torch.cat([draw.tensor(count, 2, low=-2, high=2), depth], dim=1)
    a, b = torch.zeros(3), torch.tensor([draw.number(0.5, 2), draw.number(-1, 1), 0])
    return {"points": points.double(), "center_a": a.double(), "center_b": b.double()}


def _same_centres(draw: Draw) -> dict[str, Any]:
    drawn = _pairs(draw)
    return {**drawn, "center_b": drawn["center_a"]}


def _swapped(answer: Answer, points: Tensor, center_a: Tensor, center_b: Tensor) -> tuple[Any, Any]:
    return answer(points, center_b, center_a), answer(points, center_a, center_b)


def _any_unit(answer: Answer, points: Tensor, center_a: Tensor, center_b: Tensor) -> tuple[Any, Any]:
    return answer(4 * points, 4 * center_a, 4 * center_b), answer(points, center_a, center_b)


def _worthless(answer: Answer, points: Tensor, **centers: Tensor) -> tuple[Any, Any]:
    return answer(points, *centers.values()), math.exp(-12.5) * len(points) * torch.ones(()).double()


PAIR_SCORE = Exercise(
    name="pair-score",
    chapter="views",
    difficulty=2,
    signature="pair_score(points, center_a, center_b)",
    question=(
        "Return the score of a pair of views: the weights of `angle-weight`, summed over the points that "
        "both see. `points` is `(N, 3)`, the camera centres `center_a` and `center_b` are `(3,)`, all of "
        "them `float64`; the score is a tensor without dimensions. The angle is the one *at the point*, "
        "between the rays to the two centres."
    ),
    hint=(
        "F.normalize makes rays of length 1, whose product is the cosine. What does arccos say to "
        "1.0000000000000002? And which unit does it answer in?"
    ),
    reference=pair_score,
    inputs=_pairs,
    laws=(
        Law("A pair scores the same in either order.", _swapped),
        Law("In another unit of length the score is the same: got is in the other one.", _any_unit),
        Law(
            "Seen twice from one place, a point has the angle 0, whatever the rounding.",
            _worthless,
            inputs=_same_centres,
        ),
    ),
)


# choose-sources


def _scores(draw: Draw) -> dict[str, Any]:
    views = draw.level + 2
    upper = torch.zeros(views, views)
    for i in range(views):
        for j in range(i + 1, views):
            upper[i, j] = draw.one_of([0, 1, 2, 3]) and 8 * draw.whole(1, 9) + 0.5 * i + 0.0625 * j
    scores = upper + upper.T
    return {"scores": scores.fill_diagonal_(99), "num": draw.whole(1, views)}


def _with_ids(scores: Tensor, num: int) -> list[list[int]]:
    return [[source for source, _ in best] for best in select_sources(scores, num).values()]


def _never_itself(answer: Answer, scores: Tensor, num: int) -> tuple[Any, Any]:
    chosen = answer(scores, num)
    return chosen, [[source for source in row if source != view] for view, row in enumerate(chosen)]


def _never_worthless(answer: Answer, scores: Tensor, num: int) -> tuple[Any, Any]:
    chosen = answer(scores, num)
    return chosen, [[s for s in row if scores[view, s] > 0] for view, row in enumerate(chosen)]


CHOOSE_SOURCES = Exercise(
    name="choose-sources",
    chapter="views",
    difficulty=2,
    signature="choose_sources(scores, num)",
    question=(
        "Return the sources of every view, a list of V lists of view numbers, best first. `scores` is `(V, "
        "V)` and symmetric; its diagonal means nothing. A view has at most `num` sources. It is never its "
        "own source, and a view with score 0 is nobody's."
    ),
    hint="argsort takes descending=True. First make the diagonal harmless, in a copy of the scores.",
    reference=_with_ids,
    inputs=_scores,
    laws=(
        Law("No view is its own source: expected is your list without these.", _never_itself),
        Law("No source has score 0: expected is your list without these.", _never_worthless),
    ),
)


# robust-range


def _depths(draw: Draw) -> dict[str, Any]:
    count = (1, 2, 50, 130, 250)[draw.level]
    return {"depths": draw.tensor(count, low=1, high=64, step=0.125)}


def _depths_and_behind(draw: Draw) -> dict[str, Any]:
    depths = _depths(draw)["depths"]
    behind = -draw.tensor(1 + len(depths) // 4, low=0, high=9)
    return {"depths": torch.cat([depths, behind])}


def _many_depths(draw: Draw) -> dict[str, Any]:
    return {"depths": draw.tensor(250, low=1, high=64, step=0.125)}


def _robust_range(depths: Tensor) -> Tensor:
    z = depths[depths > 0].sort().values
    return torch.stack([z[int(0.01 * len(z))], z[int(0.99 * len(z))]])


def _behind_ignored(answer: Answer, depths: Tensor) -> tuple[Tensor, Tensor]:
    return answer(depths), answer(depths[depths > 0])


def _outliers_ignored(answer: Answer, depths: Tensor) -> tuple[Tensor, Tensor]:
    wild = depths.sort().values
    wild[-1], wild[:2] = 1e6, 1e-3
    return answer(wild), answer(depths)


ROBUST_RANGE = Exercise(
    name="robust-range",
    chapter="views",
    difficulty=2,
    signature="robust_range(depths)",
    question=(
        "`depths` `(N,)` are those of the sparse points in one camera, in any order. Points with a depth of "
        "0 or less do not count. Of the n that remain, sorted, return the entries number `int(0.01 n)` and "
        "`int(0.99 n)` as a tensor `(2,)`: the original's depth range. At least one depth is positive."
    ),
    hint="Throw away first, count afterwards: n is the number of the depths that are left.",
    reference=_robust_range,
    inputs=_depths_and_behind,
    laws=(
        Law(
            "Points behind the camera change nothing: expected is your answer without them.",
            _behind_ignored,
        ),
        Law(
            "One point far off and two before the lens, among 250, change nothing: expected is your answer "
            "before they moved.",
            _outliers_ignored,
            inputs=_many_depths,
        ),
    ),
)


# half-pixel-planes


def _stereo_pairs(draw: Draw) -> dict[str, Any]:
    near = draw.one_of([1.0, 2.0, 4.0])
    return {
        "focal": 8.0 * draw.whole(1, 20),
        "baseline": draw.number(0.125, 2, step=0.125),
        "near": near,
        "far": near * draw.one_of([2, 4, 8]),
    }


def _half_pixel_planes(focal: float, baseline: float, near: float, far: float) -> int:
    return 1 + math.ceil(2 * focal * baseline * (1 / near - 1 / far))


def _just_enough(answer: Answer, focal: float, baseline: float, near: float, far: float) -> tuple[Any, Any]:
    gaps = answer(focal, baseline, near, far) - 1
    shift = focal * baseline * (1 / near - 1 / far)
    return (shift <= gaps / 2, shift > (gaps - 1) / 2), (True, True)


HALF_PIXEL_PLANES = Exercise(
    name="half-pixel-planes",
    chapter="views",
    difficulty=2,
    signature="half_pixel_planes(focal, baseline, near, far)",
    question=(
        "Two cameras stand side by side, `baseline` apart, and look in the same direction. A point at depth "
        "z is seen `focal * baseline / z` pixels farther left in the second one. Planes lie at equal steps "
        "of 1/z from `near` to `far`, both included. Return the least whole number of planes whose "
        "neighbours lie at most half a pixel apart in the second image."
    ),
    hint=(
        "How many pixels from the first plane to the last? How many gaps of half a pixel, and how many posts?"
    ),
    reference=_half_pixel_planes,
    inputs=_stereo_pairs,
    laws=(
        Law(
            "The gaps are at most half a pixel wide; with one plane fewer they would be wider.",
            _just_enough,
        ),
    ),
)

EXERCISES = (ANGLE_WEIGHT, PAIR_SCORE, CHOOSE_SOURCES, ROBUST_RANGE, HALF_PIXEL_PLANES)
