"""Trying an answer on random inputs until a law breaks, and the shortest counter-example to show for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .draw import LEVELS, Draw
from .exercise import Exercise, Law
from .show import table

__all__ = ["Failure", "Refusal", "examine", "gradient"]

#: Inputs per law and level.
TRIALS = 6


class Refusal(Exception):
    """A call of the answer that no law can judge: it raised, or returned the wrong kind of thing."""

    def __init__(self, reason: str, inputs: dict[str, Any] | None = None):
        super().__init__(reason)
        self.inputs = inputs


@dataclass(frozen=True)
class Failure:
    """Why an answer is wrong.

    Attributes:
        reason: one sentence.
        rows: the counter-example, by name: inputs, got and, where it gives nothing away, expected.
    """

    reason: str
    rows: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.reason}\n{table(self.rows)}" if self.rows else self.reason


def examine(exercise: Exercise, answer: object) -> Failure | None:
    """The first law that an answer breaks, on the shortest input found; None if it breaks none.

    Args:
        exercise: what was asked.
        answer: what came back; should be a function.
    """
    if not callable(answer):
        return Failure(f"The answer must be a function, not {_kind(answer)}.", {})
    for law in exercise.all_laws:
        for level in LEVELS:
            trials = [_try(law, exercise, answer, Draw(level, seed)) for seed in range(TRIALS)]
            failures = [failure for failure in trials if failure]
            if failures:
                return min(failures, key=lambda failure: len(str(failure)))
    return None


def gradient(result: Tensor, with_respect_to: Tensor) -> Tensor:
    """Gradient of the sum of a result, for laws about gradients.

    Raises:
        Refusal: if the result carries none.

    >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
    >>> gradient(x.square(), x)
    tensor([2., 6.])
    """
    if not result.requires_grad:
        raise Refusal("The result carries no gradient; something on the way cuts it off.")
    try:
        (slope,) = torch.autograd.grad(result.sum(), with_respect_to, allow_unused=True)
    except Exception as error:  # an answer may hold a backward step of its own
        raise Refusal(f"The gradient of your function raised {_described(error)}.") from error
    return torch.zeros_like(with_respect_to) if slope is None else slope


def _try(law: Law, exercise: Exercise, answer: Callable[..., Any], draw: Draw) -> Failure | None:
    """One law on one input."""
    inputs = (law.inputs or exercise.inputs)(draw)
    try:
        got, expected = law.sides(_guarded(answer, exercise), **inputs)
    except Refusal as refusal:
        return Failure(str(refusal), inputs if refusal.inputs is None else refusal.inputs)
    if _agree(got, expected):
        return None
    rows = {**inputs, "got": got}
    if law.reveal and _agree(expected, expected):  # a NaN agrees with nothing, and explains nothing
        rows["expected"] = expected
    return Failure(f"This does not hold: {law.says}", rows)


def _guarded(answer: Callable[..., Any], exercise: Exercise) -> Callable[..., Any]:
    """The answer, made to refuse instead of returning something that no law can judge."""
    names = [name.strip() for name in exercise.signature.split("(")[1].rstrip(")").split(",")]

    def call(*inputs: Any) -> Any:
        shown = dict(zip(names, inputs, strict=True))
        copies = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
        try:
            got = answer(*copies)
        except Exception as error:
            raise Refusal(f"Your function raised {_described(error)}.", shown) from error
        complaint = _changed(shown, copies) or _misfit(got, exercise.reference(*inputs))
        if complaint:
            raise Refusal(complaint, shown)
        return got

    return call


def _described(error: Exception) -> str:
    message = str(error).strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _changed(given: dict[str, Any], copies: list[Any]) -> str | None:
    """A complaint if the answer wrote into one of its arguments."""
    for (name, before), after in zip(given.items(), copies, strict=True):
        if isinstance(before, Tensor) and not _identical(before, after):
            return f"Your function changes its argument {name}; the caller may still need it."
    return None


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _misfit(got: Any, expected: Any) -> str | None:
    """A complaint if the result is not even of the right kind."""
    if got is None:
        return f"Your function returned None where {_kind(expected)} is asked for; is there a return?"
    if isinstance(expected, tuple):
        if not isinstance(got, tuple) or len(got) != len(expected):
            return f"Your function returned {_kind(got)} where {_kind(expected)} is asked for."
        return next(filter(None, map(_misfit, got, expected)), None)
    if _kind(got) != _kind(expected):
        return f"Your function returned {_kind(got)} where {_kind(expected)} is asked for."
    return None


def _kind(value: Any) -> str:
    """What a value is, as far as the question fixes it."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _agree(got: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return all(map(_agree, got, expected))
    if isinstance(expected, Tensor):
        # far above float32's rounding, far below half a pixel or half an interval
        return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-4, atol=1e-5)
    return got == expected
