"""COLMAP's sparse models, and the scene folders that they become.

The files are read here, not by pycolmap: so the conversion needs nothing that is not installed anyway, and a
truncated file is an error instead of an endless loop.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import camera_center, crop_intrinsics, project, scale_intrinsics
from ..errors import InputError
from .formats import (
    MAX_PIXELS,
    MAX_PLANES,
    Camera,
    file_size,
    image_size,
    matrix_problem,
    range_problem,
    read_image,
    reason,
)
from .scene import Scene, refuse_full, write_scene
from .views import depth_range, plane_count, select_sources, view_scores

__all__ = ["SparseModel", "cover", "read_model", "scene_from_colmap"]

# For each model without fisheye lens: its number in binary files, focal lengths, distortion parameters.
LENSES = {
    "SIMPLE_PINHOLE": (0, 1, 0),
    "PINHOLE": (1, 2, 0),
    "SIMPLE_RADIAL": (2, 1, 1),
    "RADIAL": (3, 1, 2),
    "OPENCV": (4, 2, 4),
    "FULL_OPENCV": (6, 2, 8),
}
REMEDY = "undistort the photos first (colmap image_undistorter) and give the folder that this writes"
NO_POINT = 2**64 - 1  # what binary files write for an image point without a world point; text files write -1
LEAST_POINTS = 10  # with fewer, percentiles of the depth mean nothing
MOST_SIGHTS = 1 << 32  # views times points; a byte each

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SparseModel:
    """Cameras and sparse points, as structure from motion leaves them; V views in the order of their names.

    Args:
        names: V names of the photos, relative to their folder.
        sizes: V times (W, H), in pixels.
        intrinsics: (V, 3, 3) float64, in pixels.
        extrinsics: (V, 4, 4) float64, world to camera.
        points: (N, 3) float64, in the model's unit.
        visibility: (V, N) bool, which view sees which point.

    >>> model = SparseModel(["a.jpg"], [(8, 6)], torch.eye(3)[None], torch.eye(4)[None], torch.ones(2, 3),
    ...                     torch.tensor([[True, False]]))
    >>> model.depths(0)
    tensor([1.])
    """

    names: list[str]
    sizes: list[tuple[int, int]]
    intrinsics: Tensor
    extrinsics: Tensor
    points: Tensor
    visibility: Tensor

    def depths(self, view: int) -> Tensor:
        """Depths of the points that one view sees.

        Args:
            view: its position.

        Returns:
            (n,), in the model's unit; points behind the camera, which are errors, are left out.
        """
        points = self.points[self.visibility[view]]
        _, depth = project(points, self.intrinsics[view], self.extrinsics[view])  # (n,)
        return depth[depth > 0]

    def subset(self, views: list[int]) -> SparseModel:
        """The model without its other views.

        Args:
            views: positions of those that stay.

        Returns:
            A model with all points, but fewer views.
        """
        names, sizes = ([column[view] for view in views] for column in (self.names, self.sizes))
        tensors = (self.intrinsics[views], self.extrinsics[views], self.points, self.visibility[views])
        return SparseModel(names, sizes, *tensors)


def scene_from_colmap(
    dense: str | Path, scene: str | Path, num_sources: int = 10, depth_num: int | None = None
) -> Scene:
    """Turn undistorted photos and their COLMAP model into a scene folder.

    Views are numbered from 0 in the order of the photos' names; ``photos.txt`` says which is which. Depth
    range and planes follow from the points (:func:`.views.depth_range`, :func:`.views.plane_count`), sources
    from the view score. A view that sees next to no points is left out and named. Photos of several sizes
    are brought to the most frequent one by :func:`cover`.

    Args:
        dense: folder with ``images/`` and a model, binary or text, in ``sparse/``, ``sparse/0/`` or the
            folder itself: what COLMAP's image_undistorter writes.
        scene: the folder to write; must not exist yet, or be empty.
        num_sources: at most this many sources for each view.
        depth_num: number of planes; by default what the view with the widest range needs.

    Returns:
        The scene, opened.

    Raises:
        InputError: the model or a photo is missing, broken or distorted, or too few views see points.

    Source: ``colmap2mvsnet.py``, which takes text models with contiguous ids only.
    """
    dense, scene = Path(dense), Path(scene)
    refuse_full(scene)
    if depth_num is not None and not 2 <= depth_num <= MAX_PLANES:
        raise InputError(f"A plane sweep needs from 2 to {MAX_PLANES} depth planes, not {depth_num}.")
    model = _usable(read_model(_model_folder(dense)), dense)
    paths = [dense / "images" / name for name in model.names]
    _check_photos(model, paths)
    size = max(model.sizes, key=model.sizes.count)  # (W, H)
    photos = _Lazy(len(paths), lambda view: cover(read_image(paths[view]), size))
    cameras = dict(enumerate(_cameras(model, size, depth_num)))
    for view, camera in cameras.items():
        if problem := matrix_problem(camera.extrinsics, camera.intrinsics) or range_problem(camera):
            raise InputError(f"{paths[view]}: its camera in the model {problem}.")
    scores = view_scores(model.points, model.visibility, camera_center(model.extrinsics))
    names = "".join(f"{view:08d} {name}\n" for view, name in enumerate(model.names))
    return write_scene(scene, photos, cameras, select_sources(scores, num_sources), notes=names)


def _model_folder(dense: Path) -> Path:
    for folder in (dense / "sparse", dense / "sparse" / "0", dense):
        if any((folder / f"cameras{suffix}").exists() for suffix in READERS):
            return folder
    raise InputError(f"{dense / 'sparse'} has no COLMAP model: neither cameras.bin nor cameras.txt.")


def _usable(model: SparseModel, folder: Path) -> SparseModel:
    """The views with enough points; the others are named."""
    rich = [view for view in range(len(model.names)) if len(model.depths(view)) >= LEAST_POINTS]
    for view in sorted(set(range(len(model.names))) - set(rich)):
        print(f"{model.names[view]} is left out: it sees hardly any sparse points.", file=sys.stderr)
    if len(rich) < 2:
        raise InputError(
            f"{folder} has {len(rich)} photos with {LEAST_POINTS} sparse points; two are needed."
        )
    return model.subset(rich)


def _cameras(model: SparseModel, size: tuple[int, int], depth_num: int | None) -> list[Camera]:
    """All with one number of planes, so that views can be estimated together: what the neediest one needs."""
    ranges = [depth_range(model.depths(view)) for view in range(len(model.names))]
    lenses = [_intrinsics(model, view, size) for view in range(len(model.names))]
    focals = [float(intrinsics[0, 0]) for intrinsics in lenses]
    num = depth_num or max(plane_count(*span, focal) for span, focal in zip(ranges, focals, strict=True))
    rows = zip(model.extrinsics, lenses, ranges, strict=True)
    return [Camera(pose, lens, near, (far - near) / (num - 1), num) for pose, lens, (near, far) in rows]


def _intrinsics(model: SparseModel, view: int, size: tuple[int, int]) -> Tensor:
    (W0, H0), (W, H, left, top) = model.sizes[view], _covering(model.sizes[view], size)
    return crop_intrinsics(scale_intrinsics(model.intrinsics[view], (W / W0, H / H0)), left, top)


def _check_photos(model: SparseModel, paths: list[Path]) -> None:
    """The cameras must fit the photos: before a size that the model invents is drawn."""
    for path, (W0, H0) in zip(paths, model.sizes, strict=True):
        W, H = image_size(path)
        if (W, H) != (W0, H0):
            raise InputError(f"{path} is {W} x {H} pixels, but its camera in the model is for {W0} x {H0}.")


class _Lazy(Mapping):
    """The photos by view, each read when it is asked for: all of them may not fit into the memory."""

    def __init__(self, total: int, read: Callable[[int], Tensor]) -> None:
        self.total, self.read = total, read

    def __getitem__(self, view: int) -> Tensor:
        return self.read(view)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.total))

    def __len__(self) -> int:
        return self.total


def cover(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring an image to another size without distorting it: scale it until it covers, crop what is over.

    Args:
        image: (C, H0, W0) in [0, 1].
        size: (W, H), in pixels.

    Returns:
        (C, H, W), the same image if it has this size already.

    >>> cover(torch.arange(6.0).view(1, 1, 6) / 6, (3, 1))
    tensor([[[0.1667, 0.3333, 0.5000]]])
    """
    W, H, left, top = _covering((image.shape[2], image.shape[1]), size)
    if image.shape[1:] != (H, W):
        image = F.interpolate(image[None], (H, W), mode="bilinear", antialias=True)[0].clamp(0, 1)
    return image[:, top : top + size[1], left : left + size[0]]


def _covering(old: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Width and height to scale to, then columns and rows to cut off on the left and at the top."""
    factor = max(size[0] / old[0], size[1] / old[1])
    W, H = (max(new, round(factor * length)) for length, new in zip(old, size, strict=True))
    return W, H, (W - size[0]) // 2, (H - size[1]) // 2


# --- reading a model ---------------------------------------------------------------------------------


class _Image(NamedTuple):
    """One registered photo, as both kinds of files have it."""

    name: str
    camera: int
    pose: tuple[float, ...]  # quaternion w, x, y, z and translation, world to camera
    points: list[int]  # ids of the world points that it sees


Lens = tuple[tuple[int, int], Tensor]  # (W, H) and intrinsics (3, 3)


def read_model(folder: str | Path) -> SparseModel:
    """Read a COLMAP model of undistorted photos.

    Ids need not be contiguous, several cameras may have taken the photos, and names may have spaces.

    Args:
        folder: it has ``cameras``, ``images`` and ``points3D``, all with the suffix .bin or all with .txt;
            where both are there, the binary files count.

    Returns:
        The model.

    Raises:
        InputError: a file is missing or broken, the model is empty, or a camera has distortion.

    Source: COLMAP's documentation, "Output Format".
    """
    folder = Path(folder)
    suffix = next((suffix for suffix in READERS if (folder / f"cameras{suffix}").exists()), ".txt")
    lenses, images, points = (
        _read(folder / f"{name}{suffix}", reader)
        for name, reader in zip(("cameras", "images", "points3D"), READERS[suffix], strict=True)
    )
    images = sorted(images, key=lambda image: image.name)
    if not images or not points:
        raise InputError(
            f"{folder} has {len(images)} registered photos and {len(points)} points: nothing to see."
        )
    if len(images) * len(points) > MOST_SIGHTS:
        raise InputError(f"{folder} has {len(images)} photos of {len(points)} points: too many for a scene.")
    _check_ids(folder, lenses, images, points)
    model = _assemble(lenses, images, points)
    if not all(tensor.isfinite().all() for tensor in (model.intrinsics, model.extrinsics, model.points)):
        raise InputError(f"{folder} has cameras or points whose numbers are not finite.")
    return model


def is_whole(folder: Path) -> bool:
    """Whether a binary model's photos and its points, which are written last, can be read to their ends."""
    try:
        _binary_images(folder / "images.bin"), _binary_points(folder / "points3D.bin")
    except (OSError, struct.error, ValueError):
        return False
    return True


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    except (struct.error, ValueError, IndexError, StopIteration, OverflowError, MemoryError):
        raise InputError(f"{path} is broken or cut off: it is not what COLMAP writes.") from None


def _check_ids(folder: Path, lenses: dict, images: list[_Image], points: dict) -> None:
    for image in images:
        if image.camera not in lenses:
            raise InputError(f"{folder} has no camera {image.camera}, which took {image.name}.")
        if strays := sorted(set(image.points) - set(points)):
            raise InputError(f"{folder} has no point {strays[0]}, which {image.name} sees.")


def _assemble(lenses: dict[int, Lens], images: list[_Image], points: dict[int, tuple]) -> SparseModel:
    index = {point: number for number, point in enumerate(points)}
    visibility = torch.zeros(len(images), len(points), dtype=torch.bool)  # (V, N)
    for seen, image in zip(visibility, images, strict=True):
        seen[[index[point] for point in image.points]] = True
    return SparseModel(
        names=[image.name for image in images],
        sizes=[lenses[image.camera][0] for image in images],
        intrinsics=torch.stack([lenses[image.camera][1] for image in images]),
        extrinsics=torch.stack([_extrinsics(image.pose) for image in images]),
        points=torch.tensor(list(points.values()), dtype=torch.float64),
        visibility=visibility,
    )


def _extrinsics(pose: tuple[float, ...]) -> Tensor:
    """(4, 4) of a quaternion (w, u) and a translation: R x = (w^2 - u.u) x + 2 (u.x) u + 2 w (u cross x)."""
    quaternion = torch.tensor(pose[:4], dtype=torch.float64)
    w, *u = quaternion / quaternion.norm()
    u = torch.stack(u)
    across = torch.linalg.cross(
        u.expand(3, 3), torch.eye(3, dtype=torch.float64), dim=1
    ).T  # u x e_k in column k
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = (w * w - u @ u) * matrix[:3, :3] + 2 * torch.outer(u, u) + 2 * w * across
    matrix[:3, 3] = torch.tensor(pose[4:], dtype=torch.float64)
    return matrix


def _lens(path: Path, number: int, model: str, width: int, height: int, params: Sequence[float]) -> Lens:
    """The camera of one line or record; only a pinhole passes."""
    focals = LENSES[model][1] if model in LENSES else 0
    if not focals or any(params[focals + 2 :]):
        raise InputError(f"{path} has a camera with distortion ({model}, camera {number}): {REMEDY}.")
    fx, fy = (*params[:focals], *params[:focals])[:2]
    if not (0 < width * height <= MAX_PIXELS and width > 0 and fx > 0 and fy > 0):
        raise InputError(f"{path} has a camera without a size or a focal length (camera {number}).")
    cx, cy = params[focals : focals + 2]
    return (width, height), torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _text_cameras(path: Path) -> dict[int, Lens]:
    rows = (line.split() for line in _lines(path) if line)
    return {
        int(row[0]): _lens(path, int(row[0]), row[1], int(row[2]), int(row[3]), [*map(float, row[4:])])
        for row in rows
    }


def _text_images(path: Path) -> list[_Image]:
    images, lines = [], _lines(path)
    for line in lines:
        if line:  # two lines for each photo; the second is empty where it sees nothing
            *numbers, camera, name = line.split(maxsplit=9)[1:]
            ids = map(int, next(lines).split()[2::3])
            images.append(_Image(name, int(camera), (*map(float, numbers),), [i for i in ids if i != -1]))
    return images


def _text_points(path: Path) -> dict[int, tuple]:
    rows = (line.split(maxsplit=4) for line in _lines(path) if line)
    return {int(row[0]): (float(row[1]), float(row[2]), float(row[3])) for row in rows}


def _lines(path: Path) -> Iterator[str]:
    file_size(path)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return iter([line.strip() for line in lines if not line.startswith("#")])


class _Bytes:
    """A binary file, read from front to back; reading past its end is an error."""

    def __init__(self, path: Path) -> None:
        file_size(path)
        self.data, self.at = path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
        """The next little-endian numbers."""
        self.at, start = self.at + struct.calcsize("<" + layout), self.at
        return struct.unpack_from("<" + layout, self.data, start)

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        """The next records."""
        self.at, start = self.at + count * dtype.itemsize, self.at
        return np.frombuffer(self.data, dtype, count, start)

    def word(self) -> str:
        """The next text, which ends with a zero."""
        self.at, start = self.data.index(b"\0", self.at) + 1, self.at
        return self.data[start : self.at - 1].decode()

    def close(self) -> None:
        """Complain about what is left over."""
        if self.at != len(self.data):
            raise ValueError("more bytes than announced")


def _binary_cameras(path: Path) -> dict[int, Lens]:
    names = {number: name for name, (number, _, _) in LENSES.items()}
    file, lenses = _Bytes(path), {}
    for _ in range(*file.take("Q")):
        number, model, width, height = file.take("IiQQ")
        name = names.get(model, f"model {model}")
        _, focals, distortion = LENSES.get(name, (model, 0, 0))
        params = file.take(f"{focals + 2 + distortion}d")
        lenses[number] = _lens(path, number, name, width, height, params)
    file.close()
    return lenses


def _binary_images(path: Path) -> list[_Image]:
    file, images = _Bytes(path), []
    for _ in range(*file.take("Q")):
        _, *pose, camera = file.take("I7dI")
        name = file.word()
        ids = file.array(IMAGE_POINT, *file.take("Q"))["id"]
        images.append(_Image(name, camera, tuple(pose), ids[ids != NO_POINT].tolist()))
    file.close()
    return images


def _binary_points(path: Path) -> dict[int, tuple]:
    file, points = _Bytes(path), {}
    for _ in range(*file.take("Q")):
        number, *position = file.take("Q3d3Bd")[:4]
        points[number] = tuple(position)
        file.array(TRACK, *file.take("Q"))
    file.close()
    return points


IMAGE_POINT = np.dtype([("x", "<f8"), ("y", "<f8"), ("id", "<u8")])
TRACK = np.dtype([("image", "<u4"), ("point", "<u4")])
READERS = {
    ".bin": (_binary_cameras, _binary_images, _binary_points),
    ".txt": (_text_cameras, _text_images, _text_points),
}
