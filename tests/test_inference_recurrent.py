"""Depth maps of a scene by R-MVSNet: the network's own, with as much memory for any number of planes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from small_scenes import small_scene

from mvsnet_edu import RMVSNet, inference
from mvsnet_edu.checkpoints import save_network
from mvsnet_edu.cli import main
from mvsnet_edu.data.formats import read_pfm
from mvsnet_edu.data.scene import Scene
from mvsnet_edu.inference import estimate_scene


@pytest.fixture
def network() -> RMVSNet:
    torch.manual_seed(0)
    return RMVSNet()


@pytest.mark.parametrize("inverse", [False, True])
def test_what_is_written_is_what_the_network_says(tmp_path, network, inverse):
    scene = Scene.open(small_scene(tmp_path / "scene"))
    estimate_scene(
        scene, tmp_path / "out", network, num_sources=2, depth_num=11, device="cpu", inverse=inverse
    )
    sample = scene.sample(1, num_sources=2)
    depths = scene.depth_values(1, 11, inverse).float()[None]
    with torch.no_grad():
        out = network(sample.images, sample.intrinsics, sample.extrinsics, depths)
    assert read_pfm(tmp_path / "out/depth/00000001.pfm") == pytest.approx(out.depth[0].numpy(), rel=1e-6)
    trust = read_pfm(tmp_path / "out/probability/00000001.pfm")
    assert trust == pytest.approx(out.probability_map[0].numpy(), abs=1e-5)


def test_the_command_takes_either_network(tmp_path, network, capsys):
    save_network(network, tmp_path / "mine.safetensors")
    scene = small_scene(tmp_path / "scene", views=3)
    words = ["depth", str(scene), str(tmp_path / "out"), "--weights", str(tmp_path / "mine.safetensors")]
    assert main([*words, "--device", "cpu"]) == 0
    assert len(list((tmp_path / "out" / "depth").iterdir())) == 3


def test_the_need_does_not_depend_on_the_number_of_planes(tmp_path):
    scene = Scene.open(small_scene(tmp_path / "scene"))
    few, many = (inference._job(scene, 0, 2, D, False, None)._replace(planes=8) for D in (16, 1024))
    assert inference._need(few, (32, 40)) == inference._need(many, (32, 40))
    assert inference._need(few._replace(planes=None), (32, 40)) > inference._need(few, (32, 40))


def test_tiles_cover_the_depth_map(network, tmp_path, capsys):
    """Not equal to the whole (the cells normalise over what they see), but everywhere, and near it."""
    scene = Scene.open(small_scene(tmp_path / "scene", views=2, size=(480, 128)))
    job = inference._job(scene, 0, 1, 4, False, None)._replace(planes=8)
    memory = inference._need(job, job.size) - 1
    for name, limit in (("whole", None), ("cut", memory)):
        estimate_scene(scene, tmp_path / name, network, depth_num=4, device="cpu", memory=limit)
    assert "in 2 tiles" in capsys.readouterr().err
    whole, cut = (read_pfm(tmp_path / name / "depth/00000000.pfm") for name in ("whole", "cut"))
    assert cut.shape == (32, 120) and (whole == cut).mean() > 0.5


PROBE = """
import resource, sys, torch
from mvsnet_edu import RMVSNet
torch.set_num_threads(1)
network, pose = RMVSNet().eval(), torch.eye(4).repeat(1, 3, 1, 1)
pose[0, :, 0, 3] = torch.tensor([0.0, -0.1, 0.1])
K = torch.tensor([[80.0, 0, 128], [0, 80, 96], [0, 0, 1]]).expand(1, 3, 3, 3)
with torch.inference_mode():
    network(torch.rand(1, 3, 3, 192, 256), K, pose, torch.linspace(1, 2, int(sys.argv[1]))[None])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_peak_memory_is_flat():
    """Fresh processes; a stored volume would grow by 32 x 3072 x 4 bytes a plane, 91 MB for 240 planes."""
    peaks = []
    for planes in (16, 256):
        words = [sys.executable, "-c", PROBE, str(planes)]
        peaks.append(int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) / 1024)
    assert abs(peaks[1] - peaks[0]) < 15, peaks
