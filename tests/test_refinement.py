from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cameras import DEVICES
from torch import Tensor, nn

from mvsnet_edu import RefineNet, depth_refine, standardize


def trained(norm: str = "group", scale: float = 0.3) -> RefineNet:
    """As after some training: a last layer that is no longer zero."""
    net = RefineNet(norm)
    nn.init.normal_(net.residual.weight, std=scale)
    nn.init.normal_(net.residual.bias, std=scale)
    return net


def scene(B: int = 2, h: int = 6, w: int = 9) -> tuple[Tensor, Tensor]:
    """Initial depth (B, 1, h, w) between 2 and 4, and a standardised image of four times the size."""
    return 2 + 2 * torch.rand(B, 1, h, w), standardize(torch.rand(B, 3, 4 * h, 4 * w))


# The network


def test_it_has_as_many_parameters_as_the_original():
    assert sum(p.numel() for p in RefineNet().parameters()) == 19_873


def test_the_network_equals_its_layers_written_out():
    net = trained().double()
    image, depth = torch.randn(2, 3, 6, 9, dtype=torch.float64), torch.rand(2, 1, 6, 9, dtype=torch.float64)
    x = torch.cat([image, depth], dim=1)
    for k in range(3):
        x = F.group_norm(F.conv2d(x, net.body[k][0].weight, padding=1), 4).relu()  # no scale, no shift
    residual = F.conv2d(x, net.residual.weight, net.residual.bias, padding=1)
    torch.testing.assert_close(net(image, depth), depth + residual)


@pytest.mark.parametrize(
    "norm, kind", [("batch", nn.BatchNorm2d), ("instance", nn.InstanceNorm2d), ("group", nn.GroupNorm)]
)
def test_every_block_has_the_norm_that_is_asked_for(norm, kind):
    norms = [module for module in RefineNet(norm).body.modules() if isinstance(module, kind)]
    assert len(norms) == 3 and not any(list(module.parameters()) for module in norms)


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_a_fresh_network_leaves_the_depth_as_it_is(norm):
    """Pitfall 13: the last layer starts at zero."""
    depth, image = torch.rand(2, 1, 6, 9), torch.randn(2, 3, 6, 9)
    assert torch.equal(RefineNet(norm)(image, depth), depth)


def test_a_fresh_network_can_learn():
    """Zero weights are no dead end: the last layer gets a gradient at once, and the others after one step."""
    net = RefineNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(1, 3, 6, 9), torch.rand(1, 1, 6, 9)).square().sum().backward()
        optimizer.step()
    assert net.residual.weight.abs().max() > 0 and net.body[0][0].weight.grad.abs().max() > 0


def test_the_correction_has_either_sign():
    """Pitfall 13: a ReLU at the end, as in some ports, would only ever push the depth back."""
    depth = torch.rand(1, 1, 32, 40)
    correction = trained()(torch.randn(1, 3, 32, 40), depth) - depth
    assert correction.min() < -0.05 and correction.max() > 0.05


@pytest.mark.parametrize("push", [-5.0, 5.0])
def test_nothing_is_clipped(push):
    """Pitfall 13: the refined depth may leave the range of the hypotheses."""
    net = RefineNet()
    nn.init.constant_(net.residual.bias, push)
    depth = torch.rand(2, 1, 6, 9)
    torch.testing.assert_close(net(torch.randn(2, 3, 6, 9), depth), depth + push)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_batch_gives_what_its_samples_give_one_by_one(norm):
    """Pitfall 12."""
    net, depth, image = trained(norm), torch.rand(3, 1, 6, 9), torch.randn(3, 3, 6, 9)
    together = net(image, depth)
    one_by_one = torch.cat([net(i[None], d[None]) for i, d in zip(image, depth, strict=True)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.eval()(image, depth), together, rtol=0, atol=0)


# Normalise, refine, scale back


class Spy(nn.Module):
    """Keeps what it is given; answers with a fixed number for every pixel."""

    def __init__(self, answer: float):
        super().__init__()
        self.answer = answer

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        self.image, self.depth = image, depth
        return torch.full_like(depth, self.answer)


def test_the_network_sees_the_range_of_the_hypotheses_as_0_to_1():
    """(D - 1) intervals, not D: the last plane is 1."""
    depths = torch.tensor([2.0, 3.5, 5.0]).view(1, 1, 1, 3)
    spy = Spy(0.25)
    refined = depth_refine(depths, torch.rand(1, 3, 4, 12), 7, 2.0, 0.5, spy)
    torch.testing.assert_close(spy.depth.flatten(), torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(refined.flatten(), torch.full((3,), 2.75))


@pytest.mark.parametrize("device", DEVICES)
def test_every_image_of_the_batch_has_its_own_range(device):
    """Pitfall 13: the original's graph works for a batch of one only."""
    depth, image = (x.to(device) for x in scene(3))
    net = trained().to(device)
    start, interval = torch.tensor([[1.0, 2.0, 0.5], [0.1, 0.2, 0.3]], device=device)
    together = depth_refine(depth, image, 16, start, interval, net)
    for b in range(3):
        alone = depth_refine(depth[b, None], image[b, None], 16, start[b].item(), interval[b].item(), net)
        torch.testing.assert_close(together[b, None], alone, rtol=1e-3, atol=1e-4)


def test_a_scene_moved_along_the_axis_gives_the_same_correction():
    (depth, image), net = (x.double() for x in scene()), trained().double()
    refined = depth_refine(depth, image, 16, 2.0, 0.125, net)
    moved = depth_refine(depth + 10, image, 16, 12.0, 0.125, net)
    torch.testing.assert_close(moved, refined + 10, rtol=1e-9, atol=1e-9)


def test_without_the_normalisation_the_unit_changes_the_answer():
    (depth, image), net = scene(), trained()
    small = F.interpolate(image, size=depth.shape[-2:], mode="area")
    assert (net(small, 1000 * depth) / 1000 - net(small, depth)).abs().max() > 0.1


def test_the_image_is_shrunk_by_averaging_its_blocks():
    """Pitfall 13: neither pixel 4 i, as TensorFlow 1, nor 4 i + 1 and 4 i + 2, as plain bilinear."""
    depth, image = scene()
    spy = Spy(0.0)
    depth_refine(depth, image, 16, 2.0, 0.125, spy)
    expected = image.reshape(2, 3, 6, 4, 9, 4).mean(dim=(3, 5))
    torch.testing.assert_close(spy.image, expected)
    for other in (image[..., ::4, ::4], F.interpolate(image, scale_factor=0.25, mode="bilinear")):
        assert (spy.image - other).abs().max() > 0.1


def test_an_image_of_the_size_of_the_depth_map_is_taken_as_it_is():
    depth, image = scene()
    spy = Spy(0.0)
    depth_refine(depth, image[..., ::4, ::4], 16, 2.0, 0.125, spy)
    torch.testing.assert_close(spy.image, image[..., ::4, ::4])


@pytest.mark.parametrize("path", ["around", "through"])
def test_the_gradient_reaches_the_initial_depth_around_the_network_and_through_it(path):
    """Pitfall 13: no stop-gradient; the second loss trains the stages before it, too."""
    depth, image = (x.double() for x in scene())
    depth.requires_grad_()
    net = (RefineNet() if path == "around" else trained()).double()
    refined = depth_refine(depth, image, 16, 2.0, 0.125, net)
    (gradient,) = torch.autograd.grad(refined.sum(), depth)
    if path == "around":
        torch.testing.assert_close(gradient, torch.ones_like(gradient))
    else:
        assert (gradient - 1).abs().max() > 0.01
    detached = depth_refine(depth.detach(), image, 16, 2.0, 0.125, net)
    assert torch.autograd.grad(detached.sum(), depth, allow_unused=True) == (None,)


def test_gradients_are_right_where_the_network_is_smooth():
    """ReLU has kinks, so a smooth network stands in; the arithmetic around it is what is checked."""
    smooth = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 3, padding=1)).double()
    depth, image = (x.double().requires_grad_() for x in scene(h=2, w=3))
    start = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    interval = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)

    def refine(depth: Tensor, image: Tensor, start: Tensor, interval: Tensor) -> Tensor:
        net = lambda image, depth: depth + smooth(torch.cat([image, depth], dim=1))  # noqa: E731
        return depth_refine(depth, image, 8, start, interval, net)

    assert torch.autograd.gradcheck(refine, (depth, image, start, interval))


def test_a_range_of_one_plane_is_an_error():
    depth, image = scene()
    with pytest.raises(ValueError, match="at least two depth hypotheses, not 1"):
        depth_refine(depth, image, 1, 2.0, 0.125, RefineNet())


def test_a_range_of_two_planes_is_enough():
    depth, image = scene()
    torch.testing.assert_close(depth_refine(depth, image, 2, 2.0, 2.0, RefineNet()), depth)


def test_the_range_takes_the_precision_and_the_device_of_the_depth_map():
    depth, image = scene()
    wide, there = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.device("meta")
    assert depth_refine(depth, image, 16, wide, wide, Spy(0.5)).dtype == torch.float32
    assert depth_refine(depth.to(there), image.to(there), 16, wide, wide, Spy(0.5)).device == there
