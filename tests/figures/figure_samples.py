"""The figures that tests share: asymmetric sizes, unmeasured pixels, values that differ everywhere."""

from __future__ import annotations

import numpy as np
import torch
from cameras import rig

from mvsnet_edu.figures import (
    Figure,
    Picture,
    Viewpoint,
    compare,
    cost_volume,
    epipolar,
    loss_explorer,
    memory_explorer,
    plane_sweep,
    point_cloud,
    refinement_profile,
    soft_argmin,
)

HEIGHT, WIDTH = 5, 8


def depth_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Initial, refined and true depth; the truth misses a pixel of row 3."""
    rng = np.random.default_rng(7)
    truth = 500 + 20 * rng.random((HEIGHT, WIDTH)).astype(np.float32)
    initial = truth + rng.normal(0, 6, truth.shape).astype(np.float32)
    refined = initial + np.float32(0.6) * (truth - initial)
    truth[3, 4] = 0
    return initial, refined, truth


def patches() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three coloured squares that face an identity camera: red near, green far and right, blue behind red."""
    u, v = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41))
    places = {(255, 0, 0): (-1.5, -0.5, 8.0), (0, 255, 0): (2.0, 1.0, 10.0), (0, 0, 255): (-1.8, -0.6, 12.0)}
    squares = [np.stack([u + x, v + y, 0 * u + z], axis=-1).reshape(-1, 3) for x, y, z in places.values()]
    colors = np.repeat(np.array(list(places), np.uint8), u.size, axis=0)
    normals = np.tile([0.0, 0.0, -1.0], (len(colors), 1))
    return np.concatenate(squares), colors, normals


def volumes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A variance (C, D, h, w), a cost (D, h, w) and the depths (D,), which are not even."""
    rng = np.random.default_rng(9)
    shape = (6, HEIGHT, WIDTH)
    variance = rng.gamma(0.5, 1.0, (3, *shape)).astype(np.float32)
    cost = rng.normal(0, 4, shape).astype(np.float32)
    return variance, cost, np.array([490.0, 496.0, 503.0, 511.0, 520.0, 530.0])


def photographs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three views of noise, with cameras and true depths; the truth of view 1 misses a pixel."""
    torch.manual_seed(11)
    (K, E), images = rig(1, 3, 4 * HEIGHT, 4 * WIDTH, roll=0.4), torch.rand(3, 3, 4 * HEIGHT, 4 * WIDTH)
    truth = 3 + 2 * torch.rand(3, HEIGHT, WIDTH)
    truth[1, 2, 6] = 0
    return images, K[0], E[0], truth


DEPTHS = (2.5, 3.0, 3.75, 5.0, 7.5)


def make(kind: str) -> Figure:
    initial, refined, truth = depth_maps()
    if kind == "cloud":
        return point_cloud(*patches(), view=Viewpoint((0, 0, 0), (0, 0, 10), (0, -1, 0), 45.0, 1.5))
    if kind == "memory":
        return memory_explorer()
    if kind == "loss":
        return loss_explorer(reach=4, steps=4)
    if kind == "refinement":
        return refinement_profile(initial, refined, truth, depth_start=480.0, depth_interval=2.5)
    if kind == "regression":
        return soft_argmin([(2.46, 0.8, 1.2), (4.34, 0.5, 1.7)], interval=0.2, planes=15, unit="m")
    photo = np.random.default_rng(3).integers(0, 256, (4 * HEIGHT, 4 * WIDTH, 3), dtype=np.uint8)
    if kind == "volume":
        return cost_volume(*volumes(), truth, image=photo)
    if kind == "epipolar":
        images, K, E, depths = photographs()
        return epipolar(images, K, E, DEPTHS, truth=depths, view=2, pixel=(3, 1))
    if kind == "sweep":
        images, K, E, depths = photographs()
        return plane_sweep(images, K, E, DEPTHS, truth=depths[1], pixel=(3, 1))
    measured = np.where(truth > 0, truth, np.nan)
    pictures = {
        "photo": photo,
        "truth": measured,
        "error": Picture((initial - measured) / 2.5, "intervals", "diverging", contours=(1, 3)),
    }
    return compare(pictures, unit="mm", digits=3)


KINDS = ("cloud", "wipe", "loss", "refinement", "regression", "volume", "epipolar", "sweep", "memory")
