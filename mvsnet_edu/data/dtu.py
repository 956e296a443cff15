"""DTU as MVSNet's authors prepared it for training: 79 scans to train on, 18 to validate, 22 to evaluate.

```
Cameras/pair.txt                          Rectified/scanX_train/rect_%03d_%d_r5000.png   640 x 512
Cameras/train/%08d_cam.txt  160 x 128     Depths/scanX_train/depth_map_%04d.pfm          160 x 128
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..features import STRIDE
from .folders import SceneDataset, check_files
from .formats import Camera, Pairs, read_cam, read_pair
from .scene import Scene, camera_path, named_views

__all__ = ["DTU", "LIGHTS", "SCANS"]

#: The scans of each part; a few numbers are in none.
SCANS: dict[str, tuple[int, ...]] = {
    "train": (
        *(2, 6, 7, 8, 14, 16, 18, 19, 20, 22, 30, 31, 36, 39, 41, 42, 44, 45, 46, 47, 50, 51, 52, 53, 55, 57),
        *(58, 60, 61, 63, 64, 65, 68, 69, 70, 71, 72, 74, 76, *range(83, 86), *range(87, 106), 107, 108, 109),
        *(111, 112, 113, 115, 116, *range(119, 129)),
    ),
    "val": (3, 5, 17, 21, 28, 35, 37, 38, 40, 43, 56, 59, 66, 67, 82, 86, 106, 117),
    "test": (1, 4, 9, 10, 11, 12, 13, 15, 23, 24, 29, 32, 33, 34, 48, 49, 62, 75, 77, 110, 114, 118),
}
#: The lights used of each part: all seven to train, number 3 to measure.
LIGHTS: dict[str, tuple[int, ...]] = {"train": tuple(range(7)), "val": (3,), "test": (3,)}
#: Depths between which the original sweeps, in millimetres, whatever the camera files say.
NEAR, FAR = 425.0, 937.0


class DTU(SceneDataset):
    """DTU's training layout: scans x lights x 49 reference views, 27,097 samples to train on.

    The camera files describe images of 160 x 128 pixels, a quarter of those in ``Rectified``; a sample's
    intrinsics are those of its images. The D planes begin at 425 mm and are (937 - 425) / D mm apart.

    Args:
        root: the folder that holds Cameras, Rectified and Depths.
        split: "train", "val" or "test".
        views: how many images a sample has, the reference among them.
        depth_num: how many planes, D.
        size: (W, H) to resize the images to, in pixels; by default they stay as they are.
        scans: other scans than all of the split, for a first try.

    Raises:
        InputError: there is no such split, or a file is missing or broken.

    Source: ``preprocess.py:gen_dtu_resized_path``, ``train.py:MVSGenerator``.

    >>> {split: len(scans) for split, scans in SCANS.items()}
    {'train': 79, 'val': 18, 'test': 22}
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        views: int = 3,
        depth_num: int = 192,
        size: tuple[int, int] | None = None,
        *,
        scans: Sequence[int] | None = None,
    ):
        if split not in SCANS:
            raise InputError(f"DTU has the parts {', '.join(SCANS)}, but not {split!r}.")
        root = Path(root)
        pairs = read_pair(root / "Cameras" / "pair.txt")
        cameras = {view: _camera(root, view, depth_num) for view in sorted(named_views(pairs))}
        scans = SCANS[split] if scans is None else scans
        shots = [(scan, light) for scan in scans for light in LIGHTS[split]]
        scenes = [_scene(root, scan, light, pairs, cameras) for scan, light in shots]
        check_files(
            path for s in scenes for paths in (s.image_paths, s.depth_paths) for path in paths.values()
        )
        super().__init__(scenes, views, depth_num, size)


def _camera(root: Path, view: int, depth_num: int) -> Camera:
    """A view's camera for the images of ``Rectified``, four times as wide as its file means."""
    camera = read_cam(camera_path(root / "Cameras" / "train", view)).scaled(STRIDE, STRIDE)
    interval = (FAR - NEAR) / depth_num
    return replace(camera, depth_min=NEAR, depth_interval=interval, depth_num=depth_num, depth_max=None)


def _scene(root: Path, scan: int, light: int, pairs: Pairs, cameras: dict[int, Camera]) -> Scene:
    """A scan under one light. Images are numbered from 1, everything else from 0."""
    images, depths = root / "Rectified" / f"scan{scan}_train", root / "Depths" / f"scan{scan}_train"
    return Scene(
        folder=images,
        image_paths={view: images / f"rect_{view + 1:03d}_{light}_r5000.png" for view in cameras},
        cameras=cameras,
        pairs=pairs,
        camera_folder=root / "Cameras" / "train",
        depth_paths={view: depths / f"depth_map_{view:04d}.pfm" for view in pairs},
    )
