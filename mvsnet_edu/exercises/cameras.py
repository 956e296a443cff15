"""Exercises of the chapter on cameras: intrinsics, a relative pose, candidates, the epipole, depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..camera import camera_center, project
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]
#: intrinsics and extrinsics of a reference, then of a source
Cameras = tuple[Tensor, Tensor, Tensor, Tensor]


def _cameras(draw: Draw) -> dict[str, Any]:
    reference = draw.extrinsics()
    return {
        "ref_intrinsics": draw.intrinsics(),
        "ref_extrinsics": reference,
        "src_intrinsics": draw.intrinsics(),
        "src_extrinsics": draw.source_extrinsics(reference),
    }


def _at_depth(pixel: Tensor, intrinsics: Tensor, extrinsics: Tensor, depth: Any) -> Tensor:
    """World points (..., 3) at depths (...) of one pixel's ray."""
    ray = torch.linalg.inv(intrinsics) @ torch.cat([pixel, torch.ones(1)])
    return (torch.as_tensor(depth)[..., None] * ray - extrinsics[:3, 3]) @ extrinsics[:3, :3]


# intrinsics-from-angle


def _from_angle(height: int, width: int, degrees: float) -> Tensor:
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def _angles(draw: Draw) -> dict[str, Any]:
    height, width = ((2, 2), (2, 4), (6, 4), (5, 7), (32, 40))[draw.level]
    return {"height": height, "width": width, "degrees": draw.one_of([30.0, 60.0, 90.0, 120.0])}


def _border_rays(answer: Answer, height: int, width: int, degrees: float) -> tuple[Tensor, Tensor]:
    K = answer(height, width, degrees)
    left, right = (torch.linalg.inv(K) @ torch.tensor([x, height / 2, 1]) for x in (0.0, float(width)))
    cosine = (left @ right) / (left.norm() * right.norm())
    return cosine, torch.tensor(math.cos(math.radians(degrees)))


INTRINSICS_FROM_ANGLE = Exercise(
    name="intrinsics-from-angle",
    chapter="cameras",
    difficulty=1,
    signature="intrinsics_from_angle(height, width, degrees)",
    question=(
        "A camera without distortion looks through the middle of its image, which is `width` × `height` "
        "square pixels large. From the left *edge* of the image to the right one it sees an angle of "
        "`degrees`. Return its intrinsics `(3, 3)`, as float32."
    ),
    hint=(
        "Draw the triangle of the camera centre, the middle of the image and its right edge. Half of the "
        "angle is at the centre, half of the width is opposite, and f lies between them."
    ),
    reference=_from_angle,
    inputs=_angles,
    laws=(
        Law(
            "The rays through the middles of the left and the right edge enclose the angle: got and expected "
            "are cosines.",
            _border_rays,
        ),
    ),
)


# relative-pose


def _relative(ref_extrinsics: Tensor, src_extrinsics: Tensor) -> Tensor:
    return src_extrinsics @ torch.linalg.inv(ref_extrinsics)


def _two_poses(draw: Draw) -> dict[str, Any]:
    reference = draw.extrinsics()
    return {"ref_extrinsics": reference, "src_extrinsics": draw.source_extrinsics(reference)}


def _own_pose(answer: Answer, ref_extrinsics: Tensor, src_extrinsics: Tensor) -> tuple[Tensor, Tensor]:
    return answer(ref_extrinsics, ref_extrinsics), torch.eye(4)


def _goes_by_way_of_reference(
    answer: Answer, ref_extrinsics: Tensor, src_extrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    origin = torch.tensor([0.0, 0, 0, 1])
    return answer(ref_extrinsics, src_extrinsics) @ ref_extrinsics @ origin, src_extrinsics @ origin


RELATIVE_POSE = Exercise(
    name="relative-pose",
    chapter="cameras",
    difficulty=2,
    signature="relative_pose(ref_extrinsics, src_extrinsics)",
    question=(
        "`ref_extrinsics` and `src_extrinsics` are `(4, 4)` and take world to camera coordinates. Return the "
        "matrix `(4, 4)` that takes coordinates in the reference camera to coordinates in the "
        "source camera."
    ),
    hint="From the reference camera back to the world, then on to the source. Which matrix acts first?",
    reference=_relative,
    inputs=_two_poses,
    laws=(
        Law("From a camera to itself it is the identity.", _own_pose),
        Law(
            "The origin of the world, taken to the reference and from there on to the source, arrives where "
            "the source sees it.",
            _goes_by_way_of_reference,
        ),
    ),
)


# epipolar-candidates


def _candidates(
    pixel: Tensor,
    ref_intrinsics: Tensor,
    ref_extrinsics: Tensor,
    src_intrinsics: Tensor,
    src_extrinsics: Tensor,
    depths: Tensor,
) -> Tensor:
    points = _at_depth(pixel, ref_intrinsics, ref_extrinsics, depths)  # (D, 3)
    return project(points, src_intrinsics, src_extrinsics)[0]


def _pixel_and_depths(draw: Draw) -> dict[str, Any]:
    depths = 2 + torch.arange(draw.planes).float() * draw.one_of([0.5, 1.0, 2.0])
    return {"pixel": draw.tensor(2, low=0, high=4), **_cameras(draw), "depths": depths}


def _own_candidates(
    answer: Answer, pixel: Tensor, K: Tensor, E: Tensor, depths: Tensor
) -> tuple[Tensor, Tensor]:
    return answer(pixel, K, E, K, E, depths), pixel.expand(len(depths), 2)


def _one_camera(draw: Draw) -> dict[str, Any]:
    both = _pixel_and_depths(draw)
    return {
        "pixel": both["pixel"],
        "K": both["ref_intrinsics"],
        "E": both["ref_extrinsics"],
        "depths": both["depths"],
    }


def _on_one_line(answer: Answer, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    points = answer(*inputs.values())
    (ax, ay), (bx, by) = points[0] - points[-1], points[1] - points[-1]
    return ax * by - ay * bx, torch.tensor(0.0)


CANDIDATES = Exercise(
    name="epipolar-candidates",
    chapter="cameras",
    difficulty=2,
    signature=(
        "epipolar_candidates(pixel, ref_intrinsics, ref_extrinsics, src_intrinsics, src_extrinsics, depths)"
    ),
    question=(
        "A `pixel` `(2,)` of the reference, x before y, may have any of the `depths` `(D,)`. Return where "
        "the source would see it for each of them, `(D, 2)`. `ref_intrinsics` and `src_intrinsics` are `(3, "
        "3)`, `ref_extrinsics` and `src_extrinsics` are `(4, 4)`, world to camera. The pixel is a coordinate "
        "already, so add no half to it."
    ),
    hint=(
        "The ray of the pixel, D times as long each; into the world; through the other camera; and divide by "
        "the third component."
    ),
    reference=_candidates,
    inputs=_pixel_and_depths,
    laws=(
        Law(
            "A camera sees all candidates of its own pixel at that pixel.",
            _own_candidates,
            inputs=_one_camera,
        ),
        Law(
            "All candidates lie on one line: got is the cross product of two of their differences.",
            _on_one_line,
        ),
    ),
)


# find-epipole


def _epipole(ref_extrinsics: Tensor, src_intrinsics: Tensor, src_extrinsics: Tensor) -> Tensor:
    return project(camera_center(ref_extrinsics), src_intrinsics, src_extrinsics)[0]


def _reference_in_sight(draw: Draw) -> dict[str, Any]:
    """A source that stands behind the reference, and a little beside it."""
    source = draw.extrinsics()
    relative = torch.eye(4)
    relative[:3, :3] = torch.linalg.inv(source[:3, :3])  # any rotation will do
    relative[:3, 3] = -relative[:3, :3] @ torch.tensor(
        [draw.number(-1, 1), draw.number(-1, 1), draw.number(1, 3)]
    )
    return {
        "ref_extrinsics": relative @ source,
        "src_intrinsics": draw.intrinsics(),
        "src_extrinsics": source,
    }


def _all_lines_meet(
    answer: Answer, ref_extrinsics: Tensor, src_intrinsics: Tensor, src_extrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    """The pixel of a point very near to the reference's centre."""
    near = _at_depth(torch.zeros(2), torch.eye(3), ref_extrinsics, 1e-6)
    return answer(ref_extrinsics, src_intrinsics, src_extrinsics), project(
        near, src_intrinsics, src_extrinsics
    )[0]


EPIPOLE = Exercise(
    name="find-epipole",
    chapter="cameras",
    difficulty=2,
    signature="find_epipole(ref_extrinsics, src_intrinsics, src_extrinsics)",
    question=(
        "All epipolar lines of a source image meet in one point, the *epipole*. Return it, `(2,)`, in "
        "pixels, x before y. `src_intrinsics` is `(3, 3)`; `ref_extrinsics` and `src_extrinsics` are `(4, "
        "4)`, world to camera. (The reference's intrinsics are not among the arguments. Why are they not "
        "needed?)"
    ),
    hint="Every ray of the reference starts at the same point. Where does the source see that point?",
    reference=_epipole,
    inputs=_reference_in_sight,
    laws=(
        Law(
            "The source sees the start of a ray of the reference at the epipole.",
            _all_lines_meet,
            reveal=False,
        ),
    ),
)


# depth-from-match


def _depth_from_match(
    pixel: Tensor, match: Tensor, K_ref: Tensor, E_ref: Tensor, K_src: Tensor, E_src: Tensor
) -> Tensor:
    pose = _relative(E_ref, E_src)
    far = K_src @ pose[:3, :3] @ torch.linalg.inv(K_ref) @ torch.cat([pixel, torch.ones(1)])
    near = K_src @ pose[:3, 3]
    # depth * far + near is parallel to (x, y, 1), so x times its third component is its first
    a, b = match * far[2] - far[:2], near[:2] - match * near[2]
    return (a @ b) / (a @ a)


def _match(draw: Draw) -> dict[str, Any]:
    cameras, pixel = _cameras(draw), draw.tensor(2, low=0, high=4)
    depth = torch.tensor(draw.number(2, 6))
    return {"pixel": pixel, "match": _candidates(pixel, *cameras.values(), depth), **cameras}


def _lands_on_match(answer: Answer, pixel: Tensor, match: Tensor, **cameras: Tensor) -> tuple[Tensor, Tensor]:
    depth = answer(pixel, match, *cameras.values())
    return _candidates(pixel, *cameras.values(), depth), match


DEPTH_FROM_MATCH = Exercise(
    name="depth-from-match",
    chapter="cameras",
    difficulty=3,
    signature=(
        "depth_from_match(pixel, match, ref_intrinsics, ref_extrinsics, src_intrinsics, src_extrinsics)"
    ),
    question=(
        "The `pixel` `(2,)` of the reference and the `match` `(2,)` of the source show the same point; the "
        "match lies exactly on the epipolar line. Return the point's depth in the reference, a tensor "
        "without dimensions. `ref_intrinsics` and `src_intrinsics` are `(3, 3)`, `ref_extrinsics` and "
        "`src_extrinsics` are `(4, 4)`, world to camera."
    ),
    hint=(
        "In homogeneous pixels the candidates are d a + b, with a fixed 3-vector a for the direction of the "
        "ray and b for the step from camera to camera. Set it equal to a multiple of (x, y, 1): that makes "
        "two equations for d. One of them may be 0 = 0, so use both, by least squares."
    ),
    reference=_depth_from_match,
    inputs=_match,
    laws=(
        Law("At your depth, the source sees the pixel's point at the match: got is where.", _lands_on_match),
    ),
)

EXERCISES = (INTRINSICS_FROM_ANGLE, RELATIVE_POSE, CANDIDATES, EPIPOLE, DEPTH_FROM_MATCH)
