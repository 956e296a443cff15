import torch
import torch.nn.functional as F

from .trials import both_kinds


def soft_argmin_by_loop(cost, depth_values):
    B, D, h, w = cost.shape
    weight = torch.exp(cost.min(dim=1, keepdim=True).values - cost)
    probability = weight / weight.sum(dim=1, keepdim=True)
    depth = sum(probability[:, j] * depth_values[:, j].view(B, 1, 1) for j in range(D))
    return depth, probability


def soft_argmin_with(cost, depth_values, sign=-1, dim=1):
    probability = torch.softmax(sign * cost, dim=dim)
    return torch.einsum("bdhw,bd->bhw", probability, depth_values), probability


def overflowing(cost, depth_values):
    probability = torch.exp(-cost) / torch.exp(-cost).sum(dim=1, keepdim=True)
    return torch.einsum("bdhw,bd->bhw", probability, depth_values), probability


def hard_argmin(cost, depth_values):
    probability = F.one_hot(cost.argmin(dim=1), cost.shape[1]).movedim(-1, 1).float()
    return torch.einsum("bdhw,bd->bhw", probability, depth_values), probability


def detached(cost, depth_values):
    depth, probability = soft_argmin_with(cost, depth_values)
    return depth.detach() + 0 * cost.sum(dim=1), probability


def first_image_planes(cost, depth_values):
    return soft_argmin_with(cost, depth_values[:1].expand_as(depth_values))


def planes_around(probability, depth, depth_values, offsets=(-1, 0, 1, 2), strict=False):
    result = torch.zeros_like(depth)
    B, D, h, w = probability.shape
    for b in range(B):
        for y in range(h):
            for x in range(w):
                z = depth[b, y, x]
                i = int(((depth_values[b] < z) if strict else (depth_values[b] <= z)).sum()) - 1
                result[b, y, x] = sum(probability[b, i + o, y, x] for o in offsets if 0 <= i + o < D)
    return result


def planes_by_mask(probability, depth, depth_values):
    D = depth_values.shape[1]
    i = (depth_values[:, :, None, None] <= depth[:, None]).sum(1, keepdim=True) - 1
    gap = torch.arange(D).view(1, D, 1, 1) - i
    return (probability * ((gap >= -1) & (gap <= 2))).sum(1)


def original_with_duplicates(probability, depth, depth_values):
    D = depth_values.shape[1]
    i = (depth_values[:, :, None, None] <= depth[:, None]).sum(1, keepdim=True) - 1
    return sum(probability.gather(1, (i + o).clamp(0, D - 1)).squeeze(1) for o in (-1, 0, 1, 2))


def evenly_spaced_only(probability, depth, depth_values):
    first, interval = depth_values[:, :1, None], (depth_values[:, 1:2] - depth_values[:, :1])[..., None]
    i = ((depth - first) / interval).floor().long().unsqueeze(1)
    gap = torch.arange(depth_values.shape[1]).view(1, -1, 1, 1) - i
    return (probability * ((gap >= -1) & (gap <= 2))).sum(1)


RIGHT = {
    "count-planes": [
        lambda near, far, step: round((far - near) / step) + 1,
        lambda near, far, step: int((far - near) / step + 1.5),
    ],
    "soft-argmin": [soft_argmin_by_loop, soft_argmin_with],
    "probability-map": [planes_around, planes_by_mask],
}
WRONG = {
    "count-planes": {
        "gaps for posts": lambda near, far, step: round((far - near) / step),
        "truncated": lambda near, far, step: int((far - near) / step) + 1,
        "rounded up": lambda near, far, step: -int(-(far - near) / step // 1) + 1,
        "arange": lambda near, far, step: len(torch.arange(near, far + step, step)),
        "a float": lambda near, far, step: (far - near) / step + 1,
        "from zero": lambda near, far, step: round(far / step) + 1,
    },
    "soft-argmin": {
        "wrong sign": lambda c, d: soft_argmin_with(c, d, sign=1),
        "softmax over the batch": lambda c, d: soft_argmin_with(c, d, dim=0),
        "softmax over the rows": lambda c, d: soft_argmin_with(c, d, dim=2),
        "winner takes all": hard_argmin,
        "exp overflows": overflowing,
        "no gradient": detached,
        "planes of the first image": first_image_planes,
        "index for depth": lambda c, d: soft_argmin_with(c, torch.arange(d.shape[1]).expand_as(d).float()),
        "mean for sum": lambda c, d: (soft_argmin_with(c, d)[0] / d.shape[1], soft_argmin_with(c, d)[1]),
        "depth alone": lambda c, d: soft_argmin_with(c, d)[0],
        "a list": lambda c, d: list(soft_argmin_with(c, d)),
        "order of the results": lambda c, d: soft_argmin_with(c, d)[::-1],
    },
    "probability-map": {
        "duplicates at the ends": original_with_duplicates,
        "evenly spaced only": evenly_spaced_only,
        "strictly below": lambda p, z, d: planes_around(p, z, d, strict=True),
        "three planes": lambda p, z, d: planes_around(p, z, d, offsets=(-1, 0, 1)),
        "five planes": lambda p, z, d: planes_around(p, z, d, offsets=(-2, -1, 0, 1, 2)),
        "one too low": lambda p, z, d: planes_around(p, z, d, offsets=(-2, -1, 0, 1)),
        "largest": lambda p, z, d: p.amax(1),
        "planes of the first image": lambda p, z, d: planes_by_mask(p, z, d[:1]),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
