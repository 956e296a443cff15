"""Exercises of the chapter on conventions and pitfalls: pixel centres, intrinsics, poses, depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..camera import backproject, camera_center, crop_intrinsics, pixel_grid, project, scale_intrinsics
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# pixel-centres


def _sizes(draw: Draw) -> dict[str, Any]:
    height, width = ((1, 1), (1, 2), (2, 3), (4, 2), (5, 7))[draw.level]
    return {"height": height, "width": width}


def _balanced(answer: Answer, height: int, width: int) -> tuple[Tensor, Tensor]:
    return answer(height, width).mean(dim=(0, 1)), torch.tensor([width / 2, height / 2])


PIXEL_CENTRES = Exercise(
    name="pixel-centres",
    chapter="conventions",
    difficulty=1,
    signature="pixel_centres(height, width)",
    question=(
        "Return the coordinates of all pixel centres of an image as a tensor `(height, width, 2)`, x before "
        "y. The upper left *corner* of the image is at (0, 0)."
    ),
    hint="torch.meshgrid takes indexing='xy'. Where is the middle of a pixel whose corners are at 0 and 1?",
    reference=pixel_grid,
    inputs=_sizes,
    laws=(Law("The mean of all centres is the middle of the image, (width / 2, height / 2).", _balanced),),
)


# scale-intrinsics


def _scalings(draw: Draw) -> dict[str, Any]:
    return {"intrinsics": draw.intrinsics(), "scale": draw.one_of([0.25, 0.5, 2.0, 4.0])}


def _scalings_and_point(draw: Draw) -> dict[str, Any]:
    return {**_scalings(draw), "point": _point_in_camera(draw)}


def _point_in_camera(draw: Draw) -> Tensor:
    return torch.tensor([draw.number(-2, 2), draw.number(-2, 2), draw.number(1, 4)])


def _pixel(intrinsics: Tensor, point: Tensor) -> Tensor:
    homogeneous = intrinsics @ point
    return homogeneous[:2] / homogeneous[2]


def _keeps_last_row(answer: Answer, **inputs: Any) -> tuple[Tensor, Tensor]:
    return answer(*inputs.values())[2], torch.tensor([0.0, 0.0, 1.0])


def _scales_pixels(answer: Answer, intrinsics: Tensor, scale: float, point: Tensor) -> tuple[Tensor, Tensor]:
    return _pixel(answer(intrinsics, scale), point), scale * _pixel(intrinsics, point)


SCALE_INTRINSICS = Exercise(
    name="scale-intrinsics",
    chapter="conventions",
    difficulty=1,
    signature="scale_intrinsics(intrinsics, scale)",
    question=(
        "An image is resized to `scale` times its width and height. Return the intrinsics `(3, 3)` of the "
        "camera that would have taken the new image. Pixel centres are at +0.5, before and after."
    ),
    hint=(
        "The corner of the image stays at (0, 0), so every pixel coordinate is just multiplied. Which rows "
        "give x and y?"
    ),
    reference=scale_intrinsics,
    inputs=_scalings,
    laws=(
        Law("The last row of the intrinsics stays (0, 0, 1).", _keeps_last_row),
        Law(
            "The pixel of a point (in camera coordinates) in the new image is scale times that in the old "
            "one.",
            _scales_pixels,
            inputs=_scalings_and_point,
        ),
    ),
)


# crop-then-scale


def _crop_then_scale(intrinsics: Tensor, left: float, top: float, scale: float) -> Tensor:
    return scale_intrinsics(crop_intrinsics(intrinsics, left, top), scale)


def _crops(draw: Draw) -> dict[str, Any]:
    left, top = draw.one_of([(1, 0), (0, 1), (2, 1), (1, 3), (4, 2)])
    return {"intrinsics": draw.intrinsics(), "left": left, "top": top, "scale": draw.one_of([0.25, 0.5, 2.0])}


def _corner_to_origin(
    answer: Answer, intrinsics: Tensor, left: int, top: int, scale: float
) -> tuple[Tensor, Tensor]:
    point = torch.linalg.inv(intrinsics) @ torch.tensor([left, top, 1.0])
    return _pixel(answer(intrinsics, left, top, scale), point), torch.zeros(2)


CROP_THEN_SCALE = Exercise(
    name="crop-then-scale",
    chapter="conventions",
    difficulty=2,
    signature="crop_then_scale(intrinsics, left, top, scale)",
    question=(
        "The original prepares DTU's photographs in this way: `left` columns and `top` rows are cut off (as "
        "many are cut off on the other sides, which does not matter here), then what remains is resized to "
        "`scale` times its size. Return the intrinsics `(3, 3)` for the result."
    ),
    hint=(
        "Two steps, in the order in which they happen to the image. left and top are counted in pixels of "
        "the large image."
    ),
    reference=_crop_then_scale,
    inputs=_crops,
    laws=(
        Law("The last row of the intrinsics stays (0, 0, 1).", _keeps_last_row),
        Law("What was seen at pixel (left, top) is seen at (0, 0) afterwards.", _corner_to_origin),
    ),
)


# camera-center


def _poses(draw: Draw) -> dict[str, Any]:
    return {"extrinsics": draw.extrinsics()}


def _centre_is_origin(answer: Answer, extrinsics: Tensor) -> tuple[Tensor, Tensor]:
    return extrinsics[:3, :3] @ answer(extrinsics) + extrinsics[:3, 3], torch.zeros(3)


CAMERA_CENTER = Exercise(
    name="camera-center",
    chapter="conventions",
    difficulty=1,
    signature="camera_center(extrinsics)",
    question=(
        "`extrinsics` is `(4, 4)` and takes world coordinates to camera coordinates. Where in the world does "
        "the camera stand? Return `(3,)`."
    ),
    hint=(
        "The centre is the point whose camera coordinates are (0, 0, 0). Solve R c + t = 0; R's inverse is "
        "cheap."
    ),
    reference=camera_center,
    inputs=_poses,
    laws=(
        Law(
            "In camera coordinates the centre is the origin: got is R c + t of your centre c.",
            _centre_is_origin,
        ),
    ),
)


# project


def _points(draw: Draw) -> dict[str, Any]:
    N = (1, 2, 3, 5, 7)[draw.level]
    in_camera = draw.tensor(N, 3, low=-2, high=2)
    in_camera[:, 2] = draw.tensor(N, low=1, high=4)
    return _seen(draw, in_camera)


def _points_on_axis(draw: Draw) -> dict[str, Any]:
    return _seen(draw, torch.tensor([[0.0, 0.0, draw.number(1, 4)]]))


def _points_behind(draw: Draw) -> dict[str, Any]:
    return _seen(draw, torch.tensor([[draw.number(-2, 2), draw.number(-2, 2), -draw.number(1, 4)]]))


def _seen(draw: Draw, in_camera: Tensor) -> dict[str, Any]:
    extrinsics = draw.extrinsics()
    points = (in_camera - extrinsics[:3, 3]) @ extrinsics[:3, :3]
    return {"points": points, "intrinsics": draw.intrinsics(), "extrinsics": extrinsics}


def _on_principal_point(
    answer: Answer, points: Tensor, intrinsics: Tensor, extrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    return answer(points, intrinsics, extrinsics)[0], intrinsics[None, :2, 2]


def _along_ray(
    answer: Answer, points: Tensor, intrinsics: Tensor, extrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    centre = camera_center(extrinsics)
    farther = centre + 2 * (points - centre)
    return answer(farther, intrinsics, extrinsics)[0], answer(points, intrinsics, extrinsics)[0]


def _negative_depth(answer: Answer, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    depth = answer(*inputs.values())[1]
    return depth, -depth.abs()


PROJECT = Exercise(
    name="project",
    chapter="conventions",
    difficulty=2,
    signature="project(points, intrinsics, extrinsics)",
    question=(
        "Take world points `(N, 3)` into an image. Return `(pixels, depth)`: the pixel coordinates `(N, 2)`, "
        "x before y, and the depths `(N,)`, z in the camera. `intrinsics` is `(3, 3)`, `extrinsics` is `(4, "
        "4)`, world to camera. Treat points behind the camera like all others: they get a negative depth."
    ),
    hint=(
        "x ~ K (R X + t). With points as rows, R X is points @ R.T. Divide at the very end, by the third "
        "component."
    ),
    reference=project,
    inputs=_points,
    laws=(
        Law(
            "A point on the optical axis lands on the principal point.",
            _on_principal_point,
            inputs=_points_on_axis,
        ),
        Law(
            "Twice as far from the camera on the same ray, a point lands on the same pixel: got is the "
            "farther one.",
            _along_ray,
        ),
        Law("A point behind the camera has a negative depth.", _negative_depth, inputs=_points_behind),
    ),
)


# backproject


def _depth_maps(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    return {
        "depth": draw.tensor(B, h, w, low=1, high=4),
        "intrinsics": torch.stack([draw.intrinsics() for _ in range(B)]),
        "extrinsics": torch.stack([draw.extrinsics() for _ in range(B)]),
    }


def _back_to_pixels(answer: Answer, depth: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> tuple[Any, Any]:
    pixels, z = project(answer(depth, intrinsics, extrinsics), intrinsics, extrinsics)
    B, h, w = depth.shape
    return (pixels, z), (pixel_grid(h, w).expand(B, h, w, 2), depth)


BACKPROJECT = Exercise(
    name="backproject",
    chapter="conventions",
    difficulty=3,
    signature="backproject(depth, intrinsics, extrinsics)",
    question=(
        "Take every pixel of a batch of depth maps `(B, h, w)` back into the world. `intrinsics` is `(B, 3, "
        "3)`, `extrinsics` is `(B, 4, 4)`, world to camera; depth is z in the camera. Return world points "
        "`(B, h, w, 3)`."
    ),
    hint=(
        "Undo the projection step by step: pixel centre, K^-1, times depth, minus t, R^T. An index string "
        "for torch.einsum keeps the batch and the pixels apart."
    ),
    reference=backproject,
    inputs=_depth_maps,
    laws=(Law("Projected again, the points give their pixel centres, then their depths.", _back_to_pixels),),
)


# ray-to-z-depth


def _ray_to_z_depth(distance: Tensor, intrinsics: Tensor) -> Tensor:
    rays = backproject(torch.ones_like(distance)[None], intrinsics[None], torch.eye(4)[None])[
        0
    ]  # (h, w, 3), z = 1
    return distance / rays.norm(dim=-1)


def _distances(draw: Draw) -> dict[str, Any]:
    _, h, w = draw.map_shape
    return {"distance": draw.tensor(h, w, low=1, high=4), "intrinsics": draw.intrinsics()}


def _not_beyond(answer: Answer, distance: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    z = answer(distance, intrinsics)
    return z, z.minimum(distance)


def _at_distance(answer: Answer, distance: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    points = backproject(answer(distance, intrinsics)[None], intrinsics[None], torch.eye(4)[None])[0]
    return points.norm(dim=-1), distance


RAY_TO_Z_DEPTH = Exercise(
    name="ray-to-z-depth",
    chapter="conventions",
    difficulty=2,
    signature="ray_to_z_depth(distance, intrinsics)",
    question=(
        "A laser scanner (or a ray tracer) measured `distance`, `(h, w)`: how far each pixel's point is from "
        "the camera centre, along the ray. MVSNet wants z. `intrinsics` is `(3, 3)`. Return the z-depth, "
        "`(h, w)`."
    ),
    hint="The ray through a pixel centre x is K^-1 (x, y, 1), and its z is 1. How long is it?",
    reference=_ray_to_z_depth,
    inputs=_distances,
    laws=(
        Law(
            "z is never larger than the distance: expected is the smaller of your z and the distance.",
            _not_beyond,
        ),
        Law(
            "The point at your z lies at the given distance: got is how far it is from the camera.",
            _at_distance,
        ),
    ),
)

EXERCISES = (
    PIXEL_CENTRES,
    SCALE_INTRINSICS,
    CROP_THEN_SCALE,
    CAMERA_CENTER,
    PROJECT,
    BACKPROJECT,
    RAY_TO_Z_DEPTH,
)
