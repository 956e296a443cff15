"""COLMAP models: our reader against pycolmap's, and the scene that comes out."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch

from mvsnet_edu.cli import main
from mvsnet_edu.data.colmap import cover, read_model, scene_from_colmap
from mvsnet_edu.data.formats import write_image
from mvsnet_edu.data.scene import Scene
from mvsnet_edu.data.views import depth_range, plane_count
from mvsnet_edu.errors import InputError

pycolmap = pytest.importorskip("pycolmap")
GONE = 3  # an image of the model that was never registered
FILES = ("cameras", "images", "points3D")


def synthetic(size=(96, 64), lens="PINHOLE", params=(110.0, 120.0, 47.0, 33.0), views=6, points=150):
    """A model of pycolmap's: two cameras, images whose ids have a gap, names with spaces and a folder."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 2, views // 2, points
    options.camera_width, options.camera_height = size
    options.camera_model_id, options.camera_params = getattr(pycolmap.CameraModelId, lens), list(params)
    pycolmap.set_random_seed(3)
    model = pycolmap.synthesize_dataset(options)
    for number, image in model.images.items():
        image.name = f"left/a photo {90 - number}.png"
    model.deregister_frame(model.images[GONE].frame_id)
    return model


def dense_folder(folder, model, text=False):
    """What COLMAP's image_undistorter would leave."""
    (folder / "sparse").mkdir(parents=True)
    (model.write_text if text else model.write_binary)(folder / "sparse")
    generator = torch.Generator().manual_seed(0)
    for image in model.images.values():
        camera = model.cameras[image.camera_id]
        pixels = torch.rand(3, camera.height, camera.width, generator=generator)
        write_image(folder / "images" / image.name, pixels)
    return folder


@pytest.fixture(scope="module")
def model():
    return synthetic()


@pytest.fixture
def dense(model, tmp_path):
    return dense_folder(tmp_path / "dense", model)


@pytest.fixture
def text_model(model, tmp_path):
    return dense_folder(tmp_path / "text", model, text=True) / "sparse"


def refused(action, *arguments) -> str:
    with pytest.raises(InputError) as error:
        action(*arguments)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    return str(error.value)


# --- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
def test_a_model_reads_as_pycolmap_reads_it(text, model, dense, text_model):
    read = read_model(text_model if text else dense / "sparse")
    registered = sorted((model.images[i] for i in model.reg_image_ids()), key=lambda image: image.name)
    assert read.names == [image.name for image in registered] and len(registered) == 5
    assert f"left/a photo {90 - GONE}.png" not in read.names
    ids = list(model.points3D)
    expected = np.array([model.points3D[i].xyz for i in ids])
    order = [int(np.abs(read.points.numpy() - xyz).sum(1).argmin()) for xyz in expected]
    np.testing.assert_allclose(read.points.numpy()[order], expected, atol=1e-12)
    for view, image in enumerate(registered):
        camera = model.cameras[image.camera_id]
        assert read.sizes[view] == (camera.width, camera.height)
        np.testing.assert_allclose(read.intrinsics[view], camera.calibration_matrix())
        np.testing.assert_allclose(read.extrinsics[view, :3], image.cam_from_world().matrix(), atol=1e-12)
        seen = {point.point3D_id for point in image.get_observation_points2D()}
        assert [i in seen for i in ids] == read.visibility[view][order].tolist() and seen


def test_the_binary_files_count_where_both_are_there(dense, text_model):
    for path in text_model.iterdir():
        (dense / "sparse" / path.name).write_text("nonsense")
    assert len(read_model(dense / "sparse").names) == 5


def test_older_models_have_no_rigs_and_no_frames(dense):
    for path in (dense / "sparse").glob("*"):
        if path.stem not in FILES:
            path.unlink()
    assert len(read_model(dense / "sparse").names) == 5


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.97])
@pytest.mark.parametrize("name", FILES)
def test_a_cut_binary_file_is_named(name, keep, dense):
    path = dense / "sparse" / f"{name}.bin"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    assert f"{name}.bin" in refused(read_model, dense / "sparse")


@pytest.mark.parametrize("name", FILES)
def test_a_huge_count_is_refused_at_once(name, dense):
    path = dense / "sparse" / f"{name}.bin"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    assert f"{name}.bin" in refused(read_model, dense / "sparse")


@pytest.mark.parametrize("name", FILES)
def test_a_broken_text_file_is_named(name, text_model):
    path = text_model / f"{name}.txt"
    path.write_text("\n".join(line[: len(line) // 6] for line in path.read_text().splitlines()))
    assert f"{name}.txt" in refused(read_model, text_model)


def test_numbers_that_are_not_finite_are_refused(text_model):
    path = text_model / "points3D.txt"
    *lines, last = path.read_text().splitlines()
    number, _, *rest = last.split()
    path.write_text("\n".join([*lines, " ".join([number, "nan", *rest])]))
    assert "not finite" in refused(read_model, text_model)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name, dense):
    (dense / "sparse" / f"{name}.bin").unlink()
    assert name in refused(read_model, dense / "sparse")


def test_a_model_without_photos_says_so(tmp_path):
    pycolmap.Reconstruction().write_binary(tmp_path)
    assert "0 registered photos" in refused(read_model, tmp_path)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("lens", "params"),
    [
        ("SIMPLE_RADIAL", (110.0, 47, 33, 0.1)),
        ("OPENCV", (110.0, 120, 47, 33, 0, 0, 0, 0.01)),
        ("OPENCV_FISHEYE", (110.0, 120, 47, 33, 0, 0, 0, 0)),
    ],
)
def test_distortion_is_refused_with_the_remedy(lens, params, text, tmp_path):
    folder = dense_folder(tmp_path / "dense", synthetic(lens=lens, params=params), text=text)
    sentence = refused(scene_from_colmap, folder, tmp_path / "scene")
    assert "distortion" in sentence and "image_undistorter" in sentence and not (tmp_path / "scene").exists()


def test_a_radial_lens_without_distortion_is_a_pinhole(tmp_path):
    folder = dense_folder(tmp_path, synthetic(lens="SIMPLE_RADIAL", params=(110.0, 47, 33, 0)))
    assert read_model(folder / "sparse").intrinsics[0].diagonal().tolist() == [110, 110, 1]


# --- the scene ---------------------------------------------------------------------------------------


def test_the_scene_has_the_models_views_under_new_numbers(model, dense, tmp_path):
    scene = scene_from_colmap(dense, tmp_path / "scene", num_sources=3)
    names = [line.split(" ", 1) for line in (scene.folder / "photos.txt").read_text().splitlines()]
    assert scene.views == [int(view) for view, _ in names] == [0, 1, 2, 3, 4]
    for view, name in names:
        image = model.find_image_with_name(name)
        camera = scene.camera(int(view))
        np.testing.assert_allclose(camera.extrinsics[:3], image.cam_from_world().matrix(), atol=1e-12)
        np.testing.assert_allclose(camera.intrinsics, model.cameras[image.camera_id].calibration_matrix())
        assert int(view) not in scene.sources(int(view)) and len(scene.sources(int(view))) == 3


def test_a_scene_is_complete_as_soon_as_it_has_its_name(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(Scene, "open", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scene_from_colmap(dense, tmp_path / "scene")
    assert (tmp_path / "scene" / "pair.txt").exists() and (tmp_path / "scene" / "photos.txt").exists()


def test_sources_follow_the_score_of_the_points_that_both_views_see(model, dense, tmp_path):
    scene = scene_from_colmap(dense, tmp_path / "scene")
    images = sorted((model.images[i] for i in model.reg_image_ids()), key=lambda image: image.name)

    def score(a, b):
        total = 0.0
        for point in model.points3D.values():
            if {a.image_id, b.image_id} <= {element.image_id for element in point.track.elements}:
                u, v = (image.projection_center() - point.xyz for image in (a, b))
                theta = math.degrees(math.acos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
                total += math.exp(-((theta - 5) ** 2) / (2 * (1 if theta <= 5 else 10) ** 2))
        return total

    for view, pairs in scene.pairs.items():
        for source, value in pairs:
            assert value == pytest.approx(score(images[view], images[source]), abs=1e-3)
        assert [value for _, value in pairs] == sorted((value for _, value in pairs), reverse=True)


def test_the_depth_range_holds_nearly_all_points_and_the_planes_go_over_it(model, dense, tmp_path):
    scene = scene_from_colmap(dense, tmp_path / "scene")
    for view, image in enumerate(sorted(image.name for image in map(model.image, model.reg_image_ids()))):
        image = model.find_image_with_name(image)
        pose = image.cam_from_world()
        points = [model.points3D[p.point3D_id].xyz for p in image.get_observation_points2D()]
        depths = np.array([(pose * xyz)[2] for xyz in points])
        camera = scene.camera(view)
        inside = (depths > camera.depth_min) & (depths < camera.depth_max)
        assert inside.mean() >= 0.97
        assert camera.depth_max - camera.depth_min < 1.5 * np.ptp(depths)
        assert camera.depth_num % 8 == 0 and camera.depth_num == scene.camera(0).depth_num
        focal = float(camera.intrinsics[0, 0])
        assert camera.depth_num >= plane_count(camera.depth_min, camera.depth_max, focal)
        assert camera.depth_values()[-1].item() == pytest.approx(camera.depth_max)


def test_the_number_of_planes_can_be_given(dense, tmp_path):
    scene = scene_from_colmap(dense, tmp_path / "scene", depth_num=48)
    assert {scene.camera(view).depth_num for view in scene.views} == {48}


def test_photos_of_another_size_are_scaled_and_cropped_with_their_cameras(tmp_path):
    model = synthetic()
    camera = model.cameras[1]  # one of the two: now as seen upright, twice as large
    camera.width, camera.height, camera.params = 128, 192, [220.0, 240.0, 60.0, 100.0]
    folder = dense_folder(tmp_path / "dense", model)
    scene = scene_from_colmap(folder, tmp_path / "scene")
    names = [line.split(" ", 1)[1] for line in (scene.folder / "photos.txt").read_text().splitlines()]
    tall = [view for view in scene.views if model.find_image_with_name(names[view]).camera_id == 1]
    assert len(tall) == 2
    assert {tuple(scene.image(view).shape) for view in scene.views} == {(3, 64, 96)}
    for view in tall:  # scaled by 96 / 128, then 40 rows off at the top and at the bottom
        expected = torch.tensor([[165.0, 0, 45], [0, 180, 75 - 40], [0, 0, 1]], dtype=torch.float64)
        torch.testing.assert_close(scene.camera(view).intrinsics, expected)


def test_cover_keeps_the_middle_and_the_proportions():
    ramp = torch.arange(16.0).view(1, 1, 16).expand(1, 8, 16) / 16
    image = cover(ramp, (6, 6))  # 8 x 16 -> 6 x 12 -> 6 x 6
    assert image.shape == (1, 6, 6)
    torch.testing.assert_close(image[0, 3].diff(), torch.full((5,), 16 / 12 / 16), atol=2e-2, rtol=0)
    assert image[0, 3].mean().item() == pytest.approx(7.5 / 16, abs=1e-3)
    assert cover(ramp, (16, 8)).data_ptr() == ramp.data_ptr()


@pytest.mark.parametrize("place", ["sparse/0", "."])
def test_where_a_model_may_lie(place, dense, tmp_path):
    home = tmp_path / "moved"
    home.mkdir()
    (dense / "images").rename(home / "images")
    (home / place).mkdir(parents=True, exist_ok=True)
    for path in (dense / "sparse").iterdir():
        path.rename(home / place / path.name)
    assert len(scene_from_colmap(home, tmp_path / "scene").views) == 5


def test_a_view_with_hardly_any_points_is_named_and_left_out(tmp_path, capsys):
    model = synthetic()
    poor = model.images[5]
    for index in [i for i, point in enumerate(poor.points2D) if point.has_point3D()][4:]:
        model.delete_observation(5, index)
    scene = scene_from_colmap(dense_folder(tmp_path / "dense", model), tmp_path / "scene")
    assert len(scene.views) == 4 and poor.name in capsys.readouterr().err


# --- what is refused ---------------------------------------------------------------------------------


def test_a_photo_that_is_missing_broken_or_of_another_size_is_named(model, dense, tmp_path):
    name = model.images[2].name
    photo = dense / "images" / name
    write_image(photo, torch.zeros(3, 64, 95))
    assert f"{name} is 95 x 64 pixels" in refused(scene_from_colmap, dense, tmp_path / "scene")
    photo.write_bytes(b"no image")
    assert name in refused(scene_from_colmap, dense, tmp_path / "scene")
    photo.unlink()
    assert name in refused(scene_from_colmap, dense, tmp_path / "scene")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense"]


def test_no_model_a_full_folder_and_too_few_views(dense, tmp_path):
    assert "no COLMAP model" in refused(scene_from_colmap, tmp_path, tmp_path / "scene")
    assert "not empty" in refused(scene_from_colmap, dense, dense)
    few = synthetic(points=4)
    assert "two are needed" in refused(
        scene_from_colmap, dense_folder(tmp_path / "few", few), tmp_path / "scene"
    )


def test_a_point_that_the_model_does_not_have(text_model):
    path = text_model / "points3D.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    assert "has no point" in refused(read_model, text_model)


def test_the_command(dense, tmp_path, capsys):
    assert main(["colmap", str(dense), str(tmp_path / "scene"), "--sources", "2", "--planes", "40"]) == 0
    assert "5 views" in capsys.readouterr().out
    scene = Scene.open(tmp_path / "scene")
    assert scene.camera(4).depth_num == 40 and len(scene.sources(4)) == 2
    assert main(["colmap", str(dense), str(tmp_path / "scene")]) == 2


# --- depths ------------------------------------------------------------------------------------------


def test_the_depth_range_withstands_outliers_and_keeps_a_margin():
    depths = torch.cat([torch.linspace(4, 6, 981), torch.tensor([0.1] * 9 + [900.0] * 9)])
    near, far = depth_range(depths)
    assert 3.7 < near < 3.95 and 6.15 < far < 6.25  # by about a tenth of 2, less in front
    assert depth_range(depths, margin=0) == pytest.approx((4.0, 6.0), abs=0.01)


def test_the_depth_range_is_positive_and_never_empty():
    near, far = depth_range(torch.tensor([0.01, 1000.0]))
    assert 0 < near < far
    near, far = depth_range(torch.full((20,), 7.0))
    assert near < 7 < far and far / near < 1.1


@pytest.mark.parametrize(("near", "far", "focal"), [(2.0, 3.0, 350.0), (5.0, 5.5, 800.0), (0.4, 9.0, 170.0)])
def test_the_planes_are_as_many_as_the_originals_rule_says_rounded_up_to_8(near, far, focal):
    intrinsics = np.array([[focal, 0, 160], [0, focal, 120], [0, 0, 1]])
    center, right = (np.linalg.inv(intrinsics) @ [160 + x, 120, 1] * near for x in (0, 1))
    rule = (1 / near - 1 / far) / (1 / near - 1 / (near + np.linalg.norm(right - center)))
    num = plane_count(near, far, focal)
    assert num % 8 == 0 and rule <= num < rule + 8


def test_the_number_of_planes_has_bounds():
    assert plane_count(1.0, 1.01, 100.0) == 32 and plane_count(1.0, 9.0, 4000.0) == 256
    assert plane_count(1.0, 9.0, 4000.0, most=1024) == 1024
