import torch

from mvsnet_edu.camera import project

from .trials import both_kinds


def keep(depth, probability, least, known=lambda z: torch.isfinite(z) & (z > 0)):
    return torch.where(known(depth) & ~(probability < least), depth, torch.zeros(()))


def lifted(pixels, depth, intrinsics, extrinsics):
    """Through the inverse of K [R t], pixel by pixel."""
    points = []
    for (u, v), z in zip(pixels.tolist(), depth.tolist(), strict=True):
        in_camera = torch.linalg.solve(intrinsics, torch.tensor([u * z, v * z, z]))
        points.append(torch.linalg.solve(extrinsics, torch.cat([in_camera, torch.ones(1)]))[:3])
    return torch.stack(points)


def trip(pixels, depth, claimed, K, E, Ks, Es):
    there, _ = project(lifted(pixels, depth, K, E), Ks, Es)
    return project(lifted(there, claimed, Ks, Es), K, E)


def reference_depth_back(pixels, depth, claimed, K, E, Ks, Es):
    there, _ = project(lifted(pixels, depth, K, E), Ks, Es)
    return project(lifted(there, depth, Ks, Es), K, E)


def never_left(pixels, depth, claimed, *cameras):
    return pixels, depth


def arrives_in_source(pixels, depth, claimed, K, E, Ks, Es):
    return project(lifted(pixels, depth, K, E), Ks, Es)


def no_world(pixels, depth, claimed, K, E, Ks, Es):
    still = torch.eye(4)
    return trip(pixels, depth, claimed, K, still, Ks, still)


def any_lens(pixels, depth, claimed, K, E, Ks, Es):
    """Right: with the depth given, the source's lens is passed in both directions, and drops out."""
    return trip(pixels, depth, claimed, K, E, K, Es)


def count(reprojection, relative, stride, start=1, both=torch.logical_and, most=1.0, dim=0):
    return start + both(reprojection < most / stride, relative < 0.01).sum(dim)


def precision(kept, right, empty=0.0):
    number = int(kept.sum())
    value = right[kept].float().mean() if number else torch.tensor(empty)
    return value, torch.tensor(number / kept.numel())


RIGHT = {
    "keep-probable": [keep],
    "round-trip": [trip, any_lens],
    "count-views": [count],
    "precision-and-share": [precision],
}
WRONG = {
    "keep-probable": {
        "above, not at least": lambda z, p, least: torch.where((p > least) & (z > 0) & z.isfinite(), z, 0),
        "infinity kept": lambda z, p, least: keep(z, p, least, known=lambda z: z > 0),
        "negative kept": lambda z, p, least: keep(z, p, least, known=torch.isfinite),
        "upside down": lambda z, p, least: torch.where((p < least) & (z > 0) & z.isfinite(), z, 0),
        "probability ignored": lambda z, p, least: keep(z, p, 0.0),
        "mask times depth": lambda z, p, least: z * (p >= least),
        "pixels dropped": lambda z, p, least: z[(p >= least) & (z > 0)],
    },
    "round-trip": {
        "back with the reference's depth": reference_depth_back,
        "never left": never_left,
        "one way": arrives_in_source,
        "poses forgotten": no_world,
        "extrinsics taken for camera to world": lambda a, b, c, K, E, Ks, Es: trip(
            a, b, c, K, torch.linalg.inv(E), Ks, torch.linalg.inv(Es)
        ),
        "pixel only": lambda *inputs: trip(*inputs)[0],
    },
    "count-views": {
        "sources, not views": lambda *inputs: count(*inputs, start=0),
        "in pixels of the depth map": lambda a, b, stride: count(a, b, 1),
        "stride the wrong way": lambda a, b, stride: count(a / stride, b, 1),
        "either": lambda *inputs: count(*inputs, both=torch.logical_or),
        "at most": lambda a, b, stride: 1 + ((a * stride <= 1) & (b < 0.01)).sum(0),
        "pixels without reprojection": lambda a, b, stride: 1 + (b < 0.01).sum(0),
        "without depth": lambda a, b, stride: 1 + (a * stride < 1).sum(0),
        "a mask": lambda *inputs: count(*inputs) >= 3,
    },
    "precision-and-share": {
        "nothing over nothing": lambda kept, right: (right[kept].float().mean(), kept.float().mean()),
        "recall": lambda kept, right: (
            (kept & right).sum() / right.sum().clamp(min=1),
            kept.float().mean(),
        ),
        "right of all": lambda kept, right: ((kept & right).float().mean(), kept.float().mean()),
        "one where empty": lambda kept, right: precision(kept, right, empty=1.0),
        "swapped": lambda kept, right: precision(kept, right)[::-1],
        "agreement": lambda kept, right: ((kept == right).float().mean(), kept.float().mean()),
        "numbers": lambda kept, right: tuple(value.item() for value in precision(kept, right)),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
