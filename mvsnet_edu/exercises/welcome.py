"""Exercises of the first chapter: depth planes, soft argmin, the probability map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..depth import inverse_depths, probability_map, soft_argmin, uniform_depths
from .checking import gradient
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# count-planes


def _count_planes(depth_min: float, depth_max: float, interval: float) -> int:
    return round((depth_max - depth_min) / interval) + 1


def _ranges(draw: Draw) -> dict[str, Any]:
    first, interval = draw.number(0.5, 4), draw.one_of([0.1, 0.3, 0.7, 1.06, 2.5])
    steps = draw.whole(1, (2, 4, 12, 60, 300)[draw.level])
    return {"depth_min": first, "depth_max": first + steps * interval, "interval": interval}


def _one_step(draw: Draw) -> dict[str, Any]:
    first, interval = draw.number(0.5, 4), draw.number(0.5, 4)
    return {"depth_min": first, "depth_max": first + interval, "interval": interval}


COUNT_PLANES = Exercise(
    name="count-planes",
    chapter="welcome",
    difficulty=1,
    signature="count_planes(depth_min, depth_max, interval)",
    question=(
        "The first depth plane stands at `depth_min`, the last at `depth_max`, and two neighbours are "
        "`interval` apart. How many planes are there? Return an `int`. The three are floating-point numbers: "
        "the range is a whole number of intervals, up to rounding errors."
    ),
    hint="Count the fence posts, not the gaps; and look at what int() does to 2.9999999999999996.",
    reference=_count_planes,
    inputs=_ranges,
    laws=(
        Law(
            "A range of one interval has a plane at each end, which makes two.",
            lambda answer, **planes: (answer(*planes.values()), 2),
            inputs=_one_step,
        ),
    ),
)


# soft-argmin


def _costs(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    cost = draw.tensor(B, draw.planes, h, w, low=-3, high=3)
    return {"cost": cost, "depth_values": _evenly_spaced(draw)}


def _clear_costs(draw: Draw) -> dict[str, Any]:
    inputs = _costs(draw)
    winner = inputs["cost"].argmin(dim=1, keepdim=True)
    return {**inputs, "cost": torch.full_like(inputs["cost"], 40.0).scatter(1, winner, -40.0)}


def _evenly_spaced(draw: Draw) -> Tensor:
    B = draw.map_shape[0]
    first, interval = draw.tensor(B, low=1, high=4), draw.tensor(B, low=0.5, high=2)
    return uniform_depths(first, interval, draw.planes)


def _sums_to_one(answer: Answer, cost: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    total = answer(cost, depth_values)[1].sum(dim=1)
    return total, torch.ones_like(total)


def _clear_winner(answer: Answer, cost: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    depths = depth_values[:, :, None, None].expand_as(cost)
    return answer(cost, depth_values)[0], depths.gather(1, cost.argmin(dim=1, keepdim=True)).squeeze(1)


def _ignores_offset(answer: Answer, cost: Tensor, depth_values: Tensor) -> tuple[Any, Any]:
    return answer(cost + 1000, depth_values), answer(cost, depth_values)


def _slopes(answer: Answer, cost: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    cost = cost.requires_grad_()
    return tuple(gradient(f(cost, depth_values)[0], cost) for f in (answer, soft_argmin))


SOFT_ARGMIN = Exercise(
    name="soft-argmin",
    chapter="welcome",
    difficulty=2,
    signature="soft_argmin(cost, depth_values)",
    question=(
        "Turn costs into depths. `cost` is `(B, D, h, w)` and *low* where the views agree; `depth_values` is "
        "`(B, D)`, the depths of the planes, each image with its own. Return `(depth, probability)`: the "
        "probability of every plane at every pixel, `(B, D, h, w)`, by softmax, and the depth that it makes "
        "you expect, `(B, h, w)`."
    ),
    hint=(
        "Softmax prefers what is large. Which dimension are the planes in, and what shape must depth_values "
        "have to meet it there?"
    ),
    reference=soft_argmin,
    inputs=_costs,
    laws=(
        Law("The probabilities of the planes sum to 1 at every pixel.", _sums_to_one),
        Law(
            "A plane whose cost is far below all others gives its own depth.",
            _clear_winner,
            inputs=_clear_costs,
        ),
        Law(
            "Adding 1000 to all the costs changes nothing: got is with 1000, expected without.",
            _ignores_offset,
        ),
        Law("The depth passes the right gradient on to the costs.", _slopes, reveal=False),
    ),
)


# probability-map


def _estimates(draw: Draw) -> dict[str, Any]:
    depth_values = _evenly_spaced(draw) if draw.level < 2 else _unevenly_spaced(draw)
    depth = _on_or_between(draw, depth_values)
    return {"probability": _tenths(draw), "depth": depth, "depth_values": depth_values}


def _at_an_end(draw: Draw) -> dict[str, Any]:
    inputs = _estimates(draw)
    end = draw.one_of([0, -1])
    depth = inputs["depth_values"][:, end, None, None].expand(draw.map_shape).clone()
    probability = torch.zeros_like(inputs["probability"])
    probability[:, end] = 1
    return {**inputs, "probability": probability, "depth": depth}


def _unevenly_spaced(draw: Draw) -> Tensor:
    near = draw.tensor(draw.map_shape[0], low=1, high=3)
    return inverse_depths(near, 4 * near, draw.planes)


def _on_or_between(draw: Draw, depth_values: Tensor) -> Tensor:
    """Depths (B, h, w), each on a plane or a quarter, a half or three quarters of the way to the next."""
    B, h, w = draw.map_shape
    below = draw.tensor(B, h * w, low=0, high=draw.planes - 1, step=1).long()
    above = (below + 1).clamp(max=draw.planes - 1)
    low, high = depth_values.gather(1, below), depth_values.gather(1, above)
    return (low + draw.tensor(B, h * w, low=0, high=0.75, step=0.25) * (high - low)).view(B, h, w)


def _tenths(draw: Draw) -> Tensor:
    """Probabilities (B, D, h, w): ten tenths, spread at random."""
    B, h, w = draw.map_shape
    counts = torch.zeros(B, draw.planes, h, w)
    for _ in range(10):
        index = draw.tensor(B, 1, h, w, low=0, high=draw.planes - 1, step=1).long()
        counts.scatter_add_(1, index, torch.ones(B, 1, h, w))
    return counts / 10


def _all_mass_at_an_end(answer: Answer, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    got = answer(*inputs.values())
    return got, torch.ones_like(got)


PROBABILITY_MAP = Exercise(
    name="probability-map",
    chapter="welcome",
    difficulty=3,
    signature="probability_map(probability, depth, depth_values)",
    question=(
        "How far can an estimated depth be trusted? Add up the probability of the four planes around it. "
        "`probability` is `(B, D, h, w)`, `depth` is `(B, h, w)`, `depth_values` is `(B, D)`, ascending and "
        "not always evenly spaced. If plane `i` is the last one that is not beyond the depth, the four are "
        "`i - 1`, `i`, `i + 1` and `i + 2`. Those that do not exist add nothing. Return `(B, h, w)`."
    ),
    hint=(
        "Comparing depth with all planes and counting gives i. Then either gather four times, or mark which "
        "of all D planes are among the four and sum; the second way needs no care at the ends."
    ),
    reference=probability_map,
    inputs=_estimates,
    laws=(
        Law(
            "With all the probability on the first or last plane, and the estimate there, the result is 1.",
            _all_mass_at_an_end,
            inputs=_at_an_end,
        ),
    ),
)

EXERCISES = (COUNT_PLANES, SOFT_ARGMIN, PROBABILITY_MAP)
