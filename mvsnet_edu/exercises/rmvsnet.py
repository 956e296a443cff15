"""Exercises of the chapter on R-MVSNet: updating a memory, the class of a pixel, the winner of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# gru-update


def _update(update: Tensor, state: Tensor, proposal: Tensor) -> Tensor:
    return update * state + (1 - update) * proposal


def _memories(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    gate = draw.tensor(B, 2, h, w, low=0, high=1, step=0.25)
    values = {name: draw.tensor(B, 2, h, w, low=-1, high=1, step=0.25) for name in ("state", "proposal")}
    return {"update": gate, **values}


def _gates_at(value: float) -> Callable[[Draw], dict[str, Any]]:
    return lambda draw: {**_memories(draw), "update": torch.full_like(_memories(draw)["update"], value)}


def _keeps(answer: Answer, update: Tensor, state: Tensor, proposal: Tensor) -> tuple[Tensor, Tensor]:
    return answer(update, state, proposal), state


def _takes(answer: Answer, update: Tensor, state: Tensor, proposal: Tensor) -> tuple[Tensor, Tensor]:
    return answer(update, state, proposal), proposal


def _agrees(answer: Answer, update: Tensor, state: Tensor, proposal: Tensor) -> tuple[Tensor, Tensor]:
    return answer(update, state, state), state


GRU_UPDATE = Exercise(
    name="gru-update",
    chapter="rmvsnet",
    difficulty=1,
    signature="gru_update(update, state, proposal)",
    question=(
        "The last step of a cell: the update gate `update`, between 0 and 1, says how much of the memory "
        "`state` stays; `proposal` takes the rest. All three are `(B, F, h, w)`. Return the new memory, "
        "`(B, F, h, w)`."
    ),
    hint="A gate of 1 keeps the memory as it is. A gate of 0 forgets it.",
    reference=_update,
    inputs=_memories,
    laws=(
        Law("A gate of 1 everywhere keeps the memory.", _keeps, inputs=_gates_at(1.0)),
        Law("A gate of 0 everywhere takes the proposal.", _takes, inputs=_gates_at(0.0)),
        Law("If the proposal is the memory itself, nothing changes, whatever the gate.", _agrees),
    ),
)


# plane-class


def _class(ground_truth: Tensor, depth_values: Tensor) -> Tensor:
    step = depth_values[1] - depth_values[0]
    index = ((ground_truth - depth_values[0]) / step).round().long()
    known = (ground_truth > 0) & (index >= 0) & (index < len(depth_values))
    return torch.where(known, index, -1)


def _truths(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    D, start, step = draw.planes, draw.number(4, 8), draw.number(0.5, 2) * draw.one_of([1, 1, -1])
    depth_values = torch.tensor([start + 16 + k * step for k in range(D)])
    places = draw.tensor(B, h, w, low=-1, high=D, step=0.25) + 0.125  # never halfway between two planes
    truth = torch.where(draw.tensor(B, h, w, low=0, high=3, step=1) > 0, start + 16 + places * step, 0.0)
    return {"ground_truth": truth, "depth_values": depth_values}


def _one_scene_on_planes(draw: Draw) -> dict[str, Any]:
    planes = _truths(draw)["depth_values"]
    return {"ground_truth": planes.view(1, 1, -1), "depth_values": planes}


def _nothing_measured(draw: Draw) -> dict[str, Any]:
    inputs = _truths(draw)
    return {**inputs, "ground_truth": torch.zeros_like(inputs["ground_truth"])}


def _counts_up(answer: Answer, ground_truth: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    return answer(ground_truth, depth_values), torch.arange(len(depth_values)).view(1, 1, -1)


def _no_class(answer: Answer, ground_truth: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    return answer(ground_truth, depth_values), torch.full_like(ground_truth, -1).long()


def _turned(answer: Answer, ground_truth: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    there = answer(ground_truth, depth_values)
    back = answer(ground_truth, depth_values.flip(0))
    return torch.where(back < 0, -1, len(depth_values) - 1 - back), there


PLANE_CLASS = Exercise(
    name="plane-class",
    chapter="rmvsnet",
    difficulty=2,
    signature="plane_class(ground_truth, depth_values)",
    question=(
        "The class that classification is to find: for each pixel of the true depth `ground_truth` "
        "`(B, h, w)` the index of the nearest of the evenly spaced planes `depth_values` `(D,)`, which may "
        "ascend or descend. Where the depth was not measured (0), or lies more than half a step beyond the "
        "first or the last plane, there is no class: -1. Return `(B, h, w)`, whole numbers."
    ),
    hint=(
        "How many steps away from the first plane is the truth? The step has a sign. Rounding down is not "
        "rounding to the nearest."
    ),
    reference=_class,
    inputs=_truths,
    laws=(
        Law("Truth on the planes, one by one, counts up from 0.", _counts_up, inputs=_one_scene_on_planes),
        Law("Nothing measured, no class.", _no_class, inputs=_nothing_measured),
        Law("A sweep from the other end finds the same planes: got is its answer, counted back.", _turned),
    ),
)


# running-winner


def _winner(scores: Tensor) -> Tensor:
    return scores.softmax(dim=0).amax(dim=0)


def _planes(draw: Draw) -> dict[str, Any]:
    _, h, w = draw.map_shape
    return {"scores": draw.tensor(draw.planes, h, w, low=-4, high=4)}


def _huge(draw: Draw) -> dict[str, Any]:
    return {"scores": _planes(draw)["scores"] + draw.one_of([-1000.0, 1000.0])}


def _shifted(answer: Answer, scores: Tensor) -> tuple[Tensor, Tensor]:
    return answer(scores + 2), answer(scores)


def _uniform(draw: Draw) -> dict[str, Any]:
    return {"scores": torch.full_like(_planes(draw)["scores"], draw.number(-2, 2))}


def _fair(answer: Answer, scores: Tensor) -> tuple[Tensor, Tensor]:
    return answer(scores), torch.full(scores.shape[1:], 1 / len(scores))


RUNNING_WINNER = Exercise(
    name="running-winner",
    chapter="rmvsnet",
    difficulty=3,
    signature="running_winner(scores)",
    question=(
        "The probability of the most probable plane, as softmax over the planes would give it, "
        "in a loop over the planes of `scores` `(D, h, w)` that keeps two maps only: the best score so far, "
        "and the sum of exp(score - best). A score may be as large as 1,000 and as small as -1,000. Return "
        "`(h, w)`."
    ),
    hint="A better score comes: the sum was measured against the old best. By what factor is it too large?",
    reference=_winner,
    inputs=_planes,
    laws=(
        Law("Of D equal scores, each has probability 1 / D.", _fair, inputs=_uniform),
        Law("Adding the same number to all scores changes nothing: got is with 2 added.", _shifted),
        Law("Huge scores: got is with 1,002 or -998 added, expected with 2 less.", _shifted, inputs=_huge),
    ),
)

EXERCISES = (GRU_UPDATE, PLANE_CLASS, RUNNING_WINNER)
