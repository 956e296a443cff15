from __future__ import annotations

import pytest
import torch
from torch import nn

from mvsnet_edu.layers import Conv3d, ConvBlock2d, ConvBlock3d, DeconvBlock3d, normalization, pad_to_multiple


def sample(dims: int, B: int = 2, C: int = 16) -> torch.Tensor:
    return 3 + 2 * torch.randn(B, C, *(5, 6, 7)[-dims:])


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_uses_the_statistics_of_each_channel_of_each_sample(dims):
    x = sample(dims)
    flat = x.flatten(2)
    expected = (flat - flat.mean(2, keepdim=True)) / (flat.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(normalization("instance", 16, dims)(x), expected.view_as(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("C, groups", [(4, 1), (8, 1), (16, 2), (64, 8)])
def test_group_norm_shares_the_statistics_of_eight_channels(C, groups, dims):
    x = sample(dims, C=C)
    flat = x.reshape(2, groups, -1)
    expected = (flat - flat.mean(2, keepdim=True)) / (flat.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(normalization("group", C, dims)(x), expected.view_as(x))


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("affine", [True, False])
def test_scale_and_shift_are_learned_on_request(norm, affine):
    layer = normalization(norm, 16, dims=2, affine=affine)
    assert sum(p.numel() for p in layer.parameters()) == (32 if affine else 0)


def test_an_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match="batch, instance, group, not 'layer'"):
        normalization("layer", 16, dims=2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dims, block", [(2, ConvBlock2d), (3, ConvBlock3d)])
def test_a_block_is_a_convolution_without_bias_a_norm_and_a_relu(dims, block, stride):
    layer, x = block(16, 8, stride=stride), sample(dims)
    convolve = {2: nn.functional.conv2d, 3: nn.functional.conv3d}[dims]
    y = convolve(x, layer[0].weight, stride=stride, padding=1)
    expected = nn.functional.group_norm(y, 1, layer[1].weight, layer[1].bias).relu()
    torch.testing.assert_close(layer(x), expected)
    assert expected.shape[2:] == tuple(-(-size // stride) for size in x.shape[2:])
    assert layer[0].bias is None


def test_a_deconvolution_doubles_the_size_and_undoes_the_stride():
    """It scatters where the strided convolution with its kernel gathers: one is the other's transpose."""
    deconv = DeconvBlock3d(4, 8)[0]
    x, y = torch.randn(1, 4, 2, 3, 4), torch.randn(1, 8, 4, 6, 8)
    assert deconv(x).shape == y.shape and deconv.bias is None
    gathered = nn.functional.conv3d(y, deconv.weight, stride=2, padding=1)
    torch.testing.assert_close((deconv(x) * y).sum(), (x * gathered).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "size, padded", [((8, 8), (8, 8)), ((5, 8), (8, 8)), ((9, 13), (16, 16)), ((1, 1), (8, 8))]
)
def test_padding_repeats_the_last_row_and_column(size, padded):
    """Pitfall 15."""
    x = torch.rand(2, 3, *size)
    y = pad_to_multiple(x, 8, dims=2)
    assert y.shape[2:] == padded
    rows = torch.arange(padded[0]).clamp(max=size[0] - 1)
    columns = torch.arange(padded[1]).clamp(max=size[1] - 1)
    assert torch.equal(y, x[:, :, rows][..., columns])


def test_padding_in_three_dimensions_and_none_where_none_is_needed():
    x = torch.rand(2, 3, 5, 8, 9)
    y = pad_to_multiple(x, 4, dims=3)
    assert y.shape == (2, 3, 8, 8, 12) and torch.equal(y[:, :, 7, 7, 11], x[:, :, 4, 7, 8])
    even = torch.rand(1, 1, 8, 16)
    assert pad_to_multiple(even, 8, dims=2) is even


@pytest.mark.parametrize("stride, bias", [(1, True), (2, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_quick_convolution_is_pytorch_s_and_so_are_its_gradients(stride, bias, dtype):
    mine = Conv3d(4, 6, 3, stride, padding=1, bias=bias).to(dtype)
    x = torch.randn(1, 4, 6, 5, 9, dtype=dtype, requires_grad=True)  # small: PyTorch would take its slow path
    leaves = [x, *mine.parameters()]
    ours, right = mine(x), nn.Conv3d.forward(mine, x)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, right)
    direction = torch.randn_like(right)
    gradients = (torch.autograd.grad(made, leaves, direction) for made in (ours, right))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_under_autocast_the_quick_convolution_gives_bfloat16():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Conv3d(4, 6, 3, padding=1)(torch.randn(1, 4, 6, 5, 9)).dtype == torch.bfloat16
