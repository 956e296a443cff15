from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cameras import DEVICES
from torch import Tensor, nn

from mvsnet_edu import FeatureNet, standardize
from mvsnet_edu.layers import pad_to_multiple


def conv_norm_relu(x: Tensor, weights: list[Tensor], stride: int = 1) -> Tensor:
    """Takes its kernel, scale and shift from the front of the list."""
    kernel, scale, shift = (weights.pop(0) for _ in range(3))
    y = F.conv2d(x, kernel, stride=stride, padding=0 if kernel.shape[-1] == 5 else 1)
    return F.group_norm(y, max(1, len(scale) // 8), scale, shift).relu()


def last_six(x: Tensor, weights: list[Tensor]) -> Tensor:
    """5 x 5 to half the size, two 3 x 3, 5 x 5 to a quarter, 3 x 3, and a bare 3 x 3."""
    x = conv_norm_relu(F.pad(x, (1, 2, 1, 2)), weights, stride=2)
    x = conv_norm_relu(conv_norm_relu(x, weights), weights)
    x = conv_norm_relu(F.pad(x, (2, 1, 2, 1)), weights, stride=2)
    x = conv_norm_relu(x, weights)
    return F.conv2d(x, weights.pop(0), padding=1)


def paper(image: Tensor, state: dict[str, Tensor]) -> Tensor:
    weights = list(state.values())
    x = conv_norm_relu(conv_norm_relu(image, weights), weights)
    return last_six(x, weights)


def unet(image: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The original's later network, told in its order of layers; weights are fetched by where they sit."""

    def of(part: str) -> list[Tensor]:
        return [value for name, value in state.items() if name.startswith(part)]

    def twice(x: Tensor, part: str) -> Tensor:
        weights = of(part)
        return conv_norm_relu(conv_norm_relu(x, weights), weights)

    def deconv(x: Tensor, part: str) -> Tensor:
        kernel, scale, shift = of(part)
        y = F.conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1)
        return F.group_norm(y, max(1, len(scale) // 8), scale, shift)  # no ReLU

    half = conv_norm_relu(image, of("head.down.0."), stride=2)
    quarter = conv_norm_relu(half, of("head.down.1."), stride=2)
    eighth = conv_norm_relu(quarter, of("head.down.2."), stride=2)
    sixteenth = conv_norm_relu(eighth, of("head.down.3."), stride=2)
    x = twice(sixteenth, "head.skip.4.")
    for level, skip in enumerate([eighth, quarter, half, image]):
        beside = twice(skip, f"head.skip.{3 - level}.")
        x = twice(torch.cat([deconv(x, f"head.up.{level}."), beside], dim=1), f"head.merge.{level}.")
    return last_six(x, of("tail."))


ARCHITECTURES = {"paper": paper, "unet": unet}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_network_equals_its_layers_written_out(architecture):
    net, image = FeatureNet(architecture).double(), torch.randn(2, 3, 32, 48, dtype=torch.float64)
    nn.init.normal_(net.tail[2][1].bias)  # so that scale and shift cannot be swapped unseen
    expected = ARCHITECTURES[architecture](image, net.state_dict())
    torch.testing.assert_close(net(image), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("architecture, count", [("paper", 40_088), ("unet", 775_928)])
def test_it_has_as_many_parameters_as_the_original(architecture, count):
    assert sum(p.numel() for p in FeatureNet(architecture).parameters()) == count


@pytest.mark.parametrize("architecture, multiple", [("paper", 4), ("unet", 16)])
@pytest.mark.parametrize("H, W", [(32, 48), (35, 50), (33, 47), (4, 5)])
def test_other_sizes_are_padded_and_cropped_back(architecture, multiple, H, W):
    """Pitfall 15: any size gives H // 4 x W // 4."""
    net, image = FeatureNet(architecture), torch.randn(2, 3, H, W)
    features = net(image)
    assert features.shape == (2, 32, H // 4, W // 4)
    padded = net(pad_to_multiple(image, multiple, dims=2))
    torch.testing.assert_close(features, padded[..., : H // 4, : W // 4], rtol=0, atol=0)


def without_norms(net: nn.Module) -> nn.Module:
    """Linear, with positive weights, so that the gradient shows exactly which pixels a feature sees."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, (nn.GroupNorm, nn.ReLU)):
                setattr(module, name, nn.Identity())
    for p in net.parameters():
        nn.init.uniform_(p, 0.5, 1.0)
    return net.double()


def seen_by(net: nn.Module, i: int, j: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of a 96 x 128 image on which the feature (i, j) depends."""
    image = torch.zeros(1, 3, 96, 128, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(image)[0, :, i, j].sum(), image)
    touched = gradient[0].abs().sum(0) > 0
    return touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()


def test_the_unet_sees_more_of_the_image():
    rows, columns = seen_by(without_norms(FeatureNet("unet")), 12, 16)
    assert len(rows) > 80 and len(columns) > 80


def test_features_may_be_negative_for_the_last_convolution_is_bare():
    features = FeatureNet()(torch.randn(1, 3, 32, 48))
    assert features.min() < -0.01 and features.max() > 0.01
    assert isinstance(FeatureNet().tail[-1], nn.Conv2d) and FeatureNet().tail[-1].bias is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", ["instance", "group"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_gives_what_its_images_give_one_by_one(architecture, norm, device):
    """Pitfall 12: so that views may be stacked into the batch, and eval() changes nothing."""
    net, images = FeatureNet(architecture, norm).to(device), torch.randn(3, 3, 32, 48, device=device)
    together = net(images)
    one_by_one = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.eval()(images), together, rtol=0, atol=0)


def test_too_small_an_image_and_an_unknown_architecture_or_padding_are_errors():
    with pytest.raises(ValueError, match="at least 4 x 4 pixels, not 9 x 3"):
        FeatureNet()(torch.rand(1, 3, 3, 9))
    with pytest.raises(ValueError, match="'paper' or 'unet', not 'resnet'"):
        FeatureNet("resnet")
    with pytest.raises(ValueError, match="'valid'"):
        FeatureNet(padding="valid")


# Standardisation


def test_every_channel_of_every_image_gets_mean_0_and_deviation_1():
    images = torch.rand(2, 3, 3, 20, 30, dtype=torch.float64) * torch.rand(2, 3, 3, 1, 1)
    x = standardize(images)
    for b, v, c in [(0, 0, 0), (0, 2, 1), (1, 1, 2)]:
        channel = images[b, v, c]
        expected = (channel - channel.mean()) / channel.std(correction=0)
        torch.testing.assert_close(x[b, v, c], expected, rtol=1e-3, atol=1e-5)


def test_exposure_and_white_balance_are_taken_out():
    images = torch.rand(2, 3, 20, 30)
    gain, offset = torch.tensor([0.5, 2.0, 1.3]).view(3, 1, 1), torch.tensor([0.1, -0.2, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(standardize(gain * images + offset), standardize(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_channel_becomes_zero_not_nan(value):
    assert standardize(torch.full((1, 3, 8, 9), value)).abs().max() < 1e-3


def test_gradients_of_standardisation_are_right():
    images = torch.rand(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(standardize, images)
