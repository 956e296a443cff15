"""The 3D network's last layer without the volumes that it adds up, and normalisation a piece at a time.

Once the cost volume is gone, volumes of 8 channels at its size are most of what training keeps. Here they are
made anew, a piece at a time, wherever they are looked at: what the last transposed convolution gives, what
normalisation and ReLU make of it and of the skip, and the sum of both. Of these, only the skip is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .native import available, moments, upsampled
from .plane_convolution import PlaneConvolution, as_autocast, wide
from .regularization import CostRegNet

__all__ = ["finish", "last_layer"]

#: Voxels in a piece: few enough for the cache.
SLAB = 1 << 15


def last_layer(network: CostRegNet, up1: Tensor, skip0: Tensor, skip_norm: nn.Module | None) -> Tensor:
    """:meth:`mvsnet_edu.regularization.CostRegNet.full`, with little memory, and with gradients.

    Args:
        network: its weights.
        up1: (B, 16, D/2, h/2, w/2).
        skip0: (B, 8, D, h, w).
        skip_norm: the normalisation that the skip still needs, and then a ReLU; None if it had both.

    Returns:
        (B, D, h, w).

    Source: ours.

    >>> network, up1, skip0 = CostRegNet(), torch.rand(1, 16, 1, 2, 3), torch.rand(1, 8, 2, 4, 6)
    >>> torch.allclose(last_layer(network, up1, skip0, None), network.full(up1, skip0), atol=1e-5)
    True
    """
    deconvolution, norm, _ = network.conv6_0
    kernels = as_autocast(network.conv6_2.weight), as_autocast(deconvolution.weight)
    norms = norm, skip_norm
    affine = [weight for norm in norms if norm for weight in (norm.weight, norm.bias)]
    return _LastLayer.apply(*kernels, up1, skip0, norms, *affine)


def finish(block: nn.Sequential, x: Tensor) -> Tensor:
    """Normalisation and ReLU after a block's convolution; in place where nobody will ask for gradients.

    Args:
        block: see :class:`mvsnet_edu.layers.ConvBlock3d`.
        x: (B, C, D, h, w), from its convolution.

    Returns:
        (B, C, D, h, w).

    Source: ours.

    >>> block = CostRegNet().conv0_1
    >>> torch.allclose(finish(block, block[0](torch.ones(1, 32, 2, 3, 4))), block(torch.ones(1, 32, 2, 3, 4)))
    True
    """
    _, norm, relu = block
    return relu(norm(x)) if torch.is_grad_enabled() else _normalize_(norm, x)


def _normalize_(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalisation and ReLU in place, of (B, C, D, h, w)."""
    step = max(1, SLAB // x[0, 0, 0].numel())
    ranges = [slice(first, first + step) for first in range(0, x.shape[2], step)]
    places = [(b, planes) for b in range(len(x)) for planes in ranges]
    finished = _Rectified(_Stored(x), norm, places, None)
    for b, planes in places:
        x[b, :, planes] = finished.look(b, planes).movedim(-1, 0)
    return x


def _batch_moments(norm: nn.BatchNorm3d, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of all samples, which the running averages take note of; or these."""
    if not norm.training:
        return norm.running_mean, norm.running_var
    count = 0

    def counted() -> Iterator[Tensor]:
        nonlocal count
        for piece in pieces:
            count += piece[..., 0].numel()
            yield piece

    mean, variance = _moments(counted(), norm.num_features)
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
    return mean, variance


def _groups(norm: nn.Module) -> int:
    return norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.num_features


def _moments(pieces: Iterable[Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of the group that each channel belongs to, (C,) each, of (n, h, w, C) and more."""
    count, mean, variance = 0, 0.0, 0.0
    for piece in pieces:  # nothing is kept of them, not even lists: small tensors cut the heap to pieces
        flat = wide(piece).reshape(-1, piece.shape[-1])
        here, around = moments(flat) if available(flat) else _moments_of_one(flat)
        count += len(flat)
        share, shift = len(flat) / count, here - mean
        mean = mean + share * shift
        variance = variance + share * (around - variance + (1 - share) * shift.square())
    means, variances = mean.view(groups, -1), variance.view(groups, -1)
    mean = means.mean(1, keepdim=True)
    variance = (variances + (means - mean).square()).mean(1, keepdim=True)
    return tuple(x.expand_as(means).flatten() for x in (mean, variance))


def _moments_of_one(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, (C,) each, of (N, C)."""
    mean = flat.mean(dim=0)
    return mean, (flat - mean).square_().mean(dim=0)


class _Stored:
    """A volume (B, C, D, h, w), looked at a few planes at a time."""

    def __init__(self, x: Tensor):
        self.x = x

    def look(self, b: int, planes: slice) -> Tensor:
        """(n, h, w, C), at least float32."""
        return wide(self.x[b, :, planes].movedim(0, -1))


class _Upsampled:
    """A transposed convolution of (B, C, D/2, h/2, w/2) that doubles the size, a few planes at a time.

    By C code, where there is a compiler; else planes are convolved in 2D, for the library's own 3D one is
    several times slower on few of them. Each is made anew when it is looked at again: that is cheap, and all
    would be as large as the cost volume's skip.
    """

    def __init__(self, kernel: Tensor, x: Tensor):
        self.x, self.kernel = x.to(kernel.dtype), torch.cat(kernel.unbind(dim=2), dim=1)  # (C, 3 C1, 3, 3)
        self.taps = kernel.permute(2, 3, 4, 0, 1).contiguous()  # (3, 3, 3, C, C1)
        self.step = max(4, SLAB // (2 * x[0, 0, 0].numel()))  # few channels, one plane in vain: many planes
        self.latest: tuple[tuple[int, int] | None, Tensor] = None, self.x  # a piece is often looked at again
        self.gradients: tuple[Tensor, Tensor] | None = None

    def places(self) -> list[tuple[int, slice]]:
        """Sample and planes of each piece."""
        B, _, half = self.x.shape[:3]
        firsts = range(0, half, self.step)
        return [(b, slice(2 * k, 2 * min(k + self.step, half))) for b in range(B) for k in firsts]

    def look(self, b: int, planes: slice) -> Tensor:
        """One of :meth:`places`, (n, h, w, C1), at least float32."""
        if self.latest[0] != (b, planes.start):
            self.latest = (b, planes.start), wide(self._made(b, planes))
        return self.latest[1]

    def _read(self, b: int, planes: slice) -> Tensor:
        """The planes that these are made of, (m, C, h/2, w/2): one more, if there is one."""
        return self.x[b, :, planes.start // 2 : planes.stop // 2 + 1].transpose(0, 1)

    def _made(self, b: int, planes: slice) -> Tensor:
        if available(self.taps):
            return upsampled(self.x[b], self.taps, planes)
        x, count = self._read(b, planes), (planes.stop - planes.start) // 2
        out = F.conv_transpose2d(x, self.kernel, stride=2, padding=1, output_padding=1).movedim(1, -1)
        before, same, after = out.chunk(3, dim=-1)
        pairs = out.new_empty(count, 2, *same.shape[1:])
        pairs[:, 0], pairs[:, 1] = same[:count], after[:count]
        pairs[: len(out) - 1, 1] += before[1:]
        return pairs.flatten(0, 1)

    def add_gradient(self, b: int, planes: slice, gradient: Tensor) -> None:
        """Of x and of the kernel, from that of some planes, (n, h, w, C1)."""
        x, pairs = self._read(b, planes), gradient.unflatten(0, (-1, 2))
        count, C1 = len(pairs), gradient.shape[-1]
        of_out = x.new_zeros(len(x), *gradient.shape[1:3], 3 * C1)
        of_out[1:, ..., :C1] = pairs[: len(x) - 1, 1]
        of_out[:count, ..., C1 : 2 * C1] = pairs[:, 0]
        of_out[:count, ..., 2 * C1 :] = pairs[:, 1]
        geometry = [2, 2], [1, 1], [1, 1], True, [1, 1], 1
        of_x, of_kernel, _ = torch.ops.aten.convolution_backward(
            of_out.movedim(-1, 1), x, self.kernel, None, *geometry, [True, True, False]
        )
        if self.gradients is None:
            self.gradients = torch.zeros_like(self.x), torch.zeros_like(self.kernel)
        self.gradients[0][b, :, planes.start // 2 : planes.stop // 2 + 1] += of_x.transpose(0, 1)
        self.gradients[1].add_(of_kernel)

    def gradient(self) -> tuple[Tensor, Tensor]:
        """Of x, and of the kernel as it was given."""
        of_x, of_kernel = self.gradients
        return of_x, torch.stack(of_kernel.chunk(3, dim=1), dim=2)


class _Rectified:
    """A volume, normalised and rectified where it is looked at; and the gradient of that.

    Args:
        source: the volume.
        norm: what is still missing, before the ReLU; None if that was done, too.
        places: pieces that make up the volume.
        statistics: see :meth:`statistics`, if they are known already.
    """

    def __init__(
        self,
        source: _Stored | _Upsampled,
        norm: nn.Module | None,
        places: list[tuple[int, slice]],
        statistics: tuple[Tensor, Tensor] | None,
    ):
        self.source, self.norm = source, norm
        if norm is None:
            return
        self.mean, self.rate = statistics or self._measured(places)  # (B, C) each
        self.scale = norm.weight * self.rate
        self.shift = norm.bias - self.mean * self.scale
        self.sums = torch.zeros_like(self.mean), torch.zeros_like(self.mean)

    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """Mean, and one over the standard deviation, of each sample's channels."""
        return None if self.norm is None else (self.mean, self.rate)

    def _measured(self, places: list[tuple[int, slice]]) -> tuple[Tensor, Tensor]:
        B = 1 + places[-1][0]
        if isinstance(self.norm, nn.BatchNorm3d):
            moments = _batch_moments(self.norm, (self.source.look(*place) for place in places))
            mean, variance = (each.expand(B, -1) for each in moments)
        else:
            samples = ((self.source.look(*place) for place in places if place[0] == b) for b in range(B))
            moments = [_moments(pieces, _groups(self.norm)) for pieces in samples]
            mean, variance = (torch.stack(each) for each in zip(*moments, strict=True))
        return mean, (variance + self.norm.eps).rsqrt()

    def look(self, b: int, planes: slice) -> Tensor:
        """(n, h, w, C), at least float32."""
        x = self.source.look(b, planes)
        return x if self.norm is None else torch.addcmul(self.shift[b], x, self.scale[b]).relu_()

    def add_up(self, b: int, planes: slice, gradient: Tensor) -> None:
        """Of some planes' gradient, (n, h, w, C), what the mean and the variance will have to do with it."""
        if self.norm is None:
            return
        x = self.source.look(b, planes)
        through = self._through_relu(b, x, gradient)
        self.sums[0][b] += through.sum((0, 1, 2))
        self.sums[1][b] += through.mul_(x - self.mean[b]).sum((0, 1, 2)) * self.rate[b]

    def backward(self, b: int, planes: slice, gradient: Tensor, voxels: int) -> Tensor:
        """Gradient of these planes of the source, of so many voxels a sample, once all of it was added up."""
        if self.norm is None:
            return gradient
        x = self.source.look(b, planes)
        through = self._through_relu(b, x, gradient)
        constant, slope = self._through_statistics(b, voxels)
        return torch.addcmul(constant, x, slope).addcmul_(through, self.scale[b])

    def _through_relu(self, b: int, x: Tensor, gradient: Tensor) -> Tensor:
        return gradient * (torch.addcmul(self.shift[b], x, self.scale[b]) > 0)

    def _through_statistics(self, b: int, voxels: int) -> tuple[Tensor, Tensor]:
        """What the mean and the variance contribute to the gradient: constant + slope x, (C,) each."""
        if isinstance(self.norm, nn.BatchNorm3d):
            if not self.norm.training:
                return torch.zeros_like(self.mean[b]), torch.zeros_like(self.mean[b])
            sums, voxels = [each.sum(0) for each in self.sums], voxels * len(self.mean)
        else:
            sums = [each[b] for each in self.sums]
        shares = [(self.norm.weight * each).view(_groups(self.norm), -1) for each in sums]
        mean, slope = (each.mean(1, keepdim=True).expand_as(each).flatten() / voxels for each in shares)
        slope = -slope * self.rate[b].square()
        return -mean * self.rate[b] - self.mean[b] * slope, slope

    def affine(self) -> list[Tensor]:
        """Gradients of the normalisation's weight and bias, if there are any."""
        return [] if self.norm is None else [self.sums[1].sum(0), self.sums[0].sum(0)]


class _LastLayer(torch.autograd.Function):
    """A convolution of a sum: of what a transposed one makes of a volume of half the size, and of the skip.

    Both are normalised and rectified on the way, and neither they nor their sum are stored: (B, C1, D/2, h/2,
    w/2) and (B, C, D, h, w) -> (B, D, h, w). By planes, for the library's own 3D convolution to one channel
    is several times slower.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Tensor,
        up_kernel: Tensor,
        half: Tensor,
        skip: Tensor,
        norms: tuple[nn.Module | None, nn.Module | None],
        *affine: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(kernel, up_kernel, half, skip)
        up, branches = _LastLayer._branches(up_kernel, half, skip, norms, (None, None))
        ctx.norms, ctx.statistics = norms, [branch.statistics() for branch in branches]
        conv = PlaneConvolution(kernel, 1)
        result = conv.result(len(skip), *skip.shape[2:])
        for b, planes in up.places():
            conv.add(_LastLayer._sum(branches, b, planes, kernel), planes, result[b])
        return result.squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kernel, up_kernel, half, skip = ctx.saved_tensors
        up, branches = _LastLayer._branches(up_kernel, half, skip, ctx.norms, ctx.statistics)
        conv, of_sum = PlaneConvolution(kernel, 1), torch.empty_like(skip)
        for b, planes in up.places():
            total = _LastLayer._sum(branches, b, planes, kernel)
            of_x = conv.backward(total, planes, gradient[b].unsqueeze(-1), None)
            of_sum[b, :, planes] = of_x.transpose(0, 1)
            for branch in branches:
                branch.add_up(b, planes, wide(of_x.movedim(1, -1)))
        for b, planes in up.places():
            of_x = wide(of_sum[b, :, planes].movedim(0, -1))
            of_up, of_skip = (branch.backward(b, planes, of_x, skip[b, 0].numel()) for branch in branches)
            up.add_gradient(b, planes, of_up)
            of_sum[b, :, planes] = of_skip.movedim(-1, 0)  # the sum's is not needed any more
        of_half, of_up_kernel = up.gradient()
        affine = [each for branch in branches for each in branch.affine()]
        return conv.gradient(), of_up_kernel, of_half.to(half.dtype), of_sum, None, *affine

    @staticmethod
    def _branches(
        up_kernel: Tensor, half: Tensor, skip: Tensor, norms: Sequence, statistics: Sequence
    ) -> tuple[_Upsampled, list[_Rectified]]:
        up = _Upsampled(up_kernel, half)
        sources = zip((up, _Stored(skip)), norms, statistics, strict=True)
        return up, [_Rectified(source, norm, up.places(), known) for source, norm, known in sources]

    @staticmethod
    def _sum(branches: list[_Rectified], b: int, planes: slice, kernel: Tensor) -> Tensor:
        """(n, C, h, w)"""
        one, other = (branch.look(b, planes) for branch in branches)
        return (one + other).movedim(-1, 1).to(kernel.dtype)
