"""Photos of every kind that cameras write, against the picture that they show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mvsnet_edu.data.photos import find_photos, read_mask, read_photo
from mvsnet_edu.errors import InputError

ORIENTATION, MAKER, MODEL, NOTES = 0x0112, 0x010F, 0x0110, 0x8769
FOCAL_MM, FOCAL_35MM, RESOLUTION, UNIT, WIDTH, HEIGHT = 0x920A, 0xA405, 0xA20E, 0xA210, 0xA002, 0xA003


def scenery(width=48, height=32) -> np.ndarray:
    """(H, W, 3) uint8 without any symmetry: red grows to the right, green downwards, blue on one side."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, width)[None]
    image[..., 1] = np.linspace(0, 200, height)[:, None]
    image[:, : width // 3, 2] = 255
    return image


def save(path, pixels, **exif):
    notes = Image.Exif()
    notes.update(exif.get("main", {}))
    if "lens" in exif:
        notes.get_ifd(NOTES).update(exif["lens"])
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, exif=notes, **({"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}))
    return path


# What the camera stores so that the photo looks upright once the viewer has done what the tag says.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("tag", STORED)
def test_photos_stand_upright_whichever_way_the_camera_was_held(tag, suffix, tmp_path):
    stored = np.ascontiguousarray(STORED[tag](scenery()))
    photo = read_photo(save(tmp_path / f"a{suffix}", stored, main={ORIENTATION: tag}), longest=4000)
    assert photo.image.shape == (3, 32, 48)
    np.testing.assert_allclose(photo.image.permute(1, 2, 0) * 255, scenery(), atol=14)


@pytest.mark.parametrize("tag", [1, 6])
def test_a_large_photo_is_shrunk_after_it_was_turned(tag, tmp_path):
    stored = np.ascontiguousarray(STORED[tag](scenery(900, 600)))
    path = save(tmp_path / "a.jpg", stored, main={ORIENTATION: tag}, lens={FOCAL_35MM: 26})
    photo = read_photo(path, longest=90)
    assert photo.image.shape == (3, 60, 90)
    expected = scenery(900, 600).reshape(60, 10, 90, 10, 3).mean((1, 3))
    inside = np.abs(np.arange(90) - 30) > 2  # not at the edge of the blue part
    shown = photo.image.permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(shown[:, inside], expected[:, inside], atol=6)
    assert photo.focal == pytest.approx(26 / 43.2666 * math.hypot(60, 90), rel=1e-4)


def test_a_small_photo_keeps_its_size(tmp_path):
    assert read_photo(save(tmp_path / "a.png", scenery()), longest=4000).image.shape == (3, 32, 48)


def test_the_focal_length_from_the_sensors_resolution(tmp_path):
    # 6 mm lens, 4800 pixels on a sensor of 8 mm: 3600 pixels of the photo as taken, since shrunk to 48
    lens = {FOCAL_MM: 6.0, RESOLUTION: 600.0 * 25.4, UNIT: 2, WIDTH: 4800, HEIGHT: 3200}
    path = save(tmp_path / "a.jpg", scenery(), lens=lens, main={MAKER: "Maker\0", MODEL: "One"})
    photo = read_photo(path, longest=24)
    assert photo.focal == pytest.approx(6 * 600 / 200, rel=1e-6) and photo.camera == "Maker One"
    in_centimetres = lens | {RESOLUTION: 6000.0, UNIT: 3}
    assert read_photo(save(path, scenery(), lens=in_centimetres), 24).focal == pytest.approx(18, rel=1e-6)


@pytest.mark.parametrize("lens", [{}, {FOCAL_35MM: 0}, {FOCAL_MM: 6.0}, {FOCAL_MM: 6.0, RESOLUTION: 0.0}])
def test_no_focal_length_where_the_notes_do_not_give_one(lens, tmp_path):
    photo = read_photo(save(tmp_path / "a.jpg", scenery(), lens=lens), longest=48)
    assert photo.focal is None and photo.camera == ""


def test_every_kind_of_pixels_becomes_rgb(tmp_path):
    grey = scenery()[..., 0]
    rgb = Image.fromarray(scenery())
    kinds = {
        "grey.png": Image.fromarray(grey),
        "grey16.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "cmyk.jpg": rgb.convert("CMYK"),
        "palette.png": rgb.quantize(255),
        "alpha.png": rgb.convert("RGBA"),
        "tiff.tif": rgb,
    }
    for name, image in kinds.items():
        save(tmp_path / name, image)
        shown = read_photo(tmp_path / name, longest=48).image
        expected = np.repeat(grey[..., None], 3, 2) if name.startswith("grey") else scenery()
        assert shown.shape == (3, 32, 48) and shown.dtype == torch.float32
        np.testing.assert_allclose(shown.permute(1, 2, 0) * 255, expected, atol=26, err_msg=name)


def test_what_is_no_photo_is_named(tmp_path):
    whole = save(tmp_path / "whole.jpg", scenery(300, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.jpg", "text.jpg", "empty.png", "absent.jpg"):
        with pytest.raises(InputError, match=name):
            read_photo(tmp_path / name, longest=100)


def test_a_heic_photo_names_what_reads_it(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"....ftypheic")
    with pytest.raises(InputError, match="a.HEIC"):
        read_photo(tmp_path / "a.HEIC", longest=100)


def test_photos_in_the_order_in_which_they_were_taken(tmp_path):
    for name in ("b2.jpg", "b10.JPG", "a.png", "b1.jpeg", "notes.txt", ".hidden.jpg", "film.mov"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_photos(tmp_path)] == ["a.png", "b1.jpeg", "b2.jpg", "b10.JPG"]


def test_no_folder_and_no_photos_are_said(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        find_photos(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no photos"):
        find_photos(tmp_path)


def test_a_mask_is_read_at_the_size_of_its_photo(tmp_path):
    mask = np.zeros((32, 48), np.uint8)
    mask[:, 12:] = 255
    keep = read_mask(save(tmp_path / "m.png", mask), (24, 16))
    assert keep.shape == (16, 24) and not keep[:, :6].any() and keep[:, 6:].all()
    with pytest.raises(InputError, match="48 x 32"):
        read_mask(tmp_path / "m.png", (32, 48))
