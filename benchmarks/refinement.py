"""Does refinement help? The initial and the refined depth, everywhere, near depth edges and away from them.

    python benchmarks/refinement.py [--weights NAME_OR_FILE] [--samples N]

Near an edge: within two pixels of a jump of the true depth. On any plane 1 / z is linear in the pixel, so a
jump is where its second difference, relative to 1 / z, is large.
"""

from __future__ import annotations

import experiment
import torch
import torch.nn.functional as F
from torch import Tensor

from mvsnet_edu import MVSNet
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.training import predict

JUMP, REACH = 0.05, 2


def main() -> None:
    options = experiment.options(__doc__, weights="mvsnet", samples=60)
    network = MVSNet.from_pretrained(options.weights)
    results = {
        name: compared(network, samples) for name, samples in experiment.everywhere(options.samples).items()
    }
    experiment.write(
        "refinement",
        weights=experiment.fingerprint(network),
        settings={"samples": options.samples, "jump": JUMP, "reach": REACH},
        results=results,
    )


@torch.inference_mode()
def compared(network: MVSNet, samples) -> dict[str, dict]:
    """Region -> figures of both depth maps, and in what share of the samples refinement lowers L1."""
    rows = [row for sample in samples for row in regions(network, sample)]
    return {
        region: {
            "initial": pooled([initial for name, initial, _ in rows if name == region]),
            "refined": pooled([refined for name, _, refined in rows if name == region]),
            "improved": improved([(a, b) for name, a, b in rows if name == region]),
        }
        for region in ("everywhere", "near edges", "elsewhere")
    }


def regions(network: MVSNet, sample: Sample) -> list[tuple[str, Tensor, Tensor]]:
    """Region, errors (2, P) of the initial depth in intervals and shares, those of the refined."""
    estimate = predict(network, sample, network.enlarge)
    initial, refined = (
        torch.stack(experiment.errors(depth, sample)) for depth in (estimate.depth, estimate.refined_depth)
    )
    edge = near_edges(sample.ground_truth)[sample.ground_truth > 0]
    masks = {"everywhere": torch.ones_like(edge), "near edges": edge, "elsewhere": ~edge}
    return [(name, initial[:, mask], refined[:, mask]) for name, mask in masks.items() if mask.any()]


def near_edges(truth: Tensor) -> Tensor:
    """(B, h, w): within REACH pixels of a jump of the true depth (B, h, w)."""
    inverse = torch.where(truth > 0, 1 / truth, 0)[:, None]  # (B, 1, h, w); the sky is infinitely far
    bend = inverse.new_tensor([1.0, -2, 1])
    kernels = F.pad(bend.view(1, 1, 1, 3), (0, 0, 1, 1)), F.pad(bend.view(1, 1, 3, 1), (1, 1))
    second = (
        F.conv2d(F.pad(inverse, (1, 1, 1, 1), "replicate"), torch.cat(kernels)).abs().amax(1, keepdim=True)
    )
    jump = (second > JUMP * inverse).float()
    return F.max_pool2d(jump, 2 * REACH + 1, 1, REACH)[:, 0] > 0


def pooled(errors: list[Tensor]) -> dict[str, float]:
    return experiment.summary(*torch.cat(errors, dim=1))


def improved(pairs: list[tuple[Tensor, Tensor]]) -> float:
    return sum((refined[0].mean() < initial[0].mean()).item() for initial, refined in pairs) / len(pairs)


if __name__ == "__main__":
    main()
