"""The parts of a training step: loss, learning rate, optimiser, averaged weights, less memory."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .data.scene import Sample
from .layers import ConvBlock2d, ConvBlock3d, DeconvBlock3d
from .losses import mvsnet_loss
from .models import DepthEstimate, RMVSNet
from .recipe import OptimizerTable, StageTable

__all__ = ["clamped_loss", "forget_activations", "learning_rate", "make_optimizer", "update_average"]


def clamped_loss(estimate: DepthEstimate, sample: Sample, clamp: float) -> Tensor:
    """:func:`mvsnet_edu.losses.mvsnet_loss` in which no pixel counts as more than so many intervals wrong.

    A pixel that is farther off has no gradient: whatever hides the truth there, an occlusion say, the network
    is not asked to guess it.

    Args:
        estimate: what the network says.
        sample: what it saw, with the ground truth.
        clamp: in intervals; 0 for the plain loss.

    Returns:
        a scalar, in intervals.

    Source: ours.

    >>> from types import SimpleNamespace
    >>> truth, depth = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[2.0, 90.0]]])
    >>> sample = SimpleNamespace(ground_truth=truth, depth_interval=torch.tensor([0.5]))
    >>> clamped_loss(DepthEstimate(depth, truth, None), sample, clamp=20)
    tensor(11.)
    """
    maps, truth = (estimate.depth, estimate.refined_depth), sample.ground_truth
    if clamp:
        reach = clamp * sample.depth_interval.abs().view(-1, 1, 1)  # (B, 1, 1)
        maps = tuple(depth if depth is None else depth.clamp(truth - reach, truth + reach) for depth in maps)
    return mvsnet_loss(*maps, truth, sample.depth_interval)


def learning_rate(stage: StageTable, step: int) -> float:
    """The learning rate of a step.

    Args:
        stage: the part of the recipe that the step belongs to.
        step: its number within the stage, from 1.

    Returns:
        after a straight warm-up: half a cosine that ends at 0, or x 0.9 every 10,000 steps, smoothly.

    Source: ours; exponential: ``train.py`` (``tf.train.exponential_decay``, its staircase off).

    >>> learning_rate(StageTable(steps=100, rate=1.0, warm_up=10), 5)
    0.5
    """
    warm = step / stage.warm_up if step < stage.warm_up else 1.0
    if stage.schedule == "cosine":
        return stage.rate * min(warm, 0.5 + 0.5 * math.cos(math.pi * step / stage.steps))
    return stage.rate * min(warm, 0.9 ** ((step - 1) / 10_000))


def make_optimizer(network: nn.Module, table: OptimizerTable) -> torch.optim.Optimizer:
    """AdamW, or the original's RMSProp.

    TensorFlow's RMSProp starts the average of squares at 1, where PyTorch's starts at 0, which makes the
    first step three times as long and more. It also adds epsilon under the root; outside, 1e-10 becomes 1e-5,
    which is the same where gradients vanish, and next to nothing elsewhere.

    Args:
        network: whose weights it is to change.
        table: its settings.

    Returns:
        the optimiser; the learning rate is yet to be set.

    Source: ``train.py`` (``tf.train.RMSPropOptimizer``: decay 0.9, momentum 0, epsilon 1e-10).

    >>> make_optimizer(nn.Linear(2, 2), OptimizerTable(kind="rmsprop")).defaults["alpha"]
    0.9
    """
    decay = table.weight_decay
    if table.kind == "adamw":
        return torch.optim.AdamW(network.parameters(), weight_decay=decay)
    optimizer = torch.optim.RMSprop(network.parameters(), alpha=0.9, eps=1e-5, weight_decay=decay)
    for value in network.parameters():
        optimizer.state[value] = {"step": torch.zeros(()), "square_avg": torch.ones_like(value)}
    return optimizer


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move averaged weights a little towards the current ones; more at first, with little to remember.

    Args:
        average: changed in place; of the same kind as ``network``.
        network: after its step.
        decay: how much of the average stays, below 1; with 0 it becomes a copy.
        step: number of the step since averaging began, from 0.

    Source: ours.

    >>> average, network = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> update_average(average, network, 0.0, 0)
    >>> torch.equal(average.weight, network.weight)
    True
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
        ours.copy_(theirs)


def forget_activations(network: nn.Module) -> None:
    """Let every block of convolution, normalisation and ReLU keep its input only, and compute again.

    A recurrent network, instead of all its planes, keeps the memories of its cells at every eighth.

    Args:
        network: changed in place. With batch norm, its running averages move twice in each step.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
    """
    if isinstance(network, RMVSNet):
        network.recompute = True
    for block in network.modules():
        if isinstance(block, (ConvBlock2d, ConvBlock3d, DeconvBlock3d)):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
