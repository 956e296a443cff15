"""Does variational refinement help? Depth maps before and after it, on the scenes in data/.

    python benchmarks/variational.py [--views N]

Three depth maps are refined: the truth rounded to the nearest plane (so nothing is wrong but the steps), the
winners of R-MVSNet's sweep, and the mean depth of MVSNet, which has no steps.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import experiment
import torch
import torch.nn.functional as F
from torch import Tensor

from mvsnet_edu import MVSNet, RMVSNet, scale_intrinsics
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.training import predict
from mvsnet_edu.variational import variational_refinement

SCENES = ("still_life", "courtyard")
WEIGHTS = (0.0, 0.02, 0.1)


def main() -> None:
    options = experiment.options(__doc__, views=3)
    networks = {"MVSNet": MVSNet.from_pretrained(), "R-MVSNet": RMVSNet.from_pretrained()}
    starts: dict[str, Callable[[Sample], Tensor]] = {"rounded truth": rounded}
    starts |= {name: lambda s, net=net: predict(net, s).depth for name, net in networks.items()}
    experiment.write(
        "variational",
        weights={name: experiment.fingerprint(network) for name, network in networks.items()},
        settings={"views": options.views, "size": [320, 256], "planes": 48},
        results={scene: compared(scene, options.views, starts) for scene in SCENES},
    )


@torch.inference_mode()
def compared(scene: str, views: int, starts: dict[str, Callable[[Sample], Tensor]]) -> dict[str, dict]:
    """Start -> figures before, and after with each weight of the neighbours."""
    samples = list(islice(experiment.shipped(scene), views))
    return {name: figures(start, samples) for name, start in starts.items()}


def figures(start: Callable[[Sample], Tensor], samples: list[Sample]) -> dict[str, dict]:
    before = [start(sample) for sample in samples]
    found = {"before": pooled(before, samples)}
    for weight in WEIGHTS:
        after = [refined(depth, sample, weight) for depth, sample in zip(before, samples, strict=True)]
        found[f"smoothness {weight:g}"] = pooled(after, samples)
    return found


def rounded(sample: Sample) -> Tensor:
    """The truth (1, h, w) at the nearest plane."""
    step, first = sample.depth_interval.view(-1, 1, 1), sample.depth_values[:, :1, None]
    return first + step * ((sample.ground_truth - first) / step).round()


def refined(depth: Tensor, sample: Sample, smoothness: float) -> Tensor:
    h, w = depth.shape[-2:]
    photos = F.interpolate(sample.images[0], size=(h, w), mode="area")[None]
    cameras = scale_intrinsics(sample.intrinsics, 1 / 4), sample.extrinsics
    return variational_refinement(depth, photos, *cameras, sample.depth_interval, smoothness=smoothness)


def pooled(depths: list[Tensor], samples: list[Sample]) -> dict[str, float]:
    errors = [experiment.errors(depth, sample)[0] for depth, sample in zip(depths, samples, strict=True)]
    error = torch.cat(errors)
    within = {f"within_{limit:g}": experiment.share(error <= limit) for limit in (0.1, 0.25, 0.5, 1)}
    return {"l1": error.mean().item(), "median": error.median().item(), **within}


if __name__ == "__main__":
    main()
