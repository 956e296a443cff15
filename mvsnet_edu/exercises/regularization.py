"""Exercises on regularisation: a box filter, one path of SGM, padding, transposed convolution, arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import pad_to_multiple
from .checking import gradient
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# smooth-cost


def _costs(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    return {"cost": draw.tensor(B, draw.planes, h + 1, w + 1, low=0, high=4), "radius": draw.one_of([1, 2])}


def _same_everywhere(draw: Draw) -> dict[str, Any]:
    drawn = _costs(draw)
    return {**drawn, "cost": drawn["cost"][..., :1, :1].expand_as(drawn["cost"]).clone()}


def _smooth(cost: Tensor, radius: int) -> Tensor:
    return F.avg_pool2d(cost, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def _unchanged(answer: Answer, cost: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    return answer(cost, radius), cost


def _plane_by_plane(answer: Answer, cost: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    return answer(cost, radius)[:, :1], answer(cost[:, :1].expand_as(cost).clone(), radius)[:, :1]


SMOOTH_COST = Exercise(
    name="smooth-cost",
    chapter="regularization",
    difficulty=1,
    signature="smooth(cost, radius)",
    question=(
        "The oldest regularisation: replace every cost by the mean over a window of the image, within its "
        "own plane. `cost` is `(B, D, h, w)`; the window reaches `radius` pixels in all four directions, so "
        "it has (2 `radius` + 1)² pixels. At the border, average over those that exist. Return "
        "`(B, D, h, w)`."
    ),
    hint="PyTorch has an average over windows. What does it put beyond the border, and does it count it?",
    reference=_smooth,
    inputs=_costs,
    laws=(
        Law("Where all pixels of a plane agree, nothing changes.", _unchanged, inputs=_same_everywhere),
        Law("A plane does not depend on the others: expected has copies of it there.", _plane_by_plane),
    ),
)


# sgm-path


def _paths(draw: Draw) -> dict[str, Any]:
    w = (2, 3, 4, 5, 7)[draw.level]
    p1 = draw.number(0.5, 1)
    return {
        "cost": draw.tensor(draw.planes + 1, w, low=0, high=4),
        "p1": p1,
        "p2": p1 + draw.number(0.5, 2),
    }


def _free(draw: Draw) -> dict[str, Any]:
    return {**_paths(draw), "p1": 0.0, "p2": 0.0}


def _sgm_path(cost: Tensor, p1: float, p2: float) -> Tensor:
    path = [cost[:, 0]]
    for x in range(1, cost.shape[1]):
        before = path[-1]  # (D,)
        lowest = before.min()
        stay = torch.minimum(before, lowest + p2)
        nearer = F.pad(before[:-1], (1, 0), value=torch.inf) + p1
        farther = F.pad(before[1:], (0, 1), value=torch.inf) + p1
        path.append(cost[:, x] + torch.minimum(stay, torch.minimum(nearer, farther)) - lowest)
    return torch.stack(path, dim=1)


def _costs_alone(answer: Answer, cost: Tensor, p1: float, p2: float) -> tuple[Tensor, Tensor]:
    return answer(cost, p1, p2), cost


def _first_column(answer: Answer, cost: Tensor, p1: float, p2: float) -> tuple[Tensor, Tensor]:
    return answer(cost, p1, p2)[:, 0], cost[:, 0]


def _bounded(answer: Answer, cost: Tensor, p1: float, p2: float) -> tuple[Tensor, Tensor]:
    extra = answer(cost, p1, p2) - cost
    inside = (extra > -1e-4) & (extra < p2 + 1e-4)
    return inside, torch.ones_like(inside)


SGM_PATH = Exercise(
    name="sgm-path",
    chapter="regularization",
    difficulty=3,
    signature="sgm_path(cost, p1, p2)",
    question=(
        "One path of semi-global matching, from left to right along a row. `cost` is `(D, w)`. Column 0 "
        "stays. In column x, plane j gets its own cost, plus the cheapest way to come there from the result "
        "A of column x - 1: A at the same plane; A at plane j - 1 or j + 1, plus `p1`; or the lowest A of "
        "all planes, plus `p2`. From that, subtract the lowest A of column x - 1, so that the numbers do not "
        "grow. Return `(D, w)`."
    ),
    hint="Four candidates per plane, the smallest wins. The first plane has no plane before it.",
    reference=_sgm_path,
    inputs=_paths,
    laws=(
        Law("The first column stays as it is.", _first_column),
        Law("If jumps are free, the path adds nothing.", _costs_alone, inputs=_free),
        Law("The path adds at least 0 and at most `p2` to each cost.", _bounded, reveal=False),
    ),
)


# pad-to-eight


def _volumes(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    return {"volume": draw.tensor(B, 2, draw.planes, h + 2, w + 3, low=1, high=4)}


def _fitting(draw: Draw) -> dict[str, Any]:
    return {"volume": draw.tensor(1, 1, 8, draw.one_of([8, 16]), 8, low=1, high=4)}


def _pad(volume: Tensor) -> Tensor:
    return pad_to_multiple(volume, 8, dims=3)


def _left_alone(answer: Answer, volume: Tensor) -> tuple[Tensor, Tensor]:
    return answer(volume), volume


def _in_its_corner(answer: Answer, volume: Tensor) -> tuple[Tensor, Tensor]:
    D, h, w = volume.shape[-3:]
    return answer(volume)[..., :D, :h, :w], volume


PAD_TO_EIGHT = Exercise(
    name="pad-to-eight",
    chapter="regularization",
    difficulty=2,
    signature="pad_to_eight(volume)",
    question=(
        "The 3D U-Net halves every size three times. Make `volume`, `(B, C, D, h, w)`, fit: repeat its last "
        "plane, row and column until D, h and w are multiples of 8, and not once more."
    ),
    hint="`-n % 8` is what is missing. `F.pad` wants to hear about the last dimension first.",
    reference=_pad,
    inputs=_volumes,
    laws=(
        Law("A volume that fits stays as it is.", _left_alone, inputs=_fitting),
        Law("The volume itself stays where it was, so that one can crop.", _in_its_corner),
    ),
)


# conv3d-work


def _layers(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    return {
        "inp": draw.one_of([1, 8, 16, 32]),
        "out": draw.one_of([1, 8, 16, 64]),
        "stride": 1 if draw.level < 2 else draw.one_of([1, 2]),
        "size": (draw.planes, h + 2, w + 3),
    }


def _conv3d_work(inp: int, out: int, stride: int, size: tuple[int, int, int]) -> tuple[int, int]:
    weights = 27 * inp * out
    voxels = 1
    for n in size:
        voxels *= -(-n // stride)
    return weights, weights * voxels


def _as_built(answer: Answer, inp: int, out: int, stride: int, size: Any) -> tuple[Any, Any]:
    layer = torch.nn.Conv3d(inp, out, 3, stride, padding=1, bias=False)
    result = layer(torch.zeros(1, inp, *size))
    weights = layer.weight.numel()
    return answer(inp, out, stride, size), (weights, weights * result[0, 0].numel())


CONV3D_WORK = Exercise(
    name="conv3d-work",
    chapter="regularization",
    difficulty=1,
    signature="conv3d_work(inp, out, stride, size)",
    question=(
        "A convolution of 3 x 3 x 3 without bias, padded by 1, reads `inp` channels of `size` (D, h, w) and "
        "writes `out` channels, at every place or, with a `stride` of 2, at every second place of each "
        "dimension, the first included. Return `(weights, multiply_adds)`, two `int`s: how many weights it "
        "has, and how many products it adds up, those with the padding's zeros included."
    ),
    hint="Each number that is written costs as many products as it reads numbers. How many are written?",
    reference=_conv3d_work,
    inputs=_layers,
    laws=(Law("It is what `nn.Conv3d` has and does.", _as_built, reveal=False),),
)


# transposed-convolution


def _signals(draw: Draw) -> dict[str, Any]:
    n = (1, 2, 3, 4, 6)[draw.level]
    return {"x": draw.tensor(n, low=-3, high=3), "kernel": draw.tensor(3, low=-2, high=2)}


def _single(draw: Draw) -> dict[str, Any]:
    return {"x": torch.ones(1), "kernel": draw.tensor(3, low=1, high=4)}


def _transposed(x: Tensor, kernel: Tensor) -> Tensor:
    y = F.conv_transpose1d(x.view(1, 1, -1), kernel.view(1, 1, 3), stride=2, padding=1, output_padding=1)
    return y.flatten()


def _is_the_transpose(answer: Answer, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.zeros(2 * len(x), requires_grad=True)
    strided = F.conv1d(wide.view(1, 1, -1), kernel.view(1, 1, 3), stride=2, padding=1).flatten()
    return answer(x, kernel), gradient((strided * x).sum(), wide)


TRANSPOSED_CONVOLUTION = Exercise(
    name="transposed-convolution",
    chapter="regularization",
    difficulty=3,
    signature="upsample(x, kernel)",
    question=(
        "The transposed convolution of the decoder, in one dimension. `x` has n numbers, `kernel` 3. Every "
        "`x[i]` adds `x[i] * kernel` to three neighbouring places of the result, with the middle one at "
        "place 2 i. What would fall before the first place is dropped. Return the 2 n numbers, in the order "
        "of places."
    ),
    hint="The last x[i] stands at place 2 n - 2, so its right neighbour is the last place of all.",
    reference=_transposed,
    inputs=_signals,
    laws=(
        Law(
            "A single 1 gives the middle and the end of the kernel.",
            lambda answer, x, kernel: (answer(x, kernel), kernel[1:].clone()),
            inputs=_single,
        ),
        Law("It is the transpose of a convolution with stride 2.", _is_the_transpose, reveal=False),
    ),
)

EXERCISES = (SMOOTH_COST, SGM_PATH, PAD_TO_EIGHT, CONV3D_WORK, TRANSPOSED_CONVOLUTION)
