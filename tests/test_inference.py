import json
import os

import numpy as np
import pytest
import torch

from mvsnet_edu import inference, streaming, tiles
from mvsnet_edu.data.formats import Camera, read_cam, read_pfm, write_pfm
from mvsnet_edu.data.scene import Scene, write_scene
from mvsnet_edu.enlargement import estimate_enlarged
from mvsnet_edu.errors import InputError
from mvsnet_edu.inference import SMALL, estimate_scene, how_much_to_enlarge, read_estimates, which_subsets
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
    assert files(tmp_path / "out") == sorted([*expected, "lock", "settings.json"])


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


CHANGES = ["network", "sources", "planes", "size", "inverse", "enlarge", "subsets", "scene"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_all_again_and_says_why(change, scene, network, tmp_path, capsys):
    options = {"sources": {"num_sources": 1}, "planes": {"depth_num": 9}, "size": {"size": (48, 40)}}
    options |= {"inverse": {"inverse": True}, "enlarge": {"enlarge": 2}, "subsets": {"subsets": "pairs"}}
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
    monkeypatch.setattr(MVSNet, "sweep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        estimate_scene(scene, out, network, depth_num=6)
    monkeypatch.undo()
    assert files(out) == ["lock", "settings.json"]
    assert json.loads((out / "settings.json").read_text())["planes"] == 6
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

    monkeypatch.setattr(MVSNet, "sweep", fail)
    with pytest.raises(
        InputError, match="^A depth map of 13 x 9 pixels from 8 planes needs more memory than there is"
    ):
        estimate_scene(scene, tmp_path / "out", network)


def test_a_broken_truth_does_not_matter(scene, network, tmp_path):
    (scene.folder / "depths").mkdir()
    (scene.folder / "depths/00000002.pfm").write_bytes(b"Pf")
    assert estimate_scene(Scene.open(scene.folder), tmp_path / "out", network) == [2, 5]


def test_planes_may_be_spread_over_the_inverse_depth(scene, network, tmp_path):
    estimate_scene(scene, tmp_path / "out", network, depth_num=7, device="cpu", inverse=True)
    sample = scene.sample(5, num_sources=1)
    depths = 1 / torch.linspace(1 / 2, 1 / 3.75, 7)
    with torch.no_grad():
        out = network(sample.images, sample.intrinsics, sample.extrinsics, depths[None])
    depth = read_pfm(tmp_path / "out/depth/00000005.pfm")
    assert depth == pytest.approx(out.refined_depth[0].numpy(), rel=1e-5)
    written = read_cam(tmp_path / "out/cams/00000005_cam.txt")
    assert (written.depth_min, written.depth_num, written.depth_max) == (2, 7, 3.75)
    assert written.depth_interval == pytest.approx(1.75 / 6)


# --- memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 3])
def test_enlarged_images_give_maps_of_the_same_size(scene, network, tmp_path, times):
    """54 x 37 pixels are no whole number of feature pixels, enlarged or not."""
    estimate_scene(scene, tmp_path / "out", network, num_sources=1, depth_num=6, device="cpu", enlarge=times)
    sample = scene.sample(2, num_sources=1, depth_num=6)
    views = sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values
    with torch.no_grad():
        expected = estimate_enlarged(network, *views, times)
    depth, trust = (read_pfm(tmp_path / "out" / name / "00000002.pfm") for name in ("depth", "probability"))
    assert depth.shape == (9, 13)
    np.testing.assert_allclose(depth, expected.best[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(trust, expected.probability_map[0].numpy(), atol=1e-5)
    written = read_cam(tmp_path / "out/cams/00000002_cam.txt")
    assert torch.allclose(written.intrinsics[:2], K[:2] / 4)
    assert read_estimates(scene, tmp_path / "out").images[0].shape == (3, 36, 52)


def test_subsets_are_those_of_the_network(network, tmp_path):
    images = {view: torch.rand(3, 37, 54) for view in range(5)}
    pairs = {0: [(view, 9.0 - view) for view in range(1, 5)]}
    cameras = {view: camera(view) for view in images}
    scene = write_scene(tmp_path / "five", images, cameras, pairs, suffix=".png")
    estimate_scene(scene, tmp_path / "out", network, depth_num=6, device="cpu", subsets="halves")
    sample = scene.sample(0, num_sources=4, depth_num=6)
    views = sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values
    with torch.no_grad():
        together, halves = (network(*views, subsets=kind) for kind in ("none", "halves"))
    assert not torch.equal(together.probability_map, halves.probability_map)
    depth, trust = (read_pfm(tmp_path / "out" / name / "00000000.pfm") for name in ("depth", "probability"))
    np.testing.assert_allclose(trust, halves.probability_map[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(depth, halves.best[0].numpy(), rtol=1e-4)


def test_an_unknown_kind_of_subsets_is_refused_before_anything_is_written(scene, network, tmp_path):
    with pytest.raises(ValueError, match='"none", "halves" or "pairs", not \'thirds\''):
        estimate_scene(scene, tmp_path / "out", network, subsets="thirds")
    assert not (tmp_path / "out").exists()


def test_only_small_images_have_their_sources_halved(scene):
    side = int(SMALL**0.5)
    assert which_subsets(scene) == which_subsets(scene, (side, side)) == "halves"
    assert which_subsets(scene, (side + 1, side + 1)) == "none"


def test_only_small_images_are_enlarged_and_only_for_networks_that_know_such(scene, network):
    assert how_much_to_enlarge(network, scene) == 1
    network.enlarge = 2
    side = int(SMALL**0.5)
    assert how_much_to_enlarge(network, scene) == how_much_to_enlarge(network, scene, (side, side)) == 2
    assert how_much_to_enlarge(network, scene, (side + 1, side + 1)) == 1


def count_photos(network):
    seen = []
    network.feature_net.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    return seen


def test_every_photo_is_looked_at_once(scene, network, tmp_path):
    seen = count_photos(network)
    estimate_scene(scene, tmp_path / "out", network)
    assert seen == [1, 1, 1]


def test_photos_that_are_forgotten_are_looked_at_again(scene, network, tmp_path, monkeypatch):
    estimate_scene(scene, tmp_path / "out", network, device="cpu")
    monkeypatch.setattr(inference, "_photos_to_keep", lambda *_: 1)
    seen = count_photos(network)
    estimate_scene(scene, tmp_path / "again", network, device="cpu")
    assert len(seen) > 3 and contents(tmp_path / "again") == contents(tmp_path / "out")


def test_the_number_of_photos_to_keep_follows_the_memory(scene):
    jobs = [inference._job(scene, view, 4, None, False, (640, 480)) for view in (2, 5)]
    one = 35 * 160 * 120 * 4  # bytes: 32 channels of features and 3 of colour
    assert inference._photos_to_keep(jobs, 0) == 3  # what the first view needs at once
    assert inference._photos_to_keep(jobs, 8 * 20 * one) == 20


def test_one_line_tells_how_the_views_are_done(scene, network, tmp_path, capsys):
    estimate_scene(scene, tmp_path / "out", network, device="cpu", memory=10**9)
    expected = "Views of 13 x 9 pixels x 8 planes, 0.0 GB each of 1.0 GB: one at a time."
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("Views")] == [expected]


h, w = 74, 117  # of the depth maps that are cut into tiles


def photo(view):
    features, image = torch.randn(32, h, w), torch.randn(3, h, w)
    return inference._Photo(features.double(), image.double(), camera(view).scaled(w / 54, h / 37))


@pytest.fixture
def photos(monkeypatch):
    """With 8 planes only, so the volume is made to count as it does with 200."""
    monkeypatch.setattr(inference, "PEAK_PER_VOXEL", 10_000)
    monkeypatch.setattr(streaming, "SLAB", 1000)
    return {view: photo(view) for view in range(3)}


def job(*views):
    return inference._Job(list(views), torch.linspace(2, 3, 8).double(), (h, w))


@pytest.fixture
def pointwise(photos):
    """A network whose normalisation looks at one voxel at a time, so that a tile is as good as the whole."""
    network = MVSNet(norm="batch").double()
    torch.nn.init.normal_(network.refine_net.residual.weight, std=0.1)
    for module in network.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0  # one look at a scene makes its statistics those to go by
    inference._estimate(network.train(), photos.__getitem__, [job(0, 1)], 10**12)
    return network.eval()


def memory_for(tiles):
    """The least memory, roughly, that this number of tiles takes."""
    return next(n for n in range(10**7, 10**10, 10**7) if _number_of_tiles(n) == tiles)


def _number_of_tiles(memory):
    try:
        return len(inference._tiles(job(0, 1, 2), memory))
    except InputError:
        return 0


def estimate(network, photos, tiles=1):
    maps = inference._estimate(network, photos.__getitem__, [job(0, 1, 2)], memory_for(tiles))
    return torch.stack(maps)


@pytest.mark.parametrize("number", [2, 4])
def test_tiles_see_all_that_the_whole_sees(number, photos, pointwise):
    whole, cut = estimate(pointwise, photos), estimate(pointwise, photos, number)
    assert whole.shape == (2, 1, h, w) and whole.std() > 0.01
    assert (cut - whole).abs().max() < 1e-9


def test_tiles_that_see_less_are_wrong(photos, pointwise, monkeypatch):
    """So the test above can fail."""
    whole = estimate(pointwise, photos)
    monkeypatch.setattr(tiles, "MARGIN", 16)
    assert (estimate(pointwise, photos, 2) - whole).abs().max() > 1e-6


def test_as_few_tiles_as_fit(photos):
    memory = inference._need(job(0, 1), (h, w))
    assert len(inference._tiles(job(0, 1), memory)) == 1 and len(inference._tiles(job(0, 1), memory - 1)) == 2


def test_too_large_for_the_smallest_tile_is_found_before_anything_is_written(scene, network, tmp_path):
    with pytest.raises(InputError, match="^A depth map of 200 x 130 pixels from 8 planes needs more memory"):
        estimate_scene(scene, tmp_path / "out", network, size=(800, 520), memory=10**6)
    assert not (tmp_path / "out").exists()


def test_tiles_are_made_where_memory_runs_out_after_all(photos, pointwise, monkeypatch):
    whole, sweep, seen = estimate(pointwise, photos), MVSNet.sweep, []

    def fail(network, *views):
        seen.append(views[-1][-1])  # the window's width
        if seen[-1] == w:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return sweep(network, *views)

    monkeypatch.setattr(MVSNet, "sweep", fail)
    assert (estimate(pointwise, photos) - whole).abs().max() < 1e-9
    assert seen[0] == w and len(seen) > 2


def test_another_error_is_not_taken_for_a_lack_of_memory(scene, network, tmp_path, monkeypatch):
    monkeypatch.setattr(MVSNet, "sweep", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        estimate_scene(scene, tmp_path / "out", network)


def test_views_in_one_batch_are_as_each_alone(photos):
    network, look = MVSNet().double(), photos.__getitem__
    together = inference._estimate(network, look, [job(0, 1), job(1, 2)], 10**12)
    alone = [inference._estimate(network, look, [job(*views)], 10**12) for views in ((0, 1), (1, 2))]
    for values, one, other in zip(together, *alone, strict=True):
        assert (values - torch.cat([one, other])).abs().max() < 1e-9 and (one - other).abs().max() > 1e-3


def test_a_gpu_does_as_many_views_at_once_as_fit(scene):
    jobs = [inference._job(scene, 2, sources, 8, False, (64, 64)) for sources in (1, 1, 1, 1, 1, 2)]
    cuda, need = torch.device("cuda"), inference._need(jobs[0], (16, 16))
    for memory, sizes in [
        (need, [1] * 6),
        (2 * need, [2, 2, 1, 1]),
        (4 * need, [4, 1, 1]),
        (99 * need, [5, 1]),
    ]:
        assert [len(batch) for batch in inference._batches(jobs, memory, cuda)] == sizes
    assert [len(batch) for batch in inference._batches(jobs, 99 * need, torch.device("cpu"))] == [1] * 6


@pytest.mark.gpu
def test_the_gpu_gives_the_same_maps(scene, network, tmp_path, capsys):
    for device in ("cpu", "cuda"):
        estimate_scene(scene, tmp_path / device, network, num_sources=1, device=device)
    assert "8 views at a time" in capsys.readouterr().err
    for view in (2, 5):
        on_cpu, on_gpu = (read_pfm(tmp_path / f"{device}/depth/{view:08d}.pfm") for device in ("cpu", "cuda"))
        assert on_gpu == pytest.approx(on_cpu, rel=0.01)


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
