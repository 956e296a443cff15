"""Point clouds as PLY files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .formats import atomic_write, file_size, reason

__all__ = ["PointCloud", "read_ply", "write_ply"]

MAX_HEADER = 1 << 16  # bytes
POSITION, COLOR, NORMAL = ("x", "y", "z"), ("red", "green", "blue"), ("nx", "ny", "nz")


@dataclass(eq=False)
class PointCloud:
    """Points with, optionally, a colour and a normal each.

    Args:
        points: (N, 3) float32, in the scene's unit.
        colors: (N, 3) uint8 RGB, or None.
        normals: (N, 3) float32 unit vectors, or None.

    Raises:
        ValueError: an array has another shape.

    >>> len(PointCloud(np.zeros((5, 3))))
    5
    """

    points: np.ndarray
    colors: np.ndarray | None = None
    normals: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.points = np.asarray(self.points, np.float32)
        self.colors = None if self.colors is None else np.asarray(self.colors, np.uint8)
        self.normals = None if self.normals is None else np.asarray(self.normals, np.float32)
        for array in (self.points, self.colors, self.normals):
            if array is not None and array.shape != (len(self.points), 3):
                raise ValueError(f"expected an array of shape {(len(self.points), 3)}, not {array.shape}")

    def __len__(self) -> int:
        return len(self.points)


def read_ply(path: str | Path) -> PointCloud:
    """Read the vertices of a PLY file: binary of either byte order, or text.

    Args:
        path: the file. Properties other than positions, colours and normals are ignored, and so are faces.
            Colours that are no bytes are fractions of 1 if they are floating-point numbers, of 65535
            otherwise.

    Returns:
        The cloud.

    Raises:
        InputError: the file cannot be read, is no PLY, is truncated, or has points that are not finite.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_ply(Path(folder) / "cloud.ply", PointCloud([[1, 2, 3]], [[255, 0, 0]]))
    ...     read_ply(Path(folder) / "cloud.ply").colors.tolist()
    [[255, 0, 0]]
    """
    path = Path(path)
    vertex = _read_vertices(path)
    points = _columns(vertex, POSITION)
    if points is None:
        raise InputError(f"{path} has vertices without x, y and z.")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite
        cloud = PointCloud(points, _colors(vertex), _columns(vertex, NORMAL))
    if not np.isfinite(cloud.points).all():
        raise InputError(f"{path} has points whose coordinates are not finite.")
    return cloud


def _read_vertices(path: Path) -> np.ndarray:
    """The structured array of the vertices."""
    from plyfile import PlyData

    try:
        _refuse_impossible_counts(path)
        return PlyData.read(str(path), mmap=False)["vertex"].data
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path} has no vertices.") from error
    except Exception as error:  # plyfile lets those of number parsing, decoding and numpy through
        raise InputError(f"{path} cannot be read as a PLY file: {reason(error)}.") from error


def _refuse_impossible_counts(path: Path) -> None:
    """Refuse a header that announces more than the file has bytes for, before that is allocated."""
    from plyfile import PlyData

    size = file_size(path)
    with open(path, "rb") as file:
        elements = PlyData._parse_header(io.BytesIO(file.read(MAX_HEADER)))  # a longer one takes its time
    for element in elements:
        if element.count * max(1, len(element.properties)) > size:  # a number takes a byte, or more
            raise InputError(f"{path} announces {element.count} elements, more than its bytes can hold.")


def _columns(vertex: np.ndarray, names: tuple[str, ...]) -> np.ndarray | None:
    """(N, 3) of three properties, or None if one is missing."""
    if not set(names) <= set(vertex.dtype.names or ()):
        return None
    return np.stack([vertex[name] for name in names], axis=-1)


def _colors(vertex: np.ndarray) -> np.ndarray | None:
    colors = _columns(vertex, COLOR)
    if colors is None or colors.dtype == np.uint8:
        return colors
    whole = 1.0 if colors.dtype.kind == "f" else 65535.0
    return np.rint(np.nan_to_num(colors / whole).clip(0, 1) * 255)


def write_ply(path: str | Path, cloud: PointCloud) -> None:
    """Write a cloud as a binary little-endian PLY file.

    Args:
        path: the file to write.
        cloud: the points, with the colours and normals they have.

    Raises:
        InputError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_ply(Path(folder) / "cloud.ply", PointCloud(np.zeros((2, 3))))
    ...     (Path(folder) / "cloud.ply").read_bytes().splitlines()[1]
    b'format binary_little_endian 1.0'
    """
    from plyfile import PlyData, PlyElement

    fields = [(POSITION, cloud.points, "<f4"), (NORMAL, cloud.normals, "<f4"), (COLOR, cloud.colors, "u1")]
    fields = [(names, values, kind) for names, values, kind in fields if values is not None]
    vertex = np.empty(len(cloud), [(name, kind) for names, _, kind in fields for name in names])
    for names, values, _ in fields:
        for column, name in enumerate(names):
            vertex[name] = values[:, column]
    with atomic_write(path) as file:
        PlyData([PlyElement.describe(vertex, "vertex")], byte_order="<").write(file)
