"""Convolution, normalisation and ReLU: the one block that all four networks are made of."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Norm",
    "Conv3d",
    "ConvBlock2d",
    "ConvBlock3d",
    "DeconvBlock3d",
    "normalization",
    "pad_to_multiple",
]

Norm = Literal["batch", "instance", "group"]

#: Channels that share their statistics under group norm, as in the original's later networks.
GROUP_CHANNELS = 8


def normalization(norm: Norm, channels: int, dims: Literal[2, 3], affine: bool = True) -> nn.Module:
    """The normalisation layer after a convolution.

    ``instance`` is what the original computes: batch norm on the statistics of the current sample, in
    training and in testing, with one image per batch. ``group`` is nearly that, and the default (the
    model card tells why). ``batch`` keeps running averages for testing, as every port does.

    Args:
        norm: "batch", "instance" or "group".
        channels: channels C of its input.
        dims: 2 for (B, C, H, W), 3 for (B, C, D, H, W).
        affine: whether a learned scale and shift follow.

    Returns:
        the layer.

    Raises:
        ValueError: for any other ``norm``.

    Source: ``cnn_wrapper/network.py:batch_normalization`` and ``conv_gn``.

    >>> normalization("group", 32, dims=2).num_groups
    4
    """
    if norm == "group":
        return nn.GroupNorm(max(1, channels // GROUP_CHANNELS), channels, affine=affine)
    if norm == "instance":
        return {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](channels, affine=affine)
    if norm == "batch":
        return {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](channels, affine=affine)
    raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, not {norm!r}")


class ConvBlock2d(nn.Sequential):
    """3 x 3 convolution without bias, normalisation, ReLU."""

    def __init__(
        self,
        inp: int,
        out: int,
        stride: int = 1,
        norm: Norm = "group",
        affine: bool = True,
        padding: int = 1,
    ):
        super().__init__(
            nn.Conv2d(inp, out, 3, stride, padding=padding, bias=False),
            normalization(norm, out, dims=2, affine=affine),
            nn.ReLU(inplace=True),
        )


class Conv3d(nn.Conv3d):
    """PyTorch's, without the slow path that it takes for one small volume on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, h, w) -> (B, C1, D / s, h / s, w / s)."""
        quick = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if quick and torch.backends.mkldnn.is_available() and not torch.compiler.is_compiling():
            geometry = self.padding, self.stride, self.dilation, self.groups
            return torch.ops.aten.mkldnn_convolution(x, self.weight, self.bias, *geometry)
        return super().forward(x)


class ConvBlock3d(nn.Sequential):
    """3 x 3 x 3 convolution without bias, normalisation, ReLU."""

    def __init__(self, inp: int, out: int, stride: int = 1, norm: Norm = "group"):
        super().__init__(
            Conv3d(inp, out, 3, stride, padding=1, bias=False),
            normalization(norm, out, dims=3),
            nn.ReLU(inplace=True),
        )


class DeconvBlock3d(nn.Sequential):
    """Transposed 3 x 3 x 3 convolution that doubles the size, normalisation, ReLU."""

    def __init__(self, inp: int, out: int, norm: Norm = "group"):
        super().__init__(
            nn.ConvTranspose3d(inp, out, 3, stride=2, padding=1, output_padding=1, bias=False),
            normalization(norm, out, dims=3),
            nn.ReLU(inplace=True),
        )


def pad_to_multiple(x: Tensor, multiple: int, dims: int) -> Tensor:
    """Repeat the last row, column (and plane) until the last ``dims`` sizes are multiples.

    Args:
        x: (B, C, H, W) or (B, C, D, H, W).
        multiple: what the sizes shall be multiples of.
        dims: how many trailing dimensions, 2 or 3.

    Returns:
        x itself, or a larger copy.

    Source: ours; the original asks its users for sizes that fit.

    >>> import torch
    >>> pad_to_multiple(torch.zeros(1, 2, 5, 8), 4, dims=2).shape
    torch.Size([1, 2, 8, 8])
    """
    missing = [-size % multiple for size in reversed(x.shape[-dims:])]  # F.pad starts with the last dimension
    if not any(missing):
        return x
    return F.pad(x, [pad for size in missing for pad in (0, size)], mode="replicate")
