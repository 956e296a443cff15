"""Peak memory against the number of planes: R-MVSNet's is level, MVSNet's is not.

    python benchmarks/recurrent_memory.py

PyTorch's profiler notes every piece of memory that is taken and given back, inputs and weights excepted; the
largest running sum is the peak.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import experiment
import torch

from mvsnet_edu import MVSNet, RMVSNet, uniform_depths
from mvsnet_edu.data import Scene

PLANES = {"RMVSNet": (64, 256, 1024), "MVSNet": (64, 256)}
SIZE = (160, 128)


def main() -> None:
    experiment.options(__doc__)
    peaks = {kind.__name__: measured(kind.from_pretrained()) for kind in (RMVSNet, MVSNet)}
    experiment.write("recurrent_memory", settings={"size": SIZE, "views": 3}, megabytes=peaks)


def measured(network: MVSNet | RMVSNet) -> dict[int, float]:
    """Number of planes -> peak in MB."""
    scene = Scene.open(experiment.ROOT / "data" / "still_life")
    sample = scene.sample(scene.references[0], 2, 48, SIZE)
    inputs = sample.images, sample.intrinsics, sample.extrinsics
    first, step = sample.depth_values[:, 0], sample.depth_interval / 8
    swept = {D: uniform_depths(first, step, D) for D in PLANES[type(network).__name__]}
    return {D: peak_megabytes(partial(network, *inputs, depths)) for D, depths in swept.items()}


def peak_megabytes(call: Callable[[], object]) -> float:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.inference_mode(), torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 1e6


if __name__ == "__main__":
    main()
