"""A coloured point cloud that the reader turns, with a picture of it for where it cannot turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from mvsnet_edu.figures.figure import Figure, pack, to_numpy
from mvsnet_edu.figures.pictures import data_uri, to_rgb

__all__ = ["Viewpoint", "point_cloud", "splat"]

Vector = Sequence[float]


@dataclass(frozen=True)
class Viewpoint:
    """Where a picture of the cloud is taken from.

    Args:
        eye: (3,), centre of the camera, in world coordinates.
        target: (3,), the point in the middle of the picture, around which the reader turns.
        up: (3,), the direction that points upward in the picture, not along the line of sight.
        field_of_view: angle from the lower to the upper edge, in degrees.
        aspect: width over height.
    """

    eye: Vector
    target: Vector
    up: Vector
    field_of_view: float = 45.0
    aspect: float = 4 / 3

    @classmethod
    def of_camera(cls, extrinsics: Any, intrinsics: Any, points: Any) -> Viewpoint:
        """The viewpoint of a camera of the scene: the cloud then first looks like that camera's photograph.

        Args:
            extrinsics: (4, 4), world to camera; x to the right, y down, z forward.
            intrinsics: (3, 3), at any scale; the principal point is taken as the middle of the image.
            points: (N, 3), the cloud, in world coordinates; the target lies at its median depth.

        Returns:
            The viewpoint.

        >>> Viewpoint.of_camera(np.eye(4), [[4, 0, 4], [0, 4, 3], [0, 0, 1]], [[0, 0, 5]]).target
        [0.0, 0.0, 5.0]
        """
        world_to_camera, (fy, cx, cy) = to_numpy(extrinsics), to_numpy(intrinsics)[[1, 0, 1], [1, 2, 2]]
        rotation, shift = world_to_camera[:3, :3].astype(np.float64), world_to_camera[:3, 3]
        eye = -rotation.T @ shift
        depth = (to_numpy(points) - eye) @ rotation[2]
        distance = np.median(depth[depth > 0]) if (depth > 0).any() else 1.0
        angle = 2 * math.degrees(math.atan(cy / fy))
        target = eye + distance * rotation[2]
        return cls(eye.tolist(), target.tolist(), (-rotation[1]).tolist(), angle, float(cx / cy))

    def frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre (3,) and axes (3, 3) of the camera; the rows point right, up and forward."""
        eye = np.asarray(self.eye, np.float64)
        forward = np.asarray(self.target, np.float64) - eye
        right = np.cross(forward, self.up)
        if not np.linalg.norm(right) > 0:
            raise ValueError("a viewpoint needs an eye off its target and an up off the line of sight")
        axes = np.stack([right, np.cross(right, forward), forward])
        return eye, axes / np.linalg.norm(axes, axis=1, keepdims=True)


def point_cloud(
    points: Any,
    colors: Any,
    normals: Any = None,
    *,
    view: Viewpoint | None = None,
    max_points: int = 50_000,
    seed: int = 0,
    title: str = "Point cloud",
    alt: str = "",
    caption: str = "",
) -> Figure:
    """Show a coloured point cloud that the reader turns, moves and zooms by mouse, touch or keys.

    Args:
        points: (N, 3), world coordinates; points that are not finite are left out.
        colors: (N, 3), uint8 or float in [0, 1].
        normals: (N, 3), unit vectors, offered as a second colouring; None to leave it out.
        view: where the first picture is taken from; by default along +z with y down, as by an identity
            camera, and from far enough to see all.
        max_points: more points than this are thinned to as many, drawn at random; 12 bytes of HTML each.
        seed: of that draw.
        title: heading of the page that ``Figure.save`` writes.
        alt: what the cloud shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure.

    Raises:
        ValueError: the arrays do not belong together, or no point is finite.

    >>> corner = point_cloud(np.eye(3), np.eye(3))
    >>> corner.data["count"], corner
    (3, Figure(cloud: A cloud of 3 coloured points.))
    """
    xyz, rgb, directions = _checked(points, colors, normals)
    total = len(xyz)
    kept = _thinned(total, max_points, seed)
    xyz, rgb = xyz[kept], rgb[kept]
    view = view or _overview(xyz)
    size = _point_size(xyz, view)
    low, step, quantised = quantise(xyz)
    data = {
        "count": len(xyz),
        "points": pack(quantised),
        "colors": pack(rgb),
        "low": low.tolist(),
        "step": step.tolist(),
        "size": size,
        "eye": list(map(float, view.eye)),
        "target": list(map(float, view.target)),
        "up": list(map(float, view.up)),
        "tangent": math.tan(math.radians(view.field_of_view) / 2),
    }
    if directions is not None:
        data["normals"] = pack((directions[kept].clip(-1, 1) * 127).round().astype(np.int8))
    alt = alt or f"A cloud of {total:,} coloured points."
    body = _body(splat(xyz, rgb, view, size), alt, view.aspect, len(xyz), total, directions is not None)
    return Figure("cloud", title, alt, body, data, caption)


def _checked(points: Any, colors: Any, normals: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The finite points, with what belongs to them."""
    xyz, rgb = to_numpy(points), to_rgb(to_numpy(colors))
    directions = None if normals is None else np.nan_to_num(to_numpy(normals))
    for name, array in (("points", xyz), ("colors", rgb), ("normals", directions)):
        if array is not None and array.shape != (len(xyz), 3):
            raise ValueError(f"{name} must be of shape ({len(xyz)}, 3), not {array.shape}")
    finite = np.isfinite(xyz).all(axis=1)
    if not finite.any():
        raise ValueError("a point cloud needs at least one finite point")
    return xyz[finite].astype(np.float64), rgb[finite], None if directions is None else directions[finite]


def _thinned(total: int, most: int, seed: int) -> np.ndarray:
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, most, replace=False))


def quantise(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points as 16-bit steps along each axis of their bounding box; off by half a step at most.

    Args:
        points: (N, 3).

    Returns:
        low (3,), step (3,), and the steps (N, 3), uint16: points = low + step * steps, up to rounding.

    >>> low, step, steps = quantise(np.array([[0.0, 0, 7], [65535, 1, 7]]))
    >>> low.tolist(), steps.tolist()
    ([0.0, 0.0, 7.0], [[0, 0, 0], [65535, 65535, 0]])
    """
    low, high = points.min(axis=0), points.max(axis=0)
    step = np.where(high > low, high - low, 1.0) / 65535
    return low, step, ((points - low) / step).round().astype(np.uint16)


def _overview(points: np.ndarray) -> Viewpoint:
    """From the side of an identity camera; the middle 96 % of the cloud fit, so that strays do not count."""
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    target, radius = (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    eye = target - [0, 0, 2.4 * radius]
    return Viewpoint(eye.tolist(), target.tolist(), (0.0, -1.0, 0.0))


def _project(points: np.ndarray, view: Viewpoint, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (M, 2) of the points inside a picture of this height, their depths (M,) and numbers (M,)."""
    width = round(height * view.aspect)
    eye, axes = view.frame()
    right, up, depth = ((points - eye) @ axes.T).T
    scale = _focal(view, height) / np.where(depth > 0, depth, np.inf)
    pixels = np.stack([width / 2 + right * scale, height / 2 - up * scale], axis=1)
    inside = (depth > 0) & (pixels >= 0).all(axis=1) & (pixels < (width, height)).all(axis=1)
    return pixels[inside], depth[inside], np.flatnonzero(inside)


def _focal(view: Viewpoint, height: int) -> float:
    return height / 2 / math.tan(math.radians(view.field_of_view) / 2)


def _point_size(points: np.ndarray, view: Viewpoint) -> float:
    """Diameter of a point in the unit of the scene, such that surfaces close in the first picture."""
    height, cell = 480, 16
    pixels, depth, _ = _project(points, view, height)
    if not len(pixels):
        return 0.01 * float(np.linalg.norm(np.subtract(view.target, view.eye)))
    covered = len(np.unique((pixels // cell).astype(np.int64), axis=0)) * cell**2
    diameter = min(max(2.3 * math.sqrt(covered / len(pixels)), 1.5), 10.0)
    return diameter * float(np.median(depth)) / _focal(view, height)


def splat(
    points: np.ndarray, colors: np.ndarray, view: Viewpoint, size: float, height: int = 420
) -> np.ndarray:
    """Draw a cloud on a transparent ground: squares that shrink with distance, the nearest in front.

    Args:
        points: (N, 3), world coordinates.
        colors: (N, 3), uint8.
        view: where the picture is taken from.
        size: diameter of a point, in the unit of the scene.
        height: of the picture, in pixels.

    Returns:
        (height, width, 4), uint8, with opacity.

    >>> view = Viewpoint((0, 0, -2), (0, 0, 0), (0, -1, 0), aspect=1.0)
    >>> splat(np.zeros((1, 3)), np.full((1, 3), 9, np.uint8), view, 0.0, height=3)[1].tolist()
    [[0, 0, 0, 0], [9, 9, 9, 255], [0, 0, 0, 0]]
    """
    width = round(height * view.aspect)
    pixels, depth, index = _project(points, view, height)
    side = (size * _focal(view, height) / depth).round().clip(1, 16).astype(np.int64)  # (M,)
    which, corner = [], []
    for dy, dx in np.ndindex(side.max(initial=0), side.max(initial=0)):
        reached = np.flatnonzero((dx < side) & (dy < side))
        which.append(reached)
        corner.append(np.floor(pixels[reached] - (side[reached, None] - 1) / 2).astype(np.int64) + (dx, dy))
    image = np.zeros((height, width, 4), np.uint8)
    if which:
        _paint(image, np.concatenate(which), np.concatenate(corner), depth, colors[index])
    return image


def _paint(
    image: np.ndarray, which: np.ndarray, pixels: np.ndarray, depth: np.ndarray, colors: np.ndarray
) -> None:
    """Write colours from far to near, so that the last one written to a pixel is the nearest."""
    inside = (pixels >= 0).all(axis=1) & (pixels < image.shape[1::-1]).all(axis=1)
    which, (x, y) = which[inside], pixels[inside].T
    order = np.argsort(-depth[which], kind="stable")
    image[y[order], x[order], :3] = colors[which[order]]
    image[y, x, 3] = 255


def _body(picture: np.ndarray, alt: str, aspect: float, count: int, total: int, normals: bool) -> str:
    amount = f"{count:,} points" if count == total else f"{count:,} of {total:,} points, drawn at random"
    choice = """<label>Colour <select data-part="paint" autocomplete="off">
<option value="0">photographs</option><option value="1">normals</option></select></label>"""
    return f"""<div class="mvs-stage" data-part="stage" style="--aspect:{aspect:.6g}">
<img class="dark-light" alt="{escape(alt)}" src="{data_uri(picture)}"></div>
<div class="mvs-controls mvs-live">
<button type="button" data-part="nearer" aria-label="Nearer">+</button>
<button type="button" data-part="farther" aria-label="Farther">\N{MINUS SIGN}</button>
<button type="button" data-part="reset">Reset view</button>
<label>Point size
<input type="range" min="-2" max="2" step="0.25" value="0" autocomplete="off" data-part="size"></label>
{choice if normals else ""}
</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>
<p class="mvs-keys"><span>{amount}.</span> <span class="mvs-live">Drag to turn, shift-drag to move;
after a click the wheel zooms. Keys: arrows turn, shift and arrows move, + and \N{MINUS SIGN} zoom,
R resets.</span>
<span data-part="trouble" hidden>This browser has no WebGL 2, so the picture stands still.</span></p>"""
