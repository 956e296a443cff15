"""A wipe between two of several pictures of the same view, with the values under the pointer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from mvsnet_edu.figures.figure import Figure, label, pack, to_map, to_numpy
from mvsnet_edu.figures.pictures import colorize, css_gradient, data_uri, to_rgb

__all__ = ["Picture", "compare"]


@dataclass(frozen=True)
class Picture:
    """A map of one number per pixel, and how to colour it.

    Args:
        values: (H, W), or with leading axes of size 1; not finite where not measured.
        unit: unit of the values; pictures of one unit and one colour table share one scale.
        colors: "viridis" for amounts, "diverging" for signed values.
        limits: values of the first and the last colour; by default the range of all pictures on the scale.
        contours: draws the borders of where the values are at most this far from 0; (1, 3) on an error in
            intervals outlines what less_one and less_three count. The first is solid, the others are dashed.
    """

    values: Any
    unit: str = ""
    colors: str = "viridis"
    limits: tuple[float, float] | None = None
    contours: tuple[float, ...] = ()


def compare(
    images: Mapping[str, Any], *, unit: str = "", alt: str = "", caption: str = "", digits: int = 2
) -> Figure:
    """Wipe between two of several pictures, chosen by name, and read the values under the pointer.

    Args:
        images: at least two pictures by label, of one aspect but any resolution: (H, W, 3) colours, uint8 or
            float in [0, 1]; (H, W) values, not finite where not measured; or a ``Picture`` for more say.
        unit: unit of the values that are no ``Picture``.
        alt: what the pictures show, for readers who do not see them; by default their labels.
        caption: text below the figure.
        digits: decimals of the values shown.

    Returns:
        The figure. Values weigh 5.3 bytes of HTML per pixel, so give depth maps at the network's resolution.

    Raises:
        ValueError: fewer than two pictures, or pictures whose frames differ in shape.

    >>> compare({"before": np.zeros((6, 8)), "after": np.ones((3, 4))}, unit="mm")
    Figure(wipe: The same view as before and after; a wipe compares two of them.)
    """
    pictures = {name: _as_picture(image, unit) for name, image in images.items()}
    height, width = _frame(pictures)
    scales = _scales(pictures)
    tiles = [_tile(name, picture, scales) for name, picture in pictures.items()]
    data = {
        "digits": digits,
        "size": [width, height],
        "pictures": [_values(name, picture) for name, picture in pictures.items()],
    }
    alt = alt or f"The same view as {_listed(list(pictures))}; a wipe compares two of them."
    body = _stage(tiles, width, height) + _controls(list(pictures)) + _note(pictures)
    return Figure("wipe", "Pictures compared", alt, body, data, caption)


Colors = np.ndarray  # (H, W, 3), uint8


def _as_picture(image: Any, unit: str) -> Picture | Colors:
    if isinstance(image, Picture):
        return replace(image, values=to_map(image.values))
    array = to_numpy(image)
    is_colors = array.ndim == 3 and array.shape[-1] == 3
    return to_rgb(array) if is_colors else Picture(to_map(array), unit)


def _shape(picture: Picture | Colors) -> tuple[int, int]:
    array = picture.values if isinstance(picture, Picture) else picture
    return array.shape[:2]


def _frame(pictures: Mapping[str, Picture | Colors]) -> tuple[int, int]:
    """Height and width of the largest picture; all others must have the same ratio, up to a pixel."""
    if len(pictures) < 2:
        raise ValueError("a comparison needs at least two pictures")
    shapes = {name: _shape(picture) for name, picture in pictures.items()}
    height, width = max(shapes.values(), key=math.prod)
    for name, (h, w) in shapes.items():
        if abs(h * width - w * height) > max(height, width):
            raise ValueError(f"{name!r} is {w} x {h}, which is not the shape of a {width} x {height} frame")
    return height, width


Scale = tuple[str, str]  # unit and colour table


def _scales(pictures: Mapping[str, Picture | Colors]) -> dict[Scale, tuple[float, float]]:
    """Limits of each scale: those asked for, else the range of the values, symmetric for signed ones."""
    groups: dict[Scale, list[Picture]] = {}
    for picture in pictures.values():
        if isinstance(picture, Picture):
            groups.setdefault((picture.unit, picture.colors), []).append(picture)
    return {scale: _limits(group) for scale, group in groups.items()}


def _limits(group: list[Picture]) -> tuple[float, float]:
    asked = [picture.limits for picture in group if picture.limits is not None]
    if asked:
        return min(low for low, _ in asked), max(high for _, high in asked)
    finite = np.concatenate([p.values[np.isfinite(p.values)] for p in group] + [np.zeros(0)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if group[0].colors == "diverging":
        low, high = -max(-low, high), max(-low, high)
    return low, high


def _tile(name: str, picture: Picture | Colors, scales: Mapping[Scale, tuple[float, float]]) -> str:
    """One picture with its name and colour bar."""
    if not isinstance(picture, Picture):
        image, bar, lines = picture, "", ""
    else:
        limits = scales[picture.unit, picture.colors]
        image = colorize(picture.values, limits, picture.colors)
        bar = _color_bar(limits, picture.unit, picture.colors)
        lines = _contours(picture)
    blocky = " mvs-blocky" if max(image.shape) < 400 else ""
    return f"""<div class="mvs-tile" data-part="tile">
<div class="mvs-picture">
<img class="mvs-image dark-light{blocky}" alt="{escape(name)}" src="{data_uri(image)}">
{lines}</div><div class="mvs-tag">{escape(name)}</div>{bar}</div>"""


def _color_bar(limits: tuple[float, float], unit: str, colors: str) -> str:
    low, high = limits
    texts = [label(low), label((low + high) / 2), f"{label(high)} {escape(unit)}"]
    names = "".join(f"<span>{text}</span>" for text in texts)
    return f'<div class="mvs-bar"><i style="background:{css_gradient(colors)}"></i>{names}</div>'


def _contours(picture: Picture) -> str:
    if not picture.contours:
        return ""
    height, width = picture.values.shape
    paths = "".join(f'<path d="{outline(picture.values, level)}"/>' for level in picture.contours)
    return (
        f'<svg class="mvs-contours mvs-on-{picture.colors}" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none" aria-hidden="true">{paths}</svg>'
    )


def outline(values: np.ndarray, level: float) -> str:
    """SVG path along the edges between pixels of which one is within the level and the other is not.

    Args:
        values: (H, W); there is no border beside a pixel that is not finite.
        level: greatest size of a value that is within.

    Returns:
        The ``d`` of the path, in pixels.

    >>> outline(np.array([[0.0, 2.0], [1.0, np.nan]]), 1.0)
    'M1,0V1'
    """
    upright = "".join(f"M{x},{start}V{end}" for x, start, end in _edges(values, level))
    level_ones = "".join(f"M{start},{y}H{end}" for y, start, end in _edges(values.T, level))
    return upright + level_ones


def _edges(values: np.ndarray, level: float) -> list[tuple[int, int, int]]:
    """Runs of borders between neighbours in a row: their x, and the y from which to which they run."""
    inside, known = np.abs(values) <= level, np.isfinite(values)
    border = (inside[:, 1:] != inside[:, :-1]) & known[:, 1:] & known[:, :-1]  # (H, W - 1)
    steps = np.diff(np.pad(border, ((1, 1), (0, 0))).astype(np.int8), axis=0)  # (H + 1, W - 1)
    (x, starts), (_, ends) = (np.nonzero((steps == sign).T) for sign in (1, -1))
    return list(zip((x + 1).tolist(), starts.tolist(), ends.tolist(), strict=True))


def _values(name: str, picture: Picture | Colors) -> dict[str, Any]:
    height, width = _shape(picture)
    entry: dict[str, Any] = {"label": name, "size": [width, height]}
    if isinstance(picture, Picture):
        entry |= {"unit": picture.unit, "values": pack(picture.values)}
    return entry


def _stage(tiles: list[str], width: int, height: int) -> str:
    return f"""<div class="mvs-stage" style="--w:{width};--h:{height}">{"".join(tiles)}
<div class="mvs-over mvs-live" data-part="over" tabindex="0" role="application"
aria-label="Probe: the arrow keys move it by a pixel, with shift by ten">
<i class="mvs-handle"></i><i class="mvs-probe"></i></div>
</div>"""


def _controls(names: list[str]) -> str:
    def choice(title: str, part: str, chosen: int) -> str:
        options = "".join(
            f'<option value="{k}"{" selected" if k == chosen else ""}>{escape(name)}</option>'
            for k, name in enumerate(names)
        )
        return f'<label>{title} <select data-part="{part}" autocomplete="off">{options}</select></label>'

    return f"""<div class="mvs-controls mvs-live">
{choice("Left", "left", 0)}
{choice("Right", "right", 1)}
<label class="mvs-wide">Wipe
<input type="range" min="0" max="100" value="50" autocomplete="off" data-part="wipe"></label>
</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>"""


def _note(pictures: Mapping[str, Picture | Colors]) -> str:
    maps = [picture for picture in pictures.values() if isinstance(picture, Picture)]
    complete = all(np.isfinite(picture.values).all() for picture in maps)
    contours = dict.fromkeys(_contour_note(picture) for picture in maps if picture.contours)
    notes = [*contours, *([] if complete else ["Grey: not measured."])]
    return f'<p class="mvs-note">{" ".join(notes)}</p>' if notes else ""


def _contour_note(picture: Picture) -> str:
    lines = [f"{label(level)} ({'dashed' if k else 'solid'})" for k, level in enumerate(picture.contours)]
    return f"Contours: within {_listed(lines)} {escape(picture.unit)}".rstrip() + "."


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
