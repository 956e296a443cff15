"""A probability over depth that the reader shapes, and what soft argmin makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mvsnet_edu import depth
from mvsnet_edu.depth import probability_map, uniform_depths, winner_take_all
from mvsnet_edu.figures.figure import Figure, number
from mvsnet_edu.figures.plot import Range, curve, panel

__all__ = ["Bump", "soft_argmin"]

_ALT = (
    "Above, the score of every depth plane: bumps that can be dragged. Below, the probability that softmax "
    "makes of it, as bars, with the expected depth, the most probable plane, and the four planes around the "
    "expectation. With two bumps the expectation lies between them, where hardly any probability is."
)
#: Ends of the probability axis: the smallest that holds all bars is taken. The script has the same list.
_TOPS = (0.05, 0.1, 0.2, 0.5, 1.0)


class Bump(NamedTuple):
    """A Gaussian bump of the score exp(-cost).

    Attributes:
        position: the depth of its top.
        height: its score there, from 0.01 to 1.
        width: its standard deviation, in depth intervals.
    """

    position: float
    height: float
    width: float


class _Reading(NamedTuple):
    """What is drawn and read off: the score and the probability of each plane (D,), and three numbers."""

    score: Tensor
    probability: Tensor
    expectation: float
    winner: float
    trust: float


def soft_argmin(
    bumps: Sequence[Bump | tuple[float, float, float]] = (Bump(2.6, 0.8, 1.2), Bump(4.3, 0.5, 1.8)),
    *,
    depth_min: float = 2.0,
    interval: float = 0.1,
    planes: int = 32,
    background: float = 0.0,
    temperature: float = 1.0,
    unit: str = "",
    alt: str = _ALT,
    caption: str = "",
) -> Figure:
    """Drag the bumps of a probability curve; see the expectation, the winner and the probability map.

    Args:
        bumps: (position, height, width) of each; see :class:`Bump`.
        depth_min: depth of the first plane.
        interval: distance between two planes.
        planes: how many planes, D.
        background: score that every plane has besides the bumps.
        temperature: what the costs are divided by before softmax.
        unit: unit of the depths.
        alt: what the figure shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure.

    Raises:
        ValueError: a bump stands outside the planes, or its height or width is not positive.

    Source: the numbers are those of ``depth.soft_argmin``, ``winner_take_all`` and ``probability_map``.

    >>> figure = soft_argmin([(3.0, 1.0, 0.1)], depth_min=2.0, interval=0.5, planes=5)
    >>> figure.data["bumps"]
    [[3.0, 1.0, 0.1]]
    """
    depths = uniform_depths(torch.tensor(depth_min, dtype=torch.float64), interval, planes)
    bumps = [Bump(*bump) for bump in bumps]
    for bump in bumps:
        if not depths[0] <= bump.position <= depths[-1] or min(bump.height, bump.width) <= 0:
            raise ValueError(f"a bump must stand on the planes with a height and a width, unlike {bump}")
    reading = _read(bumps, depths, interval, background, temperature)
    data = {"depths": depths.tolist(), "interval": interval, "bumps": [list(bump) for bump in bumps]}
    body = "\n".join(
        [
            _panels(bumps, depths, interval, reading, unit),
            _key(reading),
            _controls(bumps, depths, background, temperature),
        ]
    )
    return Figure("regression", "From a probability to a depth", alt, body, {**data, "unit": unit}, caption)


def _read(
    bumps: Sequence[Bump], depths: Tensor, interval: float, background: float, temperature: float
) -> _Reading:
    score = torch.full_like(depths, background)
    for position, height, width in bumps:
        score = score + height * torch.exp(-(((depths - position) / (width * interval)) ** 2) / 2)
    cost = -score.log().view(1, -1, 1, 1) / temperature
    expectation, probability = depth.soft_argmin(cost, depths)
    winner, _ = winner_take_all(probability, depths)
    trust = probability_map(probability, expectation, depths)
    return _Reading(score, probability.flatten(), expectation.item(), winner.item(), trust.item())


def _panels(bumps: Sequence[Bump], depths: Tensor, interval: float, reading: _Reading, unit: str) -> str:
    x = (depths[0].item() - 0.6 * interval, depths[-1].item() + 0.6 * interval)
    dots = [
        f'<path class="mvs-dot" d="M{number(bump.position)},{number(bump.height)}h0" data-part="dot"/>'
        for bump in bumps
    ]
    score = [curve(1, depths.tolist(), reading.score.tolist(), "score-curve"), *dots]
    top = next(top for top in _TOPS if reading.probability.max() <= top or top == _TOPS[-1])
    label = f"depth, in {unit}" if unit else "depth"
    return "\n".join(
        [
            panel("score exp(\N{MINUS SIGN}cost): drag the bumps", x, (0.0, 1.15), score, "score"),
            panel("probability", x, (0.0, 1.08 * top), _bars(depths, interval, reading, top), "bars", label),
        ]
    )


def _bars(depths: Tensor, interval: float, reading: _Reading, top: float) -> list[str]:
    below = int((depths <= reading.expectation).sum()) - 1
    near = range(below - 1, below + 3)
    columns = list(zip(depths.tolist(), reading.probability.tolist(), strict=True))
    four = [column for j, column in enumerate(columns) if j in near]
    others = [column for j, column in enumerate(columns) if j not in near]
    return [
        f'<path class="mvs-column" d="{_columns(others, interval)}" data-part="others"/>',
        f'<path class="mvs-column mvs-four" d="{_columns(four, interval)}" data-part="four"/>',
        _upright(3, reading.winner, (0.0, 1.08 * top), "winner-line"),
        _upright(2, reading.expectation, (0.0, 1.08 * top), "expectation-line"),
    ]


def _columns(columns: Sequence[tuple[float, float]], interval: float) -> str:
    half = 0.4 * interval
    return "".join(f"M{number(x - half)},0V{number(p)}H{number(x + half)}V0Z" for x, p in columns)


def _upright(style: int, x: float, y: Range, part: str) -> str:
    x_, low, high = map(number, (x, *y))
    return f'<line class="mvs-c{style}" x1="{x_}" x2="{x_}" y1="{low}" y2="{high}" data-part="{part}"/>'


def _key(reading: _Reading) -> str:
    """The three numbers, each beside a sample of how it is drawn."""
    line = '<svg width="26" height="10" aria-hidden="true"><path class="mvs-c{}" d="M0,5H26"/></svg>'
    box = (
        '<svg width="14" height="12" aria-hidden="true">'
        '<path class="mvs-column mvs-four" d="M2,12V0H12V12Z"/></svg>'
    )
    entries = (
        (line.format(2), "expectation", "expectation", reading.expectation),
        (line.format(3), "winner", "winner", reading.winner),
        (box, "probability map: the four planes around the expectation", "trust", reading.trust),
    )
    spans = (
        f'<span>{sample}{name} <b data-part="{part}">{value:.3f}</b></span>'
        for sample, name, part, value in entries
    )
    return f'<p class="mvs-legend">{"".join(spans)}</p>'


def _controls(bumps: Sequence[Bump], depths: Tensor, background: float, temperature: float) -> str:
    first, last = depths[0].item(), depths[-1].item()
    step = (last - first) / (10 * max(len(depths) - 1, 1))
    groups = []
    for k, bump in enumerate(bumps, start=1):
        sliders = (
            _slider(f"Position of bump {k}", "position", (first, last), step, bump.position),
            _slider(f"Height of bump {k}", "height", (0.01, 1.0), 0.01, bump.height),
            _slider(f"Width of bump {k}", "width", (0.1, 8.0), 0.1, bump.width),
        )
        groups.append(f"<div>{''.join(sliders)}</div>")
    shared = (
        _slider("Background", "background", (0.0, 0.5), 0.01, background),
        _slider("Temperature", "temperature", (0.1, 4.0), 0.1, temperature),
    )
    groups.append(f"<div>{''.join(shared)}</div>")
    return f"""<div class="mvs-sliders mvs-live">{"".join(groups)}</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>"""


def _slider(name: str, part: str, limits: Range, step: float, value: float) -> str:
    low, high, step_, value_ = map(number, (*limits, step, value))
    return (
        f'<label>{name} <input type="range" min="{low}" max="{high}" step="{step_}" value="{value_}" '
        f'autocomplete="off" data-part="{part}"></label>'
    )
