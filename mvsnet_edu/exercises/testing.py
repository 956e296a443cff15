"""Exercises of the chapter on testing and filtering: trust, the way there and back, counting, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import project
from .draw import Draw
from .exercise import Exercise, Law

__all__ = ["EXERCISES"]

Answer = Callable[..., Any]


# keep-probable


def _maps(draw: Draw) -> dict[str, Any]:
    _, h, w = draw.map_shape
    depth = draw.tensor(h, w, low=1, high=4)
    probability = draw.tensor(h, w, low=0, high=1, step=0.25)
    return {"depth": depth, "probability": probability, "least": draw.one_of([0.25, 0.5, 0.75])}


def _maps_with_holes(draw: Draw) -> dict[str, Any]:
    drawn = _maps(draw)
    holes = [draw.one_of((1.0, 0.0, float("nan"), float("inf"), -1.0)) for _ in range(drawn["depth"].numel())]
    return {**drawn, "depth": drawn["depth"] * torch.tensor(holes).view(drawn["depth"].shape)}


def _on_the_threshold(draw: Draw) -> dict[str, Any]:
    drawn = _maps(draw)
    return {**drawn, "probability": torch.full_like(drawn["depth"], drawn["least"])}


def _keep_probable(depth: Tensor, probability: Tensor, least: float) -> Tensor:
    return torch.where(depth.isfinite() & (depth > 0) & (probability >= least), depth, 0)


def _all_kept(answer: Answer, depth: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    return answer(depth, *others.values()), depth


KEEP_PROBABLE = Exercise(
    name="keep-probable",
    chapter="testing",
    difficulty=1,
    signature="keep_probable(depth, probability, least)",
    question=(
        "Return a depth map `(h, w)` that has the depth where it may be trusted, and 0 elsewhere. Trust a "
        "pixel if its probability is `least` or more, and its depth is a positive, finite number."
    ),
    hint="torch.where needs one condition. NaN compares as False with everything; infinity does not.",
    reference=_keep_probable,
    inputs=_maps_with_holes,
    laws=(Law("A probability of exactly the threshold is enough.", _all_kept, inputs=_on_the_threshold),),
)


# round-trip


def _two_views(draw: Draw) -> dict[str, Any]:
    count = draw.level + 1
    return {
        "pixels": draw.tensor(count, 2, low=0.5, high=4.5),
        "depth": draw.tensor(count, low=2, high=6),
        "claimed": draw.tensor(count, low=1, high=6),
        "ref_intrinsics": draw.intrinsics(),
        "ref_extrinsics": draw.extrinsics(),
        "src_intrinsics": draw.intrinsics(),
        "src_extrinsics": draw.extrinsics(),
    }


def _world(pixels: Tensor, depth: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    rays = F.pad(pixels, (0, 1), value=1.0) @ torch.linalg.inv(intrinsics).T  # (N, 3), z = 1
    return (rays * depth[:, None] - extrinsics[:3, 3]) @ extrinsics[:3, :3]


def _there(pixels: Tensor, depth: Tensor, **cameras: Tensor) -> tuple[Tensor, Tensor]:
    ref, src = (
        [cameras[f"{view}_{part}"] for part in ("intrinsics", "extrinsics")] for view in ("ref", "src")
    )
    return project(_world(pixels, depth, *ref), *src)


def _round_trip(
    pixels: Tensor,
    depth: Tensor,
    claimed: Tensor,
    ref_intrinsics: Tensor,
    ref_extrinsics: Tensor,
    src_intrinsics: Tensor,
    src_extrinsics: Tensor,
) -> tuple[Tensor, Tensor]:
    points = _world(pixels, depth, ref_intrinsics, ref_extrinsics)
    there, _ = project(points, src_intrinsics, src_extrinsics)
    return project(_world(there, claimed, src_intrinsics, src_extrinsics), ref_intrinsics, ref_extrinsics)


def _in_front_of_both(draw: Draw) -> dict[str, Any]:
    """Points that neither camera has near its plane, where a pixel is nowhere."""
    for _ in range(100):
        drawn = _two_views(draw)
        cameras = {name: value for name, value in drawn.items() if "trinsics" in name}
        _, z = _there(drawn["pixels"], drawn["depth"], **cameras)
        _, back = _round_trip(*drawn.values())
        if z.abs().min() > 0.5 and back.abs().min() > 0.5:
            break
    return drawn


def _same_claim(draw: Draw) -> dict[str, Any]:
    drawn = _in_front_of_both(draw)
    cameras = {name: value for name, value in drawn.items() if "trinsics" in name}
    return {**drawn, "claimed": _there(drawn["pixels"], drawn["depth"], **cameras)[1]}


def _comes_home(answer: Answer, pixels: Tensor, depth: Tensor, **others: Tensor) -> tuple[Any, Any]:
    return answer(pixels, depth, *others.values()), (pixels, depth)


ROUND_TRIP = Exercise(
    name="round-trip",
    chapter="testing",
    difficulty=3,
    signature=(
        "round_trip(pixels, depth, claimed, ref_intrinsics, ref_extrinsics, src_intrinsics, src_extrinsics)"
    ),
    question=(
        "Go from N pixels `(N, 2)` of a reference view, by their depths `(N,)`, to a source view; there take "
        "the depths `claimed`, `(N,)`, instead, and come back. Return `(pixels, depth)`: where you arrive in "
        "the reference, `(N, 2)`, and at which depth, `(N,)`. `ref_intrinsics` and `src_intrinsics` are "
        "`(3, 3)`, `ref_extrinsics` and `src_extrinsics` `(4, 4)`, world to camera."
    ),
    hint=(
        "Four steps: into the world with the reference's camera, into the source, back into the world with "
        "the source's camera and the claimed depth, into the reference. Only the pixel survives the second "
        "step."
    ),
    reference=_round_trip,
    inputs=_in_front_of_both,
    laws=(
        Law(
            "If the source claims the depth at which it sees the point, the way ends where it began.",
            _comes_home,
            inputs=_same_claim,
        ),
    ),
)


# count-views


def _errors(draw: Draw) -> dict[str, Any]:
    B, h, w = draw.map_shape
    stride = draw.one_of([1, 2, 4])
    return {
        "reprojection_error": draw.tensor(B + 1, h, w, low=0, high=1.5, step=0.125),
        "relative_error": draw.tensor(B + 1, h, w, low=0, high=0.02, step=0.0025),
        "stride": stride,
    }


def _far_off(draw: Draw) -> dict[str, Any]:
    drawn = _errors(draw)
    return {**drawn, "reprojection_error": torch.full_like(drawn["relative_error"], torch.inf)}


def _agreeing(draw: Draw) -> dict[str, Any]:
    drawn = _errors(draw)
    nothing = torch.zeros_like(drawn["relative_error"])
    return {**drawn, "reprojection_error": nothing, "relative_error": nothing}


def _count_views(reprojection_error: Tensor, relative_error: Tensor, stride: int) -> Tensor:
    agrees = (reprojection_error * stride < 1) & (relative_error < 0.01)
    return 1 + agrees.sum(dim=0)


def _alone(answer: Answer, reprojection_error: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    count = torch.ones(reprojection_error.shape[1:], dtype=torch.long)
    return answer(reprojection_error, *others.values()), count


def _everyone(answer: Answer, reprojection_error: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    S, h, w = reprojection_error.shape
    return answer(reprojection_error, *others.values()), torch.full((h, w), S + 1)


COUNT_VIEWS = Exercise(
    name="count-views",
    chapter="testing",
    difficulty=2,
    signature="count_views(reprojection_error, relative_error, stride)",
    question=(
        "Return how many views agree at every pixel of a reference, `(h, w)`, whole numbers, *the reference "
        "itself included*. `reprojection_error` and `relative_error` (of the depth) are `(S, h, w)` for S "
        "sources. A source agrees where the first is below one pixel *of the image* and the second below "
        "0.01. The reprojection error is given in pixels of the depth map, which is `stride` times smaller "
        "than the image."
    ),
    hint=(
        "One pixel of the depth map is how many pixels of the image? Then count, and do not forget whom you "
        "asked."
    ),
    reference=_count_views,
    inputs=_errors,
    laws=(
        Law("Where no source agrees, the reference still counts.", _alone, inputs=_far_off),
        Law("Where all S sources agree, S + 1 views do.", _everyone, inputs=_agreeing),
    ),
)


# precision-and-share


def _decisions(draw: Draw) -> dict[str, Any]:
    _, h, w = draw.map_shape
    kept, right = (draw.tensor(h, w, low=0, high=1, step=1) > 0 for _ in range(2))
    return {"kept": kept, "right": right}


def _nothing_kept(draw: Draw) -> dict[str, Any]:
    drawn = _decisions(draw)
    return {**drawn, "kept": torch.zeros_like(drawn["kept"])}


def _precision_and_share(kept: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    return (kept & right).sum() / kept.sum().clamp(min=1), kept.float().mean()


def _zeros(answer: Answer, **inputs: Tensor) -> tuple[Any, Any]:
    return answer(*inputs.values()), (torch.tensor(0.0), torch.tensor(0.0))


def _all_kept_then(answer: Answer, kept: Tensor, right: Tensor) -> tuple[Any, Any]:
    return answer(torch.ones_like(kept), right), (right.float().mean(), torch.tensor(1.0))


PRECISION_AND_SHARE = Exercise(
    name="precision-and-share",
    chapter="testing",
    difficulty=1,
    signature="precision_and_share(kept, right)",
    question=(
        "A filter keeps some pixels of a depth map, and some pixels are right; both are `(h, w)` tensors of "
        "`bool`. Return `(precision, share)`, two tensors without dimensions: how many of the kept pixels "
        "are right, and how many of all pixels are kept, from 0 to 1. If nothing is kept, both are 0."
    ),
    hint="Which of the two divides by a number that may be 0?",
    reference=_precision_and_share,
    inputs=_decisions,
    laws=(
        Law("A filter that keeps nothing has precision 0 and share 0.", _zeros, inputs=_nothing_kept),
        Law("A filter that keeps all has the share of right pixels as its precision.", _all_kept_then),
    ),
)

EXERCISES = (KEEP_PROBABLE, ROUND_TRIP, COUNT_VIEWS, PRECISION_AND_SHARE)
