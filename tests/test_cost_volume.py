from __future__ import annotations

import pytest
import torch
from cameras import DEVICES, QUARTER_TURN, pose, rig, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvsnet_edu import homography_warp, plane_homographies, variance_cost_volume


def two_passes(features: Tensor, K: Tensor, E: Tensor, depths: Tensor) -> Tensor:
    """The definition: first the mean of all warped views, then the mean squared deviation from it."""
    B, V, C, h, w = features.shape
    D = depths.shape[1]
    warped = [features[:, 0].unsqueeze(2).expand(B, C, D, h, w)]
    for v in range(1, V):
        H = plane_homographies(K[:, 0], E[:, 0], K[:, v], E[:, v], depths)
        warped.append(homography_warp(features[:, v], H))
    mean = sum(warped) / V
    return sum((x - mean) ** 2 for x in warped) / V


def same_camera(B: int, V: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    K, E = rig(B, 2, 9, 13)
    return K[:, :1].expand(B, V, 3, 3).to(dtype), E[:, :1].expand(B, V, 4, 4).to(dtype)


DEPTHS = torch.tensor([[3.0, 4.0, 6.0, 9.0], [2.0, 2.5, 3.0, 3.5]])


@pytest.mark.parametrize("V", [2, 3, 5])
def test_one_pass_equals_two_passes(V):
    """Pitfalls 5 and 16: any number of views, one of them rolled."""
    K, E = rig(2, V, 6, 9, roll=QUARTER_TURN)
    features, depths = torch.randn(2, V, 4, 6, 9, dtype=torch.float64), DEPTHS.double()
    volume = variance_cost_volume(features, K, E, depths)
    assert volume.shape == (2, 4, 4, 6, 9)
    torch.testing.assert_close(volume, two_passes(features, K, E, depths), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("V", [2, 3, 5])
def test_it_is_the_biased_variance_over_the_views(V):
    """With one camera for all views nothing is warped, and torch.var knows the answer."""
    K, E = same_camera(2, V)
    features = torch.randn(2, V, 4, 9, 13)
    volume = variance_cost_volume(features, K, E, DEPTHS)
    expected = features.var(dim=1, correction=0).unsqueeze(2).expand_as(volume)
    torch.testing.assert_close(volume, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("V", [2, 3, 5])
def test_identical_views_give_exactly_zero(V, dtype, device):
    """Pitfalls 5 and 16: a source that is a copy of the reference, in every precision."""
    K, E = (x.to(device) for x in same_camera(2, V))
    features = (100 + torch.randn(2, 1, 4, 9, 13, device=device)).to(dtype).expand(2, V, 4, 9, 13)
    volume = variance_cost_volume(features, K, E, DEPTHS.to(device))
    assert volume.dtype == torch.float32 and torch.equal(volume, torch.zeros_like(volume))


@given(st.integers(2, 6), st.floats(-1e4, 1e4), st.floats(0, 100))
@settings(max_examples=25, deadline=None)
def test_it_is_never_negative(V, mean, spread):
    """Pitfall 5."""
    torch.manual_seed(0)
    K, E = (x.float() for x in rig(2, V, 6, 9))
    features = mean + spread * torch.randn(2, V, 2, 6, 9)
    assert variance_cost_volume(features, K, E, DEPTHS).min() >= 0


@pytest.mark.parametrize("V", [0, 1])
def test_fewer_than_two_views_are_an_error(V):
    """Pitfall 16: one view agrees with itself everywhere."""
    K, E = same_camera(1, V)
    with pytest.raises(ValueError, match=f"at least two views, not {V}"):
        variance_cost_volume(torch.rand(1, V, 4, 9, 13), K, E, DEPTHS[:1])


def test_the_choice_of_the_reference_does_matter():
    K, E = rig(1, 3, 6, 9)
    features, depths = torch.randn(1, 3, 3, 6, 9, dtype=torch.float64), DEPTHS[:1].double()
    order = [1, 0, 2]
    other = variance_cost_volume(features[:, order], K[:, order], E[:, order], depths)
    assert (other - variance_cost_volume(features, K, E, depths)).abs().max() > 0.1


def test_a_view_that_sees_nothing_counts_as_zeros():
    """As in the original: no mask, so that a blind second view gives (f / 2)^2."""
    K, E = rig(2, 2, 6, 9)
    E[:, 1] = pose(rotation(y=3.14159), [0, 0, 0]) @ E[:, 0]
    features = torch.randn(2, 2, 3, 6, 9, dtype=torch.float64)
    volume = variance_cost_volume(features, K, E, DEPTHS.double())
    expected = (features[:, 0] / 2).square().unsqueeze(2).expand_as(volume)
    torch.testing.assert_close(volume, expected, rtol=1e-12, atol=1e-14)


def test_hypotheses_of_each_pixel_equal_shared_ones_where_they_are_the_same():
    K, E = rig(2, 3, 6, 9)
    features, depths = torch.randn(2, 3, 4, 6, 9, dtype=torch.float64), DEPTHS.double()
    per_pixel = depths[:, :, None, None].expand(2, 4, 6, 9)
    shared = variance_cost_volume(features, K, E, depths)
    torch.testing.assert_close(variance_cost_volume(features, K, E, per_pixel), shared, rtol=1e-9, atol=1e-10)


def test_each_pixel_reads_its_own_hypotheses():
    K, E = rig(2, 3, 6, 9)
    features = torch.randn(2, 3, 4, 6, 9, dtype=torch.float64)
    per_pixel = 3 + torch.rand(2, 2, 6, 9, dtype=torch.float64)
    volume = variance_cost_volume(features, K, E, per_pixel)
    for b, i, j in [(0, 0, 0), (0, 3, 7), (1, 5, 8), (1, 2, 4)]:
        own = variance_cost_volume(features, K, E, per_pixel[:, :, i, j])
        torch.testing.assert_close(volume[b, :, :, i, j], own[b, :, :, i, j], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_leaves_it_in_float32(device):
    """Pitfall 5."""
    K, E = (x.float().to(device) for x in rig(2, 3, 6, 9))
    features, depths = torch.randn(2, 3, 4, 6, 9, device=device), DEPTHS.to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        volume = variance_cost_volume(features, K, E, depths)
        from_half = variance_cost_volume(features.bfloat16(), K, E, depths)
    assert volume.dtype == from_half.dtype == torch.float32
    torch.testing.assert_close(volume, variance_cost_volume(features, K, E, depths), rtol=0, atol=0)


def test_gradients_of_the_cost_volume_are_right():
    K, E = rig(2, 3, 3, 4)
    features = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    depths = DEPTHS[:, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f, d: variance_cost_volume(f, K, E, d), (features, depths))
