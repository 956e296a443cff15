"""Depth hypotheses, and the ways from a cost or a probability over them to a depth."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = [
    "uniform_depths",
    "inverse_depths",
    "soft_argmin",
    "winner_take_all",
    "winner_of_sweep",
    "probability_map",
]


def uniform_depths(depth_min: float | Tensor, interval: float | Tensor, num: int) -> Tensor:
    """Depth hypotheses at equal distances: always exactly ``num`` of them.

    Args:
        depth_min: depth of the first plane; a number, or a tensor (B,).
        interval: distance between planes, in the same unit; a number, or a tensor (B,).
        num: how many planes, D.

    Returns:
        (D,), or (B, D) if one of the arguments is a tensor (B,).

    Raises:
        ValueError: if ``num`` is below 1.

    Source: ``model.py:inference`` (``depth_start + range * interval``). Never ``arange(min, max, interval)``:
    rounding can give it D + 1 entries.

    >>> uniform_depths(425.0, 2.5, 4)
    tensor([425.0000, 427.5000, 430.0000, 432.5000])
    """
    first, step = _as_columns(depth_min, interval)
    return (first.double() + step.double() * _steps(num, first.device)).to(first.dtype)


def inverse_depths(depth_min: float | Tensor, depth_max: float | Tensor, num: int) -> Tensor:
    """Depth hypotheses at equal distances in 1 / depth: equal steps along the epipolar line, roughly.

    Args:
        depth_min: depth of the first plane; a number, or a tensor (B,).
        depth_max: depth of the last plane; a number, or a tensor (B,).
        num: how many planes, D.

    Returns:
        (D,), or (B, D) if one of the arguments is a tensor (B,); first and last are exact.

    Raises:
        ValueError: if ``num`` is below 1.

    Source: ``homography_warping.py:get_homographies_inv_depth``.

    >>> inverse_depths(1.0, 4.0, 4)
    tensor([1.0000, 1.3333, 2.0000, 4.0000])
    """
    near, far = _as_columns(depth_min, depth_max)
    weight = _steps(num, near.device) / max(num - 1, 1)
    depths = (1 / torch.lerp(1 / near.double(), 1 / far.double(), weight)).to(near.dtype)  # (..., D)
    return torch.where(weight == 0, near, torch.where(weight == 1, far, depths))


def soft_argmin(cost: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    """Expected depth under softmax(-cost): the differentiable stand-in for "the depth of the lowest cost".

    Args:
        cost: (B, D, h, w), low where the views agree.
        depth_values: (D,), (B, D) or (B, D, h, w).

    Returns:
        depth (B, h, w), between the first and the last hypothesis, and probability (B, D, h, w), which sums
        to 1.

    Source: equation (3) of the paper; ``model.py:inference``.

    >>> cost = torch.tensor([0.0, 50.0, 50.0]).view(1, 3, 1, 1)
    >>> soft_argmin(cost, torch.tensor([2.0, 3.0, 4.0]))[0]
    tensor([[[2.]]])
    """
    cost = cost.to(torch.promote_types(cost.dtype, torch.float32))  # half is too few bits for exp and sums
    probability = torch.softmax(-cost, dim=1)  # (B, D, h, w)
    return (probability * _per_pixel(depth_values)).sum(dim=1), probability


def winner_take_all(probability: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable hypothesis and its probability; not differentiable in the depth.

    Args:
        probability: (B, D, h, w).
        depth_values: (D,), (B, D) or (B, D, h, w).

    Returns:
        depth (B, h, w) and probability (B, h, w).

    Source: ``model.py:inference_winner_take_all``.

    >>> winner_take_all(torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1), torch.tensor([2.0, 3.0, 4.0]))
    (tensor([[[3.]]]), tensor([[[0.5000]]]))
    """
    best, index = probability.max(dim=1, keepdim=True)  # (B, 1, h, w)
    depths = _per_pixel(depth_values).expand_as(probability)
    return depths.gather(1, index).squeeze(1), best.squeeze(1)


def winner_of_sweep(slabs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """:func:`winner_take_all` of a softmax over planes that come a few at a time and are forgotten.

    Three maps are kept: the best score so far, its depth, and the sum of exp(score - best). Whenever the best
    score grows, the sum shrinks to fit, so no exponent is ever positive and nothing overflows. In the end
    1 / sum is the winner's probability. Of equal scores, the first wins.

    Args:
        slabs: scores (B, d, h, w), and their depths (d,), (B, d) or (B, d, h, w); at least one slab.

    Returns:
        depth (B, h, w) and probability (B, h, w).

    Source: ``model.py:inference_winner_take_all``, which sums exp(score) and overflows above 88.

    >>> scores, depths = torch.tensor([90.0, 91.0, 89.0]).view(1, 3, 1, 1), torch.tensor([[2.0, 3.0, 4.0]])
    >>> winner_of_sweep([(scores[:, :2], depths[:, :2]), (scores[:, 2:], depths[:, 2:])])
    (tensor([[[3.]]]), tensor([[[0.6652]]]))
    """
    best, depth, total = -torch.inf, 0.0, 0.0
    for scores, depths in slabs:
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        here, index = scores.max(dim=1, keepdim=True)  # (B, 1, h, w) each
        depth_here = _per_pixel(depths).expand_as(scores).gather(1, index)
        depth = torch.where(here > best, depth_here, depth)
        before, best = best, here.clamp(min=best)
        total = total * (before - best).exp() + (scores - best).exp().sum(dim=1, keepdim=True)
    return depth.squeeze(1), 1 / total.squeeze(1)


def probability_map(probability: Tensor, depth: Tensor, depth_values: Tensor) -> Tensor:
    """How much probability lies in the four hypotheses around the estimate: a measure of trust.

    The four are two below and two above: if the estimate lies in [d_i, d_{i+1}) they are i - 1, i, i + 1 and
    i + 2. Those beyond the ends do not exist and add nothing, so the result never exceeds 1. (The original
    clips their indices instead, which counts the end planes twice or three times.)

    Args:
        probability: (B, D, h, w), sums to 1 over D.
        depth: (B, h, w), the estimate, from :func:`soft_argmin` or :func:`winner_take_all`.
        depth_values: (D,), (B, D) or (B, D, h, w), ascending or descending.

    Returns:
        (B, h, w), in [0, 1].

    Source: section 3.3 of the paper; ``model.py:get_propability_map``.

    >>> uniform = torch.full((1, 8, 1, 1), 1 / 8)
    >>> probability_map(uniform, torch.tensor([[[3.5]]]), torch.arange(8.0))
    tensor([[[0.5000]]])
    """
    B, D, h, w = probability.shape
    depths = _per_pixel(depth_values)
    direction = torch.sign(depths[:, -1:] - depths[:, :1])  # -1 where the hypotheses descend
    reached = depths * direction <= depth.unsqueeze(1) * direction  # (B, D, h, w)
    below = reached.sum(dim=1, keepdim=True) - 1  # (B, 1, h, w)
    bins = below + torch.arange(-1, 3, device=depth.device).view(1, 4, 1, 1)  # (B, 4, h, w)
    exists = (bins >= 0) & (bins < D)
    mass = torch.where(exists, probability.gather(1, bins.clamp(0, D - 1)), 0).sum(dim=1)
    return mass.clamp(max=1)  # the sum of a softmax may exceed 1 by rounding


def _as_columns(*values: float | Tensor) -> list[Tensor]:
    """(B,) becomes (B, 1); numbers take the type and the device of the tensor beside them."""
    tensors = (v for v in values if isinstance(v, Tensor) and v.is_floating_point())
    like = next(tensors, torch.empty(0))
    values = (torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values)
    return [v.unsqueeze(-1) if v.ndim else v for v in values]


def _steps(num: int, device: torch.device) -> Tensor:
    if num < 1:
        raise ValueError(f"the number of depth hypotheses must be at least 1, not {num}")
    return torch.arange(num, dtype=torch.float64, device=device)


def _per_pixel(depth_values: Tensor) -> Tensor:
    """(D,), (B, D) or (B, D, h, w) to something that broadcasts against (B, D, h, w)."""
    if depth_values.ndim == 4:
        return depth_values
    return depth_values.reshape(-1, depth_values.shape[-1], 1, 1)
