"""The model card's figures: accuracy on generated scenes that training never draws, at three sizes.

    python benchmarks/held_out.py [WEIGHTS ...] [--samples N]

Several weights are judged on the same scenes: on the images as they are and, if training did so, enlarged;
then with subsets of the sources beside all of them (see mvsnet_edu/subsets.py), as `mvsnet-edu depth` does
it. The middle size has four times the pixels of a training sample, the largest sixteen times; planes grow
with the width, as they do when people use a network on larger images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from mvsnet_edu.data.scene import Sample
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.models import MVSNet, RMVSNet, load_pretrained
from mvsnet_edu.subsets import Subsets
from mvsnet_edu.training import evaluate

Setting = tuple[tuple[int, int], int, int, float]

#: Width, height, planes, views, and the share of the samples that such a size gets.
SETTINGS = (((160, 128), 48, 5, 1.0), ((320, 256), 96, 5, 0.5), ((640, 512), 192, 5, 0.1))

COLUMNS = ["weights", "images", "planes", "views", "samples", "enlarged", "subsets", "depth", "L1, intervals"]
COLUMNS += ["< 1", "< 3"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="*", default=["mvsnet"], help="names, or files (default: mvsnet)")
    parser.add_argument("--samples", type=int, default=200, help="of the smallest size (default: 200)")
    options = parser.parse_args()
    networks = {name: load_pretrained(name) for name in options.weights}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows(networks, options.samples):
        print(f"| {' | '.join(row)} |", flush=True)


def rows(
    networks: dict[str, MVSNet | RMVSNet], total: int, settings: Sequence[Setting] = SETTINGS
) -> Iterator[list[str]]:
    """The cells of the table, line by line; ``total`` samples of the smallest size."""
    for size, planes, views, share in settings:
        count = max(1, round(share * total))
        scenes = SyntheticScenes(SyntheticScenes.HELD_OUT, size, planes, views, uses=1, slots=1)
        samples = [scenes[n] for n in tqdm(range(count), leave=False)]
        for name, network in networks.items():
            row = [name, f"{size[0]} x {size[1]}", str(planes), str(views), str(count)]
            for times, kind in ways(network):
                for found in _judged(network, samples, times, kind):
                    yield [*row, f"{times} x", kind, *found]


def ways(network: MVSNet | RMVSNet) -> list[tuple[int, Subsets]]:
    """How many times to enlarge, and which sources to hear by themselves: one after the other is added."""
    plain = [(times, "none") for times in sorted({1, network.enlarge})]
    return plain + [(network.enlarge, kind) for kind in ("halves", "pairs")]


def _judged(
    network: MVSNet | RMVSNet, samples: list[Sample], times: int, kind: Subsets
) -> Iterator[list[str]]:
    with torch.inference_mode():
        found = evaluate(network, samples, times, kind)
    for depth in ("initial", "refined") if isinstance(network, MVSNet) else ("initial",):
        l1, one, three = (found[f"{depth}_{name}"] for name in ("l1", "less_one", "less_three"))
        yield [depth, f"{l1:.3f}", f"{one:.1%}", f"{three:.1%}"]


if __name__ == "__main__":
    main()
