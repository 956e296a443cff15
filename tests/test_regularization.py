from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cameras import DEVICES
from torch import Tensor

from mvsnet_edu import CostRegNet


def written_out(volume: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The paper's 3D U-Net as a list of functions, with group norm: layer, where it reads, and its stride."""

    def finish(y: Tensor, name: str) -> Tensor:
        scale, shift = state[f"{name}.1.weight"], state[f"{name}.1.bias"]
        return F.group_norm(y, max(1, len(scale) // 8), scale, shift).relu()

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return finish(F.conv3d(x, state[f"{name}.0.weight"], stride=stride, padding=1), name)

    def deconv(x: Tensor, name: str) -> Tensor:
        kernel = state[f"{name}.0.weight"]
        return finish(F.conv_transpose3d(x, kernel, stride=2, padding=1, output_padding=1), name)

    c0_1 = conv(volume, "conv0_1")
    c1_0 = conv(volume, "conv1_0", stride=2)  # reads the 32 channels, not c0_1
    c1_1 = conv(c1_0, "conv1_1")
    c2_0 = conv(c1_0, "conv2_0", stride=2)  # reads c1_0, not c1_1
    c2_1 = conv(c2_0, "conv2_1")
    c3_0 = conv(c2_0, "conv3_0", stride=2)
    c3_1 = conv(c3_0, "conv3_1")
    c4_0 = deconv(c3_1, "conv4_0")
    c5_0 = deconv(c4_0 + c2_1, "conv5_0")
    c6_0 = deconv(c5_0 + c1_1, "conv6_0")
    return F.conv3d(c6_0 + c0_1, state["conv6_2.weight"], padding=1)[:, 0]


def network(**options: str) -> CostRegNet:
    """With random scales and shifts, so that no two layers can be mixed up."""
    net = CostRegNet(**options)
    for name, p in net.named_parameters():
        if ".1." in name:
            torch.nn.init.uniform_(p, 0.2, 1.0)
    return net


def test_the_network_equals_its_layers_written_out():
    """The paper's wiring: strided convolutions chained from the 32-channel volume, skips added."""
    net, volume = network().double(), torch.rand(2, 32, 8, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(net(volume), written_out(volume, net.state_dict()), rtol=1e-9, atol=1e-9)


def test_it_has_as_many_parameters_as_the_original():
    assert sum(p.numel() for p in CostRegNet().parameters()) == 308_376


def test_the_cost_has_either_sign_for_the_last_convolution_is_bare():
    net = CostRegNet()
    cost = net(torch.rand(1, 32, 8, 8, 16))
    assert cost.min() < 0 < cost.max() and net.conv6_2.bias is None


@pytest.mark.parametrize("D, h, w", [(8, 8, 16), (9, 8, 16), (8, 11, 13), (5, 7, 9), (3, 1, 2)])
def test_other_sizes_are_padded_with_their_last_planes_and_cropped_back(D, h, w):
    """Pitfall 15."""
    net, volume = network(), torch.rand(2, 32, D, h, w)
    cost = net(volume)
    assert cost.shape == (2, D, h, w)
    z, y, x = (torch.arange(-(-n // 8) * 8).clamp(max=n - 1) for n in (D, h, w))
    padded = volume[:, :, z][:, :, :, y][..., x]
    torch.testing.assert_close(cost, net(padded)[:, :D, :h, :w], rtol=0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_batch_gives_what_its_volumes_give_one_by_one(norm, device):
    """Pitfall 12."""
    net, volume = network(norm=norm).to(device), torch.rand(3, 32, 8, 16, 24, device=device)
    volume[1] *= 10
    together = net(volume)
    one_by_one = torch.cat([net(one[None]) for one in volume])
    torch.testing.assert_close(together, one_by_one, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(net.eval()(volume), together, rtol=0, atol=0)


def test_batch_norm_in_training_with_one_volume_is_instance_norm():
    """Pitfall 12: the original's function, weight for weight."""
    batch, instance = network(norm="batch").train(), CostRegNet(norm="instance")
    instance.load_state_dict(dict(batch.named_parameters()))
    volume = torch.rand(1, 32, 16, 16, 24)
    torch.testing.assert_close(batch(volume), instance(volume), rtol=1e-3, atol=1e-4)
    assert (batch.eval()(volume) - instance(volume)).abs().max() > 0.01
