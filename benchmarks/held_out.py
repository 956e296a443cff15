"""The model card's figures: accuracy on generated scenes that training never draws, at three sizes.

    python benchmarks/held_out.py [WEIGHTS ...] [--samples N]

Several weights are judged on the same scenes, on the images as they are and, if training did so, enlarged, as
`mvsnet-edu depth` shows them to the network. The middle size has four times the pixels of a training sample,
the largest sixteen times; the number of planes grows with the width, as it does when people use a network on
larger images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from mvsnet_edu.data.scene import Sample
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.models import MVSNet, RMVSNet, load_pretrained
from mvsnet_edu.training import evaluate

Setting = tuple[tuple[int, int], int, int, float]

#: Width, height, planes, views, and the share of the samples that such a size gets.
SETTINGS = (((160, 128), 48, 5, 1.0), ((320, 256), 96, 5, 0.5), ((640, 512), 192, 5, 0.1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="*", default=["mvsnet"], help="names, or files (default: mvsnet)")
    parser.add_argument("--samples", type=int, default=200, help="of the smallest size (default: 200)")
    options = parser.parse_args()
    networks = {name: load_pretrained(name) for name in options.weights}
    print("| weights | images | planes | views | samples | enlarged | depth | L1, intervals | < 1 | < 3 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
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
            for times in sorted({1, network.enlarge}):
                yield from ([*row, f"{times} x", *found] for found in _judged(network, samples, times))


def _judged(network: MVSNet | RMVSNet, samples: list[Sample], times: int) -> Iterator[list[str]]:
    with torch.inference_mode():
        found = evaluate(network, samples, times)
    for depth in ("initial", "refined") if isinstance(network, MVSNet) else ("initial",):
        l1, one, three = (found[f"{depth}_{name}"] for name in ("l1", "less_one", "less_three"))
        yield [depth, f"{l1:.3f}", f"{one:.1%}", f"{three:.1%}"]


if __name__ == "__main__":
    main()
