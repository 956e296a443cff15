"""Photos without cameras, taken of a generated scene, become a cloud that agrees with the scene."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from full_disk import no_room_beyond
from PIL import Image

from mvsnet_edu import reconstruction
from mvsnet_edu.camera import backproject, camera_center, project
from mvsnet_edu.cli import main
from mvsnet_edu.data.formats import Camera, read_image, write_cam, write_image, write_pfm
from mvsnet_edu.data.ply import read_ply
from mvsnet_edu.data.scene import Scene, write_scene
from mvsnet_edu.errors import InputError
from mvsnet_edu.evaluation import cloud_metrics
from mvsnet_edu.reconstruction import (
    fuse_scene,
    match_photos,
    prepare_photos,
    reconstruct,
    register_photos,
    undistort_photos,
)

pycolmap = pytest.importorskip("pycolmap")
TRUTH = Path(__file__).parents[1] / "data" / "still_life"
SIZE, PLANES, ORIENTATION = 320, 64, 0x0112
STEPS = ("photos", "matches", "cameras", "scene", "cloud")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The photographs of a scene, as untidy as a folder of photos is."""
    folder = tmp_path_factory.mktemp("my photos")
    for view, path in Scene.open(TRUTH).image_paths.items():
        image, exif = Image.open(path).resize((320, 256), Image.Resampling.LANCZOS), Image.Exif()
        if view == 1:  # on its side, and a note about that
            image, exif[ORIENTATION] = image.transpose(Image.Transpose.ROTATE_90), 6
        if view == 2:  # a better camera
            image = Image.open(path).resize((400, 320), Image.Resampling.LANCZOS)
        if view == 4:
            image = image.convert("CMYK")
        image.save(folder / f"view {view}.jpg", quality=97, subsampling=0, exif=exif)
    (folder / "view 7.jpg").write_bytes((folder / "view 6.jpg").read_bytes()[:3000])
    write_image(folder / "view 8.png", torch.rand(3, 256, 320, generator=torch.Generator().manual_seed(0)))
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture(scope="module")
def result(photos, tmp_path_factory):
    """The folder of one run, and what it said."""
    out = tmp_path_factory.mktemp("results") / "out"
    said = run(photos, out)
    return out, said


def run(photos, out, *options):
    from contextlib import redirect_stderr
    from io import StringIO

    with redirect_stderr(StringIO()) as said:
        size = ["--size", str(SIZE), "--planes", str(PLANES)]
        code = main(["reconstruct", str(photos), str(out), *size, "--device", "cpu", *options])
    assert code == 0, said.getvalue()
    return said.getvalue()


def original(scene: Scene, view: int) -> int:
    """The number of the true view behind a view of the reconstructed scene."""
    name = dict(line.split(" ", 1) for line in (scene.folder / "photos.txt").read_text().splitlines())
    return int(name[f"{view:08d}"].removesuffix(".png").split("_")[-1])


def similarity(a: np.ndarray, b: np.ndarray):
    """Scale, rotation and translation that bring points a (N, 3) closest to b; Umeyama 1991."""
    mean_a, mean_b = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - mean_b).T @ (a - mean_a))
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    rotation = (u * sign) @ vt
    scale = (s * sign).sum() / ((a - mean_a) ** 2).sum()
    return scale, rotation, mean_b - scale * rotation @ mean_a


def true_points(least: int = 3) -> np.ndarray:
    """Points of the true depth maps, each second pixel, that at least so many views see."""
    scene, points = Scene.open(TRUTH), []
    depths = [scene.depth(view).double() for view in scene.views]  # a quarter of the images' size
    cameras = [scene.camera(view).scaled(0.25, 0.25) for view in scene.views]
    for camera, depth in zip(cameras, depths, strict=True):
        world = backproject(depth[None], camera.intrinsics[None], camera.extrinsics[None])[0]
        world = world[::2, ::2][depth[::2, ::2] > 0]  # (N, 3)
        seen = sum(
            _sees(other, other_depth, world) for other, other_depth in zip(cameras, depths, strict=True)
        )
        points.append(world[seen >= least])
    return torch.cat(points).numpy()


def _sees(camera, depth, points) -> torch.Tensor:
    H, W = depth.shape
    pixels, z = project(points, camera.intrinsics, camera.extrinsics)
    x, y = pixels.floor().long().unbind(-1)
    inside = (z > 0) & (x >= 0) & (x < W) & (y >= 0) & (y < H)
    return inside & ((depth[y.clamp(0, H - 1), x.clamp(0, W - 1)] - z).abs() < 0.02 * z)


# --- one run -----------------------------------------------------------------------------------------


def test_the_run_names_what_it_leaves_out_and_registers_the_rest(result):
    out, said = result
    assert "view 7.jpg is left out" in said and "view 8.png is left out: it shares too little" in said
    assert "7 of 8 photos fit together" in said
    scene = Scene.open(out / "scene")
    assert [original(scene, view) for view in scene.views] == [0, 1, 2, 3, 4, 5, 6]
    assert all((out / name).exists() for name in ("fused.ply", "fused.html", "photos", "colmap", "cams"))


def test_photos_are_upright_and_of_one_size_in_the_scene(result):
    out, _ = result
    scene, truth = Scene.open(out / "scene"), Scene.open(TRUTH)
    sizes = {tuple(scene.image(view).shape[1:]) for view in scene.views}
    assert len(sizes) == 1 and max(sizes.pop()) <= SIZE
    for view in scene.views:
        grey = scene.image(view).mean(0)
        true = torch.nn.functional.interpolate(truth.image(view)[None], grey.shape, mode="area")[0].mean(0)
        assert np.corrcoef(grey.flatten(), true.flatten())[0, 1] > 0.9


def test_the_cameras_agree_with_the_truth_up_to_a_similarity(result):
    out, _ = result
    scene, truth = Scene.open(out / "scene"), Scene.open(TRUTH)
    pairs = [(scene.camera(view), truth.camera(original(scene, view))) for view in scene.views]
    found, true = (
        torch.stack([camera_center(camera.extrinsics) for camera in side]).numpy()
        for side in zip(*pairs, strict=True)
    )
    scale, rotation, shift = similarity(found, true)
    errors = np.linalg.norm(scale * found @ rotation.T + shift - true, axis=1)
    assert errors.max() < 0.02 * np.linalg.norm(np.ptp(true, axis=0))
    for ours, theirs in pairs:  # the same rotation also turns the cameras
        turned = ours.extrinsics[:3, :3].numpy() @ rotation.T
        cosine = (np.trace(turned @ theirs.extrinsics[:3, :3].numpy().T) - 1) / 2
        assert np.degrees(np.arccos(min(1.0, cosine))) < 1.5


def test_the_cloud_agrees_with_the_truth(result):
    out, _ = result
    scene, truth = Scene.open(out / "scene"), Scene.open(TRUTH)
    found, true = (
        torch.stack([camera_center(scene_.camera(number).extrinsics) for number in numbers]).numpy()
        for scene_, numbers in (
            (scene, scene.views),
            (truth, [original(scene, view) for view in scene.views]),
        )
    )
    scale, rotation, shift = similarity(found, true)
    cloud, points = read_ply(out / "fused.ply"), true_points()
    diagonal = np.linalg.norm(np.ptp(points, axis=0))
    metrics = cloud_metrics(scale * cloud.points @ rotation.T + shift, points, 0.01 * diagonal)
    assert metrics.f_score >= 0.8, metrics


def test_a_second_run_repeats_nothing(photos, result):
    out, _ = result
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    said = run(photos, out)
    assert all(f"{step}: done before" in said for step in STEPS)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_another_option_repeats_only_what_depends_on_it(photos, result, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(result[0], out)
    said = run(photos, out, "--min-views", "2")
    assert all(f"{step}: done before" in said for step in STEPS[:-1]) and "cloud: done before" not in said
    assert len(read_ply(out / "fused.ply")) > len(read_ply(result[0] / "fused.ply"))


def test_the_cameras_come_out_the_same_again(result, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(result[0] / "photos", out / "photos")
    match_photos(out)
    register_photos(out)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        first, second = (folder / "colmap" / "sparse" / name for folder in (result[0], out))
        assert first.read_bytes() == second.read_bytes()


def test_matching_goes_on_where_it_was_stopped(result, tmp_path, monkeypatch):
    out = tmp_path / "again"
    shutil.copytree(result[0] / "photos", out / "photos")
    monkeypatch.setattr(pycolmap, "match_image_pairs", lambda *words, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        match_photos(out)
    monkeypatch.undo()
    before = (out / "colmap" / "database.db").stat().st_ino
    match_photos(out, "sequential")
    assert (out / "colmap" / "database.db").stat().st_ino == before
    database = pycolmap.Database.open(out / "colmap" / "database.db")
    assert database.num_images() == 8 and database.num_matched_image_pairs() == 28
    database.close()


def test_a_journal_without_its_database_does_not_get_into_a_new_one(result, tmp_path):
    """Which is what a killed run leaves, if its matches are then asked for in another way."""
    photos, database = result[0] / "photos", tmp_path / "colmap" / "database.db"
    database.parent.mkdir()
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE stray (number INTEGER)")
    connection.commit()
    journal = Path(f"{database}-wal").read_bytes()
    connection.close()
    database.unlink()
    Path(f"{database}-wal").write_bytes(journal)
    reconstruction._register_names(pycolmap, reconstruction._prepared(result[0]), photos, database)
    tables = sqlite3.connect(database).execute("SELECT name FROM sqlite_master").fetchall()
    assert ("stray",) not in tables and ("images",) in tables


def test_without_room_pycolmap_leaves_no_half_model(result, tmp_path):
    model = pycolmap.Reconstruction(result[0] / "colmap" / "sparse")
    said = pytest.raises(InputError, match="sparse cannot be written: the disk may be full")
    with no_room_beyond(20_000), said:
        reconstruction._write_model(model, tmp_path / "sparse")
    assert not list(tmp_path.iterdir())
    for _ in range(2):  # the second takes the place of the first
        reconstruction._write_model(model, tmp_path / "sparse")
    again = pycolmap.Reconstruction(tmp_path / "sparse")
    assert again.num_points3D() == model.num_points3D() and len(list(tmp_path.iterdir())) == 1


def test_an_error_within_pycolmap_is_one_sentence(result, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(result[0] / "photos", out / "photos")
    (out / "colmap" / "database.db").mkdir(parents=True)
    with pytest.raises(InputError, match="COLMAP cannot work in .*/colmap, whose disk may be full"):
        match_photos(out)


@pytest.mark.parametrize("begun", [False, True])
def test_pycolmap_is_not_called_where_it_might_find_the_disk_full(begun, result, tmp_path, monkeypatch):
    """Its threads would end the process."""
    out = tmp_path / "again"
    shutil.copytree(result[0] / "photos", out / "photos")
    if begun:  # features are there, or none are needed
        shutil.copytree(result[0] / "colmap", out / "colmap")
        monkeypatch.setattr(pycolmap, "extract_features", lambda *words, **options: None)
        monkeypatch.setattr(reconstruction, "PHOTO_BYTES", 0)
    for name in ("match_image_pairs",) if begun else ("extract_features", "match_image_pairs"):
        monkeypatch.setattr(pycolmap, name, lambda *words, **options: pytest.fail("called"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=500_000))
    with pytest.raises(InputError, match=r"database.db may need \S+ MB more, and its disk has 0.5 MB left"):
        match_photos(out)
    assert not list(out.rglob("*.tmp"))


def test_no_photo_takes_more_room_than_is_asked_for(tmp_path, monkeypatch):
    """Noise has the most features, and with itself the most matches."""
    monkeypatch.setattr(reconstruction, "FEATURES", 1000)
    grains = torch.rand(1, 1, 50, 60, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(grains, scale_factor=8, mode="bicubic")[0].clamp(0, 1)
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "photos" / name, image.expand(3, -1, -1))
    prepare_photos(tmp_path / "photos", tmp_path / "out")
    match_photos(tmp_path / "out")
    database = tmp_path / "out" / "colmap" / "database.db"
    with closing(sqlite3.connect(database)) as opened:
        (found,) = opened.execute("SELECT MAX(rows) FROM keypoints").fetchone()
        (shared,) = opened.execute("SELECT MIN(rows) FROM matches").fetchone()
    assert shared > 1000 < found  # so the bound is put to the test
    photo, pair = (
        size * 1000 / 4096 for size in (reconstruction.PHOTO_BYTES, reconstruction.PAIR_BYTES)
    )
    assert 2 * database.stat().st_size < 3 * (photo + pair)


def test_lenses_are_shared_by_photos_of_one_size(result):
    sparse = pycolmap.Reconstruction(result[0] / "colmap" / "sparse")
    by_name = {image.name: image.camera_id for image in sparse.images.values()}
    cameras = [camera for _, camera in sorted(by_name.items())]
    assert cameras[2] != cameras[0] and len(set(cameras)) == 2


def test_the_focal_length_that_a_photo_tells_is_where_the_search_begins(photos, tmp_path):
    lens = Image.Exif()
    lens.get_ifd(0x8769)[0xA405] = 50  # 35 mm equivalent
    for view in (0, 3, 5):
        some = Image.open(photos / f"view {view}.jpg")
        (tmp_path / "photos").mkdir(exist_ok=True)
        some.save(tmp_path / "photos" / f"{view}.jpg", exif=lens if view == 5 else Image.Exif())
    prepare_photos(tmp_path / "photos", tmp_path / "out")
    match_photos(tmp_path / "out")
    database = pycolmap.Database.open(tmp_path / "out" / "colmap" / "database.db")
    cameras = {image.name[5]: database.read_camera(image.camera_id) for image in database.read_all_images()}
    database.close()
    assert cameras["5"].has_prior_focal_length and not cameras["0"].has_prior_focal_length
    diagonal = np.hypot(320, 256)
    assert cameras["5"].focal_length == pytest.approx(50 / np.hypot(36, 24) * diagonal, abs=0.5)
    assert cameras["0"].camera_id == cameras["3"].camera_id != cameras["5"].camera_id


# --- masks -------------------------------------------------------------------------------------------


def test_masked_pixels_give_no_features_and_masks_follow_their_photos(photos, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    black_left = np.full((256, 320), 255, np.uint8)
    black_left[:, :160] = 0
    Image.fromarray(black_left).save(masks / "view 1.png")  # the photo that lies on its side
    some = tmp_path / "photos"
    some.mkdir()
    for view in (0, 1, 3):
        shutil.copy(photos / f"view {view}.jpg", some)
    out = tmp_path / "out"
    prepare_photos(some, out, masks=masks)
    match_photos(out)
    database = pycolmap.Database.open(out / "colmap" / "database.db")
    columns = {image.name: database.read_keypoints(image.image_id) for image in database.read_all_images()}
    database.close()
    left = {name: np.mean(points[:, 0] < 160) for name, points in columns.items()}
    assert left["0001_view_1.jpg"] == 0 and left["0000_view_0.jpg"] > 0.2


def test_undistortion_bends_photo_and_mask_alike(tmp_path):
    """A chess board seen through a barrel becomes straight; the mask is the board's black squares."""
    out, (W, H), k = tmp_path, (96, 64), 0.3
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", 80.0, W, H)
    camera.params = [80.0, W / 2, H / 2, k]
    x, y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    straight = camera.cam_from_img(np.stack([x, y], -1).reshape(-1, 2)).reshape(H, W, 2)
    board = (np.floor(straight * 8).sum(-1) % 2 > 0).astype(np.float32)
    image = torch.from_numpy(board).expand(3, H, W)
    write_image(out / "photos" / "a.jpg", image)
    write_image(out / "masks" / "a.jpg.png", image)
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    picture = pycolmap.Image(name="a.jpg", camera_id=1, image_id=1)
    model.add_image_with_trivial_frame(picture, pycolmap.Rigid3d())
    (out / "colmap" / "sparse").mkdir(parents=True)
    model.write_binary(out / "colmap" / "sparse")
    undistort_photos(out, 1000)
    dense = pycolmap.Reconstruction(out / "colmap" / "dense" / "sparse")
    new = dense.cameras[1]
    assert new.model_name == "PINHOLE" and dense.images[1].name == "a.png"
    x, y = np.meshgrid(np.arange(new.width) + 0.5, np.arange(new.height) + 0.5)
    rays = new.cam_from_img(np.stack([x, y], -1).reshape(-1, 2)).reshape(new.height, new.width, 2)
    inside = (np.abs(rays * 8 - np.round(rays * 8)) > 0.2).all(-1)  # away from the edges of the squares
    expected = np.floor(rays * 8).sum(-1) % 2 > 0
    for folder in ("images", "masks"):
        shown = read_image(out / "colmap" / "dense" / folder / "a.png")[0].numpy() > 0.5
        assert shown.shape == expected.shape and (shown == expected)[inside].all() and inside.mean() > 0.2


def test_masked_pixels_are_not_in_the_cloud(tmp_path):
    K = torch.tensor([[60.0, 0, 28], [0, 60, 20], [0, 0, 1]]).double()
    cameras = {}
    for view in range(3):
        pose = torch.eye(4).double()
        pose[0, 3] = -0.05 * view
        cameras[view] = Camera(pose, K, 1.5, 0.125, 16)
    images = {view: torch.rand(3, 40, 56) for view in range(3)}
    pairs = {view: [(other, 1.0) for other in range(3) if other != view] for view in range(3)}
    scene, out = write_scene(tmp_path / "scene", images, cameras, pairs), tmp_path / "out"
    for view in range(3):
        write_pfm(out / f"depth/{view:08d}.pfm", torch.full((10, 14), 2.0))
        write_pfm(out / f"probability/{view:08d}.pfm", torch.full((10, 14), 0.9))
        write_cam(out / f"cams/{view:08d}_cam.txt", cameras[view].scaled(0.25, 0.25))
    everything = fuse_scene(scene, out)
    keep = torch.ones(40, 56, dtype=torch.bool)
    keep[:17] = False  # the upper four rows of the depth map, and one row of pixels of the fifth
    cloud = fuse_scene(scene, out, {view: keep for view in range(3)})
    rows = (cloud.points[:, 1] / cloud.points[:, 2] * 15 + 5).round(2)  # in pixels of the depth map
    assert 0 < len(cloud) < len(everything) and rows.min() > 5
    assert len(read_ply(out / "fused.ply")) == len(cloud)


# --- what is refused ---------------------------------------------------------------------------------


def noise(folder: Path, total: int) -> Path:
    for number in range(total):
        generator = torch.Generator().manual_seed(number)
        write_image(folder / f"{number}.png", torch.rand(3, 64, 80, generator=generator))
    return folder


def test_photos_that_share_nothing_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"Only \d of 4 photos fit together: take more photos") as error:
        reconstruct(noise(tmp_path / "photos", 4), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_too_few_photos(tmp_path):
    with pytest.raises(InputError, match="has 2 photos that can be read"):
        reconstruct(noise(tmp_path / "photos", 2), tmp_path / "out")


def test_results_never_lie_over_photos_and_other_files(tmp_path):
    folder = noise(tmp_path / "photos", 3)
    before = sorted(folder.iterdir())
    for out in (folder, tmp_path):
        with pytest.raises(InputError):
            reconstruct(folder, out)
    assert sorted(folder.iterdir()) == before and list(tmp_path.iterdir()) == [folder]


def test_a_mask_without_photo_is_named(tmp_path):
    folder, masks = noise(tmp_path / "photos", 3), noise(tmp_path / "masks", 5)
    with pytest.raises(InputError, match="3.png is a mask without"):
        prepare_photos(folder, tmp_path / "out", masks=masks)


def test_a_photo_that_cannot_be_read_may_have_a_mask(tmp_path, capsys):
    folder, masks = noise(tmp_path / "photos", 4), noise(tmp_path / "masks", 4)
    (folder / "1.png").write_bytes(b"")
    assert len(prepare_photos(folder, tmp_path / "out", masks=masks)) == 3
    assert "1.png is left out" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 3


def test_prepared_photos_are_listed(tmp_path):
    listed = prepare_photos(noise(tmp_path / "photos", 3), tmp_path / "out", longest=40)
    assert [photo.name for photo in listed] == ["0.png", "1.png", "2.png"]
    assert {photo.size for photo in listed} == {(40, 32)}
    rows = json.loads((tmp_path / "out" / "photos" / "photos.json").read_text())
    assert [row["file"] for row in rows] == [photo.file for photo in listed]
    assert all(read_image(tmp_path / "out" / "photos" / photo.file).shape == (3, 32, 40) for photo in listed)


def test_an_unknown_way_of_matching(tmp_path):
    with pytest.raises(InputError, match="exhaustive or sequential"):
        reconstruct(noise(tmp_path / "photos", 3), tmp_path / "out", matching="all")
