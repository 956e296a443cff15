"""DTU's training layout, on a tiny tree with two scans, other sizes and view numbers with gaps."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from plane_scenes import cam_text, check_cameras, pair_text, pfm_bytes, plane_depth, plane_image, write

from mvsnet_edu.data.dtu import DTU, LIGHTS, SCANS
from mvsnet_edu.errors import InputError

SIZE = (96, 64)
PAIRS = {0: [3, 1, 4], 3: [0, 4, 1], 1: [0, 3], 4: [3]}  # neither sorted nor without gaps
PLANES = 32  # 16 mm apart: 425, 441, ..., 921


def blue_of(scan: int, light: int) -> int:
    return 10 * scan + light


@pytest.fixture
def root(tmp_path):
    """Scans 2 and 6 for training, 3 to validate (under light 3 only)."""
    W, H = SIZE
    write(tmp_path / "Cameras" / "pair.txt", pair_text(PAIRS))
    for view in PAIRS:
        text = cam_text(view, (W // 4, H // 4), "425.0 2.5")
        write(tmp_path / "Cameras" / "train" / f"{view:08d}_cam.txt", text)
        for scan, lights in {2: range(7), 6: range(7), 3: [3]}.items():
            depth = pfm_bytes(plane_depth(view, SIZE, 4))
            write(tmp_path / "Depths" / f"scan{scan}_train" / f"depth_map_{view:04d}.pfm", depth)
            for light in lights:
                name = f"rect_{view + 1:03d}_{light}_r5000.png"
                image = plane_image(view, SIZE, blue_of(scan, light))
                write(tmp_path / "Rectified" / f"scan{scan}_train" / name, image)
    return tmp_path


@pytest.fixture
def dtu(root):
    return lambda **keywords: DTU(root, **{"scans": (2, 6), "depth_num": PLANES, **keywords})


def put_depth(root, depth: np.ndarray, view: int = 0, scan: int = 2) -> None:
    write(root / "Depths" / f"scan{scan}_train" / f"depth_map_{view:04d}.pfm", pfm_bytes(depth))


def test_the_parts_have_the_published_sizes_and_share_no_scan():
    assert {part: len(scans) for part, scans in SCANS.items()} == {"train": 79, "val": 18, "test": 22}
    everything = [scan for scans in SCANS.values() for scan in scans]
    assert len(set(everything)) == 119 and set(everything) <= set(range(1, 129))
    assert len(SCANS["train"]) * len(LIGHTS["train"]) * 49 == 27_097
    assert LIGHTS["train"] == (0, 1, 2, 3, 4, 5, 6) and LIGHTS["val"] == LIGHTS["test"] == (3,)
    assert {1, 9, 118} <= set(SCANS["test"]) and {3, 117} <= set(SCANS["val"])  # as everyone reports them


def test_one_sample_for_each_scan_light_and_reference(dtu):
    samples = dtu(views=3)
    assert len(samples) == 2 * 7 * 3 and samples.left_out == 2 * 7  # view 4 has a single source
    seen = [
        (round(s.images[0, 0, 2, 0, 0].item() * 255), s.views) for s in map(samples.__getitem__, range(42))
    ]
    views = ([0, 3, 1], [1, 0, 3], [3, 0, 4])
    assert seen == [(blue_of(scan, light), v) for scan in (2, 6) for light in range(7) for v in views]


def test_all_images_of_a_sample_are_under_one_light(dtu):
    blue = dtu(views=3)[5].images[0, :, 2] * 255
    torch.testing.assert_close(blue, torch.full_like(blue, blue_of(2, 1)), atol=1e-3, rtol=0)


def test_validation_uses_light_3_only(root):
    samples = DTU(root, "val", views=2, depth_num=PLANES, scans=[3])
    assert len(samples) == 4 and samples.left_out == 0
    assert samples[3].views == [4, 3]


def test_a_sample_is_a_batch_of_one_in_float32(dtu):
    W, H = SIZE
    sample = dtu(views=4)[0]
    assert sample.views == [0, 3, 1, 4]
    assert sample.images.shape == (1, 4, 3, H, W) and sample.ground_truth.shape == (1, H // 4, W // 4)
    assert sample.intrinsics.shape == (1, 4, 3, 3) and sample.extrinsics.shape == (1, 4, 4, 4)
    tensors = [value for value in vars(sample).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6 and all(tensor.dtype == torch.float32 for tensor in tensors)
    assert torch.equal(sample.images[0, 1], torch.from_numpy(plane_image(3, SIZE, 20)).permute(2, 0, 1) / 255)


def test_the_cameras_fit_the_images(dtu):
    """Neither scaled too little, as the files have them, nor twice."""
    for sample in (dtu(views=4)[0], dtu(views=3, size=(128, 96))[1]):
        check_cameras(sample)
        _, V, _, H, W = sample.images.shape
        principal = sample.intrinsics[0, :, :2, 2] / torch.tensor([W, H])
        torch.testing.assert_close(principal, torch.tensor([0.53, 0.45]).expand(V, 2))


def test_exactly_d_planes_from_425_to_one_interval_before_937(dtu):
    for num in (32, 128, 192, 256):
        sample = dtu(depth_num=num)[0]
        assert sample.depth_values.shape == (1, num)
        expected = 425 + 512 / num * np.arange(num)
        np.testing.assert_allclose(sample.depth_values[0].numpy(), expected, rtol=1e-6)
        torch.testing.assert_close(sample.depth_interval, torch.tensor([512 / num]))
        assert sample.depth_values[0, -1].item() == pytest.approx(937 - 512 / num)


def test_ground_truth_counts_between_the_second_plane_and_the_last_but_one(root, dtu):
    W, H = SIZE
    depth = np.full((H // 4, W // 4), 600, np.float32)
    values = {(0, 0): 0.0, (0, 1): 441.0, (0, 2): 441.001, (3, 5): 905.0, (4, 5): 905.01, (5, 5): 1092.0}
    values |= {(6, 0): np.nan, (6, 1): np.inf, (6, 2): -500.0, (15, 23): 425.5}
    for place, value in values.items():
        depth[place] = value
    put_depth(root, depth)
    truth = dtu()[0].ground_truth[0].numpy()
    kept = {(0, 2), (3, 5)}  # 441 itself is not, 905 = 425 + 30 x 16 is
    expected = np.where(
        np.isin(np.arange(depth.size).reshape(depth.shape), _flat(values, kept, W // 4)), 0, depth
    )
    np.testing.assert_array_equal(truth, expected)


def _flat(values, kept, width) -> list[int]:
    return [row * width + column for row, column in values if (row, column) not in kept]


def test_the_same_number_gives_the_same_bits(dtu):
    samples = dtu()
    torch.manual_seed(1)
    first = samples[17]
    torch.manual_seed(2)
    for again in (
        samples[17],
        dtu()[17],
        samples[17 - len(samples)],
        pickle.loads(pickle.dumps(samples))[17],
    ):
        assert again.views == first.views
        for name in ("images", "intrinsics", "extrinsics", "depth_values", "ground_truth"):
            assert torch.equal(getattr(again, name), getattr(first, name))
    with pytest.raises(IndexError):
        samples[len(samples)]


@pytest.mark.parametrize(
    "path",
    [
        "Cameras/pair.txt",
        "Cameras/train/00000003_cam.txt",
        "Rectified/scan6_train/rect_004_5_r5000.png",
        "Depths/scan6_train/depth_map_0003.pfm",
    ],
)
def test_a_missing_file_is_named_at_once(root, dtu, path):
    (root / path).unlink()
    with pytest.raises(InputError, match=path):
        dtu()


def test_a_missing_scan_is_named(dtu):
    with pytest.raises(InputError, match="Rectified/scan7_train/rect_001_0_r5000.png is missing"):
        dtu(scans=(2, 7))


def test_a_truncated_depth_map_is_named(root, dtu):
    path = root / "Depths" / "scan2_train" / "depth_map_0000.pfm"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="depth_map_0000.pfm has .* bytes"):
        dtu()[0]


@pytest.mark.parametrize("shape", [(15, 24), (24, 16), (32, 48)])
def test_a_depth_map_of_another_size_is_named(root, dtu, shape):
    put_depth(root, np.full(shape, 600, np.float32))
    with pytest.raises(InputError, match="depth_map_0000.pfm is .* pixels"):
        dtu()[0]


def test_an_image_of_another_size_is_named(root, dtu):
    write(root / "Rectified/scan2_train/rect_004_0_r5000.png", plane_image(3, (92, 64)))
    with pytest.raises(InputError, match="rect_004_0_r5000.png is 92 x 64 pixels"):
        dtu()[0]


def test_a_broken_image_is_named(root, dtu):
    write(root / "Rectified/scan2_train/rect_004_0_r5000.png", b"\x89PNG")
    with pytest.raises(InputError, match="rect_004_0_r5000.png"):
        dtu()[0]


def test_an_unknown_part_is_refused(dtu):
    with pytest.raises(InputError, match="train, val, test, but not 'training'"):
        dtu(split="training")


def test_more_views_than_any_reference_has_are_refused(dtu):
    with pytest.raises(InputError, match="scan2_train has no view with 4 sources"):
        dtu(views=5)
    assert len(dtu(views=4)) == 2 * 7 * 2
