import math

import torch

from mvsnet_edu import soft_argmin, winner_take_all

from .trials import both_kinds


def column(depth_values):
    return depth_values.view(*depth_values.shape, 1, 1)


def mean(p, z):
    return (p * column(z)).sum(1, keepdim=True)


def deviation(p, z):
    return (p * (column(z) - mean(p, z)) ** 2).sum(1)


def spread_by_loop(p, z):
    out = torch.empty_like(p[:, 0])
    for b, i, j in torch.cartesian_prod(*map(torch.arange, out.shape)).view(-1, 3).tolist():
        weights, depths = p[b, :, i, j].tolist(), z[b].tolist()
        centre = sum(w * d for w, d in zip(weights, depths, strict=True))
        out[b, i, j] = math.sqrt(sum(w * (d - centre) ** 2 for w, d in zip(weights, depths, strict=True)))
    return out


def slope_by_autograd(p, z):
    cost = (-p.log()).requires_grad_()
    return torch.autograd.grad(soft_argmin(cost, z)[0].sum(), cost)[0]


def local(p, z, r, centre=None, normalise=True, strict=False, roll=False):
    D = p.shape[1]
    k = torch.arange(D).view(1, D, 1, 1)
    j = p.argmax(1, keepdim=True) if centre is None else centre(p, z)
    away = (k - j).abs()
    if roll:
        away = torch.minimum(away, D - away)
    kept = torch.where(away < r if strict else away <= r, p, 0.0)
    total = kept.sum(1) if normalise else 1
    return (kept * column(z)).sum(1) / total


def local_by_slices(p, z, r):
    out = torch.empty_like(p[:, 0])
    for b, y, x in torch.cartesian_prod(*map(torch.arange, out.shape)).view(-1, 3).tolist():
        j = int(p[b, :, y, x].argmax())
        near = slice(max(j - r, 0), j + r + 1)
        out[b, y, x] = (p[b, near, y, x] @ z[b, near]) / p[b, near, y, x].sum()
    return out


def index(z, near, far, num, f=lambda x: 1 / x, gaps=1):
    f_ = lambda x: f(torch.as_tensor(x, dtype=z.dtype))  # noqa: E731
    return (f_(z) - f_(near)) / (f_(far) - f_(near)) * (num - gaps)


RIGHT = {
    "temper-probability": [
        lambda p, t: torch.softmax(p.log() / t, dim=1),
        lambda p, t: p.pow(1 / t) / p.pow(1 / t).sum(1, keepdim=True),
    ],
    "depth-spread": [spread_by_loop, lambda p, z: deviation(p, z).sqrt()],
    "soft-argmin-gradient": [
        slope_by_autograd,
        lambda p, z: p * (mean(p, z) - column(z)),
    ],
    "local-depth": [local, local_by_slices],
    "inverse-plane-index": [
        index,
        lambda z, near, far, num: (num - 1) * (far / z) * (z - near) / (far - near),
    ],
}
WRONG = {
    "temper-probability": {
        "upside down": lambda p, t: torch.softmax(p.log() * t, dim=1),
        "probabilities for costs": lambda p, t: torch.softmax(p / t, dim=1),
        "negative probabilities": lambda p, t: torch.softmax(-p / t, dim=1),
        "not normalised": lambda p, t: p ** (1 / t),
        "over the wrong axis": lambda p, t: torch.softmax(p.log() / t, dim=-1),
        "over the whole batch": lambda p, t: p ** (1 / t) / (p ** (1 / t)).sum(),
        "divided only": lambda p, t: (p / t) / (p / t).sum(1, keepdim=True),
        "eps in the logarithm": lambda p, t: torch.softmax((p + 1e-2).log() / t, dim=1),
    },
    "depth-spread": {
        "variance": deviation,
        "mean absolute deviation": lambda p, z: (p * (column(z) - mean(p, z)).abs()).sum(1),
        "all planes alike": lambda p, z: z.std(1, correction=0)[:, None, None].expand_as(p[:, 0]),
        "around the winner": lambda p, z: (
            (p * (column(z) - winner_take_all(p, z)[0][:, None]) ** 2).sum(1).sqrt()
        ),
        "of the probabilities": lambda p, z: p.std(1, correction=0),
        "not weighted": lambda p, z: ((column(z) - mean(p, z)) ** 2).mean(1).sqrt(),
        "second moment": lambda p, z: (p * column(z) ** 2).sum(1).sqrt(),
        "first image's planes": lambda p, z: deviation(p, z[:1].expand_as(z)).sqrt(),
    },
    "soft-argmin-gradient": {
        "sign of the port": lambda p, z: p * (column(z) - mean(p, z)),
        "mean forgotten": lambda p, z: -p * column(z),
        "probability forgotten": lambda p, z: mean(p, z) - column(z),
        "derivative of softmax only": lambda p, z: -p * (1 - p),
        "diagonal only": lambda p, z: -p * (1 - p) * column(z),
        "around the winner": lambda p, z: -p * (column(z) - winner_take_all(p, z)[0][:, None]),
        "around the middle": lambda p, z: -p * (column(z) - z.mean(1)[:, None, None, None]),
    },
    "local-depth": {
        "not normalised": lambda p, z, r: local(p, z, r, normalise=False),
        "one plane too few": lambda p, z, r: local(p, z, max(r, 1), strict=True),
        "one plane too many": lambda p, z, r: local(p, z, r + 1),
        "around the mean": lambda p, z, r: local(
            p, z, r, centre=lambda p, z: (column(z) <= mean(p, z)).sum(1, keepdim=True) - 1
        ),
        "round the corner": lambda p, z, r: local(p, z, r, roll=True),
        "around the least probable": lambda p, z, r: local(
            p, z, r, centre=lambda p, z: p.argmin(1, keepdim=True)
        ),
        "winner alone": lambda p, z, r: winner_take_all(p, z)[0],
        "mean of all": lambda p, z, r: mean(p, z)[:, 0],
    },
    "inverse-plane-index": {
        "uniform in depth": lambda z, near, far, num: index(z, near, far, num, f=lambda x: x),
        "uniform in the logarithm": lambda z, near, far, num: index(z, near, far, num, f=torch.log),
        "planes for gaps": lambda z, near, far, num: index(z, near, far, num, gaps=0),
        "from the far end": lambda z, near, far, num: num - 1 - index(z, near, far, num),
        "counted from one": lambda z, near, far, num: 1 + index(z, near, far, num),
        "rounded": lambda z, near, far, num: index(z, near, far, num).round(),
        "a share of the range": lambda z, near, far, num: index(z, near, far, 2),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
