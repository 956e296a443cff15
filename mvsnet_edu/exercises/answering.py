"""The process in which one answer of a notebook runs: ``python -m mvsnet_edu.exercises.answering``.

It defines the answer by running the cells it needs, and calls it on the inputs that come in. What it sends
back is believed by nobody: the examiner, in another process, judges it.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
import socket
import symtable
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .wire import encode, receive, send

__all__ = ["Cell", "answer_of", "main", "needed"]


@dataclass(frozen=True)
class Cell:
    """A cell without its magics and its checks.

    Attributes:
        source: Python.
        binds: names that it gives a meaning to.
        uses: names that it looks up.
        stars: whether it imports everything from somewhere.
        checks: the expression that was checked, by the name of the exercise.
        stubs: functions whose body is an ellipsis.
    """

    source: str
    binds: frozenset[str]
    uses: frozenset[str]
    stars: bool
    checks: dict[str, str]
    stubs: frozenset[str]

    @classmethod
    def of(cls, source: str) -> Cell | None:
        """Take a cell apart; None if it is no Python.

        >>> cell = Cell.of("%matplotlib inline\\nassert exercises.check('less-k', f)\\ny = g(x)")
        >>> cell.source, cell.checks, sorted(cell.binds), sorted(cell.uses)
        ('y = g(x)', {'less-k': 'f'}, ['y'], ['g', 'x'])
        """
        body = _parsed(source) or _parsed(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE))
        if body is None:
            return None
        checks = {name: ast.unparse(answer) for part in body for name, answer in _checks(part)}
        kept = ast.Module([part for part in body if not any(_checks(part))], [])
        source = ast.unparse(kept)
        binds, uses = _names(symtable.symtable(source, "cell", "exec"))
        stars = any(isinstance(part, ast.ImportFrom) and part.names[0].name == "*" for part in body)
        return cls(source, frozenset(binds), frozenset(uses), stars, checks, frozenset(_stubs(body)))


def _parsed(source: str) -> list[ast.stmt] | None:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # zero bytes, a thousand brackets
        return None


def _checks(part: ast.stmt) -> Iterable[tuple[str, ast.expr]]:
    """Calls of ``exercises.check`` or ``check`` outside functions: the exercise's name and the answer."""
    for node in () if isinstance(part, (ast.FunctionDef, ast.ClassDef)) else ast.walk(part):
        if isinstance(node, ast.Call) and len(node.args) == 2 and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called == "check":
                yield str(node.args[0].value), node.args[1]


def _stubs(body: list[ast.stmt]) -> Iterable[str]:
    for part in body:
        if isinstance(part, ast.FunctionDef) and [ast.unparse(line) for line in part.body] == ["..."]:
            yield part.name


def _names(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Global names that code binds, and those that it uses, in functions too."""
    is_top = table.get_type() == "module"
    of_module = [symbol for symbol in table.get_symbols() if is_top or symbol.is_global()]
    binds = {s.get_name() for s in of_module if s.is_assigned() or s.is_imported()}
    uses = {s.get_name() for s in of_module if s.is_referenced()}
    for inner in table.get_children():
        more_binds, more_uses = _names(inner)
        binds, uses = binds | more_binds, uses | more_uses
    return binds, uses


def needed(cells: list[Cell], expression: str) -> list[Cell]:
    """The cells that give a meaning to what an expression uses, and to what these cells use, and so on.

    >>> cells = [Cell.of(text) for text in ("a = 1", "while True: b = 2", "def f(): return a")]
    >>> [cell.source for cell in needed(cells, "f")]
    ['a = 1', 'def f():\\n    return a']
    """
    _, wanted = _names(symtable.symtable(expression, "answer", "exec"))
    taken = {k for k, cell in enumerate(cells) if cell.stars}
    while more := {k for k, cell in enumerate(cells) if cell.binds & wanted} - taken:
        taken |= more
        wanted = wanted.union(*(cells[k].uses for k in more))
    return [cells[k] for k in sorted(taken)]


def answer_of(sources: list[str], exercise: str, function: str) -> Callable[..., Any] | str:
    """Run what is needed and return the answer, or say in a sentence why there is none."""
    cells = [cell for cell in map(Cell.of, sources) if cell]
    expression = {name: text for cell in cells for name, text in cell.checks.items()}.get(exercise, function)
    defining = [cell for cell in cells if expression in cell.binds]
    if expression.isidentifier() and not defining:
        return f"The notebook has no function {expression} that Python can read."
    if defining and expression in defining[-1].stubs:
        return ""
    trouble, names = "", {"__name__": "__main__"}
    for cell in needed(cells, expression):
        trouble = _run(cell.source, names) or trouble
    try:
        return eval(expression, names)
    except BaseException as error:
        return f"There is no {expression}: {trouble or _said(error)}."


def _run(source: str, names: dict[str, Any]) -> str:
    """Run a cell; what it raised, if it raised."""
    try:
        exec(compile(source, "cell", "exec"), names)
    except BaseException as error:
        return f"its cell raised {_said(error)}"
    return ""


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0].rstrip(":. ")[:300]


class _Answer:
    """Calls the answer, and keeps the graph of each call for its gradient."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._graphs: list[tuple[list[Tensor], list[Tensor]]] = []

    def call(self, pickled: bytes) -> dict[str, Any]:
        """Result, and what became of the inputs."""
        inputs, before = pickle.loads(pickled), pickle.loads(pickled)
        given = [x.clone() if isinstance(x, Tensor) and x.requires_grad else x for x in inputs]
        result = self._function(*given)
        reply = {"result": encode(result), "changed": [*map(_change, before, given)]}
        leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        self._graphs.append((leaves, [part for part in _tensors(result) if part.requires_grad]))
        return reply

    def pull_back(self, call: int, gradients: bytes) -> dict[str, Any]:
        """Gradient of the leaves of a call, from the gradient of its results."""
        leaves, results = self._graphs[call]
        slopes = torch.autograd.grad(
            results, leaves, pickle.loads(gradients), allow_unused=True, retain_graph=True
        )
        return {"result": encode(tuple(slopes))}


def _change(before: Any, after: Any) -> Any:
    """What an input became, encoded, if the answer wrote into it."""
    if not isinstance(before, Tensor):
        return None
    is_same = before.shape == after.shape and torch.allclose(before, after, rtol=0, atol=0, equal_nan=True)
    return None if is_same else encode(after.detach())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [part for item in value for part in _tensors(item)] if isinstance(value, (tuple, list)) else []


def _limit(memory: int, seconds: float, contained: bool) -> None:
    """Bound what this process can take: memory beyond what it has now, time, files, processes, core dumps."""
    import resource

    limits = {"CPU": int(time.process_time() + seconds) + 2, "FSIZE": 16 * 1024**2, "CORE": 0}
    if Path("/proc/self/statm").exists():
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits["AS"] = now + memory
    limits |= {"NPROC": 64} if contained else {}
    for name, most in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def main(descriptor: int) -> None:
    """Serve an examiner until it hangs up."""
    channel = socket.socket(fileno=descriptor)
    send(channel, b"ready")
    limits, notebook = pickle.loads(receive(channel))
    _limit(*limits)
    function = answer_of(*notebook)
    send(channel, json.dumps({"problem": function if isinstance(function, str) else None}).encode())
    answer = _Answer(function)
    while True:
        method, arguments = pickle.loads(receive(channel))
        try:
            reply = json.dumps(getattr(answer, method)(*arguments))
        except BaseException as error:
            reply = json.dumps({"raised": [type(error).__name__, str(error)[:2000]]})
        send(channel, reply.encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
