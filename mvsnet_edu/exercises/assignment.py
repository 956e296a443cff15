"""Assignment notebooks: questions, empty stubs, and cells that check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.formats import atomic_write
from .exercise import Exercise

__all__ = ["assignment", "write_assignment"]

_ABOUT = """# Exercises

Write a body for each function, run its cell, and then the cell that checks it: that tries the function on
random inputs and shows the shortest one on which it fails. `exercises.hint(name)` gives a push,
`exercises.report()` shows what is solved. You may add cells with functions of your own. Leave the names of
the asked functions, and the cells that check, as they are."""
_SETUP = """import math

import torch

from mvsnet_edu import exercises"""


def assignment(chosen: Sequence[Exercise]) -> dict[str, Any]:
    """A notebook that asks these exercises.

    Args:
        chosen: the exercises, in the order to ask them.

    Returns:
        The notebook as JSON holds it; its metadata list the exercises, for whoever marks it.
    """
    cells = [_text("about", _ABOUT), _code("setup", _SETUP)]
    for number, exercise in enumerate(chosen, start=1):
        function = exercise.signature.split("(")[0]
        title = f"## {number}. {exercise.name} {'*' * exercise.difficulty}"
        cells += [
            _text(f"ask-{exercise.name}", f"{title}\n\n{exercise.question}"),
            _code(f"answer-{exercise.name}", f"def {exercise.signature}:\n    ..."),
            _code(f"check-{exercise.name}", f'exercises.check("{exercise.name}", {function})'),
        ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "mvsnet_edu": [exercise.name for exercise in chosen]}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(name: str, source: str) -> dict[str, Any]:
    return {**_text(name, source), "cell_type": "code", "execution_count": None, "outputs": []}


def write_assignment(path: str | Path, chosen: Sequence[Exercise]) -> Path:
    """Write :func:`assignment` to a file.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write((json.dumps(assignment(chosen), indent=1, ensure_ascii=False) + "\n").encode())
    return Path(path)
