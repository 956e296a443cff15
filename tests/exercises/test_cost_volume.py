import torch

from .trials import both_kinds


def two_passes(warped, dim=1, correction=0, power=2, root=False):
    deviation = warped - warped.mean(dim=dim, keepdim=True)
    result = deviation.abs().pow(power).sum(dim=1) / (warped.shape[1] - correction)
    return result.sqrt() if root else result


def running(warped):
    mean, squares = warped[:, 0], torch.zeros_like(warped[:, 0])
    for v in range(1, warped.shape[1]):
        deviation = warped[:, v] - mean
        mean = mean + deviation / (v + 1)
        squares = squares + deviation.square() * (v / (v + 1))
    return squares / warped.shape[1]


def mean_of_squares(warped):
    return warped.square().mean(1) - warped.mean(1).square()


def from_the_reference(warped):
    return (warped[:, 1:] - warped[:, :1]).square().mean(1)


def in_half(warped):
    return two_passes(warped.half()).float()


def over_channels(warped):
    result = warped.var(dim=2, correction=0).mean(1)  # (B, D, h, w)
    return result.unsqueeze(1).expand_as(warped[:, 0])


def two_distances(mean, squares, count, new):
    moved = (count * mean + new) / (count + 1)
    return moved, squares + (new - mean) * (new - moved)


def step(mean, squares, count, new, taken=1, share=None, grow=True):
    deviation = new - mean
    share = count / (count + 1) if share is None else share
    moved = mean + deviation / (count + taken)
    return moved, squares + share * deviation.square() if grow else squares


def variance_for_sum(mean, squares, count, new):
    moved, total = step(mean, squares * count, count, new)
    return moved, total / (count + 1)


def after_only(mean, squares, count, new):
    moved, _ = step(mean, squares, count, new)
    return moved, squares + (new - moved).square()


def swapped(mean, squares, count, new):
    return step(mean, squares, count, new)[::-1]


def size(width, height, depth_num, bytes_per_number, channels=32, stride=4):
    return (width // stride) * (height // stride) * depth_num * channels * bytes_per_number


def rounded_once(width, height, depth_num, bytes_per_number):
    return width * height // 16 * depth_num * 32 * bytes_per_number


def rounded_up(width, height, depth_num, bytes_per_number):
    return -(-width // 4) * -(-height // 4) * depth_num * 32 * bytes_per_number


def by_loop(warped, seen):
    result = torch.zeros_like(warped[:, 0])
    B, V, C, D, h, w = warped.shape
    for b, d, i, j in torch.cartesian_prod(*map(torch.arange, (B, D, h, w))).tolist():
        which = seen[b, :, d, i, j]
        result[b, :, d, i, j] = warped[b, which, :, d, i, j].var(dim=0, correction=0)
    return result


def masked(warped, seen, where=True, by="seen", twice=True, unbiased=False):
    seen = seen.unsqueeze(2)
    keep = (lambda x: torch.where(seen, x, 0)) if where else (lambda x: seen * x)
    count = seen.sum(1, keepdim=True).clamp(min=1) if by == "seen" else warped.shape[1]
    mean = keep(warped).sum(1, keepdim=True) / count
    squares = (keep(warped) - mean).square()
    squares = keep(squares) if twice else squares
    total = squares.sum(1)
    return total / ((count - 1).clamp(min=1) if unbiased else count).squeeze(1)


def divided_by_all(warped, seen):
    seen = seen.unsqueeze(2)
    count = seen.sum(1, keepdim=True)
    known = torch.where(seen, warped, 0)
    mean = known.sum(1, keepdim=True) / count
    return torch.where(seen, known - mean, 0).square().mean(1)


def nan_in_the_gradient(warped, seen):
    seen = seen.unsqueeze(2)
    count = seen.sum(1, keepdim=True)
    mean = torch.where(seen, warped, 0).sum(1, keepdim=True) / count
    distance = (warped - mean).square()  # of NaN; its slope is NaN, and 0 times NaN stays NaN
    return torch.where(seen, distance, 0).sum(1) / count.squeeze(1)


def unmasked(warped, seen):
    return warped.var(1, correction=0)


def zeros_for_unseen(warped, seen):
    return torch.where(seen.unsqueeze(2), warped, 0).var(1, correction=0)


def only_where_all_see(warped, seen):
    return torch.where(seen.all(1).unsqueeze(1), warped.nan_to_num().var(1, correction=0), 0)


def pooled_mask(warped, seen):
    known = seen.all(dim=(2, 3, 4), keepdim=True)
    return masked(warped, known.expand_as(seen))


RIGHT = {
    "variance-over-views": [two_passes, running, lambda x: x.var(dim=1, correction=0)],
    "welford-step": [step, two_distances],
    "volume-bytes": [size],
    "masked-variance": [by_loop, masked],
}
WRONG = {
    "variance-over-views": {
        "unbiased": lambda x: two_passes(x, correction=1),
        "mean over the channels": lambda x: two_passes(x, dim=2),
        "mean over the planes": lambda x: two_passes(x, dim=3),
        "mean over everything": lambda x: two_passes(x, dim=(1, 2, 3, 4, 5)),
        "channels for views": over_channels,
        "mean of squares less square of mean": mean_of_squares,
        "standard deviation": lambda x: two_passes(x, root=True),
        "absolute, not squared": lambda x: two_passes(x, power=1),
        "sum for mean": lambda x: two_passes(x) * x.shape[1],
        "distance from the reference": from_the_reference,
        "sources only": lambda x: x[:, 1:].var(dim=1, correction=0),
        "half precision": in_half,
        "channels averaged": lambda x: two_passes(x).mean(dim=1),
        "in place": lambda x: x.sub_(x.mean(1, keepdim=True)).square().mean(1),
    },
    "welford-step": {
        "one too few": lambda *inputs: step(*inputs, taken=0),
        "whole deviation squared": lambda *inputs: step(*inputs, share=1.0),
        "half of it": lambda *inputs: step(*inputs, share=0.5),
        "distance after": after_only,
        "sum not updated": lambda *inputs: step(*inputs, grow=False),
        "a variance, not a sum": variance_for_sum,
        "swapped": swapped,
        "mean alone": lambda *inputs: step(*inputs)[0],
    },
    "volume-bytes": {
        "full size": lambda *inputs: size(*inputs, stride=1),
        "a quarter of the pixels": lambda *inputs: 4 * size(*inputs),
        "channels forgotten": lambda *inputs: size(*inputs, channels=1),
        "three channels": lambda *inputs: size(*inputs, channels=3),
        "rounded once": rounded_once,
        "rounded up": rounded_up,
        "bits": lambda *inputs: 8 * size(*inputs),
        "numbers, not bytes": lambda w, h, d, b: size(w, h, d, 1),
        "always four bytes": lambda w, h, d, b: size(w, h, d, 4),
        "a float": lambda w, h, d, b: float(size(w, h, d, b)),
    },
    "masked-variance": {
        "no mask": unmasked,
        "zeros for what is not seen": zeros_for_unseen,
        "divided by all views": divided_by_all,
        "mean divided by all views": lambda *inputs: masked(*inputs, by="all"),
        "masked once": lambda *inputs: masked(*inputs, twice=False),
        "NaN through the mask": lambda *inputs: masked(*inputs, where=False),
        "NaN in the gradient": nan_in_the_gradient,
        "unbiased": lambda *inputs: masked(*inputs, unbiased=True),
        "only where all see": only_where_all_see,
        "one mask for a whole view": pooled_mask,
        "axes swapped": lambda x, seen: masked(x, seen.transpose(1, 2)),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
