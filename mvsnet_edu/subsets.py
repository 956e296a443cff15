"""Depth beside depth edges: sources take turns, and at each pixel those that agree best are believed.

The variance asks all sources alike. Beside a depth edge some of them look at something else, behind it or in
front of it, and spoil what the others say. A few sources that all see the same spot are surer than many of
which some do not, and the probability map tells which is which.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Subsets", "most_trusted", "subsets_of_views"]

#: Width of the window in which probabilities are averaged for the choice, in pixels of the depth map.
AROUND = 5
#: Which sources are looked at by themselves, beside all of them: none, each half, or every two.
Subsets = Literal["none", "halves", "pairs"]


def subsets_of_views(num: int, kind: Subsets) -> list[list[int]]:
    """Views that are looked at together: all of them, then the reference with some of its sources.

    A single source is never alone: two views agree on some wrong depth too easily.

    Args:
        num: how many views there are, V; view 0 is the reference, the best sources come first.
        kind: "none" for all views only; "halves" for the better and the worse half of the sources beside
            them, if there are at least four; "pairs" for every two sources, if there are at least three.

    Returns:
        numbers of views; the first list holds all.

    Raises:
        ValueError: if ``kind`` is none of the three.

    Source: ours; after Kang, Szeliski and Chai (CVPR 2001), who take the better half of the views.

    >>> subsets_of_views(5, "halves")
    [[0, 1, 2, 3, 4], [0, 1, 2], [0, 3, 4]]
    >>> subsets_of_views(4, "pairs")
    [[0, 1, 2, 3], [0, 1, 2], [0, 1, 3], [0, 2, 3]]
    """
    sources = list(range(1, num))
    middle = len(sources) // 2
    some: dict[str, list] = {
        "none": [],
        "halves": [sources[:middle], sources[middle:]] if middle >= 2 else [],
        "pairs": list(combinations(sources, 2)) if len(sources) >= 3 else [],
    }
    if kind not in some:
        raise ValueError(f'subsets must be "none", "halves" or "pairs", not {kind!r}')
    return [[0, *part] for part in (sources, *some[kind])]


def most_trusted(
    estimate: Callable[..., tuple[Tensor, Tensor]],
    kind: Subsets,
    features: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """At each pixel, the estimate of the subset that is surest around it; of equal ones, the first.

    What hides a spot from a source hides its neighbours, too. So the probabilities of a few pixels around are
    averaged for the choice, which then has less noise in it.

    Args:
        estimate: features, intrinsics and extrinsics of some views, and the rest -> depth and probability
            map, (B, h, w) each.
        kind: see :func:`subsets_of_views`.
        features: (B, V, 32, h, w); view 0 is the reference.
        intrinsics: (B, V, 3, 3).
        extrinsics: (B, V, 4, 4).
        rest: what ``estimate`` takes besides, the same for all subsets.

    Returns:
        the depth and the probability map, (B, h, w) each.

    Raises:
        ValueError: as :func:`subsets_of_views`.

    Source: ours.

    >>> def estimate(features, intrinsics, extrinsics):  # trusts those views most that are fewest
    ...     few = features.new_full((1, 1, 1), 1.0 / features.shape[1])
    ...     return features.sum().expand(1, 1, 1), few
    >>> features = torch.tensor([1.0, 10.0, 20.0, 30.0, 40.0]).view(1, 5, 1, 1, 1)
    >>> most_trusted(estimate, "halves", features, features, features)
    (tensor([[[31.]]]), tensor([[[0.3333]]]))
    """
    views = features, intrinsics, extrinsics
    _, *others = subsets_of_views(features.shape[1], kind)
    best = estimate(*views, *rest)  # depth and trust, (B, h, w) each
    surest = _around(best[1])
    for subset in others:
        here = estimate(*(x[:, subset] for x in views), *rest)
        sure = _around(here[1])
        better = sure > surest
        best = tuple(torch.where(better, new, old) for new, old in zip(here, best, strict=True))
        surest = torch.where(better, sure, surest)
    return best


def _around(trust: Tensor) -> Tensor:
    """The mean around each pixel of (B, h, w). Beyond the border are zeros, for all subsets alike."""
    return F.avg_pool2d(trust[:, None], AROUND, 1, AROUND // 2).squeeze(1)
