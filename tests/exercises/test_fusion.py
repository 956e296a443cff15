import math

import torch

from .trials import both_kinds


def mean(depth, claims, agrees, min_views, own=1, least=0, mask=torch.where):
    views = own + agrees.sum(dim=0)
    total = own * depth + mask(agrees, claims, 0).sum(dim=0)
    return torch.where(views >= min_views + least, total / views.clamp(min=1), 0)


def mean_by_loop(depth, claims, agrees, min_views):
    result = torch.zeros_like(depth)
    for y, x in torch.cartesian_prod(*map(torch.arange, depth.shape)).view(-1, 2).tolist():
        votes = [depth[y, x].item()]
        votes += [claims[s, y, x].item() for s in range(len(claims)) if agrees[s, y, x]]
        if len(votes) >= min_views:
            result[y, x] = sum(votes) / len(votes)
    return result


def mean_over_all(depth, claims, agrees, min_views):
    return torch.where(1 + agrees.sum(dim=0) >= min_views, torch.cat([depth[None], claims]).mean(dim=0), 0)


def not_dropped(depth, claims, agrees, min_views):
    return mean(depth, claims, agrees, 1)


def own_depth_kept(depth, claims, agrees, min_views):
    return torch.where(1 + agrees.sum(dim=0) >= min_views, depth, 0)


def claim_by_loop(silent, pixels, agrees, index=math.floor, order=(0, 1), heed=True):
    h, w = silent.shape
    result = silent.clone()
    for pixel, agree in zip(pixels.tolist(), agrees.tolist(), strict=True):
        x, y = index(pixel[order[0]]), index(pixel[order[1]])
        if (agree or not heed) and 0 <= x < w and 0 <= y < h:
            result[y, x] = True
    return result


def claim_by_sizes(silent, pixels, agrees):
    inside = ((pixels >= 0) & (pixels < torch.tensor(silent.shape[::-1]))).all(dim=1)
    x, y = pixels[inside & agrees].long().T
    result = silent.clone()
    result[y, x] = True
    return result


def clamped(silent, pixels, agrees):
    h, w = silent.shape
    x, y = pixels[agrees].floor().long().T
    result = silent.clone()
    result[y.clamp(0, h - 1), x.clamp(0, w - 1)] = True
    return result


def wrapped(silent, pixels, agrees):
    h, w = silent.shape
    x, y = pixels[agrees].floor().long().T
    result = silent.clone()
    result[y % h, x % w] = True
    return result


def forgetting(silent, pixels, agrees):
    return claim_by_loop(torch.zeros_like(silent), pixels, agrees)


def in_place(silent, pixels, agrees):
    silent |= claim_by_loop(silent, pixels, agrees)
    return silent


def distances_by_loop(points, others):
    return torch.tensor([min(math.dist(p, q) for q in others.tolist()) for p in points.tolist()])


def score(to_truth, to_estimate, threshold, good=torch.lt, combine=lambda p, r: 2 * p * r / (p + r)):
    precision, recall = (good(d, threshold).float().mean() for d in (to_truth, to_estimate))
    f_score = combine(precision, recall) if precision + recall > 0 else torch.zeros(())
    return precision, recall, f_score


def pooled(to_truth, to_estimate, threshold):
    good, found = (to_truth < threshold).sum(), (to_estimate < threshold).sum()
    both = (good + found) / (len(to_truth) + len(to_estimate))
    return good / len(to_truth), found / len(to_estimate), both


def nan_where_zero(to_truth, to_estimate, threshold):
    precision, recall = ((d < threshold).float().mean() for d in (to_truth, to_estimate))
    return precision, recall, 2 * precision * recall / (precision + recall)


def capped(distances, counted, most, good=torch.lt, empty=0.0):
    kept = distances[counted & good(distances, most)]
    return kept.mean() if len(kept) else torch.tensor(empty)


def capped_by_loop(distances, counted, most):
    kept = [d for d, c in zip(distances.tolist(), counted.tolist(), strict=True) if c and d < most]
    return torch.tensor(sum(kept) / max(1, len(kept)))


def divided_by_all_counted(distances, counted, most):
    good = counted & (distances < most)
    return torch.where(good, distances, 0).sum() / counted.sum().clamp(min=1)


RIGHT = {
    "mean-of-views": [mean, mean_by_loop],
    "claim-pixels": [claim_by_loop, claim_by_sizes],
    "nearest-distances": [distances_by_loop, lambda p, q: torch.cdist(p, q).min(dim=1).values],
    "f-score": [score, lambda a, b, t: score(a, b, t, lambda d, t: d < t)],
    "capped-mean": [capped, capped_by_loop],
}
WRONG = {
    "mean-of-views": {
        "infinity times 0": lambda *inputs: mean(*inputs, mask=lambda agrees, claims, _: agrees * claims),
        "the reference has no say": lambda *inputs: mean(*inputs, own=0),
        "sources counted, not views": lambda *inputs: mean(*inputs, least=1),
        "mean over all claims": mean_over_all,
        "nothing dropped": not_dropped,
        "the reference's own depth": own_depth_kept,
    },
    "claim-pixels": {
        "truncated": lambda *inputs: claim_by_loop(*inputs, index=int),
        "rounded": lambda *inputs: claim_by_loop(*inputs, index=round),
        "axes swapped": lambda *inputs: claim_by_loop(*inputs, order=(1, 0)),
        "agreement ignored": lambda *inputs: claim_by_loop(*inputs, heed=False),
        "clamped to the border": clamped,
        "wrapped around": wrapped,
        "old claims forgotten": forgetting,
        "in place": in_place,
        "nothing": lambda silent, pixels, agrees: silent.clone(),
    },
    "nearest-distances": {
        "squared": lambda p, q: torch.cdist(p, q).square().amin(dim=1),
        "the other way": lambda p, q: torch.cdist(p, q).amin(dim=0),
        "the farthest": lambda p, q: torch.cdist(p, q).amax(dim=1),
        "the mean": lambda p, q: torch.cdist(p, q).mean(dim=1),
        "city blocks": lambda p, q: torch.cdist(p, q, p=1).amin(dim=1),
        "axis by axis": lambda p, q: (p[:, None] - q[None]).abs().amin(dim=1).norm(dim=-1),
    },
    "f-score": {
        "at most the threshold": lambda *inputs: score(*inputs, good=torch.le),
        "arithmetic mean": lambda *inputs: score(*inputs, combine=lambda p, r: (p + r) / 2),
        "geometric mean": lambda *inputs: score(*inputs, combine=lambda p, r: (p * r).sqrt()),
        "without the 2": lambda *inputs: score(*inputs, combine=lambda p, r: p * r / (p + r)),
        "all points pooled": pooled,
        "NaN": nan_where_zero,
        "directions swapped": lambda a, b, t: score(b, a, t),
        "in per cent": lambda *inputs: tuple(100 * value for value in score(*inputs)),
    },
    "capped-mean": {
        "cut down": lambda d, c, most: d[c].clamp(max=most).mean() if c.any() else torch.zeros(()),
        "at most": lambda *inputs: capped(*inputs, good=torch.le),
        "NaN where nothing is left": lambda *inputs: capped(*inputs, empty=torch.nan),
        "mask ignored": lambda d, c, most: capped(d, torch.ones_like(c), most),
        "maximum ignored": lambda d, c, most: capped(d, c, torch.inf),
        "divided by all that are counted": divided_by_all_counted,
        "divided by all": lambda d, c, most: torch.where(c & (d < most), d, 0).mean(),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
