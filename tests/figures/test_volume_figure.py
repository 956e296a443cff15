"""The numbers, curves and slices of the cost-volume figure are torch's, pixel by pixel."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import opened
from figure_samples import HEIGHT, WIDTH, depth_maps, make, volumes

from mvsnet_edu import soft_argmin
from mvsnet_edu.figures import cost_volume
from mvsnet_edu.figures.pictures import colorize

VARIANCE, COST, DEPTHS = volumes()
TRUTH = depth_maps()[2]
MEAN = torch.from_numpy(VARIANCE).mean(dim=0)  # (D, h, w)
DEPTH, PROBABILITY = (x[0] for x in soft_argmin(torch.from_numpy(COST)[None], torch.from_numpy(DEPTHS)))
PHOTO = np.zeros((4 * HEIGHT, 4 * WIDTH, 3), np.uint8)


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(chromium, make("volume").save(tmp_path / "volume.html")) as page:
        yield page


def text(page: Any, part: str) -> str:
    return page.text_content(f'[data-part="{part}"]').replace("\N{MINUS SIGN}", "-")


def shown(page: Any, part: str, name: str) -> float:
    return float(re.search(name + r":? (?:plane |depth )?(-?[\d.]+)", text(page, part))[1])


def true_plane(x: int, y: int) -> float:
    """By the two planes around the depth."""
    k = int((DEPTHS <= TRUTH[y, x]).sum()) - 1
    return k + (TRUTH[y, x] - DEPTHS[k]) / (DEPTHS[k + 1] - DEPTHS[k])


def agree(page: Any, x: int, y: int, k: int) -> None:
    assert text(page, "readout").startswith(f"pixel ({x}, {y}), plane {k} at depth {DEPTHS[k]:.3f} ")
    for name, values, near in (
        ("variance", MEAN, 6e-4),
        ("cost", COST, 6e-3),
        ("probability", PROBABILITY, 6e-4),
    ):
        assert shown(page, "readout", name) == pytest.approx(float(values[k, y, x]), abs=near)
    assert shown(page, "verdict", "least variance") == MEAN[:, y, x].argmin()
    assert shown(page, "verdict", "most probable") == PROBABILITY[:, y, x].argmax()
    assert shown(page, "verdict", "soft argmin") == pytest.approx(float(DEPTH[y, x]), abs=6e-3)
    if TRUTH[y, x] > 0:
        assert shown(page, "verdict", "truth") == pytest.approx(true_plane(x, y), abs=0.051)
    cursors = page.locator('[data-part="cursor"]').evaluate_all(
        "all => all.map(line => line.x1.baseVal.value)"
    )
    assert cursors == [k, k]


def slider(page: Any, name: str) -> Any:
    return page.get_by_role("slider", name=name)


def test_sliders(page: Any):
    for x, y, k in ((0, 0, 0), (WIDTH - 1, HEIGHT - 1, 5), (6, 1, 2), (2, 3, 4)):
        for name, value in (("Column", x), ("Row", y), ("Plane", k)):
            slider(page, name).fill(str(value))
        agree(page, x, y, k)


def test_keys(page: Any):
    agree(page, WIDTH // 2, HEIGHT // 2, 3)
    for name, key in (("Column", "ArrowLeft"), ("Row", "ArrowRight"), ("Plane", "ArrowRight")):
        slider(page, name).press(key)
    agree(page, WIDTH // 2 - 1, HEIGHT // 2 + 1, 4)


def press(page: Any, part: str, x: float, y: float) -> None:
    box = page.locator(f'[data-part="{part}"]').bounding_box()
    page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)


def test_a_click_on_the_view_chooses_the_pixel(page: Any):
    press(page, "view", 1.5 / WIDTH, 3.5 / HEIGHT)
    agree(page, 1, 3, 3)


@pytest.mark.parametrize("part", ["before", "after"])
def test_a_click_on_a_slice_chooses_column_and_plane_from_below(page: Any, part: str):
    press(page, part, 6.5 / WIDTH, 1 - 1.5 / 6)
    agree(page, 6, HEIGHT // 2, 1)


@pytest.mark.parametrize("part", ["curve-before", "curve-after"])
def test_a_click_on_a_curve_chooses_the_plane(page: Any, part: str):
    press(page, part, 4.1 / 5, 0.5)
    agree(page, WIDTH // 2, HEIGHT // 2, 4)


def curves(page: Any) -> dict[str, np.ndarray]:
    paths = {
        name: page.get_attribute(f'[data-part="{name}-curve"]', "d")
        for name in ("variance", "cost", "probability")
    }
    return {name: np.array(re.findall(r",(-?[\d.e-]+)", path), float) for name, path in paths.items()}


def test_curves_are_those_of_the_pixel(page: Any):
    slider(page, "Column").fill("1")
    slider(page, "Row").fill("4")
    variance, cost, probability = MEAN[:, 4, 1], torch.from_numpy(COST)[:, 4, 1], PROBABILITY[:, 4, 1]
    expected = {
        "variance": variance / variance.max(),
        "cost": (cost - cost.min()) / (cost.max() - cost.min()),
        "probability": probability,
    }
    for name, curve in curves(page).items():
        assert curve == pytest.approx(expected[name].numpy(), abs=3e-4)


def slice_of(page: Any, name: str) -> np.ndarray:
    """The picture (D, w, 3) that a slice shows."""
    from PIL import Image

    uri = page.get_attribute(f'[data-part="{name}-image"]', "href")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), int)


@pytest.mark.parametrize("row", [HEIGHT // 2, 0, 4])
def test_slices_are_those_of_the_row(page: Any, row: int):
    slider(page, "Row").fill(str(row))
    top = np.quantile(MEAN.numpy(), 0.98)
    for name, values, limit in (("before", MEAN.numpy(), top), ("after", PROBABILITY.numpy(), 1.0)):
        expected = colorize(values[:, row], (0.0, limit), "viridis").astype(int)
        assert np.abs(slice_of(page, name) - expected).max() <= 8  # a level more or less is a shade


def test_the_script_draws_what_stood_there_before_it(chromium: Any, page: Any, tmp_path: Path):
    with opened(chromium, tmp_path / "volume.html", java_script_enabled=False) as still:
        before = curves(still), still.get_attribute('[data-part="line-up"]', "d")
    after = curves(page), page.get_attribute('[data-part="line-up"]', "d")
    assert before[1] == after[1]
    for name, curve in after[0].items():
        assert curve == pytest.approx(before[0][name], abs=3e-4)


def test_the_line_of_the_truth_breaks_where_nothing_was_measured(page: Any):
    slider(page, "Row").fill("3")
    slider(page, "Column").fill("4")
    assert "not measured" in text(page, "verdict")
    assert page.locator('[data-part="truth-mark"]').evaluate_all(
        "all => all.map(m => m.getAttribute('d'))"
    ) == [
        "",
        "",
    ]
    points = re.findall(r"([\d.]+),([\d.]+)", page.get_attribute('[data-part="line-up"]', "d"))
    measured = [(x + 0.5, true_plane(x, 3)) for x in range(WIDTH) if x != 4]
    assert np.array(points, float) == pytest.approx(np.array(measured), abs=1e-3)


def test_tensors_with_a_batch_axis_give_the_same_figure():
    tensors = [torch.from_numpy(x)[None] for x in (*volumes(), TRUTH)]
    photo = np.random.default_rng(3).integers(0, 256, (4 * HEIGHT, 4 * WIDTH, 3), dtype=np.uint8)
    assert cost_volume(*tensors, image=photo).html == make("volume").html


def test_without_truth_and_on_a_chosen_pixel():
    figure = cost_volume(*volumes(), image=PHOTO, pixel=(7, 0))
    assert figure.data["pixel"] == [7, 0] and 'd="" data-part="truth-mark"' in figure.html


def test_a_constant_volume_still_draws():
    flat = cost_volume(np.zeros((2, 3, 4, 5)), np.ones((3, 4, 5)), [1, 2, 3], image=PHOTO)
    assert "nan" not in flat.body.lower()


def test_refuses_what_does_not_belong_together():
    variance, cost, depths = volumes()
    with pytest.raises(ValueError, match="the volume is"):
        cost_volume(variance[..., :-1], cost, depths, image=PHOTO)
    with pytest.raises(ValueError, match="rising order"):
        cost_volume(variance, cost, depths[::-1], image=PHOTO)
    with pytest.raises(ValueError, match="6 planes"):
        cost_volume(variance, cost, depths[:-1], image=PHOTO)
    with pytest.raises(ValueError, match="4 dimensions"):
        cost_volume(variance[0], cost, depths, image=PHOTO)
    with pytest.raises(ValueError, match=r"pixel \(8, 0\)"):
        cost_volume(variance, cost, depths, image=PHOTO, pixel=(WIDTH, 0))
    with pytest.raises(ValueError, match="the truth is 5 x 8"):
        cost_volume(variance, cost, depths, TRUTH.T, image=PHOTO)
