"""Which views are looked at together, and who is believed: by counting, in a loop, and behind an occluder."""

from __future__ import annotations

from math import comb
from typing import get_args

import pytest
import torch
from torch.nn import AvgPool2d

from mvsnet_edu import MVSNet, RMVSNet, cli
from mvsnet_edu.subsets import Subsets, most_trusted, subsets_of_views


@pytest.mark.parametrize("num", range(2, 9))
def test_all_come_first_and_nobody_is_alone_or_left_out(num):
    everybody = list(range(num))
    for kind in get_args(Subsets):
        first, *others = subsets_of_views(num, kind)
        assert first == everybody
        assert all(3 <= len(part) < num and part == sorted(set(part)) and part[0] == 0 for part in others)
        assert not others or {view for part in others for view in part} == set(everybody)
    assert len(subsets_of_views(num, "none")) == 1
    assert len(subsets_of_views(num, "halves")) == (3 if num >= 5 else 1)
    assert len(subsets_of_views(num, "pairs")) == (1 + comb(num - 1, 2) if num >= 4 else 1)


def test_the_halves_are_the_better_and_the_worse_sources():
    assert subsets_of_views(6, "halves")[1:] == [[0, 1, 2], [0, 3, 4, 5]]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match='must be "none", "halves" or "pairs", not .all.'):
        subsets_of_views(5, "all")


def test_the_most_trusted_is_believed_pixel_by_pixel():
    """Against a loop; answers depend on which views are asked, and trust is equal here and there."""
    B, V, h, w = 2, 5, 6, 7
    generator = torch.Generator().manual_seed(0)
    answers = {}

    def estimate(features, intrinsics, extrinsics):
        asked = tuple(features[0, :, 0, 0, 0].int().tolist())
        assert torch.equal(intrinsics, features) and torch.equal(extrinsics, features)
        if asked not in answers:
            depth, trust = torch.rand(2, B, h, w, generator=generator)
            trust[0] = (4 * trust[0, :1, :1]).round() / 4  # everywhere the same: 0, 0.25, ... or 1
            answers[asked] = depth, trust
        return answers[asked]

    views = torch.arange(V).view(1, V, 1, 1, 1).expand(B, V, 1, 1, 1)
    depth, trust = most_trusted(estimate, "pairs", views, views, views)
    assert list(answers) == [tuple(part) for part in subsets_of_views(V, "pairs")]
    for b in range(B):
        for i in range(h):
            for j in range(w):
                around = b, slice(max(i - 2, 0), i + 3), slice(max(j - 2, 0), j + 3)
                best = max(answers.values(), key=lambda answer: answer[1][around].mean())  # the first
                assert depth[b, i, j] == best[0][b, i, j] and trust[b, i, j] == best[1][b, i, j]


def scene(seed: int, V: int):
    generator = torch.Generator().manual_seed(seed)
    B, H, W, D = 2, 48, 64, 8
    K = torch.tensor([[60.0, 0, 31.0], [0, 61.0, 24.5], [0, 0, 1]]).expand(B, V, 3, 3)
    poses = torch.eye(4).repeat(B, V, 1, 1)
    poses[:, :, :2, 3] = 0.2 * torch.rand(B, V, 2, generator=generator)
    depths = torch.linspace(1, 2, D).expand(B, D)
    return torch.rand(B, V, 3, H, W, generator=generator), K, poses, depths


@pytest.mark.parametrize("kind", ["halves", "pairs"])
@pytest.mark.parametrize("network", [MVSNet(), RMVSNet()], ids=["MVSNet", "RMVSNet"])
def test_a_network_answers_as_if_each_subset_were_given_to_it(network, kind):
    images, K, poses, depths = scene(0, V=5)
    with torch.no_grad():
        parts = [
            network(images[:, part], K[:, part], poses[:, part], depths) for part in subsets_of_views(5, kind)
        ]
        found = network(images, K, poses, depths, subsets=kind)
    depths, trusts = (torch.stack([getattr(p, name) for p in parts]) for name in ("depth", "probability_map"))
    around = AvgPool2d(5, 1, 2, count_include_pad=False)(trusts)  # (P, B, h, w)
    clear = around.sort(dim=0).values.diff(dim=0)[-1] > 1e-4  # no tie that rounding decides
    best = around.argmax(dim=0, keepdim=True)
    assert clear.float().mean() > 0.5 and len(best.unique()) > 1
    for values, maps in ((found.depth, depths), (found.probability_map, trusts)):
        assert torch.allclose(values[clear], maps.gather(0, best)[0][clear], atol=1e-4)


def test_with_few_sources_nothing_changes():
    network, (images, K, poses, depths) = MVSNet(), scene(1, V=3)
    with torch.no_grad():
        together, pairs = (network(images, K, poses, depths, subsets=kind) for kind in ("none", "pairs"))
    assert torch.equal(together.depth, pairs.depth)


def test_an_occluded_source_no_longer_counts():
    """Of four sources two look at something else: the two others agree on the depth, all four do not."""
    D, right = 6, 2

    def estimate(features, *_):  # (B, V, D, 1, 1), made up: one value a plane
        variance = features.var(dim=1, unbiased=False)  # (B, D, 1, 1)
        probability = torch.softmax(-variance, dim=1)
        trust, plane = probability.max(dim=1)
        return plane.float(), trust

    features = torch.tensor([1.0, 5, 5, 2.5, 2.5]).view(1, 5, 1, 1, 1).repeat(1, 1, D, 1, 1)
    features[:, 1:, right] = torch.tensor([1.0, 1, 10, 10]).view(4, 1, 1)
    alone, trust = most_trusted(estimate, "none", features, features, features)
    together, more = most_trusted(estimate, "halves", features, features, features)
    assert alone.item() != right and together.item() == right and more > trust


def test_the_depth_learns_from_whoever_is_believed():
    network, (images, K, poses, depths) = MVSNet(), scene(2, V=5)
    network(images, K, poses, depths, subsets="halves").best.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_command_line_knows_all_kinds():
    parser = cli._parser()
    for kind in get_args(Subsets):
        for command in (["depth", "scene", "out"], ["reconstruct", "photos", "out"]):
            assert parser.parse_args([*command, "--subsets", kind]).subsets == kind
