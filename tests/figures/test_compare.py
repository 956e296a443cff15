"""The wipe shows the two chosen pictures, cut where the slider stands, and the values under the probe."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import opened
from figure_samples import HEIGHT, WIDTH, depth_maps, make
from PIL import Image

from mvsnet_edu.figures import Picture, compare
from mvsnet_edu.figures.wipe import outline

PHOTO, TRUTH, ERROR = "0", "1", "2"


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(chromium, make("wipe").save(tmp_path / "wipe.html")) as page:
        yield page


def readout(page: Any) -> str:
    return page.text_content('[data-part="readout"]').replace("\N{MINUS SIGN}", "-")


def point_at(page: Any, x: float, y: float) -> None:
    """Put the pointer on a place given in pixels of the depth maps."""
    box = page.locator('[data-part="over"]').bounding_box()
    page.mouse.move(box["x"] + box["width"] * x / WIDTH, box["y"] + box["height"] * y / HEIGHT)


def test_values_under_the_pointer_are_those_of_the_arrays(page: Any):
    initial, _, truth = depth_maps()
    page.get_by_role("combobox", name="Left").select_option(TRUTH)
    page.get_by_role("combobox", name="Right").select_option(ERROR)
    for row, column in ((0, 0), (1, 6), (4, 7), (2, 3)):
        point_at(page, column + 0.5, row + 0.5)
        error = (initial[row, column] - truth[row, column]) / np.float32(2.5)
        assert f"truth: {truth[row, column]:.3f} mm" in readout(page)
        assert f"error: {error:.3f} intervals" in readout(page)
    point_at(page, 4.5, 3.5)
    assert "truth: not measured \N{MIDDLE DOT} error: not measured" in readout(page)


def test_keys_move_the_probe_by_a_pixel(page: Any):
    over = page.locator('[data-part="over"]')
    start = (4 * WIDTH // 2, 4 * HEIGHT // 2)
    assert f"pixel {start}" in readout(page)
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown"):
        over.press(key)
    assert f"pixel {start[0] - 2, start[1] + 1}" in readout(page)
    over.press("Shift+ArrowRight")
    assert f"pixel {start[0] + 8, start[1] + 1}" in readout(page)
    for _ in range(9):
        over.press("Shift+ArrowUp")
    assert f"pixel {start[0] + 8, 0}" in readout(page)


def colors(page: Any, y: float) -> np.ndarray:
    """Colours along a line across the picture, as the browser paints them."""
    box = page.locator('[data-part="over"]').bounding_box()
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    left, width = round(box["x"]), round(box["width"])
    return picture[round(box["y"] + y * box["height"]), left : left + width]


@pytest.fixture
def flat(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    pictures = {name: np.full((60, 90, 3), color, np.uint8) for name, color in FLAT.items()}
    with opened(chromium, compare(pictures).save(tmp_path / "flat.html")) as page:
        yield page


FLAT = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


def share_of_left(page: Any, left: str, right: str) -> float:
    """Where the left picture ends; every colour away from the handle must be one of the two."""
    line = colors(page, 0.8).astype(int)
    is_left, is_right = ((np.abs(line - FLAT[name]).max(axis=1) < 9) for name in (left, right))
    assert (is_left | is_right).mean() > 0.97
    assert not is_right[: is_left.sum()].any()
    return is_left.mean()


def test_the_cut_follows_the_slider_and_the_choice(flat: Any):
    assert share_of_left(flat, "red", "green") == pytest.approx(0.5, abs=0.02)
    flat.get_by_role("slider", name="Wipe").fill("80")
    assert share_of_left(flat, "red", "green") == pytest.approx(0.8, abs=0.02)
    flat.get_by_role("combobox", name="Left").select_option("2")
    assert share_of_left(flat, "blue", "green") == pytest.approx(0.8, abs=0.02)
    flat.get_by_role("combobox", name="Right").select_option("0")
    assert share_of_left(flat, "blue", "red") == pytest.approx(0.8, abs=0.02)


def test_the_cut_follows_keys_and_drags(flat: Any):
    flat.get_by_role("slider", name="Wipe").press("Home")
    flat.get_by_role("slider", name="Wipe").press("PageUp")
    assert share_of_left(flat, "red", "green") == pytest.approx(0.1, abs=0.02)
    box = flat.locator('[data-part="over"]').bounding_box()
    flat.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20)
    flat.mouse.down()
    flat.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 20)
    flat.mouse.up()
    flat.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 20)
    assert share_of_left(flat, "red", "green") == pytest.approx(0.7, abs=0.02)


def test_one_picture_on_both_sides_is_whole(flat: Any):
    flat.get_by_role("combobox", name="Right").select_option("0")
    assert (np.abs(colors(flat, 0.8).astype(int) - FLAT["red"]).max(axis=1) < 9).mean() > 0.97


def test_pictures_of_one_unit_share_a_scale():
    near, far = np.full((4, 6), 400.0), np.full((4, 6), 500.0)
    error = Picture(far - near, "intervals", "diverging")
    html = compare({"near": near, "far": far, "error": error}, unit="mm").html
    assert html.count("<span>400</span><span>450</span><span>500 mm</span>") == 2
    assert html.count("<span>\N{MINUS SIGN}100</span><span>0</span><span>100 intervals</span>") == 1


def test_limits_go_before_the_range():
    limited = Picture(np.ones((4, 6)), "m", limits=(0.0, 8.0))
    html = compare({"a": limited, "b": np.full((4, 6), 99.0)}, unit="m").html
    assert html.count("<span>0</span><span>4</span><span>8 m</span>") == 2


def test_grey_is_explained_only_where_a_pixel_is_missing():
    whole = np.ones((4, 6))
    holed = np.where(np.eye(4, 6) > 0, np.nan, whole)
    assert "Grey" in compare({"a": whole, "b": holed}).html
    assert "Grey" not in compare({"a": whole, "b": whole}).html


def test_contours_run_around_the_pixels_that_the_measures_count():
    error = np.random.default_rng(5).normal(0, 2.5, (6, 9))
    error[2, 4] = np.nan
    for level in (1.0, 3.0):
        edges = unit_edges(outline(error, level))
        for row in range(6):
            for column in range(9):
                for down, right in ((0, 1), (1, 0)):
                    other = (row + down, column + right)
                    if other[0] > 5 or other[1] > 8 or not np.isfinite(error[row, column] + error[other]):
                        crossed = False
                    else:
                        crossed = (abs(error[row, column]) <= level) != (abs(error[other]) <= level)
                    edge = (column + right, row + down, "V" if right else "H")
                    assert (edge in edges) == crossed
                    edges.discard(edge)
        assert not edges


def unit_edges(path: str) -> set[tuple[int, int, str]]:
    """Edges one pixel long, by their upper or left end."""
    edges = set()
    for x, y, way, end in re.findall(r"M(\d+),(\d+)([VH])(\d+)", path):
        for k in range(int(y if way == "V" else x), int(end)):
            edges.add((int(x), k, way) if way == "V" else (k, int(y), way))
    return edges


def test_contours_are_named_and_cut_with_their_picture(page: Any):
    assert "Contours: within 1 (solid) and 3 (dashed) intervals." in page.inner_text(".mvs-note")
    page.get_by_role("combobox", name="Right").select_option(ERROR)
    assert page.locator(".mvs-right .mvs-picture .mvs-contours path").count() == 2
    clip = "e => getComputedStyle(e).clipPath"
    assert page.eval_on_selector(".mvs-right .mvs-picture", clip) == "inset(0px 0px 0px 50%)"


def test_tensors_and_arrays_give_the_same_figure():
    depth = torch.arange(24.0).reshape(1, 1, 4, 6).requires_grad_()
    image = torch.rand(4, 6, 3)
    by_tensor = compare({"depth": depth, "image": image})
    assert by_tensor.html == compare({"depth": depth.detach().numpy()[0, 0], "image": image.numpy()}).html


def test_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="two"):
        compare({"only": np.ones((4, 6))})
    with pytest.raises(ValueError, match="'turned' is 4 x 6"):
        compare({"depth": np.ones((4, 6)), "turned": np.ones((6, 4))})
    with pytest.raises(ValueError, match="rainbow"):
        compare({"a": np.ones((4, 6)), "b": Picture(np.ones((4, 6)), colors="rainbow")})
