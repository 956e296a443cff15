"""BlendedMVS's layout, on a tiny tree with two scenes of different sizes and depth ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plane_scenes import cam_text, check_cameras, pair_text, pfm_bytes, plane_depth, plane_image, write

from mvsnet_edu.data.blendedmvs import BlendedMVS
from mvsnet_edu.errors import InputError

CASTLE, SHIP = "5c1f33f1d33e1f2e4aa6dda4", "59d2657f82ca7774b1ec081d"
SIZES = {CASTLE: (96, 64), SHIP: (80, 64)}
PAIRS = {CASTLE: {0: [2, 5, 7], 2: [7, 0], 5: [2, 0], 7: [0]}, SHIP: {1: [0, 3], 0: [], 3: [1, 0]}}
RANGES = {CASTLE: "500.0 2.0 128 756.0", SHIP: "480.0 1.5 128.0 672.0"}
BLUE_MASKED, BLUE_PLAIN = 200, 40


@pytest.fixture
def root(tmp_path):
    for name, pairs in PAIRS.items():
        write(tmp_path / name / "cams" / "pair.txt", pair_text(pairs))
        for view in pairs:
            put_camera(tmp_path, view, name=name)
            images = tmp_path / name / "blended_images"
            write(images / f"{view:08d}.jpg", plane_image(view, SIZES[name], BLUE_PLAIN))
            write(images / f"{view:08d}_masked.jpg", plane_image(view, SIZES[name], BLUE_MASKED))
            put_depth(tmp_path, plane_depth(view, SIZES[name]), view, name)
    write(tmp_path / "BlendedMVS_training.txt", f"{CASTLE}\n")
    write(tmp_path / "validation_list.txt", f"{SHIP}\n\n")
    return tmp_path


def put_camera(root, view: int, tail: str | None = None, name: str = CASTLE) -> None:
    path = root / name / "cams" / f"{view:08d}_cam.txt"
    write(path, cam_text(view, SIZES[name], tail or RANGES[name]))


def put_depth(root, depth: np.ndarray, view: int = 0, name: str = CASTLE) -> None:
    write(root / name / "rendered_depth_maps" / f"{view:08d}.pfm", pfm_bytes(depth))


def index_map(size: tuple[int, int], base: float) -> np.ndarray:
    """Pixel (x, y) holds base + x + y / 64: exact in float32, and it tells where it came from."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return (base + x + y / 64).astype(np.float32)


def test_each_list_has_its_scenes_and_references_with_too_few_sources_are_left_out(root):
    train, validation = BlendedMVS(root, views=3), BlendedMVS(root, "val", views=3)
    assert [train[k].views for k in range(len(train))] == [[0, 2, 5], [2, 7, 0], [5, 2, 0]]
    assert [validation[k].views for k in range(len(validation))] == [[1, 0, 3], [3, 1, 0]]
    assert (train.left_out, validation.left_out) == (1, 1)
    assert len(BlendedMVS(root, views=2)) == 4 and len(BlendedMVS(root, views=4)) == 1


def test_other_lists_and_the_older_name_of_the_training_list(root):
    write(root / "BlendedMVG_training.txt", f"{SHIP}\n{CASTLE}\n")
    both = BlendedMVS(root, "BlendedMVG_training.txt", views=3)
    assert [both[k].images.shape[-1] for k in range(len(both))] == [80, 80, 96, 96, 96]
    (root / "BlendedMVS_training.txt").rename(root / "training_list.txt")
    assert len(BlendedMVS(root, "train", views=3)) == 3


@pytest.mark.parametrize(("masked", "blue"), [(True, BLUE_MASKED), (False, BLUE_PLAIN)])
def test_images_with_and_without_background(root, masked, blue):
    images = BlendedMVS(root, views=4, masked=masked)[0].images
    assert images.shape == (1, 4, 3, 64, 96)
    assert (images[:, :, 2] * 255 - blue).abs().mean() < 4  # JPEG


def test_the_planes_reach_over_the_range_of_the_reference(root):
    put_camera(root, 2, "510.0 3.0 101 810.0")
    samples = BlendedMVS(root, views=3, depth_num=32)
    for sample, (near, far) in zip(samples, [(500, 754), (510, 810), (500, 754)], strict=False):
        torch.testing.assert_close(sample.depth_values, torch.linspace(near, far, 32)[None])
        torch.testing.assert_close(sample.depth_interval, torch.tensor([(far - near) / 31]))


@pytest.mark.parametrize("size", [None, (48, 32), (192, 96)])
def test_the_cameras_fit_the_images(root, size):
    check_cameras(BlendedMVS(root, views=4, size=size)[0])


def test_depth_is_picked_at_the_quarter_pixels_centres_and_never_mixed(root):
    put_depth(root, index_map((96, 64), 550))
    truth = BlendedMVS(root, views=3)[0].ground_truth[0].numpy()
    np.testing.assert_array_equal(truth, index_map((96, 64), 550)[2::4, 2::4])
    checks = np.where(np.indices((64, 96)).sum(0) % 2, 700, 0).astype(np.float32)  # bilinear would give 350
    put_depth(root, checks)
    for size in (None, (48, 32), (60, 44)):
        truth = BlendedMVS(root, views=3, size=size)[0].ground_truth
        assert set(truth.unique().tolist()) <= {0.0, 700.0}


def test_depth_beyond_the_planes_does_not_count(root):
    depth = np.full((64, 96), 600, np.float32)
    depth[2::4, 2::4][:4, 0] = [499, 502, 502.1, 754.1]  # the planes: 500, 502, ..., 752, 754
    depth[2::4, 2::4][:3, 1] = [752, 752.1, 0]
    put_depth(root, depth)
    truth = BlendedMVS(root, views=3, depth_num=128)[0].ground_truth[0]
    torch.testing.assert_close(truth[:4, 0], torch.tensor([0, 0, 502.1, 0]))
    torch.testing.assert_close(truth[:3, 1], torch.tensor([752.0, 0, 0]))


@pytest.mark.parametrize(
    "tail", ["0.0 2.0 128 254.0", "-3.5 2.0 128 250.5", "500.0 -1 128 0", "500 0 128 500"]
)
def test_a_reference_without_a_usable_range_is_left_out_but_stays_a_source(root, tail):
    put_camera(root, 2, tail)
    samples = BlendedMVS(root, views=3)
    assert [sample.views for sample in (samples[0], samples[1])] == [[0, 2, 5], [5, 2, 0]]
    assert len(samples) == 2 and samples.left_out == 2


def test_depth_maps_and_images_that_show_nothing_are_samples_too(root):
    put_depth(root, np.zeros((64, 96), np.float32))
    write(root / CASTLE / "blended_images" / "00000000_masked.jpg", np.zeros((64, 96, 3), np.uint8))
    sample = BlendedMVS(root, views=3)[0]
    assert not sample.ground_truth.any() and not sample.images[0, 0].any()


@pytest.mark.parametrize(
    "path",
    [
        f"{CASTLE}/cams/pair.txt",
        f"{CASTLE}/cams/00000007_cam.txt",
        f"{CASTLE}/blended_images/00000005_masked.jpg",
        f"{CASTLE}/rendered_depth_maps/00000005.pfm",
        "BlendedMVS_training.txt",
    ],
)
def test_a_missing_file_is_named_at_once(root, path):
    (root / path).unlink()
    with pytest.raises(InputError, match=path):
        BlendedMVS(root)


def test_broken_lists_are_named(root):
    broken = {
        "": "lists no scenes",
        b"\xff\xfe\x00": "cannot be read",
        f"{SHIP} x1": "lists the scene x1, but",
    }
    for content, message in broken.items():
        write(root / "validation_list.txt", content)
        with pytest.raises(InputError, match=f"validation_list.txt {message}"):
            BlendedMVS(root, "val")
    with pytest.raises(InputError, match="training cannot be read"):
        BlendedMVS(root, "training")


@pytest.mark.parametrize("shape", [(64, 95), (32, 48), (576, 768)])
def test_a_depth_map_of_another_size_is_named(root, shape):
    put_depth(root, np.full(shape, 600, np.float32))
    with pytest.raises(InputError, match=f"{CASTLE}/rendered_depth_maps/00000000.pfm is .* pixels"):
        BlendedMVS(root)[0]


def test_a_broken_camera_is_named_at_once_though_its_range_may_be_odd(root):
    put_camera(root, 7, "500.0")
    with pytest.raises(InputError, match="00000007_cam.txt has 28 words"):
        BlendedMVS(root)
    put_camera(root, 7, "0 0 0 nan")
    with pytest.raises(InputError, match="00000007_cam.txt has the number nan"):
        BlendedMVS(root)
