"""Cameras for the tests: asymmetric, in a world frame of their own, and with a roll where it matters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Tensor:
    """Rotation by the vector (x, y, z), in radians, (3, 3) in float64."""
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    turns = torch.tensor([x, y, z], dtype=torch.float64).norm() / math.pi  # half turns
    # Rodrigues' formula: torch.matrix_exp is orthonormal to some 1e-12 only
    return torch.eye(3).double() + turns.sinc() * skew + (turns / 2).sinc().square() / 2 * skew @ skew


def pose(R: Tensor, t: Tensor | list[float]) -> Tensor:
    """World to camera, (4, 4)."""
    E = torch.eye(4, dtype=torch.float64)
    E[:3, :3], E[:3, 3] = R, torch.as_tensor(t, dtype=torch.float64)
    return E


def intrinsics(height: int, width: int) -> Tensor:
    """(3, 3): about 60 degrees wide, with different focal lengths and the principal point off the centre."""
    fx, fy = (0.8 + 0.2 * torch.rand(2)) * max(height, width)
    cx, cy = (0.45 + 0.1 * torch.rand(2)) * torch.tensor([width, height])
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def rig(B: int, V: int, height: int, width: int, roll: float = 0.0) -> tuple[Tensor, Tensor]:
    """Intrinsics (B, V, 3, 3) and extrinsics (B, V, 4, 4) of cameras that look at a scene some 4 units away.

    The reference is not at the origin of the world, the sources stand around it, the last of them rolled.
    """
    K = torch.stack([torch.stack([intrinsics(height, width) for _ in range(V)]) for _ in range(B)])
    E = torch.stack([torch.stack(_poses(V, roll)) for _ in range(B)])
    return K, E


def _poses(V: int, roll: float) -> list[Tensor]:
    world = pose(rotation(*torch.randn(3).tolist()), torch.randn(3))
    rolls = [rotation(z=roll if v == V - 1 else 0.0) for v in range(1, V)]
    near = [pose(R @ rotation(*(0.1 * torch.randn(3)).tolist()), 0.4 * torch.randn(3)) for R in rolls]
    return [world, *(E @ world for E in near)]


QUARTER_TURN = math.pi / 2
