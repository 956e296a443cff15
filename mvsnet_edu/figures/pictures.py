"""Arrays as pictures that stand inside the HTML, and the two colour tables that the figures use."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

__all__ = ["TABLES", "color_table", "colorize", "css_gradient", "data_uri", "to_rgb"]

# Polynomial fit to the colour map viridis (CC0), within 0.017: one row per power, columns R, G, B.
_VIRIDIS = np.array(
    [
        [0.2745, 0.0058, 0.3327],
        [0.1077, 1.3965, 1.3868],
        [-0.3272, 0.2148, 0.0920],
        [-4.5999, -5.7582, -19.2918],
        [6.2037, 14.1540, 56.6563],
        [4.7518, -13.7494, -65.3210],
        [-5.4321, 4.6416, 26.2721],
    ]
)
# From blue over white to vermilion: two ends that the common kinds of colour blindness keep apart.
_DIVERGING = np.array(
    [[0.02, 0.19, 0.42], [0.13, 0.48, 0.75], [0.97, 0.97, 0.97], [0.90, 0.47, 0.14], [0.50, 0.20, 0.02]]
)
TABLES = ("viridis", "diverging")
_MISSING = np.array([128, 128, 128], np.uint8)


def color_table(name: str) -> np.ndarray:
    """256 colours from low to high.

    Args:
        name: "viridis" for amounts, "diverging" for signed values with zero in the middle.

    Returns:
        (256, 3), uint8.

    Raises:
        ValueError: there is no table of that name.

    >>> color_table("diverging")[[0, 128, 255]].tolist()
    [[5, 48, 107], [247, 246, 246], [128, 51, 5]]
    """
    if name not in TABLES:
        raise ValueError(f"colours are one of {', '.join(TABLES)}, not {name!r}")
    position = np.linspace(0, 1, 256)
    if name == "viridis":
        table = np.vander(position, len(_VIRIDIS), increasing=True) @ _VIRIDIS
    else:
        stops = np.linspace(0, 1, len(_DIVERGING))
        table = np.stack([np.interp(position, stops, channel) for channel in _DIVERGING.T], axis=1)
    return (table.clip(0, 1) * 255).round().astype(np.uint8)


def colorize(values: np.ndarray, limits: tuple[float, float], name: str) -> np.ndarray:
    """Colours of a map of numbers; grey where a value is not finite.

    Args:
        values: (H, W).
        limits: the values that get the first and the last colour; beyond them the colour stays.
        name: colour table.

    Returns:
        (H, W, 3), uint8.

    >>> colorize(np.array([[0.0, np.nan]]), (0.0, 1.0), "viridis").tolist()
    [[[70, 1, 85], [128, 128, 128]]]
    """
    low, high = limits
    position = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    index = (np.nan_to_num(position, nan=0.0).clip(0, 1) * 255).round().astype(np.intp)
    return np.where(np.isfinite(values)[..., None], color_table(name)[index], _MISSING)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """A colour picture in 8 bits.

    Args:
        image: (H, W, 3), uint8, or float in [0, 1].

    Returns:
        (H, W, 3), uint8.

    >>> to_rgb(np.array([[[0.0, 0.5, 1.0]]])).tolist()
    [[[0, 128, 255]]]
    """
    if image.dtype == np.uint8:
        return image
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def data_uri(image: np.ndarray) -> str:
    """A picture as a data URI: PNG where that is smaller (maps, drawings), JPEG otherwise (photographs).

    Args:
        image: (H, W, 3) or (H, W, 4) with opacity, uint8.

    Returns:
        The URI.

    >>> data_uri(np.zeros((2, 2, 3), np.uint8))[:22]
    'data:image/png;base64,'
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    if picture.mode == "RGBA":  # a cut-out of many colours: a table of 256 halves the file and is not seen
        return _encode(picture.quantize(256, method=Image.Quantize.FASTOCTREE), "png", optimize=True)
    lossless = _encode(picture, "png", optimize=True)
    lossy = _encode(picture, "jpeg", quality=90, subsampling=0)
    return min(lossless, lossy, key=len)


def _encode(picture: Any, form: str, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"


def css_gradient(name: str) -> str:
    """A colour table as a CSS background that runs from left to right.

    >>> css_gradient("diverging")[:40]
    'linear-gradient(90deg,#05306b,#0c4380,#1'
    """
    stops = color_table(name)[np.linspace(0, 255, 17).round().astype(np.intp)]
    return "linear-gradient(90deg," + ",".join("#" + bytes(stop).hex() for stop in stops) + ")"
