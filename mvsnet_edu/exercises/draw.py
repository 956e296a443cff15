"""Random inputs for the checks: small, asymmetric, and made of numbers that a reader can follow by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["LEVELS", "Draw"]

#: From inputs of a single entry to inputs whose sizes all differ.
LEVELS = range(5)

T = TypeVar("T")


class Draw:
    """A source of random inputs; the same level and seed give the same ones.

    Args:
        level: how large the inputs are, out of :data:`LEVELS`.
        seed: which of the inputs of that level.

    >>> Draw(level=3, seed=0).map_shape
    (1, 2, 3)
    """

    def __init__(self, level: int, seed: int):
        self.level = level
        self._random = random.Random(f"{level}/{seed}")

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(B, h, w) of a batch of depth maps."""
        return ((1, 1, 1), (1, 1, 2), (2, 1, 2), (1, 2, 3), (2, 5, 4))[self.level]

    @property
    def planes(self) -> int:
        """Number of depth hypotheses, D."""
        return (2, 3, 3, 4, 7)[self.level]

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, high)

    def number(self, low: float, high: float, step: float = 0.5) -> float:
        """A multiple of ``step``, which should be a power of two, so that sums and differences are exact."""
        return step * self.whole(round(low / step), round(high / step))

    def tensor(self, *shape: int, low: float, high: float, step: float = 0.5) -> Tensor:
        """A tensor of :meth:`number`."""
        count = torch.Size(shape).numel()
        return torch.tensor([self.number(low, high, step) for _ in range(count)]).view(shape)

    def one_of(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return self._random.choice(choices)

    def intrinsics(self) -> Tensor:
        """(3, 3), with a wide angle, so that half a pixel makes a difference that shows."""
        fx, fy = self._random.sample([2.0, 2.5, 3.0, 4.0, 5.0], 2)
        cx, cy = self._random.sample([0.5, 1.0, 1.5, 2.0, 3.0], 2)
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    def extrinsics(self) -> Tensor:
        """(4, 4), world to camera: upright at the first level, then rolled by 90 degrees, then tilted."""
        pose = torch.eye(4)
        pose[:3, :3] = (torch.eye(3), _turn(2, 0.0, 1.0), _turn(1, 0.8, 0.6))[min(self.level, 2)]
        if self.level > 2:
            pose[:3, :3] = _turn(2, 0.6, 0.8) @ pose[:3, :3]
        pose[:3, 3] = torch.tensor(self._random.sample([-2.0, -1.0, 1.0, 2.0, 3.0], 3))
        return pose

    def source_extrinsics(self, ref_extrinsics: Tensor) -> Tensor:
        """(4, 4), of a camera beside a reference, rolled and turned as the levels rise.

        What the reference sees at a depth of 2 or more, with intrinsics of :meth:`intrinsics` and at pixels
        from (0, 0) to (4, 4), lies in front of both.
        """
        relative = torch.eye(4)
        relative[:3, :3] = (torch.eye(3), _turn(2, 0.0, 1.0), _turn(1, 0.96, 0.28))[min(self.level, 2)]
        if self.level > 2:
            relative[:3, :3] = _turn(2, 0.6, 0.8) @ relative[:3, :3]
        sideways = self.one_of([(1.0, 0.0), (0.0, 1.0), (-0.5, 0.0), (0.0, -1.0), (0.5, 1.0), (-1.0, 0.5)])
        relative[:3, 3] = torch.tensor([*sideways, self.one_of([0.0, 0.0, 0.5, 1.0, -0.5])])
        return relative @ ref_extrinsics


def _turn(axis: int, cosine: float, sine: float) -> Tensor:
    """Rotation about one axis."""
    a, b = [i for i in range(3) if i != axis]
    rotation = torch.eye(3)
    rotation[a, a] = rotation[b, b] = cosine
    rotation[a, b], rotation[b, a] = -sine, sine
    return rotation
