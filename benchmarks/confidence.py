"""Does the probability map know where the depth is wrong?

    python benchmarks/confidence.py [--weights NAME_OR_FILE] [--samples N]

Errors of the refined depth in bins of probability, and what is left when only the most probable pixels are
kept; images are enlarged and sources halved, as `mvsnet-edu depth` does it with small ones.
"""

from __future__ import annotations

import experiment
import torch
from torch import Tensor

from mvsnet_edu import MVSNet
from mvsnet_edu.training import predict

BINS = 10


def main() -> None:
    options = experiment.options(__doc__, weights="mvsnet", samples=60)
    network = MVSNet.from_pretrained(options.weights)
    places = experiment.everywhere(options.samples)
    results = {name: judged(*pixels(network, samples)) for name, samples in places.items()}
    experiment.write(
        "confidence",
        weights=experiment.fingerprint(network),
        settings={"samples": options.samples},
        results=results,
    )


@torch.inference_mode()
def pixels(network: MVSNet, samples) -> tuple[Tensor, Tensor, Tensor]:
    """Of all measured pixels, (P,) each: probability, error in intervals, error as a share of the depth."""
    rows = []
    for sample in samples:
        estimate = predict(network, sample, network.enlarge, "halves")
        probability = estimate.probability_map[sample.ground_truth > 0]
        rows.append(torch.stack([probability, *experiment.errors(estimate.best, sample)]))
    return tuple(torch.cat(rows, dim=1))


def judged(probability: Tensor, intervals: Tensor, relative: Tensor) -> dict:
    index = (probability * BINS).long().clamp(max=BINS - 1)
    bins = [
        {"from": k / BINS, "share": experiment.share(index == k), **summary(intervals, relative, index == k)}
        for k in range(BINS)
    ]
    order = probability.argsort(descending=True)
    ideal = relative.argsort()
    kept = [k / 10 for k in range(1, 11)]
    return {
        "all": experiment.summary(intervals, relative),
        "bins": bins,
        "kept": kept,
        "within_1_percent": [within(relative[order], part) for part in kept],
        "ideal": [within(relative[ideal], part) for part in kept],
    }


def summary(intervals: Tensor, relative: Tensor, mask: Tensor) -> dict[str, float]:
    return experiment.summary(intervals[mask], relative[mask]) if mask.any() else {}


def within(relative: Tensor, part: float) -> float:
    """Share within one percent among the first so many."""
    return experiment.share(relative[: round(part * len(relative))] <= 0.01)


if __name__ == "__main__":
    main()
