"""What a camera adds, against Pillow's JPEG and against closed forms."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mvsnet_edu.data.dice import Dice
from mvsnet_edu.data.photograph import blur, jpeg, photograph


def waves(height: int, width: int) -> torch.Tensor:
    y, x = torch.arange(height)[:, None] / 9, torch.arange(width) / 7
    return torch.stack([0.5 + 0.4 * torch.sin(x + k + y * y / 5) * torch.cos(y) for k in range(3)])


@pytest.mark.parametrize("quality", [35, 60, 90])
def test_jpeg_loses_what_a_jpeg_file_loses(quality):
    image = waves(45, 58)  # no multiple of 8
    ours = jpeg(image[None], torch.tensor([float(quality)]))[0]
    file = io.BytesIO()
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality, subsampling=0)
    theirs = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) / 255
    lost = (theirs - image).square().mean().sqrt()
    assert (ours - theirs).square().mean().sqrt() < 0.7 * lost
    torch.testing.assert_close((ours - image).square().mean().sqrt(), lost, rtol=0.4, atol=0)


def test_jpeg_of_best_quality_changes_next_to_nothing_and_each_image_has_its_own():
    images = torch.stack([waves(24, 40), waves(24, 40)])
    best, worst = jpeg(images, torch.tensor([100.0, 10.0]))
    assert (best - images[0]).abs().max() < 0.02 < (worst - images[1]).abs().mean()


def test_blur_of_a_point_is_the_gaussian_along_its_axes():
    images = torch.zeros(2, 3, 15, 17)
    images[:, :, 7, 8] = 1
    round_, long = blur(images, torch.tensor([[0.8, 0.8], [1.4, 0.4]]), torch.tensor([0.3, 0.0]))
    expected = torch.exp(-(torch.arange(-3.0, 4) ** 2) / (2 * 0.8**2))
    torch.testing.assert_close(round_[0, 7, 5:12] / round_[0, 7, 8], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(round_.sum(), torch.tensor(3.0), rtol=1e-4, atol=0)
    assert long[1, 7, 9] > 3 * long[1, 8, 8]  # along x, at angle 0
    (same,) = blur(waves(9, 11)[None], torch.zeros(1, 2), torch.zeros(1))
    torch.testing.assert_close(same, waves(9, 11))


def test_photographs_are_eight_bit_repeatable_and_differ_between_views():
    light = waves(32, 44).expand(3, 3, 32, 44)
    first, again, other = (photograph(light, Dice(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= 0 and first.max() <= 1
    torch.testing.assert_close(first * 255, (first * 255).round(), rtol=0, atol=1e-4)
    assert not torch.equal(first[0], first[1])
    correlation = torch.corrcoef(torch.stack([first[0].flatten(), light[0].flatten()]))[0, 1]
    assert correlation > 0.7  # spoilt, but still the same picture
