"""How much memory a depth map takes, by formulation, for any size of image, number of planes and of views."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import NamedTuple

from mvsnet_edu.features import CHANNELS, STRIDE
from mvsnet_edu.figures.figure import Figure, number

__all__ = ["Formulation", "memory_explorer", "peak_bytes"]

_ALT = (
    "For each formulation, the memory of one depth map on a scale from 10 MB to 100 GB, with marks at 4, 8 "
    "and 16 GB. The plain one needs several times as much as the streamed one, at every setting."
)
#: Ends of the scale and its marks, in bytes.
_LOW, _HIGH = 1e7, 1e11
_MARKS = {4e9: "4 GB", 8e9: "8 GB", 16e9: "16 GB"}
#: Widths and heights to choose from: those of the benchmarks and of the papers.
_SIZES = ((160, 128), (320, 256), (640, 512), (768, 576), (1152, 864), (1600, 1184), (1920, 1056))


class Formulation(NamedTuple):
    """A way to compute the same depth map.

    Attributes:
        name: what it is called.
        floats: numbers of 4 bytes that it holds at its peak for each voxel of the cost volume.
        per_source: and so many more for each source view.
    """

    name: str
    floats: float
    per_source: float = 0.0


def peak_bytes(formulation: Formulation, width: int, height: int, planes: int, views: int) -> float:
    """Memory at the peak: what grows with the volume, and the feature maps.

    Args:
        formulation: how it is computed.
        width: of the images.
        height: of the images.
        planes: D.
        views: V, the reference included.

    Returns:
        bytes.

    Source: ours.

    >>> peak_bytes(Formulation("one volume", 32), 640, 512, 192, 5) / 1e6
    516.4...
    """
    pixels = (width // STRIDE) * (height // STRIDE)
    per_voxel = formulation.floats + formulation.per_source * (views - 1)
    return 4 * pixels * (planes * per_voxel + views * CHANNELS)


def memory_explorer(
    formulations: Sequence[Formulation] = (Formulation("plain", 98), Formulation("streamed", 32)),
    *,
    size: tuple[int, int] = (1600, 1184),
    planes: int = 256,
    views: int = 5,
    alt: str = _ALT,
    caption: str = "",
) -> Figure:
    """Choose an image, planes and views; see which formulation fits into which machine.

    Args:
        formulations: what to compare.
        size: (width, height) to begin with, one of the sizes that the slider has.
        planes: D to begin with.
        views: V to begin with.
        alt: what the figure shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure.

    Source: :func:`peak_bytes`.

    >>> memory_explorer().data["sizes"][5]
    [1600, 1184]
    """
    data = {
        "formulations": [list(formulation) for formulation in formulations],
        "sizes": [list(each) for each in _SIZES],
        "stride": STRIDE,
        "channels": CHANNELS,
        "low": _LOW,
        "high": _HIGH,
    }
    rows = (_row(k, f, peak_bytes(f, *size, planes, views)) for k, f in enumerate(formulations))
    body = f'<div class="mvs-bars">{"".join(rows)}{_scale()}</div>' + _controls(size, planes, views)
    return Figure("memory", "Memory of a depth map", alt, body, data, caption)


def _place(size: float) -> float:
    """Where a number of bytes lies on the logarithmic scale, in percent."""
    return 100 * min(max((log10(size) - log10(_LOW)) / (log10(_HIGH) - log10(_LOW)), 0), 1)


def _amount(size: float) -> str:
    """As the script writes it.

    >>> _amount(1.234e10), _amount(5.6e7)
    ('12.3 GB', '56 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _row(k: int, formulation: Formulation, size: float) -> str:
    return f"""<div class="mvs-head"><span>{escape(formulation.name)}</span>
<b data-part="value-{k}">{_amount(size)}</b></div>
<div class="mvs-track">{_lines()}
<i class="mvs-bar" data-part="bar-{k}" style="width:{_place(size):.4g}%"></i></div>
"""


def _lines() -> str:
    return "".join(f'<s style="left:{number(_place(mark))}%"></s>' for mark in _MARKS)


def _scale() -> str:
    marks = {1e7: "10 MB", 1e8: "100 MB", 1e9: "1 GB", **_MARKS}
    spans = (f'<span style="left:{number(_place(at))}%">{text}</span>' for at, text in marks.items())
    return f'<div class="mvs-scale">{"".join(spans)}</div>'


def _controls(size: tuple[int, int], planes: int, views: int) -> str:
    sliders = [
        ("Image", "size", (0, len(_SIZES) - 1, 1), _SIZES.index(size)),
        ("Planes", "planes", (16, 512, 16), planes),
        ("Views", "views", (2, 10, 1), views),
    ]
    inputs = "".join(
        f'<label class="mvs-wide">{label}<input type="range" min="{low}" max="{high}" step="{step}" '
        f'value="{value}" autocomplete="off" data-part="{part}"></label>'
        for label, part, (low, high, step), value in sliders
    )
    return f"""<div class="mvs-controls mvs-live">{inputs}</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>"""
