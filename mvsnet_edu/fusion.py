"""From depth maps to one point cloud: distrust, compare between views, average, and say everything once.

Cameras are in pixels of the images the network saw, as everywhere; depth maps are ``stride`` times smaller.
Distances between pixels are measured in pixels of the images too: the same threshold, applied to pixels of
a depth map a quarter of the size, would be four times looser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import backproject, pixel_grid, project, scale_intrinsics
from .data.ply import PointCloud
from .features import STRIDE

__all__ = [
    "Consistency",
    "FilteredDepths",
    "depth_normals",
    "filter_depth_maps",
    "fuse_depth_maps",
    "geometric_consistency",
    "sample_depth",
]

#: One tensor for each view, stacked or not.
Maps = Sequence[Tensor] | Tensor
Camera = tuple[Tensor, Tensor]  # intrinsics and extrinsics

#: With dynamic consistency, the thresholds are those given when so many sources agree.
USUAL_SOURCES = 4

#: Neighbouring pixels whose depths differ by more than this share lie on two surfaces. A plane that is
#: tilted by 80 degrees stays below, in a depth map 160 pixels wide.
EDGE = 0.05


class Consistency(NamedTuple):
    """How one source view confirms a reference's depth map, pixel by pixel.

    Attributes:
        reprojection_error: (h, w), in pixels of the depth map; infinite where the source has nothing to say.
        relative_depth_error: (h, w), a share of the reference's depth; infinite there too.
        depth: (h, w), the depth that the source claims, seen from the reference; infinite there too.
    """

    reprojection_error: Tensor
    relative_depth_error: Tensor
    depth: Tensor


class FilteredDepths(NamedTuple):
    """What :func:`filter_depth_maps` keeps.

    Attributes:
        depths: for each view (h, w), the mean depth over the views that agree; 0 where too few do.
        views: for each view (h, w), how many agree, itself included; 0 where its own probability is too low.
    """

    depths: list[Tensor]
    views: list[Tensor]


def geometric_consistency(
    ref_depth: Tensor,
    ref_intrinsics: Tensor,
    ref_extrinsics: Tensor,
    src_depth: Tensor,
    src_intrinsics: Tensor,
    src_extrinsics: Tensor,
) -> Consistency:
    """Go from every reference pixel to the source by the reference's depth, and back by the source's.

    Two depth maps that agree lead back to where the way began, and to the depth it began with.

    Args:
        ref_depth: (h, w), in world units; 0 where not measured.
        ref_intrinsics: (3, 3), in pixels of the depth map.
        ref_extrinsics: (4, 4), world to camera.
        src_depth: (h', w'), in world units; 0 where not measured.
        src_intrinsics: (3, 3), in pixels of the depth map.
        src_extrinsics: (4, 4), world to camera.

    Returns:
        the distance between start and end in pixels, the difference in depth as a share, the depth at the
        end.

    Source: section 4.2 of the paper, geometric filtering; its code was never released.

    >>> K = torch.tensor([[8.0, 0, 4], [0, 8, 3], [0, 0, 1]])
    >>> aside = torch.eye(4)
    >>> aside[0, 3] = -0.5
    >>> near, far = torch.full((6, 8), 2.0), torch.full((6, 8), 2.5)
    >>> check = geometric_consistency(near, K, torch.eye(4), far, K, aside)
    >>> check.depth[0, 5], check.relative_depth_error[0, 5], check.reprojection_error[0, 5]
    (tensor(2.5000), tensor(0.2500), tensor(0.4000))
    """
    h, w = ref_depth.shape
    points = backproject(ref_depth[None], ref_intrinsics[None], ref_extrinsics[None])[0]  # (h, w, 3)
    pixels, depth = project(points, src_intrinsics, src_extrinsics)  # (h, w, 2), (h, w)
    claimed = sample_depth(src_depth, pixels)  # (h, w)
    points = _backproject_at(pixels, claimed, src_intrinsics, src_extrinsics)  # (h, w, 3)
    back, back_depth = project(points, ref_intrinsics, ref_extrinsics)
    distance = (back - pixel_grid(h, w, dtype=back.dtype, device=back.device)).norm(dim=-1)
    relative = (back_depth - ref_depth).abs() / ref_depth
    known = (ref_depth > 0) & (depth > 0) & (claimed > 0) & (back_depth > 0)
    return Consistency(*(torch.where(known, value, torch.inf) for value in (distance, relative, back_depth)))


def sample_depth(depth: Tensor, pixels: Tensor) -> Tensor:
    """A depth map read between its pixel centres, without ever mixing two surfaces.

    On a plane 1 / depth is an affine function of the pixel, so it is 1 / depth that is interpolated, and
    extrapolated over the last half pixel at the borders. Where the four neighbours are not one surface (one
    is not measured, or they differ by more than 5 %), the nearest one counts alone: between a near and a
    far surface there is nothing.

    Args:
        depth: (h, w), 0 or non-finite where not measured.
        pixels: (..., 2), x and y in pixels of the depth map.

    Returns:
        (...), in world units; 0 outside the map and where nothing was measured.

    Source: ours; the ports interpolate depth bilinearly, across edges too.

    >>> depth = torch.tensor([[1.0, 1.02, 9.0], [1.0, 1.02, 9.0]])
    >>> sample_depth(depth, torch.tensor([[1.0, 1.0], [1.8, 1.0], [2.2, 1.0], [3.5, 1.0]]))
    tensor([1.0099, 1.0200, 9.0000, 0.0000])
    """
    h, w = depth.shape
    depth = torch.where(depth.isfinite() & (depth > 0), depth, 0)
    size = torch.tensor([w, h], device=depth.device)
    inside = ((pixels >= 0) & (pixels < size)).all(dim=-1)  # not where a pixel is NaN
    pixels = torch.where(inside.unsqueeze(-1), pixels, 0)
    low = torch.minimum((pixels - 0.5).floor(), size - 2).clamp(min=0).long()  # (..., 2), upper left
    fx, fy = (pixels - 0.5 - low).unbind(dim=-1)
    weights = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], dim=-1)
    steps = low.new_tensor([(0, 0), (1, 0), (0, 1), (1, 1)])
    near = _read(depth, low.unsqueeze(-2) + steps)  # (..., 4)
    one_surface = (near.amin(dim=-1) > 0) & (near.amax(dim=-1) <= near.amin(dim=-1) * (1 + EDGE))
    between = 1 / (weights / near).sum(dim=-1)
    nearest = _read(depth, pixels.long())
    return torch.where(inside, torch.where(one_surface, between, nearest), 0)


@torch.no_grad()
def filter_depth_maps(
    depths: Maps,
    probabilities: Maps,
    intrinsics: Maps,
    extrinsics: Maps,
    *,
    min_probability: float = 0.8,
    max_reprojection: float = 1.0,
    max_relative_depth: float = 0.01,
    min_views: int = 3,
    sources: Sequence[Sequence[int]] | None = None,
    dynamic: bool = False,
    stride: int = STRIDE,
) -> FilteredDepths:
    """Keep the depths that are probable and that other views confirm, and average over those views.

    First every view drops what is improbable; what a view has dropped confirms nothing in another one. Then
    every view is compared with its sources.

    Dynamic consistency asks for less precision the more sources agree. With both thresholds multiplied by
    k / 4, a pixel is kept if at least k sources agree, for some k from ``min_views - 1`` on; the largest such
    k decides which sources do. So two sources must agree within half of the thresholds, four within the
    thresholds themselves, and eight within twice as much.

    Args:
        depths: V maps (h, w), in world units; 0 where not measured.
        probabilities: V maps (h, w), in [0, 1].
        intrinsics: V matrices (3, 3), in pixels of the images.
        extrinsics: V matrices (4, 4), world to camera.
        min_probability: the least probability to keep.
        max_reprojection: two views agree below this reprojection error, in pixels of the images.
        max_relative_depth: two views agree below this difference in depth, as a share of the depth.
        min_views: how many views must agree, the reference itself included: 3 asks for two sources.
        sources: for each view the positions of those it is compared with; all others if None.
        dynamic: thresholds that grow with the number of sources that agree.
        stride: image pixels per pixel of the depth maps, in each direction.

    Returns:
        the filtered maps and the counts, in float64.

    Raises:
        ValueError: if the four sequences differ in length, or ``min_views`` is below 1.

    Source: section 4.2 of the paper, photometric and geometric filtering; the idea of ``dynamic`` is that of
    D2HC-RMVSNet (Yan et al. 2020), whose code scales thresholds of 1/4 pixel and 1/1300 of the depth by k.

    >>> K, pose = torch.tensor([[32.0, 0, 16], [0, 32, 12], [0, 0, 1]]), torch.eye(4)
    >>> depth = torch.tensor([2.0, 2.01, 2.5]).view(3, 1, 1).expand(3, 6, 8)
    >>> kept = filter_depth_maps(depth, torch.ones(3, 6, 8), [K] * 3, [pose] * 3, min_views=2)
    >>> [round(float(view[0, 0]), 4) for view in kept.depths], [int(view[0, 0]) for view in kept.views]
    ([2.005, 2.005, 0.0], [2, 2, 1])
    """
    _check(len(depths), min_views, probabilities=probabilities, intrinsics=intrinsics, extrinsics=extrinsics)
    cameras = _cameras(intrinsics, extrinsics, stride)
    probable = [_probable(*maps, min_probability) for maps in zip(depths, probabilities, strict=True)]
    limits = max_reprojection / stride, max_relative_depth
    result = FilteredDepths([], [])
    for ref, depth in enumerate(probable):
        checks = [
            geometric_consistency(depth, *cameras[ref], probable[src], *cameras[src])
            for src in _sources_of(ref, len(depths), sources)
        ]
        scale = _largest_scale(checks, limits, torch.zeros_like(depth)) if dynamic else 1
        total, views = depth.clone(), (depth > 0).long()
        for check in checks:
            agrees = _agrees(check, limits, scale)
            total += torch.where(agrees, check.depth, 0)
            views += agrees
        result.depths.append(torch.where(views >= min_views, total / views.clamp(min=1), 0))
        result.views.append(views)
    return result


@torch.no_grad()
def fuse_depth_maps(
    depths: Maps,
    probabilities: Maps,
    images: Maps,
    intrinsics: Maps,
    extrinsics: Maps,
    *,
    min_probability: float = 0.8,
    max_reprojection: float = 1.0,
    max_relative_depth: float = 0.01,
    min_views: int = 3,
    sources: Sequence[Sequence[int]] | None = None,
    dynamic: bool = False,
    masks: Maps | None = None,
) -> PointCloud:
    """Filter depth maps and turn what remains into one cloud in which every surface appears once.

    Views speak in turn. A point takes its place from the averaged depth, its colour from its view's image
    and its normal from its view's depth map; then it claims the pixel it falls in, in every source that
    agrees with it, and those pixels stay silent when their turn comes.

    Args:
        depths: V maps (h, w), in world units; 0 where not measured.
        probabilities: V maps (h, w), in [0, 1].
        images: V images (3, H, W), RGB in [0, 1], a whole number of times the size of the depth maps.
        intrinsics: V matrices (3, 3), in pixels of the images.
        extrinsics: V matrices (4, 4), world to camera.
        min_probability: see :func:`filter_depth_maps`, as for the others.
        max_reprojection: in pixels of the images.
        max_relative_depth: a share of the depth.
        min_views: the reference itself included.
        sources: for each view the positions of those it is compared with; all others if None.
        dynamic: thresholds that grow with the number of sources that agree.
        masks: V masks (H, W) like the images, True where a view may be believed: a pixel of a depth map that
            covers any False gives no point, and confirms none.

    Returns:
        the cloud; without points if nothing passes the filters.

    Raises:
        ValueError: if the sequences differ in length, a depth map does not fit its image, or ``min_views`` is
            below 1.

    Source: section 4.2 of the paper; Merrell et al. 2007 for the idea of settling visibility view by view.

    >>> K, pose = torch.tensor([[32.0, 0, 16], [0, 32, 12], [0, 0, 1]]), torch.eye(4)
    >>> depth, images = torch.full((3, 6, 8), 2.0), torch.rand(3, 3, 24, 32)
    >>> cloud = fuse_depth_maps(depth, torch.ones(3, 6, 8), images, [K] * 3, [pose] * 3)
    >>> len(cloud), cloud.points[0].tolist(), cloud.normals[0].tolist()
    (48, [-0.875, -0.625, 2.0], [0.0, 0.0, -1.0])
    """
    _check(len(depths), min_views, images=images, **({} if masks is None else {"masks": masks}))
    stride = _stride(depths, images)
    if masks is not None:
        depths = [_masked(*maps, stride) for maps in zip(depths, masks, strict=True)]
    filtered, _ = filter_depth_maps(
        depths,
        probabilities,
        intrinsics,
        extrinsics,
        min_probability=min_probability,
        max_reprojection=max_reprojection,
        max_relative_depth=max_relative_depth,
        min_views=min_views,
        sources=sources,
        dynamic=dynamic,
        stride=stride,
    )
    cameras = _cameras(intrinsics, extrinsics, stride)
    silent = [depth == 0 for depth in filtered]
    clouds = []
    for ref, depth in enumerate(filtered):
        speaks = ~silent[ref]
        points = backproject(depth[None], *(matrix[None] for matrix in cameras[ref]))[0][speaks]  # (N, 3)
        normals = depth_normals(depths[ref].double(), *cameras[ref])[speaks]
        clouds.append((points, _shrink(images[ref], stride)[:, speaks].T, normals))
        for src in _sources_of(ref, len(depths), sources):
            _claim(silent[src], points, filtered[src], cameras[src], max_relative_depth)
    points, colors, normals = (torch.cat(parts).cpu().numpy() for parts in zip(*clouds, strict=True))
    return PointCloud(points, (colors * 255).round().clip(0, 255), normals)


def depth_normals(depth: Tensor, intrinsics: Tensor, extrinsics: Tensor, radius: int = 2) -> Tensor:
    """The direction of the surface at each pixel of a depth map.

    On a plane 1 / depth = a . (x, y, 1), and the plane's normal is -K^T a: it always faces the camera. The
    gradient of 1 / depth comes from a least-squares fit over the neighbours on the same surface. A pixel
    without any is taken to be parallel to the image.

    Args:
        depth: (h, w), in world units; 0 or non-finite where not measured.
        intrinsics: (3, 3), in pixels of the depth map.
        extrinsics: (4, 4), world to camera.
        radius: neighbours are at most so many columns and rows away.

    Returns:
        (h, w, 3), unit vectors in the world; meaningless where the depth is not measured.

    Source: ours.

    >>> K = torch.tensor([[40.0, 0, 4], [0, 40, 3], [0, 0, 1]])
    >>> x = (pixel_grid(6, 8)[..., 0] - 4) / 40
    >>> normals = depth_normals(2 / (1 - 0.75 * x), K, torch.eye(4))  # the plane z = 2 + 0.75 x
    >>> bool((normals - torch.tensor([0.6, 0.0, -0.8])).abs().max() < 1e-5)
    True
    """
    h, w = depth.shape
    inverse = torch.where(depth.isfinite() & (depth > 0), 1 / depth, 0)
    gx, gy = _gradient(inverse, radius)  # (h, w) each
    x, y = pixel_grid(h, w, dtype=depth.dtype, device=depth.device).unbind(dim=-1)
    plane = torch.stack([gx, gy, inverse - gx * x - gy * y], dim=-1)  # (h, w, 3)
    return F.normalize(-plane @ intrinsics @ extrinsics[:3, :3], dim=-1, eps=torch.finfo(depth.dtype).tiny)


def _gradient(values: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Least-squares slopes of (h, w) along x and y, over the neighbours on the same surface."""
    h, w = values.shape
    width = 2 * radius + 1
    near = F.unfold(values[None, None], width, padding=radius).view(-1, h, w)  # (n, h, w), 0 outside
    offsets = pixel_grid(width, width, dtype=values.dtype, device=values.device) - width / 2
    dx, dy = offsets.view(-1, 2, 1, 1).unbind(dim=1)  # (n, 1, 1) each
    rise = near - values
    same = (near > 0) & (rise.abs() <= EDGE * values)
    terms = (dx * dx, dx * dy, dy * dy, dx * rise, dy * rise)
    xx, xy, yy, xr, yr = ((same * term).sum(dim=0) for term in terms)  # (h, w) each
    determinant = xx * yy - xy * xy  # 0 where the neighbours lie on one line, or there are none
    per = torch.where(determinant > 0.5, 1 / determinant, 0)  # a whole number
    return (yy * xr - xy * yr) * per, (xx * yr - xy * xr) * per


def _claim(silent: Tensor, points: Tensor, depth: Tensor, camera: Camera, tolerance: float) -> None:
    """Silence the pixels of one view that these points already stand for."""
    pixels, z = project(points, *camera)  # (N, 2), (N)
    agrees = (z > 0) & ((sample_depth(depth, pixels) - z).abs() < tolerance * z)
    x, y = pixels[agrees].long().unbind(dim=-1)
    silent[y, x] = True


def _backproject_at(pixels: Tensor, depth: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    """World points (..., 3) seen at any pixels (..., 2), at these depths (...)."""
    rays = F.pad(pixels, (0, 1), value=1.0) @ torch.linalg.inv(intrinsics).T  # (..., 3), z = 1
    return (rays * depth.unsqueeze(-1) - extrinsics[:3, 3]) @ extrinsics[:3, :3]  # R^T (x - t), for rows


def _read(depth: Tensor, index: Tensor) -> Tensor:
    """Depth (...) at whole columns and rows (..., 2), kept inside the map."""
    h, w = depth.shape
    return depth[index[..., 1].clamp(0, h - 1), index[..., 0].clamp(0, w - 1)]


def _probable(depth: Tensor, probability: Tensor, least: float) -> Tensor:
    """The depth in float64 (cameras may stand far from the origin), 0 where improbable or not measured."""
    good = depth.isfinite() & (depth > 0) & (probability >= least)
    return torch.where(good, depth.double(), 0)


def _masked(depth: Tensor, mask: Tensor, stride: int) -> Tensor:
    """The depth, 0 where its pixel covers any False of the mask (H, W)."""
    h, w = depth.shape
    if (mask.shape[0] // stride, mask.shape[1] // stride) != (h, w):
        raise ValueError(f"a depth map {(h, w)} does not fit a mask {tuple(mask.shape)}")
    covered = _shrink(mask.to(depth)[None], stride)[0]  # (h, w), the share of True
    return torch.where(covered == 1, depth, 0)


def _agrees(check: Consistency, limits: tuple[float, float], scale: float | Tensor) -> Tensor:
    """Where a source confirms the reference, (h, w), with both limits multiplied by the scale."""
    near = check.reprojection_error < limits[0] * scale
    return near & (check.relative_depth_error < limits[1] * scale)


def _largest_scale(checks: list[Consistency], limits: tuple[float, float], largest: Tensor) -> Tensor:
    """k / 4 for the largest k such that k sources agree at this scale, (h, w); unchanged where none is."""
    for k in range(1, len(checks) + 1):
        agreeing = sum(_agrees(check, limits, k / USUAL_SOURCES).long() for check in checks)
        largest = torch.where(agreeing >= k, k / USUAL_SOURCES, largest)
    return largest


def _cameras(intrinsics: Maps, extrinsics: Maps, stride: int) -> list[Camera]:
    """In float64, and in pixels of the depth maps."""
    pairs = zip(intrinsics, extrinsics, strict=True)
    return [(scale_intrinsics(K.double(), 1 / stride), E.double()) for K, E in pairs]


def _sources_of(ref: int, total: int, sources: Sequence[Sequence[int]] | None) -> Sequence[int]:
    return [view for view in range(total) if view != ref] if sources is None else sources[ref]


def _shrink(image: Tensor, stride: int) -> Tensor:
    """(3, H, W) -> (3, h, w), the mean colour under each pixel of the depth map."""
    return F.avg_pool2d(image, stride)  # like the network, it leaves a remainder of rows and columns out


def _stride(depths: Maps, images: Maps) -> int:
    stride = max(1, round(images[0].shape[-1] / depths[0].shape[-1]))
    for depth, image in zip(depths, images, strict=True):
        H, W = image.shape[-2:]
        if depth.shape != (H // stride, W // stride):
            raise ValueError(f"a depth map {tuple(depth.shape)} does not fit an image of {H} x {W} pixels")
    return stride


def _check(total: int, min_views: int, **others: Maps) -> None:
    if min_views < 1:
        raise ValueError(f"min_views counts the reference too, so it is at least 1, not {min_views}")
    for name, values in others.items():
        if len(values) != total:
            raise ValueError(f"{total} depth maps need as many {name}, not {len(values)}")
