"""What a camera makes of the light: vignette, exposure, colour balance, blur, noise, JPEG, eight bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dice import Dice

__all__ = ["blur", "jpeg", "photograph"]


def photograph(images: Tensor, dice: Dice) -> Tensor:
    """Photographs of one scene, each by a camera with settings of its own.

    Args:
        images: (V, 3, H, W), the light that arrives, about [0, 1].
        dice: draws the settings.

    Returns:
        (V, 3, H, W) in [0, 1], in steps of 1/255.

    Source: ours.
    """
    V, _, H, W = images.shape

    def each(low: float, high: float, channels: int = 1) -> Tensor:
        return dice.uniform(low, high, V, channels, 1, 1).to(images)

    gain = 0.5 / images.mean(dim=(1, 2, 3), keepdim=True).clamp(min=0.1)
    spread = 0.6 * dice.number(0, 1) ** 2  # of the exposures: mostly one sitting, sometimes different days
    images = (
        images
        * gain
        * 2 ** (dice.number(-0.6, 0.6) + each(-spread, spread))
        * (1 + spread * each(-0.2, 0.2, 3))
    )
    contrast = 2 ** (dice.number(-0.4, 0.4) + spread * each(-0.5, 0.5))
    images = (images * _vignette(H, W, images) ** each(0, 1)).clamp(0, 1) ** contrast
    images = blur(images, dice.uniform(0, 0.9, V, 2) * dice.chance(0.5), dice.uniform(0, 3.1416, V))
    noise = dice.normal(V, 3, H, W).to(images) * (0.3 + images.sqrt())
    images = (images + noise * each(0, 1) ** 2 * dice.number(0, 0.04)).clamp(0, 1)
    if dice.chance(0.6):
        images = jpeg(images, dice.uniform(30, 98, V))
    return (images * 255).round() / 255


def _vignette(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W): 1 in the middle, 0.6 in the corners."""
    y = torch.linspace(-1, 1, height).to(like)[:, None]
    x = torch.linspace(-1, 1, width).to(like)
    return 1 - 0.2 * (x * x + y * y)


def blur(images: Tensor, sigmas: Tensor, angles: Tensor) -> Tensor:
    """Each image under a Gaussian of its own: round when out of focus, drawn out when the hand moved.

    Args:
        images: (V, 3, H, W).
        sigmas: (V, 2), in pixels, along the angle and across it; below about 0.3 nothing changes.
        angles: (V,), in radians.

    Returns:
        (V, 3, H, W).

    Source: ours.
    """
    V, C, H, W = images.shape
    offset = torch.arange(-3.0, 4.0, dtype=torch.float64)
    c, s = angles.cos().view(V, 1, 1), angles.sin().view(V, 1, 1)
    along, across = c * offset + s * offset[:, None], c * offset[:, None] - s * offset  # (V, 7, 7)
    sigma = sigmas.clamp(min=0.15).view(V, 2, 1, 1)
    kernels = torch.exp(-((along / sigma[:, 0]) ** 2 + (across / sigma[:, 1]) ** 2) / 2)
    kernels = (kernels / kernels.sum(dim=(1, 2), keepdim=True)).to(images).repeat_interleave(C, dim=0)
    padded = F.pad(images.reshape(1, V * C, H, W), (3, 3, 3, 3), mode="replicate")
    return F.conv2d(padded, kernels[:, None], groups=V * C).view(V, C, H, W)


#: Steps of brightness and colour that JPEG keeps at quality 50, by wave (ITU-T T.81, tables K.1 and K.2).
_STEPS = torch.full((2, 8, 8), 99)
_STEPS[0] = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)  # fmt: skip
_STEPS[1, :4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """The loss of JPEG without its files: waves of 8 x 8 pixels are rounded to steps.

    Args:
        images: (V, 3, H, W) in [0, 1].
        quality: (V,), from 1 to 100, as the usual encoders count.

    Returns:
        (V, 3, H, W) in [0, 1]. Colour keeps its resolution, unlike in most files.

    Source: ITU-T T.81; the scale of quality is that of the Independent JPEG Group.
    """
    V, C, H, W = images.shape
    x = F.pad(images, (0, -W % 8, 0, -H % 8), mode="replicate") * 255 - 128
    ycc, wave = _YCC.to(images), _cosines().to(images)
    x = torch.einsum("ij,vjhw->vihw", ycc, x)
    blocks = x.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # (V, 3, H/8, 8, W/8, 8)
    waves = torch.einsum("iy,jx,vchywx->vchiwj", wave, wave, blocks)
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).to(images).view(V, 1, 1, 1, 1, 1)
    steps = _STEPS[[0, 1, 1]].to(images)[:, None, :, None, :]  # (3, 1, 8, 1, 8), as blocks lie in waves
    steps = (steps * factor).round().clamp(1, 255)
    waves = (waves / steps).round() * steps
    x = torch.einsum("iy,jx,vchiwj->vchywx", wave, wave, waves).flatten(4, 5).flatten(2, 3)[..., :H, :W]
    x = torch.einsum("ij,vjhw->vihw", torch.linalg.inv(ycc), x)
    return ((x + 128) / 255).clamp(0, 1)


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 samples, (8, 8)."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
    table = torch.cos(torch.pi / 8 * (n + 0.5) * k) / 2
    table[0] /= 2**0.5
    return table
