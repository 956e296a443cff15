"""The whole network: images and cameras in, depth and its probability out."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .camera import crop_intrinsics, scale_intrinsics
from .checkpoints import load_network
from .cost_volume import Window, variance_cost_volume
from .depth import probability_map, soft_argmin, winner_of_sweep
from .features import STRIDE, FeatureNet, Padding, standardize
from .layers import Norm
from .recurrence import RecurrentRegNet, States
from .refinement import RefineNet, depth_refine
from .regularization import CostRegNet
from .streaming import streamed_cost
from .subsets import Subsets, most_trusted

__all__ = ["MVSNet", "RMVSNet", "DepthEstimate", "load_pretrained"]

#: Depth planes whose costs a recurrent network has in memory at once, at most,
PLANES = 8
#: and voxels, unless a single plane has more.
SLAB = 1 << 17
#: Pixels of images whose features are computed at once on the CPU, unless one has more.
PIXELS = 1 << 17


class DepthEstimate(NamedTuple):
    """What a network says about the reference view, at a quarter of its size.

    Attributes:
        depth: (B, h, w), in world units.
        probability_map: (B, h, w), in [0, 1]: how far to trust the depth.
        refined_depth: (B, h, w), or None without refinement.

    >>> import torch
    >>> DepthEstimate(torch.ones(1, 2, 2), torch.ones(1, 2, 2), None).best.shape
    torch.Size([1, 2, 2])
    """

    depth: Tensor
    probability_map: Tensor
    refined_depth: Tensor | None

    @property
    def best(self) -> Tensor:
        """The refined depth where there is one, else the initial one."""
        return self.depth if self.refined_depth is None else self.refined_depth


class _Network(nn.Module):
    """What both networks do with images and cameras before they compare them."""

    config: dict[str, Any]

    #: How many times as wide and as high images were made in training, which small ones are best made, too.
    enlarge: int = 1

    def prepare(self, images: Tensor) -> Tensor:
        """What the features are computed from, of RGB in [0, 1], (..., 3, H, W)."""
        return standardize(images) if self.config.get("standardized", True) else images

    def recentre(self, intrinsics: Tensor) -> Tensor:
        """Intrinsics (..., 3, 3) of the features, as the code that trained the weights would have them."""
        shift = self.config.get("centre", 0.5) - 0.5
        return crop_intrinsics(intrinsics, shift, shift)


class MVSNet(_Network):
    """MVSNet (Yao et al., ECCV 2018).

    Args:
        refine: whether to refine the depth map with the reference image.
        norm: "group", "instance" or "batch"; see :func:`mvsnet_edu.layers.normalization`.
        features: "paper" or "unet"; see :class:`mvsnet_edu.features.FeatureNet`.
        padding: see :class:`mvsnet_edu.features.FeatureNet`.
        bias: see :class:`mvsnet_edu.features.FeatureNet`.
        chained: see :class:`mvsnet_edu.regularization.CostRegNet`.
        standardized: whether each channel of each image is brought to mean 0 and deviation 1 first; ports
            feed in colours in [0, 1] as they are.
        centre: coordinate of the first feature pixel's centre, as the code that trained the weights had it:
            0.5; ports have 0, which shifts all rays by half a feature pixel. Cameras are given with 0.5.

    Source: figure 1 of the paper; ``model.py:inference``.

    >>> import torch
    >>> network = MVSNet().eval()
    >>> K = torch.tensor([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]).expand(1, 3, 3, 3)
    >>> pose = torch.eye(4).repeat(1, 3, 1, 1)
    >>> pose[0, :, 0, 3] = torch.tensor([0.0, -0.1, 0.1])
    >>> out = network(torch.rand(1, 3, 3, 48, 64), K, pose, torch.linspace(1, 2, 16)[None])
    >>> out.depth.shape, out.probability_map.shape, out.refined_depth.shape
    (torch.Size([1, 12, 16]), torch.Size([1, 12, 16]), torch.Size([1, 12, 16]))
    """

    def __init__(
        self,
        refine: bool = True,
        norm: Norm = "group",
        features: str = "paper",
        padding: Padding = "centred",
        bias: bool = False,
        chained: bool = False,
        standardized: bool = True,
        centre: float = 0.5,
    ):
        super().__init__()
        self.config = {
            "refine": refine,
            "norm": norm,
            "features": features,
            "padding": padding,
            "bias": bias,
            "chained": chained,
            "standardized": standardized,
            "centre": centre,
        }
        self.feature_net = FeatureNet(features, norm, padding, bias)
        self.cost_reg_net = CostRegNet(norm, chained)
        self.refine_net = RefineNet(norm) if refine else None

    def forward(
        self,
        images: Tensor,
        intrinsics: Tensor,
        extrinsics: Tensor,
        depth_values: Tensor,
        subsets: Subsets = "none",
    ) -> DepthEstimate:
        """Depth of view 0.

        Args:
            images: (B, V, 3, H, W), RGB in [0, 1]; view 0 is the reference.
            intrinsics: (B, V, 3, 3), in pixels of the images.
            extrinsics: (B, V, 4, 4), world to camera.
            depth_values: (B, D), or (B, D, H // 4, W // 4), in world units.
            subsets: which sources get a hearing of their own; see :mod:`mvsnet_edu.subsets`.

        Raises:
            ValueError: with fewer than two views, or an unknown kind of subsets.
        """
        B, V, _, H, W = images.shape
        images = self.prepare(images)
        whole = torch.is_grad_enabled() or self.training or images.is_cuda
        at_once = B * V if whole else max(1, PIXELS // (H * W))  # to save memory
        features = torch.cat([self.feature_net(each) for each in images.flatten(0, 1).split(at_once)])
        features = features.unflatten(0, (B, V))  # (B, V, 32, h, w)
        intrinsics = self.recentre(scale_intrinsics(intrinsics, 1 / STRIDE))
        reference = images[:, 0].clone()
        del images  # they take more memory than the features
        views = features, intrinsics, extrinsics
        depth, trust = most_trusted(self.sweep, subsets, *views, depth_values)  # (B, h, w) each
        return DepthEstimate(depth, trust, self.refine(depth, reference, depth_values))

    def regress(self, volume: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
        """From a cost volume to the depth before refinement.

        Args:
            volume: (B, 32, D, h, w).
            depth_values: (B, D), or (B, D, h, w), in world units.

        Returns:
            the depth and the probability map, (B, h, w) each.
        """
        return _read_out(self.cost_reg_net(volume), depth_values)

    def sweep(
        self,
        features: Tensor,
        intrinsics: Tensor,
        extrinsics: Tensor,
        depth_values: Tensor,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`regress` of the cost volume of these features, which is never stored.

        Args:
            features: (B, V, 32, h, w); view 0 is the reference.
            intrinsics: (B, V, 3, 3), in pixels of the features.
            extrinsics: (B, V, 4, 4), world to camera.
            depth_values: (B, D), or (B, D, h, w), in world units.
            window: see :func:`mvsnet_edu.cost_volume.variance_cost_volume`.

        Returns:
            the depth and the probability map, (B, h, w) each.
        """
        views = features, intrinsics, extrinsics, depth_values
        if torch.is_grad_enabled() and any(x.requires_grad for x in views[1:]):
            cost = self.cost_reg_net(variance_cost_volume(*views, window))
        else:
            cost = streamed_cost(self.cost_reg_net, *views, window)
        rows = [_read_out(*piece) for piece in _rows(cost, depth_values)]
        return tuple(torch.cat(maps, dim=1) for maps in zip(*rows, strict=True))

    def refine(self, depth: Tensor, image: Tensor, depth_values: Tensor) -> Tensor | None:
        """The last stage of ``forward``.

        Args:
            depth: (B, h, w), in world units.
            image: (B, 3, H, W), the standardised reference image, or its shrunk copy, (B, 3, h, w).
            depth_values: (B, D), or (B, D, h, w), in world units.

        Returns:
            the refined depth (B, h, w), or None if the network does not refine.
        """
        if self.refine_net is None:
            return None
        h, w = depth.shape[-2:]
        image = image[..., : h * STRIDE, : w * STRIDE]  # the pixels that the depth map covers
        first, last = _range(depth_values)
        D = depth_values.shape[1]
        interval = (last - first) / (D - 1)
        return depth_refine(depth.unsqueeze(1), image, D, first, interval, self.refine_net).squeeze(1)

    @classmethod
    def from_pretrained(cls, name_or_path: str | PathLike[str] = "mvsnet") -> MVSNet:
        """A trained network in evaluation mode; see :func:`mvsnet_edu.checkpoints.load_network`.

        >>> MVSNet.from_pretrained("mvsnet").training
        False
        """
        return load_network(cls, name_or_path)


class RMVSNet(_Network):
    """R-MVSNet (Yao et al., CVPR 2019): the cost volume is swept, never stored, and a plane is chosen.

    Args:
        norm: of the features; see :func:`mvsnet_edu.layers.normalization`.
        features: "paper" or "unet"; see :class:`mvsnet_edu.features.FeatureNet`.
        padding: see :class:`mvsnet_edu.features.FeatureNet`.
        widths: see :class:`mvsnet_edu.recurrence.RecurrentRegNet`.

    Source: figure 2 of the paper; ``model.py:inference_winner_take_all``.

    >>> network = RMVSNet().eval()
    >>> K = torch.tensor([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]).expand(1, 3, 3, 3)
    >>> pose = torch.eye(4).repeat(1, 3, 1, 1)
    >>> pose[0, :, 0, 3] = torch.tensor([0.0, -0.1, 0.1])
    >>> out = network(torch.rand(1, 3, 3, 48, 64), K, pose, torch.linspace(1, 2, 16)[None])
    >>> out.depth.shape, out.probability_map.shape, out.refined_depth
    (torch.Size([1, 12, 16]), torch.Size([1, 12, 16]), None)
    """

    def __init__(
        self,
        norm: Norm = "group",
        features: str = "paper",
        padding: Padding = "centred",
        widths: tuple[int, ...] = (16, 4, 2),
    ):
        super().__init__()
        self.config = {"norm": norm, "features": features, "padding": padding, "widths": list(widths)}
        self.feature_net = FeatureNet(features, norm, padding)
        self.recurrent_net = RecurrentRegNet(tuple(widths))
        #: In training, keep the memories between slabs only, and compute what lies inside again.
        self.recompute = False

    def forward(
        self,
        images: Tensor,
        intrinsics: Tensor,
        extrinsics: Tensor,
        depth_values: Tensor,
        subsets: Subsets = "none",
    ) -> DepthEstimate:
        """The most probable plane at each pixel of view 0, and its probability; as much memory for any D.

        Args:
            images: (B, V, 3, H, W), RGB in [0, 1]; view 0 is the reference.
            intrinsics: (B, V, 3, 3), in pixels of the images.
            extrinsics: (B, V, 4, 4), world to camera.
            depth_values: (B, D), or (B, D, H // 4, W // 4), in world units; ascending or descending.
            subsets: which sources get a hearing of their own; see :mod:`mvsnet_edu.subsets`.

        Raises:
            ValueError: with fewer than two views, or an unknown kind of subsets.
        """
        views = self._look(images, intrinsics, extrinsics)
        return DepthEstimate(*most_trusted(self.choose, subsets, *views, depth_values), None)

    def scores(self, images: Tensor, intrinsics: Tensor, extrinsics: Tensor, depth_values: Tensor) -> Tensor:
        """What training needs: the scores of all planes, (B, D, h, w), whose softmax is their probability.

        Args and raises as :meth:`forward`, but for the subsets.
        """
        views = self._look(images, intrinsics, extrinsics)
        return torch.cat([scores for scores, _ in self.sweep(*views, depth_values)], dim=1)

    def sweep(
        self,
        features: Tensor,
        intrinsics: Tensor,
        extrinsics: Tensor,
        depth_values: Tensor,
        window: Window | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The scores of a few planes at a time, and their depths, from the first plane to the last.

        Args:
            features: (B, V, 32, h, w); view 0 is the reference.
            intrinsics: (B, V, 3, 3), in pixels of the features.
            extrinsics: (B, V, 4, 4), world to camera.
            depth_values: (B, D), or (B, D, h, w), in world units.
            window: see :func:`mvsnet_edu.cost_volume.variance_cost_volume`.

        Yields:
            scores (B, d, h, w), high where a plane is probable, and depths (B, d) or (B, d, h, w), of d <= 8
            planes.
        """
        states: States = None
        B, (h, w) = len(features), window[2:] if window else features.shape[-2:]
        for depths in depth_values.split(max(1, min(PLANES, SLAB // (B * h * w))), dim=1):
            arguments = features, intrinsics, extrinsics, depths, window, states
            if self.recompute and torch.is_grad_enabled():
                scores, states = checkpoint(self._slab, *arguments, use_reentrant=False)
            else:
                scores, states = self._slab(*arguments)
            yield scores, depths

    def choose(self, *views: Any) -> tuple[Tensor, Tensor]:
        """The most probable plane's depth, and its probability, (B, h, w) each; args as :meth:`sweep`."""
        return winner_of_sweep(self.sweep(*views))

    def _slab(self, *arguments: Any) -> tuple[Tensor, States]:
        """One function of everything that a slab depends on, for the sake of ``checkpoint``."""
        *views, states = arguments
        return self.recurrent_net(variance_cost_volume(*views), states)

    def _look(self, images: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, V, 32, h, w), and the cameras that belong to them."""
        features = self.feature_net(self.prepare(images).flatten(0, 1)).unflatten(0, images.shape[:2])
        return features, self.recentre(scale_intrinsics(intrinsics, 1 / STRIDE)), extrinsics

    @classmethod
    def from_pretrained(cls, name_or_path: str | PathLike[str] = "rmvsnet") -> RMVSNet:
        """A trained network in evaluation mode; see :func:`mvsnet_edu.checkpoints.load_network`.

        >>> RMVSNet.from_pretrained().config["widths"]
        [16, 4, 2]
        """
        return load_network(cls, name_or_path)


def load_pretrained(name_or_path: str | PathLike[str]) -> MVSNet | RMVSNet:
    """A trained network of either kind, in evaluation mode; see :func:`mvsnet_edu.checkpoints.load_network`.

    >>> type(load_pretrained("mvsnet")).__name__
    'MVSNet'
    """
    return load_network((MVSNet, RMVSNet), name_or_path)


def _read_out(cost: Tensor, depth_values: Tensor) -> tuple[Tensor, Tensor]:
    """Depth and probability map (B, h, w) of a cost (B, D, h, w)."""
    depth, probability = soft_argmin(cost, depth_values)  # (B, h, w), (B, D, h, w)
    return depth, probability_map(probability, depth, depth_values)


def _rows(cost: Tensor, depth_values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The cost of some rows at a time, so that nothing as large lies beside it, and what their depths are."""
    B, D, h, w = cost.shape
    step = max(1, SLAB // (B * D * w))
    costs = cost.split(step, dim=2)  # unlike slices, whose gradients would be as large as the cost each
    depths = depth_values.split(step, dim=2) if depth_values.ndim == 4 else [depth_values] * len(costs)
    return zip(costs, depths, strict=True)


def _range(depth_values: Tensor) -> tuple[Tensor, Tensor]:
    """First and last hypothesis of each image, (B,) each; of all its pixels where each has its own."""
    per_image = depth_values.flatten(1)
    return per_image.amin(dim=1), per_image.amax(dim=1)
