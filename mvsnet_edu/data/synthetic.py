"""Scenes that the package draws itself, with exact depth.

Two kinds of use: :func:`make_scene` writes a folder in MVSNet's format (it made those in ``data/``), and
:class:`SyntheticScenes` is an endless set of training samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..camera import backproject, camera_center, project, scale_intrinsics
from .dice import Dice
from .formats import MAX_PLANES, Camera
from .photograph import photograph
from .render import Solid, Texture, World, cast, render
from .scene import Sample, refuse_full, write_scene
from .textures import noise_texture
from .views import select_sources, view_scores
from .worlds import (
    BODIES,
    block,
    ground,
    hand_held,
    look_at,
    pinhole,
    rotation,
    sun,
    turn,
    upright,
    vector,
    wild_world,
)

__all__ = ["LAYOUTS", "SHIPPED", "SyntheticScenes", "make_scene", "random_sample", "random_views"]

#: Colours that go together, for pictures that people look at.
PALETTE = torch.tensor(
    [
        [0.78, 0.36, 0.24], [0.86, 0.64, 0.30], [0.93, 0.87, 0.74], [0.20, 0.44, 0.47], [0.17, 0.24, 0.38],
        [0.55, 0.66, 0.48], [0.62, 0.28, 0.38], [0.90, 0.76, 0.62], [0.36, 0.26, 0.20], [0.40, 0.58, 0.72],
    ],
    dtype=torch.float64,
)  # fmt: skip


# ------------------------------------------------------------------------------------------
# Worlds that people look at


def _pretty_texture(dice: Dice, size: float, patterns: tuple[str, ...], gloss: float = 0.0) -> Texture:
    pick = torch.randperm(len(PALETTE), generator=dice.generator)[:2]
    return noise_texture(dice, size, dice.choice(patterns), PALETTE[pick], dice.number(0.25, 0.4), gloss)


def _pretty_body(dice: Dice, position: Tensor, size: float) -> Solid:
    """Something that stands on the ground at (x, y)."""
    shape = dice.choice(BODIES)
    half = size * dice.uniform(0.7, 1.25, 3)
    half[1] = half[0] if shape in ("cylinder", "hexagon", "pyramid") else half[1]
    texture = _pretty_texture(dice, 2 * size, ("checker", "stripes", "marble", "spots", "wood"), gloss=0.25)
    center = torch.cat([position, half[2:]])
    return Solid(shape, center, half, turn(dice), texture)


def _still_life(dice: Dice) -> World:
    """Things on a table before a wall."""
    table = _pretty_texture(dice, 2.0, ("wood",))
    table = replace(table, colors=_tones(0.62, 0.45, 0.30), scale=0.9)
    wall = replace(_pretty_texture(dice, 1.6, ("bricks",)), colors=_tones(0.80, 0.74, 0.64), scale=0.5)
    bodies = [_pretty_body(dice, place, dice.number(0.22, 0.36)) for place in _apart(dice, 7, 1.35, 0.62)]
    return World([ground(table), upright(wall, 1.9), *bodies], sun(dice), softness=0.12)


def _courtyard(dice: Dice) -> World:
    """A facade with windows, pilasters and a roof line, and a few things before it."""
    front = replace(_pretty_texture(dice, 1.2, ("bricks",)), colors=_tones(0.72, 0.45, 0.34), scale=0.4)
    floor = replace(_pretty_texture(dice, 1.5, ("checker",)), colors=_tones(0.70, 0.67, 0.60), scale=0.45)
    stone = replace(_pretty_texture(dice, 0.8, ("plain",)), colors=_tones(0.88, 0.83, 0.72))
    glass = replace(_pretty_texture(dice, 0.5, ("marble",)), colors=_tones(0.24, 0.36, 0.44), gloss=0.4)
    parts = [block(0, 0.95, 2.62, 3.2, 0.18, 0.10, stone), block(0, 0.95, 0.1, 3.2, 0.12, 0.12, stone)]
    for column in range(-2, 3):
        for row in (0.85, 1.85):
            x = 1.05 * column
            parts.append(block(x, 1.0, row, 0.30, 0.08, 0.36, stone))
            parts.append(block(x, 0.93, row, 0.22, 0.04, 0.28, glass))
        parts.append(block(1.05 * column + 0.525, 0.98, 1.3, 0.09, 0.14, 1.3, stone))
    bodies = [_pretty_body(dice, place, dice.number(0.18, 0.32)) for place in _apart(dice, 4, 1.4, 0.7)]
    return World([ground(floor), upright(front, 1.0), *parts, *bodies], sun(dice), softness=0.08)


def _tones(red: float, green: float, blue: float) -> Tensor:
    """A colour and the same, darker."""
    color = vector(red, green, blue)
    return torch.stack([color, 0.72 * color])


def _apart(dice: Dice, count: int, spread: float, distance: float) -> list[Tensor]:
    """Places (x, y) that keep their distance."""
    places: list[Tensor] = []
    while len(places) < count:
        place = dice.uniform(-1, 1, 2) * vector(spread, 0.55 * spread)
        if all((place - other).norm() > distance for other in places):
            places.append(place)
    return places


# ------------------------------------------------------------------------------------------
# Cameras


def _arc(dice: Dice, views: int, target: Tensor, distance: float, height: float, step: float) -> Tensor:
    """Cameras (V, 4, 4) along an arc around the target, a little irregular, as a walker would take them."""
    cameras = []
    for view in range(views):
        turn = step * (view - (views - 1) / 2) + dice.number(-0.15, 0.15) * step
        r, z = distance * dice.number(0.94, 1.06), height * dice.number(0.88, 1.12)
        eye = target + vector(r * math.sin(turn), -r * math.cos(turn), z)
        cameras.append(look_at(eye, target + dice.uniform(-0.05, 0.05, 3), dice.number(-0.03, 0.03)))
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

#: Pixels of a photograph that is drawn, at most: more take minutes and gigabytes.
MAX_DRAWN = 1 << 24
#: A camera walks past so many places at most.
MAX_VIEWS = 1000

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
        views: number of photographs, at most :data:`MAX_VIEWS`.
        size: (width, height) of the photographs, in pixels; multiples of 4.
        planes: number of depth hypotheses that the camera files ask for.
        progress: wraps the loop over views, for instance with a progress bar.

    Raises:
        InputError: if the folder holds files.
        ValueError: for an unknown layout, or numbers of views, pixels or planes that make no scene.

    Source: the format is that of the README of the original.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    _check_numbers(views, size, planes)
    refuse_full(Path(folder))  # before minutes of drawing
    plan, dice = LAYOUTS[layout], Dice(seed)
    world = plan.world(dice)
    extrinsics = _arc(dice, views, vector(*plan.target), plan.distance, plan.height, plan.step)
    extrinsics = extrinsics.round(decimals=10)  # the last bits of sin and cos differ between machines
    intrinsics = pinhole(size, plan.focal)
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


def _check_numbers(views: int, size: tuple[int, int], planes: int) -> None:
    if not 2 <= views <= MAX_VIEWS:
        raise ValueError(f"it needs from 2 to {MAX_VIEWS} views, not {views}")
    width, height = size
    if min(size) < 32 or width % 4 or height % 4:
        raise ValueError(f"its sides must be multiples of 4 pixels, 32 or more, not {width} x {height}")
    if width * height > MAX_DRAWN:
        raise ValueError(f"it has at most {MAX_DRAWN:,} pixels, not {width} x {height}")
    if not 2 <= planes <= MAX_PLANES:
        raise ValueError(f"it needs from 2 to {MAX_PLANES} depth planes, not {planes}")


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


class Shots(NamedTuple):
    """Views of one scene, before any camera has spoilt them.

    Attributes:
        images: (V, 3, H, W), about [0, 1].
        intrinsics: (3, 3), in pixels of the images.
        extrinsics: (V, 4, 4), world to camera.
        depths: (V, H // 4, W // 4), exact; 0 where nothing is.
    """

    images: Tensor
    intrinsics: Tensor
    extrinsics: Tensor
    depths: Tensor


def random_views(seed: int, views: int, size: tuple[int, int], device: str = "cpu") -> Shots:
    """A random scene for training, seen from a few places.

    Args:
        seed: which scene.
        views: how many, V.
        size: (width, height), in pixels.
        device: where to draw; the results lie there, too.

    Returns:
        images, cameras and depths. Every view sees something in a third of its pixels or more.

    Source: ours.
    """
    dice = Dice(seed)
    quarter = (size[0] // 4, size[1] // 4)
    while True:  # nearly always once
        focal, world = dice.power(0.6, 1.8), wild_world(dice).to(device, torch.float32)
        intrinsics = pinhole(size, focal).to(device, torch.float32)
        extrinsics = hand_held(dice, views, focal).to(device, torch.float32)
        small = scale_intrinsics(intrinsics, 0.25)
        depths = torch.stack([cast(world, small, E, quarter) for E in extrinsics])
        if (depths > 0).float().mean(dim=(1, 2)).min() > 1 / 3 and depths[depths > 0].min() > 0.1:
            break  # no camera looks at the sky, and none stands inside a hill
    lights = dice.integer(0, 1)  # shadows in every other scene: they take half of the time
    images = torch.stack([render(world, intrinsics, E, size, 2, lights) for E in extrinsics])
    return Shots(images, intrinsics, extrinsics, depths)


def random_sample(shots: Shots, order: list[int], depth_num: int, dice: Dice, camera_error: float) -> Sample:
    """Photographs of some views, the first of them the reference, and a range of depths around what it sees.

    Args:
        shots: from :func:`random_views`.
        order: which views, the reference first.
        depth_num: number of hypotheses, D.
        dice: draws the cameras' settings and the margins of the range.
        camera_error: by how many pixels the sources' cameras are off at most (standard deviation).

    Returns:
        the sample, a batch of one.

    Source: ours; truth outside the range is set to 0, as the original's loader does.
    """
    _, intrinsics, extrinsics, depths = shots
    depth = depths[order[0]]
    low, high = _some_range(depth[depth > 0], dice)
    wrong = _shaken(extrinsics[order], dice, dice.number(0, camera_error) / intrinsics[0, 0].item())
    return Sample(
        images=photograph(shots.images[order], dice)[None],
        intrinsics=intrinsics.expand(1, len(order), 3, 3),
        extrinsics=wrong[None],
        depth_values=torch.linspace(low, high, depth_num, device=depth.device)[None],
        depth_interval=torch.tensor([(high - low) / (depth_num - 1)], device=depth.device),
        ground_truth=torch.where((depth >= low) & (depth <= high), depth, 0)[None],
        views=order,
    )


def _some_range(seen: Tensor, dice: Dice) -> tuple[float, float]:
    """Nearly all depths that are seen, with margins that are mostly small."""
    low = torch.quantile(seen, 0.01).item() * (1 - dice.number(0, 0.15))
    high = torch.quantile(seen, 0.98).item() * (1 + dice.number(0, 0.3))
    if dice.chance(0.2):
        low, high = low * dice.number(0.6, 1), high * dice.number(1, 2)
    return low, high


def _shaken(extrinsics: Tensor, dice: Dice, error: float) -> Tensor:
    """All cameras but the first turned by small angles, of so many radians."""
    spin = torch.stack([rotation(dice.normal(3), error) for _ in extrinsics[1:]]).to(extrinsics)
    return torch.cat([extrinsics[:1], torch.cat([spin @ extrinsics[1:, :3], extrinsics[1:, 3:]], dim=1)])


class SyntheticScenes(Dataset):
    """Endless training samples: each is a function of its number and the seed alone.

    Drawing a scene takes longer than learning from it, so every scene serves several samples, each with
    another reference, order of sources, range of depths and camera settings. These samples lie ``slots``
    apart, with samples of other scenes between; when one slot has used up its scene, the others are in the
    midst of theirs. So reading in order draws scenes at an even pace, and reading from any number on gives
    the same samples.

    Args:
        seed: where the scenes start: sample by sample they have the seeds from here on.
        size: (width, height) of the photographs, in pixels.
        depth_num: number of depth hypotheses, D.
        views: photographs of each scene, V; every sample has them all.
        uses: samples of each scene.
        slots: scenes in use at a time; about 1.5 MB of memory each at 160 x 128 and 5 views.
        camera_error: by how many pixels the sources' cameras are off at most (standard deviation).
        device: where scenes are drawn and samples lie.

    Source: ours.

    >>> scenes = SyntheticScenes(seed=3, size=(64, 48), depth_num=8, views=2)
    >>> scenes[5].images.shape, torch.equal(scenes[5].images, scenes[5].images)
    (torch.Size([1, 2, 3, 48, 64]), True)
    """

    #: Seeds from here on are never used for training: the held-out scenes start here.
    HELD_OUT = 10**9

    def __init__(
        self,
        seed: int = 0,
        size: tuple[int, int] = (160, 128),
        depth_num: int = 48,
        views: int = 5,
        uses: int = 10,
        slots: int = 64,
        camera_error: float = 0.0,
        device: str = "cpu",
    ):
        self.seed, self.size, self.depth_num, self.views = seed, tuple(size), depth_num, views
        self.uses, self.slots, self.camera_error, self.device = uses, slots, camera_error, device
        self._drawn: dict[int, tuple[int, Shots]] = {}

    def __len__(self) -> int:
        return 2**40  # without end, as far as training is concerned

    def __getitem__(self, number: int) -> Sample:
        dice = Dice(self.seed, number)
        shots = self._shots(number % self.slots, number // self.slots)
        order = torch.randperm(self.views, generator=dice.generator).tolist()
        return random_sample(shots, order, self.depth_num, dice, self.camera_error)

    def _shots(self, slot: int, round: int) -> Shots:
        """The scene that a slot holds in a round; slots change theirs in turn."""
        scene = (round + slot) // self.uses * self.slots + slot
        if self._drawn.get(slot, (-1,))[0] != scene:
            shots = random_views(self.seed + scene, self.views, self.size, self.device)
            self._drawn[slot] = scene, shots
        return self._drawn[slot][1]
