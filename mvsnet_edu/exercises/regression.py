"""Exercises on depth regression: temperature, spread, gradient, a second look, and inverse depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..depth import inverse_depths, soft_argmin, uniform_depths, winner_take_all
from .checking import gradient
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


def _probability(draw: Draw) -> Tensor:
    """(B, D, h, w): whole numbers, none 0 and one of them the largest, divided by their sum."""
    B, h, w = draw.map_shape
    counts = draw.tensor(B, draw.planes, h, w, low=1, high=4, step=1)
    winner = draw.tensor(B, 1, h, w, low=0, high=draw.planes - 1, step=1).long()
    counts = counts.scatter(1, winner, 6.0)
    return counts / counts.sum(dim=1, keepdim=True)


def _depth_values(draw: Draw) -> Tensor:
    B = draw.map_shape[0]
    first, interval = draw.tensor(B, low=1, high=4), draw.tensor(B, low=0.5, high=2)
    return uniform_depths(first, interval, draw.planes)


def _distributions(draw: Draw) -> dict[str, Any]:
    return {"probability": _probability(draw), "depth_values": _depth_values(draw)}


def _certain(draw: Draw) -> dict[str, Any]:
    drawn = _distributions(draw)
    winner = drawn["probability"].argmax(dim=1, keepdim=True)
    return {**drawn, "probability": torch.zeros_like(drawn["probability"]).scatter(1, winner, 1.0)}


def _per_pixel(depth_values: Tensor) -> Tensor:
    return depth_values[:, :, None, None]


# temper-probability


def _tempered(draw: Draw) -> dict[str, Any]:
    return {"probability": _probability(draw), "temperature": draw.one_of([0.25, 0.5, 2.0, 4.0])}


def _at_one(draw: Draw) -> dict[str, Any]:
    return {**_tempered(draw), "temperature": 1.0}


def _temper(probability: Tensor, temperature: float) -> Tensor:
    power = probability ** (1 / temperature)  # (B, D, h, w)
    return power / power.sum(dim=1, keepdim=True)


def _same_as_before(answer: Answer, probability: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return answer(probability, temperature), probability


def _one_in_all(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    total = answer(*inputs.values()).sum(dim=1)
    return total, torch.ones_like(total)


def _sharper(answer: Answer, probability: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    peak = answer(probability, temperature).amax(dim=1)
    grew = peak > probability.amax(dim=1)
    return grew, torch.full_like(grew, temperature < 1)


TEMPER_PROBABILITY = Exercise(
    name="temper-probability",
    chapter="regression",
    difficulty=2,
    signature="temper(probability, temperature)",
    question=(
        "`probability`, `(B, D, h, w)`, is the softmax of some negative costs over dimension 1. The costs "
        "are lost. Return the probability that the same costs would give if they were divided by "
        "`temperature` first, `(B, D, h, w)`. The temperature is a positive number; no probability is 0."
    ),
    hint="What does a logarithm of a softmax give back, up to a constant? And what does the constant matter?",
    reference=_temper,
    inputs=_tempered,
    laws=(
        Law("A temperature of 1 changes nothing.", _same_as_before, inputs=_at_one),
        Law("The new probabilities sum to 1 at every pixel.", _one_in_all),
        Law("A temperature below 1 raises the highest probability, one above 1 does not.", _sharper),
    ),
)


# depth-spread


def _spread(probability: Tensor, depth_values: Tensor) -> Tensor:
    depths = _per_pixel(depth_values)
    mean = (probability * depths).sum(dim=1, keepdim=True)  # (B, 1, h, w)
    return (probability * (depths - mean).square()).sum(dim=1).sqrt()


def _two_planes(draw: Draw) -> dict[str, Any]:
    drawn = _distributions(draw)
    probability = torch.zeros_like(drawn["probability"])
    probability[:, [0, -1]] = 0.5
    return {**drawn, "probability": probability}


def _no_spread(answer: Answer, probability: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    return answer(probability, depth_values), torch.zeros_like(probability[:, 0])


def _half_the_range(answer: Answer, probability: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    half = (depth_values[:, -1] - depth_values[:, 0]) / 2
    return answer(probability, depth_values), half[:, None, None].expand_as(probability[:, 0])


DEPTH_SPREAD = Exercise(
    name="depth-spread",
    chapter="regression",
    difficulty=2,
    signature="depth_spread(probability, depth_values)",
    question=(
        "How far do the planes that a pixel believes in lie apart? Return the standard deviation of the "
        "depth under `probability`, `(B, D, h, w)`: one number per pixel, `(B, h, w)`, in the unit of "
        "`depth_values`, `(B, D)`."
    ),
    hint="The mean first. Then the mean of something squared, and a root.",
    reference=_spread,
    inputs=_distributions,
    laws=(
        Law("A pixel that believes in one plane only has no spread.", _no_spread, inputs=_certain),
        Law(
            "Half the probability on the first plane, half on the last: the spread is half their distance.",
            _half_the_range,
            inputs=_two_planes,
        ),
    ),
)


# soft-argmin-gradient


def _soft_argmin_gradient(probability: Tensor, depth_values: Tensor) -> Tensor:
    depths = _per_pixel(depth_values)
    return -probability * (depths - (probability * depths).sum(dim=1, keepdim=True))


def _sums_to_nothing(answer: Answer, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    total = answer(*inputs.values()).sum(dim=1)
    return total, torch.zeros_like(total)


def _as_autograd(answer: Answer, probability: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    cost = -probability.log().requires_grad_()
    return answer(probability, depth_values), gradient(soft_argmin(cost, depth_values)[0], cost)


SOFT_ARGMIN_GRADIENT = Exercise(
    name="soft-argmin-gradient",
    chapter="regression",
    difficulty=3,
    signature="soft_argmin_gradient(probability, depth_values)",
    question=(
        "Without autograd: return the derivative of the expected depth of each pixel by each of its D costs, "
        "`(B, D, h, w)`. Given are the `probability` that softmax made of the negative costs, "
        "`(B, D, h, w)`, and the planes' `depth_values`, `(B, D)`."
    ),
    hint=(
        "Raise the cost of one plane a little. Its probability falls, and all others rise in proportion. "
        "Does the mean move away from the plane, and how fast?"
    ),
    reference=_soft_argmin_gradient,
    inputs=_distributions,
    laws=(
        Law("Raising all costs of a pixel alike changes nothing: its gradient sums to 0.", _sums_to_nothing),
        Law("It is what autograd finds.", _as_autograd, reveal=False),
    ),
)


# local-depth


def _windows(draw: Draw) -> dict[str, Any]:
    return {**_distributions(draw), "radius": draw.one_of([1, 2])}


def _no_window(draw: Draw) -> dict[str, Any]:
    return {**_distributions(draw), "radius": 0}


def _all_planes(draw: Draw) -> dict[str, Any]:
    return {**_distributions(draw), "radius": draw.planes}


def _local_depth(probability: Tensor, depth_values: Tensor, radius: int) -> Tensor:
    winner = probability.argmax(dim=1, keepdim=True)  # (B, 1, h, w)
    j = torch.arange(probability.shape[1]).view(1, -1, 1, 1)
    near = torch.where((j - winner).abs() <= radius, probability, 0)
    return (near * _per_pixel(depth_values)).sum(dim=1) / near.sum(dim=1)


def _the_winner(answer: Answer, probability: Tensor, depth_values: Tensor, radius: int) -> tuple[Any, Any]:
    return answer(probability, depth_values, radius), winner_take_all(probability, depth_values)[0]


def _the_mean(answer: Answer, probability: Tensor, depth_values: Tensor, radius: int) -> tuple[Any, Any]:
    mean = (probability * _per_pixel(depth_values)).sum(dim=1)
    return answer(probability, depth_values, radius), mean


LOCAL_DEPTH = Exercise(
    name="local-depth",
    chapter="regression",
    difficulty=3,
    signature="local_depth(probability, depth_values, radius)",
    question=(
        "A mean over all planes is fooled by a second bump far away. Return the mean over the most probable "
        "plane and its `radius` neighbours on either side only, `(B, h, w)`, for `probability` "
        "`(B, D, h, w)` and `depth_values` `(B, D)`. Planes that do not exist add nothing, and the "
        "probabilities that remain must sum to 1 again."
    ),
    hint="Mark the planes whose number is close to the winner's; forget all others; divide by what is left.",
    reference=_local_depth,
    inputs=_windows,
    laws=(
        Law("A radius of 0 leaves the most probable plane.", _the_winner, inputs=_no_window),
        Law("A radius that reaches all planes gives the mean of all.", _the_mean, inputs=_all_planes),
    ),
)


# inverse-plane-index


def _inverse_ranges(draw: Draw) -> dict[str, Any]:
    near, ratio = draw.number(1, 4), draw.one_of([2.0, 4.0, 8.0])
    depth = near * (1 + (ratio - 1) * draw.tensor(*draw.map_shape, low=0, high=1, step=0.125))
    return {"depth": depth, "depth_min": near, "depth_max": near * ratio, "num": draw.planes + 1}


def _on_the_planes(draw: Draw) -> dict[str, Any]:
    drawn = _inverse_ranges(draw)
    depth = inverse_depths(drawn["depth_min"], drawn["depth_max"], drawn["num"])
    return {**drawn, "depth": depth.view(1, 1, -1)}


def _plane_index(depth: Tensor, depth_min: float, depth_max: float, num: int) -> Tensor:
    return (1 / depth - 1 / depth_min) / (1 / depth_max - 1 / depth_min) * (num - 1)


def _counts(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*inputs.values()), torch.arange(inputs["num"], dtype=torch.float32).view(1, 1, -1)


INVERSE_PLANE_INDEX = Exercise(
    name="inverse-plane-index",
    chapter="regression",
    difficulty=2,
    signature="plane_index(depth, depth_min, depth_max, num)",
    question=(
        "`num` planes stand from `depth_min` to `depth_max` at equal steps of *inverse* depth, as "
        "`inverse_depths` makes them. Return the place of each `depth`, `(B, h, w)`, among them: 0 on the "
        "first plane, `num - 1` on the last, and fractions in between, which grow evenly in inverse depth, "
        "too."
    ),
    hint="Which quantity is a straight line in the number of the plane?",
    reference=_plane_index,
    inputs=_inverse_ranges,
    laws=(Law("Plane j has the place j.", _counts, inputs=_on_the_planes),),
)

EXERCISES = (TEMPER_PROBABILITY, DEPTH_SPREAD, SOFT_ARGMIN_GRADIENT, LOCAL_DEPTH, INVERSE_PLANE_INDEX)
