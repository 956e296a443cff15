import math

import torch

from mvsnet_edu.data import views

from .trials import both_kinds


def weight(angle, peak=5.0, below=1.0, above=10.0, half=2.0):
    sigma = torch.where(angle <= 5, below, above)
    return torch.exp(-((angle - peak) ** 2) / (half * sigma**2))


def angles(points, a, b, clip=True, degrees=True, normalised=True):
    results = []
    for p in points:
        u, v = a - p, b - p
        cosine = u.dot(v) / (u.norm() * v.norm() if normalised else 1)
        angle = torch.arccos(cosine.clamp(-1, 1) if clip else cosine)
        results.append(angle.rad2deg() if degrees else angle)
    return torch.stack(results)


def score(points, a, b, **how):
    return weight(angles(points, a, b, **how)).sum()


def at_the_camera(points, a, b):
    return weight(torch.cat([angles(a[None], p, b) for p in points])).sum()


def by_sorting(scores, num, itself=False, worthless=False, reverse=True):
    rows = []
    for view, row in enumerate(scores.tolist()):
        others = [j for j in range(len(row)) if (itself or j != view) and (worthless or row[j] > 0)]
        rows.append(sorted(others, key=lambda j, row=row: row[j], reverse=reverse)[:num])
    return rows


def cut_first(scores, num):
    order = scores.argsort(dim=-1, descending=True)[:, :num].tolist()
    return [[j for j in best if j != i and scores[i, j] > 0] for i, best in enumerate(order)]


def percentiles(depths, low=0.01, high=0.99, keep=lambda z: z > 0):
    z = sorted(depths[keep(depths)].tolist())
    return torch.tensor([z[int(low * len(z))], z[min(int(high * len(z)), len(z) - 1)]])


def everything(z):
    return torch.ones_like(z, dtype=torch.bool)


def planes(focal, baseline, near, far, step=0.5, posts=1, rounded=math.ceil):
    return posts + rounded(focal * baseline * (1 / near - 1 / far) / step)


RIGHT = {
    "angle-weight": [views.angle_weight, weight],
    "pair-score": [views.pair_score, score],
    "choose-sources": [by_sorting],
    "robust-range": [percentiles],
    "half-pixel-planes": [planes],
}
WRONG = {
    "angle-weight": {
        "sigmas swapped": lambda angle: weight(angle, below=10.0, above=1.0),
        "one sigma": lambda angle: weight(angle, below=10.0),
        "no 2": lambda angle: weight(angle, half=1.0),
        "sigma not squared": lambda angle: torch.exp(
            -((angle - 5) ** 2) / (2 * torch.where(angle <= 5, 1.0, 10.0))
        ),
        "peak at zero": lambda angle: weight(angle, peak=0.0),
        "degrees taken for radians": lambda angle: weight(angle.rad2deg()),
        "a number": lambda angle: weight(angle).sum().item(),
    },
    "pair-score": {
        "arccos not clipped": lambda *inputs: score(*inputs, clip=False),
        "radians": lambda *inputs: score(*inputs, degrees=False),
        "rays not normalised": lambda *inputs: score(*inputs, normalised=False),
        "mean for sum": lambda points, a, b: score(points, a, b) / len(points),
        "points counted": lambda points, a, b: torch.tensor(float(len(points))).double(),
        "another angle": at_the_camera,
        "a number": lambda *inputs: score(*inputs).item(),
    },
    "choose-sources": {
        "itself": lambda *inputs: by_sorting(*inputs, itself=True),
        "score 0": lambda *inputs: by_sorting(*inputs, worthless=True),
        "worst first": lambda *inputs: by_sorting(*inputs, reverse=False),
        "removed itself after the cut": cut_first,
        "all of them": lambda scores, num: by_sorting(scores, len(scores)),
        "sorted by number": lambda *inputs: [sorted(row) for row in by_sorting(*inputs)],
        "diagonal cleared in place": lambda scores, num: by_sorting(scores.fill_diagonal_(0), num),
    },
    "robust-range": {
        "least and greatest": lambda depths: percentiles(depths, 0.0, 1.0),
        "behind counted": lambda depths: percentiles(depths, keep=everything),
        "five percent": lambda depths: percentiles(depths, 0.05, 0.95),
        "not sorted": lambda depths: depths[[int(0.01 * len(depths)), int(0.99 * len(depths))]],
        "interpolated": lambda depths: depths[depths > 0].quantile(torch.tensor([0.01, 0.99])),
        "a tuple": lambda depths: tuple(percentiles(depths).tolist()),
    },
    "half-pixel-planes": {
        "gaps for planes": lambda *inputs: planes(*inputs, posts=0),
        "a whole pixel": lambda *inputs: planes(*inputs, step=1.0),
        "rounded down": lambda *inputs: planes(*inputs, rounded=math.floor),
        "one too many": lambda *inputs: planes(*inputs, posts=2),
        "in depth, not 1 / depth": lambda focal, baseline, near, far: (
            1 + math.ceil(2 * focal * baseline * (far - near))
        ),
        "a float": lambda *inputs: float(planes(*inputs)),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
