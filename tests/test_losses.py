from __future__ import annotations

import math

import pytest
import torch
from cameras import DEVICES
from hypothesis import given, settings
from hypothesis import strategies as st

from mvsnet_edu import (
    inverse_depths,
    less_one_percentage,
    less_three_percentage,
    mvsnet_classification_loss,
    mvsnet_loss,
    mvsnet_regression_loss,
    non_zero_mean_absolute_diff,
    uniform_depths,
)

NAN, INF = math.nan, math.inf

# Two images of 2 x 3 pixels; the first has four measured pixels, the second one. Intervals: 0.5 and 2.
#   errors / interval, first image:   1, 3, 4, 0  -> mean 2; second image: 5 -> mean 5
TRUTH = torch.tensor([[[2.0, 2.0, 0.0], [4.0, 5.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 10.0, 0.0]]])
ESTIMATE = torch.tensor([[[2.5, 0.5, 7.0], [6.0, 5.0, 9.0]], [[1.0, 2.0, 3.0], [4.0, 20.0, 6.0]]])
INTERVAL = torch.tensor([0.5, 2.0])


# The masked L1


@pytest.mark.parametrize("device", DEVICES)
def test_the_loss_equals_the_table(device):
    arguments = (x.to(device) for x in (ESTIMATE, TRUTH, INTERVAL))
    assert non_zero_mean_absolute_diff(*arguments).item() == pytest.approx((2 + 5) / 2)


def test_the_loss_equals_a_loop():
    estimate, truth = 5 + torch.randn(3, 4, 7), 5 + torch.randn(3, 4, 7)
    truth[torch.rand(3, 4, 7) < 0.4] = 0
    interval = torch.tensor([0.1, 0.5, 2.0])
    total = 0.0
    for b in range(3):
        pairs = zip(estimate[b].flatten().tolist(), truth[b].flatten().tolist(), strict=True)
        errors = [abs(e - t) for e, t in pairs if t != 0]
        total += sum(errors) / len(errors) / interval[b].item()
    loss = non_zero_mean_absolute_diff(estimate, truth, interval)
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)


def test_the_original_sums_over_the_batch():
    """Pitfall 10: a batch of two equal samples doubles the sum and leaves the mean."""
    one = non_zero_mean_absolute_diff(ESTIMATE[:1], TRUTH[:1], 0.5)
    twice = (ESTIMATE[[0, 0]], TRUTH[[0, 0]], 0.5)
    assert non_zero_mean_absolute_diff(*twice, reduction="sum").item() == pytest.approx(2 * one.item())
    assert non_zero_mean_absolute_diff(*twice).item() == pytest.approx(one.item())
    with pytest.raises(ValueError, match="'mean' or 'sum', not 'none'"):
        non_zero_mean_absolute_diff(*twice, reduction="none")


@pytest.mark.parametrize("invalid", [0.0, NAN, INF, -INF])
def test_images_without_any_truth_give_zero_and_no_gradient(invalid):
    """Pitfall 10."""
    estimate = torch.rand(2, 3, 4, requires_grad=True)
    truth = torch.full((2, 3, 4), invalid)
    loss, one, three = mvsnet_regression_loss(estimate, truth, 0.5)
    loss.backward()
    assert loss == one == three == 0
    assert torch.equal(estimate.grad, torch.zeros(2, 3, 4))


@pytest.mark.parametrize("poison", [NAN, INF])
def test_bad_numbers_where_nothing_was_measured_do_not_leak(poison):
    """Pitfall 10: mask * NaN is NaN, also in the gradient."""
    truth, estimate = TRUTH.clone(), ESTIMATE.clone()
    truth[1, 0, 0] = poison
    estimate[TRUTH == 0] = poison
    estimate.requires_grad_()
    loss, one, three = mvsnet_regression_loss(estimate, truth, INTERVAL)
    loss.backward()
    assert loss.item() == pytest.approx(3.5) and one.item() == pytest.approx(2 / 5)
    assert estimate.grad.isfinite().all() and (estimate.grad[TRUTH == 0] == 0).all()


def test_the_gradient_is_the_sign_of_the_error_over_interval_pixels_and_images():
    estimate = ESTIMATE.clone().requires_grad_()
    non_zero_mean_absolute_diff(estimate, TRUTH, INTERVAL).backward()
    sign = torch.sign(ESTIMATE - TRUTH) * (TRUTH != 0)
    expected = sign / INTERVAL.view(2, 1, 1) / torch.tensor([4.0, 1.0]).view(2, 1, 1) / 2
    torch.testing.assert_close(estimate.grad, expected)


@given(st.floats(1e-3, 1e3))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_the_scene_does_not_matter(scale):
    """Pitfall 10: everything is counted in intervals."""
    values = mvsnet_regression_loss(ESTIMATE.double(), TRUTH.double(), INTERVAL.double())
    rescaled = (scale * ESTIMATE.double(), scale * TRUTH.double(), scale * INTERVAL.double() * (1 + 1e-12))
    torch.testing.assert_close(mvsnet_regression_loss(*rescaled), values)


def test_the_sign_of_the_interval_does_not_matter():
    """Facts 1.13: R-MVSNet's backward pass runs with a negative interval."""
    torch.testing.assert_close(
        mvsnet_regression_loss(ESTIMATE, TRUTH, -INTERVAL), mvsnet_regression_loss(ESTIMATE, TRUTH, INTERVAL)
    )


def test_shapes_that_differ_are_an_error_and_a_channel_dimension_is_none():
    with pytest.raises(ValueError, match=r"\(2, 2, 3\) and ground truth \(2, 1, 2, 3\)"):
        non_zero_mean_absolute_diff(ESTIMATE, TRUTH.unsqueeze(1), INTERVAL)
    with_channel = non_zero_mean_absolute_diff(ESTIMATE.unsqueeze(1), TRUTH.unsqueeze(1), INTERVAL)
    assert with_channel.item() == pytest.approx(3.5)


def test_the_gradient_is_right():
    estimate = ESTIMATE.double() + 0.01  # away from the kink at error 0
    estimate.requires_grad_()
    interval = INTERVAL.double().requires_grad_()
    arguments = (estimate, TRUTH.double(), interval)
    assert torch.autograd.gradcheck(non_zero_mean_absolute_diff, arguments)


def test_the_interval_takes_the_precision_and_the_device_of_the_depths():
    assert non_zero_mean_absolute_diff(ESTIMATE, TRUTH, INTERVAL.double()).dtype == torch.float32
    there = non_zero_mean_absolute_diff(ESTIMATE.to("meta"), TRUTH.to("meta"), INTERVAL)
    assert there.device.type == "meta"


# The accuracy measures


def test_the_shares_equal_the_table_and_equality_counts():
    """Pitfall 10: errors of exactly 1 and 3 intervals are within; 2, 3 of the 5 measured pixels are."""
    assert less_one_percentage(ESTIMATE, TRUTH, INTERVAL).item() == pytest.approx(2 / 5)
    assert less_three_percentage(ESTIMATE, TRUTH, INTERVAL).item() == pytest.approx(3 / 5)
    just_beyond = ESTIMATE.clone()
    just_beyond[0, 0, 0] += 1e-3
    assert less_one_percentage(just_beyond, TRUTH, INTERVAL).item() == pytest.approx(1 / 5)


def test_the_shares_pool_the_pixels_of_the_batch():
    """Unlike the loss: 2 of 4 and 0 of 1 pixels make 2 / 5, not the mean of 1 / 2 and 0."""
    shares = [less_one_percentage(ESTIMATE[b, None], TRUTH[b, None], INTERVAL[b]).item() for b in range(2)]
    assert shares == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize("share", [less_one_percentage, less_three_percentage])
def test_the_shares_carry_no_gradient(share):
    """Facts 1.13: they cannot take part in training."""
    estimate = ESTIMATE.clone().requires_grad_()
    assert not share(estimate, TRUTH, INTERVAL).requires_grad
    loss, one, three = mvsnet_regression_loss(estimate, TRUTH, INTERVAL)
    assert loss.requires_grad and not one.requires_grad and not three.requires_grad


def test_the_regression_loss_is_the_three_together():
    expected = [
        f(ESTIMATE, TRUTH, INTERVAL)
        for f in (non_zero_mean_absolute_diff, less_one_percentage, less_three_percentage)
    ]
    assert list(mvsnet_regression_loss(ESTIMATE, TRUTH, INTERVAL)) == expected


# Initial and refined


def test_the_training_loss_is_the_average_of_both_losses():
    refined = TRUTH + 1.0
    loss0 = non_zero_mean_absolute_diff(ESTIMATE, TRUTH, INTERVAL)
    loss1 = non_zero_mean_absolute_diff(refined, TRUTH, INTERVAL)
    assert loss1.item() == pytest.approx((1 / 0.5 + 1 / 2) / 2)
    total = mvsnet_loss(ESTIMATE, refined, TRUTH, INTERVAL)
    assert total.item() == pytest.approx((loss0.item() + loss1.item()) / 2)


def test_without_refinement_it_is_the_initial_loss():
    """Pitfall 10: as in the original, where the refined map then is the initial one."""
    alone = mvsnet_loss(ESTIMATE, None, TRUTH, INTERVAL)
    assert alone == non_zero_mean_absolute_diff(ESTIMATE, TRUTH, INTERVAL)
    assert alone == mvsnet_loss(ESTIMATE, ESTIMATE, TRUTH, INTERVAL)


# Cross entropy


def cross_entropy_by_loop(logits, truth, depths):
    """Softmax, logarithm and nearest plane in plain Python; (B, D, h, w), (B, h, w), (B, D)."""
    B, D, h, w = logits.shape
    total = 0.0
    for b in range(B):
        planes, nats = depths[b].tolist(), []
        for i in range(h):
            for j in range(w):
                t = truth[b, i, j].item()
                if t == 0:
                    continue
                exps = [math.exp(x) for x in logits[b, :, i, j].tolist()]
                label = min(range(D), key=lambda k: abs(planes[k] - t))  # noqa: B023
                nats.append(-math.log(exps[label] / sum(exps)))
        total += sum(nats) / len(nats)
    return total / B


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("descending", [False, True])
def test_cross_entropy_equals_a_loop(descending, device):
    depths = uniform_depths(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.25]), 6)
    depths = depths.flip(1) if descending else depths
    low, high = depths.amin(1).view(2, 1, 1), depths.amax(1).view(2, 1, 1)
    truth = low + torch.rand(2, 3, 5) * (high - low)
    truth[torch.rand(2, 3, 5) < 0.3] = 0
    logits = 2 * torch.randn(2, 6, 3, 5)
    loss = mvsnet_classification_loss(logits.to(device), truth.to(device), depths.to(device))
    assert loss.item() == pytest.approx(cross_entropy_by_loop(logits, truth, depths), rel=1e-5)


def test_the_class_is_the_rounded_index_of_the_original():
    """round((gt - start) / interval), whatever the fraction."""
    truth = torch.tensor([[[2.0, 2.2, 2.3, 3.4]]])
    index = ((truth - 2.0) / 0.5).round().long()  # 0, 0, 1, 3
    logits = torch.full((1, 4, 1, 4), -100.0).scatter(1, index.unsqueeze(1), 0.0)
    assert mvsnet_classification_loss(logits, truth, uniform_depths(2.0, 0.5, 4)).item() < 1e-6


def test_truth_beyond_the_planes_has_no_class():
    """Half a step beyond the end at hand still counts; planes in inverse depth have different ends."""
    depths = inverse_depths(1.0, 4.0, 4)  # 1, 4/3, 2, 4
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 4, 1, 1)

    def loss(truth: float) -> float:
        return mvsnet_classification_loss(logits, torch.tensor([[[truth]]]), depths).item()

    log_sum = math.log(sum(math.exp(k) for k in range(4)))
    assert loss(0.84) == pytest.approx(log_sum) and loss(4.99) == pytest.approx(log_sum - 3)
    assert loss(0.82) == loss(0.3) == loss(5.01) == loss(-1.0) == 0
    assert loss(3.5) == pytest.approx(log_sum - 3)


@pytest.mark.parametrize("truth, counts", [(0.5, True), (0.49, False), (7.0, True), (7.01, False)])
@pytest.mark.parametrize("descending", [False, True])
def test_exactly_half_a_step_beyond_the_planes_still_counts(truth, counts, descending):
    """Five planes; the last two are 2 apart, the others 1."""
    depths = torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0])
    depths = depths.flip(0) if descending else depths
    loss = mvsnet_classification_loss(torch.zeros(1, 5, 1, 1), torch.tensor([[[truth]]]), depths)
    assert loss.item() == pytest.approx(math.log(5) if counts else 0)


@pytest.mark.parametrize("invalid", [0.0, NAN, INF])
def test_cross_entropy_without_any_truth_is_zero_without_gradient(invalid):
    """Pitfall 10."""
    logits = torch.randn(2, 4, 3, 5, requires_grad=True)
    loss = mvsnet_classification_loss(logits, torch.full((2, 3, 5), invalid), torch.arange(1.0, 5.0))
    loss.backward()
    assert loss == 0 and torch.equal(logits.grad, torch.zeros(2, 4, 3, 5))


def test_bad_logits_where_nothing_was_measured_do_not_leak():
    """Pitfall 10."""
    logits, truth = torch.randn(1, 4, 1, 2), torch.tensor([[[2.0, 0.0]]])
    clean = mvsnet_classification_loss(logits, truth, torch.arange(1.0, 5.0))
    logits[..., 1] = NAN
    logits.requires_grad_()
    loss = mvsnet_classification_loss(logits, truth, torch.arange(1.0, 5.0))
    loss.backward()
    assert loss == clean and logits.grad.isfinite().all()


def test_cross_entropy_averages_the_images():
    logits = torch.zeros(2, 4, 1, 3)
    logits[1, 0] = 50.0
    truth = torch.tensor([[[1.0, 2.0, 3.0]], [[0.0, 2.0, 0.0]]])
    loss = mvsnet_classification_loss(logits, truth, torch.arange(1.0, 5.0))
    assert loss.item() == pytest.approx((math.log(4) + 50) / 2)


def test_the_gradient_of_cross_entropy_is_right():
    logits = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    truth = 1 + 3 * torch.rand(2, 2, 3, dtype=torch.float64)
    truth[0, 0, 0] = 0
    depths = torch.arange(1.0, 5.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: mvsnet_classification_loss(x, truth, depths), (logits,))
