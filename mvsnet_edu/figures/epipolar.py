"""A pixel of one view, its ray in space, and the line of all its candidates in the other views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mvsnet_edu.figures.figure import Figure, number, pack, to_numpy
from mvsnet_edu.figures.pictures import data_uri, to_rgb

__all__ = ["epipolar"]

_ALT = (
    "The cameras as small pyramids around a scene, with the ray of one pixel and ticks at its candidate "
    "depths; below them the photographs, the ray drawn as a line with the same ticks in all but its own."
)
#: Of the drawing in space: what it shows of the unit sphere, and from where, in degrees.
FRAME, TURN, ELEVATION = (2.4, 1.5), 30.0, 25.0
#: The scene in it: how many points, and in how many colours.
POINTS, COLORS = 1500, 12
#: Points closer to a camera's own plane than this share of the first depth have no place in its picture.
NEAR = 1e-3


@dataclass(frozen=True)
class _View:
    """One camera on the stage, which is the world moved, turned and scaled to the unit sphere.

    Args:
        ray: (3, 3), from homogeneous pixels to directions whose depth is 1.
        centre: (3,), where the camera stands.
        project: (3, 4), from the stage to homogeneous pixels; the third component is the depth.
    """

    ray: np.ndarray
    centre: np.ndarray
    project: np.ndarray

    def at(self, pixel: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
        """Points (..., 3) of a pixel's ray at depths (...)."""
        return self.centre + np.asarray(depth)[..., None] * (self.ray @ [*pixel, 1.0])

    def see(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (..., 2) and depths (...) of points (..., 3)."""
        seen = points @ self.project[:, :3].T + self.project[:, 3]
        return seen[..., :2] / seen[..., 2:], seen[..., 2]


def epipolar(
    images: Any,
    intrinsics: Any,
    extrinsics: Any,
    depth_values: Any,
    *,
    truth: Any = None,
    view: int = 0,
    pixel: tuple[int, int] | None = None,
    alt: str = _ALT,
    caption: str = "",
) -> Figure:
    """Choose a pixel in any view, move along its ray, and see where the other views would have to look.

    Args:
        images: (V, 3, H, W), RGB in [0, 1].
        intrinsics: (V, 3, 3), in pixels of the images.
        extrinsics: (V, 4, 4), world to camera.
        depth_values: (D,), rising: the depths at which the ray has ticks.
        truth: (V, h, w), the true depth of each view, 0 where not measured; one then chooses its pixels.
        view: the view whose pixel is chosen first.
        pixel: (column, row) of that pixel, of the truth if there is one; the middle by default.
        alt: what the figure shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure.

    Raises:
        ValueError: the view or the pixel is outside.

    Source: the numbers are those of ``camera.backproject`` and ``camera.project``.

    >>> K, pose = np.tile(np.diag([4.0, 4.0, 1.0]), (2, 1, 1)), np.tile(np.eye(4), (2, 1, 1))
    >>> figure = epipolar(np.zeros((2, 3, 6, 8)), K, pose, [2.0, 3.0])
    >>> figure.data["pixel"], figure.data["size"]
    ([4, 3], [8, 6])
    """
    photos = np.moveaxis(to_numpy(images), 1, -1)  # (V, H, W, 3)
    depths, (H, W) = to_numpy(depth_values).astype(np.float64), photos.shape[1:3]
    maps = None if truth is None else to_numpy(truth).astype(np.float32)  # (V, h, w)
    h, w = (H, W) if maps is None else maps.shape[-2:]
    column, row = pixel or (w // 2, h // 2)
    if not (0 <= view < len(photos) and 0 <= column < w and 0 <= row < h):
        raise ValueError(
            f"pixel {pixel} of view {view} is outside of {len(photos)} views of {w} x {h} pixels"
        )
    K, E = to_numpy(intrinsics).astype(np.float64), to_numpy(extrinsics).astype(np.float64)
    world, colors = (np.zeros((0, 3)),) * 2 if maps is None else _cloud(K, E, maps, photos)
    views, cloud = _on_stage(K, E, depths, world)
    cloud, palette = _by_color(cloud, colors)
    data: dict[str, Any] = {
        "size": [W, H],
        "grid": [w, h],
        "depths": depths.tolist(),
        "near": NEAR * depths[0],
        "view": view,
        "pixel": [column, row],
        "views": [{name: part.ravel().tolist() for name, part in vars(v).items()} for v in views],
        "cloud": pack(cloud.astype(np.float32)),
        "colors": [count for _, count in palette],
        "pyramid": 0.12 * depths[0],
        "elevation": ELEVATION,
        "truth": None if maps is None else pack(maps),
    }
    known = 0.0 if maps is None else float(maps[view, row, column])
    choice = _Choice(view, (np.array([column, row]) + 0.5) * [W / w, H / h], depths, known)
    pyramids = [_pyramid(v, (W, H), data["pyramid"]) for v in views]
    body = _stage(views, choice, pyramids, _clouds(cloud, palette)) + _photos(photos, views, choice)
    return Figure(
        "epipolar", "A pixel, its ray and its lines", alt, body + _controls(len(depths)), data, caption
    )


@dataclass(frozen=True)
class _Choice:
    """What is drawn: a pixel (2,) of a view, the depths (D,) of its ticks, its true depth or 0."""

    view: int
    pixel: np.ndarray
    depths: np.ndarray
    known: float


def _cloud(
    K: np.ndarray, E: np.ndarray, maps: np.ndarray, photos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Some points (N, 3) of the surfaces that the true depth maps show, and their colours (N, 3)."""
    (V, h, w), (H, W) = maps.shape, photos.shape[1:3]
    every = max(1, round((maps.size / POINTS) ** 0.5))
    v, row, column = np.meshgrid(
        np.arange(V), *(np.arange(every // 2, n, every) for n in (h, w)), indexing="ij"
    )
    keep = maps[v, row, column] > 0
    v, row, column = v[keep], row[keep], column[keep]  # (N,)
    pixels = np.stack([(column + 0.5) * W / w, (row + 0.5) * H / h, np.ones(len(v))], axis=1)
    in_camera = np.einsum("nij,nj->ni", np.linalg.inv(K)[v], pixels) * maps[v, row, column, None]
    points = np.einsum("nji,nj->ni", E[v, :3, :3], in_camera - E[v, :3, 3])
    return points, photos[v, pixels[:, 1].astype(int), pixels[:, 0].astype(int)]


def _by_color(points: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """The points sorted by colour, and how many there are of each of a few colours."""
    if len(points) == 0:
        return points, []
    from PIL import Image

    table = Image.fromarray(to_rgb(colors)[None]).quantize(COLORS)
    index = np.asarray(table)[0]  # (N,)
    palette = np.array(table.getpalette()).reshape(-1, 3)
    counts = np.bincount(index)
    names = [("#" + bytes(palette[k].tolist()).hex(), int(n)) for k, n in enumerate(counts) if n]
    return points[np.argsort(index, kind="stable")], names


def _on_stage(
    K: np.ndarray, E: np.ndarray, depths: np.ndarray, world: np.ndarray
) -> tuple[list[_View], np.ndarray]:
    """Cameras and points after the similarity that brings the scene into the unit sphere."""
    R, t = E[:, :3, :3], E[:, :3, 3]
    centres = -np.einsum("vji,vj->vi", R, t)  # (V, 3)
    turn = _upright(R)
    stand, shown = centres @ turn.T, np.concatenate([world, centres + depths[-1] * R[:, 2]]) @ turn.T
    low, high = np.quantile(shown, (0.02, 0.98), axis=0)  # without far outliers, but with every camera
    low, high = np.minimum(low, stand.min(0)), np.maximum(high, stand.max(0))
    middle, size = turn.T @ (low + high) / 2, np.linalg.norm(high - low) / 2
    inverse = turn.T * size  # from the stage back to the world
    views = []
    for k, r, s, c in zip(K, R, t, centres, strict=True):
        project = k @ np.column_stack([r @ inverse, r @ middle + s])
        views.append(_View(turn @ r.T @ np.linalg.inv(k) / size, turn @ (c - middle) / size, project))
    return views, (world - middle) @ turn.T / size


def _upright(R: np.ndarray) -> np.ndarray:
    """(3, 3), rotation from the world to right, up and towards a reader who stands behind the cameras."""
    up = -R[:, 1].mean(0)
    right = np.cross(R[:, 2].mean(0), up)
    toward = np.cross(right, up)
    return np.stack([v / np.linalg.norm(v) for v in (right, up, toward)])


# The static drawing. The script draws the same into the same paths, for other pixels, depths and turns.


def _flat(points: np.ndarray) -> np.ndarray:
    """Points of the stage (..., 3) on the page (..., 2), x to the right and y down."""
    a, e = np.radians(TURN), np.radians(ELEVATION)
    x, y, z = np.moveaxis(points, -1, 0)
    toward = z * np.cos(a) - x * np.sin(a)
    return np.stack([x * np.cos(a) + z * np.sin(a), toward * np.sin(e) - y * np.cos(e)], -1)


def _polyline(points: np.ndarray) -> str:
    return "M" + "L".join(f"{number(x)},{number(y)}" for x, y in points)


def _dots(points: np.ndarray) -> str:
    return "".join(f"M{number(x)},{number(y)}h0" for x, y in points)


def _pyramid(view: _View, size: tuple[int, int], depth: float) -> str:
    """A camera: its picture at a small depth, and the edges that lead to it from the centre."""
    W, H = size
    a, b, c, d = (view.at(np.array(corner), depth) for corner in ((0, 0), (W, 0), (W, H), (0, H)))
    return _polyline(_flat(np.stack([a, b, c, d, a, view.centre, b, c, view.centre, d])))


def _clouds(points: np.ndarray, palette: list[tuple[str, int]]) -> str:
    """One path for the points of each colour."""
    ends = np.cumsum([count for _, count in palette])[:-1]
    groups = zip(palette, np.split(_flat(points), ends), strict=True) if palette else ()
    return "".join(
        f'<path class="mvs-cloud" style="stroke:{color}" d="{_dots(group)}" data-part="cloud"/>'
        for (color, _), group in groups
    )


def _stage(views: list[_View], choice: _Choice, pyramids: list[str], clouds: str) -> str:
    width, height = FRAME
    chosen = views[choice.view]
    ray = chosen.at(choice.pixel, choice.depths)
    cameras = "".join(
        f'<path class="mvs-camera{" mvs-chosen" if k == choice.view else ""}" d="{d}" data-part="camera"/>'
        for k, d in enumerate(pyramids)
    )
    places = 50 + 100 * _flat(np.stack([v.centre for v in views])) / [width, height]
    names = "".join(
        f'<b style="left:{x:.4g}%;top:{y:.4g}%" data-part="name">{k}</b>' for k, (x, y) in enumerate(places)
    )
    frame = f"{number(-width / 2)} {number(-height / 2)} {width} {height}"
    return f"""<div class="mvs-stage3" data-part="stage">
<svg class="mvs-frame" viewBox="{frame}" aria-hidden="true">
{clouds}{cameras}
<path class="mvs-sight" data-part="sight"/>
<path class="mvs-ray" d="{_polyline(_flat(np.stack([chosen.centre, ray[-1]])))}" data-part="ray"/>
<path class="mvs-ticks" d="{_dots(_flat(ray))}" data-part="ray-ticks"/>
<path class="mvs-dot" data-part="point"/></svg>{names}</div>
"""


def _photos(photos: np.ndarray, views: list[_View], choice: _Choice) -> str:
    H, W = photos.shape[1:3]
    tiles = []
    for k, photo in enumerate(photos):
        paths = {**_lines(views, k, choice, W), "spot": ""}
        drawn = "".join(f'<path class="mvs-{name}" d="{d}" data-part="{name}"/>' for name, d in paths.items())
        tiles.append(
            f'<div class="mvs-photo"><div class="mvs-shot" data-part="view">'
            f'<img class="dark-light" alt="View {k}" src="{data_uri(to_rgb(photo))}">'
            f'<svg viewBox="0 0 {W} {H}" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg></div>'
            f'<div class="mvs-head"><span>view {k}</span><span data-part="value"></span></div></div>'
        )
    return f'<div class="mvs-photos">{"".join(tiles)}</div>{_KEY}'


def _lines(views: list[_View], k: int, choice: _Choice, width: int) -> dict[str, str]:
    """In view k: the whole epipolar line, its part between the ticks of the depths, and the true place."""
    paths = {"line": "", "range": "", "truth": "", "pixel": ""}
    if k == choice.view:
        return {**paths, "pixel": _dots(choice.pixel[None])}
    points, z = views[k].see(views[choice.view].at(choice.pixel, choice.depths))  # (D, 2), (D,)
    points = points[z > NEAR * choice.depths[0]]
    length = np.linalg.norm(points[-1] - points[0]) if len(points) else 0.0
    if length < 1e-6 * width:  # both cameras stand at one place
        return paths
    along = (points[-1] - points[0]) / length
    tick, far = 0.012 * width * np.array([-along[1], along[0]]), 9 * width * along
    ticks = "".join(_polyline(np.stack([p - tick, p + tick])) for p in points)
    place, depth = views[k].see(views[choice.view].at(choice.pixel, choice.known))
    is_seen = choice.known > 0 and depth > NEAR * choice.depths[0]
    return {
        **paths,
        "line": _polyline(np.stack([points[0] - far, points[-1] + far])),
        "range": _polyline(points[[0, -1]]) + ticks,
        "truth": _dots(place[None]) if is_seen else "",
    }


_KEY = """<p class="mvs-legend">
<span><i style="background:#ffb454"></i>the chosen pixel, and its candidates</span>
<span class="mvs-live"><i style="background:#7cc8ff"></i>the candidate of the slider</span>
<span><i style="background:#5ef0b4"></i>the true place</span></p>
"""


def _controls(planes: int) -> str:
    return f"""<div class="mvs-controls mvs-live">
<label class="mvs-wide">Depth along the ray
<input type="range" min="0" max="{planes - 1}" value="{planes // 2}"
autocomplete="off" data-part="depth"></label>
<label class="mvs-wide">Turn the scene
<input type="range" min="-180" max="180" value="{TURN:.0f}" autocomplete="off" data-part="turn"></label>
</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>"""
