"""The Triton kernel against the eager formulation: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from cameras import QUARTER_TURN, pose, rig, rotation
from torch import Tensor

from mvsnet_edu import CostRegNet, kernels, streaming, variance_cost_volume
from mvsnet_edu.layers import pad_to_multiple
from mvsnet_edu.streaming import PlaneSweep, streamed_cost

pytest.importorskip("triton", "3.2", reason="no Triton, or one whose interpreter lacks what the kernel needs")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DEPTHS = torch.tensor([3.0, 4.0, 6.0, 9.0, 11.0], device=DEVICE)
SHAPE = 7, 11


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    kernels._kernel.cache_clear()


def cameras(V: int, roll: float = 0.0) -> tuple[Tensor, Tensor]:
    K, E = rig(1, V, *SHAPE, roll)
    return K[0].float().to(DEVICE), E[0].float().to(DEVICE)


def maps(V: int, C: int = 8) -> Tensor:
    return torch.randn(V, C, *SHAPE, device=DEVICE)


def fused(features, K, E, depths, window=None, multiple=1, planes=slice(None), dtype=torch.float32):
    """V times the variance by the kernel, (C, n, h, w)."""
    sweep = PlaneSweep(K, E, depths, SHAPE, window, multiple)
    geometry = sweep.reference, sweep.rays, sweep.nearness[planes], sweep.shape
    spread = kernels.fused_spread(sweep.table(features), *geometry, dtype)
    return spread.view(-1, *sweep.size[1:], spread.shape[1]).movedim(-1, 0)


def eager(features, K, E, depths, window=None):
    """The same by the readable formulation."""
    views = features[None], K[None], E[None], depths[None]
    return len(features) * variance_cost_volume(*views, window)[0]


def close(one: Tensor, other: Tensor, tolerance: float = 5e-5) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("V", [2, 3, 5])
def test_it_equals_the_readable_formulation(V):
    """One source is rolled, so rows and columns cannot be mistaken; 77 pixels are no multiple of a block."""
    views = maps(V), *cameras(V, QUARTER_TURN), DEPTHS
    assert (eager(*views) > 0.01).float().mean() > 0.5
    close(fused(*views), eager(*views))


def test_each_pixel_reads_its_own_hypotheses():
    views = maps(3), *cameras(3), 2 + 3 * torch.rand(4, *SHAPE, device=DEVICE)
    close(fused(*views), eager(*views))


def test_a_window_is_a_part_of_the_whole():
    views, window = (maps(3), *cameras(3), DEPTHS), (2, 3, 4, 7)
    close(fused(*views, window), fused(*views)[..., 2:6, 3:10])
    close(fused(*views, window), eager(*views, window))


def test_a_slab_is_a_part_of_the_whole_and_padding_repeats_the_last():
    views = maps(3), *cameras(3), DEPTHS
    padded = pad_to_multiple(eager(*views)[None], 4, dims=3)[0]
    close(fused(*views, multiple=4), padded)
    close(fused(*views, multiple=4, planes=slice(3, 7)), padded[:, 3:7])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_in_but_is_not_computed_with(dtype):
    views = (10 + maps(3)).to(dtype), *cameras(3), DEPTHS
    assert fused(*views).dtype == torch.float32
    close(fused(*views), eager(*views), 2e-4)


def test_the_result_may_be_rounded_last():
    views = maps(3), *cameras(3), DEPTHS
    rounded = fused(*views, dtype=torch.bfloat16)
    torch.testing.assert_close(rounded, fused(*views).bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("V", [2, 3, 5])
def test_identical_views_give_exactly_zero(V):
    K, E = cameras(2)
    features = 100 + torch.randn(1, 8, *SHAPE, device=DEVICE)
    spread = fused(features.expand(V, 8, *SHAPE), K[:1].expand(V, 3, 3), E[:1].expand(V, 4, 4), DEPTHS)
    inner = spread[..., :-1, :-1]
    assert inner.max() < 1e-6  # the borders hold zeros, which a place half a bit off would mix in
    close(spread, torch.zeros_like(spread), 1e-5)


def test_points_behind_a_source_read_zeros():
    K, E = cameras(2)
    K[1, :2, 2] = -5  # a camera to whose formula, without the mask, they would seem to be in the picture
    E[1] = pose(rotation(y=3.14159), [0, 0, 0]).float().to(DEVICE) @ E[0]
    features = maps(2)
    expected = (features[0].square() / 2).unsqueeze(1).expand(8, len(DEPTHS), *SHAPE)
    close(fused(features, K, E, DEPTHS), expected, 1e-6)


def test_points_far_outside_overflow_nothing():
    K, E = cameras(2)
    E[1, 0, 3] += 1e12
    features = maps(2)
    close(fused(features, K, E, DEPTHS), eager(features, K, E, DEPTHS))


def test_it_is_used_only_where_it_can_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda table: True))
    table = torch.zeros(20, 32)
    assert kernels.usable(table) and kernels.usable(table.bfloat16())
    assert not kernels.usable(table.double()) and not kernels.usable(table[:, :24])
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert not kernels.usable(table)


@pytest.mark.parametrize(
    "version, recent", [("2.9", False), ("3.1.0", False), ("3.2.0", True), ("3.10+git", True)]
)
def test_an_older_triton_is_left_alone(version, recent, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda table: True))
    monkeypatch.setattr("triton.__version__", version)
    assert kernels.usable(torch.zeros(20, 32)) == recent


def test_the_network_gets_the_same_cost_from_it(monkeypatch: pytest.MonkeyPatch):
    """The switch, on the CPU: as if it were usable there."""
    K, E = cameras(3)
    views = maps(3, 32)[None], K[None], E[None], DEPTHS[None]
    network = CostRegNet().to(DEVICE)
    with torch.no_grad():
        monkeypatch.setattr(streaming, "usable", lambda table: False)
        expected = streamed_cost(network, *views)
        calls = []
        monkeypatch.setattr(streaming, "usable", lambda table: calls.append(1) or True)
        close(streamed_cost(network, *views), expected, 1e-4)
    assert calls


@pytest.mark.gpu
def test_a_slab_of_more_than_2_gib_is_written_to_its_end():
    K, E = rig(1, 2, 280, 440)
    sweep = PlaneSweep(K[0].float().cuda(), E[0].float().cuda(), torch.linspace(3, 9, 160).cuda(), (280, 440))
    table = sweep.table(torch.randn(2, 32, 280, 440, device=DEVICE))
    last = sweep.spread(table, slice(None), torch.float32)[-280 * 440 :]
    close(last, sweep.spread(table, slice(159, 160), torch.float32), 1e-4)
