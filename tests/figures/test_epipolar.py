"""The places that the epipolar figure shows are those of backproject and project, for every control."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import opened
from figure_samples import DEPTHS, HEIGHT, WIDTH, make, photographs

from mvsnet_edu import backproject, camera_center, project, scale_intrinsics
from mvsnet_edu.figures import epipolar

IMAGES, K, E, TRUTH = photographs()


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(chromium, make("epipolar").save(tmp_path / "epipolar.html")) as page:
        yield page


def places(view: int, column: int, row: int, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Where all views see a pixel's point: by way of a whole depth map at the truth's size."""
    plane = torch.full((1, HEIGHT, WIDTH), depth, dtype=torch.float64)
    points = backproject(plane, scale_intrinsics(K[view, None], 0.25), E[view, None])
    pixels, z = project(points[0, row, column].expand(len(K), 3), K, E)
    return pixels.numpy(), z.numpy()


def values(page: Any) -> list[str]:
    texts = page.locator('[data-part="value"]').all_text_contents()
    return [text.replace("\N{MINUS SIGN}", "-") for text in texts]


def agree(page: Any, view: int, column: int, row: int, plane: int) -> None:
    pixels, depths = places(view, column, row, DEPTHS[plane])
    for k, text in enumerate(values(page)):
        x, y, z = (float(number) for number in re.findall(r"-?\d+\.\d+", text))
        assert (x, y) == pytest.approx(tuple(pixels[k]), abs=0.0051)
        assert z == pytest.approx(depths[k], abs=0.00051)
        assert text.startswith("chosen") == (k == view)
        inside = (pixels[k] >= 0).all() and (pixels[k] <= [4 * WIDTH, 4 * HEIGHT]).all()
        assert ("outside" in text) != inside
    known = float(TRUTH[view, row, column])
    expected = f"true depth {known:.3f}" if known else "true depth not measured"
    assert page.text_content('[data-part="readout"]').endswith(expected)


def test_it_begins_where_it_was_told(page: Any):
    agree(page, 2, 3, 1, 2)


def test_the_slider_moves_along_the_ray(page: Any):
    for plane in (0, 1, 3, 4):
        page.get_by_role("slider", name="Depth").fill(str(plane))
        agree(page, 2, 3, 1, plane)


def click(page: Any, view: int, column: int, row: int) -> None:
    shot = page.locator('[data-part="view"]').nth(view)
    box = shot.bounding_box()
    position = {"x": box["width"] * (column + 0.6) / WIDTH, "y": box["height"] * (row + 0.6) / HEIGHT}
    shot.click(position=position)


def test_a_click_chooses_view_and_pixel(page: Any):
    for choice in ((0, 0, 0), (1, 6, 2), (0, WIDTH - 1, HEIGHT - 1), (2, 5, 3)):
        click(page, *choice)
        agree(page, *choice, 2)


def test_keys_move_the_pixel_and_stop_at_the_border(page: Any):
    shot = page.get_by_role("application", name="View 1")
    shot.press("ArrowRight")
    agree(page, 1, 4, 1, 2)
    shot.press("ArrowDown")
    shot.press("Shift+ArrowLeft")
    agree(page, 1, 0, 2, 2)


NAMES = ("cloud", "camera", "ray", "ray-ticks", "line", "range", "truth", "pixel")


def paths(page: Any) -> list[str]:
    return [path for name in NAMES for path in page.locator(f'[data-part="{name}"]').evaluate_all(READ)]


READ = "all => all.map(path => path.getAttribute('d'))"


def numbers(path: str) -> list[float]:
    return [float(text) for text in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", path)]


def test_the_script_draws_what_stood_there_before_it(chromium: Any, page: Any, tmp_path: Path):
    with opened(chromium, tmp_path / "epipolar.html", java_script_enabled=False) as still:
        before = paths(still)
    after = paths(page)
    assert len(before) == len(after) > 3 + 2 + 4 * 3
    for one, other in zip(before, after, strict=True):
        assert re.sub(r"[-.\de]", "", one) == re.sub(r"[-.\de]", "", other)
        assert numbers(other) == pytest.approx(numbers(one), rel=2e-5, abs=2e-5)


def test_ticks_and_truth_lie_where_the_views_see_them(page: Any):
    """Each tick is a short stroke whose middle is the candidate; all lie on the epipolar line."""
    for k in (0, 1):
        shot = page.locator('[data-part="view"]').nth(k)
        read = lambda name, shot=shot: numbers(shot.locator(f'[data-part="{name}"]').get_attribute("d"))  # noqa: E731
        strokes = np.array(read("range")[4:]).reshape(-1, 2, 2)
        expected = np.stack([places(2, 3, 1, depth)[0][k] for depth in DEPTHS])
        assert strokes.mean(axis=1) == pytest.approx(expected, abs=1e-3)
        true = places(2, 3, 1, float(TRUTH[2, 1, 3]))[0][k]
        assert read("truth")[:2] == pytest.approx(true, abs=1e-3)
        (x0, y0), (x1, y1) = np.array(read("line")).reshape(2, 2)
        away = (expected - [x0, y0]) @ [y1 - y0, x0 - x1] / np.hypot(x1 - x0, y1 - y0)
        assert np.abs(away).max() < 0.01


def test_turning_moves_the_scene_and_a_full_turn_brings_it_back(page: Any):
    slider, before = page.get_by_role("slider", name="Turn"), paths(page)
    slider.fill("-180")
    turned = paths(page)
    assert turned[0] != before[0]
    slider.fill("180")
    for one, other in zip(turned, paths(page), strict=True):
        assert numbers(other) == pytest.approx(numbers(one), abs=1e-5)
    slider.fill("30")
    assert paths(page) == before


def test_dragging_turns_the_scene(page: Any):
    box = page.locator('[data-part="stage"]').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 40)
    page.mouse.up()
    page.mouse.move(box["x"], box["y"] + 40)
    assert float(page.get_by_role("slider", name="Turn").input_value()) == pytest.approx(75, abs=1)


def test_the_stage_is_the_world_moved_turned_and_scaled():
    views = make("epipolar").data["views"]
    stage = np.array([view["centre"] for view in views])
    world = camera_center(E).numpy()
    ratio = [np.linalg.norm(c[0] - c[1]) / np.linalg.norm(c[0] - c[2]) for c in (stage, world)]
    assert ratio[0] == pytest.approx(ratio[1])
    assert np.abs(stage).max() < 1.5


def test_a_view_that_looks_away_has_no_line(chromium: Any, tmp_path: Path):
    away = E.clone()
    away[1] = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64)) @ E[1]
    figure = epipolar(IMAGES, K, away, DEPTHS)
    with opened(chromium, figure.save(tmp_path / "away.html")) as page:
        assert "behind the camera" in values(page)[1]
        shot = page.locator('[data-part="view"]').nth(1)
        assert {shot.locator(f'[data-part="{name}"]').get_attribute("d") for name in NAMES[4:]} == {""}


def test_views_at_one_place_have_no_line(chromium: Any, tmp_path: Path):
    figure = epipolar(IMAGES, K[:1].expand(3, 3, 3), E[:1].expand(3, 4, 4), DEPTHS)
    with opened(chromium, figure.save(tmp_path / "one.html")) as page:
        assert set(page.locator('[data-part="line"]').evaluate_all(READ)) == {""}


def test_without_truth_every_pixel_of_the_image_can_be_chosen(chromium: Any, tmp_path: Path):
    figure = epipolar(IMAGES, K, E, DEPTHS, pixel=(4 * WIDTH - 1, 0))
    with opened(chromium, figure.save(tmp_path / "plain.html")) as page:
        text = page.text_content('[data-part="readout"]')
        assert text.startswith(f"pixel ({4 * WIDTH - 0.5:.2f}, 0.50) of view 0") and "true" not in text


def test_refuses_what_is_outside():
    with pytest.raises(ValueError, match="of 3 views of 8 x 5 pixels"):
        epipolar(IMAGES, K, E, DEPTHS, truth=TRUTH, pixel=(8, 0))
    with pytest.raises(ValueError, match="view 3"):
        epipolar(IMAGES, K, E, DEPTHS, view=3)
