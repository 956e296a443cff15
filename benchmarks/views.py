"""How many views, and how many planes? The same held-out scenes with 2 to 5 views, and with more planes.

    python benchmarks/views.py [--weights NAME_OR_FILE] [--samples N]

Time is the processor's, of the network alone, relative to the first row.
"""

from __future__ import annotations

import time
from dataclasses import replace

import experiment
import torch

from mvsnet_edu import MVSNet
from mvsnet_edu.batches import collate
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.training import predict

SIZE, PLANES, MOST = (160, 128), 48, 5
VIEWS, DEPTH_NUMS = (2, 3, 4, 5), (24, 48, 96)


def main() -> None:
    options = experiment.options(__doc__, weights="mvsnet", samples=40)
    network = MVSNet.from_pretrained(options.weights)
    samples = list(experiment.held_out(options.samples, size=SIZE, depth_num=PLANES, views=MOST))
    experiment.write(
        "views",
        weights=experiment.fingerprint(network),
        settings={"samples": options.samples, "size": SIZE, "planes": PLANES, "views": VIEWS[1]},
        views=table(network, {n: [collate([s], n) for s in samples] for n in VIEWS}),
        planes=table(network, {D: [resampled(s, D) for s in samples] for D in DEPTH_NUMS}),
    )


def resampled(sample: Sample, depth_num: int) -> Sample:
    """The same range of depths, with another number of planes; three views."""
    first, last = sample.depth_values[0, 0].item(), sample.depth_values[0, -1].item()
    planes = torch.linspace(first, last, depth_num)[None]
    return collate(
        [replace(sample, depth_values=planes, depth_interval=planes[:, 1] - planes[:, 0])], VIEWS[1]
    )


def table(network: MVSNet, settings: dict[int, list[Sample]]) -> dict[str, dict]:
    rows = {str(count): judged(network, samples) for count, samples in settings.items()}
    base = next(iter(rows.values()))["time"]
    return {count: {**row, "time": row["time"] / base} for count, row in rows.items()}


@torch.inference_mode()
def judged(network: MVSNet, samples: list[Sample]) -> dict[str, float]:
    start = time.process_time()
    estimates = [predict(network, sample) for sample in samples]
    seconds = time.process_time() - start
    found = [experiment.errors(e.best, s) for e, s in zip(estimates, samples, strict=True)]
    intervals, relative = (torch.cat(part) for part in zip(*found, strict=True))
    return {**experiment.summary(intervals, relative), "time": seconds}


if __name__ == "__main__":
    main()
