"""Exercises of the chapter on features: what a feature sees, where its centre lies, two normalisations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features import standardize
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# receptive-field


def _receptive_field(kernels: list[int], strides: list[int]) -> int:
    seen, distance = 1, 1  # what one output sees, and how far apart two of them lie; in input pixels
    for kernel, stride in zip(kernels, strides, strict=True):
        seen += (kernel - 1) * distance
        distance *= stride
    return seen


def _layers(draw: Draw) -> dict[str, Any]:
    count = (1, 2, 3, 4, 8)[draw.level]
    kernels = [draw.one_of([3, 4, 5]) for _ in range(count)]
    return {"kernels": kernels, "strides": [draw.one_of([1, 1, 2]) for _ in range(count)]}


def _last_stride(answer: Answer, kernels: list[int], strides: list[int]) -> tuple[int, int]:
    return answer(kernels, [*strides[:-1], strides[-1] + 3]), answer(kernels, strides)


def _three_more(answer: Answer, kernels: list[int], strides: list[int]) -> tuple[int, int]:
    strides = [1] * len(strides)
    return answer([*kernels, 3], [*strides, 1]), answer(kernels, strides) + 2


RECEPTIVE_FIELD = Exercise(
    name="receptive-field",
    chapter="features",
    difficulty=2,
    signature="receptive_field(kernels, strides)",
    question=(
        "A row of convolutions, first layer first: `kernels` and `strides` are lists of whole numbers of one "
        "length. How many input pixels in a row does one output see? Padding plays no part. Return an `int`."
    ),
    hint=(
        "A kernel of 3 adds two of its own input's pixels to what one output sees. How far apart do these "
        "lie, in pixels of the image? The strides before it say so, its own stride does not."
    ),
    reference=_receptive_field,
    inputs=_layers,
    laws=(
        Law("Without strides, one more layer of 3 adds 2.", _three_more),
        Law(
            "The last layer's stride does not matter: got is with a larger one, expected with this.",
            _last_stride,
        ),
    ),
)


# feature-centre


def _feature_centre(j: int, kernels: list[int], strides: list[int], pads: list[int]) -> float:
    centre = float(j)
    for kernel, stride, pad in zip(reversed(kernels), reversed(strides), reversed(pads), strict=True):
        centre = stride * centre - pad + (kernel - 1) / 2
    return centre


def _padded_layers(draw: Draw) -> dict[str, Any]:
    layers = _layers(draw)
    pads = [draw.whole(0, kernel // 2) for kernel in layers["kernels"]]
    return {"j": draw.whole(0, 9), **layers, "pads": pads}


def _centred_layers(draw: Draw) -> dict[str, Any]:
    layers = _padded_layers(draw)
    pads = [kernel // 2 for kernel in layers["kernels"]]
    return {**layers, "kernels": [2 * p + 1 for p in pads], "strides": [1] * len(pads), "pads": pads}


def _keeps_place(answer: Answer, j: int, **layers: Any) -> tuple[float, float]:
    return answer(j, *layers.values()), float(j)


def _next_one(answer: Answer, j: int, **layers: Any) -> tuple[float, float]:
    apart = torch.tensor(layers["strides"]).prod().item()
    return answer(j + 1, *layers.values()) - answer(j, *layers.values()), float(apart)


FEATURE_CENTRE = Exercise(
    name="feature-centre",
    chapter="features",
    difficulty=3,
    signature="feature_centre(j, kernels, strides, pads)",
    question=(
        "Output `j` of a row of convolutions looks at an interval of the input. Where is its middle? "
        "`kernels`, `strides` and `pads` are lists of whole numbers, first layer first; `pads` are the zeros "
        "put before the first pixel. Count as indices do: the first pixel is 0, so the middle of pixels 0 "
        "and 1 is 0.5. Return a `float`."
    ),
    hint=(
        "Begin with one layer: output j reads the inputs from stride * j - pad on, kernel of them. Then go "
        "from the last layer to the first, with a j that need no longer be whole."
    ),
    reference=_feature_centre,
    inputs=_padded_layers,
    laws=(
        Law(
            "Odd kernels with half of themselves as padding, and no strides: everything stays in its place.",
            _keeps_place,
            inputs=_centred_layers,
        ),
        Law("The next output's middle lies farther by the product of all strides.", _next_one),
    ),
)


# standardise-images


def _views(draw: Draw) -> dict[str, Any]:
    B, h, w = ((1, 1, 2), (1, 2, 2), (1, 2, 4), (2, 2, 4), (2, 4, 8))[draw.level]  # powers of 2: exact means
    views = draw.level // 2 + 1
    return {"images": draw.tensor(B, views, 3, h, w, low=0, high=1, step=0.125)}


def _flat_views(draw: Draw) -> dict[str, Any]:
    images = _views(draw)["images"]
    images[:, :, draw.whole(0, 2)] = draw.number(0, 1, 0.25)
    return {"images": images}


def _exposed(answer: Answer, images: Tensor) -> tuple[Tensor, Tensor]:
    gain = torch.tensor([0.5, 2.0, 4.0]).view(3, 1, 1)
    return answer(gain * images + 0.25), answer(images)


def _each_alone(answer: Answer, images: Tensor) -> tuple[Tensor, Tensor]:
    changed = images.clone()
    changed[-1, -1] = 4 * changed[-1, -1].flip(0) + 1
    return answer(torch.cat([images, changed], dim=1))[:, : images.shape[1]], answer(images)


STANDARDISE_IMAGES = Exercise(
    name="standardise-images",
    chapter="features",
    difficulty=1,
    signature="standardise(images)",
    question=(
        "Make the views independent of exposure and white balance. `images` is `(B, V, 3, H, W)`. Bring each "
        "channel of each image to mean 0 and standard deviation 1; the deviation is the biased one, divided "
        "by the number of pixels. A channel of one single brightness becomes 0. Return the same shape."
    ),
    hint=(
        "Which two dimensions belong to one channel of one image, and how do they survive the mean? A small "
        "number beside the deviation keeps 0 / 0 away: 1e-6 is small enough."
    ),
    reference=standardize,
    inputs=_views,
    laws=(
        Law(
            "A channel of one brightness becomes 0.",
            lambda f, images: (f(images), standardize(images)),
            inputs=_flat_views,
            reveal=False,
        ),
        Law("The other views do not matter: got is beside brighter ones, expected without.", _each_alone),
        Law("A gain and an offset of each channel do not matter: got is with, expected without.", _exposed),
    ),
)


# group-norm


def _group_norm(x: Tensor, groups: int) -> Tensor:
    return F.group_norm(x, groups)


def _grouped(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    groups = (1, 2, 2, 3, 2)[draw.level]
    channels = groups * (2, 1, 2, 2, 4)[draw.level]
    x = draw.tensor(B, channels, h, w, low=-4, high=4)
    return {"x": x * draw.one_of([1.0, 1.0, 1 / 256]), "groups": groups}


def _in_company(answer: Answer, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    return answer(torch.cat([x, 3 * x + 1]), groups)[: len(x)], answer(x, groups)


def _other_groups(answer: Answer, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    first = x.shape[1] // groups
    changed = torch.cat([x[:, :first], 2 * x[:, first:] - 3], dim=1)
    return answer(changed, groups)[:, :first], answer(x, groups)[:, :first]


GROUP_NORM = Exercise(
    name="group-norm",
    chapter="features",
    difficulty=2,
    signature="group_norm(x, groups)",
    question=(
        "Group normalisation without scale and shift. `x` is `(B, C, H, W)`; its C channels form `groups` "
        "groups of neighbouring channels. Each group of each image is brought to mean 0 and deviation 1, "
        "over all its channels and pixels. The variance is the biased one, and 1e-5 is added to it, below "
        "the root. Return the shape of `x`."
    ),
    hint=(
        "A view of shape (B, groups, -1) makes every group one row. Functions that do all of it exist; try "
        "without them."
    ),
    reference=_group_norm,
    inputs=_grouped,
    laws=(
        Law("The other images do not matter: got is in company, expected alone.", _in_company),
        Law(
            "The other groups do not matter: both are the first group, got beside other ones.", _other_groups
        ),
    ),
)

EXERCISES = (STANDARDISE_IMAGES, RECEPTIVE_FIELD, FEATURE_CENTRE, GROUP_NORM)
