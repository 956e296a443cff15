import math

import torch

from .trials import both_kinds


def by_factor(factor):
    """Distortion that multiplies the ray by some function of it and k."""

    def distort(pixels, focal, centre, k):
        x = (pixels - centre) / focal
        return centre + focal * x * factor(x, k)

    return distort


def squared(x):
    return (x * x).sum(dim=1, keepdim=True)


def distort_by_loop(pixels, focal, centre, k):
    rows = []
    for u, v in pixels.tolist():
        x, y = (u - centre[0].item()) / focal, (v - centre[1].item()) / focal
        stretch = 1 + k * (x * x + y * y)
        rows.append([centre[0].item() + focal * x * stretch, centre[1].item() + focal * y * stretch])
    return torch.tensor(rows)


def in_pixels(pixels, focal, centre, k):
    x = pixels - centre
    return centre + x * (1 + k * squared(x))


def undistort_by_bisection(pixels, focal, centre, k):
    rows = []
    for pixel in pixels:
        x = (pixel - centre).double() / focal
        low, high, length = 0.0, 3.0 * x.norm().item() + 1e-9, x.norm().item()
        high = min(high, 1.2)  # the distortion still grows there
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if middle * (1 + k * middle**2) < length else (low, middle)
        rows.append(centre + focal * (x * (low / length if length else 0)).float())
    return torch.stack(rows)


def undistort_by_newton(pixels, focal, centre, k):
    x = (pixels - centre) / focal
    length = x.norm(dim=1, keepdim=True)
    r = length
    for _ in range(30):
        r = r - (r * (1 + k * r * r) - length) / (1 + 3 * k * r * r)
    return centre + focal * x * r / length.clamp(min=1e-9)


def iterated(pixels, focal, centre, k, steps=50, from_guess=False, sign=1):
    x = (pixels - centre) / focal
    guess = x
    for _ in range(steps):
        guess = (guess if from_guess else x) / (1 + sign * k * squared(guess))
    return centre + focal * guess


def align(a, b, fix=True, scale_of="svd", centred=True, transposed=False):
    mean_a, mean_b = (a.mean(0), b.mean(0)) if centred else (torch.zeros(3), torch.zeros(3))
    a0, b0 = a - mean_a, b - mean_b
    u, s, vt = torch.linalg.svd(b0.T @ a0)
    sign = torch.ones(3)
    if fix and torch.linalg.det(u @ vt) < 0:
        sign[2] = -1
    R = (u * sign) @ vt
    spread = (b0.square().sum() / a0.square().sum()).sqrt()
    scale = {"svd": (s * sign).sum() / a0.square().sum(), "spread": spread, "one": torch.ones(())}[scale_of]
    shift = mean_b - scale * R @ mean_a
    return scale, R.T if transposed else R, shift


def mirrored(a, b):
    scale, R, shift = align(a, b)
    n = torch.linalg.cross(a[1] - a[0], a[2] - a[0])
    n = n / n.norm()
    R = R @ (torch.eye(3) - 2 * torch.outer(n, n))  # right for points of a plane through the origin
    return scale, R, b.mean(0) - scale * R @ a.mean(0)


def affine(a, b):
    one = torch.linalg.pinv(a - a.mean(0)) @ (b - b.mean(0))
    return torch.ones(()), one.T, b.mean(0) - one.T @ a.mean(0)


def inverse(a, b):
    return align(b, a)


RIGHT = {
    "distort-pixels": [distort_by_loop, by_factor(lambda x, k: 1 + k * x.norm(dim=1, keepdim=True) ** 2)],
    "undistort-pixels": [undistort_by_bisection, undistort_by_newton, iterated],
    "depth-error": [
        lambda z, f, b, e: z**2 / (f * b) * e,
        lambda z, f, b, e: torch.autograd.functional.jacobian(lambda z: (f * b / z).sum(), z).abs() ** -1 * e,
    ],
    "align-points": [align, lambda a, b: align(a, b, scale_of="spread")],
}
WRONG = {
    "distort-pixels": {
        "the other way": by_factor(lambda x, k: 1 / (1 + k * squared(x))),
        "r to the first power": by_factor(lambda x, k: 1 + k * squared(x).sqrt()),
        "r to the fourth": by_factor(lambda x, k: 1 + k * squared(x) ** 2),
        "coordinate by coordinate": by_factor(lambda x, k: 1 + k * x * x),
        "wrong sign": by_factor(lambda x, k: 1 - k * squared(x)),
        "r in pixels": in_pixels,
        "around the corner": lambda p, f, c, k: distort_by_loop(p, f, torch.zeros(2), k),
        "centre forgotten at the end": lambda p, f, c, k: distort_by_loop(p, f, c, k) - c,
    },
    "undistort-pixels": {
        "one step": lambda *inputs: iterated(*inputs, steps=1),
        "distorted once more": distort_by_loop,
        "k turned around": lambda p, f, c, k: distort_by_loop(p, f, c, -k),
        "from the guess": lambda *inputs: iterated(*inputs, steps=5, from_guess=True),
        "wrong sign": lambda *inputs: iterated(*inputs, sign=-1),
        "as it is": lambda pixels, *_: pixels.clone(),
    },
    "depth-error": {
        "not squared": lambda z, f, b, e: z * e / (f * b),
        "squared error": lambda z, f, b, e: z**2 * e**2 / (f * b),
        "upside down": lambda z, f, b, e: f * b * e / z**2,
        "negative": lambda z, f, b, e: -(z**2) * e / (f * b),
        "focal forgotten": lambda z, f, b, e: z**2 * e / b,
        "not to first order": lambda z, f, b, e: f * b / (f * b / z - e) - z,
        "relative": lambda z, f, b, e: z * e / (f * b) * math.sqrt(2),
    },
    "align-points": {
        "reflections allowed": mirrored,
        "without the scale": lambda a, b: align(a, b, scale_of="one"),
        "means not taken away": lambda a, b: align(a, b, centred=False),
        "rotation transposed": lambda a, b: align(a, b, transposed=True),
        "from targets to points": inverse,
        "any matrix": affine,
        "scale squared": lambda a, b: (align(a, b)[0] ** 2, *align(a, b)[1:]),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
