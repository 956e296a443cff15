"""The training loop: any recipe, any number of processes, and it goes on exactly where it was stopped."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batches import Batches, load
from .checkpoints import load_network, save_network
from .data.scene import Sample
from .data.synthetic import SyntheticScenes
from .errors import InputError
from .losses import mvsnet_loss, mvsnet_regression_loss, non_zero_mean_absolute_diff
from .models import DepthEstimate, MVSNet
from .recipe import OptimizerTable, Recipe, StageTable
from .run_folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["evaluate", "learning_rate", "predict", "train"]

#: What :func:`evaluate` measures, for the initial and for the refined depth.
MEASURES = ("l1", "less_one", "less_three", "error")

#: Means over the steps since the last line of the log; the number of steps comes after them.
LOGGED = ("loss", "refined", "less_one", "less_three", "norm")

#: So many steps in a row without finite gradients, and training gives up.
PATIENCE = 10


def predict(network: nn.Module, sample: Sample) -> DepthEstimate:
    """Run a network on a sample.

    Args:
        network: an MVSNet.
        sample: what it sees.

    Returns:
        depth, probability map and refined depth.

    Source: ours.
    """
    return network(sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values)


def evaluate(network: nn.Module, samples: Iterable[Sample]) -> dict[str, float]:
    """Accuracy on samples whose depth is known.

    Args:
        network: an MVSNet, in evaluation mode.
        samples: batches of one, on the network's device.

    Returns:
        of the initial and of the refined depth: l1 (in intervals), less_one, less_three (shares) and error
        (mean absolute, in the scenes' unit); means over the samples.

    Source: ours.
    """
    totals = _totals(network, samples)
    return _named(totals[1:] / totals[0])


@torch.no_grad()
def _totals(network: nn.Module, samples: Iterable[Sample]) -> Tensor:
    """Number of the samples, and for each measure the sum over them."""
    rows = []
    for sample in samples:
        estimate, truth, interval = predict(network, sample), sample.ground_truth, sample.depth_interval
        row = [truth.new_ones(())]
        for depth in (estimate.depth, estimate.best):
            row += mvsnet_regression_loss(depth, truth, interval)
            row.append(non_zero_mean_absolute_diff(depth, truth, 1.0))
        rows.append(torch.stack(row))
    return torch.stack(rows).sum(dim=0)


def _named(values: Tensor) -> dict[str, float]:
    names = [f"{depth}_{measure}" for depth in ("initial", "refined") for measure in MEASURES]
    return dict(zip(names, values.tolist(), strict=True))


def learning_rate(stage: StageTable, step: int) -> float:
    """The learning rate of a step.

    Args:
        stage: the part of the recipe that the step belongs to.
        step: its number within the stage, from 1.

    Returns:
        after a straight warm-up: half a cosine that ends at 0, or x 0.9 every 10,000 steps, smoothly.

    Source: ours; exponential: ``train.py`` (``tf.train.exponential_decay``, its staircase off).

    >>> learning_rate(StageTable(steps=100, rate=1.0, warm_up=10), 5)
    0.5
    """
    warm = step / stage.warm_up if step < stage.warm_up else 1.0
    if stage.schedule == "cosine":
        return stage.rate * min(warm, 0.5 + 0.5 * math.cos(math.pi * step / stage.steps))
    return stage.rate * min(warm, 0.9 ** ((step - 1) / 10_000))


def train(recipe: Recipe, device: str | None = None) -> MVSNet:
    """Train a network as a recipe says; goes on where an earlier run with the same ``out`` stopped.

    Leaves in ``recipe.out``: mvsnet.safetensors (the averaged weights), log.jsonl, events for TensorBoard and
    state.pt, the checkpoint. Several processes, as ``torchrun`` starts them, share the work.

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
    fabric = _fabric(recipe, device)
    fabric.launch()
    folder = RunFolder(Path(recipe.out))
    with folder.locked() if fabric.is_global_zero else nullcontext():
        training = Training(recipe, folder, fabric)
        training.resume()
        training.run()
    return training.average


def _fabric(recipe: Recipe, device: str | None) -> Fabric:
    """One process, or as many as ``torchrun`` started."""
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise InputError('Training needs Lightning Fabric: pip install "mvsnet_edu[train]".') from None
    ranks, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    kind, _, number = (device or "auto").partition(":")
    return Fabric(
        accelerator=kind,
        devices=[int(number)] if number else local,
        num_nodes=ranks // local,
        strategy="ddp" if ranks > 1 else "auto",
        precision=recipe.compute.precision,
    )


class Training:
    """What changes from step to step, and how.

    Args:
        recipe: what to do.
        folder: where the run lies.
        fabric: the processes and their devices.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, fabric: Fabric):
        self.recipe, self.folder, self.fabric = recipe, folder, fabric
        torch.manual_seed(recipe.seed)
        self.network = _network(recipe).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False).to(fabric.device)
        optimizer = _optimizer(self.network, recipe.optimizer)
        self.parallel, self.optimizer = fabric.setup(self.network, optimizer)
        self.step, self.failures, self.seconds = 0, 0, 0.0
        self.begun, self.waited, self.mark = 0.0, 0.0, (0, 0.0, 0.0)
        self.sums = torch.zeros(len(LOGGED) + 1, dtype=torch.float64)

    # --- stopping and going on

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "sums": self.sums,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
            "ranks": self.fabric.world_size,
            "recipe": json.dumps(asdict(self.recipe)),
        }

    def resume(self) -> None:
        """Take up the checkpoint, if there is one and it belongs to this recipe."""
        state = self.folder.load()
        if state is None:
            return
        self._refuse_others(state)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.begun, self.mark = self.seconds, self._clock()
        torch.set_rng_state(state["rng"])
        if self.fabric.is_global_zero:
            self.sums.copy_(state["sums"])
            self.folder.rewind(self.step)

    def _refuse_others(self, state: dict[str, Any]) -> None:
        path, changed = self.folder.path, self.recipe.changed(json.loads(state["recipe"]))
        if changed:
            raise InputError(f"{path} was begun with another {changed}: put it back, or give another --out.")
        if state["ranks"] != self.fabric.world_size:
            was, now = state["ranks"], self.fabric.world_size
            raise InputError(f"{path} was begun by {was} processes, not {now}: go on with as many.")

    def _save(self) -> None:
        self._gather()
        if self.fabric.is_global_zero:
            self.folder.save(self.state())

    # --- the loop

    def run(self) -> None:
        """All steps that are left."""
        with _polite_stop() as stop, self._bar() as bar:
            last = 0
            for stage in self.recipe.stage:
                first, last = last, last + stage.steps
                if self.step < last:
                    self._run_stage(stage, first, stop, bar)

    def _run_stage(self, stage: StageTable, first: int, stop: Callable[[], bool], bar: Any) -> None:
        batches = self._batches(stage)
        ahead = range((self.step - first) * stage.accumulate, stage.steps * stage.accumulate)
        stream = load(batches, ahead, self.recipe.data.workers)
        while self.step < first + stage.steps:
            start = time.monotonic()
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(stage, self.step + 1 - first)
            finite = self._step(stream, stage)
            self.step += 1
            self.seconds += time.monotonic() - start
            if finite:
                self.failures = 0
            else:
                self._skip(batches, stage, self.step - 1 - first)
            self._show(bar)
            self._after_step(stop)

    def _batches(self, stage: StageTable) -> Batches:
        data, seed = self.recipe.data, self.recipe.seed
        settings = {"uses": data.uses, "slots": data.slots, "camera_error": data.camera_error}
        samples = SyntheticScenes(seed, stage.size, stage.depth_num, max(stage.views), **settings)
        return Batches(samples, stage.batch, stage.views, seed, **self._place())

    def _place(self) -> dict[str, int]:
        return {"rank": self.fabric.global_rank, "ranks": self.fabric.world_size}

    def _step(self, stream: Iterator[Sample], stage: StageTable) -> bool:
        """One step of the optimiser; False, and no step, if a gradient is not finite."""
        self.optimizer.zero_grad()
        rows = []
        for part in range(stage.accumulate):
            with self.fabric.no_backward_sync(self.parallel, enabled=part + 1 < stage.accumulate):
                rows.append(self._backward(self._next(stream), stage.accumulate))
        clip = self.recipe.optimizer.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        row = torch.cat([torch.stack(rows).mean(dim=0), norm[None]]).cpu()  # the one wait for the GPU
        if not row[-1].isfinite():
            return False
        self.optimizer.step()
        _update(self.average, self.network, self.recipe.optimizer.ema, self.step)
        self.sums += torch.cat([row, torch.ones(1)])
        return True

    def _next(self, stream: Iterator[Sample]) -> Sample:
        start = time.monotonic()
        sample = next(stream)
        self.waited += time.monotonic() - start
        return sample.to(self.fabric.device)

    def _backward(self, sample: Sample, parts: int) -> Tensor:
        """Gradients of a batch; its loss and the accuracy of its best depth, (4,)."""
        estimate = predict(self.parallel, sample)
        loss = _loss(estimate, sample, self.recipe.loss.clamp)
        sound = torch.where(loss.isfinite(), 1 / parts, math.nan)  # a bad loss must reach every process
        self.fabric.backward(loss * sound)
        measures = mvsnet_regression_loss(estimate.best.detach(), sample.ground_truth, sample.depth_interval)
        return torch.stack([loss.detach(), *measures])

    def _skip(self, batches: Batches, stage: StageTable, step: int) -> None:
        """Say which samples gave no finite gradients; give up if it goes on."""
        parts, ranks = range(stage.accumulate), range(self.fabric.world_size)
        numbers = [n for k in parts for r in ranks for n in batches.numbers(step * stage.accumulate + k, r)]
        for value, sound in zip(self.network.buffers(), self.average.buffers(), strict=True):
            value.copy_(sound)  # the running averages of batch norm have seen the bad batch
        self.failures += 1
        self._say({"step": self.step, "skipped": numbers})
        if self.failures == PATIENCE:
            raise InputError(
                f"{self.folder.path}: {PATIENCE} steps in a row without finite gradients, the last with "
                f"samples {numbers}: the learning rate is too high, or the data are broken."
            )

    # --- what one sees of it

    def _after_step(self, stop: Callable[[], bool]) -> None:
        recipe, end = self.recipe, self.step == self.recipe.steps
        due, stopped = end or self.step % recipe.report == 0, self._anyone(stop())
        if due:
            self._report()
        if end or (recipe.validation.every and self.step % recipe.validation.every == 0):
            self._validate()
        if due or stopped:
            self._save()
        if stopped and not end:
            where = f"{self.folder.path}: step {self.step} is saved"
            self.fabric.print(f"{where}; the same command goes on from there.")
            raise KeyboardInterrupt

    def _anyone(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all must do it after the same step."""
        if self.fabric.world_size == 1:
            return stop
        return self.fabric.all_reduce(torch.tensor(float(stop)), reduce_op="sum").item() > 0

    def _gather(self) -> Tensor:
        """The sums of all processes together, in the first one."""
        sums = self.sums.clone()
        if self.fabric.world_size > 1:
            sums = self.fabric.all_reduce(sums.to(self.fabric.device), reduce_op="sum").cpu()
        self.sums = sums if self.fabric.is_global_zero else torch.zeros_like(sums)
        return sums

    def _report(self) -> None:
        sums = self._gather()
        means = sums[:-1] / sums[-1].clamp(min=1)
        rate = self.optimizer.param_groups[0]["lr"]
        line = dict(zip(LOGGED, means.tolist(), strict=True)) | {"rate": rate} | self._speed()
        self._say({"step": self.step, "seconds": self.seconds} | line)
        self.sums.zero_()

    def _speed(self) -> dict[str, float]:
        """Since the last report: steps in a second, and the share of the time spent waiting for data."""
        steps, seconds, waited = (now - then for now, then in zip(self._clock(), self.mark, strict=True))
        self.mark = self._clock()
        return {"steps_per_s": steps / max(seconds, 1e-9), "waiting": waited / max(seconds, 1e-9)}

    def _clock(self) -> tuple[int, float, float]:
        return self.step, self.seconds, self.waited

    def _validate(self) -> None:
        """Accuracy of the averaged weights on held-out samples, shared among the processes; saves them."""
        totals = _totals(self.average, (sample.to(self.fabric.device) for sample in self._held_out()))
        totals = self.fabric.all_reduce(totals, reduce_op="sum")
        self._say({"step": self.step, "held_out": _named(totals[1:] / totals[0])})
        if self.fabric.is_global_zero:
            notes = {"steps": str(self.step), "seconds": f"{self.seconds:.0f}"}
            save_network(self.average, self.folder.path / "mvsnet.safetensors", **notes)

    def _held_out(self) -> Iterator[Sample]:
        stage, views = self.recipe.stage[-1], max(self.recipe.stage[-1].views)
        samples = SyntheticScenes(SyntheticScenes.HELD_OUT, stage.size, stage.depth_num, views, uses=1)
        batches = Batches(samples, views=(views,), **self._place())
        mine = range(batches.rank, self.recipe.validation.samples, batches.ranks)
        return load(batches, range(len(mine)), self.recipe.data.workers)

    def _say(self, line: dict[str, Any]) -> None:
        """Into the log and onto the screen."""
        if not self.fabric.is_global_zero:
            return
        from tqdm import tqdm

        self.folder.log(line)
        tqdm.write(" ".join(f"{key} {_short(value)}" for key, value in line.items()))

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        from tqdm import tqdm

        options = {"initial": self.step, "total": self.recipe.steps, "unit": "step"}
        with tqdm(**options, disable=None if self.fabric.is_global_zero else True) as bar:
            yield bar

    def _show(self, bar: Any) -> None:
        means = (self.sums / self.sums[-1].clamp(min=1)).tolist()
        waiting = f"{self.waited / max(self.seconds - self.begun, 1e-9):.0%}"
        bar.set_postfix(loss=f"{means[0]:.3f}", less_one=f"{means[2]:.1%}", waiting=waiting, refresh=False)
        bar.update()


def _network(recipe: Recipe) -> MVSNet:
    settings = asdict(recipe.network)
    if recipe.start_from is None:
        return MVSNet(**settings)
    network = load_network(MVSNet, recipe.start_from)
    if network.config != settings:
        raise InputError(f"{recipe.start_from}: its settings are {network.config}, not those of [network].")
    return network


def _optimizer(network: nn.Module, table: OptimizerTable) -> torch.optim.Optimizer:
    """AdamW, or the original's RMSProp as TensorFlow computes it.

    TensorFlow starts the average of squares at 1 (PyTorch: at 0, which makes the first steps three times as
    long), and adds its epsilon under the root, so the 1e-10 there is 1e-5 outside.
    """
    if table.kind == "adamw":
        return torch.optim.AdamW(network.parameters(), weight_decay=table.weight_decay)
    optimizer = torch.optim.RMSprop(
        network.parameters(), alpha=0.9, eps=1e-5, weight_decay=table.weight_decay
    )
    for value in network.parameters():
        optimizer.state[value] = {"step": torch.tensor(0.0), "square_avg": torch.ones_like(value)}
    return optimizer


def _loss(estimate: DepthEstimate, sample: Sample, clamp: float) -> Tensor:
    """mvsnet_loss of depths pulled to at most ``clamp`` intervals from the truth (0: as they are)."""
    initial, refined, truth = estimate.depth, estimate.refined_depth, sample.ground_truth
    if clamp:
        reach = clamp * sample.depth_interval.abs().view(-1, 1, 1)  # (B, 1, 1)
        initial = initial.clamp(truth - reach, truth + reach)  # no gradient beyond
        refined = None if refined is None else refined.clamp(truth - reach, truth + reach)
    return mvsnet_loss(initial, refined, truth, sample.depth_interval)


@torch.no_grad()
def _update(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of the weights; faster at first, when there is little to remember."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
        ours.copy_(theirs)


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


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_short(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
