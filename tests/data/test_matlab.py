"""MATLAB's files: what SciPy writes comes back, and what damages them is said."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from mvsnet_edu.data.matlab import read_mat
from mvsnet_edu.errors import InputError

KINDS = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_scipy_writes_comes_back(tmp_path, kind, packed):
    values = np.random.default_rng(0).integers(0, 100, (3, 1, 5)).astype(kind)
    names = {"a": values, "Ab_1": values[0, 0, :1], "a_name_of_many_letters": values[..., :0], "text": "no"}
    savemat(tmp_path / "a.mat", names, do_compression=packed)
    read = read_mat(tmp_path / "a.mat")
    assert list(read) == ["a", "Ab_1", "a_name_of_many_letters"]
    assert read["a"].dtype == values.dtype and np.array_equal(read["a"], values)
    assert read["Ab_1"].shape == (1, 1) and read["a_name_of_many_letters"].shape == (3, 1, 0)


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def file_of(*elements: bytes, order: str = "<") -> bytes:
    return b"MATLAB".ljust(124) + {"<": b"\0\1IM", ">": b"\1\0MI"}[order] + b"".join(elements)


def matrix(order: str = "<", stored: int = 2, shape=(2, 3), values: bytes = bytes(range(6))) -> bytes:
    """An array of float64, stored as bytes: MATLAB saves what is whole and small in fewer bytes."""
    small = struct.pack(f"{order}I", 1 + (1 << 16)) + b"P\0\0\0"  # name and its size in eight bytes
    flags = element(6, struct.pack(f"{order}II", 6, 0), order)
    dims = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, flags + dims + small + element(stored, values, order), order)


@pytest.mark.parametrize("order", "<>")
def test_whole_numbers_in_fewer_bytes_and_both_byte_orders(tmp_path, order):
    (tmp_path / "a.mat").write_bytes(file_of(matrix(order), order=order))
    read = read_mat(tmp_path / "a.mat")
    assert read["P"].dtype == np.float64 and read["P"].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin"),
        (b"MATLAB 7.3".ljust(124) + b"\0\2IM", "does not begin"),
        (file_of(matrix(shape=(10**6, 10**6))), "another size"),
        (file_of(matrix(shape=(-1, 6))), "another size"),
        (file_of(matrix(stored=10**4)), "unknown kind 10000"),
        (file_of(matrix()[:-9]), "cut off"),
        (file_of(element(14, b"")[:-4]), "buffer"),
        (file_of(element(15, zlib.compress(matrix())[:-4])), "cut off"),
        (file_of(element(15, zlib.compress(bytes(1 << 29)))), "too large"),
        (file_of(element(15, b"no deflated data")), "decompressing"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, content, says):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(InputError, match="a.mat cannot be read as a MATLAB file: .*" + says) as error:
        read_mat(tmp_path / "a.mat")
    assert "\n" not in str(error.value)
