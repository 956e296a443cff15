"""Which normalisation? One small training run each with batch, instance and group norm, on the same scenes.

    python benchmarks/normalization.py [STEPS]

Prints a Markdown table for held-out scenes: the share of pixels within one and three depth intervals, in
evaluation mode, at the size of training and at twice the size. Batch norm is judged a second time with the
statistics of the current sample, as the original always used it.
"""

from __future__ import annotations

import sys
import time
from itertools import islice

import torch

from mvsnet_edu import MVSNet, mvsnet_loss, mvsnet_regression_loss
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.training import predict

SMALL, LARGE = {"size": (96, 80), "depth_num": 32}, {"size": (192, 160), "depth_num": 64}
SEEDS = (0, 1)


def main(steps: int) -> None:
    training = list(islice(SyntheticScenes(seed=0, **SMALL), steps))
    held_out = [
        list(islice(SyntheticScenes(SyntheticScenes.HELD_OUT, **size), 40)) for size in (SMALL, LARGE)
    ]
    print(
        f"| normalisation, {steps} steps | < 1 | < 3 | < 1, twice the size | < 3, twice the size | s / step |"
    )
    print("|---|---|---|---|---|---|")
    for norm in ("batch", "instance", "group"):
        networks, seconds = zip(*(trained(norm, training, seed) for seed in SEEDS), strict=True)
        row(norm, [network.eval() for network in networks], held_out, sum(seconds) / len(SEEDS) / steps)
        if norm == "batch":
            row("batch, current sample", [network.train() for network in networks], held_out, None)


def trained(norm: str, samples: list[Sample], seed: int) -> tuple[MVSNet, float]:
    torch.manual_seed(seed)
    network = MVSNet(norm=norm).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=len(samples))
    start = time.perf_counter()
    for sample in samples:
        estimate = predict(network, sample)
        optimizer.zero_grad()
        mvsnet_loss(
            estimate.depth, estimate.refined_depth, sample.ground_truth, sample.depth_interval
        ).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
    return network, time.perf_counter() - start


@torch.no_grad()
def row(name: str, networks: list[MVSNet], held_out: list[list[Sample]], seconds: float | None) -> None:
    """Means over the samples, and the range over the seeds."""
    cells = []
    for samples in held_out:
        measures = torch.tensor(
            [[within(network, sample) for sample in samples] for network in networks]
        ).mean(dim=1)
        cells += [
            f"{100 * mean:.1f} ± {50 * spread:.1f} %"
            for mean, spread in zip(measures.mean(0), measures.max(0)[0] - measures.min(0)[0], strict=True)
        ]
    print(f"| {name} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.2f}'} |", flush=True)


def within(network: MVSNet, sample: Sample) -> tuple[float, float]:
    estimate = predict(network, sample)
    _, one, three = mvsnet_regression_loss(estimate.best, sample.ground_truth, sample.depth_interval)
    return one.item(), three.item()


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
