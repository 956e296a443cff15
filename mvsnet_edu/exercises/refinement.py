"""Exercises of the chapter on depth-map refinement: normalising, shrinking, the residual, units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..refinement import depth_refine
from .checking import gradient
from .draw import Draw
from .exercise import Exercise, Law
from .show import Formula

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# normalise-depth


def _normalise(depth: Tensor, depth_num: int, depth_start: float, depth_interval: float) -> Tensor:
    return (depth - depth_start) / ((depth_num - 1) * depth_interval)


def _depths(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    depth = draw.tensor(B, 1, h, w, low=1, high=9)
    return {
        "depth": depth,
        "depth_num": draw.planes,
        "depth_start": draw.number(1, 4),
        "depth_interval": draw.number(0.5, 2),
    }


def _ends(draw: Draw) -> dict[str, Any]:
    inputs = _depths(draw)
    last = inputs["depth_start"] + (inputs["depth_num"] - 1) * inputs["depth_interval"]
    return {**inputs, "depth": torch.tensor([inputs["depth_start"], last]).view(1, 1, 1, 2)}


def _ends_at_0_and_1(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*inputs.values()), torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)


def _even_steps(answer: Answer, depth: Tensor, **planes: Any) -> tuple[Tensor, Tensor]:
    low, middle, high = (answer(depth + step, *planes.values()) for step in (-4, 0, 4))
    return high - middle, middle - low


def _unit_drops_out(
    answer: Answer, depth: Tensor, depth_num: int, depth_start: float, depth_interval: float
) -> tuple[Tensor, Tensor]:
    in_millimetres = answer(1000 * depth, depth_num, 1000 * depth_start, 1000 * depth_interval)
    return in_millimetres, answer(depth, depth_num, depth_start, depth_interval)


NORMALISE_DEPTH = Exercise(
    name="normalise-depth",
    chapter="refinement",
    difficulty=1,
    signature="normalise_depth(depth, depth_num, depth_start, depth_interval)",
    question=(
        "Bring a depth map `(B, 1, h, w)` to the range that the refinement network sees: 0 at the first of "
        "the `depth_num` planes, 1 at the last. The planes begin at `depth_start` and are `depth_interval` "
        "apart; all three are plain numbers. Depths outside the planes are not clipped. Return `(B, 1, h, "
        "w)`."
    ),
    hint=(
        "How many intervals lie between the first and the last of D planes? The depth map's own extremes "
        "play no part."
    ),
    reference=_normalise,
    inputs=_depths,
    laws=(
        Law(
            "The depth of the first plane becomes 0, that of the last becomes 1.",
            _ends_at_0_and_1,
            inputs=_ends,
        ),
        Law(
            "Equal steps stay equal, outside the planes as well: got is a step of 4 up, expected a step of 4 "
            "down.",
            _even_steps,
        ),
        Law("Metres or millimetres, the result is the same: got is from depths times 1000.", _unit_drops_out),
    ),
)


# shrink-image


def _shrink(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, 4)


def _images(draw: Draw) -> dict[str, Any]:
    B, h, w = ((1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 3), (2, 3, 2))[draw.level]
    return {"image": draw.tensor(B, 3, 4 * h, 4 * w, low=0, high=1, step=0.125)}


def _constant_images(draw: Draw) -> dict[str, Any]:
    image = _images(draw)["image"]
    return {"image": torch.full_like(image, draw.number(0.25, 1, 0.25))}


def _single_dots(draw: Draw) -> dict[str, Any]:
    image = torch.zeros_like(_images(draw)["image"])
    image[:, :, draw.whole(0, image.shape[2] - 1), draw.whole(0, image.shape[3] - 1)] = 16.0
    return {"image": image}


def _keeps_constant(answer: Answer, image: Tensor) -> tuple[Tensor, Tensor]:
    return answer(image), image[:, :, ::4, ::4]


def _dot_counts(answer: Answer, image: Tensor) -> tuple[Tensor, Tensor]:
    return answer(image).sum(dim=(2, 3)), torch.ones(image.shape[:2])


SHRINK_IMAGE = Exercise(
    name="shrink-image",
    chapter="refinement",
    difficulty=1,
    signature="shrink_image(image)",
    question=(
        "The depth map has a quarter of the image's height and width. Shrink the image `(B, 3, H, W)` to "
        "that size: each new pixel is the mean of the 4 x 4 pixels that it covers. H and W are multiples of "
        "4. Return `(B, 3, H // 4, W // 4)`."
    ),
    hint="A pooling layer does it. F.interpolate does it too, in one of its modes, and not in its default.",
    reference=_shrink,
    inputs=_images,
    laws=(
        Law("An image of one brightness keeps it.", _keeps_constant, inputs=_constant_images),
        Law(
            "Every pixel counts for a sixteenth: one pixel of 16 adds 1 to the small image, wherever it is. "
            "Got is the sum over the small image.",
            _dot_counts,
            inputs=_single_dots,
        ),
    ),
)


# refine-with-residual


def _refine_with_residual(
    depth: Tensor,
    image: Tensor,
    depth_num: int,
    depth_start: Tensor,
    depth_interval: Tensor,
    residual_net: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    def refine_net(image: Tensor, normalised: Tensor) -> Tensor:
        return normalised + residual_net(image, normalised)

    return depth_refine(depth, image, depth_num, depth_start, depth_interval, refine_net)


_ZERO = Formula("0 * depth", lambda image, depth: 0 * depth)
_MINUS = Formula("-depth", lambda image, depth: -depth)
_NETS = (
    Formula("0 * depth + 0.25", lambda image, depth: 0 * depth + 0.25),
    Formula("0 * depth - 0.5", lambda image, depth: 0 * depth - 0.5),
    Formula("0.5 * depth", lambda image, depth: 0.5 * depth),
    Formula("image[:, :1] - depth", lambda image, depth: image[:, :1] - depth),
)


def _refinements(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    return {
        "depth": draw.tensor(B, 1, h, w, low=1, high=9),
        "image": draw.tensor(B, 3, h, w, low=-1, high=1),
        "depth_num": draw.planes,
        "depth_start": draw.tensor(B, low=1, high=4),
        "depth_interval": draw.tensor(B, low=0.5, high=2),
        "residual_net": draw.one_of(_NETS),
    }


def _refinements_by(net: Formula) -> Callable[[Draw], dict[str, Any]]:
    return lambda draw: {**_refinements(draw), "residual_net": net}


def _unchanged(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*inputs.values()), inputs["depth"]


def _at_the_start(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    got = answer(*inputs.values())
    return got, inputs["depth_start"].view(-1, 1, 1, 1).expand_as(got)


def _refined_slopes(answer: Answer, depth: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
    depth = depth.requires_grad_()
    return tuple(gradient(f(depth, *inputs.values()), depth) for f in (answer, _refine_with_residual))


REFINE_WITH_RESIDUAL = Exercise(
    name="refine-with-residual",
    chapter="refinement",
    difficulty=2,
    signature="refine_with_residual(depth, image, depth_num, depth_start, depth_interval, residual_net)",
    question=(
        "Refine a depth map `(B, 1, h, w)`. `residual_net(image, normalised_depth)` gives the correction "
        "`(B, 1, h, w)` that is to be *added* to the depth normalised to [0, 1]; it may be negative. "
        "`image`, `(B, 3, h, w)`, already has the right size. There are `depth_num` planes, a number; "
        "`depth_start` and `depth_interval` are tensors `(B,)`, for every scene of the batch has its own "
        "planes. Nothing is clipped. Return the refined depth `(B, 1, h, w)` in the unit of the scene."
    ),
    hint=(
        "Normalise, call the net, add, undo the normalisation; in this order. What shape must a tensor (B,) "
        "have to meet (B, 1, h, w) at the right dimension?"
    ),
    reference=_refine_with_residual,
    inputs=_refinements,
    laws=(
        Law(
            "A net that corrects nothing leaves the depth as it is.",
            _unchanged,
            inputs=_refinements_by(_ZERO),
        ),
        Law(
            "A net that takes away all of the normalised depth leaves depth_start.",
            _at_the_start,
            inputs=_refinements_by(_MINUS),
        ),
        Law("Gradients reach the depth, through the net and around it.", _refined_slopes, reveal=False),
    ),
)


# scale-equivariance


def _follows_unit(
    refine: Callable[[Tensor, float, float], Tensor],
    depth: Tensor,
    depth_start: float,
    depth_interval: float,
    factor: float,
) -> bool:
    other_unit = refine(factor * depth, factor * depth_start, factor * depth_interval)
    return torch.allclose(other_unit, factor * refine(depth, depth_start, depth_interval), rtol=1e-5)


_FOLLOW = (
    Formula("depth + depth_interval / 3", lambda depth, start, interval: depth + interval / 3),
    Formula("2 * depth + depth_start", lambda depth, start, interval: 2 * depth + start),
    Formula(
        "depth.clamp(max=depth_start + 3 * depth_interval)",
        lambda depth, start, interval: depth.clamp(max=start + 3 * interval),
    ),
)
_DO_NOT_FOLLOW = (
    Formula("depth + 0.5", lambda depth, start, interval: depth + 0.5),
    Formula("depth / depth_interval", lambda depth, start, interval: depth / interval),
    Formula("depth * depth", lambda depth, start, interval: depth * depth),
    Formula("depth.clamp(4, 6)", lambda depth, start, interval: depth.clamp(4, 6)),
)


def _refiners(candidates: tuple[Formula, ...]) -> Callable[[Draw], dict[str, Any]]:
    def inputs(draw: Draw) -> dict[str, Any]:
        _, h, w = draw.map_shape
        return {
            "refine": draw.one_of(candidates),
            "depth": draw.tensor(1, 1, h, w, low=1, high=9),
            "depth_start": draw.number(1, 4),
            "depth_interval": draw.number(0.75, 2, 0.25),
            "factor": draw.one_of([0.001, 0.3, 10.0, 1000.0]),
        }

    return inputs


def _says_yes(answer: Answer, **inputs: Any) -> tuple[bool, bool]:
    return answer(*inputs.values()), True


SCALE_EQUIVARIANCE = Exercise(
    name="scale-equivariance",
    chapter="refinement",
    difficulty=3,
    signature="follows_unit(refine, depth, depth_start, depth_interval, factor)",
    question=(
        "Write a test. `refine(depth, depth_start, depth_interval)` gives a refined depth map; depths, start "
        "and interval are all in the unit of the scene. Measured in another unit, all three are `factor` "
        "times as large, and a good `refine` answers with `factor` times the depth. Return whether this one "
        "does, up to rounding, for the given `depth` `(1, 1, h, w)` and planes: a Python `bool`."
    ),
    hint=(
        "Call refine twice. Equality up to rounding is torch.allclose; mind that its default atol is meant "
        "for numbers near 1, and nothing may be left behind in the old unit."
    ),
    reference=_follows_unit,
    inputs=_refiners(_DO_NOT_FOLLOW),
    laws=(Law("This refinement follows the unit, up to rounding.", _says_yes, inputs=_refiners(_FOLLOW)),),
)

EXERCISES = (NORMALISE_DEPTH, SHRINK_IMAGE, REFINE_WITH_RESIDUAL, SCALE_EQUIVARIANCE)
