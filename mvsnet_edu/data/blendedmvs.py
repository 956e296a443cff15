"""BlendedMVS: scenes of all sizes, photographed from the air and by hand, with rendered depth.

```
PID/blended_images/%08d.jpg, %08d_masked.jpg    PID/cams/pair.txt, %08d_cam.txt
PID/rendered_depth_maps/%08d.pfm                BlendedMVS_training.txt, validation_list.txt
```
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .folders import SceneDataset, check_files
from .formats import MAX_TEXT, file_size, read_cam, read_pair, reason
from .scene import Scene, camera_path, named_views

__all__ = ["BlendedMVS"]

#: Files that list the scenes of each part; their names have changed over time.
LISTS = {"train": ("BlendedMVS_training.txt", "training_list.txt"), "val": ("validation_list.txt",)}


class BlendedMVS(SceneDataset):
    """BlendedMVS, or what has been downloaded of it, at the low resolution of 768 x 576 or the high one.

    The planes reach from the first to the last one of the reference's camera file. The few references whose
    range begins at zero or below are left out, and so are those with too few sources. Depth maps and images
    that show nothing, which exist too, stay in: their ground truth is 0 everywhere, and so is their loss.

    Args:
        root: the folder that holds the scenes and the lists of them.
        split: "train", "val", or the name of another list in ``root``, such as "BlendedMVG_training.txt".
        views: how many images a sample has, the reference among them.
        depth_num: how many planes, D; the files say 128.
        size: (W, H) to resize the images to, in pixels; by default they stay as they are. The depth map
            follows without interpolation.
        masked: take the images that are black outside the model, as the original does, or those with the
            photos' background.

    Raises:
        InputError: a list or a file in it is missing or broken.

    Source: ``preprocess.py:gen_blendedmvs_path``.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     _ = (Path(root) / "validation_list.txt").write_text("5ba19a8a360c7c30c1c169df")
    ...     BlendedMVS(root, "val")
    Traceback (most recent call last):
    mvsnet_edu.errors.InputError: ...validation_list.txt lists the scene 5ba19a8a360c7c30c1c169df, but ...
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        views: int = 3,
        depth_num: int = 128,
        size: tuple[int, int] | None = None,
        *,
        masked: bool = True,
    ):
        suffix = "_masked.jpg" if masked else ".jpg"
        scenes = [_scene(folder, suffix) for folder in _listed(Path(root), split)]
        super().__init__(scenes, views, depth_num, size)


def _listed(root: Path, split: str) -> list[Path]:
    paths = [root / name for name in LISTS.get(split, (split,))]
    path = next((path for path in paths if path.is_file()), paths[0])
    file_size(path, MAX_TEXT)
    try:
        folders = [root / name for name in path.read_text(encoding="utf-8-sig").split()]
        absent = next((folder for folder in folders if not folder.is_dir()), None)
    except (OSError, ValueError) as error:  # no text, or no name of a folder
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    if not folders:
        raise InputError(f"{path} lists no scenes.")
    if absent:
        raise InputError(f"{path} lists the scene {absent.name}, but there is no folder {absent}.")
    return folders


def _scene(folder: Path, suffix: str) -> Scene:
    cams = folder / "cams"
    pairs = read_pair(cams / "pair.txt")
    views = sorted(named_views(pairs))
    images = {view: folder / "blended_images" / f"{view:08d}{suffix}" for view in views}
    depths = {view: folder / "rendered_depth_maps" / f"{view:08d}.pfm" for view in pairs}
    check_files([*images.values(), *depths.values()])
    cameras = {view: read_cam(camera_path(cams, view), check_range=False) for view in views}
    return Scene(folder, images, cameras, pairs, cams, depths)
