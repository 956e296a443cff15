"""The parts of a training step, each against a formulation of its own."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from mvsnet_edu import MVSNet, mvsnet_loss
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.models import DepthEstimate
from mvsnet_edu.optimization import (
    clamped_loss,
    forget_activations,
    learning_rate,
    make_optimizer,
    update_average,
)
from mvsnet_edu.recipe import OptimizerTable, StageTable


def case(B: int = 3, h: int = 5, w: int = 7) -> tuple[DepthEstimate, Sample]:
    """Depths up to 15 intervals off, a third not measured in one of two ways, intervals of both signs."""
    truth = 10 + 5 * torch.rand(B, h, w)
    interval = torch.tensor([0.5, -0.25, 1.0])[:B]
    error = 30 * (torch.rand(2, B, h, w) - 0.5) * interval.abs().view(-1, 1, 1)
    initial, refined = (truth + error).requires_grad_()
    truth = torch.where(torch.rand(B, h, w) < 0.2, 0, truth)
    truth = torch.where(torch.rand(B, h, w) < 0.2, torch.nan, truth)
    images, poses = torch.zeros(B, 2, 3, 4 * h, 4 * w), torch.zeros(B, 2, 4, 4)
    planes = torch.linspace(8, 16, 9).expand(B, 9)
    sample = Sample(images, poses[..., :3, :3], poses, planes, interval, truth, [0, 1])
    return DepthEstimate(initial, torch.zeros(B, h, w), refined), sample


def test_a_clamped_loss_is_the_mean_of_clamped_errors():
    estimate, sample = case()
    per_map = []
    for depth in (estimate.depth, estimate.refined_depth):
        means = []
        for image in range(3):
            truth, found = sample.ground_truth[image].numpy(), depth[image].detach().numpy()
            known = np.isfinite(truth) & (truth != 0)
            error = np.abs(found - truth)[known] / abs(sample.depth_interval[image].item())
            assert (error > 6).any() and (error < 6).any()
            means.append(np.minimum(error, 6).mean())
        per_map.append(np.mean(means))
    assert clamped_loss(estimate, sample, 6).item() == pytest.approx(np.mean(per_map), rel=1e-5)


def test_pixels_beyond_the_clamp_have_no_gradient_and_the_others_have_theirs():
    estimate, sample = case()
    plain, clamped = (
        torch.autograd.grad(clamped_loss(estimate, sample, clamp), [estimate.depth, estimate.refined_depth])
        for clamp in (0, 6)
    )
    for depth, expected, found in zip((estimate.depth, estimate.refined_depth), plain, clamped, strict=True):
        error = (depth - sample.ground_truth).abs() / sample.depth_interval.abs().view(-1, 1, 1)
        assert found.isfinite().all() and ((error > 6) & (expected != 0)).any()
        assert torch.equal(found, torch.where(error > 6, 0, expected))


def test_without_a_clamp_and_without_refinement_it_is_the_plain_loss():
    estimate, sample = case()
    truth, interval = sample.ground_truth, sample.depth_interval
    expected = mvsnet_loss(estimate.depth, estimate.refined_depth, truth, interval)
    assert torch.equal(clamped_loss(estimate, sample, 0), expected)
    assert torch.equal(clamped_loss(estimate._replace(refined_depth=None), sample, 0),
                       mvsnet_loss(estimate.depth, None, truth, interval))  # fmt: skip
    assert clamped_loss(estimate._replace(refined_depth=None), sample, 6) < 6


def test_the_rate_rises_straight_and_falls_along_a_cosine():
    stage = StageTable(steps=100, rate=2.0, warm_up=10)
    rates = [learning_rate(stage, step) for step in range(1, 101)]
    assert rates[:9] == pytest.approx([0.2 * step for step in range(1, 10)])
    assert rates[49] == pytest.approx(1.0) and rates[24] == pytest.approx(1 + math.sqrt(0.5))
    assert rates[99] == pytest.approx(0.0) and rates[10:] == sorted(rates[10:], reverse=True)


def test_the_originals_rate_falls_by_a_tenth_every_ten_thousand_steps():
    stage = StageTable(steps=10**5, rate=1e-3, schedule="exponential")
    assert learning_rate(stage, 1) == 1e-3
    assert learning_rate(stage, 20_001) == pytest.approx(0.81e-3)
    assert learning_rate(stage, 5_001) == pytest.approx(1e-3 * 0.9**0.5)


def test_rmsprop_is_tensorflows():
    """ms <- 0.9 ms + 0.1 g^2 from ms = 1; w <- w - rate g / sqrt(ms + 1e-10)."""
    network = nn.Linear(3, 2)
    weight, square = network.weight.detach().double().numpy().copy(), np.ones((2, 3))
    optimizer = make_optimizer(network, OptimizerTable(kind="rmsprop", weight_decay=0.0))
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    for step in range(5):
        gradient = torch.randn(2, 3) * 10.0**-step
        network.weight.grad, network.bias.grad = gradient, torch.zeros(2)
        optimizer.step()
        square = 0.9 * square + 0.1 * gradient.double().numpy() ** 2
        weight -= 0.01 * gradient.double().numpy() / np.sqrt(square + 1e-10)
    np.testing.assert_allclose(network.weight.detach().numpy(), weight, rtol=1e-5, atol=1e-7)


def test_rmsprop_comes_back_from_a_checkpoint():
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    table = OptimizerTable(kind="rmsprop")
    one, two = make_optimizer(first, table), make_optimizer(second, table)
    first.weight.grad, first.bias.grad = torch.randn(2, 3), torch.randn(2)
    one.step()
    second.load_state_dict(first.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for network, optimizer in ((first, one), (second, two)):
        network.weight.grad, network.bias.grad = torch.ones(2, 3), torch.ones(2)
        optimizer.step()
    assert torch.equal(first.weight, second.weight)


def test_the_average_forgets_slowly_and_at_first_faster():
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    expected = average.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            network.weight.normal_()
            network.running_mean.normal_()
        keep = min(0.7, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * network.weight.detach()
        update_average(average, network, 0.7, step)
    torch.testing.assert_close(average.weight.detach(), expected)
    assert torch.equal(average.running_mean, network.running_mean)


def kept_bytes(network: MVSNet, *inputs: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
    """What one step keeps for its backward pass, and its gradients."""
    sizes = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(*inputs).best.sum()
    network.zero_grad()
    loss.backward()
    return sum(sizes.values()), [value.grad for value in network.parameters()]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_forgetting_activations_changes_no_gradient_and_keeps_less(norm):
    network = MVSNet(norm=norm).train()
    frugal = copy.deepcopy(network)
    forget_activations(frugal)
    K = torch.tensor([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]).expand(2, 3, 3, 3)
    pose = torch.eye(4).repeat(2, 3, 1, 1)
    pose[:, 1:, 0, 3] = torch.tensor([-0.1, 0.1])
    inputs = torch.rand(2, 3, 3, 48, 64), K, pose, torch.linspace(1, 2, 16).expand(2, 16)
    much, expected = kept_bytes(network, *inputs)
    little, found = kept_bytes(frugal, *inputs)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert little < 0.75 * much, (little, much)
    assert frugal.state_dict().keys() == network.state_dict().keys()
