"""The C code against PyTorch's formulation in float64."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from cameras import QUARTER_TURN, pose, rig, rotation
from torch import Tensor

from mvsnet_edu import native, streaming
from mvsnet_edu.native import NativeSlab
from mvsnet_edu.streaming import PlaneSweep, Slab, sweep_convolutions

SHAPE = 9, 75  # wider than what is projected at once
DEPTHS = torch.tensor([3.0, 4.0, 6.0, 9.0, 11.0])

compiled = pytest.mark.skipif(native._library() is None, reason="no C compiler")


@pytest.fixture(params=[1, 2], autouse=True, ids=["1 thread", "2 threads"])
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def cameras(V: int) -> tuple[Tensor, Tensor]:
    K, E = rig(1, V, *SHAPE, roll=QUARTER_TURN)
    return K[0], E[0]


def both(sweep_of, features: Tensor, planes: slice = slice(None)) -> tuple[NativeSlab, Slab, Tensor, Tensor]:
    """The slab in C, in float32, and PyTorch's in float64; and the tables that they read."""
    single, double = sweep_of(torch.float32), sweep_of(torch.float64)
    one, other = single.table(features.float()), double.table(features.double())
    slab = NativeSlab(one, single.reference, single.rays, single.nearness[planes], SHAPE)
    return slab, Slab(double, other, planes), one, other


def sweeps(V: int, depths: Tensor = DEPTHS, **options):
    K, E = cameras(V)
    return lambda dtype: PlaneSweep(K, E, depths.to(dtype), SHAPE, **options)


def close(one: Tensor, other: Tensor, tolerance: float = 2e-4) -> None:
    torch.testing.assert_close(one.double(), other.double(), rtol=tolerance, atol=tolerance)


@compiled
@pytest.mark.parametrize("V, C", [(2, 32), (3, 8), (5, 16), (4, 40)])
def test_spread_and_gradient_are_pytorch_s(V, C):
    """The last camera is rolled."""
    slab, truth, one, other = both(sweeps(V), torch.randn(V, C, *SHAPE))
    spread = slab.spread()
    assert (truth.spread() > 0.01).double().mean() > 0.5
    close(spread, truth.spread())
    gradient = torch.randn_like(spread)
    into, right = torch.ones_like(one), torch.ones_like(other)
    slab.add_gradient(gradient, into)
    truth.add_gradient(gradient.double(), right)
    close(into, right, 2e-3)  # sums over hundreds of voxels


@compiled
def test_each_pixel_may_have_its_own_depths_and_a_slab_some_of_the_planes():
    depths = 2 + 3 * torch.rand(7, *SHAPE)
    for planes in (slice(0, 2), slice(3, 7)):
        slab, truth, *_ = both(sweeps(3, depths, multiple=4), torch.randn(3, 8, *SHAPE), planes)
        close(slab.spread(), truth.spread())


@compiled
def test_a_window_has_its_own_lines():
    slab, truth, *_ = both(sweeps(3, window=(2, 3, 5, 66)), torch.randn(3, 8, *SHAPE))
    close(slab.spread(), truth.spread())


@compiled
def test_what_lies_behind_a_source_reads_zero():
    K, E = cameras(2)
    E[1] = pose(rotation(0.0, torch.pi, 0.0), torch.zeros(3))  # looks the other way
    features = torch.randn(2, 8, *SHAPE)
    sweep = PlaneSweep(K.float(), E.float(), DEPTHS, SHAPE)
    table = sweep.table(features)
    found = NativeSlab(table, sweep.reference, sweep.rays, sweep.nearness, SHAPE).spread()
    right = features[0].square().flatten(1).t() / 2  # the other view is zero
    close(found, right.repeat(len(DEPTHS), 1))


@compiled
def test_hopeless_rays_read_zero():
    """Not a number and infinity must not become an index."""
    K, E = cameras(3)
    sweep = PlaneSweep(K.float(), E.float(), DEPTHS, SHAPE)
    table = sweep.table(torch.ones(3, 8, *SHAPE))
    for far, _ in sweep.rays:
        far[0, 0], far[1, 1], far[2, 2] = torch.nan, torch.inf, -torch.inf
    assert NativeSlab(table, sweep.reference, sweep.rays, sweep.nearness, SHAPE).spread().isfinite().all()


@compiled
def test_the_sweep_takes_it_and_does_the_same_without(monkeypatch):
    features = torch.randn(2, 3, 32, *SHAPE)
    K, E = (x.expand(2, *x.shape) for x in cameras(3))
    kernels = torch.randn(8, 32, 3, 3, 3), torch.randn(16, 32, 3, 3, 3)

    def run() -> list[Tensor]:
        x = features.clone().requires_grad_()
        outs = sweep_convolutions(x, K, E, DEPTHS.expand(2, 5), kernels, (1, 2))
        sum(out.square().mean() for out in outs).backward()
        return [*outs, x.grad]

    with_it = run()
    monkeypatch.setattr(streaming, "available", lambda table: False)
    for one, other in zip(with_it, run(), strict=True):
        close(one, other, 1e-3)


@compiled
def test_channels_come_by_eights():
    assert [C for C in range(1, 40) if native.available(torch.zeros(3, C))] == [8, 16, 24, 32]


@pytest.mark.parametrize("broken", ["none", "fails"])
def test_without_a_compiler_pytorch_does_it(broken, monkeypatch, tmp_path):
    compiler = shutil.which("false") if broken == "fails" else None
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    native._library.cache_clear()
    try:
        assert not native.available(torch.zeros(3, 32))
    finally:
        native._library.cache_clear()


@compiled
@pytest.mark.parametrize("C, C1, size", [(5, 8, (3, 5, 20)), (3, 16, (2, 1, 6)), (16, 8, (1, 4, 1))])
@pytest.mark.parametrize("last", [torch.contiguous_format, torch.channels_last_3d])
def test_upsampling_is_pytorch_s(C, C1, size, last):
    """Lines of several blocks and a rest, exactly one block, one voxel; planes in pairs, and single ones."""
    x, kernel = torch.randn(2, C, *size).to(memory_format=last), torch.randn(C, C1, 3, 3, 3)
    right = F.conv_transpose3d(x.double(), kernel.double(), stride=2, padding=1, output_padding=1)
    taps = kernel.permute(2, 3, 4, 0, 1).contiguous()
    for planes in (slice(0, 2), slice(1, 2 * size[0])):
        close(native.upsampled(x[1], taps, planes), right[1, :, planes].movedim(0, -1), 1e-5)


@compiled
@pytest.mark.parametrize("N, C", [(1, 8), (1300, 24), (5000, 8)])
def test_moments_are_mean_and_variance(N, C):
    """Of numbers that are far from zero, in whole runs and a rest."""
    x = 1000 + torch.randn(N, C)
    mean, variance = native.moments(x)
    close(mean, x.double().mean(0), 1e-6)
    close(variance, x.double().var(0, correction=0), 1e-5)
