import math

import torch
import torch.nn.functional as F

from mvsnet_edu.optimization import learning_rate
from mvsnet_edu.recipe import StageTable

from .trials import both_kinds


def rates(steps, rate, warm_up, first=1, half=math.pi, last=None, join=min):
    last = steps if last is None else last
    course = []
    for step in range(first, steps + first):
        warm = step / warm_up if step < warm_up else 1.0
        course.append(rate * join(warm, 0.5 + 0.5 * math.cos(half * step / last)))
    return torch.tensor(course)


def by_the_package(steps, rate, warm_up):
    stage = StageTable(steps=steps, rate=rate, warm_up=warm_up)
    return torch.tensor([learning_rate(stage, step + 1) for step in range(steps)])


def after_the_warm_up(steps, rate, warm_up):
    course = [step / warm_up for step in range(1, warm_up + 1)]
    left = steps - warm_up
    course += [0.5 + 0.5 * math.cos(math.pi * step / left) for step in range(1, left + 1)]
    return rate * torch.tensor(course)


def straight_down(steps, rate, warm_up):
    step = torch.arange(1, steps + 1)
    return rate * torch.minimum(1 - step / steps, step / max(warm_up, 1))


def rmsprop(w, g, v, rate, decay=0.9, inside=1e-10, outside=0.0, old=False, momentum=0.0):
    new = decay * v + (1 - decay) * g * g
    root = torch.sqrt((v if old else new) + inside) + outside
    return w - rate * (1 + momentum) * g / root, new


def by_pytorch(w, g, v, rate):
    weight = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.RMSprop([weight], lr=rate, alpha=0.9, eps=1e-10)
    optimizer.state[weight] = {"step": torch.zeros(()), "square_avg": v.clone()}
    weight.grad = g.clone()
    optimizer.step()
    return weight.detach(), optimizer.state[weight]["square_avg"]


def in_place(w, g, v, rate):
    v.mul_(0.9).add_(0.1 * g**2)
    return w - rate * g / torch.sqrt(v + 1e-10), v


def clip(a, b, limit):
    parts = [torch.nn.Parameter(torch.zeros_like(each)) for each in (a, b)]
    for part, each in zip(parts, (a, b), strict=True):
        part.grad = each.clone()
    torch.nn.utils.clip_grad_norm_(parts, limit)
    return tuple(part.grad for part in parts)


def clip_by(length, always=False, guard=1e-12):
    def answer(a, b, limit):
        size = length(torch.cat([a.flatten(), b.flatten()]))
        factor = limit / (size + guard)
        factor = factor if always else torch.where(factor < 1, factor, 1.0)
        return factor * a, factor * b

    return answer


def clip_each(a, b, limit):
    return tuple(each * (limit / (each.norm() + 1e-12)).clamp(max=1) for each in (a, b))


def average(a, w, decay, step, first=1, last=10, pick=min):
    decay = pick(decay, (first + step) / (last + step))
    return decay * a + (1 - decay) * w


def norm(x, mean, variance, training, batch=0, running=1, share=0.1, axes=(0, 2, 3), eps=1e-5, root=True):
    m, v = mean, variance
    if training:
        m, v = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, correction=batch)
        own = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=running)
        mean, variance = (1 - share) * mean + share * own[0], (1 - share) * variance + share * own[1]
    else:
        m, v = m[:, None, None], v[:, None, None]
    return (x - m) / ((v + eps).sqrt() if root else v + eps), mean, variance


def always_in(mode):
    def answer(x, mean, variance, training):
        return norm(x, mean, variance, mode)

    return answer


def never_learns(x, mean, variance, training):
    return norm(x, mean, variance, training)[0], mean, variance


def learns_in_testing(x, mean, variance, training):
    _, *averages = norm(x, mean, variance, True)
    return norm(x, mean, variance, training)[0], *averages


def normalises_by_the_new_averages(x, mean, variance, training):
    _, *averages = norm(x, mean, variance, training)
    return norm(x, *averages, False)[0], *averages


def writes_into_the_averages(x, mean, variance, training):
    return F.batch_norm(x, mean, variance, training=training, momentum=0.1), mean, variance


RIGHT = {
    "cosine-rates": [rates, by_the_package],
    "rmsprop-step": [rmsprop],
    "clip-gradients": [clip, clip_by(torch.linalg.vector_norm)],
    "average-weights": [average, lambda a, w, d, t: a.lerp(w, 1 - min(d, (1 + t) / (10 + t)))],
    "batch-norm-modes": [norm],
}
WRONG = {
    "cosine-rates": {
        "counted from 0": lambda *inputs: rates(*inputs, first=0),
        "a whole cosine": lambda *inputs: rates(*inputs, half=2 * math.pi),
        "a quarter of a cosine": lambda *inputs: rates(*inputs, half=math.pi / 2),
        "one step too long": lambda steps, *others: rates(steps, *others, last=steps + 1),
        "the product of both": lambda *inputs: rates(*inputs, join=lambda a, b: a * b),
        "the greater of both": lambda *inputs: rates(*inputs, join=max),
        "a cosine after the warm-up": after_the_warm_up,
        "straight down": straight_down,
        "no warm-up": lambda steps, rate, warm_up: rates(steps, rate, 0),
        "rate forgotten": lambda steps, rate, warm_up: rates(steps, 1.0, warm_up),
        "a list": lambda *inputs: rates(*inputs).tolist(),
    },
    "rmsprop-step": {
        "PyTorch's": by_pytorch,
        "epsilon outside": lambda *inputs: rmsprop(*inputs, inside=0.0, outside=1e-10),
        "no epsilon": lambda *inputs: rmsprop(*inputs, inside=0.0),
        "the average of before": lambda *inputs: rmsprop(*inputs, old=True),
        "shares swapped": lambda *inputs: rmsprop(*inputs, decay=0.1),
        "decay of 0.99": lambda *inputs: rmsprop(*inputs, decay=0.99),
        "with momentum": lambda *inputs: rmsprop(*inputs, momentum=0.9),
        "uphill": lambda w, g, v, rate: rmsprop(w, g, v, -rate),
        "no root": lambda w, g, v, rate: (
            w - rate * g / (0.9 * v + 0.1 * g * g + 1e-10),
            0.9 * v + 0.1 * g * g,
        ),
        "sum of squares": lambda w, g, v, rate: (w - rate * g / torch.sqrt(v + g * g + 1e-10), v + g * g),
        "weight alone": lambda *inputs: rmsprop(*inputs)[0],
        "the average in place": in_place,
    },
    "clip-gradients": {
        "each by itself": clip_each,
        "entry by entry": lambda a, b, limit: (a.clamp(-limit, limit), b.clamp(-limit, limit)),
        "always to the limit": clip_by(torch.linalg.vector_norm, always=True),
        "the greatest entry": clip_by(lambda x: x.abs().max()),
        "the sum of the entries": clip_by(lambda x: x.abs().sum()),
        "the mean square": clip_by(lambda x: x.square().mean().sqrt()),
        "the square of the length": clip_by(lambda x: x.square().sum()),
        "nothing over nothing": clip_by(torch.linalg.vector_norm, always=True, guard=0.0),
        "as they are": lambda a, b, limit: (a, b),
        "one long vector": lambda *inputs: torch.cat([each.flatten() for each in clip(*inputs)]),
    },
    "average-weights": {
        "shares swapped": lambda a, w, d, t: average(w, a, d, t),
        "no early forgetting": lambda a, w, d, t: d * a + (1 - d) * w,
        "the greater decay": lambda *inputs: average(*inputs, pick=max),
        "steps counted from 1": lambda a, w, d, t: average(a, w, d, t - 1),
        "the mean of all": lambda a, w, d, t: average(a, w, 1.0, t, first=0, last=1),
        "sum of more than 1": lambda a, w, d, t: a + (1 - min(d, (1 + t) / (10 + t))) * w,
        "in place": lambda a, w, d, t: a.lerp_(w, 1 - min(d, (1 + t) / (10 + t))),
    },
    "batch-norm-modes": {
        "always training": always_in(True),
        "always testing": always_in(False),
        "averages never learn": never_learns,
        "averages learn in testing": learns_in_testing,
        "by the new averages": normalises_by_the_new_averages,
        "batch's variance unbiased": lambda *inputs: norm(*inputs, batch=1),
        "running variance biased": lambda *inputs: norm(*inputs, running=0),
        "shares swapped": lambda *inputs: norm(*inputs, share=0.9),
        "each sample alone": lambda *inputs: norm(*inputs, axes=(2, 3)),
        "channels together": lambda *inputs: norm(*inputs, axes=(0, 1, 2, 3)),
        "no root": lambda *inputs: norm(*inputs, root=False),
        "averages in place": writes_into_the_averages,
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
