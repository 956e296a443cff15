"""Marks for the answers in a notebook, unattended: each answer runs in a process of its own."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.formats import file_size, reason
from ..errors import InputError
from .checking import examine
from .exercise import Exercise
from .remote import RemoteAnswer, Stopped, remote_answer

__all__ = ["Grades", "Mark", "asked_in", "code_cells", "mark", "read_notebook"]

#: More than any notebook has.
MOST_BYTES = 1 << 27


@dataclass(frozen=True)
class Mark:
    """What became of one answer.

    Attributes:
        exercise: its name.
        chapter: where the book asks it.
        verdict: "right", "wrong", "stopped" (it took too long, or its process ended) or "missing".
        points: the exercise's difficulty if it is right, else 0.
        of: the points for a right answer.
        said: what :func:`check` would say to the student, in a sentence, with the counter-example.
        seconds: how long it took, without the start of the process.
    """

    exercise: str
    chapter: str
    verdict: str
    points: int
    of: int
    said: str
    seconds: float


@dataclass(frozen=True)
class Grades:
    """Marks of a notebook; printed, they are a table.

    Attributes:
        notebook: the file.
        marks: one for each exercise, in the order of the notebook.
    """

    notebook: str
    marks: tuple[Mark, ...]

    @property
    def points(self) -> int:
        """Points of all right answers."""
        return sum(mark.points for mark in self.marks)

    @property
    def of(self) -> int:
        """Points that could be had."""
        return sum(mark.of for mark in self.marks)

    def json(self) -> str:
        """All of it, for a spreadsheet or another program."""
        everything = {**asdict(self), "points": self.points, "of": self.of}
        text = json.dumps(everything, indent=1, ensure_ascii=False)
        return text.encode(errors="backslashreplace").decode()  # halves of letters, as JSON writes them

    def __str__(self) -> str:
        width = max(len(mark.exercise) for mark in self.marks)
        rows = [
            f"  {mark.exercise:{width}}  {mark.points}/{mark.of}  {mark.verdict:8}"
            f"{mark.seconds:5.1f} s  {mark.said.splitlines()[0] if mark.said else ''}".rstrip()
            for mark in self.marks
        ]
        return "\n".join([f"{self.notebook}: {self.points} of {self.of} points", *rows])


def read_notebook(path: str | Path) -> dict[str, Any]:
    """A notebook's JSON, if it is one.

    Raises:
        InputError: if it cannot be read, or is no notebook.
    """
    file_size(Path(path), MOST_BYTES)
    try:
        notebook = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a whole notebook: {reason(error)}.") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise InputError(f"{path} is no notebook of format 4: it has no list of cells.")
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[str]:
    """Source of the code cells, in order.

    >>> code_cells({"cells": [{"cell_type": "code", "source": ["a = 1\\n", "b = 2"]}, {"cell_type": "raw"}]})
    ['a = 1\\nb = 2']
    """
    sources = [cell.get("source", "") for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    return ["".join(map(str, source)) if isinstance(source, list) else str(source) for source in sources]


def asked_in(notebook: dict[str, Any]) -> list[str]:
    """Exercises of a notebook: those that it was made for, else those that its cells check.

    >>> asked_in({"cells": [{"cell_type": "code", "source": "exercises.check('less-k', f)"}]})
    ['less-k']
    """
    metadata = notebook.get("metadata")
    made_for = metadata.get("mvsnet_edu") if isinstance(metadata, dict) else None
    if isinstance(made_for, list):
        return list(dict.fromkeys(map(str, made_for)))  # none counts twice
    checks = re.findall(r"""\bcheck\(\s*["']([\w-]+)["']""", "\n".join(code_cells(notebook)))
    return list(dict.fromkeys(checks))


def mark(exercise: Exercise, cells: Sequence[str], time_limit: float, memory_limit: int) -> Mark:
    """Mark one answer.

    Args:
        exercise: what was asked.
        cells: source of the notebook's code cells.
        time_limit: seconds for running its cells and all checks.
        memory_limit: bytes that its process may take, beyond those of Python and torch.

    Raises:
        InputError: on Windows.
    """
    if os.name != "posix":
        raise InputError("Grading needs the process limits of Linux or macOS; on Windows, use WSL.")
    function = exercise.signature.split("(")[0]
    started = time.monotonic()
    with remote_answer() as answer:
        try:
            problem = answer.start((list(cells), exercise.name, function), memory_limit, time_limit)
            started = answer.started
            verdict, said = _judged(exercise, answer, problem)
        except Stopped as stopped:
            verdict, said = "stopped", f"The answer {stopped}."
    points = exercise.difficulty if verdict == "right" else 0
    seconds = round(time.monotonic() - started, 2)
    return Mark(exercise.name, exercise.chapter, verdict, points, exercise.difficulty, said, seconds)


def _judged(exercise: Exercise, answer: RemoteAnswer, problem: str | None) -> tuple[str, str]:
    if problem is not None:
        return "missing", problem or "Nothing was written."
    try:
        failure = examine(exercise, answer)
    except Exception as error:  # a result that no law foresaw
        return "wrong", f"The result cannot be judged: {type(error).__name__}."
    return ("wrong", str(failure)) if failure else ("right", "")
