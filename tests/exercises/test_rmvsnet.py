import torch

from .trials import both_kinds


def update_by_lerp(u, h, y):
    return torch.lerp(y, h, u)


def nearest(truth, planes):
    away = (truth.unsqueeze(-1) - planes).abs()
    least, index = away.min(dim=-1)
    reach = (planes[1] - planes[0]).abs() / 2
    return torch.where((truth == 0) | (least > reach), -1, index)


def places(truth, planes, down=False, absolute=False, clamp=False):
    step = planes[1] - planes[0]
    step = step.abs() if absolute else step
    place = (truth - planes[0]) / step
    index = (place.floor() if down else place.round()).long()
    if clamp:
        return torch.where(truth > 0, index.clamp(0, len(planes) - 1), -1)
    return torch.where((truth > 0) & (index >= 0) & (index < len(planes)), index, -1)


def running(scores, rescale=True):
    best, total = scores[0], torch.ones_like(scores[0])
    for score in scores[1:]:
        better = torch.maximum(best, score)
        if rescale:
            total = total * (best - better).exp()
        best, total = better, total + (score - better).exp()
    return 1 / total


def naive(scores):
    total, best = torch.zeros_like(scores[0]), torch.zeros_like(scores[0])
    for score in scores:
        total = total + score.exp()
        best = torch.maximum(best, score.exp())
    return best / total


def against_zero(scores):
    best, total = torch.zeros_like(scores[0]), torch.zeros_like(scores[0])
    for score in scores:
        better = torch.maximum(best, score)
        total = total * (best - better).exp() + (score - better).exp()
        best = better
    return 1 / total


RIGHT = {
    "gru-update": [lambda u, h, y: u * h + (1 - u) * y, update_by_lerp],
    "plane-class": [places, nearest],
    "running-winner": [running, lambda s: (s.amax(0) - s.logsumexp(0)).exp()],
}
WRONG = {
    "gru-update": {
        "gate the other way round": lambda u, h, y: u * y + (1 - u) * h,
        "adds without forgetting": lambda u, h, y: h + (1 - u) * y,
        "halves": lambda u, h, y: (h + y) / 2,
        "subtracts": lambda u, h, y: u * h - (1 - u) * y,
    },
    "plane-class": {
        "rounds down": lambda t, z: places(t, z, down=True),
        "step without its sign": lambda t, z: places(t, z, absolute=True),
        "clamps what is out of reach": lambda t, z: places(t, z, clamp=True),
        "never -1": lambda t, z: (t.unsqueeze(-1) - z).abs().argmin(-1),
    },
    "running-winner": {
        "does not rescale": lambda s: running(s, rescale=False),
        "overflows": naive,
        "best begins at 0": against_zero,
        "best score instead": lambda s: s.amax(0).sigmoid(),
    },
}

test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
