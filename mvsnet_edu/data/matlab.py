"""Arrays of numbers out of MATLAB's files, as DTU brings them.

SciPy reads far more, but a damaged file can end its process; here it is an error like any other.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from .formats import file_size, reason

__all__ = ["read_mat"]

ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
MOST_BYTES = 1 << 28  # of one array, unpacked
MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MEANT = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = 0x800


def read_mat(path: str | Path) -> dict[str, np.ndarray]:
    """Read the real arrays of a file that MATLAB's ``save`` wrote, from version 5 on, but not -v7.3.

    Args:
        path: the file.

    Returns:
        arrays by name; what is no array of real numbers is left out.

    Raises:
        InputError: the file cannot be read, is of another kind, or is damaged.

    Source: MathWorks, "MAT-File Format", chapter 1.

    >>> from tempfile import TemporaryDirectory
    >>> from scipy.io import savemat
    >>> with TemporaryDirectory() as folder:
    ...     savemat(f"{folder}/a.mat", {"P": [[1.0, 2, 3], [4, 5, 6]]})
    ...     read_mat(f"{folder}/a.mat")["P"].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    path = Path(path)
    file_size(path)
    try:
        content = path.read_bytes()
        order = ORDERS.get(content[124:128])
        if order is None:
            raise ValueError("it does not begin like one of version 5 to 7")
        return dict(filter(None, (_array(*element, order) for element in _elements(content[128:], order))))
    except (OSError, ValueError, IndexError, struct.error, zlib.error, MemoryError) as error:
        raise InputError(f"{path} cannot be read as a MATLAB file: {reason(error)}.") from error


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Kind and content of what stands one after the other."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, behind = at + 8, -size % 8 if kind != COMPRESSED else 0
        if kind >> 16:  # a content of up to four bytes takes the place of its size
            kind, size, start, behind = kind & 0xFFFF, kind >> 16, at + 4, 4 - (kind >> 16)
        at = start + size + behind
        if behind < 0 or start + size > len(data):
            raise ValueError("it is cut off")
        yield kind, data[start : start + size]


def _array(kind: int, data: bytes, order: str) -> tuple[str, np.ndarray] | None:
    """Name and values; None for what is no array of real numbers."""
    if kind == COMPRESSED:
        ((kind, data),) = _elements(_unpacked(data), order)
    parts = list(_elements(data, order)) if kind == MATRIX else []
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1]) if parts else (0,)
    if flags & 0xFF not in MEANT or flags & COMPLEX:
        return None
    _, (_, dims), (_, name), (stored, values) = parts
    if stored not in STORED:
        raise ValueError(f"it has numbers of the unknown kind {stored}")
    shape = np.frombuffer(dims, f"{order}i4")
    numbers = np.frombuffer(values, order + STORED[stored])
    if (shape < 0).any() or math.prod(shape.tolist()) != len(numbers):
        raise ValueError("it has an array of another size than it says")
    return name.decode("ascii"), numbers.astype(MEANT[flags & 0xFF]).reshape(shape, order="F")


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(data, MOST_BYTES)
    if not unpacker.eof:
        raise ValueError("it is cut off, or too large")
    return content
