"""How the weights that ship were trained: a plain loop over generated scenes.

``python -m mvsnet_edu.training OUT`` repeats it; with ``--evaluate`` it prints the figures of the model card.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .checkpoints import load_network, save_network
from .data.scene import Sample
from .data.synthetic import SyntheticScenes
from .losses import mvsnet_loss, mvsnet_regression_loss
from .models import DepthEstimate, MVSNet

__all__ = ["evaluate", "predict", "train"]


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


def train(
    out: Path, steps: int, *, peak_rate: float = 1e-3, seed: int = 0, norm: str = "group", report: int = 100
) -> MVSNet:
    """Train MVSNet with refinement on generated scenes; goes on where a stopped run left off.

    AdamW, batch 2; the learning rate rises over 200 steps and falls along a cosine to zero. A step takes
    three views, about every seventh takes five.

    Args:
        out: folder for ``mvsnet.safetensors``, ``state.pt`` and ``log.jsonl``.
        steps: how many in all.
        peak_rate: the highest learning rate.
        seed: of the weights and of the scenes.
        norm: normalisation of the network.
        report: steps between two lines of the log, and between two snapshots.

    Returns:
        the network.

    Source: ours; the original uses RMSProp on DTU.
    """
    torch.manual_seed(seed)
    network = MVSNet(norm=norm).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_rate)
    done, seconds = _resume(out, network, optimizer)
    sums, start = torch.zeros(4), time.monotonic() - seconds
    for step, sample in enumerate(islice(_batches(seed + done), steps - done), done + 1):
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * min(step / 200, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        sums += _step(network, optimizer, sample)
        if step % report == 0 or step == steps:
            _snapshot(out, network, optimizer, step, sums / report, time.monotonic() - start)
            sums.zero_()
    return network


def _step(network: MVSNet, optimizer: torch.optim.Optimizer, sample: Sample) -> Tensor:
    estimate = predict(network, sample)
    loss = mvsnet_loss(estimate.depth, estimate.refined_depth, sample.ground_truth, sample.depth_interval)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 2.0)
    optimizer.step()
    measures = mvsnet_regression_loss(estimate.best.detach(), sample.ground_truth, sample.depth_interval)
    return torch.stack([loss.detach(), *measures])


def _batches(seed: int, size: int = 2) -> Iterator[Sample]:
    """Batches with a varying number of views; a second process draws the scenes."""
    loader = DataLoader(SyntheticScenes(seed), batch_size=None, num_workers=1, prefetch_factor=16)
    dice = random.Random(seed)
    samples = _shuffled(loader, dice)
    while True:
        views = 5 if dice.random() < 0.15 else 3
        yield _collate([next(samples) for _ in range(size)], views)


def _shuffled(
    samples: Iterable[Sample], dice: random.Random, size: int = 64, uses: int = 2
) -> Iterator[Sample]:
    """Samples of one scene part company; each is used twice: drawing takes as long as learning."""
    waiting: list[Sample] = []
    for sample in samples:
        waiting += uses * [sample]
        while len(waiting) > size:
            yield waiting.pop(dice.randrange(len(waiting)))


def _collate(samples: list[Sample], views: int) -> Sample:
    """One batch of several, with the first so many views of each."""

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


def _resume(out: Path, network: MVSNet, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Steps and seconds already spent."""
    if not (out / "state.pt").is_file():
        return 0, 0.0
    state = torch.load(out / "state.pt", weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def _snapshot(
    out: Path, network: MVSNet, optimizer: torch.optim.Optimizer, step: int, means: Tensor, seconds: float
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, out / "state.new")
    (out / "state.new").replace(out / "state.pt")
    save_network(network, out / "mvsnet.safetensors", steps=str(step), seconds=f"{seconds:.0f}")
    loss, refined, less_one, less_three = means.tolist()
    line = {"step": step, "seconds": round(seconds), "loss": loss, "refined": refined, "less_one": less_one}
    line["less_three"] = less_three
    with open(out / "log.jsonl", "a") as log:
        log.write(json.dumps({k: round(v, 4) for k, v in line.items()}) + "\n")
    print(
        f"{step:6d} {seconds:6.0f} s  loss {loss:.3f}  < 1: {less_one:.1%}  < 3: {less_three:.1%}", flush=True
    )


@torch.inference_mode()
def evaluate(network: nn.Module, count: int = 100) -> dict[str, float]:
    """Losses and accuracies on scenes that training never draws.

    Args:
        network: an MVSNet.
        count: how many held-out samples.

    Returns:
        of the initial and the refined depth: L1 in intervals, less_one, less_three; means over the samples.

    Source: ours.
    """
    rows = []
    for sample in islice(SyntheticScenes(SyntheticScenes.HELD_OUT), count):
        estimate, truth, interval = predict(network, sample), sample.ground_truth, sample.depth_interval
        initial = mvsnet_regression_loss(estimate.depth, truth, interval)
        rows.append([*initial, *mvsnet_regression_loss(estimate.best, truth, interval)])
    names = [
        f"{depth}_{measure}"
        for depth in ("initial", "refined")
        for measure in ("l1", "less_one", "less_three")
    ]
    return dict(zip(names, torch.tensor(rows).mean(dim=0).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train MVSNet on generated scenes.")
    parser.add_argument(
        "out", type=Path, help="folder for weights, state and log; an existing one is continued"
    )
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--evaluate", action="store_true", help="only print the figures on held-out scenes")
    arguments = parser.parse_args()
    if arguments.evaluate:
        print(json.dumps(evaluate(load_network(MVSNet, arguments.out / "mvsnet.safetensors")), indent=1))
    else:
        train(arguments.out, arguments.steps)


if __name__ == "__main__":
    main()
