"""Scenes that the package draws itself: random solids, textures and cameras, with exact depth.

Two kinds of use: :func:`make_scene` writes a folder in MVSNet's format (it made those in ``data/``), and
:class:`SyntheticScenes` is an endless stream of training samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import IterableDataset

from ..camera import backproject, camera_center, project, scale_intrinsics
from .formats import Camera
from .render import Solid, Texture, World, cast, render
from .scene import Sample, refuse_full, write_scene
from .views import select_sources, view_scores

__all__ = ["LAYOUTS", "SHIPPED", "SyntheticScenes", "make_scene", "random_sample", "random_views"]

#: Colours that go together, for pictures that people look at.
PALETTE = torch.tensor(
    [
        [0.78, 0.36, 0.24], [0.86, 0.64, 0.30], [0.93, 0.87, 0.74], [0.20, 0.44, 0.47], [0.17, 0.24, 0.38],
        [0.55, 0.66, 0.48], [0.62, 0.28, 0.38], [0.90, 0.76, 0.62], [0.36, 0.26, 0.20], [0.40, 0.58, 0.72],
    ],
    dtype=torch.float64,
)  # fmt: skip
BODIES = ("ellipsoid", "box", "cylinder", "roof", "hexagon", "pyramid")


class Dice:
    """Random numbers in float64 from one seed, the same on every machine."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def number(self, low: float, high: float) -> float:
        return self.uniform(low, high).item()

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def choice(self, options: tuple[str, ...]) -> str:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, probability: float) -> bool:
        return self.number(0, 1) < probability


# ------------------------------------------------------------------------------------------
# Textures


def _noise(dice: Dice) -> Tensor:
    cells = dice.uniform(-1, 1, 3, 16, 16, 16)
    grey = cells.mean(dim=0, keepdim=True) * 1.7
    cells = torch.lerp(grey, cells, dice.number(0.1, 0.7))  # mostly light and dark, some colour
    return F.pad(cells[None], (0, 1, 0, 1, 0, 1), mode="circular")[0]


def _texture(
    dice: Dice, size: float, pattern: str, colors: Tensor, roughness: float, gloss: float = 0.0
) -> Texture:
    """Noise from half the solid's size down to about a pixel, its spectrum drawn at random."""
    slope = dice.number(-0.1, 0.7)
    spectrum = torch.tensor([2.0 ** (-slope * octave) for octave in range(7)])
    amplitudes = roughness * spectrum / spectrum.norm()
    return Texture(
        pattern,
        colors,
        size * dice.number(0.2, 0.5),
        _noise(dice),
        size,
        tuple(amplitudes.tolist()),
        gloss=gloss,
    )


def _pretty_texture(dice: Dice, size: float, patterns: tuple[str, ...], gloss: float = 0.0) -> Texture:
    pick = torch.randperm(len(PALETTE), generator=dice.generator)[:2]
    return _texture(dice, size, dice.choice(patterns), PALETTE[pick], dice.number(0.25, 0.4), gloss)


def _wild_texture(dice: Dice, size: float) -> Texture:
    """Anything, for training: from strong to weak, coloured or grey, smooth or blocky."""
    pattern = dice.choice(
        ("plain", "plain", "plain", "checker", "stripes", "bricks", "marble", "wood", "spots")
    )
    colors = dice.uniform(0.1, 0.95, 2, 3)
    colors = torch.lerp(colors.mean(dim=1, keepdim=True).expand(2, 3), colors, dice.number(0, 1))
    colors[1] = torch.lerp(colors[0], colors[1], dice.number(0.2, 1))
    roughness = 0.8 * 10 ** dice.number(-0.9, 0)
    texture = _texture(
        dice, size, pattern, colors, roughness, dice.number(0, 0.3) if dice.chance(0.3) else 0.0
    )
    return replace(texture, blocky=dice.chance(0.25), scale=size * 10 ** dice.number(-1, 0))


# ------------------------------------------------------------------------------------------
# Worlds


def _turn(dice: Dice, tilt: float = 0.0) -> Tensor:
    """Own to world coordinates: any turn about z, after a tilt of at most so many radians."""
    z = _rotation(torch.tensor([0.0, 0, 1]), dice.number(-math.pi, math.pi))
    return z @ _rotation(F.normalize(dice.uniform(-1, 1, 3), dim=0), dice.number(-tilt, tilt))


def _rotation(axis: Tensor, angle: float) -> Tensor:
    x, y, z = (angle * axis).tolist()
    return torch.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _ground(texture: Texture, height: float = 0.0) -> Solid:
    return Solid("plane", _vector(0, 0, height), _vector(1, 1, 1), torch.eye(3, dtype=torch.float64), texture)


def _upright(texture: Texture, y: float) -> Solid:
    """A wall through (0, y, 0) that faces the cameras, which stand where y is negative."""
    rotation = _rotation(_vector(1, 0, 0), math.pi / 2)
    return Solid("plane", _vector(0, y, 0), _vector(1, 1, 1), rotation, texture)


def _sun(dice: Dice) -> Tensor:
    return F.normalize(_vector(dice.number(-1, 1), dice.number(-1.2, -0.4), dice.number(0.8, 1.6)), dim=0)


def _pretty_body(dice: Dice, position: Tensor, size: float) -> Solid:
    """Something that stands on the ground at (x, y)."""
    shape = dice.choice(BODIES)
    half = size * dice.uniform(0.7, 1.25, 3)
    half[1] = half[0] if shape in ("cylinder", "hexagon", "pyramid") else half[1]
    texture = _pretty_texture(dice, 2 * size, ("checker", "stripes", "marble", "spots", "wood"), gloss=0.25)
    center = torch.cat([position, half[2:]])
    return Solid(shape, center, half, _turn(dice), texture)


def _still_life(dice: Dice) -> World:
    """Things on a table before a wall."""
    table = _pretty_texture(dice, 2.0, ("wood",))
    table = replace(table, colors=_tones(0.62, 0.45, 0.30), scale=0.9)
    wall = replace(_pretty_texture(dice, 1.6, ("bricks",)), colors=_tones(0.80, 0.74, 0.64), scale=0.5)
    bodies = [_pretty_body(dice, place, dice.number(0.22, 0.36)) for place in _apart(dice, 7, 1.35, 0.62)]
    return World([_ground(table), _upright(wall, 1.9), *bodies], _sun(dice), softness=0.12)


def _courtyard(dice: Dice) -> World:
    """A facade with windows, pilasters and a roof line, and a few things before it."""
    front = replace(_pretty_texture(dice, 1.2, ("bricks",)), colors=_tones(0.72, 0.45, 0.34), scale=0.4)
    floor = replace(_pretty_texture(dice, 1.5, ("checker",)), colors=_tones(0.70, 0.67, 0.60), scale=0.45)
    stone = replace(_pretty_texture(dice, 0.8, ("plain",)), colors=_tones(0.88, 0.83, 0.72))
    glass = replace(_pretty_texture(dice, 0.5, ("marble",)), colors=_tones(0.24, 0.36, 0.44), gloss=0.4)
    parts = [_block(0, 0.95, 2.62, 3.2, 0.18, 0.10, stone), _block(0, 0.95, 0.1, 3.2, 0.12, 0.12, stone)]
    for column in range(-2, 3):
        for row in (0.85, 1.85):
            x = 1.05 * column
            parts.append(_block(x, 1.0, row, 0.30, 0.08, 0.36, stone))
            parts.append(_block(x, 0.93, row, 0.22, 0.04, 0.28, glass))
        parts.append(_block(1.05 * column + 0.525, 0.98, 1.3, 0.09, 0.14, 1.3, stone))
    bodies = [_pretty_body(dice, place, dice.number(0.18, 0.32)) for place in _apart(dice, 4, 1.4, 0.7)]
    return World([_ground(floor), _upright(front, 1.0), *parts, *bodies], _sun(dice), softness=0.08)


def _clutter(dice: Dice) -> World:
    """Anything anywhere, for training."""
    wall = _upright(_wild_texture(dice, 2.0), dice.number(0.5, 3.0))
    wall = replace(
        wall,
        rotation=_rotation(F.normalize(dice.uniform(-1, 1, 3), dim=0), dice.number(-0.6, 0.6))
        @ wall.rotation,
    )
    solids = [wall]
    if dice.chance(0.6):
        solids.append(_ground(_wild_texture(dice, 2.0), dice.number(-0.6, 0.1)))
    for _ in range(dice.integer(3, 14)):
        size = 0.8 * 10 ** dice.number(-0.9, 0)
        half = size * 10 ** dice.uniform(-0.5, 0.1, 3)
        center = dice.uniform(-1, 1, 3) * _vector(1.3, 1.2, 0.8) + _vector(0, 0, 0.5)
        solids.append(
            Solid(dice.choice(BODIES), center, half, _turn(dice, 1.5), _wild_texture(dice, 2 * size))
        )
    return World(solids, _sun(dice), ambient=dice.number(0.3, 0.8))


def _front(dice: Dice) -> World:
    """A wall with rows of the same thing on it, for training: repetition."""
    wall, stone = _wild_texture(dice, 1.5), _wild_texture(dice, 0.8)
    solids = [_upright(wall, 1.0), _ground(_wild_texture(dice, 1.5), dice.number(-0.4, 0.2))]
    step, width, height, deep = (
        dice.number(*limits) for limits in ((0.4, 1.1), (0.1, 0.45), (0.1, 0.45), (0.02, 0.25))
    )
    for column in range(-2, 3):
        for row in range(dice.integer(1, 2)):
            solids.append(
                _block(step * column, 1.0, 0.4 + row * 2.4 * height, width * step, deep, height, stone)
            )
    for _ in range(dice.integer(0, 4)):
        half = 0.3 * 10 ** dice.uniform(-0.6, 0.2, 3)
        center = dice.uniform(-1, 1, 3) * _vector(1.2, 0.5, 0.4) + _vector(0, 0.2, 0.5)
        solids.append(Solid(dice.choice(BODIES), center, half, _turn(dice, 0.5), _wild_texture(dice, 0.6)))
    return World(solids, _sun(dice), ambient=dice.number(0.3, 0.8))


def _block(
    x: float, y: float, z: float, half_x: float, half_y: float, half_z: float, texture: Texture
) -> Solid:
    return Solid(
        "box", _vector(x, y, z), _vector(half_x, half_y, half_z), torch.eye(3, dtype=torch.float64), texture
    )


def _tones(red: float, green: float, blue: float) -> Tensor:
    """A colour and the same, darker."""
    color = _vector(red, green, blue)
    return torch.stack([color, 0.72 * color])


def _apart(dice: Dice, count: int, spread: float, distance: float) -> list[Tensor]:
    """Places (x, y) that keep their distance."""
    places: list[Tensor] = []
    while len(places) < count:
        place = dice.uniform(-1, 1, 2) * _vector(spread, 0.55 * spread)
        if all((place - other).norm() > distance for other in places):
            places.append(place)
    return places


# ------------------------------------------------------------------------------------------
# Cameras


def _look_at(eye: Tensor, target: Tensor, roll: float = 0.0) -> Tensor:
    """World-to-camera extrinsics (4, 4) of a camera whose y axis points down, as images have it."""
    forward = F.normalize(target - eye, dim=0)
    right = F.normalize(torch.linalg.cross(forward, _vector(0, 0, 1)), dim=0)
    down = torch.linalg.cross(forward, right)
    rotation = _rotation(_vector(0, 0, 1), roll) @ torch.stack([right, down, forward])
    extrinsics = torch.eye(4, dtype=torch.float64)
    extrinsics[:3, :3], extrinsics[:3, 3] = rotation, -rotation @ eye
    return extrinsics


def _intrinsics(size: tuple[int, int], focal: float) -> Tensor:
    """Focal length in image widths, principal point in the middle."""
    width, height = size
    return torch.tensor(
        [[focal * width, 0, width / 2], [0, focal * width, height / 2], [0, 0, 1]], dtype=torch.float64
    )


def _arc(dice: Dice, views: int, target: Tensor, distance: float, height: float, step: float) -> Tensor:
    """Cameras (V, 4, 4) along an arc around the target, a little irregular, as a walker would take them."""
    cameras = []
    for view in range(views):
        turn = step * (view - (views - 1) / 2) + dice.number(-0.15, 0.15) * step
        r, z = distance * dice.number(0.94, 1.06), height * dice.number(0.88, 1.12)
        eye = target + _vector(r * math.sin(turn), -r * math.cos(turn), z)
        cameras.append(_look_at(eye, target + dice.uniform(-0.05, 0.05, 3), dice.number(-0.03, 0.03)))
    return torch.stack(cameras)


def _hand_held(dice: Dice, views: int) -> Tensor:
    """Cameras (V, 4, 4) about a first one, for training: baselines of 3 to 20 % of the distance."""
    target, distance = dice.uniform(-0.4, 0.4, 3) + _vector(0, 0.3, 0.5), dice.number(2.0, 4.0)
    turn, rise = dice.number(-0.7, 0.7), dice.number(-0.1, 0.8)
    first = target + distance * _vector(
        math.sin(turn) * math.cos(rise), -math.cos(turn) * math.cos(rise), math.sin(rise)
    )
    first[2] = first[2].clamp(min=0.25)
    roll, cameras = dice.number(-0.15, 0.15), []
    for view in range(views):
        step = F.normalize(dice.uniform(-1, 1, 3), dim=0) * distance * dice.number(0.03, 0.2) * (view > 0)
        aim = target + dice.uniform(-0.06, 0.06, 3) * distance * (view > 0)
        cameras.append(_look_at(first + step, aim, roll + (dice.number(-0.1, 0.1) if view else 0.0)))
    return torch.stack(cameras)


# ------------------------------------------------------------------------------------------
# Scene folders


@dataclass(frozen=True)
class Layout:
    """A kind of scene that :func:`make_scene` draws, and how it is photographed."""

    world: Callable[[Dice], World]
    target: tuple[float, float, float]
    distance: float
    height: float
    step: float
    focal: float


#: What :func:`make_scene` can draw, by name.
LAYOUTS: dict[str, Layout] = {
    "still-life": Layout(_still_life, (0, 0.1, 0.35), 3.6, 1.5, 0.13, 1.15),
    "courtyard": Layout(_courtyard, (0, 0.6, 1.2), 4.6, 0.6, 0.11, 0.95),
}

#: The scenes in ``data/``: folder -> arguments of :func:`make_scene`.
SHIPPED: dict[str, dict] = {
    "still_life": {"layout": "still-life", "seed": 7, "views": 7},
    "courtyard": {"layout": "courtyard", "seed": 4, "views": 5},
}


def make_scene(
    folder: str | PathLike[str],
    layout: str,
    *,
    seed: int = 0,
    views: int = 7,
    size: tuple[int, int] = (640, 512),
    planes: int = 96,
    progress: Callable[[range], Iterator[int]] = iter,
) -> None:
    """Draw a scene and write it in MVSNet's folder format, with exact depth at a quarter of the size.

    The same arguments give the same bytes.

    Args:
        folder: where to; must not hold files.
        layout: one of :data:`LAYOUTS`.
        seed: draws other objects, textures, light and camera positions.
        views: number of photographs.
        size: (width, height) of the photographs, in pixels; multiples of 4.
        planes: number of depth hypotheses that the camera files ask for.
        progress: wraps the loop over views, for instance with a progress bar.

    Raises:
        InputError: if the folder holds files.
        ValueError: for an unknown layout, fewer than two views, or a size that is no multiple of 4.

    Source: the format is that of the README of the original.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    if views < 2 or min(size) < 32 or size[0] % 4 or size[1] % 4:
        raise ValueError(
            f"need at least 2 views of a multiple of 4 pixels, 32 or more, not {views} of {size}"
        )
    refuse_full(Path(folder))  # before minutes of drawing
    plan, dice = LAYOUTS[layout], Dice(seed)
    world = plan.world(dice)
    extrinsics = _arc(dice, views, _vector(*plan.target), plan.distance, plan.height, plan.step)
    extrinsics = extrinsics.round(decimals=10)  # the last bits of sin and cos differ between machines
    intrinsics = _intrinsics(size, plan.focal)
    quarter = (size[0] // 4, size[1] // 4)
    small = scale_intrinsics(intrinsics, 0.25)
    images = [
        render(world, intrinsics, extrinsics[v], size, samples=2, lights=8).float()
        for v in progress(range(views))
    ]
    depths = [cast(world, small, E, quarter) for E in extrinsics]
    cameras = [_camera(E, intrinsics, depth, planes) for E, depth in zip(extrinsics, depths, strict=True)]
    pairs = select_sources(view_scores(*_landmarks(depths, small, extrinsics), camera_center(extrinsics)))
    write_scene(folder, dict(enumerate(images)), dict(enumerate(cameras)), pairs, dict(enumerate(depths)))


def _camera(extrinsics: Tensor, intrinsics: Tensor, depth: Tensor, planes: int) -> Camera:
    """The range of the depths seen, with a margin of 2 %."""
    seen = depth[depth > 0]
    low, high = 0.98 * seen.min().item(), 1.02 * seen.max().item()
    interval = (high - low) / (planes - 1)
    return Camera(extrinsics, intrinsics, low, interval, planes, high)


def _landmarks(depths: list[Tensor], intrinsics: Tensor, extrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Surface points (P, 3) on a coarse grid of every view, and which views see them (V, P)."""
    V, (h, w) = len(depths), depths[0].shape
    rays = torch.stack(
        [_points(depth, intrinsics, E)[4::8, 4::8] for depth, E in zip(depths, extrinsics, strict=True)]
    )
    points = rays.reshape(-1, 3)
    visible = torch.zeros(V, len(points), dtype=torch.bool)
    for v in range(V):
        pixels, z = project(points, intrinsics, extrinsics[v])
        inside = (z > 0) & (pixels > 0).all(-1) & (pixels < pixels.new_tensor([w, h])).all(-1)
        column, row = pixels.nan_to_num(0).long().clamp(min=0).unbind(-1)
        seen = depths[v][row.clamp(max=h - 1), column.clamp(max=w - 1)]
        visible[v] = inside & ((z - seen).abs() < 0.01 * z)
    return points, visible


def _points(depth: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    return backproject(depth[None], intrinsics[None], extrinsics[None])[0]


# ------------------------------------------------------------------------------------------
# Training samples


def random_views(seed: int, views: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random scene for training, photographed from a few places.

    Args:
        seed: which scene.
        views: how many photographs, V.
        size: (width, height), in pixels.

    Returns:
        images (V, 3, H, W) in [0, 1], intrinsics (3, 3), extrinsics (V, 4, 4), depths (V, H // 4, W // 4).

    Source: ours.
    """
    dice = Dice(seed)
    world = _single(_front(dice) if dice.chance(0.25) else _clutter(dice))
    extrinsics, intrinsics = _hand_held(dice, views).float(), _intrinsics(size, dice.number(0.7, 1.4)).float()
    lights = dice.integer(0, 1)  # shadows in every other scene: they take half of the time
    images = torch.stack([_expose(render(world, intrinsics, E, size, 2, lights), dice) for E in extrinsics])
    quarter, small = (size[0] // 4, size[1] // 4), scale_intrinsics(intrinsics, 0.25)
    return images, intrinsics, extrinsics, torch.stack([cast(world, small, E, quarter) for E in extrinsics])


def _single(world: World) -> World:
    """The same in float32: half the memory traffic."""
    solids = [
        replace(
            s,
            center=s.center.float(),
            half_size=s.half_size.float(),
            rotation=s.rotation.float(),
            texture=replace(s.texture, noise=s.texture.noise.float()),
        )
        for s in world.solids
    ]
    return replace(world, solids=solids)


def _expose(image: Tensor, dice: Dice) -> Tensor:
    """What a camera adds: exposure, white balance, contrast, blur, noise, eight bits."""
    gain = (
        0.5
        / image.mean().clamp(min=0.1)
        * 2 ** dice.number(-0.7, 0.7)
        * dice.uniform(0.9, 1.1, 3, 1, 1).float()
    )
    image = (image * gain).clamp(0, 1) ** (2 ** dice.number(-0.4, 0.4))
    if dice.chance(0.3):
        image = torch.lerp(
            image, F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1), dice.number(0, 1)
        )
    noise = torch.randn(image.shape, generator=dice.generator) * dice.number(0, 0.03)
    return ((image + noise).clamp(0, 1) * 255).round() / 255


def random_sample(
    views: tuple[Tensor, Tensor, Tensor, Tensor], order: list[int], depth_num: int, dice: Dice
) -> Sample | None:
    """One of the views as the reference, others as its sources, with a range of depths around what it sees.

    Args:
        views: from :func:`random_views`.
        order: which views, the reference first.
        depth_num: number of hypotheses, D.
        dice: draws the margins of the range.

    Returns:
        the sample; None where the reference sees next to nothing.

    Source: ours; truth outside the range is set to 0, as the original's loader does.
    """
    images, intrinsics, extrinsics, depths = views
    depth = depths[order[0]]
    seen = depth[depth > 0]
    if len(seen) < 0.3 * depth.numel():
        return None
    low = torch.quantile(seen, 0.01).item() * (1 - dice.number(0, 0.15))
    high = torch.quantile(seen, 0.98).item() * (1 + dice.number(0, 0.3))
    return Sample(
        images=images[order][None],
        intrinsics=intrinsics.expand(1, len(order), 3, 3),
        extrinsics=extrinsics[order][None],
        depth_values=torch.linspace(low, high, depth_num)[None],
        depth_interval=torch.tensor([(high - low) / (depth_num - 1)]),
        ground_truth=torch.where((depth >= low) & (depth <= high), depth, 0)[None],
        views=order,
    )


class SyntheticScenes(IterableDataset):
    """Endless training samples; the same seed gives the same stream.

    Args:
        seed: where the stream of scenes starts.
        size: (width, height) of the photographs, in pixels.
        depth_num: number of depth hypotheses, D.
        shots: photographs of each scene; each is the reference of one sample.

    Source: ours.
    """

    #: Seeds from here on are never used for training: the held-out scenes start here.
    HELD_OUT = 10**9

    def __init__(
        self, seed: int = 0, size: tuple[int, int] = (160, 128), depth_num: int = 48, shots: int = 5
    ):
        self.seed, self.size, self.depth_num, self.shots = seed, size, depth_num, shots

    def __iter__(self) -> Iterator[Sample]:
        """Samples in the order they are drawn: those of one scene follow one another."""
        dice, scene = Dice(self.seed), self.seed
        while True:
            views, scene = random_views(scene, self.shots, self.size), scene + 1
            for reference in range(self.shots):
                others = [
                    v for v in torch.randperm(self.shots, generator=dice.generator).tolist() if v != reference
                ]
                sample = random_sample(views, [reference, *others], self.depth_num, dice)
                if sample is not None:
                    yield sample
