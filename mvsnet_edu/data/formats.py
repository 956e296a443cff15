"""Readers and writers of MVSNet's files: cam.txt, pair.txt, PFM maps and images.

Every reader turns a broken file into an :class:`mvsnet_edu.errors.InputError` that names it; every writer
goes through :func:`atomic_write`, so that nobody meets half a file.
"""

from __future__ import annotations

import io
import math
import re
import stat
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..camera import scale_intrinsics
from ..depth import uniform_depths
from ..errors import InputError

__all__ = [
    "Camera",
    "Pairs",
    "atomic_write",
    "image_size",
    "read_cam",
    "read_image",
    "read_pair",
    "read_pfm",
    "write_cam",
    "write_image",
    "write_pair",
    "write_pfm",
]

Pairs = dict[int, list[tuple[int, float]]]  # reference view -> [(source view, score), ...], best first

UNFINISHED = f".{'[0-9a-f]' * 32}.tmp"  # how files and folders are called until they are complete
# Far above any use; a larger number in a file is damage, and would fill the memory.
MAX_PLANES = 100_000
MAX_PIXELS = 1 << 28
MAX_TEXT = 1 << 24  # bytes; a pair.txt of 100,000 views
PNG_PIXELS = 8 * 1032  # in a byte: bits, in the best case of its compression
IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")  # others of Pillow's start programs
FLOAT32_MAX = torch.finfo(torch.float32).max
ROTATION_TOLERANCE = 1e-2  # cameras written with three digits still pass
PFM_HEADER = re.compile(
    rb"(?P<kind>P[fF])\s+(?P<width>\d{1,18})\s+(?P<height>\d{1,18})\s+(?P<scale>[-+.\deE]{1,32})(?:\r\n|\s)"
)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears under its name only once it is complete.

    The bytes go to a temporary file in the same folder, which then takes the place of ``path`` in one step;
    after an exception nothing is left behind. Missing parent folders are made.

    Args:
        path: the file to write.

    Returns:
        A context manager that gives the open file.

    Raises:
        InputError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "a.txt") as file:
    ...         _ = file.write(b"whole")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'whole'
    """
    path = Path(path)
    if not path.name or "\0" in path.name or path.exists() and not path.is_file():
        raise InputError(f"{path} cannot be written: it is no name of a file.")
    temporary = unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {reason(error)}.") from error
    finally:
        _discard(temporary)


def unfinished(path: Path) -> Path:
    """A name of its own beside a path, for what shall take that path's place.

    >>> unfinished(Path("maps/depth.pfm")).match(f"maps/{UNFINISHED}")
    True
    """
    return path.with_name(f".{uuid.uuid4().hex}.tmp")


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # its folder is not one, which the caller has already reported


def reason(error: Exception) -> str:
    """What an exception says, in one short line and without the path that our own messages name.

    >>> reason(OSError(2, "No such file or directory", "cam.txt"))
    'No such file or directory'
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shorten(text, 200, placeholder=" ...") if " " in text[:200] else text[:200]


def file_size(path: Path, most: int | None = None) -> int:
    """The bytes of a file, asked before it is opened: a pipe would make its reader wait, or never end.

    Args:
        path: the file.
        most: how many there may be.

    Returns:
        how many there are.

    Raises:
        InputError: there is no such file, it is no regular file, or it is larger.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} cannot be read: it is no file.")
    if most is not None and status.st_size > most:
        raise InputError(f"{path} has {status.st_size} bytes, but such files have {most} at most.")
    return status.st_size


def _read_lines(path: Path) -> list[list[str]]:
    """The words of each line that has any; a byte order mark and Windows line ends do no harm."""
    file_size(path, MAX_TEXT)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file.") from error
    return [line.split() for line in text.splitlines() if line.strip()]


def _number(word: str, path: Path) -> float:
    try:
        number = float(word)
    except ValueError:
        raise InputError(f"{path} has {word[:40]!r} where a number should be.") from None
    if not math.isfinite(number):
        raise InputError(f"{path} has the number {word[:40]}, which is not finite.")
    return number


def _count(word: str, path: Path) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", word):
        raise InputError(f"{path} has {word[:40]!r} where a view number or a count should be.")
    return int(word)


@dataclass(frozen=True, eq=False)
class Camera:
    """One view's camera and the depth range that its file recommends.

    Args:
        extrinsics: (4, 4) float64, world to camera.
        intrinsics: (3, 3) float64, in pixels of the full image; the centre of the first one is (0.5, 0.5).
        depth_min: depth of the first plane, in the scene's unit.
        depth_interval: distance between two planes.
        depth_num: number D of planes, or None where the file leaves it to the user.
        depth_max: depth at which the range ends, or None if depth_num is; by default that of the last plane.

    >>> Camera(torch.eye(4).double(), torch.eye(3).double(), 425.0, 2.5, 192).depth_max
    902.5
    """

    extrinsics: Tensor
    intrinsics: Tensor
    depth_min: float
    depth_interval: float
    depth_num: int | None = None
    depth_max: float | None = None

    def __post_init__(self) -> None:
        # The original's code says min + interval * D, its README D - 1; only that is the depth of a plane.
        if self.depth_max is None and self.depth_num is not None:
            object.__setattr__(self, "depth_max", self.depth_min + self.depth_interval * (self.depth_num - 1))

    def depth_values(self, num: int | None = None) -> Tensor:
        """The depths of the planes, evenly spaced.

        Args:
            num: number of planes; where it differs from the file's D, the first and the last plane stay.

        Returns:
            (D,) float64, exactly D values.

        Raises:
            InputError: neither the camera nor the call says how many planes, or fewer than two are asked for.

        >>> camera = Camera(torch.eye(4).double(), torch.eye(3).double(), 2.0, 0.5, 5)
        >>> camera.depth_values().tolist(), camera.depth_values(3).tolist()
        ([2.0, 2.5, 3.0, 3.5, 4.0], [2.0, 3.0, 4.0])
        """
        num = self.depth_num if num is None else num
        if num is None:
            raise InputError("The camera file does not say how many depth planes to use; choose a number.")
        if not 2 <= num <= MAX_PLANES:
            raise InputError(f"A plane sweep needs from 2 to {MAX_PLANES} depth planes, not {num}.")
        interval = self.depth_interval * ((self.depth_num or num) - 1) / (num - 1)
        first, step = torch.tensor([self.depth_min, interval], dtype=torch.float64)
        return uniform_depths(first, step, num)

    def scaled(self, sx: float, sy: float) -> Camera:
        """The camera of the resized image.

        Pixel centres lie at +0.5, so the scale simply multiplies the first two rows of the intrinsics.

        Args:
            sx: new width / old width.
            sy: new height / old height.

        Returns:
            A camera that differs in its intrinsics only.

        >>> camera = Camera(torch.eye(4).double(), torch.eye(3).double(), 2.0, 0.5)
        >>> camera.scaled(0.25, 0.5).intrinsics.diagonal().tolist()
        [0.25, 0.5, 1.0]
        """
        return replace(self, intrinsics=scale_intrinsics(self.intrinsics, (sx, sy)))


def read_cam(path: str | Path, check_range: bool = True) -> Camera:
    """Read a camera file of 29, 30 or 31 words.

    Args:
        path: ``cams/%08d_cam.txt``: "extrinsic", 4 x 4 numbers, "intrinsic", 3 x 3 numbers, then the depth's
            minimum and interval and, optionally, the number of planes and the maximum.
        check_range: whether the depth range must make sense too; a source view does not need one.

    Returns:
        The camera. A number of planes that is not whole, as the original's converter writes it, is rounded.

    Raises:
        InputError: the file cannot be read, or its numbers do not make a camera.

    Source: ``preprocess.py:load_cam``.

    >>> from tempfile import TemporaryDirectory
    >>> camera = Camera(torch.eye(4).double(), torch.eye(3).double(), 2.0, 0.5, 48)
    >>> with TemporaryDirectory() as folder:
    ...     write_cam(Path(folder) / "00000000_cam.txt", camera)
    ...     read_cam(Path(folder) / "00000000_cam.txt").depth_num
    48
    """
    path = Path(path)
    words = [word for line in _read_lines(path) for word in line]
    if len(words) not in (29, 30, 31):
        raise InputError(f"{path} has {len(words)} words, but a camera file has 29, 30 or 31.")
    if (words[0].lower(), words[17].lower()) != ("extrinsic", "intrinsic"):
        raise InputError(f"{path} lacks the words 'extrinsic' and 'intrinsic' before the two matrices.")
    numbers = torch.tensor([_number(word, path) for word in words[1:17] + words[18:]], dtype=torch.float64)
    extrinsics, intrinsics = numbers[:16].view(4, 4), numbers[16:25].view(3, 3)
    depth_min, interval, num, depth_max = (numbers[25:].tolist() + [None, None])[:4]
    camera = Camera(
        extrinsics, intrinsics, depth_min, interval, None if num is None else round(num), depth_max
    )
    problem = matrix_problem(extrinsics, intrinsics) or (check_range and range_problem(camera))
    if problem:
        raise InputError(f"{path} {problem}.")
    return camera


def matrix_problem(extrinsics: Tensor, intrinsics: Tensor) -> str | None:
    """What keeps two matrices from being a camera, as the end of a sentence; None if nothing does.

    >>> matrix_problem(torch.eye(4).double(), torch.zeros(3, 3).double())
    'has a matrix whose last row is not 0 ... 0 1'
    """
    rotation, bottom = extrinsics[:3, :3], extrinsics.new_tensor([0, 0, 0, 1])
    if not torch.allclose(rotation @ rotation.T, torch.eye(3).double(), atol=ROTATION_TOLERANCE):
        return "has an extrinsic matrix whose 3 x 3 part is not a rotation"
    if torch.linalg.det(rotation) < 0:
        return "has an extrinsic matrix that mirrors the scene (determinant -1)"
    if not torch.equal(extrinsics[3], bottom) or not torch.equal(intrinsics[2], bottom[1:]):
        return "has a matrix whose last row is not 0 ... 0 1"
    if torch.linalg.det(intrinsics).abs() < 1e-12:
        return "has an intrinsic matrix that is singular"
    used = (extrinsics, intrinsics, torch.linalg.inv(intrinsics))
    if not all(matrix.float().isfinite().all() for matrix in used):
        return "has a matrix whose numbers are too large to compute with"
    return None


def range_problem(camera: Camera) -> str | None:
    """What keeps a camera's depth range from being swept, as the end of a sentence; None if nothing does.

    >>> range_problem(Camera(torch.eye(4), torch.eye(3), -1.0, 0.5))
    'has the minimum depth -1, but it must be positive'
    """
    near, interval, num, far = camera.depth_min, camera.depth_interval, camera.depth_num, camera.depth_max
    if not all(abs(x) < FLOAT32_MAX for x in (near, interval, far or 0)):
        return f"has a depth range from {near:g} in steps of {interval:g}, too large to compute with"
    if near <= 0:
        return f"has the minimum depth {near:g}, but it must be positive"
    if interval <= 0:
        return f"has the depth interval {interval:g}, but it must be positive"
    if num is not None and not 2 <= num <= MAX_PLANES:
        return f"asks for {num:g} depth planes, but there must be from 2 to {MAX_PLANES}"
    if far is not None and far <= near:
        return f"has a depth range from {near:g} to {far:g}, but it must grow"
    return None


def write_cam(path: str | Path, camera: Camera) -> None:
    """Write a camera file, with the shortest digits that read back as the same float64 numbers.

    Args:
        path: the file to write.
        camera: the camera; without ``depth_num`` the file has 29 words, otherwise 31.

    Raises:
        InputError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "00000000_cam.txt"
    ...     write_cam(path, Camera(torch.eye(4), torch.eye(3), 2.0, 0.5, 48))
    ...     path.read_text().splitlines()[-1]
    '2.0 0.5 48 25.5'
    """
    depth = [float(camera.depth_min), float(camera.depth_interval)]
    if camera.depth_num is not None:
        depth += [int(camera.depth_num), float(camera.depth_max)]
    lines = ["extrinsic", *_rows(camera.extrinsics), "", "intrinsic", *_rows(camera.intrinsics), ""]
    lines.append(" ".join(map(repr, depth)))
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _rows(matrix: Tensor) -> list[str]:
    return [" ".join(map(repr, row)) for row in matrix.tolist()]


def read_pair(path: str | Path) -> Pairs:
    """Read which source views go with each reference view.

    Args:
        path: ``pair.txt``: the number of references; then for each one a line with its view number, and a
            line with the number of sources followed by that many pairs of view number and score.

    Returns:
        For each reference its sources and their scores, in the file's order. A view that lists itself, as the
        original's converter lets it in small scenes, is not among its own sources.

    Raises:
        InputError: the file cannot be read, or does not hold what it announces.

    Source: ``preprocess.py:gen_pipeline_mvs_list``.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "pair.txt").write_text("1" + chr(10) + "0" + chr(10) + "2 0 9.5 1 7.5")
    ...     read_pair(Path(folder) / "pair.txt")
    {0: [(1, 7.5)]}
    """
    path = Path(path)
    first, *lines = _read_lines(path) or [[]]
    if len(first) != 1:
        raise InputError(f"{path} must begin with a line that holds the number of views.")
    total = _count(first[0], path)
    if len(lines) != 2 * total:
        raise InputError(f"{path} announces {total} views, so {2 * total} more lines, but has {len(lines)}.")
    pairs: Pairs = {}
    for head, body in zip(lines[::2], lines[1::2], strict=True):
        ref, sources = _reference(head, body, path)
        if ref in pairs:
            raise InputError(f"{path} lists view {ref} twice.")
        pairs[ref] = sources
    return pairs


def _reference(head: list[str], body: list[str], path: Path) -> tuple[int, list[tuple[int, float]]]:
    if len(head) != 1:
        raise InputError(f"{path} has the line '{' '.join(head)[:40]}' where a single view number should be.")
    ref, announced = _count(head[0], path), _count(body[0], path)
    if len(body) != 2 * announced + 1:
        listed = (len(body) - 1) / 2
        raise InputError(f"{path} announces {announced} sources for view {ref}, but lists {listed:g}.")
    views, scores = [_count(word, path) for word in body[1::2]], [_number(word, path) for word in body[2::2]]
    if len(set(views)) < len(views):
        raise InputError(f"{path} lists a source of view {ref} twice.")
    return ref, [(view, score) for view, score in zip(views, scores, strict=True) if view != ref]


def write_pair(path: str | Path, pairs: Pairs) -> None:
    """Write pair.txt, its scores with four decimals.

    Args:
        path: the file to write.
        pairs: for each reference view its sources and their scores, best first.

    Raises:
        InputError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_pair(Path(folder) / "pair.txt", {0: [(1, 7.5)], 1: []})
    ...     (Path(folder) / "pair.txt").read_text().splitlines()
    ['2', '0', '1 1 7.5000', '1', '0']
    """
    lines = [str(len(pairs))]
    for ref, sources in pairs.items():
        words = [f"{view} {score:.4f}" for view, score in sources]
        lines += [str(ref), " ".join([str(len(sources)), *words])]
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def read_pfm(path: str | Path) -> np.ndarray:
    """Read a PFM file: float32 pixels, stored from the bottom row to the top.

    Args:
        path: the file. The sign of its scale gives the byte order; the scale's size has no agreed use.

    Returns:
        (H, W) float32, or (H, W, 3) for a colour file, top row first.

    Raises:
        InputError: the file cannot be read, is no PFM, or has more or fewer bytes than its header announces.

    Source: ``preprocess.py:load_pfm``.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_pfm(Path(folder) / "depth.pfm", np.array([[1, 2], [3, 4], [5, 6]]))
    ...     read_pfm(Path(folder) / "depth.pfm").tolist()
    [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    """
    path = Path(path)
    actual = file_size(path)
    try:
        with open(path, "rb") as file:
            shape, dtype, start = _pfm_header(file.read(128), path)
            # Compare sizes before allocating anything: a header can claim 10^12 pixels,
            expected = start + 4 * math.prod(shape)
            if math.prod(shape[:2]) > MAX_PIXELS:  # and so can a file with holes
                raise InputError(f"{path} announces {shape[1]} x {shape[0]} pixels, more than any depth map.")
            if actual != expected:
                raise InputError(f"{path} has {actual} bytes, but its header announces {expected}.")
            pixels = np.fromfile(file, dtype, math.prod(shape), offset=start - file.tell())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    return pixels.reshape(shape)[::-1].astype(np.float32)


def _pfm_header(head: bytes, path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape of the pixels, their type, and the position of the first one."""
    match = PFM_HEADER.match(head)
    if match is None:
        raise InputError(f"{path} does not begin like a PFM file: 'Pf' or 'PF', width, height, scale.")
    width, height, scale = int(match["width"]), int(match["height"]), _number(match["scale"].decode(), path)
    if width == 0 or height == 0 or scale == 0:
        raise InputError(f"{path} has a PFM header whose width, height or scale is zero.")
    channels = (3,) if match["kind"] == b"PF" else ()
    return (height, width, *channels), np.dtype("<f4" if scale < 0 else ">f4"), match.end()


def write_pfm(path: str | Path, values: np.ndarray | Tensor) -> None:
    """Write a map as a little-endian grey PFM file.

    Args:
        path: the file to write.
        values: (H, W), stored as float32.

    Raises:
        InputError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_pfm(Path(folder) / "depth.pfm", torch.ones(2, 3))
    ...     (Path(folder) / "depth.pfm").read_bytes()[:11]
    b'Pf\\n3 2\\n-1.0'
    """
    values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    H, W = values.shape
    with atomic_write(path) as file:
        file.write(f"Pf\n{W} {H}\n-1.0\n".encode())
        file.write(values[::-1].astype("<f4").tobytes())


def read_image(path: str | Path) -> Tensor:
    """Read an image as RGB, whatever its file holds.

    Grey, palette and CMYK images are converted, 16-bit grey keeps its precision, and transparent pixels are
    laid over black. The EXIF orientation is not applied: a scene's camera files describe the pixels as they
    are stored.

    Args:
        path: a JPEG, PNG, TIFF, WebP or BMP file.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        InputError: the file cannot be read as an image.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_image(Path(folder) / "red.png", torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 4, 5))
    ...     read_image(Path(folder) / "red.png")[:, 3, 4].tolist()
    [1.0, 0.0, 0.0]
    """
    with opened_image(Path(path)) as image:
        pixels = torch.from_numpy(rgb_pixels(image))  # (H, W, 3)
    return pixels.permute(2, 0, 1).contiguous()


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image, from its header alone.

    Args:
        path: a JPEG, PNG, TIFF, WebP or BMP file.

    Returns:
        (W, H) in pixels.

    Raises:
        InputError: the file is no image.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_image(Path(folder) / "black.png", torch.zeros(3, 4, 5))
    ...     image_size(Path(folder) / "black.png")
    (5, 4)
    """
    with opened_image(Path(path)) as image:
        return image.size


@contextmanager
def opened_image(path: Path, formats: Sequence[str] = IMAGE_FORMATS) -> Iterator:
    """An image opened by Pillow; whatever goes wrong with it is an InputError that names the file."""
    from PIL import Image, UnidentifiedImageError

    size = file_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large photo or odd metadata: the pixels decide
            with Image.open(path, formats=formats) as image:
                if 0 in image.size:
                    raise ValueError("it has no pixels")
                if image.format == "PNG" and math.prod(image.size) > PNG_PIXELS * size:
                    raise ValueError("its header announces more pixels than its bytes can hold")
                yield image
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image.") from error
    except Exception as error:  # Pillow's decoders meet broken bytes with a dozen kinds of exception
        raise InputError(f"{path} cannot be read as an image: {reason(error)}.") from error


def rgb_pixels(image) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] of a Pillow image."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion to RGB would clip it at 255
        grey = np.asarray(image).astype(np.float32) / 65535
        return np.repeat(grey.clip(0, 1)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a known range")
    if image.mode.upper().endswith("A") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA")).astype(np.float32) / 255
        return rgba[..., :3] * rgba[..., 3:]
    rgb = np.asarray(image.convert("RGB")).astype(np.float32)
    rgb /= 255  # in place: a large photo fills the memory
    return rgb


def write_image(path: str | Path, image: Tensor) -> None:
    """Write an image, as JPEG (quality 92, colour at full resolution) or PNG by its suffix.

    Args:
        path: the file to write; its suffix is .jpg, .jpeg or .png.
        image: (3, H, W) in [0, 1]; values outside are clipped.

    Raises:
        InputError: the file cannot be written, or has another suffix.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_image(Path(folder) / "grey.jpg", torch.full((3, 8, 8), 0.5))
    ...     (Path(folder) / "grey.jpg").read_bytes()[:2]
    b'\\xff\\xd8'
    """
    from PIL import Image

    formats = {
        ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
        ".jpeg": {"format": "JPEG", "quality": 92, "subsampling": 0},
        ".png": {"format": "PNG"},
    }
    options = formats.get(Path(path).suffix.lower())
    if options is None:
        raise InputError(f"{path} must end in .jpg, .jpeg or .png.")
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)  # (H, W, 3)
    encoded = io.BytesIO()  # into a file of a full disk, Pillow writes half a JPEG and says nothing
    Image.fromarray(pixels.contiguous().numpy()).save(encoded, **options)
    with atomic_write(path) as file:
        file.write(encoded.getbuffer())
