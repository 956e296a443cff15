"""The recurrent network against PyTorch's own GRU and against its equations written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvsnet_edu import RMVSNet
from mvsnet_edu.recurrence import ConvGRUCell, RecurrentRegNet


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scrambled(net: nn.Module) -> nn.Module:
    """Normalisation layers with a scale and a shift of their own."""
    for value in net.parameters():
        nn.init.normal_(value, std=0.4)
    return net.double()


def layer_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Over channels and pixels together; a scale and a shift for each channel."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(1, 2, 3), keepdim=True)
    scale, shift = norm.weight.view(1, -1, 1, 1), norm.bias.view(1, -1, 1, 1)
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """3 x 3 by shifting the picture nine times."""
    h, w = x.shape[-2:]
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    total = layer.bias.view(1, -1, 1, 1)
    for i in range(3):
        for j in range(3):
            part = padded[..., i : i + h, j : j + w]
            total = total + torch.einsum("bchw,oc->bohw", part, layer.weight[:, :, i, j])
    return total


def step_by_hand(cell: ConvGRUCell, x: Tensor, state: Tensor) -> Tensor:
    F = state.shape[1]
    both = conv(torch.cat([x, state], 1), cell.gates)
    reset = 1 / (1 + torch.exp(-layer_norm(both[:, :F], cell.reset_norm)))
    update = 1 / (1 + torch.exp(-layer_norm(both[:, F:], cell.update_norm)))
    proposal = layer_norm(conv(torch.cat([x, reset * state], 1), cell.proposal), cell.proposal_norm)
    return update * state + (1 - update) * torch.tanh(proposal)


def test_a_cell_computes_its_equations():
    cell = scrambled(ConvGRUCell(5, 3))
    x, state = torch.randn(2, 5, 6, 7).double(), torch.randn(2, 3, 6, 7).double()
    torch.testing.assert_close(cell(x, state), step_by_hand(cell, x, state))


def test_without_normalisation_and_neighbours_it_is_a_textbook_gru():
    """The unit of Cho et al. (2014): the reset gate acts before the product, the update gate keeps."""
    cell = scrambled(ConvGRUCell(4, 3))
    for name in ("reset_norm", "update_norm", "proposal_norm"):
        setattr(cell, name, nn.Identity())
    x, state = torch.randn(2, 4, 1, 1).double(), torch.randn(2, 3, 1, 1).double()
    W, U = cell.gates.weight[:, :, 1, 1], cell.proposal.weight[:, :, 1, 1]  # all else reads the padding
    column = torch.cat([x, state], 1).flatten(1)
    r, u = torch.sigmoid(column @ W.T + cell.gates.bias).chunk(2, dim=1)
    seen = torch.cat([x.flatten(1), r * state.flatten(1)], 1)
    expected = u * state.flatten(1) + (1 - u) * torch.tanh(seen @ U.T + cell.proposal.bias)
    torch.testing.assert_close(cell(x, state).flatten(1), expected)


def test_the_network_walks_through_the_planes_with_minus_the_cost():
    net, volume = scrambled(RecurrentRegNet()), torch.rand(2, 32, 5, 6, 7).double()
    states = [torch.zeros(2, width, 6, 7).double() for width in (16, 4, 2)]
    expected = []
    for d in range(5):
        x = -volume[:, :, d]
        for k in range(3):
            x = states[k] = step_by_hand(net.cells[k], x, states[k])
        expected.append(conv(x, net.score)[:, 0])
    scores, after = net(volume)
    torch.testing.assert_close(scores, torch.stack(expected, dim=1))
    for one, other in zip(after, states, strict=True):
        torch.testing.assert_close(one, other)


def test_it_has_as_many_parameters_as_the_original():
    """facts: 23,437 beside the 775,928 of the later features."""
    assert sum(p.numel() for p in RecurrentRegNet().parameters()) == 23_437
    assert sum(p.numel() for p in RMVSNet(features="unet").parameters()) == 799_365


def test_a_plane_knows_those_before_it_and_not_those_behind_it():
    net, volume = RecurrentRegNet(), torch.rand(1, 32, 6, 5, 4)
    changed = volume.clone()
    changed[:, :, 3] += 1
    difference = (net(volume)[0] - net(changed)[0]).abs().amax(dim=(0, 2, 3))
    assert (difference[:3] == 0).all() and (difference[3:] > 0).all()


def test_the_memory_stays_within_its_bounds():
    net = RecurrentRegNet()
    states = None
    for _ in range(20):
        _, states = net(100 * torch.rand(1, 32, 8, 5, 4), states)
    assert all(state.abs().max() <= 1 for state in states)


@pytest.mark.parametrize("parts", [[1, 4, 2], [3, 4], [7]])
def test_a_sweep_in_parts_is_the_sweep(parts):
    net, volume = RecurrentRegNet((6, 3)), torch.rand(2, 32, 7, 5, 4)
    states, scores = None, []
    for part in volume.split(parts, dim=2):
        some, states = net(part, states)
        scores.append(some)
    torch.testing.assert_close(torch.cat(scores, dim=1), net(volume)[0], rtol=0, atol=0)
