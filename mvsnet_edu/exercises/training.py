"""Exercises of the chapter on training: rate, optimiser, clipping, averages, the two modes of batch norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# cosine-rates


def _cosine_rates(steps: int, rate: float, warm_up: int) -> Tensor:
    step = torch.arange(1, steps + 1)
    cosine = 0.5 + 0.5 * torch.cos(torch.pi * step / steps)
    return rate * torch.minimum(cosine, step / max(warm_up, 1))


def _courses(draw: Draw) -> dict[str, Any]:
    steps = (2, 4, 6, 10, 20)[draw.level]
    return {"steps": steps, "rate": draw.number(0.5, 4), "warm_up": draw.whole(0, steps // 2)}


def _ends_at_0(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*inputs.values())[-1], torch.tensor(0.0)


def _halfway(answer: Answer, steps: int, rate: float, **_: Any) -> tuple[Tensor, Tensor]:
    return answer(steps, rate, 0)[steps // 2 - 1], torch.tensor(rate / 2)


def _starts_small(answer: Answer, steps: int, rate: float, **_: Any) -> tuple[Tensor, Tensor]:
    return answer(10 * steps, rate, 5 * steps)[0], torch.tensor(rate / (5 * steps))


COSINE_RATES = Exercise(
    name="cosine-rates",
    chapter="training",
    difficulty=1,
    signature="cosine_rates(steps, rate, warm_up)",
    question=(
        "The learning rates of all steps of a run, numbered from 1 to `steps`: half a cosine, which would be "
        "`rate` at step 0 and is 0 at the last step. A straight line from 0 at step 0 to `rate` at step "
        "`warm_up` bounds it from above; with `warm_up=0` there is no such line. Return a tensor `(steps,)`."
    ),
    hint="0.5 + 0.5 cos(x) falls from 1 to 0 as x grows from 0 to pi. Of two bounds the lower one holds.",
    reference=_cosine_rates,
    inputs=_courses,
    laws=(
        Law("The last rate, which got is, is 0.", _ends_at_0),
        Law("Without warm-up, half of the rate is left after half of the steps.", _halfway),
        Law("The first step of a warm-up over n steps has an n-th of the rate.", _starts_small),
    ),
)


# rmsprop-step


def _rmsprop_step(weight: Tensor, gradient: Tensor, square: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    square = 0.9 * square + 0.1 * gradient**2
    return weight - rate * gradient / (square + 1e-10).sqrt(), square


def _weights(draw: Draw) -> dict[str, Any]:
    count = (1, 2, 2, 4, 7)[draw.level]
    return {
        "weight": draw.tensor(count, low=-4, high=4),
        "gradient": draw.tensor(count, low=-4, high=4),
        "square": draw.tensor(count, low=0.5, high=4),
        "rate": draw.one_of([0.25, 0.5, 2.0]),
    }


def _faint(draw: Draw) -> dict[str, Any]:
    drawn = _weights(draw)
    return {**drawn, "gradient": 2.0**-17 * drawn["gradient"], "square": torch.zeros_like(drawn["square"])}


def _steady(answer: Answer, weight: Tensor, gradient: Tensor, rate: float, **_: Any) -> tuple[Tensor, Tensor]:
    gradient = gradient.abs() + 1
    return answer(weight, gradient, gradient**2, rate)[0], weight - rate


def _not_moved(answer: Answer, weight: Tensor, square: Tensor, rate: float, **_: Any) -> tuple:
    return answer(weight, torch.zeros_like(weight), square, rate), (weight, 0.9 * square)


RMSPROP_STEP = Exercise(
    name="rmsprop-step",
    chapter="training",
    difficulty=2,
    signature="rmsprop_step(weight, gradient, square, rate)",
    question=(
        "One step of the original's optimiser, RMSProp as TensorFlow 1 has it: decay 0.9, no momentum, and "
        "an epsilon of 1e-10 *under* the root. `weight`, `gradient` and `square`, the running average of the "
        "squared gradient, are `(N,)`; `rate` is a number. Return the new `weight` and the new `square`."
    ),
    hint="The average learns of this gradient first; then the step is divided by its root.",
    reference=_rmsprop_step,
    inputs=_weights,
    laws=(
        Law("A gradient that always was the same moves the weight by the rate.", _steady),
        Law("A gradient of 0 moves nothing, and lets the average sink to nine tenths.", _not_moved),
        Law(
            "Faint gradients after none at all: the epsilon is under the root.",
            lambda answer, **inputs: (answer(*inputs.values()), _rmsprop_step(*inputs.values())),
            inputs=_faint,
            reveal=False,
        ),
    ),
)


# clip-gradients


def _clip_gradients(first: Tensor, second: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    length = (first.square().sum() + second.square().sum()).sqrt()
    factor = limit / length.clamp(min=limit)
    return factor * first, factor * second


def _gradients(draw: Draw) -> dict[str, Any]:
    count = (1, 1, 2, 3, 6)[draw.level]
    return {
        "first": draw.tensor(count, low=-6, high=6),
        "second": draw.tensor(2, count, low=-6, high=6),
        "limit": draw.one_of([0.5, 2.0, 8.0]),
    }


def _short_ones_stay(answer: Answer, first: Tensor, second: Tensor, limit: float) -> tuple:
    length = torch.cat([first.flatten(), second.flatten()]).norm().item()
    return answer(first, second, length + limit), (first, second)


def _long_ones_fit(answer: Answer, first: Tensor, second: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    clipped = answer(1 + 100 * first.abs(), 100 * second, limit)
    return torch.cat([each.flatten() for each in clipped]).norm(), torch.tensor(limit)


def _zeros_stay(answer: Answer, first: Tensor, second: Tensor, limit: float) -> tuple:
    zeros = torch.zeros_like(first), torch.zeros_like(second)
    return answer(*zeros, limit), zeros


CLIP_GRADIENTS = Exercise(
    name="clip-gradients",
    chapter="training",
    difficulty=2,
    signature="clip_gradients(first, second, limit)",
    question=(
        "Gradient clipping, for a network with two tensors of weights: `first` `(N,)` and `second` `(2, N)` "
        "are their gradients. Seen as one long vector they may be no longer than `limit`; if they are, "
        "shorten it to `limit` without changing its direction. Return both, in their shapes."
    ),
    hint="One length for both, one factor for both; and the factor is never above 1.",
    reference=_clip_gradients,
    inputs=_gradients,
    laws=(
        Law("What is short enough stays as it is.", _short_ones_stay),
        Law("What is too long ends up with the length of the limit.", _long_ones_fit),
        Law("A gradient of 0 has no direction, and stays 0.", _zeros_stay),
    ),
)


# average-weights


def _average_weights(average: Tensor, weight: Tensor, decay: float, step: int) -> Tensor:
    decay = min(decay, (1 + step) / (10 + step))
    return decay * average + (1 - decay) * weight


def _averages(draw: Draw) -> dict[str, Any]:
    count = (1, 2, 2, 4, 7)[draw.level]
    return {
        "average": draw.tensor(count, low=-4, high=4),
        "weight": draw.tensor(count, low=-4, high=4),
        "decay": draw.one_of([0.25, 0.75, 0.875]),
        "step": draw.whole(0, 30),
    }


def _at_home(answer: Answer, weight: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    _, decay, step = others.values()
    return answer(weight, weight, decay, step), weight


def _late(answer: Answer, average: Tensor, weight: Tensor, decay: float, **_: Any) -> tuple[Tensor, Tensor]:
    return answer(average, weight, decay, 10**6), decay * average + (1 - decay) * weight


def _forgets_the_start(answer: Answer, average: Tensor, weight: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    return answer(average, weight, 0.875, 0), 0.1 * average + 0.9 * weight


AVERAGE_WEIGHTS = Exercise(
    name="average-weights",
    chapter="training",
    difficulty=1,
    signature="average_weights(average, weight, decay, step)",
    question=(
        "One step of the exponential moving average: it keeps the share `decay` of itself, and takes the "
        "rest from `weight`; both are `(N,)`. In step number `step`, counted from 0, it keeps no more than "
        "`(1 + step) / (10 + step)`, so that the random start is soon forgotten. Return the new average."
    ),
    hint="Two shares that add up to 1. The smaller of two decays wins.",
    reference=_average_weights,
    inputs=_averages,
    laws=(
        Law("An average that has reached the weight stays there.", _at_home),
        Law("After many steps it keeps the share decay of itself.", _late),
        Law("In step 0 it keeps a tenth of itself.", _forgets_the_start),
    ),
)


# batch-norm-modes


def _batch_norm(x: Tensor, mean: Tensor, variance: Tensor, training: bool) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = mean.clone(), variance.clone()
    return F.batch_norm(x, mean, variance, training=training, momentum=0.1, eps=1e-5), mean, variance


def _features(draw: Draw) -> dict[str, Any]:
    B, H, W = draw.map_shape
    C = (1, 1, 2, 2, 3)[draw.level]
    return {
        "x": draw.tensor(B, C, H + 1, W, low=-4, high=4),
        "mean": draw.tensor(C, low=-2, high=2),
        "variance": draw.tensor(C, low=0.5, high=4),
        "training": draw.one_of([True, False]),
    }


def _in_training(
    answer: Answer, x: Tensor, mean: Tensor, variance: Tensor, **_: Any
) -> tuple[Tensor, Tensor]:
    return answer(x, mean, variance, True)[0], answer(x, mean + 3, 2 * variance, True)[0]


def _in_testing(answer: Answer, x: Tensor, mean: Tensor, variance: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    crowd = torch.cat([x, x + 5])  # (2B, C, H, W)
    return answer(crowd, mean, variance, False)[0][: len(x)], answer(x, mean, variance, False)[0]


def _rests(answer: Answer, x: Tensor, mean: Tensor, variance: Tensor, **_: Any) -> tuple:
    return answer(x, mean, variance, False)[1:], (mean, variance)


BATCH_NORM_MODES = Exercise(
    name="batch-norm-modes",
    chapter="training",
    difficulty=3,
    signature="batch_norm(x, mean, variance, training)",
    question=(
        "Batch norm in both modes, without scale and shift, with epsilon 1e-5 under the root. `x` is `(B, C, "
        "H, W)`; `mean` and `variance` are the running averages `(C,)`; `training` is a `bool`. In training, "
        "normalise by the batch's own mean and variance over B, H and W (divided by the count), and let the "
        "averages take up a tenth of the batch's values: for the variance, the one divided by the count less "
        "one. In testing, normalise by the averages and leave them alone. Return the normalised `x` and the "
        "two averages, without changing those that were given."
    ),
    hint=(
        "x.mean((0, 2, 3)) is (C,); [:, None, None] makes it fit x. torch.var takes correction=0 or 1: one "
        "of them is for the batch, the other for the average."
    ),
    reference=_batch_norm,
    inputs=_features,
    laws=(
        Law(
            "In training the running averages do not matter for x: got and expected differ in them.",
            _in_training,
        ),
        Law(
            "In testing the rest of the batch does not matter: got is in company, expected alone.",
            _in_testing,
        ),
        Law("In testing the running averages stay as they are.", _rests),
    ),
)

EXERCISES = (COSINE_RATES, RMSPROP_STEP, CLIP_GRADIENTS, AVERAGE_WEIGHTS, BATCH_NORM_MODES)
