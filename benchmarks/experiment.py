"""What the experiments share: held-out scenes, the scenes in data/, short training runs, and results as JSON.

Each script beside this one is one experiment of the book's page and one command; it writes results/NAME.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from mvsnet_edu import MVSNet, mvsnet_loss
from mvsnet_edu.data import Scene
from mvsnet_edu.data.formats import atomic_write
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.models import DepthEstimate
from mvsnet_edu.training import predict

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

#: Scenes of a training run that takes a minute or two.
SMALL = {"size": (96, 80), "depth_num": 24, "views": 3}

Loss = Callable[[DepthEstimate, Sample], Tensor]


def options(doc: str, **defaults: int | str) -> argparse.Namespace:
    """--NAME VALUE for each default; one thread, so that every run gives the same bits."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"(default: {value})")
    return parser.parse_args()


def held_out(count: int, **shape) -> Iterator[Sample]:
    """Generated samples that no training ever sees."""
    scenes = SyntheticScenes(SyntheticScenes.HELD_OUT, **shape, uses=1, slots=1)
    for number in tqdm(range(count), "held out", leave=False):
        yield scenes[number]


def shipped(name: str) -> Iterator[Sample]:
    """Every view of a scene in data/, at half its size, with all the sources there are up to four."""
    scene = Scene.open(ROOT / "data" / name)
    for view in tqdm(scene.references, name, leave=False):
        yield scene.sample(view, num_sources=4, depth_num=48, size=(320, 256))


def everywhere(count: int) -> dict[str, Iterator[Sample]]:
    """What trained weights are judged on."""
    shape = {"size": (160, 128), "depth_num": 48, "views": 3}
    return {
        "held-out": held_out(count, **shape),
        "still_life": shipped("still_life"),
        "courtyard": shipped("courtyard"),
    }


def plain_loss(estimate: DepthEstimate, sample: Sample) -> Tensor:
    return mvsnet_loss(estimate.depth, estimate.refined_depth, sample.ground_truth, sample.depth_interval)


def training_samples(count: int) -> list[Sample]:
    """The same for every network that is to be compared."""
    scenes = SyntheticScenes(seed=0, **SMALL, slots=16)
    return [scenes[n] for n in tqdm(range(count), "drawing", leave=False)]


def trained(samples: list[Sample], seed: int, loss: Loss = plain_loss, norm: str = "group") -> MVSNet:
    """A network after one step for each sample, in training mode."""
    torch.manual_seed(seed)
    network = MVSNet(norm=norm).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=len(samples) + 1)
    for sample in tqdm(samples, f"{norm}, seed {seed}", leave=False):
        optimizer.zero_grad()
        loss(predict(network, sample), sample).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
    return network


def errors(depth: Tensor, sample: Sample) -> tuple[Tensor, Tensor]:
    """Of the measured pixels, (P,) each: error in intervals, and as a share of the true depth."""
    truth = sample.ground_truth
    known = truth > 0
    error = (depth - truth).abs()
    return (error / sample.depth_interval.view(-1, 1, 1))[known], (error / truth)[known]


def summary(intervals: Tensor, relative: Tensor) -> dict[str, float]:
    """The figures that the page shows of errors (P,)."""
    return {
        "pixels": len(intervals),
        "l1": intervals.mean().item(),
        "within_1_interval": share(intervals <= 1),
        "within_3_intervals": share(intervals <= 3),
        "median": relative.median().item(),
        "within_1_percent": share(relative <= 0.01),
    }


def share(which: Tensor) -> float:
    return which.float().mean().item()


def fingerprint(network: torch.nn.Module) -> str:
    """Of all weights, so that the page can tell whose figures it shows."""
    total = hashlib.sha256()
    for value in network.state_dict().values():
        total.update(value.numpy().tobytes())
    return total.hexdigest()[:12]


def write(name: str, **results) -> None:
    """results/NAME.json, with the command and the machine."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    everything = {"command": command, "machine": machine, **results}
    text = json.dumps(_rounded(everything), indent=1)
    RESULTS.mkdir(exist_ok=True)
    with atomic_write(RESULTS / f"{name}.json") as file:
        file.write(f"{text}\n".encode())
    print(text)


def _rounded(tree):
    """The same with five digits of every fraction."""
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_rounded(value) for value in tree]
    return float(f"{tree:.5g}") if isinstance(tree, float) else tree
