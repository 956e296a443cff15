"""An answer that runs in a process of its own, under limits, and looks like a function to the checks."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .wire import decode, receive, send

__all__ = ["RemoteAnswer", "Stopped", "remote_answer"]

#: Seconds for Python and torch to start.
_STARTING = 300.0


class Stopped(BaseException):
    """The process of an answer is lost. Not an Exception: no check may take it for the answer's own."""


class RemoteAnswer:
    """Calls the answer in the other process.

    Args:
        channel: the line to it.

    Attributes:
        started: when its time began to run, by ``time.monotonic``.
    """

    def __init__(self, channel: socket.socket):
        self._channel = channel
        self._calls = 0
        self._limit = _STARTING
        self.started = time.monotonic()

    def start(self, notebook: tuple[Any, ...], memory_limit: int, time_limit: float) -> str | None:
        """Run the cells; a sentence if they define no answer, "" if it is still the empty stub.

        Raises:
            Stopped: the process ended, hung, or sent nonsense.
        """
        self._receive()
        self._limit, self.started = time_limit, time.monotonic()
        self._send(((memory_limit, time_limit, bool(_containment())), notebook))
        reply = self._reply()
        return reply["problem"] if reply.get("problem") is None else str(reply["problem"])[:600]

    def __call__(self, *inputs: Any) -> Any:
        plain = [_alone(value) if isinstance(value, Tensor) else value for value in inputs]
        reply = self._ask("call", pickle.dumps(plain))
        result, changes = self._decoded(reply["result"]), reply["changed"]
        for value, change in zip(inputs, changes, strict=True):
            if change is not None:
                value.data = self._decoded(change)
        self._calls += 1
        leaves = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
        return self._grafted(result, leaves) if leaves else result

    def pull_back(self, call: int, gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs of a call, from those of its results."""
        return self._decoded(self._ask("pull_back", call, pickle.dumps(gradients))["result"])

    def _grafted(self, result: Any, leaves: list[Tensor]) -> Any:
        """The result with its gradient, which another process computes."""
        parts = [part for part in _parts(result) if part.requires_grad]
        if not parts:
            return result
        with_gradient = iter(_Graft.apply(self, self._calls - 1, parts, *leaves))
        return _mapped(result, lambda part: next(with_gradient) if part.requires_grad else part)

    def _ask(self, method: str, *arguments: Any) -> dict[str, Any]:
        self._send((method, arguments))
        reply = self._reply()
        if "raised" in reply:
            name, message = map(str, reply["raised"])
            raise type(name if name.isidentifier() else "Exception", (Exception,), {})(message)
        return reply

    def _reply(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._receive()))
        except (ValueError, TypeError, RecursionError):
            raise Stopped("sent something unreadable") from None

    def _decoded(self, value: Any) -> Any:
        try:
            return decode(value)
        except Exception:
            raise Stopped("sent something unreadable") from None

    def _send(self, message: Any) -> None:
        with self._in_time():
            send(self._channel, pickle.dumps(message))

    def _receive(self) -> bytes:
        with self._in_time() as deadline:
            return receive(self._channel, deadline)

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[float]:
        deadline = self.started + self._limit
        self._channel.settimeout(max(deadline - time.monotonic(), 1e-3))
        try:
            yield deadline
        except TimeoutError:
            raise Stopped(f"took longer than {self._limit:g} seconds") from None
        except (EOFError, OSError):
            raise Stopped("ended its process") from None


class _Graft(torch.autograd.Function):
    """Results of another process; their gradient asks it."""

    @staticmethod
    def forward(ctx: Any, answer: RemoteAnswer, call: int, parts: list[Tensor], *leaves: Tensor) -> Any:
        ctx.answer, ctx.call = answer, call
        return tuple(part.detach() for part in parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None, None, *ctx.answer.pull_back(ctx.call, gradients)


def _alone(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_(value.requires_grad)


def _parts(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [part for item in value for part in _parts(item)] if isinstance(value, (tuple, list)) else []


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(_mapped(item, change) for item in value) if isinstance(value, (tuple, list)) else value


@contextlib.contextmanager
def remote_answer() -> Iterator[RemoteAnswer]:
    """A fresh process in an empty folder; in the end it is killed with all that it started."""
    here, there = socket.socketpair()
    command = [sys.executable, "-m", "mvsnet_edu.exercises.answering", str(there.fileno())]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, here:
        process = subprocess.Popen(
            [*(_containment() or _DECOY), *command],
            cwd=folder,
            env=_environment(folder),
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        there.close()
        try:
            yield RemoteAnswer(here)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


#: A shell between the answer and the examiner: an answer that kills its parent process kills this.
_DECOY = ["/bin/sh", "-c", '"$@"; exit', "sh"]


@cache
def _containment() -> tuple[str, ...]:
    """A command that runs another where it sees no network and no process of ours, if Linux lets us."""
    command = "unshare --user --map-root-user --pid --fork --kill-child --net --mount-proc".split()
    if not shutil.which(command[0]):
        return ()
    works = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return tuple(command) if works else ()


def _environment(folder: str) -> dict[str, str]:
    """Few variables: no credentials, one thread, no windows."""
    passed = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    paths = os.pathsep.join(path for path in sys.path if path)
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "Agg"}
    return {**passed, **threads, "PYTHONPATH": paths, "HOME": folder, "TMPDIR": folder}
