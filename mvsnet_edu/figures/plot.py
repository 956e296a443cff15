"""Curves over a pair of axes, as HTML: the picture stands without scripts, and scripts move parts of it.

The curves are an SVG in the units of the data, stretched over the frame, so a script moves a cursor with
``setAttribute("x1", value)`` and needs no scales. The labels are HTML: a narrow screen does not shrink them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from mvsnet_edu.figures.figure import label, number

__all__ = ["Range", "cursor", "curve", "legend", "panel", "path_data", "ticks"]

Range = tuple[float, float]


def ticks(limits: Range, most: int = 5) -> list[float]:
    """Round values inside a range, evenly spaced.

    Args:
        limits: the ends of the range.
        most: how many at most.

    Returns:
        The values, in rising order.

    >>> ticks((-6.0, 6.0)), ticks((0.13, 0.72))
    ([-5.0, 0.0, 5.0], [0.2, 0.4, 0.6])
    """
    low, high = limits
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * magnitude
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


def path_data(x: Sequence[float], y: Sequence[float]) -> str:
    """The ``d`` of an SVG path through points; it breaks where y is not finite.

    Args:
        x: N positions.
        y: N values.

    Returns:
        The text.

    >>> path_data([0, 1, 2, 3], [3, float("nan"), 5, 4])
    'M0,3h0M2,5h0L3,4'
    """
    text, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if math.isfinite(b):  # ``h0`` lets a point without neighbours show as a dot
            text.append(f"{pen}{number(a)},{number(b)}" + ("h0" if pen == "M" else ""))
        pen = "L" if math.isfinite(b) else "M"
    return "".join(text)


def curve(style: int, x: Sequence[float], y: Sequence[float], part: str = "") -> str:
    """A curve in one of the styles 1 to 4, each with its own colour and dashes.

    >>> curve(2, [0, 1], [5, 6], "truth")
    '<path class="mvs-c2" d="M0,5h0L1,6" data-part="truth"/>'
    """
    return f'<path class="mvs-c{style}" d="{path_data(x, y)}"{_name(part)}/>'


def cursor(limits: Range, part: str = "cursor") -> str:
    """A vertical line at x = 0 over the whole height, for a script to move.

    >>> cursor((-1.0, 1.0))
    '<line class="mvs-cursor" x1="0" x2="0" y1="-1" y2="1" data-part="cursor"/>'
    """
    low, high = map(number, limits)
    return f'<line class="mvs-cursor" x1="0" x2="0" y1="{low}" y2="{high}"{_name(part)}/>'


def panel(
    title: str,
    x: Range,
    y: Range,
    layers: Sequence[str],
    part: str,
    x_label: str = "",
    x_ticks: Sequence[float] | None = None,
) -> str:
    """One pair of axes with its curves.

    Args:
        title: what is drawn, with its unit; as HTML.
        x: range of the horizontal axis.
        y: range of the vertical axis.
        layers: SVG elements in the data's units, drawn in this order.
        part: name by which a script finds the frame; its read-out is called ``part`` + "-value".
        x_label: what the horizontal axis shows, with its unit.
        x_ticks: values to mark on the horizontal axis; round ones by default.

    Returns:
        The HTML.
    """
    (x0, x1), (y0, y1) = x, y
    across = [(value, (value - x0) / (x1 - x0)) for value in (ticks(x) if x_ticks is None else x_ticks)]
    upward = [(value, (y1 - value) / (y1 - y0)) for value in ticks(y, 4)]
    grid = [_line(value, value, y0, y1) for value, _ in across] + [_line(x0, x1, v, v) for v, _ in upward]
    view = " ".join(map(number, (x0, -y1, x1 - x0, y1 - y0)))
    return f"""<div class="mvs-panel">
<div class="mvs-head"><span>{title}</span><b data-part="{part}-value"></b></div>
<div class="mvs-plot"><div class="mvs-y">{_labels(upward, "top")}</div>
<svg class="mvs-frame" data-part="{part}" viewBox="{view}" preserveAspectRatio="none" aria-hidden="true">
<g transform="scale(1,-1)">{"".join(grid)}{"".join(layers)}</g></svg>
<div class="mvs-x">{_labels(across, "left")}</div><div class="mvs-label">{escape(x_label)}</div></div>
</div>
"""


def _line(x0: float, x1: float, y0: float, y1: float) -> str:
    ends = zip(("x1", "x2", "y1", "y2"), map(number, (x0, x1, y0, y1)), strict=True)
    return '<line class="mvs-grid" ' + " ".join(f'{name}="{value}"' for name, value in ends) + "/>"


def legend(names: Sequence[tuple[int, str]]) -> str:
    """A key to the curves: a sample of each style with its name.

    >>> legend([(1, "truth")])
    '<p class="mvs-legend"><span><svg ...><path class="mvs-c1" d="M0,5H26"/></svg>truth</span></p>'
    """
    sample = '<svg width="26" height="10" aria-hidden="true"><path class="mvs-c{}" d="M0,5H26"/></svg>{}'
    entries = "".join(f"<span>{sample.format(style, escape(name))}</span>" for style, name in names)
    return f'<p class="mvs-legend">{entries}</p>'


def _labels(places: Sequence[tuple[float, float]], side: str) -> str:
    spans = (f'<span style="{side}:{100 * place:.4g}%">{label(value)}</span>' for value, place in places)
    return "".join(spans)


def _name(part: str) -> str:
    return f' data-part="{part}"' if part else ""
