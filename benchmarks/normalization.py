"""Which normalisation? One short training run each with batch, instance and group norm, on the same scenes.

    python benchmarks/normalization.py [--steps N] [--samples N]

Judged on held-out scenes in evaluation mode, at the size of training and at twice the size. Batch norm is
judged a second time with the statistics of the current sample, as the original always used it.
"""

from __future__ import annotations

import time

import experiment

from mvsnet_edu import MVSNet
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.training import evaluate

SEEDS = (0, 1)
LARGE = {"size": (192, 160), "depth_num": 48, "views": 3}


def main() -> None:
    options = experiment.options(__doc__, steps=200, samples=16)
    samples = experiment.training_samples(options.steps)
    sizes = {"small": experiment.SMALL, "large": LARGE}
    held_out = {name: list(experiment.held_out(options.samples, **size)) for name, size in sizes.items()}
    results, seconds = {}, {}
    for norm in ("batch", "instance", "group"):
        start = time.process_time()
        networks = [experiment.trained(samples, seed, norm=norm) for seed in SEEDS]
        seconds[norm] = (time.process_time() - start) / len(SEEDS) / options.steps
        if norm == "batch":
            results["batch, current sample"] = judged(networks, held_out)
        results[norm] = judged([network.eval() for network in networks], held_out)
    experiment.write(
        "normalization",
        settings={"steps": options.steps, "samples": options.samples, "seeds": SEEDS, **sizes},
        time={norm: value / seconds["batch"] for norm, value in seconds.items()},
        results=results,
    )


def judged(networks: list[MVSNet], held_out: dict[str, list[Sample]]) -> dict[str, list[dict]]:
    """Size -> the figures of each seed's network."""
    return {name: [evaluate(network, samples) for network in networks] for name, samples in held_out.items()}


if __name__ == "__main__":
    main()
