"""One row of a depth map before and after refinement, beside the truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from mvsnet_edu.figures.figure import Figure, pack, to_map, to_numpy
from mvsnet_edu.figures.pictures import colorize, data_uri, to_rgb
from mvsnet_edu.figures.plot import Range, cursor, curve, legend, panel

__all__ = ["refinement_profile"]

_MINUS = "\N{MINUS SIGN}"
_ALT = (
    "One row of the depth map as curves over the column: the initial, the refined and the true depth, and "
    "below them the residual that the network added beside the one that would have been right."
)


def refinement_profile(
    initial: Any,
    refined: Any,
    truth: Any,
    *,
    depth_start: float,
    depth_interval: float,
    image: Any = None,
    row: int | None = None,
    alt: str = _ALT,
    caption: str = "",
) -> Figure:
    """Cut a depth map along a row: what came in, what the residual did, and what would have been right.

    Args:
        initial: (h, w), or with leading axes of size 1: the depth map before refinement.
        refined: the same shape: the depth map after it.
        truth: the same shape; 0 or not finite where not measured.
        depth_start: depth of the first plane; the curves count intervals from there.
        depth_interval: distance between two planes, in the unit of the depths.
        image: (H, W, 3), uint8 or float in [0, 1], the view in which the row is marked; the truth by default.
        row: the first row to show; by default the one in the middle.
        alt: what the figure shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure.

    Raises:
        ValueError: the maps differ in shape, or the row is outside.

    >>> depth = np.linspace(400, 500, 12).reshape(3, 4)
    >>> figure = refinement_profile(depth, depth + 1, depth, depth_start=400.0, depth_interval=2.0)
    >>> figure.data["size"], figure.data["row"]
    ([4, 3], 1)
    """
    maps = [to_map(values) for values in (initial, refined, truth)]
    height, width = _common_shape(maps)
    row = height // 2 if row is None else row
    if not 0 <= row < height:
        raise ValueError(f"row {row} is outside a map of {height} rows")
    maps[2] = np.where(maps[2] > 0, maps[2], np.nan)
    before, after, true = ((values - np.float32(depth_start)) / np.float32(depth_interval) for values in maps)
    curves = {"initial": before, "refined": after, "truth": true}
    data = {"size": [width, height], "row": row, **{name: pack(values) for name, values in curves.items()}}
    curves |= {"residual": after - before, "wanted": true - before}
    picture = colorize(true, _span(true), "viridis") if image is None else to_rgb(to_numpy(image))
    body = _picture(picture, row, height) + _panels(curves, row) + _controls(row, width, height)
    return Figure("refinement", "A row before and after refinement", alt, body, data, caption)


def _common_shape(maps: list[np.ndarray]) -> tuple[int, int]:
    shapes = {values.shape for values in maps}
    if len(shapes) > 1:
        raise ValueError(f"the three depth maps must have one shape, not {sorted(shapes)}")
    return maps[0].shape[0], maps[0].shape[1]


def _span(values: np.ndarray, margin: float = 0.0) -> Range:
    """Range of the finite values, widened by a share of it on either side; [0, 1] where there are none."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    pad = margin * (high - low) or (0.5 if high == low else 0.0)
    return low - pad, high + pad


def _residual_range(curves: dict[str, np.ndarray]) -> Range:
    """Symmetric, at least the three intervals of ``less_three``; the largest 2 % may leave the frame."""
    sizes = np.abs(np.concatenate([curves["residual"].ravel(), curves["wanted"].ravel()]))
    sizes = sizes[np.isfinite(sizes)]
    top = max(3.5, float(np.quantile(sizes, 0.98)) if sizes.size else 0.0)
    return -top, top


def _panels(curves: dict[str, np.ndarray], row: int) -> str:
    columns = np.arange(curves["initial"].shape[1]) + 0.5  # pixel centres
    x = (0.0, float(len(columns)))

    def layers(names: dict[str, int], y: Range) -> list[str]:
        return [curve(style, columns, curves[name][row], name) for name, style in names.items()] + [cursor(y)]

    depth = _span(np.stack([curves[name] for name in ("initial", "refined", "truth")]), 0.05)
    change = _residual_range(curves)
    depth_layers = layers({"truth": 3, "initial": 1, "refined": 2}, depth)
    change_layers = layers({"wanted": 3, "residual": 4}, change)
    return "\n".join(
        [
            '<div class="mvs-profile">',
            panel("depth, in intervals from the first plane", x, depth, depth_layers, "depth"),
            legend([(3, "truth"), (1, "initial"), (2, "refined")]),
            panel("change, in intervals", x, change, change_layers, "change", "column"),
            legend([(4, f"residual = refined {_MINUS} initial"), (3, f"wanted = truth {_MINUS} initial")]),
            "</div>",
        ]
    )


def _picture(picture: np.ndarray, row: int, height: int) -> str:
    line = f'<i style="top:{100 * (row + 0.5) / height:.4g}%" data-part="line"></i>'
    alt = f"The view, with row {row} of the depth map marked"
    return f"""<div class="mvs-view" data-part="view">
<img class="dark-light" alt="{alt}" src="{data_uri(picture)}">{line}
<b class="mvs-live" data-part="spot"></b></div>"""


def _controls(row: int, width: int, height: int) -> str:
    def slider(name: str, part: str, top: int, value: int) -> str:
        return (
            f'<label class="mvs-wide">{name} <input type="range" min="0" max="{top}" value="{value}" '
            f'autocomplete="off" data-part="{part}"></label>'
        )

    return f"""<div class="mvs-controls mvs-live">
{slider("Row", "row", height - 1, row)}
{slider("Column", "column", width - 1, width // 2)}
</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>"""
