"""Depth maps for every view of a scene folder, written so that a stopped run can go on.

Memory decides how a view is done. A photograph's features are computed once and kept for the pairs to come.
The cost volume lives a few planes at a time. A view for which there is not enough is cut into tiles.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import scale_intrinsics
from .data.formats import Camera, atomic_write, image_size, read_cam, read_pfm, write_cam, write_pfm
from .data.scene import Scene, camera_path, refuse_small
from .enlargement import enlarge_images, pool_estimate
from .errors import InputError
from .features import CHANNELS, STRIDE
from .locking import locked
from .memory import free_memory, is_out_of_memory, keep_freed_memory
from .models import PLANES, DepthEstimate, MVSNet, RMVSNet
from .streaming import SLAB
from .subsets import Subsets, most_trusted, subsets_of_views
from .tiles import GRID, Tile, cut_into_tiles

__all__ = ["Estimates", "estimate_scene", "how_much_to_enlarge", "read_estimates", "which_subsets"]

#: Share of the free memory that is used.
SHARE = 0.8
#: Floats that a view takes at its peak for each voxel of its cost volume,
PEAK_PER_VOXEL = 18
#: and where a recurrent network holds that volume.
PEAK_PER_RECURRENT_VOXEL = 110
#: Floats that the feature network takes at its peak for each pixel of an image.
PEAK_PER_PIXEL = 45
#: More voxels than these overflow the indices of some kernels: 2^31 floats, with 8 channels.
MOST_VOXELS = 1 << 28
#: Views that a GPU does together, at most.
MOST_VIEWS = 8
#: Images of at most so many pixels are enlarged, and their sources halved, unless the caller decides:
#: 640 x 480, a little more.
SMALL = 400_000


class Estimates(NamedTuple):
    """What :func:`estimate_scene` found out about a scene, with what fusion needs beside it; one entry per
    view.

    Attributes:
        views: the views' numbers.
        depths: (h, w) each, in world units.
        probabilities: (h, w) each, in [0, 1].
        images: (3, 4 h, 4 w) each, RGB in [0, 1]: what the network saw, as far as the depth map covers it.
        intrinsics: (3, 3) each, in pixels of these images.
        extrinsics: (4, 4) each, world to camera.
    """

    views: list[int]
    depths: list[Tensor]
    probabilities: list[Tensor]
    images: list[Tensor]
    intrinsics: list[Tensor]
    extrinsics: list[Tensor]


def estimate_scene(
    scene: Scene,
    out: str | PathLike[str],
    network: MVSNet | RMVSNet,
    num_sources: int = 4,
    depth_num: int | None = None,
    size: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    inverse: bool = False,
    memory: int | None = None,
    enlarge: int = 1,
    subsets: Subsets = "none",
) -> list[int]:
    """Estimate the depth of every view that has sources, and write it.

    For view 7 that is ``depth/00000007.pfm`` (the refined depth if the network refines), the probability map
    ``probability/00000007.pfm``, and ``cams/00000007_cam.txt``, the camera at the size of these maps. All
    input is checked before the first file is written. A view whose three files are there is skipped, unless
    the scene, the network or a setting has changed: then all of them are made again.

    One line on stderr says how much memory a view takes. A view that needs more than there is is cut into
    tiles, which overlap by as much as the 3D network sees around a pixel. Tiles are not quite the whole:
    group norm takes the mean over the volume it is given. In the shipped still life, cut into four, the depth
    changes by 0.015 intervals in the median and by more than an interval in 3.4 % of the pixels, few of them
    trusted (0.15 % of those with a probability above 0.8); the share of right depths does not suffer.
    Memory is no setting: a run that goes on where there is less of it cuts the views that are left.
    An RMVSNet stores no volume: it needs as much memory for any number of planes.

    Args:
        scene: what to look at.
        out: folder for the results.
        network: what looks; it is moved to the device.
        num_sources: source views for each reference; where pair.txt has fewer, those.
        depth_num: number of depth hypotheses; by default what the camera files say.
        size: (width, height) to resize the images to, in pixels; by default they stay.
        device: by default the GPU if there is one, else the CPU.
        inverse: spread the planes evenly over 1 / depth. The camera files then hold the mean interval.
        memory: bytes to work with; by default most of what is free.
        enlarge: how many times as wide and as high the network sees the images; the maps stay as large as
            without. See :mod:`mvsnet_edu.enlargement`.
        subsets: which sources get a hearing of their own. See :mod:`mvsnet_edu.subsets`.

    Returns:
        the views that were estimated, without those that were there already.

    Raises:
        InputError: if the scene or the folder cannot be used, another process is writing there, or the memory
            does not suffice.
        ValueError: if ``subsets`` is an unknown kind.

    Source: ``mvsnet/test.py``, which writes the depth before refinement.
    """
    keep_freed_memory()
    out = Path(out)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    memory = memory or int(SHARE * free_memory(device))
    jobs = [_job(scene, view, num_sources, depth_num, inverse, size, enlarge) for view in scene.references]
    planes = PLANES if isinstance(network, RMVSNet) else None
    jobs = [job._replace(planes=planes, subsets=subsets) for job in jobs]
    _check(scene, out, jobs, size, memory)
    settings = {"network": _fingerprint_of_network(network), "scene": _fingerprint_of_scene(scene)}
    settings |= {"sources": num_sources, "planes": depth_num, "size": size and list(size), "inverse": inverse}
    settings |= {"enlarge": enlarge, "subsets": subsets}
    network = network.to(device).eval()
    look = lru_cache(_photos_to_keep(jobs, memory))(partial(_look, scene, network, size, enlarge, device))
    with locked(out):
        missing = _prepare(out, scene.references, settings)
        jobs = [job for job in jobs if job.views[0] in missing]
        _announce(jobs, memory, device)
        with _progress(len(jobs)) as progress:
            for batch in _batches(jobs, memory, device):
                for job, *maps in zip(batch, *_estimate(network, look, batch, memory), strict=True):
                    camera = look(job.views[0]).camera.scaled(1 / enlarge, 1 / enlarge)
                    _write(out, job, camera, *maps)
                    progress.update()
    return missing


def how_much_to_enlarge(network: MVSNet | RMVSNet, scene: Scene, size: tuple[int, int] | None = None) -> int:
    """What pays: small images are enlarged if that is what the network was trained for, large ones never.

    Args:
        network: a trained one.
        scene: whose references are to be estimated.
        size: (width, height) that the images are resized to, if they are.

    Returns:
        how many times as wide and as high: what the network saw in training if no image has more pixels than
        :data:`SMALL`, else 1.

    Raises:
        InputError: if an image cannot be read.

    Source: ours.
    """
    return network.enlarge if _all_small(scene, size) else 1


def which_subsets(scene: Scene, size: tuple[int, int] | None = None) -> Subsets:
    """What pays: the halves of the sources of small images, which take three times the time.

    Args:
        scene: whose references are to be estimated.
        size: (width, height) that the images are resized to, if they are.

    Returns:
        "halves" if no image has more pixels than :data:`SMALL`, else "none".

    Raises:
        InputError: if an image cannot be read.

    Source: ours.
    """
    return "halves" if _all_small(scene, size) else "none"


def _all_small(scene: Scene, size: tuple[int, int] | None) -> bool:
    sizes = [size or image_size(scene.image_paths[view]) for view in scene.references]
    return max((W * H for W, H in sizes), default=0) <= SMALL


def read_estimates(scene: Scene, out: str | PathLike[str]) -> Estimates:
    """Read back what :func:`estimate_scene` wrote.

    Args:
        scene: the scene that was looked at, for its images.
        out: the folder of the results.

    Returns:
        the depth maps with their images and cameras.

    Raises:
        InputError: if a file is missing or broken, or does not fit the others.

    Source: ours.
    """
    rows = [(view, *_read_view(scene, view, *_paths(Path(out), view))) for view in scene.references]
    if not rows:
        raise InputError(f"{scene.folder / 'pair.txt'} names no sources, so no view has a depth map.")
    return Estimates(*(list(column) for column in zip(*rows, strict=True)))


# --- what is to be done ------------------------------------------------------------------------------


class _Job(NamedTuple):
    """One reference view."""

    views: list[int]  # the reference first
    depths: Tensor  # (D,) float64
    size: tuple[int, int]  # height and width of the network's depth map
    enlarge: int = 1  # by how much that is larger than what is written
    planes: int | None = None  # of the cost volume, in memory at once; None: all
    subsets: Subsets = "none"

    @property
    def kind(self) -> tuple[int, ...]:
        """Jobs of one kind can share a batch."""
        return len(self.views), len(self.depths), *self.size


def _job(
    scene: Scene,
    view: int,
    num: int,
    depth_num: int | None,
    inverse: bool,
    size: tuple[int, int] | None,
    enlarge: int = 1,
) -> _Job:
    W, H = size or image_size(scene.image_paths[view])
    refuse_small(scene.image_paths[view], (W, H))
    depths = scene.depth_values(view, depth_num, inverse)
    larger = enlarge * H // STRIDE, enlarge * W // STRIDE
    return _Job(scene.with_sources(view, num), depths, larger, enlarge)


def _check(scene: Scene, out: Path, jobs: list[_Job], size: tuple[int, int] | None, memory: int) -> None:
    """Refuse what would fail later, before anything is written."""
    if out.resolve() == scene.folder.resolve():
        raise InputError(f"{out} is the scene itself, whose cameras the results would overwrite.")
    if not jobs:
        raise InputError(f"{scene.folder / 'pair.txt'} names no sources, so there is nothing to compare.")
    subsets_of_views(len(jobs[0].views), jobs[0].subsets)
    for job in jobs:  # before an image of a size that does not fit is made
        if min(job.size) > 0:  # else the image itself is too small
            _tiles(job, memory)
    for view in {view for job in jobs for view in job.views}:
        scene.resized(view, size)


def _batches(jobs: list[_Job], memory: int, device: torch.device) -> Iterator[list[_Job]]:
    """Jobs to do together."""
    for _, alike in groupby(jobs, key=lambda job: job.kind):
        group = list(alike)
        most = _views_at_once(group[0], memory, device)
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _views_at_once(job: _Job, memory: int, device: torch.device) -> int:
    if device.type != "cuda":  # one view keeps all cores of a CPU busy
        return 1
    return next((n for n in range(MOST_VIEWS, 1, -1) if _fits(job, memory, job.size, n)), 1)


def _announce(jobs: list[_Job], memory: int, device: torch.device) -> None:
    """Say how the views are done: one line, unless they differ."""
    for line in dict.fromkeys(_plan(job, memory, device) for job in jobs):
        print(line, file=sys.stderr)


def _plan(job: _Job, memory: int, device: torch.device) -> str:
    (h, w), tiles, views = job.size, len(_tiles(job, memory)), _views_at_once(job, memory, device)
    how = f"in {tiles} tiles" if tiles > 1 else f"{views} views at a time" if views > 1 else "one at a time"
    need, there = (f"{amount / 1e9:.1f} GB" for amount in (_need(job, job.size), memory))
    return f"Views of {w} x {h} pixels x {len(job.depths)} planes, {need} each of {there}: {how}."


def _write(out: Path, job: _Job, camera: Camera, depth: Tensor, trust: Tensor) -> None:
    """Three files. The camera file tells the range that was searched, in its words: the mean interval."""
    depth_path, trust_path, camera_path = _paths(out, job.views[0])
    write_pfm(depth_path, depth)
    write_pfm(trust_path, trust)
    D, first, last = len(job.depths), *job.depths[[0, -1]].tolist()
    interval = (last - first) / (D - 1)
    write_cam(camera_path, replace(camera, depth_interval=interval, depth_num=D, depth_max=last))


def _paths(out: Path, view: int) -> tuple[Path, Path, Path]:
    """Where the depth, the probability and the camera of a view lie."""
    return (
        out / "depth" / f"{view:08d}.pfm",
        out / "probability" / f"{view:08d}.pfm",
        out / "cams" / f"{view:08d}_cam.txt",
    )


def _progress(total: int):
    from tqdm import tqdm

    return tqdm(total=total, desc="depth maps", unit="view", disable=not total)


# --- estimating --------------------------------------------------------------------------------------


class _Photo(NamedTuple):
    """One view as the network sees it."""

    features: Tensor  # (32, h, w)
    image: Tensor  # (3, h, w), prepared
    camera: Camera  # of the features


@torch.inference_mode()
def _look(
    scene: Scene,
    network: MVSNet | RMVSNet,
    size: tuple[int, int] | None,
    enlarge: int,
    device: torch.device,
    view: int,
) -> _Photo:
    image, camera = scene.resized(view, size)
    if enlarge > 1:
        image, camera = enlarge_images(image, enlarge), camera.scaled(enlarge, enlarge)
    image = network.prepare(image.to(device))[None]
    features = network.feature_net(image)[0]
    h, w = features.shape[-2:]
    small = F.interpolate(image[..., : h * STRIDE, : w * STRIDE], (h, w), mode="area")[0]
    return _Photo(features, small, camera.scaled(1 / STRIDE, 1 / STRIDE))


@torch.inference_mode()
def _estimate(
    network: MVSNet | RMVSNet, look: Callable[[int], _Photo], jobs: list[_Job], memory: int
) -> tuple[Tensor, Tensor]:
    """Depth and probability (B, h, w) of jobs of one kind; in smaller pieces where memory runs out."""
    tiles = _tiles(jobs[0], memory // len(jobs))
    try:
        return _sweep(network, [[look(view) for view in job.views] for job in jobs], jobs, tiles)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return _estimate(network, look, jobs, memory * 3 // 4)


def _sweep(
    network: MVSNet | RMVSNet, photos: list[list[_Photo]], jobs: list[_Job], tiles: list[Tile]
) -> tuple[Tensor, Tensor]:
    features = torch.stack([torch.stack([photo.features for photo in row]) for row in photos])
    cameras = [torch.stack([photo.camera.intrinsics for photo in row]) for row in photos]
    poses = [torch.stack([photo.camera.extrinsics for photo in row]) for row in photos]
    depth_values = torch.stack([job.depths for job in jobs]).to(features)  # (B, D)
    intrinsics = network.recentre(torch.stack(cameras).to(features))
    views = features, intrinsics, torch.stack(poses).to(features)
    depth, trust = features.new_empty(2, len(jobs), *jobs[0].size)  # (B, h, w) each
    look = network.choose if isinstance(network, RMVSNet) else network.sweep
    for tile in tiles:
        maps = most_trusted(look, jobs[0].subsets, *views, depth_values, tile.window)
        depth[tile.core], trust[tile.core] = (values[tile.inner] for values in maps)
    images = torch.stack([row[0].image for row in photos])
    refined = None if isinstance(network, RMVSNet) else network.refine(depth, images, depth_values)
    estimate = DepthEstimate(depth, trust, refined)
    if jobs[0].enlarge > 1:
        estimate = pool_estimate(estimate, jobs[0].enlarge)
    return estimate.best, estimate.probability_map


# --- making do with the memory -----------------------------------------------------------------------


def _tiles(job: _Job, memory: int) -> list[Tile]:
    tiles = cut_into_tiles(job.size, partial(_fits, job, memory))
    if not tiles:
        (h, w), D = job.size, len(job.depths)
        message = f"A depth map of {w} x {h} pixels from {D} planes needs more memory than there is"
        raise InputError(f"{message}: make the images smaller, or take fewer planes.")
    return tiles


def _fits(job: _Job, memory: int, size: tuple[int, int], views: int = 1) -> bool:
    return _voxels(job, size) * views < MOST_VOXELS and _need(job, size) * views <= memory


def _need(job: _Job, size: tuple[int, int]) -> int:
    """Bytes at the peak: in the 3D network, with the features beside it, or in the feature network before."""
    (h, w), voxels, V = job.size, _voxels(job, size), len(job.views)
    slab = min(max(SLAB, size[0] * size[1]), voxels)
    copies = 2 if job.subsets == "none" else 3  # themselves, as a table, and those of a subset
    views = CHANNELS * (copies * V * h * w + (V + 5) * slab)  # and at work
    peak = PEAK_PER_RECURRENT_VOXEL if job.planes else PEAK_PER_VOXEL
    return 4 * (views + max(peak * voxels, PEAK_PER_PIXEL * h * w * STRIDE**2))


def _voxels(job: _Job, size: tuple[int, int]) -> int:
    """As the 3D network pads them."""
    D, h, w = (-(-n // GRID) * GRID for n in (job.planes or len(job.depths), *size))
    return D * h * w


def _photos_to_keep(jobs: list[_Job], memory: int) -> int:
    """How many photos fit into an eighth of the memory; at least those of one view."""
    one = max(4 * (CHANNELS + 3) * h * w for h, w in (job.size for job in jobs))
    return max(memory // 8 // one, max(len(job.views) for job in jobs))


# --- going on where a run was stopped ----------------------------------------------------------------


def _prepare(out: Path, views: list[int], settings: dict) -> list[int]:
    """Which views are missing; those that were made in another way are removed first."""
    done = [view for view in views if all(path.exists() for path in _paths(out, view))]
    old = _read_settings(out)
    if old == settings:
        return [view for view in views if view not in done]
    if done:
        changed = ", ".join(name for name in settings if settings[name] != old.get(name))
        print(f"{out} was made otherwise ({changed}), so all depth maps are made again.", file=sys.stderr)
    for view in views:
        for path in _paths(out, view):
            path.unlink(missing_ok=True)
    with atomic_write(out / "settings.json") as file:
        file.write(json.dumps(settings, indent=1).encode())
    return views


def _read_settings(out: Path) -> dict:
    try:
        return dict(json.loads((out / "settings.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _fingerprint_of_network(network: MVSNet | RMVSNet) -> str:
    parts = [repr((type(network).__name__, network.config)).encode()]
    for name, value in network.state_dict().items():
        parts += [name.encode(), value.detach().cpu().contiguous().numpy().tobytes()]
    return _fingerprint(parts)


def _fingerprint_of_scene(scene: Scene) -> str:
    cameras = [camera_path(scene.camera_folder, view) for view in scene.views]
    paths = [*scene.image_paths.values(), *cameras, scene.folder / "pair.txt"]
    return _fingerprint([path.read_bytes() for path in sorted(paths)])


def _fingerprint(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


# --- reading back ------------------------------------------------------------------------------------


def _read_view(scene: Scene, view: int, depth_path: Path, probability_path: Path, camera_path: Path) -> tuple:
    for path in (depth_path, probability_path, camera_path):
        if not path.exists():
            raise InputError(f"{path} is missing: estimate the depth maps of {scene.folder} first.")
    depth, probability = (torch.from_numpy(read_pfm(path)) for path in (depth_path, probability_path))
    if depth.ndim != 2 or depth.shape != probability.shape:
        raise InputError(f"{probability_path} and {depth_path} are not two maps of one size.")
    camera = read_cam(camera_path)
    image = _covered_image(scene, view, camera, depth.shape, depth_path)
    return depth, probability, image, scale_intrinsics(camera.intrinsics, STRIDE), camera.extrinsics


def _covered_image(scene: Scene, view: int, camera: Camera, shape: torch.Size, path: Path) -> Tensor:
    """The part of an image that a depth map covers, at four times the size of the map."""
    h, w = shape
    image = scene.image(view)
    across, down = (scene.camera(view).intrinsics / camera.intrinsics).diagonal()[:2].tolist()
    if not (0 < h * down < image.shape[1] + 0.5 and 0 < w * across < image.shape[2] + 0.5):
        raise InputError(f"{path} and its camera do not belong to {scene.image_paths[view]}.")
    size = (STRIDE * h, STRIDE * w)
    image = image[:, : max(1, round(h * down)), : max(1, round(w * across))]
    if image.shape[1:] == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True).clamp(0, 1)[0]
