"""MVSNet's scene folders: images, cameras, pairs of views and, where it is known, the depth.

```
images/%08d.jpg or .png    cams/%08d_cam.txt    pair.txt    depths/%08d.pfm (optional)
```
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth import inverse_depths
from ..errors import InputError
from ..features import STRIDE
from .formats import (
    Camera,
    Pairs,
    image_size,
    read_cam,
    read_image,
    read_pair,
    read_pfm,
    reason,
    unfinished,
    write_cam,
    write_image,
    write_pair,
    write_pfm,
)

__all__ = ["Sample", "Scene", "write_scene"]

IMAGE_NAME = re.compile(r"(\d{8})\.(jpg|jpeg|png)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Sample:
    """What a network takes for one reference view; a batch of one.

    Args:
        images: (1, V, 3, H, W) float32 RGB in [0, 1]; view 0 is the reference.
        intrinsics: (1, V, 3, 3) float32, in pixels of the images.
        extrinsics: (1, V, 4, 4) float32, world to camera.
        depth_values: (1, D) float32.
        depth_interval: (1,) float32, the distance between two planes.
        ground_truth: (1, H/4, W/4) float32 depth with 0 where it was not measured, or None.
        views: the views' numbers, in the order of the images.
    """

    images: Tensor
    intrinsics: Tensor
    extrinsics: Tensor
    depth_values: Tensor
    depth_interval: Tensor
    ground_truth: Tensor | None
    views: list[int]

    def to(self, device: torch.device | str) -> Sample:
        """The same sample on another device.

        Args:
            device: where its tensors go.

        Returns:
            A copy whose tensors are there.
        """
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene folder whose cameras and pairs are known to be sound; :meth:`Scene.open` makes one.

    Args:
        folder: where it lies.
        image_paths: for each view its image file.
        cameras: for each view its camera.
        pairs: for each reference view its sources and their scores, best first.
        camera_folder: where the camera files lie.
        depth_paths: for each view whose depth is known its depth map's file.
    """

    folder: Path
    image_paths: dict[int, Path]
    cameras: dict[int, Camera]
    pairs: Pairs
    camera_folder: Path
    depth_paths: dict[int, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path, cams: str = "cams") -> Scene:
        """Open a scene folder; reads the small files and the images' headers, no pixels yet.

        Args:
            folder: the scene.
            cams: name of the folder of its cameras; some data sets bring a second one.

        Returns:
            The scene.

        Raises:
            InputError: it has no images, an image has no camera, pair.txt names an absent view, or a file is
                broken.

        >>> from tempfile import TemporaryDirectory
        >>> camera = Camera(torch.eye(4).double(), torch.eye(3).double(), 2.0, 0.5, 8)
        >>> images, cameras = {4: torch.zeros(3, 8, 12), 9: torch.ones(3, 8, 12)}, {4: camera, 9: camera}
        >>> with TemporaryDirectory() as parent:
        ...     scene = write_scene(Path(parent) / "scene", images, cameras, {4: [(9, 1.0)]})
        ...     scene.views, scene.sources(4), scene.sample(4, num_sources=1).images.shape
        ([4, 9], [9], torch.Size([1, 2, 3, 8, 12]))
        """
        folder = Path(folder)
        images = _find_images(folder)
        for path in images.values():
            image_size(path)
        cameras = {view: _camera_of(folder / cams, view, path) for view, path in images.items()}
        pairs = read_pair(folder / "pair.txt")
        for view in sorted(named_views(pairs) - set(images)):
            raise InputError(f"{folder / 'pair.txt'} names view {view}, but there is no image {view:08d}.")
        return cls(folder, images, cameras, pairs, folder / cams, _find_depths(folder, images))

    @property
    def views(self) -> list[int]:
        """The numbers of all views, in rising order; they need not be contiguous."""
        return sorted(self.image_paths)

    @property
    def references(self) -> list[int]:
        """The views that have at least one source, so that their depth can be estimated."""
        return [view for view in self.views if self.pairs.get(view)]

    def image(self, view: int) -> Tensor:
        """One view's image.

        Args:
            view: its number.

        Returns:
            (3, H, W) float32 RGB in [0, 1].

        Raises:
            InputError: there is no such view, or its file is broken.
        """
        return read_image(self.image_paths[self._known(view)])

    def camera(self, view: int) -> Camera:
        """One view's camera, for the image at the size of its file.

        Args:
            view: its number.

        Returns:
            The camera.

        Raises:
            InputError: there is no such view.
        """
        return self.cameras[self._known(view)]

    def depth(self, view: int) -> Tensor | None:
        """One view's true depth, as its file has it.

        Args:
            view: its number.

        Returns:
            (H, W) or (H/4, W/4) float32 with 0 (or a number that is not finite) where it was not measured;
            None if the scene has none.

        Raises:
            InputError: there is no such view, or its file is broken.
        """
        path = self.depth_paths.get(self._known(view))
        if path is None:
            return None
        values = read_pfm(path)
        if values.ndim != 2:
            raise InputError(f"{path} is a colour file, but a depth map has one channel.")
        return torch.from_numpy(values)

    def sources(self, view: int, num: int | None = None) -> list[int]:
        """The best source views of a reference view.

        Args:
            view: the reference.
            num: at most this many; all of them by default.

        Returns:
            Their numbers, best first, as pair.txt orders them.

        Raises:
            InputError: there is no such view.
        """
        return [source for source, _ in self.pairs.get(self._known(view), [])][:num]

    def with_sources(self, ref: int, num: int) -> list[int]:
        """A reference view and its best sources.

        Args:
            ref: the reference.
            num: how many sources; where there are fewer, those.

        Returns:
            The numbers of the views, the reference first.

        Raises:
            InputError: there is no such view, it has no sources, or the images differ in size.
        """
        if num < 1:
            raise InputError(f"{self.folder} needs at least one source view for depth, not {num}.")
        sources = self.sources(ref, num)
        if not sources:
            raise InputError(f"{self.folder / 'pair.txt'} has no source for view {ref}.")
        W0, H0 = image_size(self.image_paths[ref])
        for source in sources:
            W, H = image_size(self.image_paths[source])
            if (W, H) != (W0, H0):
                one, other = self.image_paths[source], self.image_paths[ref]
                raise InputError(f"{one} is {W} x {H} pixels, but its reference {other} is {W0} x {H0}.")
        return [ref, *sources]

    def resized(self, view: int, size: tuple[int, int] | None = None) -> tuple[Tensor, Camera]:
        """One view at another size.

        Args:
            view: its number.
            size: (W, H) in pixels; as the file has it if None.

        Returns:
            The image, (3, H, W) float32 RGB in [0, 1], and its camera.

        Raises:
            InputError: there is no such view, its file is broken, or nothing would be left of a depth map.
        """
        image = self.image(view)
        H0, W0 = image.shape[-2:]
        W, H = size or (W0, H0)
        refuse_small(self.image_paths[view], (W, H))
        return _resize(image, (H, W)), self.camera(view).scaled(W / W0, H / H0)

    def depth_values(self, view: int, num: int | None = None, inverse: bool = False) -> Tensor:
        """The depths of the planes over the range in one view's camera file.

        Args:
            view: its number.
            num: how many planes; by default the file's number.
            inverse: spread them evenly over 1 / depth instead of the depth.

        Returns:
            (D,) float64, in world units.

        Raises:
            InputError: there is no such view, or nobody says how many planes to use.
        """
        camera = self.camera(view)
        if num is None and camera.depth_num is None:
            path = camera_path(self.camera_folder, view)
            raise InputError(f"{path} does not say how many depth planes to use: give the number yourself.")
        depths = camera.depth_values(num)
        return inverse_depths(depths[0], depths[-1], len(depths)) if inverse else depths

    def sample(
        self, ref: int, num_sources: int, depth_num: int | None = None, size: tuple[int, int] | None = None
    ) -> Sample:
        """All that a network needs to estimate the depth of one view.

        Where the scene has fewer sources than asked for, the sample has those there are. The original pads
        with the reference itself instead, which brings no evidence and doubles the reference's vote.

        Args:
            ref: the reference view.
            num_sources: number of source views.
            depth_num: number of planes over the range in the reference's camera file; by default the file's.
            size: (W, H) to resize the images to, in pixels; the cameras follow.

        Returns:
            The sample.

        Raises:
            InputError: the view has no sources, images differ in size or are tiny, a file is broken, or
                neither the camera file nor ``depth_num`` says how many planes to use.
        """
        views = self.with_sources(ref, num_sources)
        images, cameras = zip(*(self.resized(view, size) for view in views), strict=True)
        depth_values = self.depth_values(ref, depth_num)
        return Sample(
            images=torch.stack(images)[None],
            intrinsics=torch.stack([camera.intrinsics for camera in cameras]).float()[None],
            extrinsics=torch.stack([camera.extrinsics for camera in cameras]).float()[None],
            depth_values=depth_values.float()[None],
            depth_interval=(depth_values[1] - depth_values[0]).float()[None],
            ground_truth=self._ground_truth(ref, tuple(images[0].shape[-2:])),
            views=views,
        )

    def _known(self, view: int) -> int:
        if view not in self.image_paths:
            raise InputError(f"{self.folder} has no view {view}.")
        return view

    def _ground_truth(self, view: int, size: tuple[int, int]) -> Tensor | None:
        depth = self.depth(view)
        if depth is None:
            return None
        stored = image_size(self.image_paths[view])[::-1]
        step = _depth_step(tuple(depth.shape), stored)
        if step is None:
            (h, w), (H, W), path = depth.shape, stored, self.depth_paths[view]
            raise InputError(
                f"{path} is {w} x {h} pixels, neither its image's size, {W} x {H}, nor a quarter."
            )
        rows, columns = (_nearest(n, s, step, d) for n, s, d in zip(size, stored, depth.shape, strict=True))
        sampled = depth[rows][:, columns]  # (h, w)
        return torch.where(sampled.isfinite(), sampled, 0)[None]


def _find_images(folder: Path) -> dict[int, Path]:
    images: dict[int, Path] = {}
    paths = sorted((folder / "images").iterdir()) if (folder / "images").is_dir() else []
    for path in paths:
        match = IMAGE_NAME.fullmatch(path.name)
        if match and images.setdefault(int(match[1]), path) != path:
            raise InputError(f"{path} and {images[int(match[1])]} are two images of one view.")
    if not images:
        raise InputError(f"{folder / 'images'} has no images named like 00000000.jpg or 00000000.png.")
    return images


def _find_depths(folder: Path, views: Iterable[int]) -> dict[int, Path]:
    paths = {view: _depth_path(folder, view) for view in views}
    return {view: path for view, path in paths.items() if path.exists()}


def _depth_path(folder: Path, view: int) -> Path:
    return folder / "depths" / f"{view:08d}.pfm"


def camera_path(folder: Path, view: int) -> Path:
    """A view's file among a scene's cameras; all data sets in MVSNet's format name it alike."""
    return folder / f"{view:08d}_cam.txt"


def _camera_of(folder: Path, view: int, image_path: Path) -> Camera:
    path = camera_path(folder, view)
    if not path.exists():
        raise InputError(f"{path} is missing, so {image_path} has no camera.")
    return read_cam(path)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True).clamp(0, 1)[0]


def _depth_step(shape: tuple[int, int], stored: tuple[int, int]) -> int | None:
    """Image pixels per depth pixel: 1, 4, or None if the sizes do not fit."""
    if shape == stored:
        return 1
    # Where 4 does not divide the size, some writers round up and some down.
    fits = (size in (full // STRIDE, -(-full // STRIDE)) for size, full in zip(shape, stored, strict=True))
    return STRIDE if all(fits) else None


def _nearest(size: int, stored: int, step: int, limit: int) -> Tensor:
    """Along one axis, the pixels of the depth file that hold the centres of the network's depth pixels.

    Depth is never interpolated: between a near and a far surface the mean is the depth of neither. Pixel i of
    the depth map has its centre at 4 (i + 1/2) in the resized image of ``size`` pixels, whose file has
    ``stored``.
    """
    centers = 2 * torch.arange(size // STRIDE) + 1  # twice i + 1/2, so that all is exact in whole numbers
    return (centers * STRIDE * stored // (2 * size * step)).clamp(max=limit - 1)


def write_scene(
    folder: str | Path,
    images: Mapping[int, Tensor],
    cameras: Mapping[int, Camera],
    pairs: Pairs,
    depths: Mapping[int, Tensor | np.ndarray] | None = None,
    suffix: str = ".jpg",
    notes: str | None = None,
) -> Scene:
    """Write a scene folder, all of it or nothing.

    Args:
        folder: the scene; must not exist yet, or be empty.
        images: for each view its image, (3, H, W) in [0, 1].
        cameras: for each view its camera.
        pairs: for each reference view its sources and their scores, best first.
        depths: for each view whose depth is known (H, W) or (H/4, W/4), with 0 where it is not.
        suffix: .jpg, or .png for images without loss.
        notes: which photo is which view, for ``photos.txt``.

    Returns:
        The scene, opened.

    Raises:
        InputError: the folder holds something, or cannot be written.
        ValueError: an image lacks its camera, or the pairs name a view that has none.
    """
    folder, depths = Path(folder), depths or {}
    _check_views(set(images), set(cameras), pairs, set(depths))
    with _new_folder(folder) as temporary:
        for view, image in images.items():
            write_image(temporary / "images" / f"{view:08d}{suffix}", image)
            write_cam(camera_path(temporary / "cams", view), cameras[view])
        for view, depth in depths.items():
            write_pfm(_depth_path(temporary, view), depth)
        write_pair(temporary / "pair.txt", pairs)
        if notes:
            (temporary / "photos.txt").write_text(notes, encoding="utf-8")
    return Scene.open(folder)


def _check_views(images: set[int], cameras: set[int], pairs: Pairs, depths: set[int]) -> None:
    if not images or images != cameras:
        raise ValueError(
            f"every view needs an image and a camera; these lack one: {sorted(images ^ cameras)}"
        )
    if strays := sorted((named_views(pairs) | depths) - images):
        raise ValueError(f"pairs or depths name views without an image: {strays}")


def named_views(pairs: Pairs) -> set[int]:
    """All views that a pair file speaks of, as references or as sources."""
    return set(pairs).union(source for sources in pairs.values() for source, _ in sources)


def refuse_small(path: Path, size: tuple[int, int]) -> None:
    """Raise InputError for an image of which nothing would be left at the size of a depth map."""
    if min(size) < STRIDE:
        raise InputError(f"{path} at {size[0]} x {size[1]} pixels is too small for a depth map.")


def refuse_full(folder: Path) -> None:
    """Raise InputError for a folder that holds something: a scene is never mixed with other files."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty, and a scene is only written to a new folder.")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its name once it is complete."""
    if not folder.name or "\0" in str(folder):
        raise InputError(f"{folder} is no name for a new folder: give one.")
    temporary = unfinished(folder)
    try:
        refuse_full(folder)
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {reason(error)}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
