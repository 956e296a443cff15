import torch

import mvsnet_edu

from .trials import both_kinds


def grid(height, width, offset=0.5, order=(0, 1)):
    xy = [[((x + offset), (y + offset)) for x in range(width)] for y in range(height)]
    return torch.tensor(xy)[..., list(order)]


def scaled(intrinsics, scale, focal=True, centre=True, shift=0.0):
    K = intrinsics.clone()
    if focal:
        K[[0, 1], [0, 1]] *= scale
    if centre:
        K[:2, 2] = (K[:2, 2] + shift) * scale - shift
    return K


def cropped(intrinsics, left, top):
    K = intrinsics.clone()
    K[0, 2] -= left
    K[1, 2] -= top
    return K


def projected(points, intrinsics, extrinsics):
    pixels, depths = [], []
    for point in points:
        x, y, z = (extrinsics @ torch.cat([point, torch.ones(1)]))[:3]
        pixels.append((intrinsics @ torch.stack([x / z, y / z, torch.ones(())]))[:2])
        depths.append(z)
    return torch.stack(pixels), torch.stack(depths)


def projected_by_matrices(points, intrinsics, extrinsics):
    in_camera = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    x = in_camera @ intrinsics.T
    return x[:, :2] / x[:, 2:], in_camera[:, 2]


def transposed_rotation(points, intrinsics, extrinsics):
    in_camera = points @ extrinsics[:3, :3] + extrinsics[:3, 3]
    x = in_camera @ intrinsics.T
    return x[:, :2] / x[:, 2:], in_camera[:, 2]


def as_camera_to_world(points, intrinsics, extrinsics):
    return projected_by_matrices(points, intrinsics, torch.linalg.inv(extrinsics))


def without_division(points, intrinsics, extrinsics):
    in_camera = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    return (in_camera @ intrinsics.T)[:, :2], in_camera[:, 2]


def distance_for_depth(points, intrinsics, extrinsics):
    in_camera = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    return projected_by_matrices(points, intrinsics, extrinsics)[0], in_camera.norm(dim=1)


def backprojected(depth, K, E, offset=0.5):
    B, h, w = depth.shape
    points = torch.empty(B, h, w, 3)
    for b in range(B):
        for y in range(h):
            for x in range(w):
                z = depth[b, y, x]
                ray_x = (x + offset - K[b, 0, 2]) / K[b, 0, 0]
                ray_y = (y + offset - K[b, 1, 2]) / K[b, 1, 1]
                in_camera = torch.stack([ray_x * z, ray_y * z, z])
                points[b, y, x] = E[b, :3, :3].T @ (in_camera - E[b, :3, 3])
    return points


def backprojected_with(depth, K, E, rotate="bji,bhwj->bhwi", after=False):
    x = torch.cat([grid(*depth.shape[1:]), torch.ones(*depth.shape[1:], 1)], dim=-1)
    rays = torch.einsum("bij,hwj->bhwi", torch.linalg.inv(K), x) * depth[..., None]
    t = E[:, None, None, :3, 3]
    if after:
        return torch.einsum(rotate, E[:, :3, :3], rays) - t
    return torch.einsum(rotate, E[:, :3, :3], rays - t)


def z_from(distance, K, offset=0.5, divide=True, swap=False):
    h, w = distance.shape
    y, x = torch.meshgrid(torch.arange(h) + offset, torch.arange(w) + offset, indexing="ij")
    x, y = (y, x) if swap else (x, y)
    length = torch.sqrt(((x - K[0, 2]) / K[0, 0]) ** 2 + ((y - K[1, 2]) / K[1, 1]) ** 2 + 1)
    return distance / length if divide else distance * length


RIGHT = {
    "pixel-centres": [mvsnet_edu.pixel_grid, grid],
    "scale-intrinsics": [
        mvsnet_edu.scale_intrinsics,
        lambda K, s: torch.diag(torch.tensor([s, s, 1])) @ K,
        scaled,
    ],
    "crop-then-scale": [lambda K, left, top, s: scaled(cropped(K, left, top), s)],
    "camera-center": [mvsnet_edu.camera_center, lambda E: torch.linalg.inv(E)[:3, 3]],
    "project": [mvsnet_edu.project, projected, projected_by_matrices],
    "backproject": [mvsnet_edu.backproject, backprojected, backprojected_with],
    "ray-to-z-depth": [z_from],
}
WRONG = {
    "pixel-centres": {
        "half a pixel off": lambda h, w: grid(h, w, offset=0.0),
        "y before x": lambda h, w: grid(h, w, order=(1, 0)),
        "sizes swapped": lambda h, w: grid(w, h),
        "rows of the wrong length": lambda h, w: grid(w, h).reshape(h, w, 2),
        "one too far": lambda h, w: grid(h, w, offset=1.0),
        "integers": lambda h, w: grid(h, w).long(),
    },
    "scale-intrinsics": {
        "last row too": lambda K, s: K * s,
        "focal length only": lambda K, s: scaled(K, s, centre=False),
        "principal point only": lambda K, s: scaled(K, s, focal=False),
        "half a pixel off": lambda K, s: scaled(K, s, shift=0.5),
        "wrong direction": lambda K, s: scaled(K, 1 / s),
        "columns for rows": lambda K, s: K * torch.tensor([s, s, 1]),
        "as it was": lambda K, s: K,
    },
    "crop-then-scale": {
        "scaled first": lambda K, left, top, s: cropped(scaled(K, s), left, top),
        "wrong sign": lambda K, left, top, s: scaled(cropped(K, -left, -top), s),
        "swapped axes": lambda K, left, top, s: scaled(cropped(K, top, left), s),
        "crop forgotten": lambda K, left, top, s: scaled(K, s),
        "last row too": lambda K, left, top, s: cropped(K, left, top) * s,
        "half a pixel off": lambda K, left, top, s: scaled(cropped(K, left, top), s, shift=0.5),
    },
    "camera-center": {
        "translation": lambda E: E[:3, 3],
        "minus translation": lambda E: -E[:3, 3],
        "wrong sign": lambda E: E[:3, :3].T @ E[:3, 3],
        "rotation not inverted": lambda E: -E[:3, :3] @ E[:3, 3],
        "homogeneous": lambda E: torch.linalg.inv(E)[:, 3],
    },
    "project": {
        "rotation transposed": transposed_rotation,
        "extrinsics inverted": as_camera_to_world,
        "no division": without_division,
        "distance for depth": distance_for_depth,
        "half a pixel off": lambda X, K, E: (projected(X, K, E)[0] - 0.5, projected(X, K, E)[1]),
        "axes swapped": lambda X, K, E: (projected(X, K, E)[0].flip(-1), projected(X, K, E)[1]),
        "translation forgotten": lambda X, K, E: projected_by_matrices(X, K, E * (1 - torch.eye(4)[3])),
        "depth never negative": lambda X, K, E: (projected(X, K, E)[0], projected(X, K, E)[1].abs()),
        "focal lengths swapped": lambda X, K, E: projected(X, K[[1, 0, 2]][:, [1, 0, 2]], E),
    },
    "backproject": {
        "half a pixel off": lambda z, K, E: backprojected(z, K, E, offset=0.0),
        "rotation not inverted": lambda z, K, E: backprojected_with(z, K, E, rotate="bij,bhwj->bhwi"),
        "rotated before shifted": lambda z, K, E: backprojected_with(z, K, E, after=True),
        "in camera coordinates": lambda z, K, E: backprojected(z, K, torch.eye(4).expand_as(E)),
        "cameras of the first image": lambda z, K, E: backprojected(
            z, K[:1].expand_as(K), E[:1].expand_as(E)
        ),
        "coordinates first": lambda z, K, E: backprojected(z, K, E).movedim(-1, 1),
    },
    "ray-to-z-depth": {
        "wrong direction": lambda r, K: z_from(r, K, divide=False),
        "half a pixel off": lambda r, K: z_from(r, K, offset=0.0),
        "axes swapped": lambda r, K: z_from(r, K, swap=True),
        "same thing": lambda r, K: r,
        "principal point forgotten": lambda r, K: z_from(r, torch.diag(K.diagonal())),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
