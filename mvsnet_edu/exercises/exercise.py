"""What an exercise is: a question, a hint, and the laws that a right answer obeys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .draw import Draw

__all__ = ["Exercise", "Inputs", "Law"]

#: Makes the arguments of one trial, by name, in the order of the signature.
Inputs = Callable[[Draw], dict[str, Any]]


@dataclass(frozen=True)
class Law:
    """Something that holds for every right answer.

    Attributes:
        says: the law as a sentence; the reader sees it when it is broken.
        sides: (answer, **inputs) -> (got, expected), which must agree.
        inputs: what to try it on; None: the exercise's own inputs.
        reveal: whether the reader may see ``expected``; not where that would be the answer to the question.
    """

    says: str
    sides: Callable[..., tuple[Any, Any]]
    inputs: Inputs | None = None
    reveal: bool = True


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        name: what the reader calls it, in kebab case.
        chapter: the page of the book that asks it.
        difficulty: 1 (one line), 2 (a few lines), 3 (takes thought).
        signature: of the function to write, with argument names.
        question: Markdown.
        hint: a push in the right direction, on request.
        reference: the right answer; called with positional arguments.
        inputs: random arguments.
        laws: the telling ones, tried in this order; that the value equals the reference's is tried last.
    """

    name: str
    chapter: str
    difficulty: int
    signature: str
    question: str
    hint: str
    reference: Callable[..., Any]
    inputs: Inputs
    laws: tuple[Law, ...] = ()

    @property
    def all_laws(self) -> tuple[Law, ...]:
        """The laws, and the value itself."""
        return (*self.laws, Law("The result is what the question asks for.", self._value, reveal=False))

    def _value(self, answer: Callable[..., Any], **inputs: Any) -> tuple[Any, Any]:
        return answer(*inputs.values()), self.reference(*inputs.values())

    def _repr_markdown_(self) -> str:
        check = f'exercises.check("{self.name}", {self.signature.partition("(")[0]})'
        stub = f"```python\ndef {self.signature}:\n    ...\n\n{check}\n```"
        return f"{self._anchor}{self.question}\n\n{stub}\n\n*Difficulty {self.difficulty} of 3.*"

    @property
    def _anchor(self) -> str:
        """Where a link to the exercise, ``CHAPTER.html#exercise-NAME``, leads."""
        return f'<span id="exercise-{self.name}"></span>\n\n'
