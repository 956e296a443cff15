"""The plane sweep a few planes at a time: what the first convolutions make of a cost volume nobody stores.

The cost volume has 32 channels, and at most two convolutions ever read it: one with 8 channels out, and one
with 16 at half the size. Here a slab of its planes lives just long enough for both of them. Training does the
same again, backwards: it keeps the feature maps, and warps them anew when the gradient comes by.

Three observations make that quick as well as small. A warp is a sparse matrix with four entries in a row, and
with all channels of a pixel side by side in memory, rows are added up as fast as they can be read; its
transpose, which the gradient needs, is such a sum again, over the voxels sorted by the pixel they read. A
3 x 3 x 3 convolution is a 3 x 3 one of every plane, with the three taps in depth side by side, shifted and
added. And nothing cancels in the variance if all is measured from the reference, because it is one of the
views.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .camera import crop_intrinsics
from .cost_volume import Window
from .homography import NEAR, rays_in_source, transform_pixels
from .kernels import fused_spread, usable
from .last_layer import finish, last_layer
from .native import NativeSlab, available
from .plane_convolution import PlaneConvolution, as_autocast, wide
from .regularization import CostRegNet

__all__ = ["PlaneSweep", "streamed_cost", "sweep_convolutions"]

#: Voxels in a slab: its features, 4 MB, stay in the cache.
SLAB = 1 << 15

#: The same in C, which keeps nothing beside them, and reads close by on the next plane: 16 MB.
NATIVE_SLAB = 1 << 17

#: The same on a GPU, which wants to be busy: 128 MB.
GPU_SLAB = 1 << 20

#: Rows of a table and their weights, (N, 5) each: a weighted sum for each of N voxels.
Taps = tuple[Tensor, Tensor]


class PlaneSweep:
    """Which feature pixels meet at each voxel of one cost volume.

    Features are looked up in a table with one row for each pixel of each view. Every view has a border of
    zeros in it, one pixel wide.

    Args:
        intrinsics: (V, 3, 3), in pixels of the feature maps.
        extrinsics: (V, 4, 4), world to camera.
        depth_values: (D,), or (D, h, w).
        shape: height and width of the feature maps.
        window: see :func:`mvsnet_edu.cost_volume.variance_cost_volume`.
        multiple: the last plane, row and column of the volume are repeated until its sizes are multiples.

    Source: sections 3.2 and 3.3 of the paper.

    >>> K, pose = torch.eye(3).expand(2, 3, 3), torch.eye(4).expand(2, 4, 4)
    >>> features = torch.rand(1, 5, 2, 3).expand(2, 5, 2, 3)
    >>> sweep = PlaneSweep(K, pose, torch.ones(1), (2, 3))
    >>> sweep.spread(sweep.table(features), slice(0, 1), torch.float32).max()
    tensor(0.)
    """

    def __init__(
        self,
        intrinsics: Tensor,
        extrinsics: Tensor,
        depth_values: Tensor,
        shape: tuple[int, int],
        window: Window | None = None,
        multiple: int = 1,
    ):
        self.views, self.shape, self.row = len(intrinsics), shape, shape[1] + 2
        top, left, h, w = window or (0, 0, *shape)
        planes, y, x = (_repeat_last(n, multiple, intrinsics.device) for n in (len(depth_values), h, w))
        y, self.size = y[:, None], (len(planes), len(y), len(x))
        per_pixel = depth_values.ndim == 3
        self.nearness = 1 / (depth_values[planes][:, y, x] if per_pixel else depth_values[planes, None, None])
        self.reference = ((y + top + 1) * self.row + (x + left + 1)).int()  # (h, w): rows of the table
        ref = crop_intrinsics(intrinsics[0], left, top), extrinsics[0]
        in_table = crop_intrinsics(intrinsics[1:], -0.5, -0.5)  # the centre of pixel 0 lies at 1
        self.rays = []  # of each source: (3, h, w) and (3,), see rays_in_source
        for K, pose in zip(in_table, extrinsics[1:], strict=True):
            far, near = (part.to(depth_values.dtype) for part in rays_in_source(*ref, K, pose))
            self.rays.append((transform_pixels(far, h, w)[:, y, x], near.flatten()))

    def slabs(self, table: Tensor) -> Iterator[slice]:
        """Ranges of planes, few at a time: even ones or odd ones, as convolutions of stride 2 want them."""
        D, h, w = self.size
        voxels = GPU_SLAB if table.is_cuda else NATIVE_SLAB if available(table) else SLAB
        step = 2 * max(1, round(voxels / (h * w)))
        bounds = ((first, min(first + step, D)) for first in range(0, D, step))
        return (slice(first + odd, last, 2) for first, last in bounds for odd in (0, 1))

    def table(self, features: Tensor) -> Tensor:
        """(V, C, h, w) -> one row of C for each pixel."""
        return F.pad(features.movedim(1, -1), (0, 0, 1, 1, 1, 1)).flatten(0, 2)

    def untable(self, table: Tensor) -> Tensor:
        """The transpose of :meth:`table`."""
        H, W = self.shape
        return table.view(-1, H + 2, W + 2, table.shape[-1])[:, 1:-1, 1:-1].movedim(-1, 1)

    def slab(self, table: Tensor, planes: slice) -> NativeSlab | Slab:
        """These planes, with what is looked up in the table; by C code, where there is a compiler."""
        if available(table):
            return NativeSlab(table, self.reference, self.rays, self.nearness[planes], self.shape)
        return Slab(self, table, planes)

    def taps(self, planes: slice) -> list[Taps]:
        """For each source, four neighbours of every voxel, and the reference's pixel, counted off."""
        return [self._taps(v, planes) for v in range(1, self.views)]

    def _taps(self, v: int, planes: slice) -> Taps:
        x, y = self._project(v, planes)  # (n, h, w) each
        H, W = self.shape
        left, top = x.int().clamp_(max=W), y.int().clamp_(max=H)
        right_share, bottom_share = x - left, y - top
        left_share, top_share = 1 - right_share, 1 - bottom_share
        corner = top.mul_(self.row).add_(left).add_(v * (H + 2) * self.row)
        rows = [
            corner,
            corner + 1,
            corner + self.row,
            corner + (self.row + 1),
            self.reference.expand_as(corner),
        ]
        weights = x.new_empty(*x.shape, 5)
        torch.mul(left_share, top_share, out=weights[..., 0])
        torch.mul(right_share, top_share, out=weights[..., 1])
        torch.mul(left_share, bottom_share, out=weights[..., 2])
        torch.mul(right_share, bottom_share, out=weights[..., 3])
        weights[..., 4] = -1
        return torch.stack(rows, dim=-1).view(-1, 5), weights.view(-1, 5)

    def _project(self, v: int, planes: slice) -> tuple[Tensor, Tensor]:
        """Column and row in the table, (n, h, w) each, within the border."""
        (H, W), nearness = self.shape, self.nearness[planes]
        x, y, z = (torch.addcmul(far, near, nearness) for far, near in zip(*self.rays[v - 1], strict=True))
        z = F.threshold_(z, NEAR, 0)  # sends what lies behind the source to infinity
        return tuple(at.div_(z).nan_to_num_(0).clamp_(0, size + 1) for at, size in ((x, W), (y, H)))

    def spread(self, table: Tensor, planes: slice, dtype: torch.dtype) -> Tensor:
        """V times the variance at the voxels of these planes, (N, C), without a gradient."""
        if usable(table):
            return fused_spread(table, self.reference, self.rays, self.nearness[planes], self.shape, dtype)
        return self.slab(table, planes).spread().to(dtype)


class Slab:
    """Some planes of a sweep.

    Args:
        sweep: whose.
        table: what is looked up, from :meth:`PlaneSweep.table`.
        planes: which.

    Source: equation (2) of the paper.
    """

    def __init__(self, sweep: PlaneSweep, table: Tensor, planes: slice):
        self.sweep, self.taps = sweep, sweep.taps(planes)
        self.deviations = [  # of each source's features from the reference's, (N, C)
            F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares) for rows, shares in self.taps
        ]
        self.squares, self.total = _spread(self.deviations)

    def spread(self) -> Tensor:
        """V times the variance at each voxel, (N, C)."""
        return self.squares

    def add_gradient(self, gradient: Tensor, of_table: Tensor) -> None:
        """Add half of what the gradient (N, C) of :meth:`spread` makes of the table's; only once."""
        h, w = self.sweep.size[1:]
        shared = (self.total * gradient).div_(-self.sweep.views)
        of_reference = shared.view(-1, h * w, shared.shape[-1]).sum(0)
        of_table.index_add_(0, self.sweep.reference.flatten(), of_reference)
        for deviation, taps in zip(self.deviations, self.taps, strict=True):
            self._scatter(torch.addcmul(shared, deviation, gradient, out=deviation), taps, of_table)

    def _scatter(self, gradient: Tensor, taps: Taps, into: Tensor) -> None:
        """Add to a table the transpose of a deviation's sums, but for the reference, times (N, C)."""
        rows, weights = taps
        corner, order = rows[:, 0].contiguous().sort()
        per_row = torch.bincount(corner, minlength=len(into))
        first = per_row.cumsum(0) - per_row
        weights = weights.t().index_select(1, order)
        for weight, offset in zip(weights[:4], (0, 1, self.sweep.row, self.sweep.row + 1), strict=True):
            summed = F.embedding_bag(order, gradient, first, mode="sum", per_sample_weights=weight)
            into[offset:] += summed[: len(into) - offset]


def _repeat_last(size: int, multiple: int, device: torch.device) -> Tensor:
    """0, 1, ..., size - 1, size - 1, ... until their number is a multiple."""
    return torch.arange(-(-size // multiple) * multiple, device=device).clamp(max=size - 1)


def sweep_convolutions(
    features: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    depth_values: Tensor,
    kernels: Sequence[Tensor],
    strides: Sequence[int],
    multiple: int = 2,
    window: Window | None = None,
) -> tuple[Tensor, ...]:
    """Convolutions of the variance cost volume, without the cost volume.

    Args:
        features: (B, V, C, h, w); view 0 is the reference.
        intrinsics: (B, V, 3, 3), in pixels of the feature maps; without a gradient, like the next two.
        extrinsics: (B, V, 4, 4), world to camera.
        depth_values: (B, D), or (B, D, h, w).
        kernels: of convolutions with padding 1, (C1, C, 3, 3, 3) each.
        strides: 1 or 2 for each.
        multiple: the volume is padded to multiples of this, an even number, as
            :func:`mvsnet_edu.layers.pad_to_multiple` does.
        window: see :func:`mvsnet_edu.cost_volume.variance_cost_volume`.

    Returns:
        (B, C1, D'/s, h'/s, w'/s) for each of stride s, where D', h' and w' are the padded sizes.

    Raises:
        ValueError: with fewer than two views.

    Source: ours.

    >>> features = torch.rand(1, 2, 4, 5, 6)
    >>> K, pose = torch.eye(3).expand(1, 2, 3, 3), torch.eye(4).expand(1, 2, 4, 4)
    >>> kernels = torch.rand(3, 4, 3, 3, 3), torch.rand(7, 4, 3, 3, 3)
    >>> [x.shape for x in sweep_convolutions(features, K, pose, torch.tensor([[1.0, 2.0]]), kernels, (1, 2))]
    [torch.Size([1, 3, 2, 6, 6]), torch.Size([1, 7, 1, 3, 3])]
    """
    V, shape = features.shape[1], features.shape[-2:]
    if V < 2:
        raise ValueError(f"a cost volume compares at least two views, not {V}")
    features = wide(features)
    kernels = [as_autocast(kernel / V) for kernel in kernels]  # instead of the sum of squares
    views = zip(intrinsics, extrinsics, depth_values.to(features), strict=True)
    sweeps = [PlaneSweep(*each, shape, window, multiple) for each in views]
    return _Sweep.apply(features, sweeps, strides, *kernels)


def streamed_cost(
    network: CostRegNet,
    features: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    depth_values: Tensor,
    window: Window | None = None,
) -> Tensor:
    """What a 3D network makes of the cost volume, without the cost volume.

    Args:
        network: its weights.
        features: (B, V, 32, h, w); view 0 is the reference.
        intrinsics: (B, V, 3, 3), in pixels of the feature maps; without a gradient, like the next two.
        extrinsics: (B, V, 4, 4), world to camera.
        depth_values: (B, D), or (B, D, h, w).
        window: see :func:`mvsnet_edu.cost_volume.variance_cost_volume`.

    Returns:
        (B, D, h, w): ``network(variance_cost_volume(...))``, but for rounding.

    Source: ours.

    >>> features, depths = torch.rand(1, 2, 32, 9, 6), torch.tensor([[1.0, 2.0]])
    >>> cameras = torch.eye(3).expand(1, 2, 3, 3), torch.eye(4).expand(1, 2, 4, 4)
    >>> streamed_cost(CostRegNet(), features, *cameras, depths).shape
    torch.Size([1, 2, 9, 6])
    """
    views = features, intrinsics, extrinsics, depth_values
    readers = [network.conv0_1] if network.chained else [network.conv0_1, network.conv1_0]
    kernels, strides = zip(*((block[0].weight, block[0].stride[0]) for block in readers), strict=True)
    results = list(sweep_convolutions(*views, kernels, strides, network.MULTIPLE, window))
    if network.chained:
        skip0, skip_norm = finish(network.conv0_1, results.pop()), None
        up1 = network.half(network.conv1_0(skip0))
    else:
        up1 = network.half(finish(network.conv1_0, results.pop()))  # not by a name, which would keep it
        skip0, skip_norm = results.pop(), network.conv0_1[1]
    cost = last_layer(network, up1, skip0, skip_norm)
    h, w = window[2:] if window else features.shape[-2:]
    return cost[:, : depth_values.shape[1], :h, :w]


class _Sweep(torch.autograd.Function):
    """:func:`sweep_convolutions` and its gradient, for which it keeps no more than what goes in."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, sweeps: list[PlaneSweep], strides: Sequence[int], *kernels: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(features, *kernels)
        ctx.sweeps, ctx.strides = sweeps, strides
        convolutions = [PlaneConvolution(*each) for each in zip(kernels, strides, strict=True)]
        results = [conv.result(len(sweeps), *sweeps[0].size) for conv in convolutions]
        for b, sweep in enumerate(sweeps):
            table = sweep.table(features[b])
            for planes in sweep.slabs(table):
                volume = _as_planes(sweep.spread(table, planes, kernels[0].dtype), sweep)
                for conv, result in zip(convolutions, results, strict=True):
                    conv.add(volume, planes, result[b])
        return tuple(result.movedim(-1, 1) for result in results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, *kernels = ctx.saved_tensors
        convolutions = [PlaneConvolution(*each) for each in zip(kernels, ctx.strides, strict=True)]
        gradients = [gradient.movedim(1, -1).contiguous() for gradient in gradients]  # (B, D, h, w, C)
        of_features = torch.empty_like(features)
        for b, sweep in enumerate(ctx.sweeps):
            table = sweep.table(features[b])
            of_table = torch.zeros_like(table)
            for planes in sweep.slabs(table):
                slab = sweep.slab(table, planes)
                volume, of_volume = _as_planes(slab.spread(), sweep).to(kernels[0].dtype), None
                for conv, gradient in zip(convolutions, gradients, strict=True):
                    of_volume = conv.backward(volume, planes, gradient[b], of_volume)
                slab.add_gradient(of_volume.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype), of_table)
            of_features[b] = 2 * sweep.untable(of_table)
        return of_features, None, None, *(conv.gradient() for conv in convolutions)


def _spread(deviations: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Sum over the views of the squared distances from their mean, and the total of the deviations; (N, C).

    The reference is one of the views, with deviation 0, so the sum of the squares is at least V / (V - 1)
    times what is taken off: few bits get lost, and the difference is never negative.
    """
    total = sum(deviations[1:3], deviations[0])  # not in place: the deviations are still needed
    for deviation in deviations[3:]:
        total += deviation
    squares = deviations[0].square()
    for deviation in deviations[1:]:
        squares.addcmul_(deviation, deviation)
    return squares.addcmul_(total, total, value=-1 / (len(deviations) + 1)), total


def _as_planes(volume: Tensor, sweep: PlaneSweep) -> Tensor:
    """(N, C) -> (n, C, h, w), the channels still side by side in memory."""
    return volume.view(-1, *sweep.size[1:], volume.shape[-1]).permute(0, 3, 1, 2)
