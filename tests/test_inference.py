import json
import os

import numpy as np
import pytest
import torch

from mvsnet_edu.data.formats import Camera, read_cam, read_pfm, write_pfm
from mvsnet_edu.data.scene import Scene, write_scene
from mvsnet_edu.errors import InputError
from mvsnet_edu.inference import estimate_scene, read_estimates
from mvsnet_edu.models import MVSNet

K = torch.tensor([[50.0, 0, 27.3], [0, 52, 18.1], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture
def network():
    network = MVSNet()
    torch.nn.init.normal_(network.refine_net.residual.weight, std=0.1)  # so that refining changes something
    return network


def camera(view):
    E = torch.eye(4, dtype=torch.float64)
    E[0, 3] = -0.1 * view
    return Camera(E, K, 2.0, 0.25, 8)


@pytest.fixture
def scene(tmp_path):
    """Views 2, 5 and 9, of 54 x 37 pixels; view 9 has no sources of its own."""
    images = {view: torch.rand(3, 37, 54) for view in (2, 5, 9)}
    cameras = {view: camera(view) for view in images}
    pairs = {2: [(5, 2.0), (9, 1.0)], 5: [(2, 3.0)], 9: []}
    return write_scene(tmp_path / "scene", images, cameras, pairs, suffix=".png")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_writes_three_files_for_each_view_with_sources(scene, network, tmp_path):
    assert estimate_scene(scene, tmp_path / "out", network) == [2, 5]
    names = ["cams/{}_cam.txt", "depth/{}.pfm", "probability/{}.pfm"]
    expected = sorted(name.format(view) for name in names for view in ("00000002", "00000005"))
    assert files(tmp_path / "out") == sorted([*expected, "settings.json"])


def test_what_is_written_is_what_the_network_says(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network, num_sources=1, depth_num=6, device="cpu")
    sample = scene.sample(2, num_sources=1, depth_num=6)
    with torch.no_grad():
        out = network(sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values)
    depth = read_pfm(tmp_path / "out/depth/00000002.pfm")
    assert depth.dtype == np.float32 and depth.shape == (9, 13)
    assert depth == pytest.approx(out.refined_depth[0].numpy(), rel=1e-5)
    assert not np.allclose(depth, out.depth[0].numpy(), rtol=1e-3)
    probability = read_pfm(tmp_path / "out/probability/00000002.pfm")
    assert probability == pytest.approx(out.probability_map[0].numpy(), abs=1e-5)


def test_without_refinement_the_initial_depth_is_written(scene, tmp_path):
    network = MVSNet(refine=False)
    estimate_scene(scene, tmp_path / "out", network, device="cpu")
    sample = scene.sample(5, num_sources=4)
    with torch.no_grad():
        out = network(sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values)
    assert read_pfm(tmp_path / "out/depth/00000005.pfm") == pytest.approx(out.depth[0].numpy(), rel=1e-5)


def test_cameras_are_those_of_the_depth_maps(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network, depth_num=15, size=(27, 74))
    written = read_cam(tmp_path / "out/cams/00000005_cam.txt")
    assert torch.equal(written.extrinsics, scene.camera(5).extrinsics)
    scale = torch.tensor([[1 / 8], [1 / 2], [1]], dtype=torch.float64)
    assert torch.allclose(written.intrinsics, scale * K, rtol=1e-15)
    assert (written.depth_min, written.depth_interval) == (2, 0.125)
    assert (written.depth_num, written.depth_max) == (15, 3.75)


def test_a_second_run_does_only_what_is_missing(scene, network, tmp_path):
    out = tmp_path / "out"
    estimate_scene(scene, out, network)
    before = contents(out)
    (out / "probability/00000005.pfm").unlink()
    write_pfm(out / "depth/00000002.pfm", torch.ones(9, 13))  # to see that it is left alone
    assert estimate_scene(scene, out, network) == [5]
    after = contents(out)
    assert after.pop("depth/00000002.pfm") != before.pop("depth/00000002.pfm") and after == before
    assert estimate_scene(scene, out, network) == []


@pytest.mark.parametrize("change", ["network", "sources", "planes", "size", "scene"])
def test_a_change_makes_all_again_and_says_why(change, scene, network, tmp_path, capsys):
    options = {"sources": {"num_sources": 1}, "planes": {"depth_num": 9}, "size": {"size": (48, 40)}}
    estimate_scene(scene, tmp_path / "out", network)
    assert "again" not in capsys.readouterr().err
    if change == "network":
        torch.nn.init.zeros_(network.refine_net.residual.weight)
    if change == "scene":
        path = scene.folder / "cams/00000002_cam.txt"
        path.write_text(path.read_text().replace("27.3", "27.30001"))
        scene = Scene.open(scene.folder)
    assert estimate_scene(scene, tmp_path / "out", network, **options.get(change, {})) == [2, 5]
    assert f"was made otherwise ({change}), so all depth maps are made again." in capsys.readouterr().err
    assert estimate_scene(scene, tmp_path / "out", network, **options.get(change, {})) == []


def test_an_interrupted_run_leaves_nothing_of_the_old_settings(scene, network, tmp_path, monkeypatch):
    out = tmp_path / "out"
    estimate_scene(scene, out, network)
    monkeypatch.setattr(MVSNet, "forward", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        estimate_scene(scene, out, network, depth_num=6)
    monkeypatch.undo()
    assert files(out) == ["settings.json"] and json.loads((out / "settings.json").read_text())["planes"] == 6
    assert estimate_scene(scene, out, network, depth_num=6) == [2, 5]


def test_broken_input_is_found_before_anything_is_written(scene, network, tmp_path):
    path = scene.folder / "images/00000009.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="00000009.png"):
        estimate_scene(scene, tmp_path / "out", network)
    assert not (tmp_path / "out").exists()


def test_refuses_to_write_into_the_scene(scene, network):
    before = contents(scene.folder)
    with pytest.raises(InputError, match="is the scene itself"):
        estimate_scene(scene, os.path.join(scene.folder, "cams", ".."), network)
    assert contents(scene.folder) == before


def test_refuses_images_without_a_depth_pixel(scene, network, tmp_path):
    with pytest.raises(InputError, match="at 54 x 3 pixels is too small"):
        estimate_scene(scene, tmp_path / "out", network, size=(54, 3))


def test_a_lack_of_memory_is_one_sentence(scene, network, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(MVSNet, "forward", fail)
    with pytest.raises(InputError, match="^54 x 37 pixels and 8 planes need more memory than there is"):
        estimate_scene(scene, tmp_path / "out", network)


# --- reading back ------------------------------------------------------------------------------------


def test_reads_back_maps_images_and_cameras_that_fit(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network)
    views, depths, probabilities, images, intrinsics, extrinsics = read_estimates(scene, tmp_path / "out")
    assert views == [2, 5] and depths[1].shape == probabilities[1].shape == (9, 13)
    assert torch.equal(images[1], scene.image(5)[:, :36, :52])  # the network leaves the remainder out
    assert torch.allclose(intrinsics[1], K, rtol=1e-14) and torch.equal(extrinsics[1], camera(5).extrinsics)


def test_images_follow_the_size_that_the_network_saw(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network, size=(108, 148))
    estimates = read_estimates(scene, tmp_path / "out")
    sample = scene.sample(5, num_sources=1, size=(108, 148))
    assert (estimates.images[1] - sample.images[0, 0]).abs().max() < 1e-6
    assert torch.allclose(estimates.intrinsics[1].float(), sample.intrinsics[0, 0])


def test_a_missing_map_is_named(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network)
    (tmp_path / "out/depth/00000005.pfm").unlink()
    with pytest.raises(InputError, match="00000005.pfm is missing: estimate the depth maps"):
        read_estimates(scene, tmp_path / "out")


def test_maps_of_two_sizes_are_refused(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network)
    write_pfm(tmp_path / "out/probability/00000005.pfm", torch.ones(9, 12))
    with pytest.raises(InputError, match="not two maps of one size"):
        read_estimates(scene, tmp_path / "out")


def test_a_map_larger_than_its_image_is_refused(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network)
    for folder in ("depth", "probability"):
        write_pfm(tmp_path / f"out/{folder}/00000005.pfm", torch.ones(20, 30))
    with pytest.raises(InputError, match="do not belong to"):
        read_estimates(scene, tmp_path / "out")
