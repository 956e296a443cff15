"""Features of one view at a quarter of its size: the first learned stage."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ConvBlock2d, Norm, normalization, pad_to_multiple

__all__ = ["FeatureNet", "Padding", "standardize", "CHANNELS", "STRIDE"]

Padding = Literal["centred", "symmetric", "same"]

#: Channels of the feature map.
CHANNELS = 32
#: Image pixels per feature pixel, in each direction.
STRIDE = 4


def standardize(images: Tensor) -> Tensor:
    """Each channel of each image to mean 0 and standard deviation 1; a constant channel comes close to 0.

    This takes out the exposure and the white balance of every single photograph.

    Args:
        images: (..., 3, H, W), any range.

    Returns:
        the same shape.

    Source: ``preprocess.py:center_image``, the original's choice in testing.

    >>> x = standardize(torch.rand(2, 3, 8, 9))
    >>> mean, deviation = x.mean((-1, -2)), x.std((-1, -2), correction=0)
    >>> bool(mean.abs().max() < 1e-5), bool((deviation - 1).abs().max() < 1e-4)
    (True, True)
    """
    centred = images - images.mean(dim=(-2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return centred / (deviation + 1e-6)  # 1e-6: far below one grey level, far above rounding


class FeatureNet(nn.Module):
    """Image to feature map, (B, 3, H, W) -> (B, 32, H // 4, W // 4).

    Eight convolutions, two of them with stride 2; the last one has neither normalisation nor ReLU, so that
    features may be negative. Feature pixel (i, j) looks at the image around pixel (4 i + 1, 4 j + 1); the
    centre of the 4 x 4 block it stands for is (4 i + 1.5, 4 j + 1.5), and padding alone comes no closer.

    Args:
        architecture: "paper" for the eight layers; "unet" puts the 2D U-Net of the original's later code
            before the last six of them, which widens what a feature sees from 41 pixels to a large part of
            the image.
        norm: see :func:`mvsnet_edu.layers.normalization`.
        padding: where the strided convolutions look. "centred": as near to the middle of the block that a
            feature stands for as it gets. "symmetric": as PyTorch's ports pad, around pixel (4 i, 4 j).
            "same": as TensorFlow pads, and so the original, around pixel (4 i + 3, 4 j + 3).
        bias: whether the last convolution adds a constant, as in ports. It does not cancel in the cost
            volume: outside a source, there is zero instead.

    Raises:
        ValueError: for another architecture or padding, or (when called) for images smaller than 4 x 4.

    Source: section 3.1 of the paper; ``cnn_wrapper/mvsnet.py:UniNetDS2`` and ``UNetDS2GN``.

    >>> FeatureNet()(torch.rand(2, 3, 50, 64)).shape
    torch.Size([2, 32, 12, 16])
    """

    def __init__(
        self,
        architecture: str = "paper",
        norm: Norm = "group",
        padding: Padding = "centred",
        bias: bool = False,
    ):
        super().__init__()
        if padding not in get_args(Padding):
            raise ValueError(f"padding must be one of {', '.join(get_args(Padding))}, not {padding!r}")
        if architecture not in ("paper", "unet"):
            raise ValueError(f"architecture must be 'paper' or 'unet', not {architecture!r}")
        if architecture == "paper":
            self.multiple = STRIDE
            self.head: nn.Module = nn.Sequential(ConvBlock2d(3, 8, norm=norm), ConvBlock2d(8, 8, norm=norm))
        else:
            self.multiple = 16
            self.head = UNet2d(norm, padding)
        first, second = {"centred": (1, 2), "symmetric": (2, 2), "same": (1, 1)}[padding]
        self.tail = nn.Sequential(
            _strided(8, 16, norm, first),
            ConvBlock2d(16, 16, norm=norm),
            ConvBlock2d(16, 16, norm=norm),
            _strided(16, CHANNELS, norm, second),
            ConvBlock2d(CHANNELS, CHANNELS, norm=norm),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=bias),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), standardised -> (B, 32, H // 4, W // 4)."""
        B, _, H, W = images.shape
        if min(H, W) < STRIDE:
            raise ValueError(f"images must be at least {STRIDE} x {STRIDE} pixels, not {W} x {H}")
        padded = pad_to_multiple(images, self.multiple, dims=2)
        features = self.tail(self.head(padded.contiguous(memory_format=torch.channels_last)))  # faster
        return features[..., : H // STRIDE, : W // STRIDE]


class UNet2d(nn.Module):
    """Encoder and decoder at full, half, ... and a sixteenth of the size; (B, 3, H, W) -> (B, 8, H, W).

    The strided convolutions are chained directly; the pairs of plain ones sit on the skips, which are
    concatenated.

    Args:
        norm: see :func:`mvsnet_edu.layers.normalization`.
        padding: see :class:`FeatureNet`; "symmetric" is the same as "centred" here.

    Source: the first half of ``cnn_wrapper/mvsnet.py:UNetDS2GN``.

    >>> UNet2d()(torch.rand(1, 3, 32, 48)).shape
    torch.Size([1, 8, 32, 48])
    """

    WIDTHS = (8, 16, 32, 64, 128)

    def __init__(self, norm: Norm = "group", padding: Padding = "centred"):
        super().__init__()
        widths = self.WIDTHS
        self.around = (0, 1, 0, 1) if padding == "same" else (1, 0, 1, 0)  # sizes are even here
        down = zip((3, *widths[1:-1]), widths[1:], strict=True)  # the image feeds the half size, too
        self.down = nn.ModuleList(ConvBlock2d(i, o, stride=2, norm=norm, padding=0) for i, o in down)
        self.skip = nn.ModuleList(_pair(i, o, norm) for i, o in zip((3, *widths[1:]), widths, strict=True))
        self.up = nn.ModuleList(_upsample(2 * o, o, norm, padding) for o in reversed(widths[:-1]))
        self.merge = nn.ModuleList(_pair(2 * o, o, norm) for o in reversed(widths[:-1]))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), H and W multiples of 16 -> (B, 8, H, W)."""
        x, skips = image, [self.skip[0](image)]
        for down, skip in zip(self.down, self.skip[1:], strict=True):
            x = down(F.pad(x, self.around))
            skips.append(skip(x))
        x = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        return x


def _strided(inp: int, out: int, norm: Norm, left: int) -> nn.Sequential:
    """5 x 5 convolution with stride 2 whose output j is centred on input 2 j + 2 - left."""
    return nn.Sequential(
        nn.ZeroPad2d((left, 3 - left, left, 3 - left)),
        nn.Conv2d(inp, out, 5, stride=2, bias=False),
        normalization(norm, out, dims=2),
        nn.ReLU(inplace=True),
    )


def _pair(inp: int, out: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(ConvBlock2d(inp, out, norm=norm), ConvBlock2d(out, out, norm=norm))


def _upsample(inp: int, out: int, norm: Norm, padding: Padding) -> nn.Sequential:
    """Transposed convolution that doubles the size, normalised, without ReLU (as in the original)."""
    if padding == "same":
        deconv = nn.ConvTranspose2d(inp, out, 3, stride=2, bias=False)
        return nn.Sequential(deconv, nn.ZeroPad2d((0, -1, 0, -1)), normalization(norm, out, dims=2))
    deconv = nn.ConvTranspose2d(inp, out, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(deconv, normalization(norm, out, dims=2))
