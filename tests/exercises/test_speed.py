import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .trials import both_kinds


def counted(D, h, w, inp, out, stride):
    """By counting what torch does."""
    conv = nn.Conv3d(inp, out, 3, stride, padding=1, bias=False, device="meta")
    with FlopCounterMode(display=False) as counter:
        conv(torch.empty(1, inp, D, h, w, device="meta"))
    return counter.get_total_flops()


def flops(D, h, w, inp, out, stride, up=True, each=54):
    def size(n):
        return (n + stride - 1) // stride if up else max(1, n // stride)

    return each * inp * out * size(D) * size(h) * size(w)


def by_the_roof(flops, moved, peak, bandwidth):
    """Work over the attainable rate."""
    if not flops or not moved:
        return flops / peak + moved / bandwidth
    return flops / min(peak, flops / moved * bandwidth)


def by_reading(first, last, stride, num):
    """Which planes reach the result at all."""
    read = [k for j in range(first, last) for k in range(j * stride - 1, j * stride + 2) if 0 <= k < num]
    return min(read), max(read) + 1


def one_pass(costs, depths, rescale=True, sign=1, start=torch.inf, both=True):
    best = torch.full_like(costs[0], start)
    total, weighted = torch.zeros_like(best), torch.zeros_like(best)
    for cost, depth in zip(sign * costs, depths, strict=True):
        lower = torch.minimum(best, cost)
        old = torch.exp(lower - best) if rescale else 1.0
        new = torch.exp(lower - cost)
        total = total * (old if both else 1.0) + new
        weighted = weighted * old + new * depth
        best = lower
    return weighted / total


def overflowing(costs, depths):
    total = weighted = 0
    for cost, depth in zip(costs, depths, strict=True):
        total, weighted = total + torch.exp(-cost), weighted + torch.exp(-cost) * depth
    return weighted / total


RIGHT = {
    "conv-flops": [counted, flops],
    "least-time": [by_the_roof, lambda f, m, p, b: m / b if m * p > f * b else f / p],
    "planes-needed": [by_reading],
    "one-pass-soft-argmin": [one_pass, lambda c, d: (torch.softmax(-c, 0) * d.view(-1, 1, 1)).sum(0)],
}
WRONG = {
    "conv-flops": {
        "multiplications only": lambda *a: flops(*a, each=27),
        "two dimensions": lambda *a: flops(*a, each=18),
        "the input's voxels": lambda D, h, w, i, o, stride: flops(D, h, w, i, o, 1),
        "rounded down": lambda *a: flops(*a, up=False),
        "with a bias": lambda *a: flops(*a) + flops(*a) // (54 * a[3]),
        "stride counted once": lambda D, h, w, i, o, stride: flops(D, h, w, i, o, 1) // stride,
        "a float": lambda *a: float(flops(*a)),
    },
    "least-time": {
        "one after the other": lambda f, m, p, b: f / p + m / b,
        "the faster one": lambda f, m, p, b: min(f / p, m / b),
        "arithmetic only": lambda f, m, p, b: f / p,
        "traffic only": lambda f, m, p, b: m / b,
        "ceilings swapped": lambda f, m, p, b: max(f / b, m / p),
        "a rate": lambda f, m, p, b: min(p, f / max(m, 1e-9) * b),
        "nothing over nothing": lambda f, m, p, b: f / min(p, f / m * b),
    },
    "planes-needed": {
        "no halo": lambda a, b, s, n: (a * s, min(b * s, n)),
        "not clipped": lambda a, b, s, n: (a * s - 1, (b - 1) * s + 2),
        "stride forgotten": lambda a, b, s, n: (max(a - 1, 0), min(b + 1, n)),
        "last included": lambda a, b, s, n: (max(a * s - 1, 0), min((b - 1) * s + 1, n)),
        "one too many": lambda a, b, s, n: (max(a * s - 1, 0), min(b * s + 1, n)),
        "halo on one side": lambda a, b, s, n: (a * s, min((b - 1) * s + 2, n)),
        "everything": lambda a, b, s, n: (0, n),
    },
    "one-pass-soft-argmin": {
        "overflows": overflowing,
        "never rescaled": lambda c, d: one_pass(c, d, rescale=False),
        "one sum rescaled": lambda c, d: one_pass(c, d, both=False),
        "the record starts at 0": lambda c, d: one_pass(c, d, start=0.0),
        "softmax of +cost": lambda c, d: one_pass(c, d, sign=-1),
        "winner take all": lambda c, d: d[c.argmin(0)],
        "the plain mean": lambda c, d: d.mean().expand(c.shape[1:]).clone(),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
