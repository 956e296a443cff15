"""Exercises of the chapter on own photos: lens distortion, baselines, alignment up to a similarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# distort-pixels


def _distort(pixels: Tensor, focal: float, centre: Tensor, k: float) -> Tensor:
    rays = (pixels - centre) / focal
    return centre + focal * rays * (1 + k * rays.square().sum(dim=-1, keepdim=True))


def _lens(draw: Draw) -> dict[str, Any]:
    count = (1, 1, 2, 3, 5)[draw.level]
    return {
        "pixels": draw.tensor(count, 2, low=0, high=8),
        "focal": draw.one_of([4.0, 5.0, 8.0]),
        "centre": torch.tensor(draw.one_of([(4.0, 3.0), (3.5, 4.5), (5.0, 2.0)])),
        "k": draw.one_of([-0.125, -0.0625, 0.0625, 0.125, 0.25]),
    }


def _perfect_lens(draw: Draw) -> dict[str, Any]:
    return {**_lens(draw), "k": 0.0}


def _stays(answer: Answer, pixels: Tensor, focal: float, centre: Tensor, k: float) -> tuple[Tensor, Tensor]:
    return answer(pixels, focal, centre, k), pixels


DISTORT_PIXELS = Exercise(
    name="distort-pixels",
    chapter="photos",
    difficulty=1,
    signature="distort_pixels(pixels, focal, centre, k)",
    question=(
        "Where does a lens with radial distortion put what a pinhole camera would put at `pixels`, "
        "`(N, 2)`? With `x = (pixel - centre) / focal`, it puts it at `x * (1 + k * r * r)`; `r` is the "
        "length of `x`. `focal` and `k` are numbers, `centre` is `(2,)`, the principal point. Return pixels, "
        "`(N, 2)`."
    ),
    hint="r is the length of x, not of the pixel, and one number for both coordinates: keepdim helps.",
    reference=_distort,
    inputs=_lens,
    laws=(Law("With k = 0 every pixel stays where it is.", _stays, inputs=_perfect_lens),),
)


# undistort-pixels


def _undistort(pixels: Tensor, focal: float, centre: Tensor, k: float) -> Tensor:
    distorted = (pixels - centre) / focal
    rays = distorted
    for _ in range(50):
        rays = distorted / (1 + k * rays.square().sum(dim=-1, keepdim=True))
    return centre + focal * rays


def _mild_lens(draw: Draw) -> dict[str, Any]:
    inputs = _lens(draw)
    small = inputs["centre"] + (inputs["pixels"] - 4) / 2
    return {**inputs, "pixels": small, "k": draw.one_of([-0.125, -0.0625, 0.0625, 0.125])}


def _there_and_back(
    answer: Answer, pixels: Tensor, focal: float, centre: Tensor, k: float
) -> tuple[Any, Any]:
    return answer(_distort(pixels, focal, centre, k), focal, centre, k), pixels


UNDISTORT_PIXELS = Exercise(
    name="undistort-pixels",
    chapter="photos",
    difficulty=3,
    signature="undistort_pixels(pixels, focal, centre, k)",
    question=(
        "The way back: `pixels`, `(N, 2)`, were seen through a lens that moves `x` to `x * (1 + k * r * r)` "
        "(see the exercise before; `focal`, `centre` and `k` are the same). Return where a pinhole camera "
        "would have seen them, `(N, 2)`. There is no simple formula: start with the distorted pixels as a "
        "guess, and improve the guess until nothing moves any more."
    ),
    hint=(
        "If you knew the true r, you could divide by 1 + k r r. Take r from your guess; divide the "
        "*distorted* x, not the guess; repeat."
    ),
    reference=_undistort,
    inputs=_mild_lens,
    laws=(
        Law(
            "What is distorted first and undistorted then is back where it was: got is there and back.",
            _there_and_back,
            inputs=_mild_lens,
        ),
    ),
)


# depth-error


def _depth_error(depth: Tensor, focal: float, baseline: float, pixel_error: float) -> Tensor:
    return depth * depth * pixel_error / (focal * baseline)


def _stereo(draw: Draw) -> dict[str, Any]:
    return {
        "depth": draw.tensor((1, 1, 2, 3, 5)[draw.level], low=1, high=9),
        "focal": draw.one_of([100.0, 200.0, 400.0, 800.0]),
        "baseline": draw.number(0.25, 2, 0.25),
        "pixel_error": draw.one_of([0.25, 0.5, 1.0]),
    }


def _grows(
    answer: Answer, depth: Tensor, focal: float, baseline: float, pixel_error: float
) -> tuple[Any, Any]:
    return (
        answer(2 * depth, focal, baseline, pixel_error),
        4 * answer(depth, focal, baseline, pixel_error),
    )


DEPTH_ERROR = Exercise(
    name="depth-error",
    chapter="photos",
    difficulty=2,
    signature="depth_error(depth, focal, baseline, pixel_error)",
    question=(
        "Two cameras look in one direction, `baseline` apart. A point at depth `z` is seen at positions that "
        "differ by `focal * baseline / z` pixels. If this difference is measured wrong by `pixel_error`, how "
        "wrong is the depth? Take the first-order answer: the derivative. `depth` is `(N,)`, the others are "
        "numbers; return `(N,)`, positive."
    ),
    hint="Solve for z and differentiate, or differentiate and invert. The sign does not matter.",
    reference=_depth_error,
    inputs=_stereo,
    laws=(Law("Twice as far away, the error is four times as large.", _grows),),
)


# align-points


def _align(points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = points - points.mean(dim=0), targets - targets.mean(dim=0)
    u, s, vt = torch.linalg.svd(b.T @ a)
    sign = torch.tensor([1.0, 1.0, float(torch.sign(torch.linalg.det(u @ vt)))])
    rotation = (u * sign) @ vt
    scale = (s * sign).sum() / a.square().sum()
    return scale, rotation, targets.mean(dim=0) - scale * rotation @ points.mean(dim=0)


def _similar(draw: Draw) -> dict[str, Any]:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [2, 1, 1]])
    points = points[: (3, 3, 4, 4, 5)[draw.level]] + draw.tensor(3, low=-2, high=2)
    scale, pose = draw.one_of([0.5, 2.0, 3.0]), draw.extrinsics()
    return {"points": points, "targets": scale * points @ pose[:3, :3].T + pose[:3, 3]}


def _lands(answer: Answer, points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    scale, rotation, shift = answer(points, targets)
    return scale * points @ rotation.T + shift, targets


def _is_rotation(answer: Answer, points: Tensor, targets: Tensor) -> tuple[Any, Any]:
    _, rotation, _ = answer(points, targets)
    return (rotation @ rotation.T, torch.linalg.det(rotation)), (torch.eye(3), torch.ones(()))


ALIGN_POINTS = Exercise(
    name="align-points",
    chapter="photos",
    difficulty=3,
    signature="align_points(points, targets)",
    question=(
        "Find the similarity that moves `points`, `(N, 3)`, onto `targets`, `(N, 3)`, row by row: return "
        "`(scale, rotation, shift)`, of shapes `()`, `(3, 3)` and `(3,)`, with "
        "`targets = scale * points @ rotation.T + shift`. There is such a similarity. The rotation must not "
        "be a reflection, not even when all points lie in a plane."
    ),
    hint=(
        "Take the means away; SVD of the 3 x 3 matrix of targets times points; if the product of the two "
        "orthogonal factors has the determinant -1, turn the sign of the last column."
    ),
    reference=_align,
    inputs=_similar,
    laws=(
        Law("The points land on their targets: got is where they land.", _lands),
        Law("The rotation is one: R R^T is the identity, and its determinant is +1.", _is_rotation),
    ),
)

EXERCISES = (DISTORT_PIXELS, UNDISTORT_PIXELS, DEPTH_ERROR, ALIGN_POINTS)
