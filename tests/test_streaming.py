from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from cameras import DEVICES, QUARTER_TURN, rig
from torch import Tensor, nn

from mvsnet_edu import CostRegNet, last_layer, streaming, variance_cost_volume
from mvsnet_edu.cost_volume import Window
from mvsnet_edu.layers import pad_to_multiple
from mvsnet_edu.streaming import streamed_cost, sweep_convolutions

C = 4


def inputs(
    V: int = 3, D: int = 7, h: int = 9, w: int = 13, per_pixel: bool = False, channels: int = C
) -> list[Tensor]:
    """Features, intrinsics, extrinsics, depth values; the last camera is rolled, so it sees but a part."""
    depths = torch.linspace(2, 6, D, dtype=torch.float64).expand(2, D) * torch.tensor([[1.0], [1.3]])
    if per_pixel:
        depths = depths[..., None, None] * (0.9 + 0.2 * torch.rand(2, 1, h, w))
    features = torch.randn(2, V, channels, h, w, dtype=torch.float64)
    return [features, *rig(2, V, h, w, roll=QUARTER_TURN), depths]


def close(mine: Iterable[Tensor], right: Iterable[Tensor]) -> None:
    for one, other in zip(mine, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def kernels(channels: int = C) -> list[Tensor]:
    return [torch.randn(out, channels, 3, 3, 3, dtype=torch.float64) for out in (3, 5)]


def by_the_book(
    views: list[Tensor], full: Tensor, half: Tensor, multiple: int = 2, window: Window | None = None
) -> list[Tensor]:
    """The cost volume, padded, and two convolutions of it."""
    volume = pad_to_multiple(variance_cost_volume(*views, window), multiple, dims=3)
    return [F.conv3d(volume, full, padding=1), F.conv3d(volume, half, stride=2, padding=1)]


@pytest.mark.parametrize("slab", [1, 300, 10**9])
@pytest.mark.parametrize("multiple", [2, 8])
@pytest.mark.parametrize("V, per_pixel", [(2, False), (3, True), (5, False)])
def test_it_is_the_two_convolutions_of_the_cost_volume(V, per_pixel, multiple, slab, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB", slab)  # a plane, three planes or all of them at a time
    views, weights = inputs(V, per_pixel=per_pixel), kernels()
    close(sweep_convolutions(*views, weights, (1, 2), multiple), by_the_book(views, *weights, multiple))


@pytest.mark.parametrize("slab", [1, 300, 10**9])
@pytest.mark.parametrize("V, per_pixel", [(2, True), (3, False), (5, True)])
def test_its_gradients_are_those_of_the_two_convolutions_of_the_cost_volume(V, per_pixel, slab, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB", slab)
    (features, *views), weights = inputs(V, per_pixel=per_pixel), kernels()
    leaves = [x.requires_grad_() for x in (features, *weights)]
    mine = sweep_convolutions(features, *views, weights, (1, 2), 8)
    right = by_the_book([features, *views], *weights, 8)
    directions = [torch.randn_like(x) for x in mine]
    close(*(torch.autograd.grad(made, leaves, directions) for made in (mine, right)))


@pytest.mark.parametrize("per_pixel", [False, True])
def test_its_gradients_are_differences(per_pixel, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB", 40)
    (features, *views), weights = inputs(3, 3, 4, 5, per_pixel, channels=2), kernels(channels=2)
    leaves = [x.requires_grad_() for x in (features, *weights)]
    assert torch.autograd.gradcheck(
        lambda f, *w: sweep_convolutions(f, *views, w, (1, 2)), leaves, fast_mode=True
    )


def test_a_window_looks_at_a_part_of_the_reference():
    views, weights, window = inputs(), kernels(), (3, 4, 5, 7)
    close(
        sweep_convolutions(*views, weights, (1, 2), window=window),
        by_the_book(views, *weights, window=window),
    )


def test_identical_views_give_exactly_zero():
    features, _, E, depths = (x.float() for x in inputs(7))
    K = torch.tensor([[16.0, 0, 6.5], [0, 16, 4.5], [0, 0, 1]]).expand(2, 7, 3, 3)  # exact in binary
    views = [features[:, :1].expand_as(features), K, E[:, :1].expand_as(E), depths]
    for result in sweep_convolutions(*views, [kernel.float() for kernel in kernels()], (1, 2)):
        assert (result == 0).all()


def test_the_variance_is_never_negative():
    """Where all sources agree and the reference does not, most is taken off the sum of the squares."""
    for V in range(2, 9):
        common = torch.randn(1000, 3) * 10.0 ** torch.randint(-8, 8, (1000, 1))
        squares, total = streaming._spread([common.clone() for _ in range(1, V)])
        assert squares.min() >= 0 and torch.allclose(total, (V - 1) * common)
        exact = common.double().square() * (V - 1) / V
        torch.testing.assert_close(squares.double(), exact, rtol=5e-6, atol=0)


def test_what_lies_behind_a_source_reads_zero():
    views, weights = inputs(2), kernels()
    views[2][:, 1, 2, 3] = -4  # moves the source ahead, past the nearer hypotheses
    close(sweep_convolutions(*views, weights, (1, 2)), by_the_book(views, *weights))


def test_one_view_is_an_error():
    features, K, E, depths = inputs()
    with pytest.raises(ValueError, match="at least two views, not 1"):
        sweep_convolutions(features[:, :1], K[:, :1], E[:, :1], depths, kernels(), (1, 2))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", ["group", "instance", "batch"])
@pytest.mark.parametrize("training, chained", [(True, False), (False, True)])
def test_the_cost_is_that_of_the_network_on_the_volume(norm, training, chained, device):
    views = [x.float().to(device) for x in inputs(channels=32)]
    network, copy = (CostRegNet(norm, chained).to(device) for _ in range(2))
    copy.load_state_dict(network.state_dict())
    network.train(training), copy.train(training)
    cost, right = streamed_cost(network, *views), copy(variance_cost_volume(*views))
    torch.testing.assert_close(cost, right, rtol=1e-3, atol=1e-3 * right.std().item())
    for mine, other in zip(network.buffers(), copy.buffers(), strict=True):  # running averages
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("slab", [1, 300, 10**9])
@pytest.mark.parametrize(
    "norm, training", [("group", True), ("instance", False), ("batch", False), ("batch", True)]
)
@pytest.mark.parametrize("chained", [True, False])
def test_without_gradients_it_is_the_same(norm, training, chained, slab, monkeypatch):
    """The normalisations in pieces and in place, the upsampling twice, the last layer by planes."""
    monkeypatch.setattr(streaming, "SLAB", slab)
    monkeypatch.setattr(last_layer, "SLAB", slab)
    network, views = CostRegNet(norm, chained).double(), inputs(channels=32, D=17, h=12, w=20)
    for value in network.parameters():  # fresh normalisations scale by 1 and shift by 0
        if value.ndim == 1:
            torch.nn.init.normal_(value)
    network.train()(variance_cost_volume(*views))  # gives batch norm something to remember
    copy = CostRegNet(norm, chained).double().train(training)
    copy.load_state_dict(network.train(training).state_dict())
    with torch.no_grad():
        cost, right = streamed_cost(network, *views), copy(variance_cost_volume(*views))
    torch.testing.assert_close(cost, right, rtol=1e-9, atol=1e-9)
    close(network.buffers(), copy.buffers())


def normalized(x: Tensor, norm: nn.Module | None) -> Tensor:
    return x if norm is None else F.relu(norm(x))


@pytest.mark.parametrize("slab", [1, 300, 10**9])
@pytest.mark.parametrize(
    "up, skip",
    [
        (nn.GroupNorm(2, 4), None),
        (nn.GroupNorm(1, 4), nn.GroupNorm(2, 4)),
        (nn.InstanceNorm3d(4, affine=True), nn.InstanceNorm3d(4, affine=True)),
        (nn.BatchNorm3d(4), nn.BatchNorm3d(4)),
        (nn.BatchNorm3d(4).eval(), nn.BatchNorm3d(4).eval()),
    ],
    ids=["nothing pending on the skip", "groups", "instances", "batch", "running averages"],
)
def test_the_last_layer_is_a_convolution_of_the_normalised_sum(up, skip, slab, monkeypatch):
    """Its gradients, too: of both volumes, both kernels, and what the normalisations have learned."""
    monkeypatch.setattr(last_layer, "SLAB", slab)
    norms = [deepcopy(norm).double() if norm else None for norm in (up, skip)]
    affine = [weight for norm in norms if norm for weight in (norm.weight, norm.bias)]
    for weight in affine:
        nn.init.normal_(weight)
    leaves = [torch.randn(1, 4, 3, 3, 3), torch.randn(6, 4, 3, 3, 3)]
    leaves += [3 + torch.randn(2, 6, 9, 3, 5), 3 + torch.randn(2, 4, 18, 6, 10)]
    leaves = [x.double().requires_grad_() for x in leaves] + affine
    copies = deepcopy(norms)
    mine = last_layer._LastLayer.apply(*leaves[:4], norms, *affine)
    deconvolved = F.conv_transpose3d(leaves[2], leaves[1], stride=2, padding=1, output_padding=1)
    total = normalized(deconvolved, norms[0]) + normalized(leaves[3], norms[1])
    right = F.conv3d(total, leaves[0], padding=1).squeeze(1)
    direction = torch.randn_like(mine)
    close([mine], [right])
    close(*(torch.autograd.grad(made, leaves, direction) for made in (mine, right)))
    for norm, copy in zip(norms, copies, strict=True):  # running averages took note of it twice
        if norm is not None and norm.training:
            normalized(deconvolved if norm is norms[0] else leaves[3], copy)
            normalized(deconvolved if norm is norms[0] else leaves[3], copy)
            close(norm.buffers(), copy.buffers())
