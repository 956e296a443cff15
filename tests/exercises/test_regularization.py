import math

import torch
import torch.nn.functional as F

from .trials import both_kinds


def smooth_by_loop(cost, r):
    out = torch.empty_like(cost)
    h, w = cost.shape[-2:]
    for i in range(h):
        for j in range(w):
            window = cost[..., max(i - r, 0) : i + r + 1, max(j - r, 0) : j + r + 1]
            out[..., i, j] = window.mean(dim=(-2, -1))
    return out


def pooled(cost, r, **options):
    return F.avg_pool2d(cost, 2 * r + 1, 1, r, **options)


def replicated(cost, r):
    return F.avg_pool2d(F.pad(cost, (r, r, r, r), mode="replicate"), 2 * r + 1, 1)


def over_planes_too(cost, r):
    return F.avg_pool3d(cost[:, None], 2 * r + 1, 1, r, count_include_pad=False)[:, 0]


def path_by_loop(cost, p1, p2, far=None, subtract=True, wrap=False, from_cost=False, far_add=True):
    D, w = cost.shape
    L = cost.clone()
    for x in range(1, w):
        before = (cost if from_cost else L)[:, x - 1].tolist()
        lowest = min(before)
        for j in range(D):
            ways = [before[j]]
            for k in (j - 1, j + 1):
                if wrap or 0 <= k < D:
                    ways.append(before[k % D] + p1)
            if far_add:
                ways.append(lowest + (p2 if far is None else far(p1, p2)))
            L[j, x] = cost[j, x] + min(ways) - (lowest if subtract else 0)
    return L


def backwards(cost, p1, p2):
    return path_by_loop(cost.flip(1), p1, p2).flip(1)


def padded(v, mode="replicate", extra=lambda n: -n % 8, front=False, swap=False):
    D, h, w = v.shape[-3:]
    sizes = (extra(D), extra(h), extra(w)) if swap else (extra(w), extra(h), extra(D))
    pads = [p for n in sizes for p in ((n, 0) if front else (0, n))]
    return F.pad(v, pads, mode=mode)


def padded_by_index(v):
    z, y, x = (torch.arange(-(-n // 8) * 8).clamp(max=n - 1) for n in v.shape[-3:])
    return v[:, :, z][:, :, :, y][..., x]


def work(inp, out, stride, size, taps=27, up=True, bias=0, kernel_in=True):
    weights = taps * (inp if kernel_in else 1) * out + bias
    voxels = math.prod(math.ceil(n / stride) if up else n // stride for n in size)
    return weights, weights * voxels


def spread(x, k, shift=0, flip=False, length=None, keep=False):
    n = len(x)
    y = torch.zeros(2 * n + 4)
    for i, value in enumerate(x.tolist()):
        for t in range(3):
            y[2 * i + t + shift] += value * k[2 - t if flip else t].item()
    return y[(0 if keep else 1) :][: 2 * n]


RIGHT = {
    "smooth-cost": [
        smooth_by_loop,
        lambda cost, r: pooled(cost, r) / pooled(torch.ones_like(cost), r),
    ],
    "sgm-path": [path_by_loop],
    "pad-to-eight": [padded, padded_by_index],
    "conv3d-work": [work],
    "transposed-convolution": [spread],
}
WRONG = {
    "smooth-cost": {
        "zeros counted": pooled,
        "border repeated": replicated,
        "planes mixed": over_planes_too,
        "radius for width": lambda cost, r: smooth_by_loop(cost, r // 2),
        "sum": lambda cost, r: pooled(cost, r) * (2 * r + 1) ** 2,
        "lowest": lambda cost, r: -F.max_pool2d(-cost, 2 * r + 1, 1, r),
        "rows only": lambda cost, r: F.avg_pool2d(cost, (1, 2 * r + 1), 1, (0, r), count_include_pad=False),
        "nothing": lambda cost, r: cost.clone(),
    },
    "sgm-path": {
        "right to left": backwards,
        "numbers grow": lambda *a: path_by_loop(*a, subtract=False),
        "round the corner": lambda *a: path_by_loop(*a, wrap=True),
        "from the costs": lambda *a: path_by_loop(*a, from_cost=True),
        "no large jumps": lambda *a: path_by_loop(*a, far_add=False),
        "both penalties": lambda *a: path_by_loop(*a, far=lambda p1, p2: p1 + p2),
        "one penalty": lambda *a: path_by_loop(*a, far=lambda p1, p2: p1),
        "penalties swapped": lambda cost, p1, p2: path_by_loop(cost, p2, p1),
        "along the planes": lambda cost, p1, p2: path_by_loop(cost.T, p1, p2).T,
        "costs alone": lambda cost, p1, p2: cost.clone(),
    },
    "pad-to-eight": {
        "with zeros": lambda v: padded(v, mode="constant"),
        "mirrored": lambda v: torch.cat([v, v.flip(2)], 2),
        "in front": lambda v: padded(v, front=True),
        "eight more where it fits": lambda v: padded(v, extra=lambda n: 8 - n % 8),
        "axes in the other order": lambda v: padded(v, swap=True),
        "cut": lambda v: v[..., : v.shape[-3] // 8 * 8, : v.shape[-2] // 8 * 8, : v.shape[-1] // 8 * 8],
        "to four": lambda v: padded(v, extra=lambda n: -n % 4),
        "image only": lambda v: F.pad(v, (0, -v.shape[-1] % 8, 0, -v.shape[-2] % 8, 0, 0), mode="replicate"),
    },
    "conv3d-work": {
        "two-dimensional kernel": lambda *a: work(*a, taps=9),
        "input channels forgotten": lambda *a: work(*a, kernel_in=False),
        "bias": lambda inp, out, stride, size: work(inp, out, stride, size, bias=out),
        "stride forgotten": lambda inp, out, stride, size: work(inp, out, 1, size),
        "rounded down": lambda *a: work(*a, up=False),
        "stride in one dimension": lambda inp, out, stride, size: (
            27 * inp * out,
            27 * inp * out * math.ceil(size[0] / stride) * size[1] * size[2],
        ),
        "two per product": lambda *a: (work(*a)[0], 2 * work(*a)[1]),
    },
    "transposed-convolution": {
        "kernel turned round": lambda x, k: spread(x, k, flip=True),
        "one place late": lambda x, k: spread(x, k, keep=True),
        "one place early": lambda x, k: spread(x, k, shift=-1) if len(x) else x,
        "nearest then convolved": lambda x, k: F.conv1d(
            x.repeat_interleave(2).view(1, 1, -1), k.view(1, 1, 3), padding=1
        ).flatten(),
        "not overlapping": lambda x, k: torch.stack([x * k[1], x * k[2]], 1).flatten(),
        "zeros between": lambda x, k: torch.stack([x, 0 * x], 1).flatten(),
        "too short": lambda x, k: spread(x, k)[:-1],
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
