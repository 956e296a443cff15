"""The Triton kernel against the eager formulation: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from cameras import QUARTER_TURN, pose, rig, rotation
from torch import Tensor

from mvsnet_edu import kernels, variance_cost_volume

pytest.importorskip("triton", reason="Triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DEPTHS = torch.tensor([[3.0, 4.0, 6.0, 9.0, 11.0], [2.0, 2.5, 3.0, 3.5, 3.7]])


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    kernels._kernel.cache_clear()


def cameras(V: int, roll: float = 0.0) -> tuple[Tensor, Tensor]:
    K, E = rig(2, V, 7, 11, roll)
    return K.float().to(DEVICE), E.float().to(DEVICE)


def maps(V: int, C: int = 8) -> Tensor:
    return torch.randn(2, V, C, 7, 11, device=DEVICE)


def both(*arguments: Tensor, **options) -> tuple[Tensor, Tensor]:
    return kernels.fused_variance(*arguments, **options), variance_cost_volume(*arguments, **options)


def close(pair: tuple[Tensor, Tensor], tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("V", [2, 3, 5])
def test_it_equals_the_eager_volume(V):
    """One source is rolled, so rows and columns cannot be mistaken; 77 pixels are no multiple of a block."""
    K, E = cameras(V, QUARTER_TURN)
    fused, eager = both(maps(V), K, E, DEPTHS.to(DEVICE))
    assert fused.shape == (2, 8, 5, 7, 11) and (eager > 0.01).float().mean() > 0.5
    close((fused, eager))


def test_each_pixel_reads_its_own_hypotheses():
    K, E = cameras(3)
    close(both(maps(3), K, E, 2 + 3 * torch.rand(2, 4, 7, 11, device=DEVICE)))


def test_a_window_is_a_part_of_the_whole():
    K, E = cameras(3)
    features, window = maps(3), (2, 3, 4, 7)
    part = kernels.fused_variance(features, K, E, DEPTHS.to(DEVICE), window)
    whole = kernels.fused_variance(features, K, E, DEPTHS.to(DEVICE))
    close((part, whole[..., 2:6, 3:10]))
    close(both(features, K, E, DEPTHS.to(DEVICE), window=window))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_in_but_is_not_computed_with(dtype):
    K, E = cameras(3)
    features = (10 + maps(3)).to(dtype)
    fused, eager = both(features, K, E, DEPTHS.to(DEVICE))
    assert fused.dtype == torch.float32
    close((fused, eager), 1e-4)


def test_the_result_may_be_rounded_last():
    K, E = cameras(3)
    arguments = maps(3), K, E, DEPTHS.to(DEVICE)
    rounded = kernels.fused_variance(*arguments, dtype=torch.bfloat16)
    torch.testing.assert_close(rounded, kernels.fused_variance(*arguments).bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("V", [2, 3, 5])
def test_identical_views_give_exactly_zero(V):
    K, E = cameras(2)
    K, E = K[:, :1].expand(2, V, 3, 3), E[:, :1].expand(2, V, 4, 4)
    features = 100 + torch.randn(2, 1, 8, 7, 11, device=DEVICE)
    volume = kernels.fused_variance(features.expand(2, V, 8, 7, 11), K, E, DEPTHS.to(DEVICE))
    assert torch.equal(volume, torch.zeros_like(volume))


def test_points_behind_a_source_read_zeros():
    K, E = cameras(2)
    K[:, 1, :2, 2] = -5  # a camera to whose formula, without the mask, they would seem to be in the picture
    E[:, 1] = pose(rotation(y=3.14159), [0, 0, 0]).float().to(DEVICE) @ E[:, 0]
    features = maps(2)
    volume = kernels.fused_variance(features, K, E, DEPTHS.to(DEVICE))
    close((volume, (features[:, 0] / 2).square().unsqueeze(2).expand_as(volume)), 1e-6)


def test_points_far_outside_overflow_nothing():
    K, E = cameras(2)
    E[:, 1, 0, 3] += 1e12
    close(both(maps(2), K, E, DEPTHS.to(DEVICE)))


def test_it_reads_and_writes_channels_last():
    K, E = cameras(3)
    features = maps(3)
    last = features.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    volume = kernels.fused_variance(last, K, E, DEPTHS.to(DEVICE))
    assert volume.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(volume, kernels.fused_variance(features, K, E, DEPTHS.to(DEVICE)))


def test_fewer_than_two_views_are_an_error():
    K, E = cameras(2)
    with pytest.raises(ValueError, match="at least two views, not 1"):
        kernels.fused_variance(maps(1), K[:, :1], E[:, :1], DEPTHS.to(DEVICE))


def test_it_is_used_only_where_it_can_be(monkeypatch: pytest.MonkeyPatch):
    on_gpu = property(lambda features: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", on_gpu)
    features = torch.zeros(1, 2, 32, 4, 5)
    assert kernels.usable(features) and kernels.usable(features.bfloat16())
    assert not kernels.usable(features.double())
    assert not kernels.usable(features[:, :, :24])
    assert not kernels.usable(features.requires_grad_())
    with torch.no_grad():
        assert kernels.usable(features)
    monkeypatch.setattr(kernels, "triton", None)
    assert not kernels.usable(features.detach())


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_a_volume_of_more_than_2_gib_is_written_to_its_end():
    K, E = cameras(2)
    K = K[:1] * torch.tensor([[40.0], [40], [1]], device=DEVICE)
    features = torch.randn(1, 2, 32, 280, 440, device=DEVICE)
    depths = torch.linspace(3, 9, 160, device=DEVICE)[None]
    last = kernels.fused_variance(features, K, E[:1], depths)[:, :, -1:]
    close((last, variance_cost_volume(features, K, E[:1], depths[:, -1:])), 1e-3)
