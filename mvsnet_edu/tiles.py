"""Cutting a depth map into tiles that can be estimated one after the other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

from .cost_volume import Window

__all__ = ["Tile", "cut_into_tiles"]

#: A tile sees this many pixels beyond what it keeps: as far as the 3D network looks.
MARGIN = 32
#: Tiles begin at multiples of this, where the strided convolutions of the 3D network begin.
GRID = 8


class Tile(NamedTuple):
    """A part of a depth map, and what the network must see for it.

    Attributes:
        window: top, left, height and width of what it sees.
        core: where it lies in the depth map (B, h, w).
        inner: where it lies in a depth map of the window.
    """

    window: Window
    core: tuple[slice, ...]
    inner: tuple[slice, ...]


def cut_into_tiles(size: tuple[int, int], fits: Callable[[tuple[int, int]], bool]) -> list[Tile]:
    """As few tiles as fit, as square as they can be.

    Args:
        size: height and width of the depth map.
        fits: whether there is memory for a window of this height and width.

    Returns:
        tiles whose cores cover every pixel once; none if not even tiles as small as their margin fit.

    Source: ours.

    >>> [tile.window for tile in cut_into_tiles((40, 200), lambda size: size[1] < 150)]
    [(0, 0, 40, 136), (0, 72, 40, 128)]
    """
    h, w = size
    rows = columns = 1
    while max(h / rows, w / columns) > MARGIN or rows == columns == 1:
        tiles = [_tile(*spans) for spans in product(_spans(h, rows), _spans(w, columns))]
        if all(fits(tile.window[2:]) for tile in tiles):
            return tiles
        if len(tiles) == 1 and not fits((min(h, MARGIN), min(w, MARGIN))):  # then no number of tiles will do
            return []
        rows, columns = (rows + 1, columns) if h * columns > w * rows else (rows, columns + 1)
    return []


def _spans(length: int, parts: int) -> list[tuple[int, int, int, int]]:
    """Cut an axis: for each part where it begins and ends, and where what it sees begins and ends."""
    step = -(-length // (parts * GRID)) * GRID
    cuts = [(start, min(start + step, length)) for start in range(0, length, step)]
    return [(start, stop, max(0, start - MARGIN), min(length, stop + MARGIN)) for start, stop in cuts]


def _tile(rows: tuple[int, ...], columns: tuple[int, ...]) -> Tile:
    top, bottom, first, last = rows
    left, right, near, far = columns
    core = (slice(None), slice(top, bottom), slice(left, right))
    inner = (slice(None), slice(top - first, bottom - first), slice(left - near, right - near))
    return Tile((first, near, last - first, far - near), core, inner)
