import math

import torch

from .trials import both_kinds


def seen_angle(height, width, degrees, over=None, centre=0.0):
    f = (over or width) / 2 / math.tan(math.radians(degrees / 2))
    return torch.tensor([[f, 0, width / 2 + centre], [0, f, height / 2 + centre], [0, 0, 1]])


def pose_by_parts(E_ref, E_src):
    R = E_src[:3, :3] @ E_ref[:3, :3].T
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = R, E_src[:3, 3] - R @ E_ref[:3, 3]
    return pose


def pose_without_turning_t(E_ref, E_src):
    pose = pose_by_parts(E_ref, E_src)
    pose[:3, 3] = E_src[:3, 3] - E_ref[:3, 3]
    return pose


def seen(pixel, K_ref, E_ref, K_src, E_src, depths, half=0.0, unit=False, there_and_back=True):
    """One depth at a time, in steps that a mutant can change."""
    found = []
    for d in depths.tolist():
        ray = torch.stack([(pixel[i] + half - K_ref[i, 2]) / K_ref[i, i] for i in (0, 1)] + [torch.ones(())])
        ray = ray / ray.norm() if unit else ray
        world = torch.linalg.solve(E_ref, torch.cat([d * ray, torch.ones(1)]))
        world = world if there_and_back else E_ref @ torch.cat([d * ray, torch.ones(1)])
        x, y, z = (E_src @ world)[:3]
        found.append(K_src[:2, :2] @ torch.stack([x / z, y / z]) + K_src[:2, 2])
    return torch.stack(found)


def centre_seen(E_ref, K, E_src, centre=lambda E: torch.linalg.inv(E)[:3, 3], divide=True):
    x = K @ (E_src[:3, :3] @ centre(E_ref) + E_src[:3, 3])
    return x[:2] / x[2] if divide else x[:2]


def by_two_rays(pixel, match, K_ref, E_ref, K_src, E_src):
    """Where two rays in the world come closest, as lengths along both."""
    starts, rays = [], []
    for x, K, E in ((pixel, K_ref, E_ref), (match, K_src, E_src)):
        starts.append(torch.linalg.inv(E)[:3, 3])
        rays.append(E[:3, :3].T @ torch.linalg.inv(K) @ torch.cat([x, torch.ones(1)]))
    lengths = torch.linalg.lstsq(torch.stack([rays[0], -rays[1]], 1), (starts[1] - starts[0])[:, None])
    return lengths.solution[0, 0]


def by_x_only(pixel, match, K_ref, E_ref, K_src, E_src):
    pose = E_src @ torch.linalg.inv(E_ref)
    a = K_src @ pose[:3, :3] @ torch.linalg.inv(K_ref) @ torch.cat([pixel, torch.ones(1)])
    b = K_src @ pose[:3, 3]
    return (b[0] - match[0] * b[2]) / (match[0] * a[2] - a[0])


def swapped_views(pixel, match, K_ref, E_ref, K_src, E_src):
    return by_two_rays(match, pixel, K_src, E_src, K_ref, E_ref)


RIGHT = {
    "intrinsics-from-angle": [seen_angle],
    "relative-pose": [pose_by_parts, lambda E_ref, E_src: torch.linalg.solve(E_ref.T, E_src.T).T],
    "epipolar-candidates": [seen],
    "find-epipole": [centre_seen],
    "depth-from-match": [by_two_rays],
}
WRONG = {
    "intrinsics-from-angle": {
        "whole angle": lambda h, w, a: seen_angle(h, w, 2 * a if a < 90 else a / 2),
        "height for width": lambda h, w, a: seen_angle(h, w, a, over=h),
        "between centres, not edges": lambda h, w, a: seen_angle(h, w, a, over=w - 1),
        "half a pixel off": lambda h, w, a: seen_angle(h, w, a, centre=-0.5),
        "axes swapped": lambda h, w, a: seen_angle(w, h, a, over=w),
        "radians": lambda h, w, a: seen_angle(h, w, math.degrees(a)),
    },
    "relative-pose": {
        "wrong direction": lambda E_ref, E_src: pose_by_parts(E_src, E_ref),
        "wrong order": lambda E_ref, E_src: torch.linalg.inv(E_ref) @ E_src,
        "transposed for inverted": lambda E_ref, E_src: E_src @ E_ref.T,
        "t not turned": pose_without_turning_t,
        "not inverted": lambda E_ref, E_src: E_src @ E_ref,
    },
    "epipolar-candidates": {
        "half a pixel off": lambda x, *rest: seen(x, *rest, half=0.5),
        "ray length for depth": lambda x, *rest: seen(x, *rest, unit=True),
        "extrinsics not inverted": lambda x, *rest: seen(x, *rest, there_and_back=False),
        "axes swapped": lambda x, *rest: seen(x, *rest).flip(-1),
        "views swapped": lambda x, K, E, L, F, d: seen(x, L, F, K, E, d),
        "one camera's intrinsics for both": lambda x, K, E, L, F, d: seen(x, K, E, K, F, d),
        "nearest last": lambda x, *rest: seen(x, *rest).flip(0),
    },
    "find-epipole": {
        "the translation": lambda *a: centre_seen(*a, centre=lambda E: E[:3, 3]),
        "wrong sign": lambda *a: centre_seen(*a, centre=lambda E: E[:3, :3].T @ E[:3, 3]),
        "no division": lambda *a: centre_seen(*a, divide=False),
        "views swapped": lambda E_ref, K, E_src: centre_seen(E_src, K, E_ref),
        "axes swapped": lambda *a: centre_seen(*a).flip(-1),
        "half a pixel off": lambda *a: centre_seen(*a) - 0.5,
        "the principal point": lambda E_ref, K, E_src: K[:2, 2],
    },
    "depth-from-match": {
        "depth in the source": swapped_views,
        "one equation only": by_x_only,
        "inverse": lambda *a: 1 / by_two_rays(*a),
        "wrong sign": lambda *a: -by_two_rays(*a),
        "half a pixel off": lambda x, m, *rest: by_two_rays(x + 0.5, m + 0.5, *rest),
        "extrinsics inverted": lambda x, m, K, E, L, F: by_two_rays(
            x, m, K, torch.linalg.inv(E), L, torch.linalg.inv(F)
        ),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
