"""The worlds that training sees: many kinds of shapes, from a desk to a facade, and cameras held by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .dice import Dice
from .render import Blob, Relief, Solid, Texture, World
from .textures import noise_texture, wild_texture

__all__ = ["BODIES", "WORLDS", "hand_held", "look_at", "pinhole", "wild_world"]

#: Shapes with flat or round sides; see :mod:`mvsnet_edu.data.render`.
BODIES = ("ellipsoid", "box", "cylinder", "roof", "hexagon", "pyramid")
_EYE = torch.eye(3, dtype=torch.float64)


# ------------------------------------------------------------------------------------------
# Parts, for every world: x to the right, y away from the cameras, z up


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rotation(axis: Tensor, angle: float) -> Tensor:
    """(3, 3), by so many radians about an axis of length 1."""
    x, y, z = (angle * axis).tolist()
    return torch.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))


def turn(dice: Dice, tilt: float = 0.0) -> Tensor:
    """Own to world coordinates: any turn about z, after a tilt of at most so many radians."""
    z = rotation(torch.tensor([0.0, 0, 1]), dice.number(-math.pi, math.pi))
    return z @ _tilt(dice, tilt)


def _tilt(dice: Dice, most: float) -> Tensor:
    return rotation(F.normalize(dice.uniform(-1, 1, 3), dim=0), dice.number(-most, most))


def ground(texture: Texture, height: float = 0.0) -> Solid:
    return Solid("plane", vector(0, 0, height), vector(1, 1, 1), _EYE, texture)


#: Turns a plane that lies flat into a wall that faces the cameras, which stand where y is negative.
UPRIGHT = rotation(vector(1, 0, 0), math.pi / 2)


def upright(texture: Texture, y: float) -> Solid:
    """A wall through (0, y, 0)."""
    return Solid("plane", vector(0, y, 0), vector(1, 1, 1), UPRIGHT, texture)


def block(
    x: float, y: float, z: float, half_x: float, half_y: float, half_z: float, texture: Texture
) -> Solid:
    return Solid("box", vector(x, y, z), vector(half_x, half_y, half_z), _EYE, texture)


def sun(dice: Dice) -> Tensor:
    return F.normalize(vector(dice.number(-1, 1), dice.number(-1.2, -0.4), dice.number(0.8, 1.6)), dim=0)


# ------------------------------------------------------------------------------------------
# Wild parts


def _wild_body(dice: Dice, center: Tensor, size: float, tilt: float = 1.5) -> Solid:
    """A solid, a dented ball or a thin rod."""
    half, spin = size * 10 ** dice.uniform(-0.5, 0.1, 3), turn(dice, tilt)
    texture = wild_texture(dice, 2 * size)
    if dice.chance(0.25):
        bumps = _periodic_noise(dice, 6, 3)
        return Blob("blob", center, half.clamp(min=0.4 * size), spin, texture, bumps, dice.number(0.2, 0.7))
    if dice.chance(0.15):
        half = torch.stack([half[0], half[0], half[0] * 12]) * 0.25
        return Solid(dice.choice(("cylinder", "box")), center, half, spin, texture)
    return Solid(dice.choice(BODIES), center, half, spin, texture)


def _scatter(dice: Dice, count: int, spread: Tensor, middle: Tensor, largest: float) -> list[Solid]:
    """Bodies of all sizes in a box."""
    return [
        _wild_body(dice, middle + dice.uniform(-1, 1, 3) * spread, largest * 10 ** dice.number(-1, 0))
        for _ in range(count)
    ]


def _periodic_noise(dice: Dice, cells: int, dims: int) -> Tensor:
    noise = dice.uniform(-1, 1, 1, *[cells] * dims)
    return F.pad(noise[None], (0, 1) * dims, mode="circular")[0]


def _relief(dice: Dice, base: Solid, period: float, height: float, bumps: Tensor) -> Relief:
    """A plane turned into a relief of such a height, around its middle."""
    half = vector(period / 2, period / 2, height / 2)
    return Relief("relief", base.center, half, base.rotation, base.texture, bumps)


def _hills(dice: Dice, size: int = 64) -> Tensor:
    """(1, size + 1, size + 1) in [-1, 1], periodic: smooth noise of three scales, or heaps of stones."""
    total = torch.zeros(1, 1, size, size, dtype=torch.float64)
    slope = dice.number(0.8, 2)
    for octave in range(dice.integer(1, 4)):
        cells = F.pad(_periodic_noise(dice, 3 * 2**octave, 2)[None, :, :-1, :-1], (2, 2, 2, 2), "circular")
        zoom = size // (3 * 2**octave) + 1
        smooth = F.interpolate(cells, scale_factor=zoom, mode="bicubic")
        total += 2.0 ** (-slope * octave) * smooth[..., 2 * zoom :, 2 * zoom :][..., :size, :size]
    bumps = total / total.abs().max()
    return F.pad(bumps, (0, 1, 0, 1), mode="circular")[0]


def _coffers(dice: Dice, size: int = 64) -> Tensor:
    """(1, size + 1, size + 1) in [-1, 1], periodic: sunk and raised rectangles in rows, like a front."""
    bumps = torch.zeros(size, size, dtype=torch.float64)
    for _ in range(dice.integer(1, 3)):
        nx, ny = dice.integer(2, 5), dice.integer(2, 5)
        wide, high = dice.uniform(0.25, 0.7, 2).tolist()
        x, y = torch.arange(size) * nx / size % 1, torch.arange(size)[:, None] * ny / size % 1
        bumps += dice.number(-1, 1) * ((x < wide) & (y < high))
    bumps = bumps / bumps.abs().max().clamp(min=1e-6)
    return F.pad(bumps[None, None], (0, 1, 0, 1), mode="circular")[0]


# ------------------------------------------------------------------------------------------
# Worlds


def _clutter(dice: Dice) -> list[Solid]:
    """Anything anywhere before a tilted wall."""
    wall = upright(wild_texture(dice, 2.0), dice.number(0.5, 3.0))
    wall = Solid("plane", wall.center, wall.half_size, _tilt(dice, 0.7) @ wall.rotation, wall.texture)
    floor = [ground(wild_texture(dice, 2.0), dice.number(-0.6, 0.1))] if dice.chance(0.6) else []
    return [wall, *floor, *_scatter(dice, dice.integer(3, 14), vector(1.3, 1.2, 0.8), vector(0, 0, 0.5), 0.8)]


def _front(dice: Dice) -> list[Solid]:
    """A wall with rows of the same thing on it: repetition."""
    wall, stone = wild_texture(dice, 1.5), wild_texture(dice, 0.8)
    solids = [upright(wall, 1.0), ground(wild_texture(dice, 1.5), dice.number(-0.4, 0.2))]
    step, width, height, deep = (
        dice.number(*limits) for limits in ((0.4, 1.1), (0.1, 0.45), (0.1, 0.45), (0.02, 0.25))
    )
    for column in range(-2, 3):
        for row in range(dice.integer(1, 2)):
            z = 0.4 + row * 2.4 * height
            solids.append(block(step * column, 1.0, z, width * step, deep, height, stone))
    return solids + _scatter(dice, dice.integer(0, 4), vector(1.2, 0.5, 0.4), vector(0, 0.2, 0.5), 0.4)


def _facade(dice: Dice) -> list[Solid]:
    """A wall in relief, seen at an angle, with a ground."""
    wall = upright(wild_texture(dice, dice.power(0.5, 3)), dice.number(0.4, 1.5))
    bumps = _coffers(dice) if dice.chance(0.7) else _hills(dice)
    wall = _relief(dice, wall, dice.power(1, 4), dice.power(0.05, 0.5), bumps)
    wall = Relief(
        "relief",
        wall.center,
        wall.half_size,
        rotation(vector(0, 0, 1), dice.number(-0.6, 0.6)) @ wall.rotation,
        wall.texture,
        wall.bumps,
    )
    floor = ground(wild_texture(dice, 2.0), dice.number(-0.5, 0.1))
    return [wall, floor, *_scatter(dice, dice.integer(0, 5), vector(1.2, 0.5, 0.5), vector(0, 0, 0.4), 0.5)]


def _terrain(dice: Dice) -> list[Solid]:
    """Hills, and what stands on them."""
    floor = ground(wild_texture(dice, dice.power(0.5, 3)), dice.number(-0.3, 0.1))
    hills = _relief(dice, floor, dice.power(1, 5), dice.power(0.1, 0.8), _hills(dice))
    far = [upright(wild_texture(dice, 3.0), dice.number(2, 8))] if dice.chance(0.7) else []
    return [hills, *far, *_scatter(dice, dice.integer(1, 8), vector(1.5, 1.5, 0.3), vector(0, 0.5, 0.3), 0.5)]


def _street(dice: Dice) -> list[Solid]:
    """Walls that recede on one or both sides: a wide range of depths."""
    solids = [ground(wild_texture(dice, 1.5), dice.number(-0.3, 0.2))]
    solids.append(upright(wild_texture(dice, 3.0), dice.power(2.5, 12)))
    for side in dice.choice(((-1,), (1,), (-1, 1))):
        spin = rotation(vector(0, 0, 1), -side * dice.number(1.1, 1.6)) @ UPRIGHT
        wall = Solid(
            "plane", vector(side * dice.number(0.6, 1.6), 0, 0), vector(1, 1, 1), spin, wild_texture(dice, 2)
        )
        bumps = _relief(dice, wall, dice.power(1, 3), dice.power(0.05, 0.3), _coffers(dice))
        solids.append(bumps if dice.chance(0.5) else wall)
    return solids + _scatter(dice, dice.integer(2, 9), vector(1.0, 2.5, 0.3), vector(0, 1.5, 0.3), 0.4)


def _fence(dice: Dice) -> list[Solid]:
    """Thin bars before a background."""
    texture, thick = wild_texture(dice, 1.0), dice.power(0.008, 0.05)
    step, y = dice.power(3, 12) * thick, dice.number(-0.9, 0.3)
    spin = rotation(vector(0, 1, 0), dice.number(-0.5, 0.5) + dice.choice((0.0, math.pi / 2)))
    half, count = vector(thick, thick, dice.number(0.5, 1.5)), dice.integer(2, 7)
    shape = dice.choice(("cylinder", "box"))
    bars = [
        Solid(shape, spin @ vector(step * (k - count / 2), 0, 0) + vector(0, y, 0.5), half, spin, texture)
        for k in range(count)
    ]
    return bars + dice.choice((_clutter, _facade, _terrain))(dice)


def _heap(dice: Dice) -> list[Solid]:
    """Many dented balls on rough ground: rocks, fruit, bushes."""
    floor = ground(wild_texture(dice, 1.0), dice.number(-0.2, 0.1))
    floor = _relief(dice, floor, dice.power(0.6, 3), dice.power(0.05, 0.4), _hills(dice))
    wall = upright(wild_texture(dice, 2.0), dice.number(0.8, 4.0))
    textures = [wild_texture(dice, 0.6) for _ in range(3)]
    solids: list[Solid] = [wall, floor]
    for _ in range(dice.integer(5, 16)):
        center = dice.uniform(-1, 1, 3) * vector(1.2, 0.8, 0.4) + vector(0, 0.2, 0.3)
        half = dice.power(0.08, 0.4) * dice.uniform(0.6, 1.2, 3)
        bumps = _periodic_noise(dice, 6, 3)
        blob = Blob(
            "blob", center, half, turn(dice, 1.5), dice.choice(tuple(textures)), bumps, dice.number(0, 0.6)
        )
        solids.append(blob)
    return solids


#: What training draws from, with how often.
WORLDS: dict[Callable[[Dice], list[Solid]], int] = {
    _clutter: 6,
    _front: 3,
    _facade: 4,
    _terrain: 3,
    _street: 3,
    _fence: 2,
    _heap: 3,
}


def wild_world(dice: Dice) -> World:
    """One of :data:`WORLDS`, in some light, under some sky.

    Args:
        dice: draws it.

    Returns:
        the world, in float64 on the CPU.

    Source: ours.

    >>> len(wild_world(Dice(1)).solids) == len(wild_world(Dice(1)).solids) > 1
    True
    """
    kinds = tuple(kind for kind, often in WORLDS.items() for _ in range(often))
    solids = dice.choice(kinds)(dice)
    sky = torch.tensor([[0.75, 0.85, 0.95], [0.95, 0.95, 0.95]], dtype=torch.float64)
    clouds = noise_texture(dice, 1.0, "plain", sky, dice.power(0.01, 0.2))
    return World(solids, sun(dice), ambient=dice.number(0.3, 0.85), clouds=clouds)


# ------------------------------------------------------------------------------------------
# Cameras


def look_at(eye: Tensor, target: Tensor, roll: float = 0.0) -> Tensor:
    """Extrinsics of a camera that stands upright, but for a roll.

    Args:
        eye: (3,), where it is.
        target: (3,), what it looks at; not straight above or below.
        roll: about its axis, in radians.

    Returns:
        (4, 4), world to camera; the camera's y axis points down, as images have it.

    Source: ours.

    >>> look_at(vector(0, -2, 0), vector(0, 0, 0))[:3, 3]
    tensor([0., 0., 2.], dtype=torch.float64)
    """
    forward = F.normalize(target - eye, dim=0)
    right = F.normalize(torch.linalg.cross(forward, vector(0, 0, 1)), dim=0)
    down = torch.linalg.cross(forward, right)
    turned = rotation(vector(0, 0, 1), roll) @ torch.stack([right, down, forward])
    extrinsics = torch.eye(4, dtype=torch.float64)
    extrinsics[:3, :3], extrinsics[:3, 3] = turned, -turned @ eye
    return extrinsics


def pinhole(size: tuple[int, int], focal: float) -> Tensor:
    """Intrinsics with square pixels and the principal point in the middle.

    Args:
        size: (width, height), in pixels.
        focal: length, in image widths.

    Returns:
        (3, 3), in pixels.

    Source: ours.

    >>> pinhole((40, 30), 1.5)[0]
    tensor([60.,  0., 20.], dtype=torch.float64)
    """
    width, height = size
    return torch.tensor(
        [[focal * width, 0, width / 2], [0, focal * width, height / 2], [0, 0, 1]], dtype=torch.float64
    )


def hand_held(dice: Dice, views: int, focal: float) -> Tensor:
    """Cameras (V, 4, 4) about a first one: steps of 2 to 35 % of the distance, mostly sideways.

    Args:
        dice: draws them.
        views: how many, V.
        focal: in image widths; longer ones stand farther away.

    Returns:
        (V, 4, 4), world to camera.

    Source: ours.
    """
    target, distance = dice.uniform(-0.4, 0.4, 3) + vector(0, 0.3, 0.5), dice.number(2.0, 4.0) * focal**0.7
    swing, rise = dice.number(-0.7, 0.7), dice.number(-0.1, 0.8)
    first = target + distance * vector(
        math.sin(swing) * math.cos(rise), -math.cos(swing) * math.cos(rise), math.sin(rise)
    )
    first[2] = first[2].clamp(min=0.25)
    stride, stray, roll = dice.power(0.05, 0.25), dice.power(0.03, 0.2) / focal, dice.number(-0.15, 0.15)
    cameras = [look_at(first, target, roll)]
    for _ in range(views - 1):
        way = F.normalize(dice.uniform(-1, 1, 3) * vector(1, 0.5, 0.7), dim=0)
        aim = target + dice.uniform(-1, 1, 3) * stray * distance
        step = distance * stride * dice.number(0.4, 1.4) * way
        cameras.append(look_at(first + step, aim, roll + dice.number(-0.12, 0.12)))
    return torch.stack(cameras)
