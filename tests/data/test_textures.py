"""Drawn pictures: periodic, of every kind of spectrum, and the same from the same dice."""

from __future__ import annotations

import pytest
import torch

from mvsnet_edu.data.dice import Dice
from mvsnet_edu.data.textures import leaves, script, spectrum, wild_texture


@pytest.mark.parametrize("draw", [leaves, script, spectrum])
def test_pictures_are_periodic_in_range_and_never_alike(draw):
    pictures = [draw(Dice(seed), 40) for seed in (1, 1, 2)]
    for picture in pictures:
        assert picture.shape == (3, 41, 41) and -0.1 < picture.min() and picture.max() < 1.1
        assert torch.equal(picture[:, 0], picture[:, -1]) and torch.equal(picture[..., 0], picture[..., -1])
    assert torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])


def test_leaves_have_borders_at_all_scales():
    """A dead leaves picture looks alike at every scale: halving it hardly changes the share of edges."""
    shares = []
    for seed in range(12):
        picture = leaves(Dice(seed), 96)[:, :96, :96]
        for image in (picture, torch.nn.functional.avg_pool2d(picture, 2)):
            steps = image.diff(dim=-1).abs().amax(0)
            shares.append((steps > 0.25 * steps.max()).float().mean().item())
    fine, half = sum(shares[::2]) / 12, sum(shares[1::2]) / 12
    assert 0.01 < fine < half < 3 * fine


def test_the_spectrum_of_noise_falls_with_the_frequency():
    falling = 0
    for seed in range(10):
        waves = torch.fft.rfft2(spectrum(Dice(seed), 64)[1, :64, :64]).abs()
        falling += bool(waves[1:5, 1:5].mean() > 2 * waves[20:30, 20:30].mean())
    assert falling >= 9


def test_wild_textures_are_weak_and_strong_drawn_and_patterned():
    """Over many draws: some nearly plain, some full of contrast, about half of them pictures."""
    points = Dice(0).uniform(-1, 1, 2000, 3)
    textures = [wild_texture(Dice(seed), 1.0) for seed in range(60)]
    contrasts = torch.tensor([t.color(points).std(dim=0).mean() for t in textures])
    assert contrasts.min() < 0.04 and contrasts.max() > 4 * contrasts.min()
    assert 15 < sum(t.picture is not None for t in textures) < 45
    assert all(t.color(points).isfinite().all() for t in textures)
