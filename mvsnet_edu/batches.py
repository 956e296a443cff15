"""Batch number k of a training run, the same whenever, wherever and how often it is asked for."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .data.blendedmvs import BlendedMVS
from .data.dtu import DTU
from .data.folders import SceneFolders
from .data.scene import Sample
from .data.synthetic import SyntheticScenes
from .errors import InputError
from .recipe import DataTable, Recipe

__all__ = [
    "Batches",
    "Samples",
    "collate",
    "held_out_batches",
    "load",
    "spare_workers",
    "training_batches",
]


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
        start: the sample that batch 0 of process 0 begins with.
        alternate: every second batch has its planes in descending order, for a network to which the order
            matters.

    Source: ours; alternate: ``train.py`` (``depth_start + (depth_num - 1) * depth_interval``).
    """

    samples: Samples
    size: int = 1
    views: Sequence[int] = (3,)
    seed: int = 0
    shuffle: bool = False
    rank: int = 0
    ranks: int = 1
    start: int = 0
    alternate: bool = False

    def __getitem__(self, k: int) -> Sample:
        """Batch k: sample (k * ranks + rank) * B and the next B - 1; all processes choose equal views."""
        chosen = [self.samples[n] for n in self.numbers(k, self.rank)]
        batch = collate(chosen, random.Random(f"{self.seed} {k}").choice(self.views))
        if self.alternate and k % 2:
            return replace(batch, depth_values=batch.depth_values.flip(1))
        return batch

    def numbers(self, k: int, rank: int) -> list[int]:
        """Which samples batch k of a process consists of."""
        first = self.start + (k * self.ranks + rank) * self.size
        return [self._place(n) for n in range(first, first + self.size)]

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
        samples: with ground truth, of one size and one number of depth hypotheses.
        views: how many views to keep.

    Returns:
        the batch.

    Raises:
        InputError: the images differ in size.

    Source: ours.
    """

    sizes = {f"{W} x {H}" for *_, H, W in (sample.images.shape for sample in samples)}
    if len(sizes) > 1:
        raise InputError(f"Images of {' and '.join(sorted(sizes))} pixels share no batch: give stage.size.")

    def stack(name: str) -> Tensor:
        return torch.cat([getattr(sample, name) for sample in samples])

    return Sample(
        images=stack("images")[:, :views],
        intrinsics=stack("intrinsics")[:, :views],
        extrinsics=stack("extrinsics")[:, :views],
        depth_values=stack("depth_values"),
        depth_interval=stack("depth_interval"),
        ground_truth=stack("ground_truth"),
        views=list(range(views)),
    )


def training_batches(recipe: Recipe, number: int, rank: int = 0, ranks: int = 1) -> Batches:
    """What a stage learns from; it goes on where the stage before it ended.

    Args:
        recipe: says which data.
        number: of the stage, from 0.
        rank: number of this process.
        ranks: how many there are.

    Returns:
        its batches.

    Raises:
        InputError: if the data are not there.

    Source: ours.
    """
    data, stage = recipe.data, recipe.stage[number]
    shape = max(stage.views), stage.depth_num, stage.size
    start = ranks * sum(each.steps * each.accumulate * each.batch for each in recipe.stage[:number])
    if data.kind == "generated":
        samples = _generated(recipe.seed, *shape, data.uses, data.slots, data.camera_error)
    else:
        samples = _finite(data, "train", *shape)
    shuffle = data.kind != "generated"
    alternate = recipe.network.kind == "rmvsnet"
    return Batches(samples, stage.batch, stage.views, recipe.seed, shuffle, rank, ranks, start, alternate)


def held_out_batches(recipe: Recipe, rank: int = 0, ranks: int = 1) -> Batches:
    """What a run is validated on: samples of the last stage's kind, one by one, that no training ever sees.

    Args:
        recipe: says which data.
        rank: number of this process.
        ranks: how many there are.

    Returns:
        batches of one; of finite sets in mixed order, the same for every seed.

    Raises:
        InputError: if the data are not there.

    Source: ours.
    """
    stage, data = recipe.stage[-1], recipe.data
    views = max(stage.views)
    shape = views, stage.depth_num, stage.size
    if data.kind == "generated":
        count = recipe.validation.samples
        samples = _generated(SyntheticScenes.HELD_OUT, *shape, uses=1, slots=count)  # it keeps them
    else:
        samples = _finite(data, "val", *shape)
    return Batches(samples, 1, (views,), 0, data.kind != "generated", rank, ranks)


def _generated(
    seed: int, views: int, depth_num: int, size: tuple[int, int], uses: int, slots: int, error: float = 0.0
) -> Samples:
    return SyntheticScenes(seed, size, depth_num, views, uses, slots, error)


def _finite(data: DataTable, split: str, views: int, depth_num: int, size: tuple[int, int] | None) -> Samples:
    if data.kind == "scenes":
        folder = data.root if split == "train" else data.held_out
        return SceneFolders(folder, views, depth_num, size, with_depth=True)
    kinds = {"dtu": DTU, "blendedmvs": BlendedMVS}
    return kinds[data.kind](data.root, split, views, depth_num, size)


def spare_workers(batches: Batches, processes: int = 1) -> int:
    """How many processes may draw or read samples for each training process of this machine.

    Scenes that are drawn serve several samples, ``slots`` apart: these must come to the same process, or each
    draws the scene anew.

    Args:
        batches: what they are to draw or read.
        processes: training processes on this machine.

    Returns:
        at most as many as there are cores left, at least 1.

    Source: ours.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spare = max(1, cores // processes - 1)
    slots = getattr(batches.samples, "slots", 0)  # 0 is a multiple of everything
    return max(w for w in range(1, spare + 1) if w == 1 or slots % (batches.ranks * batches.size * w) == 0)


def load(batches: Batches, numbers: Sequence[int], workers: int) -> Iterator[Sample]:
    """Batches by their numbers, drawn or read ahead by other processes.

    Args:
        batches: all of them.
        numbers: which.
        workers: how many processes; 0 does it in this one.

    Returns:
        the batches in the order of ``numbers``.

    Raises:
        InputError: if a file of the data set is broken.

    Source: ours.
    """
    own = torch.Generator()  # the loader throws a die, which must not be the network's
    how = {"batch_size": None, "num_workers": workers, "generator": own}
    if workers:
        how |= {"prefetch_factor": max(2, 16 // workers), "worker_init_fn": _deaf}
    try:
        yield from DataLoader(batches, sampler=numbers, **how)
    except InputError as error:  # a worker sends its whole traceback; the last line is what it said
        raise InputError(
            str(error).splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
        ) from None


def _deaf(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
