"""A scene folder for tests that need files to read and care little for what they show."""

from __future__ import annotations

from pathlib import Path

import torch

from mvsnet_edu.data.formats import Camera
from mvsnet_edu.data.scene import write_scene


def small_scene(folder: Path, seed: int = 0, views: int = 5, size: tuple[int, int] = (64, 48)) -> Path:
    """Noise of so many cameras in a row, with depths between 1.5 and 3, some of them not measured."""
    W, H = size
    dice = torch.Generator().manual_seed(seed)
    images = {view: torch.rand(3, H, W, generator=dice) for view in range(views)}
    K = torch.tensor([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]], dtype=torch.float64)
    cameras, depths = {}, {}
    for view in range(views):
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = -0.1 * view
        cameras[view] = Camera(pose, K, 1.0, 0.15, 16)
        depth = 1.5 + 1.5 * torch.rand(H // 4, W // 4, generator=dice)
        depths[view] = torch.where(torch.rand(H // 4, W // 4, generator=dice) < 0.2, 0, depth)
    pairs = {view: [(other, 1.0) for other in range(views) if other != view] for view in range(views)}
    write_scene(folder, images, cameras, pairs, depths, suffix=".png")
    return folder
