"""The loss of MVSNet and its accuracy measures, under the names of the original ``loss.py``.

A ground-truth depth of 0 (or a non-finite one) means "not measured". Everything here counts measured pixels
only, and an image without any gives 0.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "non_zero_mean_absolute_diff",
    "less_one_percentage",
    "less_three_percentage",
    "mvsnet_regression_loss",
    "mvsnet_classification_loss",
    "mvsnet_loss",
]


def non_zero_mean_absolute_diff(
    estimated: Tensor,
    ground_truth: Tensor,
    interval: float | Tensor,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Mean absolute depth error over the measured pixels of each image, in depth intervals.

    Args:
        estimated: (B, h, w), or any shape that starts with B.
        ground_truth: the same shape; 0 or non-finite where not measured.
        interval: the depth interval, a number or a tensor (B,); its sign does not matter.
        reduction: how the images of the batch are put together; the original sums, which scales with B.

    Returns:
        a scalar, in depth intervals.

    Raises:
        ValueError: if the shapes differ or ``reduction`` is neither.

    Source: equation (4) of the paper; ``loss.py:non_zero_mean_absolute_diff``.

    >>> non_zero_mean_absolute_diff(torch.tensor([[3.0, 9.0]]), torch.tensor([[2.0, 0.0]]), 0.5)
    tensor(2.)
    """
    error, measured = _error_in_intervals(estimated, ground_truth, interval)
    per_image = error.flatten(1).sum(dim=1) / measured.flatten(1).sum(dim=1).clamp(min=1)  # (B,)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', not {reduction!r}")
    return per_image.mean() if reduction == "mean" else per_image.sum()


def less_one_percentage(estimated: Tensor, ground_truth: Tensor, interval: float | Tensor) -> Tensor:
    """Share of the measured pixels whose error is at most one depth interval.

    A measure, not a loss: it is a count, its gradient is zero wherever it exists, and the result carries
    none.

    Args:
        estimated: (B, h, w).
        ground_truth: (B, h, w); 0 or non-finite where not measured.
        interval: the depth interval, a number or a tensor (B,).

    Returns:
        a scalar in [0, 1], over all measured pixels of the batch together.

    Source: ``loss.py:less_one_percentage``.

    >>> less_one_percentage(torch.tensor([[2.5, 4.0, 7.0]]), torch.tensor([[2.0, 2.0, 0.0]]), 0.5)
    tensor(0.5000)
    """
    return _share_within(1.0, estimated, ground_truth, interval)


def less_three_percentage(estimated: Tensor, ground_truth: Tensor, interval: float | Tensor) -> Tensor:
    """Share of the measured pixels whose error is at most three intervals; see :func:`less_one_percentage`.

    Args:
        estimated: (B, h, w).
        ground_truth: (B, h, w); 0 or non-finite where not measured.
        interval: the depth interval, a number or a tensor (B,).

    Returns:
        a scalar in [0, 1], over all measured pixels of the batch together.

    Source: ``loss.py:less_three_percentage``.

    >>> less_three_percentage(torch.tensor([[3.5, 4.0, 7.0]]), torch.tensor([[2.0, 2.0, 0.0]]), 0.5)
    tensor(0.5000)
    """
    return _share_within(3.0, estimated, ground_truth, interval)


def mvsnet_regression_loss(
    estimated: Tensor, ground_truth: Tensor, interval: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of one depth map and its two accuracy measures.

    Args:
        estimated: (B, h, w).
        ground_truth: (B, h, w); 0 or non-finite where not measured.
        interval: the depth interval, a number or a tensor (B,).

    Returns:
        loss (in depth intervals, averaged over the batch), less_one and less_three (shares in [0, 1], no
        gradient).

    Source: ``loss.py:mvsnet_regression_loss``.

    >>> mvsnet_regression_loss(torch.tensor([[4.0, 9.0]]), torch.tensor([[2.0, 0.0]]), 1.0)
    (tensor(2.), tensor(0.), tensor(1.))
    """
    return (
        non_zero_mean_absolute_diff(estimated, ground_truth, interval),
        less_one_percentage(estimated, ground_truth, interval),
        less_three_percentage(estimated, ground_truth, interval),
    )


def mvsnet_loss(
    initial: Tensor, refined: Tensor | None, ground_truth: Tensor, interval: float | Tensor
) -> Tensor:
    """What MVSNet is trained on: the average of the losses of the initial and of the refined depth map.

    Args:
        initial: (B, h, w), the depth map of soft argmin.
        refined: (B, h, w), the refined depth map; None without refinement, then the initial loss alone
            counts.
        ground_truth: (B, h, w); 0 or non-finite where not measured.
        interval: the depth interval, a number or a tensor (B,).

    Returns:
        a scalar, in depth intervals.

    Source: equation (4) of the paper, halved; ``train.py:train`` (``loss = (loss0 + loss1) / 2``).

    >>> truth = torch.tensor([[2.0, 0.0]])
    >>> mvsnet_loss(torch.tensor([[4.0, 9.0]]), torch.tensor([[3.0, 9.0]]), truth, 1.0)
    tensor(1.5000)
    """
    loss0 = non_zero_mean_absolute_diff(initial, ground_truth, interval)
    if refined is None:
        return loss0
    return (loss0 + non_zero_mean_absolute_diff(refined, ground_truth, interval)) / 2


def mvsnet_classification_loss(logits: Tensor, ground_truth: Tensor, depth_values: Tensor) -> Tensor:
    """R-MVSNet's loss: cross entropy between the planes' probabilities and the plane nearest to the truth.

    Args:
        logits: (B, D, h, w), high where a plane is probable (minus the cost).
        ground_truth: (B, h, w); 0 or non-finite where not measured. Truth more than half a step beyond the
            first or the last plane has no class and is not counted either.
        depth_values: (D,) or (B, D), ascending or descending.

    Returns:
        a scalar, in nats: mean over the counted pixels of each image, then over the batch.

    Source: section 3.3 of the R-MVSNet paper; ``loss.py:mvsnet_classification_loss``, by log-softmax, where
    the original takes the logarithm of a softmax and meets infinity.

    >>> truth = torch.tensor([[[2.0, 0.0]]])
    >>> mvsnet_classification_loss(torch.zeros(1, 4, 1, 2), truth, torch.arange(1.0, 5.0))
    tensor(1.3863)
    """
    B, D, h, w = logits.shape
    depths = depth_values.expand(B, D)[:, :, None, None]  # (B, D, 1, 1)
    label = (depths - ground_truth.unsqueeze(1)).abs().argmin(dim=1)  # (B, h, w)
    counted = _measured(ground_truth) & _in_reach(ground_truth, depths)
    logits = torch.where(counted.unsqueeze(1), logits, 0)  # a NaN would pass the second where backwards
    nats = torch.where(counted, F.cross_entropy(logits, label, reduction="none"), 0)  # (B, h, w)
    per_image = nats.flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp(min=1)  # (B,)
    return per_image.mean()


def _measured(ground_truth: Tensor) -> Tensor:
    return ground_truth.isfinite() & (ground_truth != 0)


def _in_reach(ground_truth: Tensor, depths: Tensor) -> Tensor:
    """Whether (B, h, w) lies between the planes (B, D, 1, 1), or at most half a step beyond them."""
    first = depths[:, 0] + (depths[:, 0] - depths[:, 1]) / 2  # (B, 1, 1)
    last = depths[:, -1] + (depths[:, -1] - depths[:, -2]) / 2
    low, high = torch.minimum(first, last), torch.maximum(first, last)
    return (low <= ground_truth) & (ground_truth <= high)


def _error_in_intervals(
    estimated: Tensor, ground_truth: Tensor, interval: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Absolute error / interval, 0 where not measured, and the mask of measured pixels."""
    if estimated.shape != ground_truth.shape:
        raise ValueError(
            f"estimated {tuple(estimated.shape)} and ground truth {tuple(ground_truth.shape)} differ in shape"
        )
    measured = _measured(ground_truth)
    # where, not mask * error: a NaN times 0 is still NaN
    difference = torch.where(measured, estimated - ground_truth, 0)
    interval = torch.as_tensor(interval, dtype=difference.dtype, device=difference.device).abs()
    return difference.abs() / interval.reshape(-1, *[1] * (difference.ndim - 1)), measured


@torch.no_grad()
def _share_within(limit: float, estimated: Tensor, ground_truth: Tensor, interval: float | Tensor) -> Tensor:
    error, measured = _error_in_intervals(estimated, ground_truth, interval)
    return ((error <= limit) & measured).sum() / measured.sum().clamp(min=1)
