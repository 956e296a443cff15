"""Scene folders: what a sample holds, ground truth at a quarter of the size, and broken folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mvsnet_edu.camera import project
from mvsnet_edu.data.formats import Camera, write_cam, write_image, write_pair, write_pfm
from mvsnet_edu.data.scene import Scene, write_scene
from mvsnet_edu.errors import InputError

IDS = (3, 5, 20, 21)  # not contiguous, as in real scenes
PAIRS = {3: [(20, 9.5), (5, 7.0), (21, 1.25)], 5: [(3, 7.0)], 20: []}


def camera_of(view: int, size: tuple[int, int], num: int | None = 8) -> Camera:
    width, height = size
    extrinsics = torch.eye(4, dtype=torch.float64)
    extrinsics[:3, 3] = torch.tensor([0.1 * view, -0.02 * view, 0.3])
    intrinsics = torch.tensor(
        [[50.0, 0, width / 2 + 1], [0, 55.0, height / 2 - 2], [0, 0, 1]], dtype=torch.float64
    )
    return Camera(extrinsics, intrinsics, 2.0 + 0.01 * view, 0.5, num)


def image_of(view: int, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(view)
    return torch.randint(0, 256, (3, size[1], size[0]), generator=generator).float() / 255


def index_map(size: tuple[int, int]) -> torch.Tensor:
    """Pixel (x, y) holds 1 + x + 1000 y, so that a value tells where it came from."""
    x, y = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="xy")
    return (1 + x + 1000 * y).float()


@pytest.fixture
def make(tmp_path):
    def make(size=(24, 16), depths=None, num=8, pairs=PAIRS) -> Scene:
        images, cameras = (
            {view: f(view) for view in IDS}
            for f in (lambda v: image_of(v, size), lambda v: camera_of(v, size, num))
        )
        return write_scene(tmp_path / "scene", images, cameras, pairs, depths, suffix=".png")

    return make


# reading


def test_views_and_sources_keep_their_numbers(make):
    scene = make()
    assert scene.views == [3, 5, 20, 21]
    assert scene.references == [3, 5]
    assert scene.sources(3) == [20, 5, 21] and scene.sources(3, 2) == [20, 5]
    assert scene.sources(20) == [] and scene.sources(21) == []


def test_image_camera_and_depth_of_one_view(make):
    scene = make(depths={5: index_map((24, 16))})
    assert torch.equal(scene.image(5), image_of(5, (24, 16)))
    assert torch.equal(scene.camera(5).extrinsics, camera_of(5, (24, 16)).extrinsics)
    assert torch.equal(scene.depth(5), index_map((24, 16))) and scene.depth(3) is None
    for part in (scene.image, scene.camera, scene.depth, scene.sources):
        with pytest.raises(InputError, match="has no view 4"):
            part(4)


def test_sample_has_the_reference_first_and_batched_float32(make):
    scene = make()
    sample = scene.sample(3, num_sources=2)
    assert sample.views == [3, 20, 5]
    assert sample.images.shape == (1, 3, 3, 16, 24) and sample.images.is_contiguous()
    for i, view in enumerate(sample.views):
        assert torch.equal(sample.images[0, i], image_of(view, (24, 16)))
        assert torch.equal(sample.intrinsics[0, i], camera_of(view, (24, 16)).intrinsics.float())
        assert torch.equal(sample.extrinsics[0, i], camera_of(view, (24, 16)).extrinsics.float())
    torch.testing.assert_close(sample.depth_values, 2.03 + 0.5 * torch.arange(8.0)[None])
    torch.testing.assert_close(sample.depth_interval, torch.tensor([0.5]))
    assert sample.ground_truth is None
    tensors = [value for value in vars(sample).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 5 and all(tensor.dtype == torch.float32 for tensor in tensors)


def test_fewer_sources_than_asked_for_are_not_padded(make):
    assert make().sample(5, num_sources=4).views == [5, 3]


def test_a_view_without_sources_has_no_sample(make):
    scene = make()
    for view in (20, 21):
        with pytest.raises(InputError, match=f"pair.txt has no source for view {view}"):
            scene.sample(view, num_sources=2)
    with pytest.raises(InputError, match="at least one source"):
        scene.sample(3, num_sources=0)


def test_other_number_of_planes_over_the_same_range(make):
    sample = make().sample(3, num_sources=1, depth_num=15)
    torch.testing.assert_close(sample.depth_values, torch.linspace(2.03, 2.03 + 7 * 0.5, 15)[None])
    torch.testing.assert_close(sample.depth_interval, torch.tensor([0.25]))


def test_number_of_planes_must_come_from_somewhere(make):
    scene = make(num=None)
    with pytest.raises(InputError, match="00000003_cam.txt does not say how many depth planes"):
        scene.sample(3, num_sources=1)
    assert scene.sample(3, num_sources=1, depth_num=4).depth_values.shape == (1, 4)


def test_resized_cameras_project_to_the_resized_pixels(make):
    scene = make(size=(24, 16))
    sample, full = scene.sample(3, 2, size=(60, 20)), scene.sample(3, 2)
    assert sample.images.shape == (1, 3, 3, 20, 60)
    points = torch.randn(1, 3, 10, 3) + torch.tensor([0.0, 0, 9])
    pixels, depth = project(points, sample.intrinsics, sample.extrinsics)
    expected, expected_depth = project(points, full.intrinsics, full.extrinsics)
    torch.testing.assert_close(pixels, expected * torch.tensor([60 / 24, 20 / 16]))
    assert torch.equal(depth, expected_depth)


def test_resized_images_are_antialiased_and_stay_in_place(tmp_path):
    stripes, ramp = torch.zeros(3, 16, 32), torch.linspace(0, 1, 32).expand(3, 16, 32)
    stripes[:, :, ::4] = 1  # without a low-pass filter the small image would miss them
    cameras = {view: camera_of(view, (32, 16)) for view in (0, 1)}
    scene = write_scene(tmp_path / "s", {0: stripes, 1: ramp}, cameras, {0: [(1, 1.0)]}, suffix=".png")
    small = scene.sample(0, 1, size=(8, 4)).images[0]
    torch.testing.assert_close(small[0, :, :, 1:-1], torch.full((3, 4, 6), 0.25), atol=0.02, rtol=0)
    means = ramp.unfold(2, 4, 4).mean(-1)[:, ::4]  # a pixel of the small image covers four of the large one
    torch.testing.assert_close(small[1, :, :, 1:-1], means[:, :, 1:-1], atol=0.01, rtol=0)


def test_sample_moves_to_a_device(make):
    sample = make(depths={3: index_map((24, 16))}).sample(3, 1).to("meta")
    assert {v.device.type for v in vars(sample).values() if isinstance(v, torch.Tensor)} == {"meta"}
    assert sample.views == [3, 20]


# ground truth


@pytest.mark.parametrize("size", [(24, 16), (27, 18), (25, 19), (30, 21)])
def test_ground_truth_of_full_size_is_picked_at_the_quarter_pixels_centres(make, size):
    truth = make(size=size, depths={3: index_map(size)}).sample(3, 1).ground_truth
    W, H = size
    x, y = torch.meshgrid(torch.arange(W // 4), torch.arange(H // 4), indexing="xy")
    assert torch.equal(truth, (1 + (4 * x + 2) + 1000 * (4 * y + 2)).float()[None])


@pytest.mark.parametrize(("size", "stored"), [((24, 16), (6, 4)), ((27, 18), (6, 4)), ((27, 18), (7, 5))])
def test_ground_truth_at_a_quarter_is_taken_as_it_is(make, size, stored):
    truth = make(size=size, depths={3: index_map(stored)}).sample(3, 1).ground_truth
    assert torch.equal(truth[0], index_map(stored)[: size[1] // 4, : size[0] // 4])


@pytest.mark.parametrize("stored", [(48, 32), (12, 8)])
@pytest.mark.parametrize("size", [(24, 16), (32, 32), (96, 64), (17, 50)])
def test_ground_truth_follows_the_resized_image(make, stored, size):
    sample = make(size=(48, 32), depths={3: index_map(stored)}).sample(3, 1, size=size)
    for row in range(size[1] // 4):
        for column in range(size[0] // 4):
            x, y = 4 * (column + 0.5) / size[0] * stored[0], 4 * (row + 0.5) / size[1] * stored[1]
            x, y = min(int(x + 1e-9), stored[0] - 1), min(int(y + 1e-9), stored[1] - 1)
            assert sample.ground_truth[0, row, column] == 1 + x + 1000 * y


def test_ground_truth_at_a_quarter_rounded_down_is_enlarged_to_its_last_pixel(make):
    truth = make(size=(27, 18), depths={3: index_map((6, 4))}).sample(3, 1, size=(40, 40)).ground_truth[0]
    assert truth.shape == (10, 10) and truth[0, 0] == 1 and truth[9, 9] == 6 + 3000


def test_ground_truth_is_never_a_mean(make):
    depth = torch.where(torch.rand(16, 24) < 0.5, 2.0, 100.0)
    truth = make(depths={3: depth}).sample(3, 1, size=(36, 28)).ground_truth
    assert set(truth.flatten().tolist()) <= {2.0, 100.0}


def test_what_was_not_measured_is_zero(make):
    depth = torch.full((4, 6), 7.0)
    depth[0, 1], depth[1, 2], depth[2, 3], depth[3, 4] = torch.nan, torch.inf, -torch.inf, 0
    truth = make(depths={3: depth}).sample(3, 1).ground_truth[0]
    assert [truth[i, i + 1].item() for i in range(4)] == [0, 0, 0, 0]
    assert (truth == 7).sum() == 20


# broken scenes


def broken(scene: Scene, says: str, *names: str) -> None:
    with pytest.raises(InputError) as error:
        Scene.open(scene.folder).sample(3, num_sources=3)
    message = str(error.value)
    assert says in message and all(name in message for name in names), message


def test_no_scene_at_all(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="images has no images named like 00000000.jpg"):
            Scene.open(folder)


def test_missing_parts_are_named_on_opening(make):
    scene = make()
    (scene.folder / "cams" / "00000020_cam.txt").rename(scene.folder / "spare")
    with pytest.raises(InputError, match="00000020_cam.txt is missing"):
        Scene.open(scene.folder)
    (scene.folder / "spare").rename(scene.folder / "cams" / "00000020_cam.txt")
    (scene.folder / "images" / "00000021.png").unlink()
    with pytest.raises(InputError, match="pair.txt names view 21, but there is no image 00000021"):
        Scene.open(scene.folder)
    (scene.folder / "pair.txt").unlink()
    with pytest.raises(InputError, match="pair.txt cannot be read"):
        Scene.open(scene.folder)


def test_pairs_may_name_an_absent_reference_too(make):
    scene = make()
    write_pair(scene.folder / "pair.txt", {4: [(3, 1.0)]})
    broken(scene, "names view 4", "pair.txt")


def test_files_that_are_no_images_are_named_on_opening(make):
    scene = make()
    (scene.folder / "images" / "00000005.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="00000005.png is not an image"):
        Scene.open(scene.folder)


def test_other_files_in_the_folder_do_no_harm_but_two_images_of_a_view_do(make):
    scene = make()
    for name in ("Thumbs.db", "5.png", "00000005.txt", "000000005.png"):
        (scene.folder / "images" / name).write_bytes(b"")
    assert Scene.open(scene.folder).views == [3, 5, 20, 21]
    shutil.copy(scene.folder / "images" / "00000005.png", scene.folder / "images" / "00000005.JPG")
    broken(scene, "two images of one view", "00000005.png", "00000005.JPG")


def test_broken_camera_and_truncated_image_are_named(make):
    scene = make()
    path = scene.folder / "images" / "00000020.png"
    path.write_bytes(path.read_bytes()[:500])
    broken(scene, "cannot be read as an image", "00000020.png")
    (scene.folder / "cams" / "00000021_cam.txt").write_text("extrinsic")
    broken(scene, "1 words", "00000021_cam.txt")


def test_images_of_two_sizes_are_both_named(make):
    scene = make()
    write_image(scene.folder / "images" / "00000005.png", image_of(5, (24, 20)))
    broken(scene, "24 x 20", "00000005.png", "00000003.png", "24 x 16")
    assert Scene.open(scene.folder).sample(3, num_sources=1).views == [3, 20]


@pytest.mark.parametrize("size", [(12, 8), (16, 24), (6, 5), (5, 4)])
def test_depth_of_another_size_is_named(make, size):
    broken(make(depths={3: index_map(size)}), f"{size[0]} x {size[1]}", "00000003.pfm")


def test_truncated_and_colour_depth_are_named(make):
    scene = make(depths={3: index_map((6, 4))})
    path = scene.folder / "depths" / "00000003.pfm"
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        broken(scene, "00000003.pfm")
    path.write_bytes(b"PF\n1 1\n-1\n" + bytes(12))
    broken(scene, "colour", "00000003.pfm")


@pytest.mark.parametrize("size", [(3, 16), (24, 0), (-8, -8)])
def test_sizes_without_a_depth_map(make, size):
    with pytest.raises(InputError, match="too small"):
        make().sample(3, 1, size=size)


# writing


def test_write_scene_fills_an_empty_folder_and_no_other(make, tmp_path):
    (tmp_path / "scene").mkdir()
    before = {path: path.read_bytes() for path in make().folder.rglob("*") if path.is_file()}
    assert len(before) == 2 * len(IDS) + 1
    with pytest.raises(InputError, match="scene is not empty"):
        make(size=(32, 32))
    assert {path: path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()} == before


def test_a_failed_write_leaves_nothing(tmp_path):
    images, cameras = (
        {0: torch.zeros(3, 8, 8), 1: torch.zeros(8)},
        {view: camera_of(view, (8, 8)) for view in (0, 1)},
    )
    with pytest.raises(RuntimeError):
        write_scene(tmp_path / "scene", images, cameras, {0: [(1, 1.0)]})
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        write_scene(tmp_path / "file" / "scene", {0: images[0]}, {0: cameras[0]}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("images", "cameras", "pairs", "depths"),
    [
        ([0, 1], [0], {}, []),
        ([0], [0, 1], {}, []),
        ([], [], {}, []),
        ([0], [0], {1: []}, []),
        ([0], [0], {0: [(1, 1.0)]}, []),
        ([0], [0], {}, [1]),
    ],
)
def test_write_scene_refuses_views_that_do_not_fit(tmp_path, images, cameras, pairs, depths):
    size = (8, 8)
    with pytest.raises(ValueError, match="view"):
        write_scene(
            tmp_path / "scene",
            {view: image_of(view, size) for view in images},
            {view: camera_of(view, size) for view in cameras},
            pairs,
            {view: index_map(size) for view in depths},
        )
    assert not list(tmp_path.iterdir())


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        images, cameras = {v: image_of(v, (24, 16)) for v in IDS}, {v: camera_of(v, (24, 16)) for v in IDS}
        write_scene(tmp_path / name, images, cameras, PAIRS, {3: index_map((24, 16))})
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 2 * len(IDS) + 2
    assert all(
        (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files
    )


def test_a_scene_of_single_files_is_a_scene(tmp_path):
    for view in (0, 1):
        write_image(tmp_path / "images" / f"{view:08d}.jpg", image_of(view, (24, 16)))
        write_cam(tmp_path / "cams" / f"{view:08d}_cam.txt", camera_of(view, (24, 16)))
    write_pair(tmp_path / "pair.txt", {0: [(1, 1.0)], 1: [(0, 1.0)]})
    write_pfm(tmp_path / "depths" / "00000001.pfm", index_map((24, 16)))
    scene = Scene.open(tmp_path)
    assert scene.references == [0, 1]
    assert scene.sample(1, 1).ground_truth.shape == (1, 4, 6) and scene.sample(0, 1).ground_truth is None
