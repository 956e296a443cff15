"""Exercises of the chapter on speed and memory: counting work, the roofline, halos, softmax in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# conv-flops


def _conv_flops(D: int, h: int, w: int, inp: int, out: int, stride: int) -> int:
    voxels = 1
    for size in (D, h, w):
        voxels *= -(-size // stride)
    return 2 * 27 * inp * out * voxels


def _convolutions(draw: Draw) -> dict[str, Any]:
    largest = (1, 2, 3, 5, 9)[draw.level]
    sizes = {name: draw.whole(1, largest) for name in ("D", "h", "w")}
    channels = {name: draw.whole(1, largest) for name in ("inp", "out")}
    return {**sizes, **channels, "stride": draw.one_of([1, 2])}


def _one_voxel(answer: Answer, inp: int, out: int, **_: Any) -> tuple[int, int]:
    return answer(1, 1, 1, inp, out, 1), 54 * inp * out


def _half_the_size(answer: Answer, D: int, h: int, w: int, inp: int, out: int, **_: Any) -> tuple[int, int]:
    return answer(2 * D, 2 * h, 2 * w, inp, out, 2), answer(D, h, w, inp, out, 1)


CONV_FLOPS = Exercise(
    name="conv-flops",
    chapter="speed",
    difficulty=1,
    signature="conv_flops(D, h, w, inp, out, stride)",
    question=(
        "The floating-point operations of a 3 × 3 × 3 convolution with padding 1, the given `stride` and no "
        "bias, which makes `out` channels of `inp`. Its input has `D` × `h` × `w` voxels. A multiplication "
        "and an addition count as two operations, and taps on the padding count like any others. Return "
        "an `int`."
    ),
    hint="Every entry of the result costs the same. With stride 2, odd sizes are rounded up.",
    reference=_conv_flops,
    inputs=_convolutions,
    laws=(
        Law("One voxel of the result costs 2 · 27 · inp · out operations.", _one_voxel),
        Law("Twice the size at stride 2 costs as much as the size at stride 1.", _half_the_size),
    ),
)


# roofline


def _roofline(flops: float, moved: float, peak: float, bandwidth: float) -> float:
    return max(flops / peak, moved / bandwidth)


def _programs(draw: Draw) -> dict[str, Any]:
    """Powers of two, so that every right formula gives the same bits."""
    power = lambda low, high: 2.0 ** draw.whole(low, high)  # noqa: E731
    flops, moved = power(0, 4 + draw.level) * draw.whole(1, 3), power(0, 4 + draw.level)
    return {"flops": flops, "moved": moved, "peak": power(3, 7), "bandwidth": power(0, 4)}


def _a_copy(answer: Answer, moved: float, bandwidth: float, peak: float, **_: Any) -> tuple[float, float]:
    return answer(0.0, moved, peak, bandwidth), moved / bandwidth


def _in_registers(answer: Answer, flops: float, bandwidth: float, peak: float, **_: Any) -> tuple:
    return answer(flops, 0.0, peak, bandwidth), flops / peak


def _a_faster_machine(answer: Answer, flops: float, moved: float, peak: float, bandwidth: float) -> tuple:
    return answer(flops, moved, 2 * peak, 2 * bandwidth), answer(flops, moved, peak, bandwidth) / 2


ROOFLINE = Exercise(
    name="least-time",
    chapter="speed",
    difficulty=1,
    signature="roofline(flops, moved, peak, bandwidth)",
    question=(
        "The least time, in seconds, that a program can take which does `flops` GFLOP of arithmetic and "
        "moves `moved` GB, on a machine that does `peak` GFLOP/s and moves `bandwidth` GB/s *at the same "
        "time*. All are `float`; either of the first two may be 0. Return a `float`."
    ),
    hint="Two queues that are served side by side: the program is done when both of them are.",
    reference=_roofline,
    inputs=_programs,
    laws=(
        Law("Without arithmetic, it is a copy.", _a_copy),
        Law("Without traffic, it is arithmetic alone.", _in_registers),
        Law("A machine with twice of both takes half the time.", _a_faster_machine),
    ),
)


# planes-needed


def _planes_needed(first: int, last: int, stride: int, num: int) -> tuple[int, int]:
    return max(first * stride - 1, 0), min(last * stride - stride + 2, num)


def _slabs(draw: Draw) -> dict[str, Any]:
    stride = draw.one_of([1, 2])
    planes = (1, 2, 4, 6, 12)[draw.level]  # of the result
    first = draw.whole(0, planes - 1)
    return {"first": first, "last": draw.whole(first + 1, planes), "stride": stride, "num": planes * stride}


def _suffices(answer: Answer, first: int, last: int, stride: int, num: int) -> tuple[Tensor, Tensor]:
    """What a convolution says when all the planes that were not asked for are blanked out."""
    begin, end = answer(first, last, stride, num)
    x = torch.arange(1.0, num + 1)
    blanked = torch.where((torch.arange(num) >= begin) & (torch.arange(num) < end), x, torch.zeros(num))
    results = [
        torch.nn.functional.conv1d(each[None, None], torch.ones(1, 1, 3), stride=stride, padding=1)
        for each in (blanked, x)
    ]
    return tuple(result[0, 0, first:last] for result in results)


def _whole(answer: Answer, stride: int, num: int, **_: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    return answer(0, num // stride, stride, num), (0, num)


PLANES_NEEDED = Exercise(
    name="planes-needed",
    chapter="speed",
    difficulty=2,
    signature="planes_needed(first, last, stride, num)",
    question=(
        "A convolution with three taps in depth, padding 1 and stride 1 or 2 is streamed. Its input has "
        "`num` planes, a multiple of the stride. Which planes of the input must be there for the planes "
        "`first` to `last` of the result (`last` not included)? Return two `int`, the first one needed "
        "and the one after the last, as in a slice; no more than needed, and none that do not exist."
    ),
    hint="Plane j of the result reads planes j · stride − 1, j · stride and j · stride + 1, if they exist.",
    reference=_planes_needed,
    inputs=_slabs,
    laws=(
        Law("The planes asked for suffice: blanking the others changes nothing in the result.", _suffices),
        Law("For the whole result the whole input is needed, and nothing beyond it.", _whole),
    ),
)


# one-pass-soft-argmin


def _one_pass(costs: Tensor, depths: Tensor) -> Tensor:
    return (torch.softmax(-costs, 0) * depths[:, None, None]).sum(0)


def _sweeps(draw: Draw) -> dict[str, Any]:
    _, h, w = draw.map_shape
    costs = draw.tensor(draw.planes, h, w, low=-4, high=4)
    return {"costs": costs, "depths": 2 + 0.5 * torch.arange(draw.planes)}


def _offset(answer: Answer, costs: Tensor, depths: Tensor) -> tuple:
    alone = answer(costs, depths)
    return (answer(costs - 512, depths), answer(costs + 512, depths)), (alone, alone)


def _backwards(answer: Answer, costs: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    return answer(costs.flip(0), depths.flip(0)), answer(costs, depths)


def _each_plane_once(answer: Answer, costs: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Planes come out of a generator: those that went by are gone."""
    return answer(costs, depths), _one_pass(costs, depths)


def _improving(draw: Draw) -> dict[str, Any]:
    """Costs that sink by hundreds on the way, so that every plane is the best so far."""
    drawn = _sweeps(draw)
    return {**drawn, "costs": drawn["costs"] - 256 * torch.arange(draw.planes)[:, None, None]}


ONE_PASS = Exercise(
    name="one-pass-soft-argmin",
    chapter="speed",
    difficulty=3,
    signature="one_pass_soft_argmin(costs, depths)",
    question=(
        "Soft argmin that sees each plane once: `costs` is `(D, h, w)`, `depths` is `(D,)`; return the "
        "expected depth `(h, w)` under softmax(−cost). Write a loop over the planes that keeps no more "
        "than three maps `(h, w)`: the lowest cost so far, the sum of the weights, and the sum of "
        "weights times depths. Costs may be hundreds below 0, where `exp(-cost)` overflows."
    ),
    hint=(
        "Weigh against the lowest cost so far. When a plane sets a new record, what was summed up before was "
        "weighed against the old one: multiply it by exp(new − old)."
    ),
    reference=_one_pass,
    inputs=_sweeps,
    laws=(
        Law("Costs that are all lower, or all higher, by 512 give the same depth.", _offset),
        Law("The order in which the planes come by does not matter.", _backwards),
        Law("Each plane sets a record of hundreds.", _each_plane_once, inputs=_improving, reveal=False),
    ),
)

EXERCISES = (CONV_FLOPS, ROOFLINE, PLANES_NEEDED, ONE_PASS)
