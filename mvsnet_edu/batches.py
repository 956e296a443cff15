"""Batch number k of a training run, the same whenever, wherever and how often it is asked for."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .data.scene import Sample
from .errors import InputError

__all__ = ["Batches", "Samples", "collate", "load"]


class Samples(Protocol):
    """What a data set of samples can do: tell their number, and give each as a batch of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, n: int) -> Sample: ...


@dataclass(frozen=True)
class Batches(Dataset):
    """The batches of one process among several.

    Args:
        samples: where they come from.
        size: samples in a batch, B.
        views: numbers of views to choose from; every sample must have as many.
        seed: of that choice, and of the order of finite sets.
        shuffle: draw each epoch in an order of its own, instead of counting upwards.
        rank: number of this process.
        ranks: how many there are.

    Source: ours.
    """

    samples: Samples
    size: int = 1
    views: Sequence[int] = (3,)
    seed: int = 0
    shuffle: bool = False
    rank: int = 0
    ranks: int = 1

    def __getitem__(self, k: int) -> Sample:
        """Batch k: samples (k * ranks + rank) * B and the next B - 1; all processes choose equal views."""
        chosen = [self.samples[n] for n in self.numbers(k, self.rank)]
        return collate(chosen, random.Random(f"{self.seed} {k}").choice(self.views))

    def numbers(self, k: int, rank: int) -> list[int]:
        """Which samples batch k of a process consists of."""
        start = (k * self.ranks + rank) * self.size
        return [self._place(n) for n in range(start, start + self.size)]

    def _place(self, n: int) -> int:
        if not self.shuffle:
            return n
        epoch, place = divmod(n, len(self.samples))
        return _permutation(self.seed, epoch, len(self.samples))[place]


@lru_cache(maxsize=2)  # a batch may reach over the end of an epoch
def _permutation(seed: int, epoch: int, count: int) -> list[int]:
    return random.Random(f"{seed} {epoch}").sample(range(count), count)


def collate(samples: list[Sample], views: int) -> Sample:
    """One batch of several, with the first so many views of each.

    Args:
        samples: of one size and one number of depth hypotheses.
        views: how many views to keep.

    Returns:
        the batch.

    Source: ours.
    """

    def stack(name: str) -> Tensor:
        return torch.cat([getattr(sample, name) for sample in samples])

    if any(sample.ground_truth is None for sample in samples):
        raise InputError("A sample has no ground truth to train with.")
    return Sample(
        images=stack("images")[:, :views],
        intrinsics=stack("intrinsics")[:, :views],
        extrinsics=stack("extrinsics")[:, :views],
        depth_values=stack("depth_values"),
        depth_interval=stack("depth_interval"),
        ground_truth=stack("ground_truth"),
        views=list(range(views)),
    )


def load(batches: Batches, numbers: Sequence[int], workers: int) -> Iterator[Sample]:
    """Batches by their numbers, drawn or read ahead by other processes.

    Args:
        batches: all of them.
        numbers: which.
        workers: how many processes; 0 does it in this one.

    Returns:
        the batches in the order of ``numbers``.

    Source: ours.
    """
    own = torch.Generator()  # the loader throws a die, which must not be the network's
    ahead = {"prefetch_factor": 8, "worker_init_fn": _deaf} if workers else {}
    how = {"batch_size": None, "num_workers": workers, "generator": own}
    return iter(DataLoader(batches, sampler=numbers, **how, **ahead))


def _deaf(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
