"""Weights of other code: state dicts with their names and shapes, against forward passes written out anew."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from cameras import rig
from torch import Tensor

from mvsnet_edu import InputError, MVSNet, RMVSNet
from mvsnet_edu.models import load_pretrained


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


State = dict[str, Tensor]


class Made(dict):
    """A state dict that grows by layers of random numbers."""

    def convolution(self, name: str, out: int, inp: int, size: int, dims: int, bias: bool = False) -> None:
        self[f"{name}.weight"] = torch.randn(out, inp, *[size] * dims) / (inp * size**dims) ** 0.5
        if bias:
            self[f"{name}.bias"] = 0.1 * torch.randn(self[f"{name}.weight"].shape[0])

    def norm(self, name: str, channels: int, running: bool) -> None:
        self[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels)
        self[f"{name}.bias"] = 0.2 * torch.randn(channels)
        if running:
            self[f"{name}.running_mean"] = 0.2 * torch.randn(channels)
            self[f"{name}.running_var"] = 0.5 + torch.rand(channels)
            self[f"{name}.num_batches_tracked"] = torch.tensor(9)


# --- xy-guo/MVSNet_pytorch ---------------------------------------------------------------------------

FEATURES = [(3, 8, 3, 1), (8, 8, 3, 1), (8, 16, 5, 2), (16, 16, 3, 1), (16, 16, 3, 1)]
FEATURES += [(16, 32, 5, 2), (32, 32, 3, 1)]
COSTS = [(32, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
UP = {7: (64, 32), 9: (32, 16), 11: (16, 8)}


@pytest.fixture
def xy_guo() -> State:
    made = Made()
    for k, (inp, out, size, _) in enumerate(FEATURES):
        made.convolution(f"feature.conv{k}.conv", out, inp, size, 2)
        made.norm(f"feature.conv{k}.bn", out, running=True)
    made.convolution("feature.feature", 32, 32, 3, 2, bias=True)
    for k, (inp, out, _) in enumerate(COSTS):
        made.convolution(f"cost_regularization.conv{k}.conv", out, inp, 3, 3)
        made.norm(f"cost_regularization.conv{k}.bn", out, running=True)
    for k, (inp, out) in UP.items():
        made.convolution(f"cost_regularization.conv{k}.0", inp, out, 3, 3)
        made.norm(f"cost_regularization.conv{k}.1", out, running=True)
    made.convolution("cost_regularization.prob", 1, 8, 3, 3, bias=True)
    made["cost_regularization.prob.weight"] *= 20  # so that planes differ
    return dict(made)


def running_norm(x: Tensor, s: State, name: str) -> Tensor:
    names = (f"{name}.{part}" for part in ("running_mean", "running_var", "weight", "bias"))
    mean, var, scale, shift = (s[each].view(-1, *[1] * (x.ndim - 2)) for each in names)
    return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).relu()


def xy_guo_features(s: State, image: Tensor) -> Tensor:
    x = image
    for k, (_, _, size, stride) in enumerate(FEATURES):
        x = F.conv2d(x, s[f"feature.conv{k}.conv.weight"], stride=stride, padding=size // 2)
        x = running_norm(x, s, f"feature.conv{k}.bn")
    return F.conv2d(x, s["feature.feature.weight"], s["feature.feature.bias"], padding=1)


def xy_guo_scores(s: State, volume: Tensor) -> Tensor:
    outs, x = [], volume
    for k, (_, _, stride) in enumerate(COSTS):
        x = F.conv3d(x, s[f"cost_regularization.conv{k}.conv.weight"], stride=stride, padding=1)
        x = running_norm(x, s, f"cost_regularization.conv{k}.bn")
        outs.append(x)
    for k, skip in ((7, 4), (9, 2), (11, 0)):
        x = F.conv_transpose3d(x, s[f"cost_regularization.conv{k}.0.weight"], None, 2, 1, 1)
        x = outs[skip] + running_norm(x, s, f"cost_regularization.conv{k}.1")
    name = "cost_regularization.prob"
    return F.conv3d(x, s[f"{name}.weight"], s[f"{name}.bias"], padding=1)[:, 0]


def integer_warp(feature: Tensor, K: Tensor, E: Tensor, depth: float) -> Tensor:
    """View 1 seen from view 0, (C, h, w), on one plane: pixels are integers, corners are aligned."""
    _, h, w = feature.shape
    last = torch.tensor([[0.0, 0, 0, 1]])
    P = [torch.cat([K[v] @ E[v, :3], last]) for v in (0, 1)]
    y, x = torch.meshgrid(torch.arange(float(h)), torch.arange(float(w)), indexing="ij")
    ones = torch.ones_like(x)
    seen = torch.stack([x * depth, y * depth, depth * ones, ones]).flatten(1)  # (4, h w)
    there = P[1] @ torch.linalg.inv(P[0]) @ seen
    u, v = there[0] / there[2], there[1] / there[2]
    grid = torch.stack([2 * u / (w - 1) - 1, 2 * v / (h - 1) - 1], dim=-1).view(1, h, w, 2)
    return F.grid_sample(feature[None], grid, align_corners=True)[0]


def xy_guo_depth(s: State, images: Tensor, K: Tensor, E: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """One scene: images (V, 3, H, W), K (V, 3, 3) at a quarter of the size, depths (D,)."""
    features = xy_guo_features(s, images)  # (V, 32, h, w)
    planes = []
    for depth in depths.tolist():
        seen = [features[0]]
        for v in range(1, len(images)):
            seen.append(integer_warp(features[v], K[[0, v]], E[[0, v]], depth))
        planes.append(torch.stack(seen).var(dim=0, correction=0))
    P = xy_guo_scores(s, torch.stack(planes, dim=1)[None])[0].softmax(dim=0)  # (D, h, w)
    index = (P * torch.arange(float(len(depths)))[:, None, None]).sum(dim=0).long()
    padded = F.pad(P, (0, 0, 0, 0, 1, 2))  # of each plane the one before it and two behind
    four = sum(padded[k : k + len(depths)] for k in range(4))
    return (P * depths[:, None, None]).sum(dim=0), four.gather(0, index[None])[0]


def scene(V: int = 3, H: int = 64, W: int = 96, D: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    K, E = rig(1, V, H, W)
    return torch.rand(1, V, 3, H, W), K.float(), E.float(), torch.linspace(3, 5, D)[None]


def quartered(K: Tensor) -> Tensor:
    return K / torch.tensor([[4.0], [4.0], [1.0]])


@pytest.mark.parametrize("module", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_port_s_mvsnet_computes_what_it_computed_in_training(tmp_path, xy_guo, wrapped, module):
    names = {module + name: x for name, x in xy_guo.items()}
    torch.save({"epoch": 14, "model": names} if wrapped else names, tmp_path / "model.ckpt")
    network = MVSNet.from_pretrained(tmp_path / "model.ckpt")
    assert sum(p.numel() for p in network.parameters()) == 338_129 - 1  # a constant that softmax ignores
    images, K, E, depths = scene()
    out = network(images, K, E, depths)
    depth, trust = xy_guo_depth(xy_guo, images[0], quartered(K[0]), E[0], depths[0])
    torch.testing.assert_close(out.depth[0], depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.probability_map[0], trust, rtol=1e-3, atol=1e-3)
    assert out.refined_depth is None and depth.std() > 0.01


@pytest.mark.parametrize(
    "setting, other",
    [("padding", "centred"), ("chained", None), ("standardized", True), ("centre", 0.5), ("bias", None)],
)
def test_every_setting_matters(tmp_path, xy_guo, setting, other):
    """So the test above can fail."""
    torch.save(xy_guo, tmp_path / "model.ckpt")
    network = MVSNet.from_pretrained(tmp_path / "model.ckpt")
    inputs = scene()
    right = network(*inputs).depth
    if setting == "padding":
        changed = MVSNet(**{**network.config, setting: other})
        changed.load_state_dict(network.state_dict())
        network = changed.eval()
    elif setting == "chained":  # the skips: what a strided convolution reads shows in the shapes already
        assert network.cost_reg_net.conv1_0[0].weight.shape[1] == 8
        network.cost_reg_net.conv1_1[0].weight.data.zero_()
    elif setting == "bias":
        network.feature_net.tail[5].bias.data.zero_()
    else:
        network.config[setting] = other
    assert (network(*inputs).depth - right).abs().max() > 1e-3


def test_counters_that_old_versions_did_not_write_and_a_refinement_that_cannot_run(tmp_path, xy_guo):
    old = {name: x for name, x in xy_guo.items() if "num_batches" not in name}
    old["refine_network.res.conv.weight"] = torch.zeros(1, 32, 3, 3)
    torch.save({"model": old}, tmp_path / "model.ckpt")
    assert load_pretrained(tmp_path / "model.ckpt").refine_net is None


# --- leejaeyong7/RMVSNet-Pytorch ---------------------------------------------------------------------


@pytest.fixture
def converted() -> State:
    made = Made()

    def block(name: str, inp: int, out: int, size: int = 3, transposed: bool = False) -> None:
        made.convolution(f"{name}.0", *((inp, out) if transposed else (out, inp)), size, 2)
        made.norm(f"{name}.1", out, running=False)

    widths = (8, 16, 32, 64, 128)
    f = "feature_extractor.conv"
    for k in range(1, 5):
        block(f"{f}{k}_0", 3 if k == 1 else widths[k - 1], widths[k])
    for k in range(5):
        block(f"{f}{k}_1", 3 if k == 0 else widths[k], widths[k])
        block(f"{f}{k}_2", widths[k], widths[k])
    for k in range(5, 9):
        out = widths[8 - k]
        block(f"{f}{k}_0", 2 * out, out, transposed=True)
        block(f"{f}{k}_1", 2 * out, out)
        block(f"{f}{k}_2", out, out)
    block(f"{f}9_0", 8, 16, 5)
    block(f"{f}9_1", 16, 16)
    block(f"{f}9_2", 16, 16)
    block(f"{f}10_0", 16, 32, 5)
    block(f"{f}10_1", 32, 32)
    made.convolution(f"{f}10_2", 32, 32, 3, 2)
    for k, (inp, out) in enumerate([(32, 16), (16, 4), (4, 2)], start=1):
        made.convolution(f"gru{k}.gate_conv", 2 * out, inp + out, 3, 2, bias=True)
        made.convolution(f"gru{k}.output_conv", out, inp + out, 3, 2, bias=True)
        for name in ("reset_gate_norm", "update_gate_norm", "output_norm"):
            made.norm(f"gru{k}.{name}", out, running=False)
    made.convolution("prob_conv", 1, 2, 3, 2, bias=True)
    return dict(made)


def same(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """TensorFlow's "SAME": as many zeros as needed, the odd one on the right and below."""
    size = weight.shape[-1]
    pads = []
    for n in (x.shape[-1], x.shape[-2]):
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride)


def same_transposed(x: Tensor, weight: Tensor) -> Tensor:
    """By its definition in TensorFlow: the gradient of the strided convolution with respect to its input."""
    B, _, h, w = x.shape
    wide = torch.zeros(B, weight.shape[1], 2 * h, 2 * w, requires_grad=True)
    (gradient,) = torch.autograd.grad(same(wide, weight, 2), wide, x)
    return gradient


def grouped(x: Tensor, s: State, name: str, groups: int) -> Tensor:
    parts = x.unflatten(1, (groups, -1))
    mean, var = parts.mean((2, 3, 4), keepdim=True), parts.var((2, 3, 4), correction=0, keepdim=True)
    normal = ((parts - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
    return normal * s[f"{name}.weight"].view(-1, 1, 1) + s[f"{name}.bias"].view(-1, 1, 1)


def unet_features(s: State, bgr: Tensor) -> Tensor:
    def block(x: Tensor, name: str, stride: int = 1) -> Tensor:
        name = f"feature_extractor.conv{name}"
        x = same(x, s[f"{name}.0.weight"], stride)
        return grouped(x, s, f"{name}.1", max(1, x.shape[1] // 8)).relu()

    def up(x: Tensor, name: str) -> Tensor:
        name = f"feature_extractor.conv{name}"
        x = same_transposed(x, s[f"{name}.0.weight"])
        return grouped(x, s, f"{name}.1", max(1, x.shape[1] // 8))  # no ReLU in the original

    down = [bgr]
    for k in range(1, 5):
        down.append(block(down[-1], f"{k}_0", 2))
    skips = [block(block(down[k], f"{k}_1"), f"{k}_2") for k in range(5)]
    x = skips[4]
    for k in range(5, 9):
        x = torch.cat([up(x, f"{k}_0"), skips[8 - k]], 1)
        x = block(block(x, f"{k}_1"), f"{k}_2")
    x = block(block(block(x, "9_0", 2), "9_1"), "9_2")
    x = block(block(x, "10_0", 2), "10_1")
    return same(x, s["feature_extractor.conv10_2.weight"])


def half_pixel_warp(feature: Tensor, K: Tensor, E: Tensor, depth: float) -> Tensor:
    """View 1 seen from view 0 by back-projection, (C, h, w); pixel centres at halves."""
    _, h, w = feature.shape
    y, x = torch.meshgrid(torch.arange(float(h)) + 0.5, torch.arange(float(w)) + 0.5, indexing="ij")
    rays = torch.linalg.inv(K[0]) @ torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    world = E[0, :3, :3].T @ (depth * rays - E[0, :3, 3:])
    there = K[1] @ (E[1, :3, :3] @ world + E[1, :3, 3:])
    u, v = there[0] / there[2], there[1] / there[2]
    grid = torch.stack([2 * u / w - 1, 2 * v / h - 1], dim=-1).view(1, h, w, 2)
    return F.grid_sample(feature[None], grid, align_corners=False)[0]


def gru_scores(s: State, planes: list[Tensor]) -> Tensor:
    """Costs (1, 32, h, w) of one plane each -> (1, D, h, w)."""
    h = [torch.zeros(1, n, *planes[0].shape[-2:]) for n in (16, 4, 2)]
    scores = []
    for cost in planes:
        x = -cost
        for k in range(3):
            name, n = f"gru{k + 1}", h[k].shape[1]
            gates = s[f"{name}.gate_conv.weight"], s[f"{name}.gate_conv.bias"]
            both = F.conv2d(torch.cat([x, h[k]], 1), *gates, padding=1)
            r = torch.sigmoid(grouped(both[:, :n], s, f"{name}.reset_gate_norm", 1))
            u = torch.sigmoid(grouped(both[:, n:], s, f"{name}.update_gate_norm", 1))
            seen = torch.cat([x, r * h[k]], 1)
            y = F.conv2d(seen, s[f"{name}.output_conv.weight"], s[f"{name}.output_conv.bias"], padding=1)
            x = h[k] = u * h[k] + (1 - u) * torch.tanh(grouped(y, s, f"{name}.output_norm", 1))
        scores.append(F.conv2d(x, s["prob_conv.weight"], s["prob_conv.bias"], padding=1))
    return torch.cat(scores, dim=1)


@pytest.mark.parametrize("module", ["", "module."])
def test_the_converted_r_mvsnet_computes_what_tensorflow_computed(tmp_path, converted, module):
    torch.save({module + name: x for name, x in converted.items()}, tmp_path / "RMVSNet-pretrained.pth")
    network = RMVSNet.from_pretrained(tmp_path / "RMVSNet-pretrained.pth")
    assert sum(x.numel() for x in converted.values()) == 799_365
    images, K, E, depths = scene(H=48, W=64, D=5)
    x = images[0].flip(1)  # blue first
    x = x - x.mean(dim=(2, 3), keepdim=True)
    features = unet_features(converted, x / x.square().mean(dim=(2, 3), keepdim=True).sqrt())
    K4, planes = quartered(K[0]), []
    for depth in depths[0].tolist():
        others = [half_pixel_warp(features[v], K4[[0, v]], E[0, [0, v]], depth) for v in (1, 2)]
        planes.append(torch.stack([features[0], *others]).var(dim=0, correction=0)[None])
    expected = gru_scores(converted, planes)
    torch.testing.assert_close(network.scores(images, K, E, depths), expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.05
    best = expected.softmax(dim=1).max(dim=1)
    out = network(images, K, E, depths)
    assert (out.depth == depths[0, best.indices]).float().mean() > 0.98  # but for ties
    torch.testing.assert_close(out.probability_map, best.values, rtol=1e-3, atol=1e-3)


# --- what is refused ---------------------------------------------------------------------------------


def refused(path, kind=MVSNet) -> str:
    with pytest.raises(InputError) as caught:
        kind.from_pretrained(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


class Trap:
    """An object that opens a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_in_a_file_is_run(tmp_path, xy_guo):
    torch.save({"model": xy_guo, "extra": Trap(tmp_path / "sprung")}, tmp_path / "model.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"model": Trap(tmp_path / "sprung")}))
    for name in ("model.ckpt", "plain.ckpt"):
        assert "nor tensors of torch.save" in refused(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_what_is_not_known_or_does_not_fit_is_refused(tmp_path, xy_guo, converted):
    path = tmp_path / "model.ckpt"
    torch.save({"model": {"fc.weight": torch.zeros(2)}}, path)
    assert "known here" in refused(path)
    torch.save([1, 2], path)
    assert "known here" in refused(path)
    torch.save(converted, path)
    assert "holds weights of RMVSNet, not MVSNet" in refused(path)
    del xy_guo["feature.conv3.conv.weight"]
    torch.save(xy_guo, path)
    assert "does not fit MVSNet" in refused(path) and "tail.1.0.weight" in refused(path)
