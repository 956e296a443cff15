"""A tilted, coloured plane seen by several cameras, and the files of MVSNet's data sets written word by word.

Nothing here uses the package's cameras or writers: the readers are compared with an independent formulation.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

NORMAL, OFFSET = np.array([0.1, -0.15, 1.0]), 600.0  # the plane's points X: NORMAL @ X = OFFSET


def camera(view: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera matrix and intrinsics in pixels of an image of this size (W, H)."""
    W, H = size
    a, b = 0.03 * view, 0.02 * view - 0.05
    yaw = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    roll = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    extrinsics = np.eye(4)
    extrinsics[:3, :3], extrinsics[:3, 3] = roll @ yaw, [20.0 * view, -9.0 * view, 4.0 * view]
    intrinsics = np.array([[1.1 * W, 0, 0.53 * W], [0, 1.15 * W, 0.45 * H], [0, 0, 1]])
    return extrinsics, intrinsics


def _points(view: int, size: tuple[int, int], step: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the rays through the pixels, each ``step`` pixels wide, meet the plane, and their depth."""
    (W, H), (E, K) = size, camera(view, size)
    y, x = np.mgrid[0 : H // step, 0 : W // step] * float(step) + step / 2
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)  # z = 1
    center, directions = -E[:3, :3].T @ E[:3, 3], rays @ E[:3, :3]
    depth = (OFFSET - NORMAL @ center) / (directions @ NORMAL)
    return center + depth[..., None] * directions, depth


def plane_depth(view: int, size: tuple[int, int], step: int = 1) -> np.ndarray:
    """(H / step, W / step) float32."""
    return _points(view, size, step)[1].astype(np.float32)


def plane_image(view: int, size: tuple[int, int], blue: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: red and green wave along the world's x and y, so they tell the place; blue is free."""
    points, _ = _points(view, size, 1)
    waves = 127 + 110 * np.sin(points[..., :2] / 30)
    return np.concatenate([waves, np.full_like(waves[..., :1], blue)], -1).round().astype(np.uint8)


def write(path: Path, content: bytes | str | np.ndarray) -> None:
    """A text, bytes, or pixels (as an image) under a name whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path, quality=95, subsampling=0)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def cam_text(view: int, size: tuple[int, int], tail: str) -> str:
    """A camera file for an image of this size; ``tail`` is its last line."""
    extrinsics, intrinsics = (
        "\n".join(" ".join(f"{x:.12f}" for x in row) for row in matrix) for matrix in camera(view, size)
    )
    return f"extrinsic\n{extrinsics}\n\nintrinsic\n{intrinsics}\n\n{tail} \n"


def pair_text(pairs: dict[int, list[int]]) -> str:
    lines = [str(len(pairs))]
    for ref, sources in pairs.items():
        words = [f"{view} {90.5 - k}" for k, view in enumerate(sources)]
        lines += [str(ref), " ".join([str(len(sources)), *words]) + " "]
    return "\n".join(lines) + "\n"


def pfm_bytes(depth: np.ndarray) -> bytes:
    """Rows from the bottom to the top, little-endian, as MVSNet's files have them."""
    H, W = depth.shape
    return f"Pf\n{W} {H}\n-1.000000\n".encode() + struct.pack(f"<{H * W}f", *depth[::-1].ravel().tolist())


def check_cameras(sample) -> None:
    """The sample's cameras and depth match its images; ones scaled once too little or too often would not."""
    images, truth = sample.images[0], sample.ground_truth[0]
    K, E = sample.intrinsics[0], sample.extrinsics[0]
    assert _disagreement(images, K, E, truth) < 0.006
    for wrong in (1 / 4, 1.05, 4):
        scaled = torch.tensor([wrong, wrong, 1.0]).diag() @ K
        assert _disagreement(images, scaled, E, truth) > 0.02, wrong


def _disagreement(images, intrinsics, extrinsics, truth) -> float:
    """Mean difference of colour between the reference and the sources where its depth says that they match.

    Back-projects and re-projects with numpy, and leaves only sampling to torch. Infinite for views that
    hardly overlap.
    """
    (V, _, H, W), (K, E) = images.shape, (intrinsics.double().numpy(), extrinsics.double().numpy())
    depth = truth.double().numpy()
    y, x = np.mgrid[0 : H // 4, 0 : W // 4] * 4.0 + 2.0
    rays = np.stack([(x - K[0, 0, 2]) / K[0, 0, 0], (y - K[0, 1, 2]) / K[0, 1, 1], np.ones_like(x)], -1)
    world = (rays * depth[..., None] - E[0, :3, 3]) @ E[0, :3, :3]
    reference, differences = _sample(images[0], x, y), []
    for view in range(1, V):
        seen = world @ E[view, :3, :3].T + E[view, :3, 3]
        u, v = ((K[view, i, i] * seen[..., i] / seen[..., 2] + K[view, i, 2]) for i in (0, 1))
        inside = (depth > 0) & (u > 1) & (u < W - 1) & (v > 1) & (v < H - 1) & (seen[..., 2] > 0)
        difference = np.abs(_sample(images[view], u, v) - reference)[:2, inside]
        differences.append(difference.mean() if inside.mean() > 0.1 else np.inf)
    return float(np.max(differences))


def _sample(image: torch.Tensor, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    _, H, W = image.shape
    grid = torch.from_numpy(np.stack([2 * x / W - 1, 2 * y / H - 1], -1)).float()[None]
    return F.grid_sample(image[None], grid, align_corners=False)[0].numpy()
