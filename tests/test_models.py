from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from cameras import DEVICES, pose, rig, rotation
from torch import Tensor, nn

from mvsnet_edu import (
    DepthEstimate,
    MVSNet,
    backproject,
    camera_center,
    depth_refine,
    mvsnet_loss,
    probability_map,
    scale_intrinsics,
    soft_argmin,
    standardize,
    streaming,
    uniform_depths,
    variance_cost_volume,
)


class Inputs(NamedTuple):
    images: Tensor
    intrinsics: Tensor
    extrinsics: Tensor
    depth_values: Tensor


def inputs(B: int = 2, V: int = 3, H: int = 32, W: int = 40, D: int = 8, double: bool = False) -> Inputs:
    K, E = rig(B, V, H, W)
    start = torch.linspace(2, 3, B, dtype=torch.float64)
    made = Inputs(torch.rand(B, V, 3, H, W, dtype=torch.float64), K, E, uniform_depths(start, 0.5, D))
    return made if double else Inputs(*(x.float() for x in made))


def trained(**options) -> MVSNet:
    """With a refinement that does something."""
    net = MVSNet(**options)
    if net.refine_net is not None:
        nn.init.normal_(net.refine_net.residual.weight, std=0.1)
    return net


@pytest.mark.parametrize("refine, count", [(True, 368_337), (False, 348_464)])
def test_it_has_as_many_parameters_as_the_paper_s_network(refine, count):
    assert sum(p.numel() for p in MVSNet(refine=refine).parameters()) == count


def test_the_network_is_the_composition_of_its_stages():
    net, x = trained().double(), inputs(double=True)
    images = standardize(x.images)
    features = torch.stack([net.feature_net(images[:, v]) for v in range(3)], dim=1)
    K = scale_intrinsics(x.intrinsics, 0.25)
    volume = variance_cost_volume(features, K, x.extrinsics, x.depth_values)
    depth, probability = soft_argmin(net.cost_reg_net(volume), x.depth_values)
    start = x.depth_values[:, 0]
    refined = depth_refine(depth[:, None], images[:, 0], 8, start, 0.5, net.refine_net)[:, 0]
    out = net(*x)
    torch.testing.assert_close(out.depth, depth)
    torch.testing.assert_close(out.probability_map, probability_map(probability, depth, x.depth_values))
    torch.testing.assert_close(out.refined_depth, refined)
    assert (refined - depth).abs().max() > 0.01


def test_one_view_is_an_error():
    """Pitfall 16."""
    with pytest.raises(ValueError, match="at least two views, not 1"):
        MVSNet()(*(x[:, :1] for x in inputs()[:3]), inputs().depth_values)


def test_without_refinement_there_is_no_refined_depth():
    out = MVSNet(refine=False)(*inputs())
    assert out.refined_depth is None and out.best is out.depth
    both = MVSNet()(*inputs())
    assert both.best is both.refined_depth


def test_fresh_refinement_returns_the_initial_depth():
    """Pitfall 13."""
    out = MVSNet()(*inputs())
    torch.testing.assert_close(out.refined_depth, out.depth)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_batch_gives_what_its_scenes_give_one_by_one_in_training_and_in_evaluation(norm, device):
    """Pitfall 12."""
    net, x = trained(norm=norm).to(device), Inputs(*(y.to(device) for y in inputs(B=3, H=64, W=72, D=16)))
    together = net(*x)
    for b in range(3):
        for one, all_ in zip(net(*(y[b, None] for y in x)), together, strict=True):
            torch.testing.assert_close(one, all_[b, None], rtol=1e-3, atol=1e-3)
    for one, other in zip(net.eval()(*x), together, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_batch_norm_in_evaluation_uses_its_running_averages():
    """Pitfall 12: the gap between training and evaluation that the default norm does not have."""
    net, x = trained(norm="batch"), inputs(H=64, W=72, D=16)
    with torch.no_grad():
        training = net.train()(*x).depth
        assert (net.eval()(*x).depth - training).abs().max() > 0.01


def test_the_later_feature_net_on_request():
    out = MVSNet(features="unet")(*inputs(H=36, W=44))
    assert out.depth.shape == (2, 9, 11)


def test_the_order_of_the_sources_does_not_matter():
    """Pitfall 16."""
    net, x = trained().double(), inputs(V=4, double=True)
    order = [0, 3, 1, 2]
    shuffled = net(*(y[:, order] for y in x[:3]), x.depth_values)
    for one, other in zip(shuffled, net(*x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("scale", [0.01, 1000.0])
def test_a_scene_in_other_units_gives_the_same_answer_in_those_units(scale):
    """Pitfall 13, for the whole network."""
    net, x = trained().double(), inputs(double=True)
    rescaled = x.extrinsics.clone()
    rescaled[..., :3, 3] *= scale
    out, other = net(*x), net(x.images, x.intrinsics, rescaled, scale * x.depth_values)
    torch.testing.assert_close(other.depth, scale * out.depth, rtol=1e-7, atol=0)
    torch.testing.assert_close(other.refined_depth, scale * out.refined_depth, rtol=1e-7, atol=0)
    torch.testing.assert_close(other.probability_map, out.probability_map, rtol=1e-7, atol=1e-9)


def test_moving_the_world_changes_nothing():
    net, x = trained().double(), inputs(double=True)
    moved = x.extrinsics @ pose(rotation(0.3, -1.0, 2.0), [5.0, -3.0, 2.0])
    for one, other in zip(net(x.images, x.intrinsics, moved, x.depth_values), net(*x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_exposure_changes_nothing():
    net, x = trained().double(), inputs(double=True)
    gain = 0.5 + torch.rand(2, 3, 1, 1, 1, dtype=torch.float64)
    exposed = net(gain * x.images + 0.05, *x[1:])
    for one, other in zip(exposed, net(*x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_hypotheses_of_each_pixel_equal_shared_ones_where_they_are_the_same():
    net, x = trained().double(), inputs(double=True)
    per_pixel = x.depth_values[:, :, None, None].expand(2, 8, 8, 10)
    for one, other in zip(net(*x[:3], per_pixel), net(*x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("H, W", [(32, 40), (35, 43)])
def test_the_refinement_sees_the_pixels_under_the_depth_map(H, W):
    """Pitfall 13, where the size is no multiple of 4: the rows and columns left over have no depth."""
    net, x = MVSNet(), inputs(H=H, W=W)
    seen = []
    net.refine_net.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    net(*x)
    image = standardize(x.images[:, 0])[..., :32, :40]
    torch.testing.assert_close(seen[0], image.reshape(2, 3, 8, 4, 10, 4).mean(dim=(3, 5)))


def test_the_refined_loss_trains_the_stages_before_the_refinement():
    """Pitfall 13: no stop-gradient between the networks."""
    net, x = trained(), inputs()
    net(*x).refined_depth.mean().backward()
    for part in (net.feature_net, net.cost_reg_net, net.refine_net):
        gradients = [p.grad for p in part.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert any(g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_a_few_steps_lower_the_loss(norm):
    """One scene, one truth: whatever the norm, the network must be able to fit it."""
    net, x = MVSNet(norm=norm), inputs(B=1, V=2, H=64, W=64, D=16)
    truth = 4 + torch.rand(1, 16, 16) * torch.tensor([[1.0] * 12 + [0.0] * 4]) * 2
    truth[:, :, 12:] = 0
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        out = net(*x)
        loss = mvsnet_loss(out.depth, out.refined_depth, truth, 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_stays_near_float32(device, monkeypatch):
    """Pitfall 5: the convolutions in bfloat16, warps, variance and softmax in float32."""
    net, x = trained().to(device), Inputs(*(y.to(device) for y in inputs(H=64, W=72, D=16)))
    kinds, spread = {}, streaming._spread
    net.cost_reg_net.conv1_1.register_forward_hook(lambda _, i, o: kinds.update(inside=o.dtype))
    exact = net(*x)
    monkeypatch.setattr(streaming, "available", lambda table: False)  # C code knows float32 only
    monkeypatch.setattr(streaming, "_spread", lambda x: kinds.update(volume=x[0].dtype) or spread(x))
    with torch.autocast(device, dtype=torch.bfloat16):
        out = net(*x)
        loss = mvsnet_loss(out.depth, out.refined_depth, torch.full_like(out.depth, 4.0), 0.5)
    loss.backward()
    assert kinds == {"volume": torch.float32, "inside": torch.bfloat16}
    assert out.depth.dtype == out.probability_map.dtype == torch.float32
    extent = x.depth_values[0, -1] - x.depth_values[0, 0]
    assert (out.depth - exact.depth).abs().mean() < 0.02 * extent
    assert (out.refined_depth - exact.refined_depth).abs().mean() < 0.02 * extent
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("double", [False, True])
def test_one_precision_in_and_out(double):
    net, x = trained(), inputs(double=double)
    net = net.double() if double else net
    assert {value.dtype for value in net(*x)} == {x.images.dtype}


def test_the_gradient_with_respect_to_the_images_is_right():
    """In one random direction, by central differences, in float64 (ReLU has kinks, but few of them)."""
    net, x = trained().double(), inputs(B=1, double=True)
    images, direction = x.images.clone().requires_grad_(), torch.randn_like(x.images)
    (gradient,) = torch.autograd.grad(net(images, *x[1:]).refined_depth.sum(), images)
    step = 1e-6
    with torch.no_grad():
        ahead, back = (net(x.images + s * step * direction, *x[1:]).refined_depth.sum() for s in (1, -1))
    difference = (ahead - back) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-3, atol=1e-6)


def test_the_estimate_is_a_plain_tuple_with_names():
    depth, trust, refined = DepthEstimate(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), None)
    assert depth.sum() == 4 and trust.sum() == 0 and refined is None


def test_plane_sweeping_with_raw_features_finds_the_depth_of_a_plane():
    """The geometry without the learned parts: a textured plane at depth 4, seen by three cameras.

    The features are the images themselves and the cost is their variance, so nothing is left that could learn
    its way around an error in the cameras.
    """
    H, W = 32, 42
    K, E = rig(1, 3, H, W)
    E[:, 1] = pose(rotation(0.02, 0.1, 0.3), [-0.5, 0.1, 0.1]) @ E[:, 0]
    E[:, 2] = pose(rotation(-0.1, -0.03, 1.5), [0.0, 0.5, -0.1]) @ E[:, 0]
    depths = uniform_depths(3.0, 0.5, 5).double()[None]
    photos = photographs(K, E, H, W, depth=4.0)
    window = nn.AvgPool3d((1, 5, 5), stride=1)
    cost = window(variance_cost_volume(photos, K, E, depths)).mean(dim=1)  # (1, D, H - 4, W - 4)
    unseen = window(variance_cost_volume(torch.ones_like(photos), K, E, depths)).mean(dim=1)
    seen = unseen.amax(dim=1) < 1e-12  # by all three cameras, whatever the depth
    best = depths[0, cost.argmin(dim=1)]
    assert seen.sum() > 100 and (best[seen] == 4.0).all()


def photographs(K: Tensor, E: Tensor, H: int, W: int, depth: float) -> Tensor:
    """(1, V, 3, H, W): the plane z = depth of view 0, painted with waves."""
    normal, origin = E[0, 0, 2, :3], camera_center(E[0, 0])
    views = []
    for v in range(K.shape[1]):
        here = camera_center(E[0, v])
        ones = torch.ones(1, H, W, dtype=torch.float64)
        rays = backproject(ones, K[:, v], E[:, v])[0] - here
        t = (depth - (here - origin) @ normal) / (rays @ normal)
        points = here + t.unsqueeze(-1) * rays
        views.append(torch.sin(3 * points).movedim(-1, 0))
    return torch.stack(views)[None]
