"""How much float32, half precision, a GPU and the compiler may change: stated bounds, stage by stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from operator import methodcaller
from typing import TypeVar

import pytest
import torch
from cameras import DEVICES, QUARTER_TURN, rig
from test_models import inputs, trained
from torch import Tensor, nn

from mvsnet_edu import (
    CostRegNet,
    DepthEstimate,
    FeatureNet,
    RMVSNet,
    backproject,
    depth_refine,
    homography_warp,
    mvsnet_classification_loss,
    mvsnet_loss,
    plane_homographies,
    probability_map,
    project,
    soft_argmin,
    standardize,
    uniform_depths,
    variance_cost_volume,
)
from mvsnet_edu.depth import winner_of_sweep
from mvsnet_edu.enlargement import enlarge_images, pool_estimate
from mvsnet_edu.recurrence import ConvGRUCell, RecurrentRegNet

T = TypeVar("T", Tensor, nn.Module)
To = Callable[[T], T]  # to a precision, or to a device
double, single = methodcaller("double"), methodcaller("float")

CASES = []


def within(bound: float) -> Callable[[Callable[[To], Tensor]], Callable[[To], Tensor]]:
    """The largest error of a case is to be below such a share of its largest value."""

    def add(case: Callable[[To], Tensor]) -> Callable[[To], Tensor]:
        CASES.append(pytest.param(case, bound, id=case.__name__))
        return case

    return add


def random(*size: int) -> Tensor:
    return torch.rand(size, dtype=torch.float64)


def views(to: To) -> tuple[Tensor, Tensor, Tensor]:
    K, E = rig(2, 3, 12, 17, QUARTER_TURN)
    return to(K), to(E), to(torch.tensor([[3.0, 4, 6, 9], [2, 2.5, 3, 3.5]]))


@within(1e-5)
def pixels(to: To) -> Tensor:
    K, E, _ = views(to)
    return project(backproject(to(2 + random(2, 12, 17)), K[:, 0], E[:, 0]), K[:, 2], E[:, 2])[0]


@within(1e-6)
def homographies(to: To) -> Tensor:
    K, E, depths = views(to)
    return plane_homographies(K[:, 0], E[:, 0], K[:, 2], E[:, 2], depths)


@within(1e-4)
def warped_features(to: To) -> Tensor:
    return homography_warp(to(random(2, 4, 12, 17)), homographies(to))


@within(1e-4)
def cost_volume(to: To) -> Tensor:
    K, E, depths = views(to)
    return variance_cost_volume(to(random(2, 3, 4, 12, 17)), K, E, depths)


@within(1e-5)
def standardised_images(to: To) -> Tensor:
    return standardize(to(random(2, 3, 30, 40)))


@within(1e-6)
def depth_of_soft_argmin(to: To) -> Tensor:
    return soft_argmin(to(10 * random(2, 192, 5, 6)), uniform_depths(to(425 + random(2)), 2.65, 192))[0]


@within(1e-6)
def probability(to: To) -> Tensor:
    depth, depths = to(3 + random(2, 5, 6)), to(torch.arange(64.0) / 7)
    return probability_map(to(10 * random(2, 64, 5, 6)).softmax(dim=1), depth, depths)


@within(1e-5)
def regression_loss(to: To) -> Tensor:
    return mvsnet_loss(*(to(400 + random(2, 50, 60)) for _ in range(3)), 0.01)


@within(1e-5)
def classification_loss(to: To) -> Tensor:
    logits, truth = to(9 * random(2, 8, 50, 60)), to(7 * random(2, 50, 60))
    return mvsnet_classification_loss(logits, truth, to(torch.arange(8.0)))


@within(1e-4)
def features(to: To) -> Tensor:
    return to(FeatureNet().double())(to(random(2, 3, 35, 42)))


@within(1e-4)
def regularised_cost(to: To) -> Tensor:
    return to(CostRegNet().double())(to(random(2, 32, 9, 10, 12)))


@within(1e-4)
def recurrent_scores(to: To) -> Tensor:
    scores, _ = to(RecurrentRegNet().double())(to(random(2, 32, 9, 10, 12)))
    return scores


@within(1e-4)
def refined_depth(to: To) -> Tensor:
    net = to(trained().refine_net.double())
    start, interval = to(2 + random(2)), to(0.1 + random(2))
    return depth_refine(to(3 + random(2, 1, 9, 11)), to(random(2, 3, 36, 44)), 16, start, interval, net)


@within(1e-3)
def whole_network(to: To) -> Tensor:
    """A warp that differs by a thousandth of a pixel changes features a little, and the depth less."""
    return to(trained().double())(*(to(x) for x in inputs(H=64, W=72, D=16, double=True))).best


def seeded(case: Callable[[To], Tensor], to: To) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return case(to)


@pytest.mark.parametrize("case, bound", CASES)
def test_float32_is_near_float64(case, bound):
    exact, rounded = seeded(case, double), seeded(case, single)
    assert exact.dtype == torch.float64 and rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < bound * exact.abs().max()


def pooled(depth: Tensor) -> Tensor:
    trust = torch.linspace(0.1, 1, 48, dtype=torch.float64).view(2, 4, 6)
    return pool_estimate(DepthEstimate(depth, trust, depth.square()), 2).refined_depth


def swept(scores: Tensor) -> Tensor:
    return winner_of_sweep([(scores[:, :2], torch.ones(2)), (scores[:, 2:], torch.ones(3))])[1]


@pytest.mark.parametrize(
    "function, sizes",
    [
        (ConvGRUCell(2, 3).double(), [(2, 2, 3, 4), (2, 3, 3, 4)]),
        (pooled, [(2, 4, 6)]),
        (lambda images: enlarge_images(0.3 + images / 10, 2), [(1, 3, 3, 4)]),
        (swept, [(2, 5, 2, 3)]),
    ],
    ids=["recurrent cell", "pooling", "enlarging", "winner of a sweep"],
)
def test_gradients_are_differences(function, sizes):
    """Those of the other stages stand with their tests."""
    assert torch.autograd.gradcheck(function, [random(*size).requires_grad_() for size in sizes])


@pytest.mark.gpu
@pytest.mark.parametrize("case, bound", CASES)
def test_a_gpu_is_near_the_cpu(case, bound):
    """In float64 too, where TF32 has no part in it."""
    for precision, limit in ((double, 1e-9), (single, 10 * bound)):
        here, there = seeded(case, precision), seeded(case, lambda x, to=precision: to(x).cuda()).cpu()
        assert (there - here).abs().max() < limit * here.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 0.02), (torch.float16, 0.005)])
@pytest.mark.parametrize("make", [trained, RMVSNet])
def test_half_precision_under_autocast_is_near_float32(make, dtype, bound, device):
    """In the mean, as a share of the range: of the depth, or (as winners jump) of the scores of R-MVSNet."""
    net, x = make().to(device), [y.to(device) for y in inputs(H=64, W=72, D=16)]
    answer = net.scores if make is RMVSNet else lambda *x: net(*x).best
    with torch.no_grad():
        exact = answer(*x)
        with torch.autocast(device, dtype=dtype):
            rounded = answer(*x)
    extent = exact.max() - exact.min() if make is RMVSNet else x[3][0, -1] - x[3][0, 0]
    assert 0 < (rounded - exact).abs().mean() < bound * extent


def test_captured_by_the_compiler_it_is_the_same_network():
    """The graphs that it makes of the code, run without generating code of its own, which takes minutes."""
    net, x = trained().eval(), inputs(B=1, V=2, H=32, W=40, D=8)
    with torch.no_grad():
        for one, other in zip(torch.compile(net, backend="aot_eager")(*x), net(*x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler")
def test_compiled_the_refinement_is_the_same_function():
    """One stage, generated and compiled in earnest; torch 2.4 does so with -ffast-math, which from then on
    takes small numbers for zero in all that this thread computes."""
    net, depth, image = trained().refine_net, 3 + torch.rand(2, 1, 9, 11), torch.rand(2, 3, 36, 44)
    with torch.no_grad():
        compiled = torch.compile(depth_refine)(depth, image, 16, 2.0, 0.2, net)
        torch.testing.assert_close(
            compiled, depth_refine(depth, image, 16, 2.0, 0.2, net), rtol=1e-4, atol=1e-4
        )
    torch.set_flush_denormal(False)
