"""Depth maps of real photographs against the sparse points of structure from motion.

    mvsnet-edu reconstruct PHOTOS OUT
    python benchmarks/sparse_points.py OUT

Real photographs come without a true depth. But the points from which their cameras were computed are
known well: each was found in several photographs at once, to a fraction of a pixel. This prints how far
the estimated depth at such points is from theirs, as a share of the depth; points that fewer than three
photographs see do not count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from mvsnet_edu import project
from mvsnet_edu.data.colmap import SparseModel, read_model
from mvsnet_edu.data.formats import read_cam, read_pfm


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="what mvsnet-edu reconstruct has made")
    out = parser.parse_args().out
    model = read_model(out / "colmap" / "dense" / "sparse")
    names = dict(line.split(maxsplit=1) for line in (out / "scene" / "photos.txt").read_text().splitlines())
    errors = []
    for path in sorted((out / "depth").glob("*.pfm")):
        view = model.names.index(names[path.stem])
        errors.append(_errors(path, model, view))
        print(f"{names[path.stem]}: {len(errors[-1])} points, median {errors[-1].median():.3%}")
    error = torch.cat(errors)
    shares = "  ".join(
        f"< {t:.2%}: {(error < t).float().mean():.1%}" for t in (0.0025, 0.005, 0.01, 0.02, 0.05)
    )
    print(f"{len(error)} points  median {error.median():.3%}  {shares}")


def _errors(path: Path, model: SparseModel, view: int) -> Tensor:
    """Relative errors (n,) at the points that one view sees; the depth is read at the nearest pixel."""
    depth, camera = (
        torch.from_numpy(read_pfm(path)),
        read_cam(path.parents[1] / "cams" / f"{path.stem}_cam.txt"),
    )
    points = model.points[model.visibility[view] & (model.visibility.sum(dim=0) >= 3)]
    pixels, z = project(points, camera.intrinsics, camera.extrinsics)  # (n, 2), (n,)
    column, row = pixels.long().unbind(dim=-1)
    h, w = depth.shape
    inside = (pixels >= 0).all(dim=-1) & (column < w) & (row < h) & (z > 0)
    return ((depth[row[inside], column[inside]] - z[inside]) / z[inside]).abs()


if __name__ == "__main__":
    main()
