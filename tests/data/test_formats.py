"""cam.txt, pair.txt, PFM and images: literal files, round trips, and the ways a file can be broken."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from full_disk import no_room_beyond
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from mvsnet_edu.data import formats
from mvsnet_edu.data.formats import (
    Camera,
    atomic_write,
    image_size,
    read_cam,
    read_image,
    read_pair,
    read_pfm,
    write_cam,
    write_image,
    write_pair,
    write_pfm,
)
from mvsnet_edu.errors import InputError

CAM = """extrinsic
0.0 -1.0 0.0 0.5
1.0 0.0 0.0 -2.0
0.0 0.0 1.0 3.25
0.0 0.0 0.0 1.0

intrinsic
361.5 0.0 82.9
0.0 360.25 66.4
0.0 0.0 1.0

425.0 2.5"""

finite = st.floats(-1e6, 1e6, allow_nan=False)
examples = settings(max_examples=40, deadline=None)


def cuts(content: bytes) -> range:
    """About 200 lengths, always with 0 and the last byte but one."""
    return range(len(content) - 1, -1, -max(1, len(content) // 200))


def random_camera(seed: int, **depth) -> Camera:
    generator = torch.Generator().manual_seed(seed)
    extrinsics = torch.eye(4, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    extrinsics[:3, :3] = q * torch.linalg.det(q)
    extrinsics[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64)
    intrinsics = torch.tensor([[500.1, 0.3, 320 / 7], [0, 501.7, 240.5], [0, 0, 1]], dtype=torch.float64)
    return Camera(extrinsics, intrinsics, **depth)


# cam.txt


def test_cam_with_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "00000000_cam.txt"
    path.write_bytes(b"\xef\xbb\xbf" + CAM.replace("\n", "\r\n").encode())
    assert read_cam(path).intrinsics[0, 2] == 82.9


@examples
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6), st.floats(1e-9, 1e3), st.none() | st.integers(2, 512))
def test_cam_round_trip_is_exact(tmp_path_factory, seed, depth_min, interval, num):
    path = tmp_path_factory.mktemp("cam") / "cam.txt"
    camera = random_camera(seed, depth_min=depth_min, depth_interval=interval, depth_num=num)
    if num is not None and camera.depth_max == depth_min:
        return  # an interval below the rounding of the minimum is no depth range
    write_cam(path, camera)
    back = read_cam(path)
    assert torch.equal(back.extrinsics, camera.extrinsics)
    assert torch.equal(back.intrinsics, camera.intrinsics)
    assert [back.depth_min, back.depth_interval, back.depth_num, back.depth_max] == [
        camera.depth_min,
        camera.depth_interval,
        camera.depth_num,
        camera.depth_max,
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("361.5", "nan", "not finite"),
        ("361.5", "-inf", "not finite"),
        ("361.5", "361,5", "'361,5'"),
        ("361.5", "0.0", "singular"),
        ("extrinsic", "matrix", "lacks the words"),
        ("intrinsic\n361.5", "361.5\nintrinsic", "lacks the words"),
        ("0.0 -1.0 0.0 0.5", "0.0 -2.0 0.0 0.5", "not a rotation"),
        ("0.0 -1.0 0.0 0.5", "0.0 1.0 0.0 0.5", "mirrors"),
        ("0.0 0.0 0.0 1.0", "0.0 0.0 1.0 1.0", "last row"),
        ("66.4\n0.0 0.0 1.0", "66.4\n0.0 0.0 2.0", "last row"),
        ("425.0 2.5", "0.0 2.5", "minimum depth"),
        ("425.0 2.5", "-425.0 2.5", "minimum depth"),
        ("425.0 2.5", "425.0 0", "interval"),
        ("425.0 2.5", "425.0 -2.5", "interval"),
        ("425.0 2.5", "425.0 2.5 1", "planes"),
        ("425.0 2.5", "425.0 2.5 1e12", "planes"),
        ("425.0 2.5", "425.0 2.5 192 100", "must grow"),
        ("425.0 2.5", "425.0", "28 words"),
        ("425.0 2.5", "425.0 2.5 192 902.5 1", "32 words"),
    ],
)
def test_broken_cam_is_named(tmp_path, old, new, says):
    path = tmp_path / "00000007_cam.txt"
    assert CAM.count(old) >= 1
    path.write_text(CAM.replace(old, new, 1) if old != "0.0 0.0 0.0 1.0" else new.join(CAM.split(old)))
    with pytest.raises(InputError, match="00000007_cam.txt") as error:
        read_cam(path)
    assert says in str(error.value)


def test_rotation_with_three_digits_passes(tmp_path):
    path = tmp_path / "cam.txt"
    rotated = CAM.replace("0.0 -1.0 0.0 0.5", "0.707 -0.707 0 0.5").replace(
        "1.0 0.0 0.0 -2.0", "0.707 0.707 0 -2"
    )
    path.write_text(rotated)
    assert read_cam(path).extrinsics[0, 0] == 0.707


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"\x00" * 50])
def test_cam_that_is_no_text(tmp_path, content):
    path = tmp_path / "cam.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cam.txt"):
        read_cam(path)


def test_truncated_cam(tmp_path):
    path = tmp_path / "cam.txt"
    for cut in range(len(CAM) - len(" 2.5") + 1):  # later cuts leave a shorter, valid number
        path.write_text(CAM[:cut])
        with pytest.raises(InputError, match="cam.txt"):
            read_cam(path)


@pytest.mark.parametrize("read", [read_cam, read_pair, read_pfm, read_image, image_size])
def test_missing_file_and_folder(tmp_path, read):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read(path)


@pytest.mark.parametrize("num", [2, 48, 96, 191, 192])
@pytest.mark.parametrize("interval", [1.06, 2.65, 0.1, 1 / 3])
def test_depth_values_are_exactly_that_many(num, interval):
    camera = random_camera(0, depth_min=425.0, depth_interval=interval, depth_num=num)
    expected = np.linspace(425.0, 425.0 + (num - 1) * interval, num)
    values = camera.depth_values()
    assert values.shape == (num,) and values.dtype == torch.float64
    np.testing.assert_allclose(values, expected, rtol=1e-14)
    assert values[-1].item() == pytest.approx(camera.depth_max, rel=1e-14)


def test_depth_values_resampled_over_the_same_range():
    camera = random_camera(0, depth_min=425.0, depth_interval=2.65, depth_num=192)
    for num in (2, 48, 191, 512):
        values = camera.depth_values(num)
        assert len(values) == num
        np.testing.assert_allclose(values[[0, -1]], [425.0, 425.0 + 191 * 2.65], rtol=1e-14)
        np.testing.assert_allclose(values.diff(), 191 * 2.65 / (num - 1), rtol=1e-9)


def test_depth_values_without_a_number():
    camera = random_camera(0, depth_min=425.0, depth_interval=2.5)
    assert camera.depth_values(3).tolist() == [425.0, 427.5, 430.0]
    for num in (None, 1, 0, -3, 10**12):
        with pytest.raises(InputError):
            camera.depth_values(num)


def test_scaled_camera_moves_every_projection_with_the_image():
    camera = random_camera(3, depth_min=1.0, depth_interval=0.1, depth_num=10)
    rays = torch.randn(3, 50, dtype=torch.float64)
    before, after = camera.intrinsics @ rays, camera.scaled(0.25, 2.0).intrinsics @ rays
    factor = torch.tensor([[0.25], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(after[:2] / after[2], factor * before[:2] / before[2])
    assert camera.scaled(0.25, 2.0).depth_max == camera.depth_max
    assert torch.equal(camera.scaled(0.25, 2.0).extrinsics, camera.extrinsics)


# pair.txt


@examples
@given(
    st.dictionaries(
        st.integers(0, 99),
        st.lists(st.tuples(st.integers(100, 999), finite), max_size=5, unique_by=lambda source: source[0]),
        max_size=5,
    )
)
def test_pair_round_trip(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("pair") / "pair.txt"
    write_pair(path, pairs)
    back = read_pair(path)
    assert list(back) == list(pairs)
    for ref, sources in pairs.items():
        assert [view for view, _ in back[ref]] == [view for view, _ in sources]
        np.testing.assert_allclose(
            [s for _, s in back[ref]], [s for _, s in sources], atol=0.5001e-4, rtol=1e-12
        )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begin with"),
        ("2 3\n0\n0\n", "begin with"),
        ("-1\n", "'-1'"),
        ("2\n0\n1 1 9.5\n", "announces 2 views"),
        ("1\n0\n1 1 9.5\n1\n0\n", "announces 1 views"),
        ("1\n0\n2 1 9.5\n", "announces 2 sources for view 0, but lists 1"),
        ("1\n0\n1 1 9.5 2 3.5\n", "announces 1 sources for view 0, but lists 2"),
        ("1\n0\n1 1\n", "lists 0.5"),
        ("1\n0 1\n1 1 9.5\n", "'0 1'"),
        ("1\n0\n1 x 9.5\n", "'x'"),
        ("1\n0\n1 1 nan\n", "not finite"),
        ("1\n0\n1 1 x\n", "'x'"),
        ("1\n0\n1 1.5 9.5\n", "'1.5'"),
        ("2\n0\n0\n0\n0\n", "view 0 twice"),
        ("1\n0\n2 1 9.5 1 9.5\n", "source of view 0 twice"),
        ("9999999999999\n", "'9999999999999'"),
    ],
)
def test_broken_pair_is_named(tmp_path, text, says):
    path = tmp_path / "pair.txt"
    path.write_text(text)
    with pytest.raises(InputError, match="pair.txt") as error:
        read_pair(path)
    assert says in str(error.value)


def test_truncated_pair(tmp_path):
    text = "3\n0\n2 1 9.5 2 8.5\n1\n1 0 9.5\n2\n1 0 8.5\n"
    path = tmp_path / "pair.txt"
    for cut in range(text.rindex(" ") + 1):  # later cuts leave a shorter, valid number
        path.write_text(text[:cut])
        with pytest.raises(InputError, match="pair.txt"):
            read_pair(path)


# PFM


def test_pfm_in_colour_and_with_other_white_space(tmp_path):
    path = tmp_path / "normals.pfm"
    path.write_bytes(b"PF 1\r\n2 -1\r\n" + struct.pack("<6f", 4, 5, 6, 1, 2, 3))
    assert read_pfm(path).tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


@examples
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_pfm_round_trip_is_exact(tmp_path_factory, depth):
    path = tmp_path_factory.mktemp("pfm") / "depth.pfm"
    write_pfm(path, depth)
    np.testing.assert_array_equal(read_pfm(path), depth)
    write_pfm(path, torch.from_numpy(depth).requires_grad_())
    np.testing.assert_array_equal(read_pfm(path), depth)


def test_truncated_and_overlong_pfm(tmp_path):
    path = tmp_path / "depth.pfm"
    write_pfm(path, np.random.default_rng(0).normal(size=(5, 7)))
    whole = path.read_bytes()
    for content in [*(whole[:cut] for cut in range(len(whole))), whole + b"\n", whole * 2]:
        path.write_bytes(content)
        with pytest.raises(InputError, match="depth.pfm"):
            read_pfm(path)


@pytest.mark.parametrize(
    "header",
    [
        b"Pf\n1000000 1000000\n-1\n",
        b"Pf\n999999999999999999 999999999999999999\n-1\n",
        b"Pf\n" + b"9" * 5000 + b" 1\n-1\n",
        b"Pf\n-1 -1\n-1\n",
        b"Pf\n0 4\n-1\n",
        b"Pf\n1 1\n0\n",
        b"Pf\n1 1\n-inf\n",
        b"Pf\n1 1\n1e999\n",
        b"Pf\n1 1\n1-1\n",
        b"P5\n1 1\n255\n",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_hostile_pfm_header(tmp_path, header):
    path = tmp_path / "depth.pfm"
    path.write_bytes(header + struct.pack("<f", 1))
    with pytest.raises(InputError, match="depth.pfm"):
        read_pfm(path)


# images


@examples
@given(arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 9), st.integers(1, 9))))
def test_png_round_trip_is_exact(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("png") / "image.png"
    image = torch.from_numpy(pixels).float() / 255
    write_image(path, image)
    assert torch.equal(read_image(path), image)
    assert image_size(path) == (image.shape[2], image.shape[1])


def smooth_image(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x * 9).sin() * 0.5 + 0.5])


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg_keeps_colour_at_full_resolution_and_is_deterministic(tmp_path, name):
    image, path = smooth_image(40, 56), tmp_path / name
    write_image(path, image)
    first = path.read_bytes()
    write_image(path, image)
    assert path.read_bytes() == first
    assert (read_image(path) - image).abs().mean() < 0.01
    with Image.open(path) as file:
        assert all(sampling[1:3] == (1, 1) for sampling in file.layer)


def test_values_outside_the_range_are_clipped(tmp_path):
    write_image(tmp_path / "a.png", torch.tensor([-1.0, 0.5, 7.0]).view(3, 1, 1))
    assert (read_image(tmp_path / "a.png").flatten() * 255).round().tolist() == [0, 128, 255]


def test_image_with_unknown_suffix(tmp_path):
    with pytest.raises(InputError, match="a.bmp"):
        write_image(tmp_path / "a.bmp", torch.zeros(3, 2, 2))
    assert not list(tmp_path.iterdir())


def saved(path, mode: str, color, **options):
    Image.new(mode, (5, 4), color).save(path, **options)
    return (read_image(path)[:, 1, 2] * 255).round().int().tolist()


def test_modes_become_rgb(tmp_path):
    assert saved(tmp_path / "grey.png", "L", 100) == [100, 100, 100]
    assert saved(tmp_path / "bits.png", "1", 1) == [255, 255, 255]
    assert saved(tmp_path / "palette.png", "P", 0) == [0, 0, 0]
    assert saved(tmp_path / "ink.tif", "CMYK", (0, 255, 255, 0)) == [255, 0, 0]
    assert saved(tmp_path / "deep.png", "I;16", 100 * 257) == [100, 100, 100]
    assert saved(tmp_path / "solid.png", "RGBA", (10, 20, 30, 255)) == [10, 20, 30]
    assert saved(tmp_path / "half.png", "RGBA", (200, 100, 50, 128)) == [100, 50, 25]
    assert saved(tmp_path / "clear.png", "RGBA", (200, 100, 50, 0)) == [0, 0, 0]
    assert saved(tmp_path / "grey_clear.png", "LA", (200, 0)) == [0, 0, 0]
    assert saved(tmp_path / "key.png", "L", 200, transparency=200) == [0, 0, 0]


def test_sixteen_bits_keep_their_precision(tmp_path):
    values = np.arange(0, 65536, 4369, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(values + 1 - (values == 65535)).save(tmp_path / "deep.png")
    expected = torch.from_numpy((values + 1 - (values == 65535)).astype(np.float64) / 65535).float()
    torch.testing.assert_close(read_image(tmp_path / "deep.png")[1], expected, atol=1e-7, rtol=0)


def test_floating_point_image_has_no_known_range(tmp_path):
    Image.new("F", (5, 4), 0.5).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="float.tif"):
        read_image(tmp_path / "float.tif")


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to look at it
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (3, 4, 6)
    assert image_size(tmp_path / "turned.jpg") == (6, 4)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_image_is_refused_unless_all_pixels_are_there(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    write_image(path, smooth_image(24, 40))
    whole, pixels = path.read_bytes(), read_image(path)
    for cut in cuts(whole):
        path.write_bytes(whole[:cut])
        try:
            assert (
                torch.equal(read_image(path), pixels) and cut >= len(whole) - 20
            )  # checksums and the end mark
        except InputError as error:
            assert path.name in str(error) and "\n" not in str(error)


@examples
@given(st.data())
def test_damaged_image_never_raises_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("image") / data.draw(st.sampled_from(["image.png", "image.jpg"]))
    write_image(path, smooth_image(8, 12))
    content = bytearray(path.read_bytes())
    for _ in range(4):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert torch.isfinite(read_image(path)).all()
    except InputError as error:
        assert path.name in str(error)


# atomic writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "sub" / "map.bin"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["map.bin"]


def test_a_file_is_not_there_until_it_is_complete(tmp_path):
    path = tmp_path / "map.bin"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file" / "depth.pfm", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            write_pfm(path, np.zeros((2, 3)))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "map.pfm"])
def test_without_room_nothing_is_left_that_looks_whole(name, tmp_path):
    """Of a JPEG, Pillow itself would leave the first half without a word."""
    with no_room_beyond(10_000), pytest.raises(InputError, match=f"{name} cannot be written: File too large"):
        if name.endswith(".pfm"):
            write_pfm(tmp_path / name, np.random.rand(200, 200))
        else:
            write_image(tmp_path / name, torch.rand(3, 200, 200))
    assert not list(tmp_path.iterdir())


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_pfm(tmp_path / "depth.pfm", np.zeros((2, 3)))
    assert (tmp_path / "depth.pfm").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("writer", ["write_cam", "write_pair", "write_pfm", "write_image"])
def test_every_writer_is_atomic(tmp_path, monkeypatch, writer):
    values = {
        "write_cam": random_camera(0, depth_min=1.0, depth_interval=1.0),
        "write_pair": {0: []},
        "write_pfm": np.zeros((2, 3)),
        "write_image": torch.zeros(3, 2, 3),
    }
    entered = []
    monkeypatch.setattr(formats, "atomic_write", lambda path: entered.append(path) or atomic_write(path))
    getattr(formats, writer)(tmp_path / "file.png", values[writer])
    assert entered == [tmp_path / "file.png"]
