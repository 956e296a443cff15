"""Draw the README's picture: a photograph, its estimated depth, and the fused cloud seen from two sides.

    python benchmarks/picture.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
from PIL import Image

from mvsnet_edu.cli import main
from mvsnet_edu.data import read_cam, read_image, read_pfm, read_ply
from mvsnet_edu.figures import Viewpoint
from mvsnet_edu.figures.cloud import splat

ROOT = Path(__file__).parents[1]
SCENE, PICTURE = ROOT / "data" / "still_life", ROOT / "book" / "_assets" / "reconstruction.png"
HEIGHT = 360


def photograph() -> Image.Image:
    image = read_image(SCENE / "images" / "00000003.jpg").permute(1, 2, 0).numpy()
    return fit(Image.fromarray((255 * image).astype(np.uint8)))


def depth_map(path: Path) -> Image.Image:
    """Near is bright."""
    depth = read_pfm(path)
    low, high = np.quantile(depth, [0.01, 0.99])
    colors = matplotlib.colormaps["viridis"](1 - ((depth - low) / (high - low)).clip(0, 1))[..., :3]
    return fit(Image.fromarray((255 * colors).astype(np.uint8)))


def cloud(path: Path, aside: float) -> Image.Image:
    """From the middle camera, moved to the side by so many scene units."""
    points = read_ply(path)
    extrinsics = read_cam(SCENE / "cams" / "00000003_cam.txt").extrinsics.numpy()
    right, eye = extrinsics[0, :3], -extrinsics[:3, :3].T @ extrinsics[:3, 3]
    target = np.median(points.points, axis=0)
    view = Viewpoint(eye=tuple(eye + aside * right), target=tuple(target), up=tuple(-extrinsics[1, :3]))
    drawn = Image.fromarray(splat(points.points, points.colors, view, size=0.03, height=2 * HEIGHT))
    sheet = Image.new("RGBA", drawn.size, "white")
    return fit(Image.alpha_composite(sheet, drawn).convert("RGB"))


def fit(image: Image.Image) -> Image.Image:
    return image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)


def side_by_side(pictures: list[Image.Image], gap: int = 8) -> Image.Image:
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    sheet, x = Image.new("RGB", (width, HEIGHT), "white"), 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + gap
    return sheet


if __name__ == "__main__":
    with TemporaryDirectory() as out:
        for command in ("depth", "fuse"):
            if main([command, str(SCENE), out]):
                raise SystemExit(f"{command} failed")
        fused, depth = Path(out) / "fused.ply", Path(out) / "depth" / "00000003.pfm"
        sheet = side_by_side([photograph(), depth_map(depth), cloud(fused, 1.6)])
    sheet.quantize(192).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1024} KB")
