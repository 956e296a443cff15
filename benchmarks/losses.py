"""Two questions about the loss, answered by short training runs from scratch.

    python benchmarks/losses.py [--steps N] [--samples N]

Do less_one and less_three, added to the loss, change a single bit of the weights? Is smooth L1 better than
L1?
"""

from __future__ import annotations

import experiment
import torch
import torch.nn.functional as F
from torch import Tensor

from mvsnet_edu import MVSNet, mvsnet_regression_loss, non_zero_mean_absolute_diff
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.models import DepthEstimate
from mvsnet_edu.training import evaluate

SEEDS = (0, 1)
BITS = 10  # steps of the runs that are compared bit by bit


def with_accuracies(estimate: DepthEstimate, sample: Sample) -> Tensor:
    """The loss, and the two measures as if one could learn from them."""
    _, one, three = mvsnet_regression_loss(estimate.best, sample.ground_truth, sample.depth_interval)
    return experiment.plain_loss(estimate, sample) - one - three


def with_a_little(estimate: DepthEstimate, sample: Sample) -> Tensor:
    """A term that does have a gradient, a small one: the comparison must notice it."""
    initial = non_zero_mean_absolute_diff(estimate.depth, sample.ground_truth, sample.depth_interval)
    return experiment.plain_loss(estimate, sample) + 1e-4 * initial


def smooth_loss(estimate: DepthEstimate, sample: Sample) -> Tensor:
    """mvsnet_loss with smooth L1: quadratic below one interval."""
    step, truth = sample.depth_interval.view(-1, 1, 1), sample.ground_truth
    measured = truth > 0
    terms = [
        F.smooth_l1_loss((depth / step)[measured], (truth / step)[measured])
        for depth in (estimate.depth, estimate.refined_depth)
    ]
    return (terms[0] + terms[1]) / 2


def different(one: MVSNet, other: MVSNet) -> int:
    """Of how many tensors any bit differs."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return sum(not torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in pairs)


def main() -> None:
    options = experiment.options(__doc__, steps=200, samples=24)
    samples = experiment.training_samples(options.steps)
    few = samples[:BITS]
    plain = experiment.trained(few, seed=0)
    losses = {"accuracies": with_accuracies, "control": with_a_little}
    changed = {name: different(plain, experiment.trained(few, 0, loss)) for name, loss in losses.items()}
    held_out = list(experiment.held_out(options.samples, **experiment.SMALL))
    kinds = {"L1": experiment.plain_loss, "smooth L1": smooth_loss}
    experiment.write(
        "losses",
        settings={"steps": options.steps, "samples": options.samples, "seeds": SEEDS, **experiment.SMALL},
        bits={"steps": BITS, "tensors": len(plain.state_dict()), "changed": changed},
        results={
            name: [evaluate(experiment.trained(samples, seed, loss).eval(), held_out) for seed in SEEDS]
            for name, loss in kinds.items()
        },
    )


if __name__ == "__main__":
    main()
