"""The 3D U-Net that turns a noisy cost volume into one cost per depth hypothesis."""

from __future__ import annotations

from torch import Tensor, nn

from .features import CHANNELS
from .layers import ConvBlock3d, DeconvBlock3d, Norm, pad_to_multiple

__all__ = ["CostRegNet"]


class CostRegNet(nn.Module):
    """Cost volume to cost, (B, 32, D, h, w) -> (B, D, h, w).

    The paper's wiring: both the full-size branch and the first strided convolution read the 32-channel
    volume, the strided convolutions are chained directly, the plain ones sit on the skips, and skips are
    added. Sizes that are no multiple of 8 are padded and cropped back.

    Args:
        norm: see :func:`mvsnet_edu.layers.normalization`.
        chained: wire it as PyTorch's ports do: every convolution reads the one before it, so that the strided
            ones see what the plain ones made.

    Source: section 3.3 of the paper; ``cnn_wrapper/mvsnet.py:RegNetUS0``.

    >>> import torch
    >>> CostRegNet()(torch.rand(1, 32, 9, 8, 13)).shape
    torch.Size([1, 9, 8, 13])
    """

    MULTIPLE = 8

    def __init__(self, norm: Norm = "group", chained: bool = False):
        super().__init__()
        self.chained = chained
        self.conv0_1 = ConvBlock3d(CHANNELS, 8, norm=norm)
        self.conv1_0 = ConvBlock3d(8 if chained else CHANNELS, 16, stride=2, norm=norm)
        self.conv1_1 = ConvBlock3d(16, 16, norm=norm)
        self.conv2_0 = ConvBlock3d(16, 32, stride=2, norm=norm)
        self.conv2_1 = ConvBlock3d(32, 32, norm=norm)
        self.conv3_0 = ConvBlock3d(32, 64, stride=2, norm=norm)
        self.conv3_1 = ConvBlock3d(64, 64, norm=norm)
        self.conv4_0 = DeconvBlock3d(64, 32, norm=norm)
        self.conv5_0 = DeconvBlock3d(32, 16, norm=norm)
        self.conv6_0 = DeconvBlock3d(16, 8, norm=norm)
        self.conv6_2 = nn.Conv3d(8, 1, 3, padding=1, bias=False)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, 32, D, h, w) -> (B, D, h, w), low where the views agree."""
        B, C, D, h, w = volume.shape
        x = pad_to_multiple(volume, self.MULTIPLE, dims=3)
        skip0 = self.conv0_1(x)  # (B, 8, D, h, w)
        x1 = self.conv1_0(skip0 if self.chained else x)  # (B, 16, D/2, h/2, w/2)
        return self.full(self.half(x1), skip0)[:, :D, :h, :w]

    def half(self, x1: Tensor) -> Tensor:
        """The network at half the size and below.

        Args:
            x1: (B, 16, D/2, h/2, w/2); D, h and w are multiples of 8.

        Returns:
            the same size.
        """
        skip1 = self.conv1_1(x1)
        x2 = self.conv2_0(skip1 if self.chained else x1)  # (B, 32, D/4, h/4, w/4)
        del x1  # the memory is needed
        skip2 = self.conv2_1(x2)
        x3 = self.conv3_1(self.conv3_0(skip2 if self.chained else x2))  # (B, 64, D/8, h/8, w/8)
        return self.conv5_0(self.conv4_0(x3) + skip2) + skip1

    def full(self, up1: Tensor, skip0: Tensor) -> Tensor:
        """The last layers, at the full size.

        Args:
            up1: (B, 16, D/2, h/2, w/2), from :meth:`half`.
            skip0: (B, 8, D, h, w).

        Returns:
            (B, D, h, w).
        """
        return self.conv6_2(self.conv6_0(up1) + skip0).squeeze(1)
