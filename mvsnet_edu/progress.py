"""What one sees of a training run: a bar, a log, and TensorBoard's curves and pictures."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .data.formats import reason
from .data.scene import Sample
from .errors import InputError
from .models import DepthEstimate
from .run_folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Progress", "panel"]

#: Means over the steps since the last line of the log.
LOGGED = ("loss", "refined", "less_one", "less_three", "norm")

#: Errors of so many intervals or more are white.
WORST = 3.0


class Progress:
    """Counts the steps of a run, and says how it goes.

    Args:
        fabric: the processes; only the first says anything.
        folder: for the log and for TensorBoard.
        total: how many steps there are.
        step: how many were done earlier; lines and curves of later ones are dropped.
        seconds: how long these took.
        sums: sums over those that no line of the log has told about yet.

    Raises:
        InputError: if TensorBoard is not installed.

    Source: ours.
    """

    def __init__(
        self,
        fabric: Fabric,
        folder: RunFolder,
        total: int,
        step: int = 0,
        seconds: float = 0.0,
        sums: Tensor | None = None,
    ):
        from tqdm import tqdm

        self.fabric, self.folder, self.first = fabric, folder, fabric.is_global_zero
        self.step, self.seconds, self.waited = step, seconds, 0.0
        empty = torch.zeros(len(LOGGED) + 1, dtype=torch.float64)  # the last counts the steps
        self.sums = empty if sums is None or not self.first else sums
        self.mark, self.events = self._clock(), None
        if self.first:
            folder.rewind(step)
            self.events = Events(folder.path, step)
        hidden = None if self.first else True  # None: without a terminal
        self.bar = tqdm(total=total, initial=step, unit="step", disable=hidden)

    def add(self, row: Tensor | None, seconds: float, waited: float) -> None:
        """Count a step.

        Args:
            row: one number for each of ``LOGGED``; None if the step was skipped.
            seconds: how long it took.
            waited: how much of that for data.
        """
        self.step, self.seconds, self.waited = self.step + 1, self.seconds + seconds, self.waited + waited
        if row is not None:
            self.sums += torch.cat([row, torch.ones(1)])
        loss, _, less_one, *_ = self._means().tolist()
        said = {"loss": f"{loss:.3f}", "less_one": f"{less_one:.1%}", "waiting": f"{self._speed()[1]:.0%}"}
        self.bar.set_postfix(said, refresh=False)
        self.bar.update()

    def report(self, rate: float) -> None:
        """A line about the steps since the last one."""
        self.gather()
        steps_per_s, waiting = self._speed()
        means = dict(zip(LOGGED, self._means().tolist(), strict=True))
        self.say(means | {"rate": rate, "steps_per_s": steps_per_s, "waiting": waiting})
        self.sums.zero_()
        self.mark = self._clock()

    def say(self, values: dict[str, Any], table: str | None = None) -> None:
        """Into the log (there in a table of its own, if named), to TensorBoard and onto the screen."""
        if not self.first:
            return
        self.folder.log({"step": self.step, "seconds": self.seconds} | ({table: values} if table else values))
        for key, value in values.items():
            if isinstance(value, float):
                self.events.scalar(f"{table or 'training'}/{key}", value, self.step)
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        self.bar.write(f"{self.step:6d} {self.seconds:6.0f} s  {table or 'training'}: {', '.join(shown)}")

    def picture(self, name: str, image: Tensor) -> None:
        """Show a picture, (3, H, W) in [0, 1], in TensorBoard."""
        if self.first:
            self.events.image(name, image, self.step)

    def gather(self) -> None:
        """Move the sums of all processes into the first."""
        if self.fabric.world_size == 1:
            return
        sums = self.fabric.all_reduce(self.sums.to(self.fabric.device), reduce_op="sum").cpu()
        self.sums = sums if self.first else torch.zeros_like(sums)

    def close(self) -> None:
        self.bar.close()
        if self.events:
            self.events.close()

    def _means(self) -> Tensor:
        return self.sums[:-1] / self.sums[-1].clamp(min=1)

    def _speed(self) -> tuple[float, float]:
        """Since the last report: steps in a second, and the share of the time spent waiting for data."""
        steps, seconds, waited = (now - then for now, then in zip(self._clock(), self.mark, strict=True))
        return steps / max(seconds, 1e-9), waited / max(seconds, 1e-9)

    def _clock(self) -> tuple[int, float, float]:
        return self.step, self.seconds, self.waited


class Events:
    """A file for TensorBoard. PyTorch's SummaryWriter writes in a thread of its own, whose errors come late.

    Args:
        folder: where; gets a new file, which continues those that are there.
        step: what these say of later steps is dropped.

    Raises:
        InputError: if TensorBoard is not installed, or the disk is full.
    """

    def __init__(self, folder: Path, step: int):
        try:
            from tensorboard.compat.proto import event_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
            from torch.utils.tensorboard import summary
        except ImportError:
            raise InputError('Training needs TensorBoard: pip install "mvsnet_edu[train]".') from None
        self.event, self.summary = event_pb2.Event, summary
        self.path = folder / f"events.out.tfevents.{time.time():017.6f}"
        self.file = open(self.path, "xb")
        self.records = RecordWriter(self.file)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(0, file_version="brain.Event:2")
        self._write(step + 1, session_log=start)

    def scalar(self, name: str, value: float, step: int) -> None:
        self._write(step, summary=self.summary.scalar(name, value))

    def image(self, name: str, image: Tensor, step: int) -> None:
        self._write(step, summary=self.summary.image(name, image, dataformats="CHW"))

    def close(self) -> None:
        with suppress(OSError):  # what could not be written was complained about
            self.file.close()

    def _write(self, step: int, **what: Any) -> None:
        try:
            self.records.write(self.event(wall_time=time.time(), step=step, **what).SerializeToString())
            self.file.flush()
        except OSError as error:
            self.close()  # now: whoever forgets an open file hears of it once more from Python 3.13
            raise InputError(f"{self.path} cannot be written: {reason(error)}.") from error


def panel(estimate: DepthEstimate, sample: Sample) -> Tensor:
    """A sample and what a network makes of it, side by side.

    Args:
        estimate: of a batch of one.
        sample: what the network saw.

    Returns:
        (3, h, 6 w) in [0, 1]: reference image; true, initial and best depth (from the first plane, black, to
        the last one, white); error of the best (from 0, black, to 3 intervals, white); probability. The true
        depth and the error are black where nothing was measured.

    Source: ours.
    """
    h, w = estimate.depth.shape[-2:]
    first, last = sample.depth_values.amin(), sample.depth_values.amax()
    truth = sample.ground_truth.nan_to_num(0, 0, 0)  # (1, h, w)
    depths = (torch.cat([truth, estimate.depth, estimate.best]) - first) / (last - first)  # (3, h, w)
    error = (estimate.best - truth).abs() / sample.depth_interval.abs() / WORST
    error = torch.where(truth != 0, error, 0)
    grey = torch.cat([depths, error, estimate.probability_map]).clamp(0, 1)  # (5, h, w)
    photo = F.interpolate(sample.images[:, 0], (h, w), mode="area")[0]  # (3, h, w)
    return torch.cat([photo, *(each.expand(3, h, w) for each in grey)], dim=2).float()
