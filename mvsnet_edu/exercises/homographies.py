"""Exercises of the chapter on plane-sweep homographies: the matrix, its use, reading between pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..camera import pixel_grid
from ..homography import homography_warp, plane_homographies
from .cameras import _cameras, _candidates
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# apply-homography


def _apply(homography: Tensor, pixels: Tensor) -> Tensor:
    x = torch.cat([pixels, torch.ones(len(pixels), 1)], dim=1) @ homography.T  # (N, 3)
    return x[:, :2] / x[:, 2:]


def _pixels(draw: Draw) -> dict[str, Any]:
    N = (1, 2, 3, 5, 7)[draw.level]
    homography = draw.tensor(3, 3, low=-1, high=1)
    homography[2] = torch.tensor([0.25, 0.5, 1.0])  # the third component stays positive
    return {"homography": homography, "pixels": draw.tensor(N, 2, low=0, high=4)}


def _whatever_its_factor(answer: Answer, homography: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return answer(-2 * homography, pixels), answer(homography, pixels)


APPLY_HOMOGRAPHY = Exercise(
    name="apply-homography",
    chapter="homographies",
    difficulty=1,
    signature="apply_homography(homography, pixels)",
    question=(
        "Take `pixels` `(N, 2)`, x before y, through a `homography` `(3, 3)`. Return the pixels where they "
        "arrive, `(N, 2)`."
    ),
    hint="Append a 1 to every pixel, multiply, and divide. Points are rows: on which side is the matrix?",
    reference=_apply,
    inputs=_pixels,
    laws=(Law("-2 H is the same homography as H: got is with -2 H.", _whatever_its_factor),),
)


# homography-of-a-plane


def _homography(
    ref_intrinsics: Tensor,
    ref_extrinsics: Tensor,
    src_intrinsics: Tensor,
    src_extrinsics: Tensor,
    depth: float,
) -> Tensor:
    cameras = (x[None] for x in (ref_intrinsics, ref_extrinsics, src_intrinsics, src_extrinsics))
    return plane_homographies(*cameras, torch.tensor([[depth]]))[0, 0]


def _cameras_and_depth(draw: Draw) -> dict[str, Any]:
    return {**_cameras(draw), "depth": draw.one_of([2.0, 2.5, 4.0, 5.0])}


def _and_pixel(draw: Draw) -> dict[str, Any]:
    return {**_cameras_and_depth(draw), "pixel": draw.tensor(2, low=0, high=4)}


def _same_camera(answer: Answer, K: Tensor, E: Tensor, depth: float) -> tuple[Tensor, Tensor]:
    return answer(K, E, K, E, depth), torch.eye(3)


def _one_camera(draw: Draw) -> dict[str, Any]:
    inputs = _cameras_and_depth(draw)
    return {"K": inputs["ref_intrinsics"], "E": inputs["ref_extrinsics"], "depth": inputs["depth"]}


def _as_by_way_of_point(
    answer: Answer, pixel: Tensor, depth: float, **cameras: Tensor
) -> tuple[Tensor, Tensor]:
    x = answer(*cameras.values(), depth) @ torch.cat([pixel, torch.ones(1)])
    return x[:2] / x[2], _candidates(pixel, *cameras.values(), torch.tensor(depth))


HOMOGRAPHY_OF_A_PLANE = Exercise(
    name="homography-of-a-plane",
    chapter="homographies",
    difficulty=3,
    signature=(
        "homography_of_a_plane(ref_intrinsics, ref_extrinsics, src_intrinsics, src_extrinsics, depth)"
    ),
    question=(
        "Return the `(3, 3)` homography from pixels of the reference to pixels of the source, for the plane "
        "`z = depth` of the reference camera; `depth` is a number. `ref_intrinsics` and `src_intrinsics` are "
        "`(3, 3)`, `ref_extrinsics` and `src_extrinsics` are `(4, 4)`, world to camera. Choose the factor so "
        "that the third component of H (x, y, 1) is the depth in the source, divided by `depth`."
    ),
    hint=(
        "First the motion from the reference camera to the source camera. On the plane, a point is depth "
        "times its ray, and e_z . ray = 1: so t can be written as t (e_z . ray)."
    ),
    reference=_homography,
    inputs=_cameras_and_depth,
    laws=(
        Law("For two equal cameras it is the identity.", _same_camera, inputs=_one_camera),
        Law(
            "A pixel goes where its point on the plane is seen by the source: expected is back-projected and "
            "projected.",
            _as_by_way_of_point,
            inputs=_and_pixel,
        ),
    ),
)


# to-sampling-grid


def _to_grid(pixels: Tensor, height: int, width: int) -> Tensor:
    return 2 * pixels / torch.tensor([width, height]) - 1


def _places(draw: Draw) -> dict[str, Any]:
    height, width = ((1, 1), (2, 1), (2, 4), (4, 3), (5, 8))[draw.level]
    return {"pixels": draw.tensor(height, width, 2, low=-1, high=8), "height": height, "width": width}


def _identity_reads_itself(answer: Answer, image: Tensor) -> tuple[Tensor, Tensor]:
    height, width = image.shape[-2:]
    grid = answer(pixel_grid(height, width), height, width)
    return torch.nn.functional.grid_sample(image, grid[None], align_corners=False), image


def _images(draw: Draw) -> dict[str, Any]:
    height, width = ((1, 1), (2, 1), (2, 4), (4, 3), (5, 8))[draw.level]
    return {"image": draw.tensor(1, 1, height, width, low=1, high=9, step=1.0)}


TO_SAMPLING_GRID = Exercise(
    name="to-sampling-grid",
    chapter="homographies",
    difficulty=1,
    signature="to_sampling_grid(pixels, height, width)",
    question=(
        "`pixels` `(h, w, 2)`, x before y, are places in an image of `height` × `width` pixels, with "
        "centres at +0.5. Return them as `F.grid_sample` wants them with `align_corners=False`: `(h, w, 2)`, "
        "with -1 and 1 at the *edges* of the image."
    ),
    hint="x runs from 0 to the width, y from 0 to the height. Neither minus one nor minus a half occurs.",
    reference=_to_grid,
    inputs=_places,
    laws=(
        Law(
            "Reading an image at its own pixel centres gives back the image: got is what grid_sample reads.",
            _identity_reads_itself,
            inputs=_images,
        ),
    ),
)


# read-bilinear


def _read(image: Tensor, pixel: Tensor) -> Tensor:
    shift = torch.eye(3)
    shift[:2, 2] = pixel - 0.5  # the only pixel of a map of one goes there
    return homography_warp(image[None], shift[None, None], size=(1, 1))[0, :, 0, 0, 0]


def _image_and_pixel(draw: Draw) -> dict[str, Any]:
    C, H, W = ((1, 1, 2), (1, 2, 2), (2, 2, 3), (3, 4, 2), (2, 5, 7))[draw.level]
    image = draw.tensor(C, H, W, low=1, high=9, step=1.0)
    pixel = torch.tensor([draw.number(-1, W + 1, 0.25), draw.number(-1, H + 1, 0.25)])
    return {"image": image, "pixel": pixel}


def _image_and_place(draw: Draw) -> dict[str, Any]:
    inputs = _image_and_pixel(draw)
    _, H, W = inputs["image"].shape
    return {"image": inputs["image"], "row": draw.whole(0, H - 1), "column": draw.whole(0, W - 1)}


def _centre_is_pixel(answer: Answer, image: Tensor, row: int, column: int) -> tuple[Tensor, Tensor]:
    return answer(image, torch.tensor([column + 0.5, row + 0.5])), image[:, row, column]


def _image_and_outside(draw: Draw) -> dict[str, Any]:
    image = _image_and_pixel(draw)["image"]
    W = image.shape[-1]
    return {"image": image, "pixel": torch.tensor([draw.one_of([-0.5, W + 0.5, W + 3.0]), 0.5])}


def _zero_outside(answer: Answer, image: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    return answer(image, pixel), torch.zeros(len(image))


READ_BILINEAR = Exercise(
    name="read-bilinear",
    chapter="homographies",
    difficulty=3,
    signature="read_bilinear(image, pixel)",
    question=(
        "Read an `image` `(C, H, W)` at a `pixel` `(2,)`, x before y, between the pixel centres, which are "
        "at +0.5: the mean of the four pixels around it, each weighted by how near it is. Pixels outside "
        "count as 0. Return `(C,)`. Do not use `grid_sample`."
    ),
    hint=(
        "Subtract 0.5 and take floor: that is the column on the left. Its weight is 1 minus what remains. "
        "Ask for each of the four whether it exists; an index of -1 means the last one to Python."
    ),
    reference=_read,
    inputs=_image_and_pixel,
    laws=(
        Law("At the centre of a pixel one reads that pixel.", _centre_is_pixel, inputs=_image_and_place),
        Law("Half a pixel and more beyond the edge one reads 0.", _zero_outside, inputs=_image_and_outside),
    ),
)


# pixels-per-interval


def _step(
    pixel: Tensor, K_ref: Tensor, E_ref: Tensor, K_src: Tensor, E_src: Tensor, depths: Tensor
) -> Tensor:
    candidates = _candidates(pixel, K_ref, E_ref, K_src, E_src, depths)
    return (candidates[1:] - candidates[:-1]).norm(dim=1)


def _pixel_and_planes(draw: Draw) -> dict[str, Any]:
    depths = 2 + torch.arange(draw.planes).float() * draw.one_of([0.5, 1.0, 2.0])
    return {"pixel": draw.tensor(2, low=0, high=4), **_cameras(draw), "depths": depths}


def _in_place(answer: Answer, pixel: Tensor, K: Tensor, E: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    return answer(pixel, K, E, K, E, depths), torch.zeros(len(depths) - 1)


def _pixel_and_camera(draw: Draw) -> dict[str, Any]:
    inputs = _pixel_and_planes(draw)
    names = {"pixel": "pixel", "K": "ref_intrinsics", "E": "ref_extrinsics", "depths": "depths"}
    return {short: inputs[name] for short, name in names.items()}


def _length_from_end_to_end(
    answer: Answer, pixel: Tensor, depths: Tensor, **cameras: Tensor
) -> tuple[Tensor, Tensor]:
    ends = _candidates(pixel, *cameras.values(), depths[[0, -1]])
    return answer(pixel, *cameras.values(), depths).sum(), (ends[1] - ends[0]).norm()


PIXELS_PER_INTERVAL = Exercise(
    name="pixels-per-interval",
    chapter="homographies",
    difficulty=2,
    signature=(
        "pixels_per_interval(pixel, ref_intrinsics, ref_extrinsics, src_intrinsics, src_extrinsics, depths)"
    ),
    question=(
        "From one plane to the next, how far does the place move at which a source is read? For a `pixel` "
        "`(2,)` of the reference and `depths` `(D,)`, return the distances between neighbouring candidates, "
        "`(D - 1,)`, in pixels of the source. `ref_intrinsics` and `src_intrinsics` are `(3, 3)`, "
        "`ref_extrinsics` and `src_extrinsics` are `(4, 4)`, world to camera. A sweep whose steps are much "
        "longer than a pixel skips matches; one with much shorter steps looks at everything twice."
    ),
    hint="Compute all candidates first. The rest is a difference and a length.",
    reference=_step,
    inputs=_pixel_and_planes,
    laws=(
        Law("A camera compared with itself moves nowhere.", _in_place, inputs=_pixel_and_camera),
        Law("All steps together lead from the first candidate to the last.", _length_from_end_to_end),
    ),
)

EXERCISES = (
    APPLY_HOMOGRAPHY,
    HOMOGRAPHY_OF_A_PLANE,
    TO_SAMPLING_GRID,
    READ_BILINEAR,
    PIXELS_PER_INTERVAL,
)
