"""The loss and its two accuracy measures, as an estimate moves past the truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvsnet_edu.figures.figure import Figure, number
from mvsnet_edu.figures.plot import Range, cursor, curve, panel
from mvsnet_edu.losses import mvsnet_regression_loss

__all__ = ["loss_explorer"]

_MEASURES = {
    "loss": "L1 loss, in intervals",
    "less_one": "<code>less_one</code>",
    "less_three": "<code>less_three</code>",
}
_ALT = (
    "Six curves over the shift of the estimate. The L1 loss falls to its minimum and rises again, and "
    "its gradient points the way. less_one and less_three are shares; their gradients are zero everywhere."
)


def loss_explorer(
    estimated: Tensor | None = None,
    ground_truth: Tensor | None = None,
    interval: float = 2.5,
    *,
    unit: str = "mm",
    reach: int = 6,
    steps: int = 20,
    alt: str = _ALT,
    caption: str = "",
) -> Figure:
    """Drag an estimate past the truth; see the loss, the two accuracy measures, and the gradient of each.

    Without tensors it is one pixel whose true depth is 600. With them the whole depth map moves: the
    shares then form a smooth hill, and their gradients are still zero. All the numbers come from torch, here.

    Args:
        estimated: (B, h, w), a depth map; by default it equals the truth.
        ground_truth: (B, h, w), 0 where not measured.
        interval: the depth interval, in the unit of the depths.
        unit: the unit of the depths.
        reach: how far the estimate can be shifted to either side, in intervals.
        steps: stops of the slider for each interval.
        alt: what the figure shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure.

    Source: the measures are ``losses.mvsnet_regression_loss``.

    >>> loss_explorer(reach=1, steps=1).data["measured"]["less_one"]
    {'value': [1.0, 1.0, 1.0], 'gradient': [0.0, 0.0, 0.0]}
    """
    truth = torch.full((1, 1, 1), 600.0) if ground_truth is None else ground_truth.detach().cpu()
    start = truth if estimated is None else estimated.detach().cpu()
    shifts = [k / steps for k in range(-reach * steps, reach * steps + 1)]
    tables = {
        "measured": _table(start, truth, interval, shifts),
        "unmeasured": _table(start, torch.zeros_like(truth), interval, shifts),
    }
    data = {"shifts": shifts, "interval": interval, "unit": unit, "pixels": truth.numel(), **tables}
    body = _panels(shifts, tables["measured"], unit) + _controls(reach, steps, truth.numel())
    return Figure("loss", "The loss and its gradients", alt, body, data, caption)


def _table(start: Tensor, truth: Tensor, interval: float, shifts: list[float]) -> dict[str, Any]:
    """Value and gradient of each measure at each shift, from torch."""
    table: dict[str, Any] = {name: {"value": [], "gradient": []} for name in _MEASURES}
    for shift in shifts:
        offset = torch.tensor(shift * interval, dtype=start.dtype, requires_grad=True)
        values = mvsnet_regression_loss(start + offset, truth, interval)
        for name, value in zip(_MEASURES, values, strict=True):
            table[name]["value"].append(value.item())
            table[name]["gradient"].append(_gradient(value, offset))
    return table


def _gradient(value: Tensor, offset: Tensor) -> float:
    """Derivative by the shift; 0 where autograd has no path to it, which is what an optimiser would see."""
    if not value.requires_grad:
        return 0.0
    return torch.autograd.grad(value, offset)[0].item()


def _panels(shifts: list[float], table: dict[str, Any], unit: str) -> str:
    steepest = max(abs(gradient) for gradient in table["loss"]["gradient"]) or 1.0
    html = []
    for name, title in _MEASURES.items():
        value, gradient = table[name]["value"], table[name]["gradient"]
        top = max(value) if name == "loss" else 1.0
        label = "shift, in intervals" if name == "less_three" else ""
        html.append(_panel(name, title, (-0.08 * top, 1.08 * top), shifts, value, 1, label))
        slope = (-1.45 * steepest, 1.45 * steepest)
        html.append(_panel(name + "-gradient", f"gradient, per {unit}", slope, shifts, gradient, 2, label))
    return f'<div class="mvs-panels">{"".join(html)}</div>'


def _panel(
    part: str, title: str, y: Range, shifts: list[float], values: list[float], style: int, label: str
) -> str:
    x = (shifts[0], shifts[-1])
    dot = f'<path class="mvs-dot" d="M0,0h0" data-part="{part}-dot"/>'
    thresholds = [shift for shift in (-5, -3, -1, 1, 3, 5) if abs(shift) <= x[1]]
    layers = [curve(style, shifts, values, part + "-curve"), cursor(y), dot]
    return panel(title, x, y, layers, part, label, thresholds)


def _controls(reach: int, steps: int, pixels: int) -> str:
    moved = "the estimate" if pixels == 1 else f"all {pixels:,} estimates"
    truth = "the true depth was measured" if pixels == 1 else "the true depths were measured"
    return f"""<div class="mvs-controls mvs-live">
<label class="mvs-wide">Shift {moved}
<input type="range" min="{-reach}" max="{reach}" step="{number(1 / steps)}" value="{min(2, reach)}"
autocomplete="off" data-part="shift"></label>
<label><input type="checkbox" checked autocomplete="off" data-part="measured">{truth}</label>
</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>"""
