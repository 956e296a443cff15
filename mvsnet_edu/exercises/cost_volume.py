"""Exercises of the chapter on the cost volume: the variance in two ways, its size, views that see nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..features import CHANNELS, STRIDE
from .checking import Refusal
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# variance-over-views


def _variance(warped: Tensor) -> Tensor:
    return warped.var(dim=1, correction=0)


def _volume_shape(draw: Draw) -> tuple[int, ...]:
    """(B, V, C, D, h, w)."""
    B, h, w = draw.map_shape
    V, C = ((2, 1), (2, 1), (3, 2), (4, 2), (5, 3))[draw.level]
    return B, V, C, draw.planes, h, w


def _warped(draw: Draw) -> dict[str, Any]:
    return {"warped": draw.tensor(*_volume_shape(draw), low=-4, high=4)}


def _copies(draw: Draw) -> dict[str, Any]:
    B, V, *rest = _volume_shape(draw)
    one = draw.tensor(B, 1, *rest, low=900, high=1100, step=1 / 64)
    return {"warped": one.expand(B, V, *rest).clone()}


def _all_zero(answer: Answer, warped: Tensor) -> tuple[Tensor, Tensor]:
    return answer(warped), torch.zeros_like(warped[:, 0])


def _reversed_order(answer: Answer, warped: Tensor) -> tuple[Tensor, Tensor]:
    return answer(warped.flip(1)), answer(warped)


def _far_from_zero(answer: Answer, warped: Tensor) -> tuple[Tensor, Tensor]:
    return answer(warped + 256), answer(warped)


VARIANCE_OVER_VIEWS = Exercise(
    name="variance-over-views",
    chapter="cost_volume",
    difficulty=2,
    signature="variance_over_views(warped)",
    question=(
        "`warped` holds the features of all views, `(B, V, C, D, h, w)`: the reference first, then the "
        "sources as warped onto each plane. Return their variance over the views, divided by V, `(B, C, D, "
        "h, w)`. It must stay precise where the features are large and nearly equal."
    ),
    hint="Two passes: first the mean over dimension 1, then the mean of the squared distances from it.",
    reference=_variance,
    inputs=_warped,
    laws=(
        Law("Views that are all the same have variance 0.", _all_zero, inputs=_copies),
        Law("The order of the views does not matter: got is from the reverse.", _reversed_order),
        Law(
            "Adding one number to all features changes nothing: got is with 256 added, expected without.",
            _far_from_zero,
        ),
    ),
)


# welford-step


def _welford(mean: Tensor, squares: Tensor, count: int, new: Tensor) -> tuple[Tensor, Tensor]:
    deviation = new - mean
    return mean + deviation / (count + 1), squares + deviation.square() * (count / (count + 1))


def _running(draw: Draw) -> dict[str, Any]:
    shape = _volume_shape(draw)[2:]
    return {
        "mean": draw.tensor(*shape, low=-4, high=4),
        "squares": draw.tensor(*shape, low=0, high=8),
        "count": draw.whole(1, 4),
        "new": draw.tensor(*shape, low=-4, high=4),
    }


def _second_view(draw: Draw) -> dict[str, Any]:
    inputs = _running(draw)
    return {**inputs, "squares": torch.zeros_like(inputs["squares"]), "count": 1}


def _of_two(answer: Answer, mean: Tensor, squares: Tensor, count: int, new: Tensor) -> tuple:
    return answer(mean, squares, count, new), ((mean + new) / 2, (mean - new).square() / 2)


def _nothing_new(answer: Answer, mean: Tensor, squares: Tensor, count: int, new: Tensor) -> tuple:
    return answer(mean, squares, count, mean), (mean, squares)


def _two_ways(answer: Answer, mean: Tensor, squares: Tensor, count: int, new: Tensor) -> tuple:
    other = new + 2
    paths = ((new, other), (other, new))
    first, second = (answer(*answer(mean, squares, count, a), count + 1, b) for a, b in paths)
    return first, second


WELFORD_STEP = Exercise(
    name="welford-step",
    chapter="cost_volume",
    difficulty=3,
    signature="welford_step(mean, squares, count, new)",
    question=(
        "Take up one more view. `mean` is the mean of the `count` views so far and `squares` the *sum* of "
        "their squared distances from it, both `(C, D, h, w)`; `new` is the next view's features. Return the "
        "mean and the sum of squares of all `count + 1` views, without looking at the old ones again."
    ),
    hint=(
        "With deviation = new - mean, the mean moves by deviation / (count + 1). After that, new is only "
        "count / (count + 1) of the deviation away from it; the product of the two distances, before and "
        "after, is what the sum grows by."
    ),
    reference=_welford,
    inputs=_running,
    laws=(
        Law("Two views: their mean, and half the square of their difference.", _of_two, _second_view),
        Law("A view that equals the mean leaves the mean and the sum as they are.", _nothing_new),
        Law("Two more views may come in either order.", _two_ways),
    ),
)


# volume-bytes


def _volume_bytes(width: int, height: int, depth_num: int, bytes_per_number: int) -> int:
    return CHANNELS * depth_num * (height // STRIDE) * (width // STRIDE) * bytes_per_number


def _sizes(draw: Draw) -> dict[str, Any]:
    most = (2, 4, 8, 40, 400)[draw.level]
    return {
        "width": 4 * draw.whole(1, most) + draw.whole(0, 3),
        "height": 4 * draw.whole(1, most) + draw.whole(0, 3),
        "depth_num": draw.whole(1, 8 * most),
        "bytes_per_number": draw.one_of([2, 4, 8]),
    }


def _twice_as_wide(answer: Answer, width: int, **rest: int) -> tuple[int, int]:
    width -= width % 4
    return answer(2 * width, *rest.values()), 2 * answer(width, *rest.values())


VOLUME_BYTES = Exercise(
    name="volume-bytes",
    chapter="cost_volume",
    difficulty=1,
    signature="volume_bytes(width, height, depth_num, bytes_per_number)",
    question=(
        "How many bytes does one cost volume take? The images have `width` x `height` pixels, there are "
        "`depth_num` hypotheses and 32 channels, and a number takes `bytes_per_number` bytes. Features have "
        "a quarter of the images' width and of their height; what is left over is cut off. Return an `int`."
    ),
    hint="Two quarters are a sixteenth. // rounds down, each of the two for itself.",
    reference=_volume_bytes,
    inputs=_sizes,
    laws=(Law("Images twice as wide take twice as much.", _twice_as_wide),),
)


# masked-variance


def _masked_variance(warped: Tensor, seen: Tensor) -> Tensor:
    seen = seen.unsqueeze(2)  # (B, V, 1, D, h, w)
    count = seen.sum(dim=1, keepdim=True).clamp(min=1)
    known = torch.where(seen, warped, 0)  # what is not seen may be NaN
    mean = known.sum(dim=1, keepdim=True) / count
    return (torch.where(seen, known - mean, 0).square().sum(dim=1, keepdim=True) / count).squeeze(1)


def _seen(draw: Draw) -> dict[str, Any]:
    warped = _warped(draw)["warped"]
    B, V, _, D, h, w = warped.shape
    seen = draw.tensor(B, V, D, h, w, low=0, high=1) > 0.25
    seen[:, 0] = True
    return {"warped": warped, "seen": seen}


def _unseen_is_nan(draw: Draw) -> dict[str, Any]:
    inputs = _seen(draw)
    inputs["seen"][:, -1] = False
    hidden = ~inputs["seen"].unsqueeze(2).expand_as(inputs["warped"])
    return {**inputs, "warped": inputs["warped"].masked_fill(hidden, torch.nan)}


def _is_a_number(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    got = answer(*inputs.values())
    return torch.isnan(got), torch.zeros_like(got, dtype=torch.bool)


def _unseen_does_not_count(answer: Answer, warped: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    blind = torch.cat([warped, warped[:, :1] + 3], dim=1)
    nothing = torch.zeros_like(seen[:, :1])
    return answer(blind, torch.cat([seen, nothing], dim=1)), answer(warped, seen)


def _all_seen(answer: Answer, warped: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    return answer(warped, torch.ones_like(seen)), _variance(warped)


def _with_gradient(answer: Answer, warped: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    warped = warped.requires_grad_()
    result = answer(warped, seen)
    if not result.requires_grad:
        raise Refusal("The result carries no gradient; something on the way cuts it off.")
    (slope,) = torch.autograd.grad(result.sum(), warped)
    return torch.isnan(slope), torch.zeros_like(slope, dtype=torch.bool)


MASKED_VARIANCE = Exercise(
    name="masked-variance",
    chapter="cost_volume",
    difficulty=3,
    signature="masked_variance(warped, seen)",
    question=(
        "The variance over those views only that see the point. `warped` is `(B, V, C, D, h, w)`; `seen`, "
        "`(B, V, D, h, w)`, is True where the view's sample fell inside its picture. Divide by the number of "
        "views that see. The reference, view 0, sees everything; where it is alone, the variance is 0. "
        "Features that are not seen may be anything, NaN included. Return `(B, C, D, h, w)`."
    ),
    hint=(
        "seen lacks the dimension of the channels. torch.where takes out what is not seen, before the mean "
        "and again before the squares; multiplying by the mask leaves NaN, for 0 * NaN is NaN."
    ),
    reference=_masked_variance,
    inputs=_seen,
    laws=(
        Law(
            "A view that sees nothing changes nothing: got is with one more, expected without.",
            _unseen_does_not_count,
        ),
        Law("Where all views see, it is the plain variance.", _all_seen),
        Law(
            "NaN in what is not seen does not come through; got says where it does.",
            _is_a_number,
            inputs=_unseen_is_nan,
        ),
        Law(
            "Nor does it come into the gradient; got says where it does.",
            _with_gradient,
            inputs=_unseen_is_nan,
        ),
    ),
)

EXERCISES = (VARIANCE_OVER_VIEWS, WELFORD_STEP, VOLUME_BYTES, MASKED_VARIANCE)
