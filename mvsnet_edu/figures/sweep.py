"""A plane that the reader moves through the scene: the warped source slides, the cost at a pixel follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mvsnet_edu.camera import camera_center, scale_intrinsics
from mvsnet_edu.cost_volume import variance_cost_volume
from mvsnet_edu.figures.figure import Figure, number, pack, to_numpy
from mvsnet_edu.figures.pictures import data_uri, to_rgb
from mvsnet_edu.figures.plot import Range, cursor, curve, panel, path_data
from mvsnet_edu.homography import homography_warp, plane_homographies

__all__ = ["plane_sweep"]

_ALT = (
    "The reference photograph with a source laid over it, warped by the homography of a plane; beside it the "
    "cost at one pixel as a curve over the depth of the plane, and the scene from above with the plane in it."
)
#: Codes of the costs, which are stored in 16 bits.
LEVELS = 2**16 - 1


@dataclass(frozen=True)
class _Rig:
    """What is swept, as (V, ...) tensors; view 0 is the reference.

    Args:
        images: (V, 3, H, W).
        intrinsics: (V, 3, 3), in pixels of the images, float64.
        extrinsics: (V, 4, 4), float64.
        depths: (D,), float64.
    """

    images: Tensor
    intrinsics: Tensor
    extrinsics: Tensor
    depths: Tensor

    def homographies(self) -> Tensor:
        """(V - 1, D, 3, 3), from pixels of the reference to pixels of each source."""
        S, (K, E) = len(self.images) - 1, (self.intrinsics, self.extrinsics)
        ref = K[:1].expand(S, 3, 3), E[:1].expand(S, 4, 4)
        return plane_homographies(*ref, K[1:], E[1:], self.depths.expand(S, -1))

    def cost(self, features: Tensor) -> Tensor:
        """(D, h, w): the variance over the views, averaged over the channels of the features (V, C, h, w)."""
        scale = features.shape[-1] / self.images.shape[-1], features.shape[-2] / self.images.shape[-2]
        K = scale_intrinsics(self.intrinsics, scale)
        return variance_cost_volume(features[None], K[None], self.extrinsics[None], self.depths[None]).mean(
            1
        )[0]


def plane_sweep(
    images: Any,
    intrinsics: Any,
    extrinsics: Any,
    depth_values: Any,
    *,
    features: Any = None,
    truth: Any = None,
    pixel: tuple[int, int] | None = None,
    alt: str = _ALT,
    caption: str = "",
) -> Figure:
    """Move the plane of the sweep: where it touches a surface, the views agree and the cost is low.

    Args:
        images: (V, 3, H, W), RGB in [0, 1]; view 0 is the reference.
        intrinsics: (V, 3, 3), in pixels of the images.
        extrinsics: (V, 4, 4), world to camera.
        depth_values: (D,), rising: the planes.
        features: (V, C, h, w), what the cost compares; by default the colours at a quarter of the size.
        truth: (h, w), the true depth of the reference, 0 where not measured.
        pixel: (column, row) of the features at which the cost is first drawn; the middle by default.
        alt: what the figure shows, for readers who do not see it.
        caption: text below the figure.

    Returns:
        The figure. Its costs weigh 2.7 bytes for each of the D x h x w.

    Raises:
        ValueError: the truth differs from the features in shape, or the pixel is outside.

    Source: ``homography.plane_homographies`` moves the source; the cost is
    ``cost_volume.variance_cost_volume``.

    >>> K, pose = torch.diag(torch.tensor([4.0, 4.0, 1.0])).expand(2, 3, 3), torch.eye(4).expand(2, 4, 4)
    >>> figure = plane_sweep(torch.rand(2, 3, 8, 12), K, pose, [2.0, 3.0])
    >>> figure.data["grid"], figure.data["pixel"]
    ([3, 2], [1, 1])
    """
    rig = _Rig(
        *(torch.as_tensor(to_numpy(x)).double() for x in (images, intrinsics, extrinsics, depth_values))
    )
    features = (
        F.avg_pool2d(rig.images, 4) if features is None else torch.as_tensor(to_numpy(features)).double()
    )
    h, w = features.shape[-2:]
    known = None if truth is None else to_numpy(truth).astype(np.float32)
    column, row = pixel or (w // 2, h // 2)
    if known is not None and known.shape != (h, w):
        raise ValueError(f"the truth has the shape {known.shape}, but the features are {h} x {w}")
    if not (0 <= column < w and 0 <= row < h):
        raise ValueError(f"pixel {pixel} is outside of {w} x {h} pixels")
    H, W = rig.images.shape[-2:]
    cost, homographies = rig.cost(features), rig.homographies()
    scale = float(cost.max()) / LEVELS or 1.0
    plane = len(rig.depths) // 2
    data = {
        "size": [W, H],
        "grid": [w, h],
        "depths": rig.depths.tolist(),
        "pixel": [column, row],
        "focus": rig.intrinsics[0, 0, [0, 2]].tolist(),
        "homographies": homographies.flatten(2).tolist(),
        "cost": pack((cost / scale).round().numpy().astype(np.uint16)),
        "scale": scale,
        "truth": None if known is None else pack(known),
    }
    still = homography_warp(rig.images[1:2], homographies[:1, plane : plane + 1])[0, :, 0]  # (3, H, W)
    place = (column + 0.5) * W / w, (row + 0.5) * H / h
    depth = 0.0 if known is None else float(known[row, column])
    panels = _cost_panel(rig.depths.numpy(), cost[:, row, column].numpy(), depth)
    panels += _above(rig, None if known is None else known[row], place[0], plane)
    body = (
        f'<div class="mvs-sides">{_stage(rig, (rig.images[0] + still) / 2, place)}<div>{panels}</div></div>'
    )
    return Figure("sweep", "Plane sweep", alt, body + _controls(rig, plane), data, caption)


def _stage(rig: _Rig, still: Tensor, place: tuple[float, float]) -> str:
    """The still picture, and what the script puts in its place: the reference below the sources."""
    H, W = still.shape[-2:]

    def picture(image: Tensor, name: str, alt: str) -> str:
        source = data_uri(to_rgb(image.movedim(0, -1).numpy()))
        live = "" if name == "still" else " mvs-live"
        return f'<img class="dark-light mvs-{name}{live}" alt="{alt}" src="{source}" data-part="{name}">'

    sources = "".join(
        picture(image, "source", f"Source {k}, warped") for k, image in enumerate(rig.images[1:], 1)
    )
    return f"""<div class="mvs-sheets" data-part="stage">
{picture(still, "still", "Half the reference, half a source warped onto it")}
{picture(rig.images[0], "reference", "The reference")}{sources}
<svg viewBox="0 0 {W} {H}" preserveAspectRatio="none" aria-hidden="true">
<path class="mvs-pixel" d="M{number(place[0])},{number(place[1])}h0" data-part="pixel"/></svg></div>"""


def _cost_panel(depths: np.ndarray, cost: np.ndarray, known: float) -> str:
    x, y = (float(depths[0]), float(depths[-1])), (0.0, 1.08)
    true = f'<path class="mvs-c3" d="{f"M{number(known)},0V1.08" if known else ""}" data-part="true"/>'
    curve_ = curve(1, depths.tolist(), (cost / (cost.max() or 1.0)).tolist(), "curve")
    dot = '<path class="mvs-dot" data-part="cost-dot"/>'
    title = "cost at the pixel, relative (dotted: the true depth)"
    return panel(title, x, y, [true, curve_, cursor(y), dot], "cost", "depth of the plane")


def _above(rig: _Rig, known: np.ndarray | None, x: float, plane: int) -> str:
    """Reference, sources, surface and plane in the reference's coordinates, X to the right and z upward."""
    centres, frames = _from_above(rig)
    far = float(rig.depths[-1])
    side = 1.2 * max(float(np.abs(frames[0][:, 0]).max()), float(np.abs(centres[:, 0]).max()))
    limits: tuple[Range, Range] = (
        (-side, side),
        (min(0.0, float(centres[:, 1].min())) - 0.08 * far, 1.08 * far),
    )
    focus, middle = rig.intrinsics[0, 0, [0, 2]].tolist()
    layers = [_surface(rig, known)] if known is not None else []
    for k, frame in enumerate(frames):
        layers.append(curve(4 if k else 3, *frame.T.tolist(), part=f"frame-{k}"))
    layers.append(curve(1, [0.0, (x - middle) / focus * far], [0.0, far], "ray"))
    layers.append(curve(2, [-side, side], [float(rig.depths[plane])] * 2, "plane"))
    layers.append('<path class="mvs-dot" data-part="above-dot"/>')
    return panel("from above: plane, cameras, surface in this row", *limits, layers, "above", "to the right")


def _from_above(rig: _Rig) -> tuple[np.ndarray, np.ndarray]:
    """Centres (V, 2) and opening angles (V, 3, 2) of the cameras as (X, z) in the reference's coordinates."""
    pose = rig.extrinsics @ torch.linalg.inv(rig.extrinsics[0])  # (V, 4, 4), reference to view
    centres, (H, W) = camera_center(pose), rig.images.shape[-2:]
    edges = torch.tensor([[0, H / 2, 1], [W, H / 2, 1]], dtype=torch.float64).T  # (3, 2)
    rays = pose[:, :3, :3].mT @ torch.linalg.inv(rig.intrinsics) @ edges  # (V, 3, 2)
    ends = centres[:, :, None] + rig.depths[-1] * rays
    angle = torch.stack([ends[..., 0], centres, ends[..., 1]], dim=1)  # (V, 3, 3)
    return centres[:, [0, 2]].numpy(), angle[..., [0, 2]].numpy()


def _surface(rig: _Rig, known: np.ndarray) -> str:
    """The true depths (w,) of one row, as a curve."""
    focus, middle = rig.intrinsics[0, 0, [0, 2]].tolist()
    columns = (np.arange(len(known)) + 0.5) * rig.images.shape[-1] / len(known)
    z = np.where(known > 0, known, np.nan)
    across = np.nan_to_num((columns - middle) / focus * z)
    return f'<path class="mvs-surface" d="{path_data(across.tolist(), z.tolist())}" data-part="surface"/>'


def _controls(rig: _Rig, plane: int) -> str:
    sources = "".join(f'<option value="{k}">{k + 1}</option>' for k in range(len(rig.images) - 1))
    modes = "".join(f'<option value="{mode}">{mode}</option>' for mode in ("blend", "difference", "flicker"))
    return f"""<div class="mvs-controls mvs-live">
<label class="mvs-wide">Plane <input type="range" min="0" max="{len(rig.depths) - 1}" value="{plane}"
autocomplete="off" data-part="depth"></label>
<label>Source <select data-part="chosen" autocomplete="off">{sources}</select></label>
<label>Show <select data-part="mode" autocomplete="off">{modes}</select></label>
<label class="mvs-wide">Share of the source <input type="range" min="0" max="100" value="50"
autocomplete="off" data-part="blend"></label>
</div>
<output class="mvs-readout mvs-live" data-part="readout"></output>"""
