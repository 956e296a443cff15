import torch

import mvsnet_edu
from mvsnet_edu import non_zero_mean_absolute_diff

from .trials import both_kinds


def measured(truth):
    return torch.isfinite(truth) & (truth != 0)


def loss_by_loop(estimated, truth, interval, images="mean"):
    B = len(estimated)
    interval = torch.as_tensor(interval).expand(B)
    means = []
    for b in range(B):
        known = measured(truth[b])
        error = (estimated[b][known] - truth[b][known]).abs() / interval[b]
        means.append(error.mean() if len(error) else 0 * estimated[b].nan_to_num().sum())
    return torch.stack(means).mean() if images == "mean" else torch.stack(means).sum()


def unmasked(estimated, truth, interval):
    return ((estimated - truth).abs().flatten(1).mean(1) / interval).mean()


def over_all_pixels(estimated, truth, interval):
    error = torch.where(measured(truth), estimated - truth, 0).abs()
    return (error.flatten(1).mean(1) / interval).mean()


def summed(estimated, truth, interval):
    return torch.where(measured(truth), estimated - truth, 0).abs().sum() / interval


def signed(estimated, truth, interval):
    known = measured(truth)
    return torch.where(known, estimated - truth, 0).sum() / known.sum().clamp(min=1) / interval


def squared(estimated, truth, interval):
    known = measured(truth)
    return torch.where(known, estimated - truth, 0).square().sum() / known.sum().clamp(min=1) / interval**2


def mask_times_error(estimated, truth, interval):
    mask = measured(truth).float()
    return (mask * (estimated - truth).abs()).sum() / mask.sum().clamp(min=1) / interval


def nonzero_only(estimated, truth, interval):
    known = truth != 0
    return torch.where(known, estimated - truth, 0).abs().sum() / known.sum().clamp(min=1) / interval


def divides_by_zero(estimated, truth, interval):
    known = measured(truth)
    return (estimated[known] - truth[known]).abs().mean() / interval


def with_large_eps(estimated, truth, interval):
    known = measured(truth)
    return torch.where(known, estimated - truth, 0).abs().sum() / (known.sum() + 1) / interval


def pooled(estimated, truth, interval):
    known = measured(truth)
    error = torch.where(known, estimated - truth, 0).abs() / interval.view(-1, 1, 1)
    return error.sum() / known.sum().clamp(min=1)


def only_images_with_truth(estimated, truth, interval):
    known = measured(truth)
    error = torch.where(known, estimated - torch.where(known, truth, 0), 0).abs() / interval.view(-1, 1, 1)
    means = error.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
    return means.sum() / known.flatten(1).any(1).sum().clamp(min=1)


def nan_in_the_gradient(estimated, truth, interval):
    known = measured(truth)
    error = (estimated - truth).square().sqrt()  # sqrt's slope at NaN is NaN, and 0 times NaN stays NaN
    error = torch.where(known, error, 0) / interval.view(-1, 1, 1)
    return (error.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)).mean()


def mean_interval(estimated, truth, interval):
    return loss_by_loop(estimated, truth, interval.mean())


def share(estimated, truth, interval, k, strict=False, known=None):
    known = measured(truth) if known is None else known
    error = torch.where(known, (estimated - truth).abs(), 0) / interval
    within = ((error < k) if strict else (error <= k)) & known
    return within.sum() / known.sum().clamp(min=1)


def share_per_image(estimated, truth, interval, k):
    return torch.stack(
        [share(e[None], t[None], interval, k) for e, t in zip(estimated, truth, strict=True)]
    ).mean()


def share_without_guard(estimated, truth, interval, k):
    known = measured(truth)
    return (((estimated - truth).abs() <= k * interval) & known).sum() / known.sum()


def share_of_all(estimated, truth, interval, k):
    return (((estimated - truth).abs() <= k * interval) & measured(truth)).float().mean()


def straight_through(estimated, truth, interval, k):
    soft = torch.sigmoid(k - (estimated - truth).abs() / interval).mean()
    return soft - soft.detach() + share(estimated, truth, interval, k)


def two_terms(initial, refined, truth, interval, weights=(0.5, 0.5), alone=1.0):
    if refined is None:
        return alone * loss_by_loop(initial, truth, interval)
    a, b = (loss_by_loop(z, truth, interval) for z in (initial, refined))
    return weights[0] * a + weights[1] * b


def no_branch(initial, refined, truth, interval):
    return (loss_by_loop(initial, truth, interval) + loss_by_loop(refined, truth, interval)) / 2


def detached_initial(initial, refined, truth, interval):
    return two_terms(initial.detach(), refined, truth, interval)


def slope(
    z, truth, interval, sign=1, absolute=True, pixels=True, images=True, unit=True, mask=True, pool=False
):
    known = measured(truth)
    result = torch.sign(z - truth) if absolute else z - truth
    result = sign * (torch.where(known, result, 0) if mask else result)
    count = known.sum() if pool else known.sum(dim=(1, 2), keepdim=True)
    result = result / count.clamp(min=1) if pixels else result
    result = result / interval.view(-1, 1, 1) if unit else result
    return result / len(z) if images and not pool else result


def unguarded_slope(z, truth, interval):
    known = measured(truth)
    count = known.sum(dim=(1, 2), keepdim=True)
    return torch.sign(z - truth) * known / count / interval.view(-1, 1, 1) / len(z)


RIGHT = {
    "measured-mask": [measured, lambda t: ~((t == 0) | torch.isnan(t) | torch.isinf(t))],
    "masked-l1-in-intervals": [non_zero_mean_absolute_diff, loss_by_loop],
    "per-image-mean": [non_zero_mean_absolute_diff, loss_by_loop],
    "less-k": [share, lambda *inputs: share(*inputs).detach()],
    "two-term-loss": [mvsnet_edu.mvsnet_loss, two_terms],
    "loss-gradient": [slope],
}
WRONG = {
    "measured-mask": {
        "NaN let in": lambda t: t != 0,
        "infinity let in": lambda t: (t > 0) & ~torch.isnan(t),
        "zero let in": torch.isfinite,
        "upside down": lambda t: ~measured(t),
        "numbers": lambda t: measured(t).float(),
        "everything": lambda t: torch.ones_like(t, dtype=torch.bool),
    },
    "masked-l1-in-intervals": {
        "no mask": unmasked,
        "mean over all pixels": over_all_pixels,
        "sum for mean": summed,
        "signed": signed,
        "squared": squared,
        "in world units": lambda e, t, i: loss_by_loop(e, t, 1.0),
        "times the interval": lambda e, t, i: loss_by_loop(e, t, 1 / i),
        "NaN through the mask": mask_times_error,
        "NaN counted as measured": nonzero_only,
        "nothing over nothing": divides_by_zero,
        "one added to the count": with_large_eps,
        "a number": lambda e, t, i: loss_by_loop(e, t, i).item(),
        "not reduced": lambda e, t, i: loss_by_loop(e, t, i)[None],
    },
    "per-image-mean": {
        "pooled": pooled,
        "summed over the batch": lambda e, t, i: loss_by_loop(e, t, i, images="sum"),
        "mean of the intervals": mean_interval,
        "interval of the first image": lambda e, t, i: loss_by_loop(e, t, i[0]),
        "images without truth left out": only_images_with_truth,
        "NaN in the gradient": nan_in_the_gradient,
        "no gradient": lambda e, t, i: loss_by_loop(e.detach(), t, i),
        "one loss per image": lambda e, t, i: loss_by_loop(e, t, i).expand(len(e)),
    },
    "less-k": {
        "less, not at most": lambda *inputs: share(*inputs, strict=True),
        "mean of the images": share_per_image,
        "no mask": lambda e, t, i, k: share(e, t, i, k, known=torch.ones_like(t, dtype=torch.bool)),
        "share of all pixels": share_of_all,
        "nothing over nothing": share_without_guard,
        "always one interval": lambda e, t, i, k: share(e, t, i, 1),
        "in world units": lambda e, t, i, k: share(e, t, 1.0, k),
        "share beyond": lambda *inputs: 1 - share(*inputs),
        "per cent": lambda *inputs: 100 * share(*inputs),
        "signed": lambda e, t, i, k: share(torch.maximum(e, t), t, i, k),
        "with a gradient": straight_through,
        "a number": lambda *inputs: share(*inputs).item(),
    },
    "two-term-loss": {
        "no case of None": no_branch,
        "half of one": lambda *inputs: two_terms(*inputs, alone=0.5),
        "sum for mean": lambda *inputs: two_terms(*inputs, weights=(1, 1)),
        "refined alone": lambda *inputs: two_terms(*inputs, weights=(0, 1)),
        "initial alone": lambda *inputs: two_terms(*inputs, weights=(1, 0)),
        "nothing without refinement": lambda *inputs: two_terms(*inputs, alone=0.0),
        "no gradient to the initial map": detached_initial,
    },
    "loss-gradient": {
        "wrong sign": lambda *inputs: slope(*inputs, sign=-1),
        "of the square": lambda *inputs: slope(*inputs, absolute=False),
        "pixels forgotten": lambda *inputs: slope(*inputs, pixels=False),
        "images forgotten": lambda *inputs: slope(*inputs, images=False),
        "intervals forgotten": lambda *inputs: slope(*inputs, unit=False),
        "no mask": lambda *inputs: slope(*inputs, mask=False),
        "pooled": lambda *inputs: slope(*inputs, pool=True),
        "nothing over nothing": unguarded_slope,
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
