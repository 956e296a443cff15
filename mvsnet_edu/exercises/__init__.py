"""Exercises that check themselves: write a function, and :func:`check` tries it on random inputs.

>>> from mvsnet_edu import exercises, scale_intrinsics
>>> exercises.check("scale-intrinsics", scale_intrinsics)
✓ scale-intrinsics: right, on all 90 inputs tried.
True
"""

from __future__ import annotations

import difflib

from ..errors import InputError
from . import (
    conventions,
    cost_volume,
    features,
    fusion,
    loss,
    photos,
    refinement,
    regression,
    regularization,
    speed,
    testing,
    training,
    views,
    welcome,
)
from .checking import TRIALS, examine
from .draw import LEVELS
from .exercise import Exercise

__all__ = ["check", "hint", "names", "report", "statement"]

_EXERCISES = {
    exercise.name: exercise
    for chapter in (
        welcome,
        conventions,
        views,
        features,
        cost_volume,
        regularization,
        regression,
        refinement,
        loss,
        training,
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
    """Try an answer on random inputs; print that it is right, or the shortest input on which it is not.

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


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _EXERCISES, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "exercises.names() lists them all"
    return f"there is no exercise {name!r}; {advice}"
