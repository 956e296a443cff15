"""Scenes as a data set: one sample for each reference view, always the same one for the same number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ..errors import InputError
from .formats import Camera, range_problem
from .scene import Sample, Scene, camera_path

__all__ = ["SceneDataset", "SceneFolders"]


class SceneDataset(Dataset[Sample]):
    """The samples of several scenes, in the scenes' order and by rising numbers of their reference views.

    All samples have the same number of views, so that they can be put in one batch: references with fewer
    sources are left out, as are those whose camera file has no depth range that can be swept (zero or below).

    The ground truth is kept where it lies between the second plane and the last but one (that one included),
    and is 0 elsewhere: a depth beyond the planes cannot be estimated from them.

    Args:
        scenes: opened.
        views: how many images a sample has, the reference among them.
        depth_num: how many planes, D, spread over the range in the reference's camera file.
        size: (W, H) to resize the images to, in pixels, if not None; the cameras follow.
        with_depth: leave out references whose depth is not known.

    Attributes:
        left_out: how many references the set does without, for one of the reasons above.

    Raises:
        InputError: no reference is left.

    Source: ``train.py:MVSGenerator`` (the planes between which depth counts).

    >>> camera, images = Camera(torch.eye(4), torch.eye(3), 2.0, 0.5, 8), {3: Path("3.jpg"), 5: Path("5.jpg")}
    >>> scene = Scene(Path("a"), images, {3: camera, 5: camera}, {3: [(5, 1.0)], 5: []}, Path("a/cams"))
    >>> samples = SceneDataset([scene], views=2, depth_num=8)
    >>> len(samples), samples.left_out
    (1, 1)
    """

    def __init__(
        self,
        scenes: Iterable[Scene],
        views: int,
        depth_num: int,
        size: tuple[int, int] | None = None,
        with_depth: bool = False,
    ):
        self.views, self.depth_num, self.size = views, depth_num, size
        references = [(scene, view) for scene in scenes for view in sorted(scene.pairs)]
        self.samples = [each for each in references if _usable(*each, views, with_depth)]
        self.left_out = len(references) - len(self.samples)
        if not self.samples:
            first = references[0][0].folder if references else "The data set"
            sources = "a source" if views == 2 else f"{views - 1} sources"
            known = " and a known depth" if with_depth else ""
            raise InputError(f"{first} has no view with {sources}{known}, nor has any other scene.")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index``, a batch of one; reads its files anew each time."""
        scene, ref = self.samples[index]
        sample = scene.sample(ref, self.views - 1, self.depth_num, self.size)
        return replace(sample, ground_truth=_within_planes(sample))


def _usable(scene: Scene, ref: int, views: int, with_depth: bool) -> bool:
    known = ref in scene.depth_paths or not with_depth
    return known and len(scene.sources(ref)) >= views - 1 and range_problem(scene.camera(ref)) is None


def _within_planes(sample: Sample) -> torch.Tensor | None:
    truth, planes = sample.ground_truth, sample.depth_values[0]
    if truth is None:
        return None
    return torch.where((truth > planes[1]) & (truth <= planes[-2]), truth, 0)  # (1, h, w)


class SceneFolders(SceneDataset):
    """MVSNet's scene folders: DTU's test scans, Tanks and Temples, ETH3D, or scenes of your own.

    Args:
        folders: one or several; each is a scene, or holds scenes.
        views: how many images a sample has, the reference among them.
        depth_num: how many planes, D; they keep the first and the last depth of a camera file that says how
            many planes it means, and otherwise the distance between two planes.
        size: (W, H) to resize the images to, in pixels; scenes of different sizes need one to share a batch.
        cams: name of the folder of cameras in a scene; ``cams_1`` is common for a second set of depth ranges.
        interval_scale: factor to the distance between two planes; DTU's test scans are usually swept with 192
            planes and 1.06.
        last_is_max: whether camera files end in the nearest and the farthest depth, as PatchmatchNet's do,
            and not in the nearest depth and the interval.
        with_depth: leave out references without a depth map in ``depths``; training needs one.

    Raises:
        InputError: a scene is broken, or the cameras' last number is no interval.

    Source: ``preprocess.py:gen_pipeline_mvs_list``.

    >>> from tempfile import TemporaryDirectory
    >>> from mvsnet_edu.data import write_scene
    >>> camera = Camera(torch.eye(4).double(), torch.eye(3).double(), 2.0, 0.5, 8)
    >>> images, cameras = {v: torch.zeros(3, 8, 12) for v in (4, 7, 9)}, {v: camera for v in (4, 7, 9)}
    >>> with TemporaryDirectory() as parent:
    ...     _ = write_scene(Path(parent) / "a", images, cameras, {4: [(9, 2.0), (7, 1.0)], 9: [(4, 2.0)]})
    ...     scenes = SceneFolders(parent, views=3, depth_num=8)
    ...     len(scenes), scenes.left_out, scenes[0].views
    (1, 1, [4, 9, 7])
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path],
        views: int = 5,
        depth_num: int = 192,
        size: tuple[int, int] | None = None,
        *,
        cams: str = "cams",
        interval_scale: float = 1.0,
        last_is_max: bool = False,
        with_depth: bool = False,
    ):
        folders = [folders] if isinstance(folders, (str, Path)) else folders
        scenes = [Scene.open(scene, cams) for folder in folders for scene in _scenes_in(Path(folder))]
        ranged = [_with_ranges(scene, depth_num, interval_scale, last_is_max) for scene in scenes]
        super().__init__(ranged, views, depth_num, size, with_depth)


def _scenes_in(folder: Path) -> list[Path]:
    if (folder / "images").is_dir():
        return [folder]
    scenes = sorted(path.parent for path in folder.glob("*/images") if path.is_dir())
    if not scenes:
        raise InputError(f"{folder} is no scene, nor does it hold any: there is no folder images.")
    return scenes


def _with_ranges(scene: Scene, depth_num: int, interval_scale: float, last_is_max: bool) -> Scene:
    cameras = {}
    for view, camera in scene.cameras.items():
        if camera.depth_num is None:
            path = camera_path(scene.camera_folder, view)
            camera = _last_as_max(camera, depth_num, path) if last_is_max else _last_as_interval(camera, path)
        interval = camera.depth_interval * interval_scale
        cameras[view] = replace(camera, depth_interval=interval, depth_max=None)
    return replace(scene, cameras=cameras)


def _last_as_max(camera: Camera, depth_num: int, path: Path) -> Camera:
    near, far = camera.depth_min, camera.depth_interval
    if far <= near:
        raise InputError(f"{path} ends in {near:g} {far:g}, which is no nearest and farthest depth.")
    return replace(camera, depth_interval=(far - near) / (depth_num - 1), depth_num=depth_num)


def _last_as_interval(camera: Camera, path: Path) -> Camera:
    """The camera as it is, unless the second plane would lie at more than twice the depth of the first."""
    near, interval = camera.depth_min, camera.depth_interval
    if interval > near:
        raise InputError(
            f"{path} ends in {near:g} {interval:g}, too large an interval: if that is the farthest depth, "
            "set last_is_max."
        )
    return camera


def check_files(paths: Iterable[Path]) -> None:
    """Raise InputError for the first file that is not there, before training starts instead of hours later.

    Each folder is listed once: a disk on the network answers one question fast, and 27,097 slowly.
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        folder = path.parent
        if folder not in names:
            names[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
        if path.name not in names[folder]:
            raise InputError(f"{path} is missing.")
