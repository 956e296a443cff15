"""The training loop: any recipe, any number of processes, and it goes on exactly where it was stopped."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batches import Batches, held_out_batches, load, spare_workers, training_batches
from .checkpoints import save_network
from .data.formats import reason
from .data.scene import Sample
from .depth import winner_take_all
from .enlargement import estimate_enlarged
from .errors import InputError
from .locking import locked
from .losses import mvsnet_classification_loss, mvsnet_regression_loss, non_zero_mean_absolute_diff
from .memory import keep_freed_memory
from .models import DepthEstimate, MVSNet, RMVSNet, load_pretrained
from .optimization import clamped_loss, forget_activations, learning_rate, make_optimizer, update_average
from .progress import LOGGED, Progress, panel
from .recipe import NetworkTable, Recipe, StageTable
from .run_folder import RunFolder
from .subsets import Subsets

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["evaluate", "predict", "train"]

#: What :func:`evaluate` measures, for the initial and for the refined depth.
MEASURES = ("l1", "less_one", "less_three", "error")

#: What a checkpoint says about the steps that were done.
COUNTED = {"step": int, "seconds": float, "sums": lambda sums: sums.double().view(len(LOGGED) + 1)}

#: So many held-out samples are shown in TensorBoard.
PICTURES = 4

#: After so many steps in a row without finite gradients, training gives up.
PATIENCE = 10


def predict(
    network: nn.Module, sample: Sample, enlarge: int = 1, subsets: Subsets = "none"
) -> DepthEstimate:
    """Run a network on a sample.

    Args:
        network: an MVSNet, or an RMVSNet.
        sample: what it sees.
        enlarge: how many times as wide and as high the images are made first; see
            :func:`mvsnet_edu.enlargement.estimate_enlarged`.
        subsets: which sources get a hearing of their own; see :mod:`mvsnet_edu.subsets`.

    Returns:
        depth, probability map and refined depth.

    Source: ours.
    """
    views = sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values
    return estimate_enlarged(partial(network, subsets=subsets), *views, enlarge)


@torch.no_grad()
def evaluate(
    network: nn.Module, samples: Iterable[Sample], enlarge: int = 1, subsets: Subsets = "none"
) -> dict[str, float]:
    """Accuracy on samples whose depth is known.

    Args:
        network: an MVSNet, or an RMVSNet, in evaluation mode.
        samples: batches of one, on the network's device.
        enlarge: see :func:`predict`.
        subsets: see :func:`predict`.

    Returns:
        of the initial and of the refined depth: l1 (in intervals), less_one, less_three (shares) and error
        (mean absolute, in the scenes' unit); means over the samples.

    Source: ours.
    """
    rows = [_measures(predict(network, sample, enlarge, subsets), sample) for sample in samples]
    return _named(torch.stack(rows).mean(dim=0))


def _measures(estimate: DepthEstimate, sample: Sample) -> Tensor:
    """What :func:`evaluate` returns, of one sample."""
    truth, row = sample.ground_truth, []
    for depth in (estimate.depth, estimate.best):
        row += mvsnet_regression_loss(depth, truth, sample.depth_interval)
        row.append(non_zero_mean_absolute_diff(depth, truth, 1.0))
    return torch.stack(row)


def _named(values: Tensor) -> dict[str, float]:
    names = [f"{depth}_{measure}" for depth in ("initial", "refined") for measure in MEASURES]
    return dict(zip(names, values.tolist(), strict=True))


def train(recipe: Recipe, device: str | None = None) -> MVSNet | RMVSNet:
    """Train a network as a recipe says; goes on where an earlier run with the same ``out`` stopped.

    Leaves in ``recipe.out``: mvsnet.safetensors or rmvsnet.safetensors (the averaged weights), log.jsonl,
    events for TensorBoard and state.pt, the checkpoint. Several processes, as ``torchrun`` starts them, share
    the work.

    Args:
        recipe: from :func:`mvsnet_edu.recipe.read_recipe`.
        device: "cpu", "cuda" or "cuda:1"; the GPU if there is one, by default.

    Returns:
        the network with the averaged weights, in evaluation mode.

    Raises:
        InputError: if the folder is in use or belongs to another recipe, or training fails to give numbers.
        KeyboardInterrupt: after SIGINT or SIGTERM, once the state is saved.

    Source: ours.
    """
    keep_freed_memory()
    fabric = _fabric(recipe, device)
    fabric.launch()
    training = Training(recipe, fabric)
    folder = RunFolder(Path(recipe.out))  # only now: unusable data leave no folder behind
    with locked(folder.path) if fabric.is_global_zero else nullcontext():
        training.run(folder)
    return training.average


def _fabric(recipe: Recipe, device: str | None) -> Fabric:
    """One process, or as many as ``torchrun`` started."""
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise InputError('Training needs Lightning Fabric: pip install "mvsnet_edu[train]".') from None
    ranks, local = _processes()
    kind, _, number = (device or "auto").partition(":")
    partly = any(stage.train != "all" for stage in recipe.stage)
    parallel = "ddp_find_unused_parameters_true" if partly else "ddp"
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number else local,
        num_nodes=ranks // local,
        strategy=parallel if ranks > 1 else "auto",
        precision=recipe.compute.precision,
    )
    fabric.strategy.precision.convert_input = lambda inputs: inputs  # not the cameras and depths to 8 bits
    return fabric


def _processes() -> tuple[int, int]:
    """How many train together, and how many of them on this machine, as ``torchrun`` says."""
    return int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class Training:
    """Everything that changes from step to step.

    Args:
        recipe: what to do.
        fabric: the processes and their devices.
    """

    folder: RunFolder
    progress: Progress

    def __init__(self, recipe: Recipe, fabric: Fabric):
        self.recipe, self.fabric, self.failures = recipe, fabric, 0
        place = fabric.global_rank, fabric.world_size
        self.batches = [training_batches(recipe, number, *place) for number in range(len(recipe.stage))]
        self.held_out = held_out_batches(recipe, *place)
        torch.manual_seed(recipe.seed)
        self.network = _network(recipe).train().to(fabric.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.average.enlarge = max(recipe.stage[-1].enlarge)
        if recipe.compute.checkpointing:
            forget_activations(self.network)
        optimizer = make_optimizer(self.network, recipe.optimizer)
        self.parallel, self.optimizer = fabric.setup(self.network, optimizer)
        if isinstance(self.network, RMVSNet):
            self.parallel.mark_forward_method("scores")

    # --- stopping and going on

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.progress.step,
            "seconds": self.progress.seconds,
            "sums": self.progress.sums,
            "rng": torch.get_rng_state(),
            "ranks": self.fabric.world_size,
            "recipe": json.dumps(asdict(self.recipe)),
        }

    def _resume(self) -> dict[str, Any]:
        """Take up the checkpoint, if there is one and it belongs to this recipe; how far it had come."""
        state = self.folder.load()
        if state is None:
            return {}
        try:
            self._refuse_another(state)
            for name in ("network", "average", "optimizer"):
                getattr(self, name).load_state_dict(state[name])
            torch.set_rng_state(state["rng"])
            return {name: as_it_was(state[name]) for name, as_it_was in COUNTED.items()}
        except InputError:
            raise
        except Exception as error:  # plain values and tensors, but not those of such a run
            path = self.folder.checkpoint
            raise InputError(f"{path} is no checkpoint of a run of this recipe: {reason(error)}.") from error

    def _refuse_another(self, state: dict[str, Any]) -> None:
        path, changed = self.folder.path, self.recipe.changed(json.loads(state["recipe"]))
        if changed:
            raise InputError(f"{path} was begun with another {changed}: put it back, or take another OUT.")
        if state["ranks"] != self.fabric.world_size:
            was, now = state["ranks"], self.fabric.world_size
            raise InputError(f"{path} was begun by {was} processes, not {now}: go on with as many.")

    def _save(self) -> None:
        self.progress.gather()
        if self.fabric.is_global_zero:
            self.folder.save(self._state())

    # --- the loop

    def run(self, folder: RunFolder) -> None:
        """All steps that are left, to judge by the checkpoint in the folder."""
        self.folder = folder
        self.progress = Progress(self.fabric, folder, self.recipe.steps, **self._resume())
        first = 0
        with _polite_stop() as stop, closing(self.progress):
            for stage, batches in zip(self.recipe.stage, self.batches, strict=True):
                if self.progress.step < first + stage.steps:
                    self._run_stage(stage, batches, first, stop)
                first += stage.steps

    def _run_stage(self, stage: StageTable, batches: Batches, first: int, stop: Callable[[], bool]) -> None:
        numbers = range((self.progress.step - first) * stage.accumulate, stage.steps * stage.accumulate)
        stream = _Stopwatch(load(batches, numbers, self._workers(batches)))
        for name, value in self.network.named_parameters():
            part = "refinement" if name.startswith("refine_net.") else "initial"
            value.requires_grad_(stage.train in ("all", part))
        for step in range(self.progress.step - first, stage.steps):
            start, stream.seconds = time.monotonic(), 0.0
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(stage, step + 1)
            row = self._step(stream, stage, step)
            self.progress.add(row, time.monotonic() - start, stream.seconds)
            self.failures = 0 if row is not None else self.failures + 1
            if row is None:
                self._skip(batches, range(step * stage.accumulate, (step + 1) * stage.accumulate))
            self._look_around(stop)

    def _workers(self, batches: Batches) -> int:
        given = self.recipe.data.workers
        return spare_workers(batches, _processes()[1]) if given is None else given

    def _step(self, stream: Iterator[Sample], stage: StageTable, step: int) -> Tensor | None:
        """One step of the optimiser: its loss, accuracies and gradient norm; None if that is not finite."""
        self.optimizer.zero_grad()
        rows, enlarge = [], random.Random(f"{self.recipe.seed} {step}").choice(stage.enlarge)
        for part in range(1, stage.accumulate + 1):
            with self.fabric.no_backward_sync(self.parallel, enabled=part < stage.accumulate):
                rows.append(self._backward(next(stream).to(self.fabric.device), stage.accumulate, enlarge))
        clip = self.recipe.optimizer.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        row = torch.cat([torch.stack(rows).mean(dim=0), norm[None]]).cpu()  # the one wait for the GPU
        if not row[-1].isfinite():
            return None
        self.optimizer.step()
        update_average(self.average, self.network, self.recipe.optimizer.ema, step)  # anew in each stage
        return row

    def _backward(self, sample: Sample, parts: int, enlarge: int) -> Tensor:
        """Add the gradients of a batch; its loss and the three measures of its best depth, (4,)."""
        loss, depth = self._loss(sample, enlarge)
        factor = torch.where(loss.isfinite(), 1 / parts, math.nan)  # a bad loss shall spoil all
        self.fabric.backward(loss * factor)  # gradients: so every process knows of it
        measures = mvsnet_regression_loss(depth.detach(), sample.ground_truth, sample.depth_interval)
        return torch.stack([loss.detach(), *measures])

    def _loss(self, sample: Sample, enlarge: int) -> tuple[Tensor, Tensor]:
        """What is to become small, and the depth that the network answers with, (B, h, w)."""
        if not isinstance(self.network, RMVSNet):
            estimate = predict(self.parallel, sample, enlarge)
            return clamped_loss(estimate, sample, self.recipe.loss.clamp), estimate.best
        scores = self.parallel.scores(
            sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values
        )
        loss = mvsnet_classification_loss(scores, sample.ground_truth, sample.depth_values)
        return loss, winner_take_all(scores, sample.depth_values)[0]

    def _skip(self, batches: Batches, numbers: range) -> None:
        """Say which samples gave no finite gradients; give up if it goes on."""
        samples = [n for k in numbers for rank in range(batches.ranks) for n in batches.numbers(k, rank)]
        for value, sound in zip(self.network.buffers(), self.average.buffers(), strict=True):
            value.copy_(sound)  # the running averages of batch norm have seen them
        self.progress.say({"skipped_samples": samples, "reason": "loss or gradients are not finite"})
        if self.failures == PATIENCE:
            raise InputError(
                f"{self.folder.path}: {PATIENCE} steps in a row had no finite gradients, the last one with "
                f"samples {samples}: the learning rate is too high, or the data are broken."
            )

    def _look_around(self, stop: Callable[[], bool]) -> None:
        """After a step: report, validate, save, stop, each when it is time."""
        step, recipe = self.progress.step, self.recipe
        end, stopped = step == recipe.steps, self._anyone(stop())
        due = end or step % recipe.report == 0
        if due:
            self.progress.report(self.optimizer.param_groups[0]["lr"])
        if end or (recipe.validation.every and step % recipe.validation.every == 0):
            self._validate()
        if due or stopped:
            self._save()
        if stopped and not end:
            where = f"{self.folder.path}: step {step} of {recipe.steps} is saved"
            self.fabric.print(f"{where}; the same command goes on from there.")
            raise KeyboardInterrupt

    def _anyone(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all must do so after the same step."""
        if self.fabric.world_size == 1:
            return stop
        asked = torch.tensor(float(stop), device=self.fabric.device)
        return self.fabric.all_reduce(asked, reduce_op="sum").item() > 0

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure the averaged weights on held-out samples, shared among the processes, and save them."""
        totals = torch.zeros(1 + 2 * len(MEASURES), device=self.fabric.device)
        for k, sample in enumerate(self._held_out()):
            sample = sample.to(self.fabric.device)
            estimate = predict(self.average, sample, self.average.enlarge)
            totals += torch.cat([totals.new_ones(1), _measures(estimate, sample)])
            if k < PICTURES:
                self.progress.picture(f"held_out/{k}", panel(estimate, sample))
        totals = self.fabric.all_reduce(totals, reduce_op="sum")
        self.progress.say(_named(totals[1:] / totals[0]), "held_out")
        if self.fabric.is_global_zero:
            notes = {"steps": str(self.progress.step), "seconds": f"{self.progress.seconds:.0f}"}
            save_network(self.average, self.folder.path / f"{self.recipe.network.kind}.safetensors", **notes)

    def _held_out(self) -> Iterator[Sample]:
        """This process's share; drawn scenes stay in memory, the files of a data set are read again."""
        batches = self.held_out
        count = min(self.recipe.validation.samples, len(batches.samples))
        mine = len(range(batches.rank, count, batches.ranks))
        return load(batches, range(mine), self._workers(batches) if batches.shuffle else 0)


def _network(recipe: Recipe) -> MVSNet | RMVSNet:
    network = _fresh(recipe.network)
    if recipe.start_from is None:
        return network
    start = load_pretrained(recipe.start_from)
    if type(start) is type(network):
        _same(network.config, start.config, recipe.start_from)
        return start
    shared = {name: start.config[name] for name in ("norm", "features", "padding")}
    _same(network.config, shared, recipe.start_from)
    network.feature_net = start.feature_net
    return network


def _fresh(table: NetworkTable) -> MVSNet | RMVSNet:
    if table.kind == "mvsnet":
        return MVSNet(table.refine, table.norm, table.features)
    return RMVSNet(table.norm, table.features)


def _same(wanted: dict[str, Any], found: dict[str, Any], name: str) -> None:
    """Refuse weights whose settings, where both networks have them, are not the wanted ones."""
    if any(wanted.get(key, value) != value for key, value in found.items()):
        raise InputError(f"{name}: its settings are {found}, not those of [network].")


class _Stopwatch(Iterator[Sample]):
    """Batches, and the seconds that one had to wait for them."""

    def __init__(self, batches: Iterator[Sample]):
        self.batches, self.seconds = batches, 0.0

    def __next__(self) -> Sample:
        start = time.monotonic()
        sample = next(self.batches)
        self.seconds += time.monotonic() - start
        return sample


@contextmanager
def _polite_stop() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a question that the loop asks; a second one acts at once."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
