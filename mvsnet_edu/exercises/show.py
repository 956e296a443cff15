"""Values as a reader wants to see them in a counter-example: shape, then short numbers."""

from __future__ import annotations

import builtins
import marshal
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import Tensor

__all__ = ["Formula", "show", "table"]

#: A tensor with more entries than the first number is cut to the second.
LONGEST, BEGINNING = 60, 12


@dataclass(frozen=True)
class Formula:
    """A function that shows its formula, for exercises that are given a function.

    >>> Formula("depth + 1", lambda depth: depth + 1)
    function: depth + 1
    """

    text: str
    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __repr__(self) -> str:
        return f"function: {self.text}"

    def __reduce__(self) -> tuple[Any, ...]:
        """By its code, so that another process can have it; it must use nothing but its arguments."""
        return _rebuilt, (self.text, marshal.dumps(self.function.__code__))


def _rebuilt(text: str, code: bytes) -> Formula:
    return Formula(text, FunctionType(marshal.loads(code), {"__builtins__": vars(builtins)}))


def show(value: Any) -> str:
    """A value in one line.

    >>> import torch
    >>> show(torch.tensor([[0.5, 2.0]]))
    '(1, 2)  [[0.5, 2]]'
    """
    if isinstance(value, Tensor):
        entries = _numbers(value.detach().tolist()) if value.numel() <= LONGEST else _beginning(value)
        return f"{tuple(value.shape)}  {entries}"
    if isinstance(value, (tuple, list)):
        return ", ".join(show(part) for part in value)
    return repr(value)


def table(rows: dict[str, Any]) -> str:
    """Named values, one per line, in columns.

    >>> print(table({"depth_start": 2.0, "num": 4}))
        depth_start  2.0
        num          4
    """
    width = max(map(len, rows))
    return "\n".join(f"    {name:{width}}  {show(value)}" for name, value in rows.items())


def _numbers(value: Any) -> str:
    """Nested lists of numbers, rounded, and 0 for -0."""
    if isinstance(value, list):
        return f"[{', '.join(map(_numbers, value))}]"
    return f"{value + 0.0:.6g}" if isinstance(value, float) else repr(value)


def _beginning(value: Tensor) -> str:
    first = value.detach().flatten()[:BEGINNING].tolist()
    return f"begins with {_numbers(first)}"
