"""Photos as cameras and phones leave them: turned, of any size and kind, with notes on the lens."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .formats import IMAGE_FORMATS, opened_image, rgb_pixels

__all__ = ["Photo", "find_photos", "read_mask", "read_photo"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".heic", ".heif", ".tif", ".tiff", ".webp", ".bmp")
FILM_DIAGONAL = math.hypot(36, 24)  # mm, of the film that "35 mm equivalent" speaks of

# Numbers of EXIF tags.
EXIF, MAKER, MODEL = 0x8769, 0x010F, 0x0110
FOCAL_MM, FOCAL_35MM, PLANE_RESOLUTION, PLANE_UNIT = 0x920A, 0xA405, 0xA20E, 0xA210
WIDTH, HEIGHT = 0xA002, 0xA003  # as taken; the file may have been shrunk since
UNIT_MM = {2: 25.4, 3: 10.0}  # inch, centimetre


class Photo(NamedTuple):
    """One photo, upright.

    Attributes:
        image: (3, H, W) float32 RGB in [0, 1].
        focal: focal length in pixels of this image, or None if the file does not tell.
        camera: maker and model; empty if the file does not tell.
    """

    image: Tensor
    focal: float | None
    camera: str


def find_photos(folder: str | Path) -> list[Path]:
    """The photos of a folder, not of those below it.

    Args:
        folder: where they lie.

    Returns:
        their paths; photo 9 comes before photo 10.

    Raises:
        InputError: there is no such folder, or no photo in it.

    Source: ours.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("IMG 10.JPG", "IMG 9.jpg", "notes.txt"):
    ...         _ = (Path(folder) / name).write_bytes(b"")
    ...     [path.name for path in find_photos(folder)]
    ['IMG 9.jpg', 'IMG 10.JPG']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of photos.")
    seen = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    found = [path for path in seen if path.suffix.lower() in SUFFIXES]
    if not found:
        raise InputError(f"{folder} has no photos: no files that end in {', '.join(SUFFIXES)}.")
    return sorted(found, key=lambda path: (_natural(path.name), path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"([0-9]+)", name.lower())]


def read_photo(path: str | Path, longest: int) -> Photo:
    """Read a photo as one looks at it: upright, RGB, and not larger than asked for.

    Args:
        path: a JPEG, PNG, TIFF, WebP or BMP file; HEIC too if pillow-heif is installed.
        longest: if its longer side has more pixels, it is shrunk to that.

    Returns:
        the photo.

    Raises:
        InputError: the file cannot be read as an image.

    Source: ours; the CIPA's definition of the 35 mm equivalent, by the diagonal.

    >>> from tempfile import TemporaryDirectory
    >>> from mvsnet_edu.data.formats import write_image
    >>> with TemporaryDirectory() as folder:
    ...     write_image(Path(folder) / "a.jpg", torch.zeros(3, 48, 64))
    ...     read_photo(Path(folder) / "a.jpg", longest=32).image.shape
    torch.Size([3, 24, 32])
    """
    from PIL import ImageOps

    with opened_image(Path(path), _formats(Path(path))) as image:
        exif, (W0, H0) = image.getexif(), image.size
        focal = _focal_share(exif, (W0, H0))
        maker, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (MAKER, MODEL))
        image.draft(None, (longest, longest))  # a JPEG decodes at 1/2, 1/4 or 1/8, if that is large enough
        pixels = torch.from_numpy(rgb_pixels(ImageOps.exif_transpose(image))).permute(2, 0, 1)  # (3, H, W)
    pixels = _shrink(pixels.contiguous(), longest, max(W0, H0))
    return Photo(pixels, focal and focal * math.hypot(*pixels.shape[1:]), f"{maker} {model}".strip())


def _formats(path: Path) -> tuple[str, ...]:
    """What a file may hold, by its suffix; Pillow learns to read HEIC here."""
    if path.suffix.lower() not in (".heic", ".heif"):
        return IMAGE_FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(f"{path} is a HEIC photo: pip install pillow-heif, or save it as JPEG.") from None
    register_heif_opener()
    return (*IMAGE_FORMATS, "HEIF")


def _shrink(image: Tensor, longest: int, original: int) -> Tensor:
    """(3, H, W) with the longer side at most so long; ``original`` is how long it is in the file."""
    H, W = image.shape[1:]
    factor = min(longest, original) / max(H, W)
    if factor >= 1:
        return image
    size = (max(1, round(factor * H)), max(1, round(factor * W)))
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _focal_share(exif, size: tuple[int, int]) -> float | None:
    """Focal length as a share of the image's diagonal."""
    notes = exif.get_ifd(EXIF)
    film, focal, resolution = (_positive(notes.get(tag)) for tag in (FOCAL_35MM, FOCAL_MM, PLANE_RESOLUTION))
    if film:
        return _of_a_lens(film / FILM_DIAGONAL)
    unit = UNIT_MM.get(notes.get(PLANE_UNIT, 2))
    taken = [_positive(notes.get(tag)) or now for tag, now in zip((WIDTH, HEIGHT), size, strict=True)]
    known = focal and resolution and unit
    return _of_a_lens(focal * resolution / unit / math.hypot(*taken)) if known else None


def _of_a_lens(share: float) -> float | None:
    """What no lens has, from 2 to 4,000 mm on film, says nothing."""
    return share if 2 < share * FILM_DIAGONAL < 4000 else None


def _positive(value) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def read_mask(path: str | Path, size: tuple[int, int]) -> Tensor:
    """Read which pixels of a photo count.

    Args:
        path: an image of the proportions of the upright photo; black means: ignore.
        size: (W, H) of the photo, in pixels.

    Returns:
        (H, W) bool, False where the mask is darker than half grey.

    Raises:
        InputError: the file cannot be read, or has other proportions.

    Source: ours.
    """
    mask = read_photo(path, 1 << 20).image
    (h, w), (W, H) = mask.shape[1:], size
    if abs(w * H - h * W) > max(w, h, W, H):  # more than rounding to whole pixels explains
        raise InputError(f"{path} is {w} x {h} pixels, which does not fit its upright photo of {W} x {H}.")
    return F.interpolate(mask[None], (H, W), mode="nearest-exact")[0].mean(0) >= 0.5
