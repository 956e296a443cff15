"""Exercises of the chapter on the loss and the accuracy measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..losses import less_one_percentage, less_three_percentage, mvsnet_loss, non_zero_mean_absolute_diff
from .checking import gradient
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]

_MISSING = (float("nan"), float("inf"), -float("inf"))


def _truth(draw: Draw, *shape: int) -> Tensor:
    """Depths of 1 to 4, about a third of them 0, the first never."""
    depth = draw.tensor(*shape, low=1, high=4)
    measured = draw.tensor(*shape, low=0, high=2, step=1) > 0
    measured.view(-1)[0] = True
    return torch.where(measured, depth, 0)


def _spoil(draw: Draw, truth: Tensor) -> Tensor:
    """The same truth with NaN or infinity in place of some zeros."""
    holes = torch.tensor([draw.one_of((0.0, *_MISSING)) for _ in range(truth.numel())])
    return torch.where(truth == 0, holes.view(truth.shape), truth)


# measured-mask


def _truths(draw: Draw) -> dict[str, Any]:
    return {"ground_truth": _truth(draw, *draw.map_shape)}


def _spoilt_truths(draw: Draw) -> dict[str, Any]:
    return {"ground_truth": _spoil(draw, _truth(draw, *draw.map_shape))}


def _measured(ground_truth: Tensor) -> Tensor:
    return ground_truth.isfinite() & (ground_truth != 0)


def _zero_is_not_measured(answer: Answer, ground_truth: Tensor) -> tuple[Tensor, Tensor]:
    return answer(ground_truth), ground_truth > 0


MEASURED_MASK = Exercise(
    name="measured-mask",
    chapter="loss",
    difficulty=1,
    signature="measured_mask(ground_truth)",
    question=(
        "Which pixels of a ground-truth depth map were measured? A depth of 0 means that nothing is known "
        "there, and so does one that is not finite. Return a tensor of `bool` with the shape of "
        "`ground_truth`."
    ),
    hint="NaN differs from everything, from 0 as well. torch.isfinite tells it from a number.",
    reference=_measured,
    inputs=_spoilt_truths,
    laws=(Law("Depths above 0 are measured, depths of 0 are not.", _zero_is_not_measured, inputs=_truths),),
)


# masked-l1-in-intervals


def _one_map(draw: Draw) -> dict[str, Any]:
    return _maps_of(draw, (1, *draw.map_shape[1:]), draw.one_of([0.25, 0.5, 2.0, 4.0]))


def _maps_of(draw: Draw, shape: tuple[int, ...], interval: float | Tensor) -> dict[str, Any]:
    estimated = draw.tensor(*shape, low=1, high=4)
    return {"estimated": estimated, "ground_truth": _truth(draw, *shape), "interval": interval}


def _one_spoilt_map(draw: Draw) -> dict[str, Any]:
    return _spoilt(draw, _one_map(draw))


def _spoilt(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "ground_truth": _spoil(draw, inputs["ground_truth"])}


def _unmeasured(make: Callable[[Draw], dict[str, Any]]) -> Callable[[Draw], dict[str, Any]]:
    def inputs(draw: Draw) -> dict[str, Any]:
        drawn = make(draw)
        return {**drawn, "ground_truth": torch.zeros_like(drawn["ground_truth"])}

    return inputs


def _ignores_unmeasured(
    answer: Answer, estimated: Tensor, ground_truth: Tensor, **others: Any
) -> tuple[Tensor, Tensor]:
    elsewhere = torch.where(_measured(ground_truth), estimated, estimated + 7)
    before = answer(estimated, ground_truth, *others.values())
    return answer(elsewhere, ground_truth, *others.values()), before


def _ignores_nan(
    answer: Answer, estimated: Tensor, ground_truth: Tensor, **others: Any
) -> tuple[Tensor, Tensor]:
    measured = _measured(ground_truth)
    spoilt = torch.where(measured, estimated, float("nan"))
    clean = answer(estimated, torch.where(measured, ground_truth, 0), *others.values())
    return answer(spoilt, ground_truth, *others.values()), clean


def _is_zero(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*inputs.values()), torch.tensor(0.0)


def _unit_drops_out(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*[1000 * value for value in inputs.values()]), answer(*inputs.values())


_UNMEASURED_LAW = Law(
    "What is estimated where nothing was measured does not matter: got is with 7 added there, expected "
    "without.",
    _ignores_unmeasured,
)
_UNIT_LAW = Law(
    "Metres or millimetres, the result is the same: got is from everything times 1000.", _unit_drops_out
)

MASKED_L1 = Exercise(
    name="masked-l1-in-intervals",
    chapter="loss",
    difficulty=2,
    signature="masked_l1(estimated, ground_truth, interval)",
    question=(
        "The heart of the loss, for one image: the mean absolute depth error over the measured pixels, "
        "counted in depth intervals. `estimated` and `ground_truth` are `(1, h, w)`; where the truth is 0 or "
        "not finite, nothing was measured, and the estimate may be anything there, NaN included. `interval` "
        "is a number. Return a tensor `()`. An image without any measured pixel gives 0."
    ),
    hint=(
        "Sum over the measured pixels, divided by their number, but never by 0. A mask of 0 and 1 is not "
        "enough: 0 times NaN is NaN, and torch.where chooses instead."
    ),
    reference=non_zero_mean_absolute_diff,
    inputs=_one_map,
    laws=(
        _UNMEASURED_LAW,
        _UNIT_LAW,
        Law("An image without any measured pixel gives 0.", _is_zero, inputs=_unmeasured(_one_map)),
        Law(
            "A NaN where nothing was measured does not reach the result: got is with NaN as the estimate "
            "there, expected without any.",
            _ignores_nan,
            inputs=_one_spoilt_map,
        ),
    ),
)


# per-image-mean


def _batches(draw: Draw) -> dict[str, Any]:
    _, h, w = draw.map_shape
    B = draw.whole(2, 3)
    return _maps_of(draw, (B, h, w), draw.tensor(B, low=0.5, high=2))


def _spoilt_batches(draw: Draw) -> dict[str, Any]:
    return _spoilt(draw, _batches(draw))


def _repeats(answer: Answer, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    return answer(*[torch.cat([value, value]) for value in inputs.values()]), answer(*inputs.values())


def _images_count_alike(answer: Answer, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    B = len(inputs["estimated"])
    alone = [answer(*[value[b : b + 1] for value in inputs.values()]) for b in range(B)]
    return answer(*inputs.values()), torch.stack(alone).mean()


def _clean_gradient(
    answer: Answer, estimated: Tensor, ground_truth: Tensor, interval: Tensor
) -> tuple[Tensor, Tensor]:
    spoilt = torch.where(_measured(ground_truth), estimated, float("nan")).requires_grad_()
    return tuple(
        gradient(f(spoilt, ground_truth, interval), spoilt) for f in (answer, non_zero_mean_absolute_diff)
    )


PER_IMAGE_MEAN = Exercise(
    name="per-image-mean",
    chapter="loss",
    difficulty=2,
    signature="per_image_mean(estimated, ground_truth, interval)",
    question=(
        "The same loss for a batch: `estimated` and `ground_truth` are `(B, h, w)`, `interval` is `(B,)`. "
        "Every image counts alike, however many of its pixels were measured: first the mean over the "
        "measured pixels of each image (0 if there are none), then the mean over the batch. Return a tensor "
        "`()`. NaN where nothing was measured must reach neither the loss nor its gradient."
    ),
    hint=(
        "Keep the dimension B until the very end. flatten(1) brings the pixels of each image into one "
        "dimension."
    ),
    reference=non_zero_mean_absolute_diff,
    inputs=_spoilt_batches,
    laws=(
        Law("Every image twice changes nothing: got is twice, expected once.", _repeats, inputs=_batches),
        Law(
            "The loss of a batch is the mean of the losses of its images alone, which expected is.",
            _images_count_alike,
            inputs=_batches,
        ),
        Law("A batch without any measured pixel gives 0.", _is_zero, inputs=_unmeasured(_batches)),
        Law(
            "The gradient is right and free of NaN, if the estimate is NaN where nothing was measured.",
            _clean_gradient,
            inputs=_spoilt_batches,
            reveal=False,
        ),
    ),
)


# less-k


def _less_k(estimated: Tensor, ground_truth: Tensor, interval: float, k: int) -> Tensor:
    return {1: less_one_percentage, 3: less_three_percentage}[k](estimated, ground_truth, interval)


def _measures(draw: Draw) -> dict[str, Any]:
    return {**_maps_of(draw, draw.map_shape, draw.one_of([0.25, 0.5])), "k": draw.one_of([1, 3])}


def _exactly_k(draw: Draw) -> dict[str, Any]:
    inputs = _measures(draw)
    error = draw.one_of([1, -1]) * inputs["k"] * inputs["interval"]
    return {**inputs, "estimated": inputs["ground_truth"] + error}


def _is_one(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*inputs.values()), torch.tensor(1.0)


def _pooled(answer: Answer, estimated: Tensor, ground_truth: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    as_one = answer(estimated.flatten(0, 1)[None], ground_truth.flatten(0, 1)[None], *others.values())
    return answer(estimated, ground_truth, *others.values()), as_one


def _without_gradient(answer: Answer, estimated: Tensor, **others: Any) -> tuple[bool, bool]:
    return answer(estimated.requires_grad_(), *others.values()).requires_grad, False


LESS_K = Exercise(
    name="less-k",
    chapter="loss",
    difficulty=2,
    signature="less_k(estimated, ground_truth, interval, k)",
    question=(
        "The accuracy measure behind `less_one` and `less_three`: the share of the measured pixels whose "
        "error is at most `k` intervals. `estimated` and `ground_truth` are `(B, h, w)`, `interval` and `k` "
        "are numbers. All measured pixels of the batch are counted together. Return a tensor `()` in [0, 1], "
        "0 if nothing was measured; it carries no gradient."
    ),
    hint=(
        '"At most" includes equality. Two sums of booleans give the two counts; only one of them may be zero '
        "safely."
    ),
    reference=_less_k,
    inputs=_measures,
    laws=(
        _UNMEASURED_LAW,
        Law("An error of exactly k intervals is still within.", _is_one, inputs=_exactly_k),
        Law(
            "Pixels count together, whichever image they are in: expected is from one image of them all.",
            _pooled,
        ),
        Law("Without any measured pixel the share is 0.", _is_zero, inputs=_unmeasured(_measures)),
        Law("The result carries no gradient: its requires_grad is False.", _without_gradient),
    ),
)


# two-term-loss


def _two_maps(draw: Draw) -> dict[str, Any]:
    return {
        "initial": draw.tensor(*draw.map_shape, low=1, high=4),
        "refined": draw.tensor(*draw.map_shape, low=1, high=4),
        "ground_truth": _truth(draw, *draw.map_shape),
        "interval": draw.one_of([0.25, 0.5, 2.0, 4.0]),
    }


def _initial_alone(answer: Answer, initial: Tensor, refined: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    alone = answer(initial, None, *others.values())
    return alone, non_zero_mean_absolute_diff(initial, *others.values())


def _swapped(answer: Answer, initial: Tensor, refined: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    return answer(refined, initial, *others.values()), answer(initial, refined, *others.values())


def _reaches_initial(answer: Answer, initial: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    initial = initial.requires_grad_()
    return tuple(gradient(f(initial, *others.values()), initial) for f in (answer, mvsnet_loss))


TWO_TERM_LOSS = Exercise(
    name="two-term-loss",
    chapter="loss",
    difficulty=1,
    signature="two_term_loss(initial, refined, ground_truth, interval)",
    question=(
        "What MVSNet is trained on: the average of the losses of the initial and of the refined depth map, "
        "both `(B, h, w)`, against the same `ground_truth`. A network without refinement gives "
        "`refined=None`; then the loss of the initial depth map counts alone, and in full. `interval` is a "
        "number. Use `mvsnet_edu.non_zero_mean_absolute_diff` for each term. Return a tensor `()`."
    ),
    hint="Settle the case of None first; what remains is an average.",
    reference=mvsnet_loss,
    inputs=_two_maps,
    laws=(
        Law("With refined=None the loss is that of the initial depth map.", _initial_alone),
        Law("Both depth maps weigh alike: got is with the two swapped.", _swapped),
        Law(
            "The loss passes the right gradient on to the initial depth map.", _reaches_initial, reveal=False
        ),
    ),
)


# loss-gradient


def _loss_gradient(estimated: Tensor, ground_truth: Tensor, interval: Tensor) -> Tensor:
    estimated = estimated.detach().requires_grad_()
    return gradient(non_zero_mean_absolute_diff(estimated, ground_truth, interval), estimated)


def _farther_off(
    answer: Answer, estimated: Tensor, ground_truth: Tensor, interval: Tensor
) -> tuple[Tensor, Tensor]:
    farther = ground_truth + 2 * (estimated - ground_truth)
    return answer(farther, ground_truth, interval), answer(estimated, ground_truth, interval)


def _zero_where_unmeasured(answer: Answer, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    got = answer(*inputs.values())
    return got, torch.where(_measured(inputs["ground_truth"]), got, 0)


LOSS_GRADIENT = Exercise(
    name="loss-gradient",
    chapter="loss",
    difficulty=3,
    signature="loss_gradient(estimated, ground_truth, interval)",
    question=(
        "Derive the gradient of the loss of `per-image-mean` with respect to `estimated`, and write it down "
        "without autograd. `estimated` and `ground_truth` are `(B, h, w)`, 0 where nothing was measured; "
        "`interval` is `(B,)`. Return `(B, h, w)`. Where the estimate hits the truth exactly, take 0."
    ),
    hint=(
        "How fast does |x| grow? Then divide by everything that the loss divides by: intervals, pixels, "
        "images."
    ),
    reference=_loss_gradient,
    inputs=_batches,
    laws=(
        Law("Where nothing was measured the gradient is 0.", _zero_where_unmeasured),
        Law(
            "An error twice as large has the same gradient: got is with the error doubled, expected as it "
            "is.",
            _farther_off,
        ),
        Law(
            "A batch without any measured pixel has the gradient 0.",
            _zero_where_unmeasured,
            inputs=_unmeasured(_batches),
        ),
    ),
)

EXERCISES = (MEASURED_MASK, MASKED_L1, PER_IMAGE_MEAN, LESS_K, TWO_TERM_LOSS, LOSS_GRADIENT)
