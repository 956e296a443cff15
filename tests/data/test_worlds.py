"""Training worlds: every kind draws, and cameras look at what they should."""

from __future__ import annotations

import pytest
import torch

from mvsnet_edu import camera_center
from mvsnet_edu.data.dice import Dice
from mvsnet_edu.data.render import World, cast, render
from mvsnet_edu.data.worlds import WORLDS, hand_held, pinhole, sun, wild_world


@pytest.mark.parametrize("kind", WORLDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_world_fills_the_picture_with_texture_and_depth(kind):
    filled, contrast, ranges = [], [], []
    for seed in range(4):
        dice = Dice(seed)
        world = World(kind(dice), sun(dice)).to(torch.float32)
        E, K = hand_held(dice, 1, 1.0)[0].float(), pinhole((40, 32), 1.0).float()
        depth = cast(world, K, E, (40, 32))
        seen = depth[depth > 0]
        filled.append((depth > 0).float().mean().item())
        ranges.append((seen.quantile(0.95) / seen.quantile(0.05)).item())
        contrast.append(render(world, K, E, (40, 32), 1).std().item())
    assert max(filled) > 0.9 and max(contrast) > 0.04 and max(ranges) > 1.15
    assert all(seen > 0.2 for seen in filled)


def test_worlds_are_repeatable_and_of_many_kinds():
    counts = [len(wild_world(Dice(seed)).solids) for seed in range(30)]
    assert counts == [len(wild_world(Dice(seed)).solids) for seed in range(30)]
    assert min(counts) <= 4 and max(counts) >= 12 and len(set(counts)) > 6


def test_hand_held_cameras_step_sideways_by_a_share_of_the_distance():
    shares = []
    for seed in range(40):
        extrinsics = hand_held(Dice(seed), 4, 1.0)
        centers = camera_center(extrinsics)
        R = extrinsics[:, :3, :3]
        torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand(4, 3, 3))
        assert (torch.linalg.det(R) > 0.999).all() and (R[:, 1, 2] < 0).all()  # y points down
        shares += ((centers[1:] - centers[0]).norm(dim=1) / 3).tolist()
    assert 0.01 < min(shares) < 0.05 and 0.2 < max(shares) < 0.6


def test_a_camera_looks_at_its_target_through_the_middle():
    K = pinhole((40, 30), 1.5)
    assert K[0, 0] == K[1, 1] == 60 and K[0, 2] == 20 and K[1, 2] == 15
