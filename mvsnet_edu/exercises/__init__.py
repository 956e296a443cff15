"""Exercises that check themselves: write a function, and :func:`check` tries it on random inputs.

>>> from mvsnet_edu import exercises, scale_intrinsics
>>> exercises.check("scale-intrinsics", scale_intrinsics)
✓ scale-intrinsics: right, on all 90 inputs tried.
True
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from . import (
    cameras,
    conventions,
    cost_volume,
    features,
    fusion,
    homographies,
    loss,
    photos,
    refinement,
    regression,
    regularization,
    rmvsnet,
    speed,
    testing,
    training,
    views,
    welcome,
)
from .assignment import write_assignment
from .checking import TRIALS, examine
from .draw import LEVELS
from .exercise import Exercise
from .grading import Grades, asked_in, code_cells, mark, read_notebook

__all__ = ["check", "export", "grade", "hint", "names", "report", "statement"]

_EXERCISES = {
    exercise.name: exercise
    for chapter in (
        welcome,
        conventions,
        cameras,
        views,
        features,
        homographies,
        cost_volume,
        regularization,
        regression,
        refinement,
        loss,
        training,
        rmvsnet,
        testing,
        fusion,
        photos,
        speed,
    )
    for exercise in chapter.EXERCISES
}
_solved: set[str] = set()


def names() -> list[str]:
    """All exercises, in the book's order.

    >>> names()[0]
    'count-planes'
    """
    return list(_EXERCISES)


def statement(name: str) -> Exercise:
    """An exercise as the book asks it; a notebook shows it as text.

    Args:
        name: out of :func:`names`.

    Raises:
        InputError: if there is no such exercise.

    >>> statement("soft-argmin").signature
    'soft_argmin(cost, depth_values)'
    """
    if name not in _EXERCISES:
        raise InputError(_unknown(name))
    return _EXERCISES[name]


def check(name: str, answer: object) -> bool:
    """Try an answer on random inputs; print that it is right, or the shortest input found on which it is not.

    Args:
        name: out of :func:`names`.
        answer: the function that the exercise asks for; it is called with positional arguments.

    Returns:
        whether every law held.

    Raises:
        InputError: if there is no such exercise. Whatever the answer does is printed, not raised.

    >>> check("camera-center", lambda extrinsics: extrinsics[:3, 3])  # doctest: +ELLIPSIS
    ✗ camera-center: not yet. This does not hold: ...
        extrinsics  (4, 4)  ...
        got         (3,)  ...
        expected    (3,)  [0, 0, 0]
    Stuck? exercises.hint("camera-center")
    False
    """
    exercise = statement(name)
    failure = examine(exercise, answer)
    if failure:
        print(f'✗ {name}: not yet. {failure}\nStuck? exercises.hint("{name}")')
        return False
    _solved.add(name)
    tried = len(exercise.all_laws) * len(LEVELS) * TRIALS
    print(f"✓ {name}: right, on all {tried} inputs tried.")
    return True


def hint(name: str) -> None:
    """Print a push in the right direction.

    Args:
        name: out of :func:`names`.

    Raises:
        InputError: if there is no such exercise.

    >>> hint("count-planes")
    Count the fence posts, not the gaps; and look at what int() does to 2.9999999999999996.
    """
    print(statement(name).hint)


def report() -> None:
    """Print all exercises, chapter by chapter, with a tick at those solved since Python started.

    >>> report()  # doctest: +ELLIPSIS
    Solved: ... of ...
    welcome
    ...
    """
    print(f"Solved: {len(_solved)} of {len(_EXERCISES)}")
    chapter = None
    for exercise in _EXERCISES.values():
        if exercise.chapter != chapter:
            chapter = exercise.chapter
            print(chapter)
        print(f"  {'✓' if exercise.name in _solved else '·'} {exercise.name} {'*' * exercise.difficulty}")


def export(
    path: str | Path, names: Sequence[str] | None = None, chapters: Sequence[str] | None = None
) -> Path:
    """Write an assignment: a notebook with the questions, empty stubs, and cells that check them.

    Args:
        path: the notebook to write.
        names: the exercises to ask, in this order; by default all, in the book's.
        chapters: only those of these chapters.

    Returns:
        The path.

    Raises:
        InputError: if there is no such exercise or chapter, or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(f"{folder}/week1.ipynb", chapters=["loss"]).name
    'week1.ipynb'
    """
    known = dict.fromkeys(exercise.chapter for exercise in _EXERCISES.values())
    for chapter in chapters or ():
        if chapter not in known:
            raise InputError(f"there is no chapter {chapter!r} with exercises; there are {', '.join(known)}")
    chosen = [statement(name) for name in _EXERCISES if names is None] or [*map(statement, names or ())]
    return write_assignment(path, [e for e in chosen if chapters is None or e.chapter in chapters])


def grade(
    notebook: str | Path,
    names: Sequence[str] | None = None,
    *,
    time_limit: float = 60.0,
    memory_limit: int = 2 * 10**9,
) -> Grades:
    """Mark the answers in a notebook, unattended, whatever they do.

    Each answer gets a process of its own, which runs the cells that it needs and no others. It can loop,
    raise, exit, take all memory or change Python as it likes: the checks run here, and only inputs and
    results pass between. Where Linux allows it, that process sees no network and no other process. It can
    read the files that you can, and it can call this package's own functions: look at what you mark.

    Args:
        notebook: the file.
        names: the exercises to mark; by default those that :func:`export` wrote into the notebook, else those
            that its cells check. Give them where a student may have taken some out.
        time_limit: seconds for each answer.
        memory_limit: bytes for each answer, beyond those of Python and torch.

    Returns:
        Marks; a right answer is worth its difficulty. Printed, they are a table.

    Raises:
        InputError: if this is no notebook, or asks no exercise, or one that there is not; on Windows.
    """
    content = read_notebook(notebook)
    try:
        chosen = [*map(statement, asked_in(content) if names is None else names)]
    except InputError as error:
        raise InputError(f"{notebook}: {error}") from None
    if not chosen:
        raise InputError(f"{notebook} has no exercise: no cell calls exercises.check.")
    cells = code_cells(content)
    return Grades(str(notebook), tuple(mark(e, cells, time_limit, memory_limit) for e in chosen))


def _unknown(name: str) -> str:
    name = name[:80]
    near = difflib.get_close_matches(name, _EXERCISES, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "exercises.names() lists them all"
    return f"there is no exercise {name!r}; {advice}"
