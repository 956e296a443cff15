"""Depth maps for every view of a scene folder, written so that a stopped run can go on."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import scale_intrinsics
from .data.formats import Camera, atomic_write, image_size, read_cam, read_pfm, write_cam, write_pfm
from .data.scene import Sample, Scene
from .errors import InputError
from .features import STRIDE
from .models import DepthEstimate, MVSNet

__all__ = ["Estimates", "estimate_scene", "read_estimates"]


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
    network: MVSNet,
    num_sources: int = 4,
    depth_num: int | None = None,
    size: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
) -> list[int]:
    """Estimate the depth of every view that has sources, and write it.

    For view 7 that is ``depth/00000007.pfm`` (the refined depth if the network refines), the probability map
    ``probability/00000007.pfm``, and ``cams/00000007_cam.txt``, the camera at the size of these maps. All
    input is checked before the first file is written. A view whose three files are there is skipped, unless
    the scene, the network or a setting has changed: then all of them are made again.

    Args:
        scene: what to look at.
        out: folder for the results.
        network: what looks; it is moved to the device.
        num_sources: source views for each reference; where pair.txt has fewer, those.
        depth_num: number of depth hypotheses; by default what the camera files say.
        size: (width, height) to resize the images to, in pixels; by default they stay.
        device: by default the GPU if there is one, else the CPU.

    Returns:
        the views that were estimated, without those that were there already.

    Raises:
        InputError: if the scene or the folder cannot be used, or the memory does not suffice.

    Source: ``mvsnet/test.py``, which writes the depth before refinement.
    """
    out = Path(out)
    load = partial(scene.sample, num_sources=num_sources, depth_num=depth_num, size=size)
    _check(scene, out, load)
    settings = {"network": _fingerprint_of_network(network), "scene": _fingerprint_of_scene(scene)}
    settings |= {"sources": num_sources, "planes": depth_num, "size": size and list(size)}
    missing = _prepare(out, scene.references, settings)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()
    for view in _progress(missing):
        sample = load(view)
        estimate = _estimate(network, sample.to(device))
        depth, probability, camera = _paths(out, view)
        write_pfm(depth, estimate.best[0])
        write_pfm(probability, estimate.probability_map[0])
        write_cam(camera, _camera(scene, view, sample, depth_num))
    return missing


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


# --- estimating --------------------------------------------------------------------------------------


@torch.inference_mode()
def _estimate(network: MVSNet, sample: Sample) -> DepthEstimate:
    try:
        return network(sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        H, W = sample.images.shape[-2:]
        D = sample.depth_values.shape[1]
        message = f"{W} x {H} pixels and {D} planes need more memory than there is: make one of them smaller."
        raise InputError(message) from error


def _check(scene: Scene, out: Path, load: Callable[[int], Sample]) -> None:
    """Refuse what would fail later, before anything is written."""
    if out.resolve() == scene.folder.resolve():
        raise InputError(f"{out} is the scene itself, whose cameras the results would overwrite.")
    if not scene.references:
        raise InputError(f"{scene.folder / 'pair.txt'} names no sources, so there is nothing to compare.")
    for view in scene.references:
        H, W = load(view).images.shape[-2:]
        if min(H, W) < STRIDE:
            raise InputError(f"{scene.image_paths[view]} at {W} x {H} pixels is too small for a depth map.")


def _camera(scene: Scene, view: int, sample: Sample, depth_num: int | None) -> Camera:
    """The camera at the size of the depth map, with the depth range that was searched."""
    W, H = image_size(scene.image_paths[view])
    height, width = sample.images.shape[-2:]
    camera = scene.camera(view).scaled(width / W / STRIDE, height / H / STRIDE)
    depths = scene.camera(view).depth_values(depth_num).tolist()
    return replace(camera, depth_interval=depths[1] - depths[0], depth_num=len(depths), depth_max=depths[-1])


def _paths(out: Path, view: int) -> tuple[Path, Path, Path]:
    """Where the depth, the probability and the camera of a view lie."""
    return (
        out / "depth" / f"{view:08d}.pfm",
        out / "probability" / f"{view:08d}.pfm",
        out / "cams" / f"{view:08d}_cam.txt",
    )


def _progress(views: list[int]):
    from tqdm import tqdm

    return tqdm(views, desc="depth maps", unit="view", disable=not views)


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


def _fingerprint_of_network(network: MVSNet) -> str:
    parts = [repr((type(network).__name__, network.config)).encode()]
    for name, value in network.state_dict().items():
        parts += [name.encode(), value.detach().cpu().contiguous().numpy().tobytes()]
    return _fingerprint(parts)


def _fingerprint_of_scene(scene: Scene) -> str:
    cameras = scene.camera_folder.glob("*_cam.txt")
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
    height, width = round(h * down), round(w * across)
    if height > image.shape[1] or width > image.shape[2]:
        raise InputError(f"{path} and its camera do not belong to {scene.image_paths[view]}.")
    size = (STRIDE * h, STRIDE * w)
    image = image[:, :height, :width]
    if image.shape[1:] == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True).clamp(0, 1)[0]
