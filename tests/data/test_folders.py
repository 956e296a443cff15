"""MVSNet's scene folders as a data set: one or many, second camera folders, and the ways to write a range."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from plane_scenes import cam_text, check_cameras, pair_text, pfm_bytes, plane_depth, plane_image, write

from mvsnet_edu.data.folders import SceneDataset, SceneFolders
from mvsnet_edu.data.scene import Scene
from mvsnet_edu.errors import InputError

SIZES = {"Family": (96, 64), "scan9": (64, 80)}
PAIRS = {0: [1, 7], 1: [7, 0], 7: [1]}


@pytest.fixture
def root(tmp_path):
    for name, size in SIZES.items():
        write(tmp_path / name / "pair.txt", pair_text(PAIRS))
        put_cameras(tmp_path / name, size, "500.0 2.0 128 756.0")
        for view in PAIRS:
            write(tmp_path / name / "images" / f"{view:08d}.jpg", plane_image(view, size))
    return tmp_path


def put_cameras(scene, size, tail: str, folder: str = "cams") -> None:
    for view in PAIRS:
        write(scene / folder / f"{view:08d}_cam.txt", cam_text(view, size, tail))


def planes_of(samples: SceneFolders) -> torch.Tensor:
    return samples[0].depth_values[0]


def test_one_scene_several_or_a_folder_of_them(root):
    one = SceneFolders(root / "Family", views=3, depth_num=8)
    assert [one[k].views for k in range(len(one))] == [[0, 1, 7], [1, 7, 0]] and one.left_out == 1
    named = SceneFolders([root / "scan9", root / "Family"], views=2, depth_num=8)
    assert [named[k].images.shape[-2:] for k in (0, 3)] == [(80, 64), (64, 96)] and len(named) == 6
    held = SceneFolders(str(root), views=2, depth_num=8)
    assert [held[k].images.shape[-2:] for k in (0, 3)] == [(64, 96), (80, 64)] and held.left_out == 0


def test_scenes_of_different_sizes_share_a_batch_once_resized(root):
    samples = SceneFolders(root, views=3, depth_num=8, size=(64, 32))
    assert torch.cat([samples[k].images for k in range(4)]).shape == (4, 3, 3, 32, 64)


def test_the_cameras_fit_the_images(root):
    for view, (name, size) in enumerate(SIZES.items()):
        write(root / name / "depths" / f"{view:08d}.pfm", pfm_bytes(plane_depth(view, size)))
        check_cameras(SceneFolders(root / name, views=3)[view])


@pytest.mark.parametrize(
    ("tail", "options", "near", "far"),
    [
        ("425.0 2.5", {"depth_num": 16}, 425, 425 + 15 * 2.5),
        ("425.0 2.5", {"depth_num": 192, "interval_scale": 1.06}, 425, 425 + 191 * 2.65),  # DTU's test scans
        ("0.193887 0.00406869 778 3.35933", {"depth_num": 64}, 0.193887, 0.193887 + 777 * 0.00406869),
        ("425.0 2.5 101", {"depth_num": 21, "interval_scale": 0.5}, 425, 425 + 125),
        ("0.394995 0.874995", {"depth_num": 48, "last_is_max": True}, 0.394995, 0.874995),
        ("0.4 0.01 33 0.72", {"depth_num": 48, "last_is_max": True}, 0.4, 0.72),
    ],
)
def test_ranges_of_cameras(root, tail, options, near, far):
    put_cameras(root / "Family", SIZES["Family"], tail)
    samples = SceneFolders(root / "Family", views=2, **options)
    num = options["depth_num"]
    assert planes_of(samples).shape == (num,)
    np.testing.assert_allclose(planes_of(samples).numpy(), np.linspace(near, far, num), rtol=1e-6)
    assert samples[0].depth_interval.item() == pytest.approx((far - near) / (num - 1), rel=1e-5)
    scene, reference = samples.samples[0]
    assert scene.camera(reference).depth_max in (None, pytest.approx(far))


def test_a_farthest_depth_is_not_taken_for_an_interval(root):
    put_cameras(root / "Family", SIZES["Family"], "0.394995 0.874995")
    with pytest.raises(InputError, match=r"cams/00000000_cam.txt ends in 0.394995 0.874995, .*last_is_max"):
        SceneFolders(root / "Family", views=2)
    put_cameras(root / "Family", SIZES["Family"], "425.0 2.5")
    with pytest.raises(InputError, match="cams/00000000_cam.txt ends in 425 2.5, which is no nearest"):
        SceneFolders(root / "Family", views=2, last_is_max=True)


def test_a_second_folder_of_cameras(root):
    put_cameras(root / "Family", SIZES["Family"], "550.0 1.0 65 614.0", folder="cams_1")
    assert planes_of(SceneFolders(root / "Family", views=2))[0] == 500
    assert planes_of(SceneFolders(root / "Family", views=2, cams="cams_1"))[0] == 550
    with pytest.raises(InputError, match="scan9/cams_1/00000000_cam.txt is missing"):
        SceneFolders(root, cams="cams_1")
    shutil.rmtree(root / "Family" / "cams")
    assert SceneFolders(root / "Family", views=2, cams="cams_1")[0].views == [0, 1]
    scene = Scene.open(root / "Family", cams="cams_1")
    put_cameras(root / "Family", SIZES["Family"], "550.0 1.0", folder="cams_1")
    with pytest.raises(InputError, match="Family/cams_1/00000001_cam.txt does not say how many"):
        Scene.open(root / "Family", "cams_1").sample(1, 1)
    assert scene.camera_folder == root / "Family" / "cams_1"


def test_references_without_depth_can_be_left_out(root):
    put = plane_depth(1, SIZES["scan9"])
    write(root / "scan9" / "depths" / "00000001.pfm", pfm_bytes(put))
    every, known = SceneFolders(root, views=2), SceneFolders(root, views=2, with_depth=True)
    assert [every[k].ground_truth is None for k in range(6)] == [True, True, True, True, False, True]
    assert len(known) == 1 and known.left_out == 5
    np.testing.assert_array_equal(known[0].ground_truth[0].numpy(), put[2::4, 2::4])
    with pytest.raises(InputError, match="Family has no view with a source and a known depth"):
        SceneFolders(root / "Family", views=2, with_depth=True)


def test_depth_counts_between_the_second_plane_and_the_last_but_one(root):
    depth = np.full((16, 24), 600, np.float32)
    depth[0, :6] = [500, 502, 502.5, 752, 752.5, 800]
    write(root / "Family" / "depths" / "00000000.pfm", pfm_bytes(depth))
    truth = SceneFolders(root / "Family", views=3, depth_num=128)[0].ground_truth[0]
    assert truth[0, :7].tolist() == [0, 0, 502.5, 752, 0, 0, 600]


def test_no_scene_or_no_usable_reference_is_an_error(root, tmp_path):
    with pytest.raises(InputError, match="nowhere is no scene"):
        SceneFolders(tmp_path / "nowhere")
    with pytest.raises(InputError, match="Family has no view with 3 sources"):
        SceneFolders(root / "Family", views=4)
    with pytest.raises(InputError, match="no view with"):
        SceneDataset([], views=3, depth_num=8)
    (root / "scan9" / "cams" / "00000007_cam.txt").unlink()
    with pytest.raises(InputError, match="scan9/cams/00000007_cam.txt is missing"):
        SceneFolders(root)


def test_views_of_different_sizes_are_named(root):
    write(root / "Family" / "images" / "00000007.jpg", plane_image(7, (92, 64)))
    with pytest.raises(InputError, match="Family/images/00000007.jpg is 92 x 64 pixels"):
        SceneFolders(root / "Family", views=3)[0]
