"""The view score against a loop of plain arithmetic, and the choice of sources."""

from __future__ import annotations

import math

import pytest
import torch

from mvsnet_edu.data.views import angle_weight, baseline_angles, pair_score, select_sources, view_scores


def loop_score(points, visible_a, visible_b, a, b) -> float:
    score = 0.0
    for point, seen_a, seen_b in zip(points.tolist(), visible_a.tolist(), visible_b.tolist(), strict=True):
        if seen_a and seen_b:
            u, v = ([c - p for c, p in zip(center.tolist(), point, strict=True)] for center in (a, b))
            cosine = sum(x * y for x, y in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v)
            theta = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
            score += math.exp(-((theta - 5) ** 2) / (2 * (1 if theta <= 5 else 10) ** 2))
    return score


def rig(views: int, points: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    cloud = torch.randn(points, 3, generator=generator) + torch.tensor([0.0, 0.0, 10.0])
    visibility = torch.rand(views, points, generator=generator) < 0.6
    return cloud, visibility, 2 * torch.randn(views, 3, generator=generator)


def two_rays(theta: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A point, and two camera centres at different distances that see it under this angle."""
    point, angle = torch.tensor([[0.3, -0.7, 2.0]], dtype=torch.float64), math.radians(theta)
    direction = torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
    return point, point[0] + 3 * torch.tensor([1.0, 0, 0]), point[0] + 7 * direction


@pytest.mark.parametrize("theta", [0.0, 1.0, 5.0, 30.0, 90.0, 180.0])
def test_angle_of_two_rays(theta):
    point, a, b = two_rays(theta)
    assert baseline_angles(point, a, b[None]).item() == pytest.approx(theta, abs=2e-6)


def test_weights_by_hand():
    angles = torch.tensor([0.0, 4.0, 5.0, 15.0, 25.0, 180.0], dtype=torch.float64)
    expected = [math.exp(-12.5), math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-2.0), math.exp(-153.125)]
    torch.testing.assert_close(angle_weight(angles), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("theta", [0.0, 5.0, 180.0])
def test_score_at_the_ends_and_at_the_best_angle(theta):
    point, a, b = two_rays(theta)
    everyone = torch.ones(1, dtype=torch.bool)
    score = pair_score(point, a, b)
    assert torch.isfinite(score)
    assert score.item() == pytest.approx(loop_score(point, everyone, everyone, a, b), rel=1e-5)


def test_rounding_beyond_minus_one_and_one_gives_no_nan():
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    center = torch.randn(3, generator=generator, dtype=torch.float64)
    angles = baseline_angles(points, center, center[None])
    assert torch.isfinite(angles).all() and angles.max() < 1e-5


def test_scores_equal_the_loop():
    points, visibility, centers = rig(views=5, points=40)
    scores = view_scores(points, visibility, centers)
    assert scores.shape == (5, 5)
    for i in range(5):
        for j in range(5):
            expected = (
                0 if i == j else loop_score(points, visibility[i], visibility[j], centers[i], centers[j])
            )
            assert scores[i, j].item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_view_scores_add_up_pair_scores():
    points, visibility, centers = rig(views=3, points=50)
    shared = visibility[0] & visibility[2]
    expected = pair_score(points[shared], centers[0], centers[2])
    torch.testing.assert_close(view_scores(points, visibility, centers)[0, 2], expected)


def test_a_view_that_sees_nothing_scores_nothing():
    points, visibility, centers = rig(views=4, points=30)
    visibility[2] = False
    scores = view_scores(points, visibility, centers)
    assert (scores[2] == 0).all() and (scores[:, 2] == 0).all() and scores[0, 1] > 0
    assert select_sources(scores)[2] == []


def test_sources_are_the_best_others_in_order():
    scores = torch.tensor([[9.0, 1, 3, 2], [1, 9, 0, 4], [3, 0, 9, 0], [2, 4, 0, 9]])
    assert select_sources(scores, num=2) == {
        0: [(2, 3.0), (3, 2.0)],
        1: [(3, 4.0), (0, 1.0)],
        2: [(0, 3.0)],  # two views share no point with it
        3: [(1, 4.0), (0, 2.0)],
    }
    assert (scores.diagonal() == 9).all()


def test_views_keep_their_own_numbers():
    scores = torch.tensor([[0.0, 1, 2], [1, 0, 3], [2, 3, 0]])
    assert select_sources(scores, num=1, ids=[7, 100, 42]) == {
        7: [(42, 2.0)],
        100: [(42, 3.0)],
        42: [(100, 3.0)],
    }


def test_ten_sources_by_default_and_ties_go_to_the_lower_number():
    sources = select_sources(torch.ones(15, 15))
    assert [view for view, _ in sources[3]] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
