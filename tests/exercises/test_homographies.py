import math

import torch

from .trials import both_kinds


def applied(H, pixels, transposed=False, divide=True):
    rows = []
    for x, y in pixels.tolist():
        a = (H.T if transposed else H) @ torch.tensor([x, y, 1.0])
        rows.append(a[:2] / a[2] if divide else a[:2])
    return torch.stack(rows)


def from_parts(K, E, L, F, d, inverse=torch.linalg.inv, sign=1.0, axis=2, centres=True):
    """Equation (1), corrected, with the places where it can go wrong."""
    R1, Ri, t1, ti = E[:3, :3], F[:3, :3], E[:3, 3], F[:3, 3]
    step = (-Ri.T @ ti) - (-R1.T @ t1) if centres else ti - t1
    return L @ Ri @ (torch.eye(3) - sign * torch.outer(step, R1[axis]) / d) @ R1.T @ inverse(K)


def by_columns(K, E, L, F, d):
    """The depth moves the third column only."""
    pose = F @ torch.linalg.inv(E)
    H = L @ pose[:3, :3] @ torch.linalg.inv(K)
    H[:, 2] += L @ pose[:3, 3] / d
    return H


def grid(pixels, h, w, less=0, shift=0.0, order=(0, 1)):
    size = torch.tensor([w - less, h - less])[list(order)].clamp(min=1)
    return 2 * (pixels + shift) / size - 1


def read(image, pixel, half=0.5, nearest=False, wrap=False, clamp=False, order=(0, 1), flip=False):
    C, H, W = image.shape
    x, y = (pixel[list(order)] - half).tolist()
    column, row, value = math.floor(x), math.floor(y), torch.zeros(C)
    for j in (0, 1):
        for i in (0, 1):
            weight = abs(1 - i - (x - column)) * abs(1 - j - (y - row))
            weight = abs(i - (x - column)) * abs(j - (y - row)) if flip else weight
            c, r = column + i, row + j
            if clamp:
                c, r = min(max(c, 0), W - 1), min(max(r, 0), H - 1)
            inside = 0 <= c < W and 0 <= r < H
            if inside or (wrap and -W <= c < W and -H <= r < H):
                value = value + weight * image[:, r, c]
    if nearest:
        c, r = math.floor(pixel[0]), math.floor(pixel[1])
        value = image[:, r, c] if 0 <= c < W and 0 <= r < H else torch.zeros(C)
    return value


def steps(pixel, K, E, L, F, depths, power=2, squared=False, from_first=False, half=0.0):
    places = []
    for d in depths.tolist():
        x = by_columns(K, E, L, F, d) @ torch.tensor([*(pixel + half).tolist(), 1.0])
        places.append(x[:2] / x[2])
    places = torch.stack(places)
    moved = places[1:] - (places[:1] if from_first else places[:-1])
    length = moved.abs().pow(power).sum(1).pow(1 / power)
    return length.square() if squared else length


RIGHT = {
    "apply-homography": [applied],
    "homography-of-a-plane": [from_parts, by_columns],
    "to-sampling-grid": [grid],
    "read-bilinear": [read],
    "pixels-per-interval": [steps],
}
WRONG = {
    "apply-homography": {
        "transposed": lambda H, x: applied(H, x, transposed=True),
        "no division": lambda H, x: applied(H, x, divide=False),
        "inverse": lambda H, x: applied(torch.linalg.inv(H + 10 * torch.eye(3)), x),
        "axes swapped": lambda H, x: applied(H, x.flip(-1)).flip(-1),
        "half a pixel off": lambda H, x: applied(H, x + 0.5) - 0.5,
        "divided by its length": lambda H, x: applied(H / H.norm(), x, divide=False),
    },
    "homography-of-a-plane": {
        "K transposed, as printed": lambda *a: from_parts(*a, inverse=lambda K: K.T),
        "t for c, as printed": lambda *a: from_parts(*a, centres=False),
        "wrong sign": lambda *a: from_parts(*a, sign=-1.0),
        "wrong axis": lambda *a: from_parts(*a, axis=1),
        "wrong direction": lambda K, E, L, F, d: from_parts(L, F, K, E, d),
        "inverted": lambda *a: torch.linalg.inv(from_parts(*a)),
        "plane at infinity": lambda K, E, L, F, d: from_parts(K, E, L, F, 1e9),
        "another factor": lambda K, E, L, F, d: d * from_parts(K, E, L, F, d),
    },
    "to-sampling-grid": {
        "minus one": lambda x, h, w: grid(x, h, w, less=1),
        "minus one, centres at integers": lambda x, h, w: grid(x, h, w, less=1, shift=-0.5),
        "half a pixel off": lambda x, h, w: grid(x, h, w, shift=-0.5),
        "sizes swapped": lambda x, h, w: grid(x, h, w, order=(1, 0)),
        "axes swapped": lambda x, h, w: grid(x, h, w).flip(-1),
        "from 0 to 1": lambda x, h, w: (grid(x, h, w) + 1) / 2,
    },
    "read-bilinear": {
        "half a pixel off": lambda image, x: read(image, x, half=0.0),
        "nearest": lambda image, x: read(image, x, nearest=True),
        "last column for column -1": lambda image, x: read(image, x, wrap=True),
        "border repeated": lambda image, x: read(image, x, clamp=True),
        "axes swapped": lambda image, x: read(image, x, order=(1, 0)),
        "weights of the far corner": lambda image, x: read(image, x, flip=True),
    },
    "pixels-per-interval": {
        "from the first plane": lambda *a: steps(*a, from_first=True),
        "squared": lambda *a: steps(*a, squared=True),
        "sum of both axes": lambda *a: steps(*a, power=1),
        "half a pixel off": lambda *a: steps(*a, half=0.5),
        "views swapped": lambda x, K, E, L, F, d: steps(x, L, F, K, E, d),
        "disparity without rotation": lambda x, K, E, L, F, d: steps(x, K, E, L, E, d),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
