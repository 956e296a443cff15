"""What the examiner and the process of an answer send each other.

Requests are pickled: the examiner wrote them. Replies are JSON with the bytes of tensors, for whoever
unpickles what an answer sent runs what the answer likes.
"""

from __future__ import annotations

import base64
import math
import socket
import struct
import time
from typing import Any

import torch
from torch import Tensor

__all__ = ["LARGEST", "decode", "encode", "receive", "send"]

#: Bytes that a reply may have.
LARGEST = 64 * 1024**2
_LENGTH = struct.Struct("<Q")


def send(channel: socket.socket, message: bytes) -> None:
    """Send a message of any length.

    >>> here, there = socket.socketpair()
    >>> send(here, b"42")
    >>> receive(there)
    b'42'
    """
    channel.sendall(_LENGTH.pack(len(message)) + message)


def receive(channel: socket.socket, deadline: float = math.inf) -> bytes:
    """Wait for a message.

    Args:
        channel: where it comes from.
        deadline: until when to wait, by ``time.monotonic``; it holds for the last byte.

    Raises:
        EOFError: the other end is closed.
        TimeoutError: the deadline is over.
        ValueError: the message is longer than ``LARGEST``.
    """
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size, deadline))
    if length > LARGEST:
        raise ValueError(f"a message of {length} bytes")
    return _exactly(channel, length, deadline)


def _exactly(channel: socket.socket, count: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        if deadline < math.inf:
            channel.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = channel.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def encode(value: Any) -> Any:
    """A value as JSON can hold it; of a value of another kind, the name of the kind.

    >>> encode((1, 0.5, {2}))
    ['tuple', [['int', 1], ['float', 0.5], ['set']]]
    """
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return _encode_tensor(value)
    if isinstance(value, tuple):
        return ["tuple", [encode(part) for part in value]]
    if type(value) is list:
        return ["list", [encode(part) for part in value]]
    if value is None or type(value) in (bool, int, float, str):
        return [kind, value]
    return [kind]


def _encode_tensor(value: Tensor) -> Any:
    flat = value.detach().cpu().contiguous().reshape(-1)
    data = base64.b64encode(flat.view(torch.uint8).numpy().tobytes()).decode()
    return ["Tensor", str(value.dtype).removeprefix("torch."), list(value.shape), value.requires_grad, data]


def decode(value: Any) -> Any:
    """The value that was encoded; one of another kind becomes an empty object of a class of the same name.

    Raises:
        Exception: of any kind, if this is nothing that ``encode`` made.

    >>> decode(encode((torch.tensor([0.5]), "a")))
    (tensor([0.5000]), 'a')
    """
    kind, *rest = value
    if kind == "Tensor":
        return _decode_tensor(*rest)
    if kind in ("tuple", "list") and rest:
        return {"tuple": tuple, "list": list}[kind](map(decode, rest[0]))
    if kind == "NoneType" or rest and type(rest[0]).__name__ == kind:
        return rest[0]
    return type(kind, (), {})() if kind.isidentifier() else None


def _decode_tensor(dtype: str, shape: list[int], carries_gradient: bool, data: str) -> Tensor:
    kind = getattr(torch, dtype)
    raw = bytearray(base64.b64decode(data))
    flat = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
    return flat.reshape(shape).requires_grad_(carries_gradient)
