"""Random numbers from one seed, the same on every machine."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["Dice"]

T = TypeVar("T")


class Dice:
    """Random numbers in float64 from one seed, or from several together, drawn on the CPU.

    >>> Dice(3).number(0, 1) == Dice(3).number(0, 1)
    True
    """

    def __init__(self, *seeds: int):
        mixed = np.random.SeedSequence(seeds).generate_state(1).item() if len(seeds) > 1 else seeds[0]
        self.generator = torch.Generator().manual_seed(mixed)  # torch looks at 32 bits only

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def number(self, low: float, high: float) -> float:
        return self.uniform(low, high).item()

    def power(self, low: float, high: float) -> float:
        """Between the two, as likely between 1 and 2 as between 2 and 4."""
        return low * (high / low) ** self.number(0, 1)

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def choice(self, options: tuple[T, ...]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, probability: float) -> bool:
        return self.number(0, 1) < probability
