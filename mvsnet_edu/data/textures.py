"""What surfaces look like: noise of many octaves, patterns, and three kinds of drawn pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .dice import Dice
from .render import PATTERNS, Texture

__all__ = ["leaves", "noise_texture", "script", "spectrum", "wild_texture"]

#: Pixels of a drawn picture in each direction.
SIZE = 96


def noise_texture(
    dice: Dice, size: float, pattern: str, colors: Tensor, roughness: float, gloss: float = 0.0
) -> Texture:
    """Noise from half the solid's size down to about a pixel, its spectrum drawn at random.

    Args:
        dice: draws it.
        size: of the solid, in world units.
        pattern: one of ``PATTERNS`` of :mod:`mvsnet_edu.data.render`.
        colors: (2, 3), RGB in [0, 1].
        roughness: root mean square of the amplitudes.
        gloss: strength of the highlight.

    Returns:
        the texture.

    Source: ours.
    """
    slope = dice.number(-0.1, 0.7)
    strengths = torch.tensor([2.0 ** (-slope * octave) for octave in range(7)])
    amplitudes = tuple((roughness * strengths / strengths.norm()).tolist())
    return Texture(pattern, colors, size * dice.number(0.2, 0.5), _noise(dice), size, amplitudes, gloss=gloss)


def _noise(dice: Dice) -> Tensor:
    cells = dice.uniform(-1, 1, 3, 16, 16, 16)
    grey = cells.mean(dim=0, keepdim=True) * 1.7
    cells = torch.lerp(grey, cells, dice.number(0.1, 0.7))  # mostly light and dark, some colour
    return F.pad(cells[None], (0, 1, 0, 1, 0, 1), mode="circular")[0]


def wild_texture(dice: Dice, size: float) -> Texture:
    """Anything, for training: drawn or patterned, from strong to next to nothing, coloured or grey.

    Args:
        dice: draws it.
        size: of the solid, in world units.

    Returns:
        the texture.

    Source: ours.
    """
    roughness = dice.power(0.08, 0.8)
    gloss = dice.number(0, 0.4) if dice.chance(0.3) else 0.0
    pattern = dice.choice(tuple(PATTERNS))
    texture = noise_texture(dice, size, pattern, _colors(dice, 2), roughness, gloss)
    texture = replace(texture, blocky=dice.chance(0.2), scale=size * dice.power(0.1, 1))
    if dice.chance(0.45):
        across = dice.uniform(-1, 1, 3, 2) * 0.5 + dice.choice(_PROJECTIONS)
        picture = dice.choice((leaves, leaves, script, spectrum))(dice)
        return replace(texture, picture=picture, across=across, scale=dice.power(0.4, 4))
    return texture


_PROJECTIONS = tuple(torch.eye(3, dtype=torch.float64)[:, list(axes)] for axes in ((0, 1), (0, 2), (1, 2)))


def _colors(dice: Dice, count: int) -> Tensor:
    """RGB (count, 3), more or less grey, with more or less contrast."""
    colors = dice.uniform(0.05, 0.95, count, 3)
    colors = torch.lerp(colors.mean(dim=1, keepdim=True).expand(count, 3), colors, dice.number(0, 1))
    return torch.lerp(colors[:1].expand(count, 3), colors, dice.number(0.3, 1))


def leaves(dice: Dice, size: int = SIZE) -> Tensor:
    """Shapes of all sizes that hide one another: the statistics of photographs without a photograph.

    Args:
        dice: draws it.
        size: in pixels.

    Returns:
        (3, size + 1, size + 1), periodic.

    Source: the dead leaves model (Lee, Mumford and Huang, 2001).
    """
    count, shape = 160, dice.choice(("disc", "box", "bar", "mixed"))
    colors = _colors(dice, count)
    radii = 2.0 / dice.uniform((6 / size) ** 2, 1, count).sqrt()  # how many: one over the radius cubed
    canvas = colors[0, :, None, None].expand(3, size, size).clone()
    for radius, color in zip(radii.tolist(), colors, strict=True):
        kind = dice.choice(("disc", "box", "bar")) if shape == "mixed" else shape
        _paint(canvas, kind, radius, color, dice)
    return _closed(canvas)


def _paint(canvas: Tensor, kind: str, radius: float, color: Tensor, dice: Dice) -> None:
    size, reach = canvas.shape[-1], math.ceil(1.5 * radius)
    turn, row, column = dice.uniform(0, 1, 3).tolist()
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64)
    c, s = math.cos(6.283 * turn), math.sin(6.283 * turn)
    x, y = c * offset + s * offset[:, None], c * offset[:, None] - s * offset
    inside = {
        "disc": lambda: x * x + y * y < radius * radius,
        "box": lambda: torch.maximum(x.abs(), y.abs()) < radius,
        "bar": lambda: torch.maximum(x.abs(), 8 * y.abs()) < 1.5 * radius,
    }[kind]()
    rows = (offset.long() + int(row * size)) % size
    columns = (offset.long() + int(column * size)) % size
    shade = 1 + 0.2 * (turn - 0.5) * x / radius  # a little gradient across
    patch = canvas[:, rows[:, None], columns]
    canvas[:, rows[:, None], columns] = torch.where(inside, color[:, None, None] * shade, patch)


def script(dice: Dice, size: int = SIZE) -> Tensor:
    """Lines of small signs, like print.

    Args:
        dice: draws it.
        size: in pixels.

    Returns:
        (3, size + 1, size + 1), periodic.

    Source: ours.
    """
    dot = dice.integer(1, 3)
    count = -(-size // dot)
    row, column = torch.arange(count)[:, None], torch.arange(count)
    words = dice.uniform(0, 1, count // 9 + 1, count // 5 + 1)[row // 9, column // 5] < 0.8
    ink = (dice.uniform(0, 1, count, count) < 0.5) & (row % 9 < 7) & (column % 5 < 4) & words
    ink = ink.repeat_interleave(dot, 0).repeat_interleave(dot, 1)[:size, :size]
    paper, pen = _colors(dice, 2)
    return _closed(torch.where(ink, pen[:, None, None], paper[:, None, None]))


def spectrum(dice: Dice, size: int = SIZE) -> Tensor:
    """Noise whose amplitude falls with a power of the frequency, like clouds, rust or rock.

    Args:
        dice: draws it.
        size: in pixels.

    Returns:
        (3, size + 1, size + 1), periodic.

    Source: ours.
    """
    y, x = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
    fall = (x * x + y * y).sqrt().clamp(min=1 / size) ** -dice.number(0.5, 1.8)
    waves = torch.fft.irfft2(torch.fft.rfft2(dice.normal(2, size, size)) * fall, s=(size, size))
    waves = waves / waves.std(dim=(-2, -1), keepdim=True)
    waves = torch.tanh(dice.power(0.4, 4) * waves) * 0.5 + 0.5  # from soft to sharply bordered
    first, second, third = _colors(dice, 3)[:, :, None, None]
    return _closed(torch.lerp(torch.lerp(first, second, waves[0]), third, 0.5 * waves[1]))


def _closed(picture: Tensor) -> Tensor:
    """The first row and column again at the end."""
    return F.pad(picture[None], (0, 1, 0, 1), mode="circular")[0]
