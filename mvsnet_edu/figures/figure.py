"""The frame that all interactive figures share: data, script, style and picture in one element."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mvsnet_edu.data.formats import atomic_write

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{figure}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Figure:
    """One interactive figure, ready to show.

    Args:
        kind: name of the ``.js`` file that brings the figure to life, and of its ``.css`` file if it has one.
        title: heading of the page that ``save`` writes.
        alt: what the figure shows, for readers who do not see it.
        body: the static part: a picture that stands without scripts, and the controls.
        data: what the script reads, JSON-serialisable; arrays go through ``pack``.
        caption: text below the figure; none if empty.
    """

    kind: str
    title: str
    alt: str
    body: str
    data: dict[str, Any]
    caption: str = ""

    @cached_property
    def html(self) -> str:
        """The whole figure as one HTML element; the same content always gives the same text."""
        data = json.dumps(self.data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
        content = [self.kind, self.alt, self.body, data, self.caption]
        key = hashlib.sha256("\0".join(content).encode()).hexdigest()[:12]
        return "\n".join(
            [
                f'<figure class="mvs-fig mvs-{self.kind}" data-mvs="{key}" role="group" '
                f'aria-label="{escape(self.alt)}">',
                f"<style>{asset('figure.css')}{asset(self.kind + '.css')}</style>",
                self.body,
                '<noscript><p class="mvs-note">This picture moves where scripts are allowed.</p></noscript>',
                f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else "",
                f'<script type="application/json">{data}</script>',
                f"<script>{self._script(key)}</script>",
                "</figure>",
            ]
        )

    def _script(self, key: str) -> str:
        parts = [asset("figure.js"), asset(self.kind + ".js"), f'begin("{key}", start);']
        return "(function () {\n" + "\n".join(parts) + "\n})();"

    def save(self, path: str | Path) -> Path:
        """Write the figure as a page of its own, which works from a disk without a network.

        Args:
            path: the HTML file to write.

        Returns:
            The path.

        Raises:
            InputError: the file cannot be written.
        """
        page = _PAGE.format(title=escape(self.title), style=asset("page.css"), figure=self.html)
        with atomic_write(path) as file:
            file.write(page.encode())
        return Path(path)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Figure({self.kind}: {self.alt})"


@cache
def asset(name: str) -> str:
    """Text of a script or style file of this package, empty where a figure has none of its own.

    >>> "function begin" in asset("figure.js"), asset("loss.nothing")
    (True, '')
    """
    file = resources.files(__package__).joinpath(name)
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def pack(values: np.ndarray) -> dict[str, Any]:
    """Turn an array into JSON that the scripts' ``unpack`` reads back bit for bit.

    Args:
        values: array (...), of 8-bit or 16-bit integers or of float32.

    Returns:
        The element type, the shape, and the little-endian bytes in base64.

    >>> pack(np.array([[1, 2]], np.uint8))
    {'type': 'uint8', 'shape': [1, 2], 'bytes': 'AQI='}
    """
    values = np.ascontiguousarray(values)
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    text = base64.b64encode(little.tobytes()).decode()
    return {"type": values.dtype.name, "shape": list(values.shape), "bytes": text}


def to_numpy(values: Any) -> np.ndarray:
    """A tensor of any device, or anything array-like, as a numpy array.

    >>> import torch
    >>> to_numpy(torch.ones(2, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def to_map(values: Any) -> np.ndarray:
    """A depth map, or another map of one number per pixel, without its axes of size 1.

    Args:
        values: (H, W), or with leading axes of size 1, as in (1, 1, H, W).

    Returns:
        (H, W), float32.

    Raises:
        ValueError: more than one map is given.

    >>> to_map(np.zeros((1, 1, 3, 5))).shape
    (3, 5)
    """
    array = to_numpy(values).astype(np.float32)
    if array.ndim < 2 or any(size != 1 for size in array.shape[:-2]):
        raise ValueError(f"one map (H, W) is needed, not an array of shape {array.shape}")
    return array.reshape(array.shape[-2:])


def number(value: float) -> str:
    """A number for SVG, short.

    >>> number(0.1 + 0.2), number(-0.0)
    ('0.3', '0')
    """
    return f"{value + 0.0:.6g}"


def label(value: float) -> str:
    """A number to read, with a true minus sign.

    >>> label(-297.5961)
    '−297.6'
    """
    return f"{value + 0.0:.4g}".replace("-", "\N{MINUS SIGN}")
