"""A slice through the cost volume before and after regularisation, and the curves of one pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from mvsnet_edu.figures.figure import Figure, label, number, pack, to_map, to_numpy
from mvsnet_edu.figures.pictures import color_table, colorize, data_uri, to_rgb
from mvsnet_edu.figures.plot import Range, cursor, curve, legend, panel, path_data

__all__ = ["cost_volume"]

_LEVELS = 2**16 - 1
_ALT = (
    "The view with one pixel marked; a slice through the cost volume along its row, before and after "
    "regularisation, with the true depth as a line; and the pixel's curves over depth: the mean variance, "
    "which often has several low places, and the regularised cost and probability, which mostly have one."
)


def cost_volume(
    volume: Any,
    cost: Any,
    depth_values: Any,
    truth: Any = None,
    *,
    image: Any,
    pixel: tuple[int, int] | None = None,
    alt: str = _ALT,
    caption: str = "",
) -> Figure:
    """Pick a pixel of the reference view; see what its cost says about depth, before and after smoothing.

    Variance and cost are kept in 16 bits each, so a number shown may be off by a 130,000th of their range.
    They weigh 5.3 bytes of HTML per voxel together.

    Args:
        volume: (C, D, h, w), or with leading axes of size 1: the variance; its mean over C is shown.
        cost: (D, h, w), or with leading axes of size 1: what :class:`~mvsnet_edu.CostRegNet` makes of it.
        depth_values: (D,), or with leading axes of size 1, rising.
        truth: (h, w), or with leading axes of size 1; 0 or not finite where not measured.
        image: (H, W, 3), uint8 or float in [0, 1], the reference view.
        pixel: (column, row) to begin with; by default the one in the middle.
        alt: what the figure shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure.

    Raises:
        ValueError: the sizes do not belong together, the depths do not rise, or the pixel is outside.

    >>> rng = np.random.default_rng(0)
    >>> figure = cost_volume(rng.random((8, 4, 3, 5)), rng.random((4, 3, 5)), [1, 2, 3, 4],
    ...                      image=rng.random((12, 20, 3)))
    >>> figure.data["size"], figure.data["pixel"]
    ([5, 3, 4], [2, 1])
    """
    cost = _last_axes(cost, 3)
    variance = _last_axes(volume, 4).mean(axis=0)
    depths = to_numpy(depth_values).astype(np.float64).reshape(-1)
    _check(variance, cost, depths)
    D, h, w = cost.shape
    x, y = pixel or (w // 2, h // 2)
    if not (0 <= x < w and 0 <= y < h):
        raise ValueError(f"pixel ({x}, {y}) is outside a map of {w} x {h}")
    planes = np.full((h, w), np.nan, np.float32) if truth is None else _in_planes(to_map(truth), depths)
    if planes.shape != (h, w):
        raise ValueError(f"the truth is {planes.shape[1]} x {planes.shape[0]}, the cost {w} x {h}")
    top = float(np.quantile(variance, 0.98)) or 1.0
    data = {
        "size": [w, h, D],
        "pixel": [x, y],
        "depths": depths.tolist(),
        "variance": _in_levels(variance),
        "cost": _in_levels(cost),
        "truth": pack(planes),
        "top": top,
        "colors": pack(color_table("viridis")),
    }
    probability = _softmax(-cost)
    body = [
        '<div class="mvs-parts">',
        _view(to_rgb(to_numpy(image)), x, y, w, h),
        _slices(variance[:, y], probability[:, y], planes[y], top),
        "</div>",
        _curves(variance[:, y, x], cost[:, y, x], probability[:, y, x], planes[y, x]),
        _controls(x, y, w, h, D),
    ]
    return Figure("volume", "A pixel of the cost volume", alt, "\n".join(body), data, caption)


def _last_axes(values: Any, dims: int) -> np.ndarray:
    """The array without leading axes of size 1, float32, with so many dimensions."""
    array = to_numpy(values).astype(np.float32)
    if array.ndim < dims or any(size != 1 for size in array.shape[:-dims]):
        raise ValueError(f"an array of {dims} dimensions is needed, not one of shape {array.shape}")
    return array.reshape(array.shape[-dims:])


def _check(variance: np.ndarray, cost: np.ndarray, depths: np.ndarray) -> None:
    if variance.shape != cost.shape:
        raise ValueError(f"the volume is (C, *{variance.shape}), the cost {cost.shape}")
    if len(depths) != len(cost) or (np.diff(depths) <= 0).any():
        raise ValueError(f"a cost of {len(cost)} planes needs as many depths, in rising order")


def _in_planes(truth: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """The plane at which a depth lies, with fractions; NaN where not measured or outside all planes."""
    planes = np.interp(truth, depths, np.arange(len(depths)), left=np.nan, right=np.nan)
    return np.where(truth > 0, planes, np.nan).astype(np.float32)


def _in_levels(values: np.ndarray) -> dict[str, Any]:
    """Values in 16 bits: low + step * level."""
    low, high = float(values.min()), float(values.max())
    step = (high - low) / _LEVELS or 1.0
    levels = np.round((values.astype(np.float64) - low) / step).astype(np.uint16)
    return {"low": low, "step": step, "levels": pack(levels)}


def _softmax(values: np.ndarray) -> np.ndarray:
    """Over the first axis."""
    grown = np.exp(values.astype(np.float64) - values.max(axis=0))
    return grown / grown.sum(axis=0)


def _view(picture: np.ndarray, x: int, y: int, w: int, h: int) -> str:
    left, top = (f"{100 * (n + 0.5) / size:.4g}%" for n, size in ((x, w), (y, h)))
    return f"""<div class="mvs-panel"><div class="mvs-head"><span>the reference view</span></div>
<div class="mvs-photo" data-part="view">
<img class="dark-light" alt="The reference view, with pixel ({x}, {y}) of the depth map marked"
src="{data_uri(picture)}"><i style="top:{top}" data-part="line"></i>
<b style="left:{left};top:{top}" data-part="spot"></b></div></div>"""


def _slices(variance: np.ndarray, probability: np.ndarray, truth: np.ndarray, top: float) -> str:
    """Two maps (D, w) seen from above, the first plane at the bottom, with the true depth as a line."""
    before = f"before: mean variance (dark: 0, bright: {label(top)})"
    after = "after: probability (dark: 0, bright: 1)"
    slices = ("before", before, variance, top), ("after", after, probability, 1.0)
    return "".join(_slice(name, title, values, (0.0, limit), truth) for name, title, values, limit in slices)


def _slice(name: str, title: str, values: np.ndarray, limits: Range, truth: np.ndarray) -> str:
    D, w = values.shape
    place = f'x="0" y="-0.5" width="{w}" height="{D}" preserveAspectRatio="none"'  # plane 0 is centred on 0
    picture = (
        f'<image {place} href="{data_uri(colorize(values, limits, "viridis"))}" data-part="{name}-image"/>'
    )
    line = path_data(np.arange(w) + 0.5, truth)
    outlined = "".join(f'<path class="mvs-{c}" d="{line}" data-part="line-up"/>' for c in ("under", "upper"))
    x, y = (0.0, float(w)), (-0.5, D - 0.5)
    layers = [picture, outlined, cursor(y, "column-cursor")]
    return panel(title, x, y, layers, name, "column; planes upward, the nearest below")


def _curves(variance: np.ndarray, cost: np.ndarray, probability: np.ndarray, truth: float) -> str:
    D = len(cost)
    x, y, planes = (0.0, D - 1.0), (-0.05, 1.05), range(D)
    mark = f'<path class="mvs-c3" d="{_upright(truth)}" data-part="truth-mark"/>'
    span = float(np.ptp(cost)) or 1.0
    before = [curve(1, planes, variance / (variance.max() or 1.0), "variance-curve"), mark, cursor(y)]
    after = [
        curve(2, planes, (cost - cost.min()) / span, "cost-curve"),
        curve(1, planes, probability, "probability-curve"),
        mark,
        cursor(y),
    ]
    return f"""<div class="mvs-panels mvs-pixel">
<div>{panel("mean variance, share of its largest", x, y, before, "curve-before", "plane")}
{legend([(1, "mean variance"), (3, "truth")])}</div>
<div>{panel("after regularisation", x, y, after, "curve-after", "plane")}
{legend([(1, "probability"), (2, "cost, least to greatest"), (3, "truth")])}</div>
</div>"""


def _upright(plane: float) -> str:
    return f"M{number(plane)},-0.05V1.05" if np.isfinite(plane) else ""


def _controls(x: int, y: int, w: int, h: int, D: int) -> str:
    sliders = "\n".join(
        f'<label class="mvs-wide">{name} <input type="range" min="0" max="{top}" value="{value}" '
        f'autocomplete="off" data-part="{name.lower()}"></label>'
        for name, top, value in (("Column", w - 1, x), ("Row", h - 1, y), ("Plane", D - 1, D // 2))
    )
    return f"""<div class="mvs-controls mvs-live">
{sliders}
</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>
<output class="mvs-readout mvs-live" data-part="verdict"></output>"""
