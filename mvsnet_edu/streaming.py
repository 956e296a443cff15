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

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .camera import crop_intrinsics
from .cost_volume import Window
from .homography import NEAR, rays_in_source, transform_pixels
from .kernels import fused_spread, usable
from .native import NativeSlab, available
from .regularization import CostRegNet

__all__ = ["PlaneSweep", "streamed_cost", "sweep_convolutions"]

#: Voxels in a slab: its features, 4 MB, stay in the cache.
SLAB = 1 << 15

#: The same on a GPU, which wants to be busy: 128 MB.
GPU_SLAB = 1 << 20

#: For a convolution's stride: which planes it reads alike (every stride-th, from which on), with which taps.
READS = {1: [(0, (0, 1, 2))], 2: [(0, (1,)), (1, (0, 2))]}

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

    def slabs(self) -> Iterator[slice]:
        """Ranges of planes, few at a time."""
        D, h, w = self.size
        step = max(1, round((GPU_SLAB if self.reference.is_cuda else SLAB) / (h * w)))
        return (slice(first, min(first + step, D)) for first in range(0, D, step))

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
    features = _wide(features)
    kernels = [_as_autocast(kernel / V) for kernel in kernels]  # instead of the sum of squares
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
    lean = not torch.is_grad_enabled() and not (
        network.training and isinstance(network.conv0_1[1], nn.BatchNorm3d)
    )
    if lean:
        results = [_normalize_(block[1], x) for block, x in zip(readers, results, strict=True)]
        skip0 = results[0]
        up1 = network.half(network.conv1_0(skip0) if network.chained else results.pop())
        cost = _last_layers(network, up1, skip0)
    else:
        pending = readers[0][1] if _alone(readers[0][1]) and not network.chained else None
        skip0 = results[0] if pending else _finish(readers[0], results[0])
        up1 = network.half(network.conv1_0(skip0) if network.chained else _finish(readers[1], results.pop()))
        cost = _last_layer(network, up1, skip0, pending)
    h, w = window[2:] if window else features.shape[-2:]
    return cost[:, : depth_values.shape[1], :h, :w]


def _alone(norm: nn.Module) -> bool:
    """Whether a normalisation looks at each sample alone, and remembers nothing."""
    return not isinstance(norm, nn.BatchNorm3d)


def _finish(block: nn.Sequential, x: Tensor) -> Tensor:
    """What follows a block's convolution."""
    _, norm, relu = block
    return relu(norm(x))


def _last_layer(network: CostRegNet, up1: Tensor, skip0: Tensor, pending: nn.Module | None) -> Tensor:
    """:meth:`mvsnet_edu.regularization.CostRegNet.full` where gradients are wanted.

    Volumes of 8 channels are what training keeps most of. Where a normalisation is still pending, on the skip
    or here, the last layer does it, and keeps what goes into it only.
    """
    norms = [network.conv6_0[1] if _alone(network.conv6_0[1]) else None, pending]
    up0 = network.conv6_0[0](up1)
    up0 = up0 if norms[0] else _finish(network.conv6_0, up0)
    affine = [weight for norm in norms if norm for weight in (norm.weight, norm.bias)]
    return _LastLayer.apply(_as_autocast(network.conv6_2.weight), norms, up0, skip0, *affine)


def _last_layers(network: CostRegNet, up1: Tensor, skip0: Tensor) -> Tensor:
    """:meth:`mvsnet_edu.regularization.CostRegNet.full` a few planes at a time.

    The normalisation needs to know the whole volume first, so the upsampling is done twice: it is cheap, and
    the volume, with its 8 channels, would be as large as ``skip0``. Unless it is small.
    """
    deconvolution, norm, _ = network.conv6_0
    last = _PlaneConvolution(network.conv6_2.weight, 1)
    cost = last.result(len(up1), *skip0.shape[2:])  # (B, D, h, w, 1)
    for b in range(len(up1)):
        pieces = _Upsampled(deconvolution, up1[b : b + 1])
        scale, shift = _scale_and_shift(norm, (x for _, x in pieces))
        for planes, x in pieces:
            x = torch.addcmul(shift, _wide(x), scale).relu_().add_(skip0[b, :, planes].movedim(0, -1))
            last.add(x.movedim(-1, 1).to(up1.dtype), planes.start, cost[b])
    return cost.squeeze(-1)


class _Upsampled:
    """A transposed convolution of (1, C, D/2, h/2, w/2) by pieces: which planes, and they, (n, h, w, C1).

    By planes, for the library's own 3D one is several times slower on few of them.
    """

    def __init__(self, deconvolution: nn.Module, x: Tensor):
        self.planes, self.channels = x[0].transpose(0, 1), deconvolution.out_channels  # (D/2, C, h/2, w/2)
        self.kernel = torch.cat(deconvolution.weight.unbind(dim=2), dim=1)  # (C, 3 C1, 3, 3)
        self.step = max(4, SLAB // (2 * x[0, 0, 0].numel()))  # few channels, one plane in vain: larger pieces
        self.kept: tuple[slice, Tensor] | None = None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        firsts = range(0, len(self.planes), self.step)
        if len(firsts) == 1:
            self.kept = self.kept or self._piece(0)
            return iter([self.kept])
        return map(self._piece, firsts)

    def _piece(self, first: int) -> tuple[slice, Tensor]:
        piece = self.planes[first : first + self.step + 1]  # the plane after the last is read by that one
        out = F.conv_transpose2d(piece, self.kernel, stride=2, padding=1, output_padding=1).movedim(1, -1)
        before, same, after = out.split(self.channels, dim=-1)
        count = min(self.step, len(self.planes) - first)
        pairs = out.new_empty(count, 2, *same.shape[1:])
        pairs[:, 0], pairs[:, 1] = same[:count], after[:count]
        pairs[: len(out) - 1, 1] += before[1:]
        return slice(2 * first, 2 * (first + count)), pairs.flatten(0, 1)


def _normalize_(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalisation and ReLU in place, of (B, C, D, h, w)."""
    for sample in x.movedim(1, -1):  # (D, h, w, C)
        pieces = sample.split(max(1, SLAB // sample[0, ..., 0].numel()))
        scale, shift = _scale_and_shift(norm, pieces)
        for piece in pieces:
            piece.copy_(torch.addcmul(shift, _wide(piece), scale).relu_())
    return x


def _scale_and_shift(norm: nn.Module, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What a normalisation does to a sample given in pieces (n, h, w, C): scale x + shift, (C,) each."""
    if isinstance(norm, nn.BatchNorm3d):
        mean, variance = norm.running_mean, norm.running_var
    else:
        mean, variance = _moments(pieces, _groups(norm))
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return scale, norm.bias - mean * scale


def _groups(norm: nn.Module) -> int:
    return norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.num_features


def _moments(pieces: Iterable[Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of the group that each channel belongs to, (C,) each, of (n, h, w, C) and more."""
    counts, means, variances = [], [], []
    for piece in pieces:
        flat = _wide(piece).reshape(-1, piece.shape[-1])
        counts.append(len(flat))
        means.append(flat.mean(dim=0))
        variances.append((flat - means[-1]).square_().mean(dim=0))
    C = len(means[0])
    means, variances = (torch.stack(x).view(-1, groups, C // groups) for x in (means, variances))
    share = means.new_tensor(counts).view(-1, 1, 1) / (sum(counts) * (C // groups))
    mean = (share * means).sum(dim=(0, 2), keepdim=True)
    variance = (share * (variances + (means - mean).square())).sum(dim=(0, 2), keepdim=True)
    return tuple(x.expand(1, groups, C // groups).flatten() for x in (mean, variance))


def _as_autocast(kernel: Tensor) -> Tensor:
    """A kernel as a convolution would take it here."""
    kind = kernel.device.type
    return kernel.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else kernel


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Sweep(torch.autograd.Function):
    """:func:`sweep_convolutions` and its gradient, for which it keeps no more than what goes in."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, sweeps: list[PlaneSweep], strides: Sequence[int], *kernels: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(features, *kernels)
        ctx.sweeps, ctx.strides = sweeps, strides
        convolutions = [_PlaneConvolution(*each) for each in zip(kernels, strides, strict=True)]
        results = [conv.result(len(sweeps), *sweeps[0].size) for conv in convolutions]
        for b, sweep in enumerate(sweeps):
            table = sweep.table(features[b])
            for planes in sweep.slabs():
                volume = _as_planes(sweep.spread(table, planes, kernels[0].dtype), sweep)
                for conv, result in zip(convolutions, results, strict=True):
                    conv.add(volume, planes.start, result[b])
        return tuple(result.movedim(-1, 1) for result in results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, *kernels = ctx.saved_tensors
        convolutions = [_PlaneConvolution(*each) for each in zip(kernels, ctx.strides, strict=True)]
        gradients = [gradient.movedim(1, -1).contiguous() for gradient in gradients]  # (B, D, h, w, C)
        of_features = torch.empty_like(features)
        for b, sweep in enumerate(ctx.sweeps):
            table = sweep.table(features[b])
            of_table = torch.zeros_like(table)
            for planes in sweep.slabs():
                slab = sweep.slab(table, planes)
                volume, of_volume = _as_planes(slab.spread(), sweep).to(kernels[0].dtype), None
                for conv, gradient in zip(convolutions, gradients, strict=True):
                    of_volume = conv.backward(volume, planes.start, gradient[b], of_volume)
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


class _Rectified:
    """A volume (B, C, D, h, w), normalised and rectified where it is looked at; and the gradient of that.

    Args:
        x: the volume.
        norm: which looks at each sample alone; None if all has been done.
    """

    def __init__(self, x: Tensor, norm: nn.Module | None):
        self.x, self.norm = x, norm
        if norm is None:
            return
        pieces = ((self._wide(b, planes) for planes in _slabs(x)) for b in range(len(x)))
        moments = [_moments(each, _groups(norm)) for each in pieces]
        self.mean, variance = (torch.stack(each) for each in zip(*moments, strict=True))  # (B, C) each
        self.rate = (variance + norm.eps).rsqrt()
        self.scale = norm.weight * self.rate
        self.shift = norm.bias - self.mean * self.scale
        self.sums = torch.zeros_like(self.mean), torch.zeros_like(self.mean)

    def _wide(self, b: int, planes: slice) -> Tensor:
        return _wide(self.x[b, :, planes].movedim(0, -1))

    def look(self, b: int, planes: slice) -> Tensor:
        """(n, h, w, C), at least float32."""
        x = self._wide(b, planes)
        return x if self.norm is None else torch.addcmul(self.shift[b], x, self.scale[b]).relu_()

    def add_up(self, b: int, planes: slice, gradient: Tensor) -> None:
        """Of some planes' gradient, (n, h, w, C), what the mean and the variance will have to do with it."""
        if self.norm is None:
            return
        gradient = gradient * (self.look(b, planes) > 0)
        self.sums[0][b] += gradient.sum((0, 1, 2))
        self.sums[1][b] += gradient.mul_(self._wide(b, planes) - self.mean[b]).sum((0, 1, 2)) * self.rate[b]

    def backward(self, b: int, planes: slice, gradient: Tensor) -> Tensor:
        """Gradient of these planes of x, once all of it was added up."""
        if self.norm is None:
            return gradient
        x, groups = self._wide(b, planes), _groups(self.norm)
        shares = [(self.norm.weight * each[b]).view(groups, -1) for each in self.sums]
        count = self.x[b].numel() / groups
        constant, slope = ((each.sum(1, keepdim=True) / count).expand_as(each).flatten() for each in shares)
        slope = slope * self.rate[b].square()
        constant = self.mean[b] * slope - constant * self.rate[b]
        through = gradient * (self.look(b, planes) > 0)
        return torch.addcmul(constant, x, -slope).addcmul_(through, self.scale[b])

    def affine(self) -> list[Tensor]:
        """Gradients of the normalisation's weight and bias, if there are any."""
        return [] if self.norm is None else [self.sums[1].sum(0), self.sums[0].sum(0)]


def _slabs(x: Tensor) -> list[slice]:
    """Ranges of planes of (B, C, D, h, w), which with 8 channels stay in the cache."""
    D, step = x.shape[2], max(1, SLAB // x[0, 0, 0].numel())
    return [slice(first, min(first + step, D)) for first in range(0, D, step)]


class _LastLayer(torch.autograd.Function):
    """A 3 x 3 x 3 convolution of a sum that is not stored, of volumes that are normalised on the way.

    (B, C, D, h, w) twice -> (B, D, h, w). By planes, for the library's own 3D convolution to one channel is
    several times slower.
    """

    @staticmethod
    def forward(
        ctx: Any, kernel: Tensor, norms: list[nn.Module | None], up: Tensor, skip: Tensor, *affine: Tensor
    ) -> Tensor:
        branches = [_Rectified(*each) for each in zip((up, skip), norms, strict=True)]
        ctx.save_for_backward(kernel, up, skip)
        ctx.norms = norms
        conv = _PlaneConvolution(kernel, 1)
        result = conv.result(len(up), *up.shape[2:])
        for b, planes in _LastLayer._places(up):
            conv.add(_LastLayer._sum(branches, b, planes, kernel), planes.start, result[b])
        return result.squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kernel, *volumes = ctx.saved_tensors
        branches = [_Rectified(*each) for each in zip(volumes, ctx.norms, strict=True)]
        conv, of_sum = _PlaneConvolution(kernel, 1), torch.empty_like(volumes[0])
        for b, planes in _LastLayer._places(of_sum):
            total = _LastLayer._sum(branches, b, planes, kernel)
            of_x = conv.backward(total, planes.start, gradient[b].unsqueeze(-1), None).movedim(1, -1)
            of_sum[b, :, planes] = of_x.movedim(-1, 0)
            for branch in branches:
                branch.add_up(b, planes, _wide(of_x))
        of_up = torch.empty_like(of_sum)
        for b, planes in _LastLayer._places(of_sum):
            of_x = _wide(of_sum[b, :, planes].movedim(0, -1))
            up, skip = (branch.backward(b, planes, of_x).movedim(-1, 0) for branch in branches)
            of_up[b, :, planes], of_sum[b, :, planes] = up, skip  # the sum's is not needed any more
        affine = [each for branch in branches for each in branch.affine()]
        return conv.gradient(), None, of_up, of_sum, *affine

    @staticmethod
    def _places(x: Tensor) -> Iterator[tuple[int, slice]]:
        return ((b, planes) for b in range(len(x)) for planes in _slabs(x))

    @staticmethod
    def _sum(branches: list[_Rectified], b: int, planes: slice, kernel: Tensor) -> Tensor:
        """(n, C, h, w)"""
        one, other = (branch.look(b, planes) for branch in branches)
        return (one + other).movedim(-1, 1).to(kernel.dtype)


class _PlaneConvolution:
    """A 3 x 3 x 3 convolution fed plane by plane: 3 x 3 convolutions of each, added where they belong."""

    def __init__(self, kernel: Tensor, stride: int):
        self.kernel, self.stride = kernel, stride
        self.kernels = [torch.cat([kernel[:, :, tap] for tap in taps]) for _, taps in READS[stride]]
        self.gradients = [torch.zeros_like(flat) for flat in self.kernels]

    def result(self, B: int, D: int, h: int, w: int) -> Tensor:
        """Zeros to add to: (B, D, h, w, C1), of a volume of this size."""
        s = self.stride
        return self.kernel.new_zeros(B, D // s, h // s, w // s, len(self.kernel))

    def _reads(self, first: int, count: int) -> Iterator[tuple[int, slice, list[int]]]:
        """Number of a kernel, which of these planes it reads, the result's plane where each tap begins."""
        for number, (phase, taps) in enumerate(READS[self.stride]):
            skip = (phase - first) % self.stride
            if skip < count:
                yield (
                    number,
                    slice(skip, None, self.stride),
                    [(first + skip + 1 - tap) // self.stride for tap in taps],
                )

    def add(self, volume: Tensor, first: int, result: Tensor) -> None:
        """Add to the result (D, h, w, C1) the share of planes (n, C, h, w) of the volume, from a first on."""
        for number, planes, starts in self._reads(first, len(volume)):
            out = F.conv2d(volume[planes], self.kernels[number], stride=self.stride, padding=1).permute(
                0, 2, 3, 1
            )
            for start, part in zip(starts, out.split(len(self.kernel), dim=-1), strict=True):
                low, high = max(start, 0), min(start + len(part), len(result))
                result[low:high] += part[low - start : high - start]

    def backward(self, volume: Tensor, first: int, gradient: Tensor, others: Tensor | None) -> Tensor:
        """Gradient of these planes, from that of the result, added to others; the kernel's is added up."""
        of_volume = torch.zeros_like(volume) if others is None and self.stride > 1 else others
        geometry = [self.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        for number, planes, starts in self._reads(first, len(volume)):
            x = volume[planes]
            of_out = torch.cat([_padded(gradient, start, len(x)) for start in starts], dim=-1).permute(
                0, 3, 1, 2
            )
            of_x, of_kernel, _ = torch.ops.aten.convolution_backward(
                of_out, x, self.kernels[number], None, *geometry, [True, True, False]
            )
            if of_volume is None:  # with stride 1 there is one part, of all planes
                of_volume = of_x
            else:
                of_volume[planes] += of_x
            self.gradients[number] += of_kernel
        return of_volume

    def gradient(self) -> Tensor:
        """The kernel's gradient."""
        gradient = torch.empty_like(self.kernel)
        for (_, taps), flat in zip(READS[self.stride], self.gradients, strict=True):
            for tap, part in zip(taps, flat.split(len(self.kernel)), strict=True):
                gradient[:, :, tap] = part
        return gradient


def _padded(planes: Tensor, start: int, count: int) -> Tensor:
    """So many planes from a start on, zeros where there are none."""
    low, high = max(start, 0), min(start + count, len(planes))
    return F.pad(planes[low:high], (0, 0, 0, 0, 0, 0, low - start, start + count - high))
