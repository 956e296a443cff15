"""R-MVSNet as a whole: streamed and stored, forwards and back, with and without recomputation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cameras import rig
from test_models import Inputs, inputs

from mvsnet_edu import (
    RMVSNet,
    less_one_percentage,
    mvsnet_classification_loss,
    scale_intrinsics,
    standardize,
    variance_cost_volume,
    winner_take_all,
)
from mvsnet_edu.data import Scene
from mvsnet_edu.optimization import forget_activations


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_the_scores_are_the_composition_of_the_stages():
    net, x = RMVSNet().double(), inputs(D=19, double=True)
    images = standardize(x.images)
    features = torch.stack([net.feature_net(images[:, v]) for v in range(3)], dim=1)
    K = scale_intrinsics(x.intrinsics, 0.25)
    volume = variance_cost_volume(features, K, x.extrinsics, x.depth_values)
    torch.testing.assert_close(net.scores(*x), net.recurrent_net(volume)[0])


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("V, H, W, D", [(2, 32, 40, 8), (3, 35, 50, 17), (5, 33, 46, 3)])
def test_the_streamed_answer_is_the_winner_of_the_stored_one(V, H, W, D, descending):
    net, x = RMVSNet(), inputs(V=V, H=H, W=W, D=D)
    x = x._replace(depth_values=x.depth_values.flip(1)) if descending else x
    out = net(*x)
    depth, probability = winner_take_all(net.scores(*x).softmax(dim=1), x.depth_values)
    assert out.depth.shape == (2, H // 4, W // 4) and out.refined_depth is None and out.best is out.depth
    torch.testing.assert_close(out.depth, depth, rtol=0, atol=0)
    torch.testing.assert_close(out.probability_map, probability)


def test_one_view_is_an_error():
    x = inputs()
    with pytest.raises(ValueError, match="at least two views, not 1"):
        RMVSNet()(*(y[:, :1] for y in x[:3]), x.depth_values)


def test_hypotheses_of_each_pixel_equal_shared_ones_where_they_are_the_same():
    net, x = RMVSNet().double(), inputs(double=True)
    per_pixel = x.depth_values[:, :, None, None].expand(2, 8, 8, 10)
    for one, other in zip(net(*x[:3], per_pixel)[:2], net(*x)[:2], strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_gives_what_its_scenes_give_one_by_one():
    net, x = RMVSNet().double(), inputs(B=3, double=True)
    together = net.scores(*x)
    for b in range(3):
        torch.testing.assert_close(net.scores(*(y[b, None] for y in x))[0], together[b])


def test_the_direction_of_the_sweep_matters():
    """And that is why training alternates it."""
    net, x = RMVSNet(), inputs()
    back = net.scores(*x[:3], x.depth_values.flip(1)).flip(1)
    assert (back - net.scores(*x)).abs().max() > 0.01


def gradients(net: RMVSNet, x: Inputs) -> list[torch.Tensor]:
    truth = x.depth_values[:, 3, None, None].expand(2, 8, 10)
    net.zero_grad()
    mvsnet_classification_loss(net.scores(*x), truth, x.depth_values).backward()
    return [p.grad.clone() for p in net.parameters()]


def test_recomputing_changes_no_gradient():
    net, x = RMVSNet().double(), inputs(D=19, double=True)
    kept = gradients(net, x)
    forget_activations(net)
    assert net.recompute
    for one, other in zip(gradients(net, x), kept, strict=True):
        torch.testing.assert_close(one, other)
    assert all(g.abs().max() > 0 for g in kept)


def saved_bytes(net: RMVSNet, x: Inputs) -> int:
    """What autograd keeps for the way back, each storage once."""
    kept = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        scores = net.scores(*x)
    del scores
    return sum(value.untyped_storage().nbytes() for value in kept.values())


def test_recomputing_makes_memory_grow_slowly_with_the_planes():
    """Beyond what the features take; a slab is eight planes."""
    few, many = (inputs(B=1, D=D) for D in (16, 64))
    net = RMVSNet()
    plain = saved_bytes(net, many) - saved_bytes(net, few)
    net.recompute = True
    frugal = saved_bytes(net, many) - saved_bytes(net, few)
    assert 0 <= frugal < plain / 15


def test_a_few_steps_lower_the_loss():
    K, E = (value.float() for value in rig(1, 2, 64, 64))
    x = Inputs(torch.rand(1, 2, 3, 64, 64), K, E, torch.linspace(2, 9, 16)[None])
    truth = 4 + torch.rand(1, 16, 16)
    net, losses = RMVSNet(), []
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(15):
        loss = mvsnet_classification_loss(net.scores(*x), truth, x.depth_values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_the_weights_that_ship_see_depth_from_either_end():
    """Most pixels of a scene that training never drew, within one of 48 intervals."""
    scene = Scene.open(Path(__file__).parent.parent / "data" / "still_life")
    sample = scene.sample(scene.references[0], 2, 48, (160, 128))
    network = RMVSNet.from_pretrained()
    for depths in (sample.depth_values, sample.depth_values.flip(1)):
        with torch.inference_mode():
            depth = network(sample.images, sample.intrinsics, sample.extrinsics, depths).depth
        assert less_one_percentage(depth, sample.ground_truth, sample.depth_interval) > 0.5
