"""The numbers and curves of the refinement profile are those of the depth maps, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import opened
from figure_samples import HEIGHT, WIDTH, depth_maps, make

from mvsnet_edu.figures import refinement_profile

START, INTERVAL = 480.0, 2.5


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(chromium, make("refinement").save(tmp_path / "refinement.html")) as page:
        yield page


def expected(row: int, column: int) -> dict[str, float]:
    initial, refined, truth = (float(values[row, column]) for values in depth_maps())
    truth = truth or float("nan")
    changes = {"residual": (refined - initial) / INTERVAL, "wanted": (truth - initial) / INTERVAL}
    depths = {"initial": initial, "refined": refined, "truth": truth}
    return {name: (depth - START) / INTERVAL for name, depth in depths.items()} | changes


def agree(page: Any, row: int, column: int) -> None:
    text = page.text_content('[data-part="readout"]').replace("\N{MINUS SIGN}", "-")
    assert text.startswith(f"row {row}, column {column} ")
    for name, value in expected(row, column).items():
        found = re.search(name + r": (-?[\d.]+|not measured)", text)[1]
        shown = float("nan") if found == "not measured" else float(found)
        assert shown == pytest.approx(value, abs=0.0051, nan_ok=True)


def test_sliders(page: Any):
    for row, column in ((0, 0), (HEIGHT - 1, WIDTH - 1), (1, 6), (3, 4)):
        page.get_by_role("slider", name="Row").fill(str(row))
        page.get_by_role("slider", name="Column").fill(str(column))
        agree(page, row, column)


def test_keys(page: Any):
    agree(page, HEIGHT // 2, WIDTH // 2)
    page.get_by_role("slider", name="Row").press("ArrowRight")
    page.get_by_role("slider", name="Column").press("ArrowLeft")
    agree(page, HEIGHT // 2 + 1, WIDTH // 2 - 1)


def test_pointer_over_a_curve_chooses_the_column(page: Any):
    box = page.locator('[data-part="change"]').bounding_box()
    page.mouse.move(box["x"] + box["width"] * 6.5 / WIDTH, box["y"] + 9)
    agree(page, HEIGHT // 2, 6)


def test_a_click_on_the_view_chooses_both(page: Any):
    box = page.locator('[data-part="view"]').bounding_box()
    page.mouse.click(box["x"] + box["width"] * 1.5 / WIDTH, box["y"] + box["height"] * 3.5 / HEIGHT)
    agree(page, 3, 1)


def curves(page: Any) -> dict[str, str]:
    names = ("initial", "refined", "truth", "residual", "wanted")
    return {name: page.get_attribute(f'[data-part="{name}"]', "d") for name in names}


def test_the_script_draws_what_stood_there_before_it(chromium: Any, page: Any, tmp_path: Path):
    with opened(chromium, tmp_path / "refinement.html", java_script_enabled=False) as still:
        before = {name: numbers(path) for name, path in curves(still).items()}
    for name, path in curves(page).items():
        assert numbers(path) == pytest.approx(before[name], rel=1e-5, abs=1e-5)


def numbers(path: str) -> list[float]:
    return [float(text) for text in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", path)]


def test_curves_break_where_the_truth_is_missing(page: Any):
    page.get_by_role("slider", name="Row").fill("3")
    paths = curves(page)
    assert {name: path.count("M") for name, path in paths.items()} == dict(
        initial=1, refined=1, residual=1, truth=2, wanted=2
    )
    assert len(numbers(paths["truth"])) == 2 * (WIDTH - 1) + 2  # and the length 0 of two first strokes


def test_tensors_with_a_batch_axis_give_the_same_figure():
    maps = [torch.from_numpy(values)[None] for values in depth_maps()]
    figure = refinement_profile(*maps, depth_start=START, depth_interval=INTERVAL)
    assert figure.html == make("refinement").html


def test_refuses_maps_that_do_not_belong_together():
    depth = np.ones((3, 5))
    with pytest.raises(ValueError, match="one shape"):
        refinement_profile(depth, depth.T, depth, depth_start=0.0, depth_interval=1.0)
    with pytest.raises(ValueError, match="row 3"):
        refinement_profile(depth, depth, depth, depth_start=0.0, depth_interval=1.0, row=3)
    with pytest.raises(ValueError, match="one map"):
        refinement_profile(np.ones((2, 3, 5)), depth, depth, depth_start=0.0, depth_interval=1.0)


def test_nothing_measured_still_draws():
    depth = np.full((3, 5), 2.0)
    figure = refinement_profile(depth, depth, np.zeros((3, 5)), depth_start=0.0, depth_interval=1.0)
    assert re.search(r'd="" data-part="truth"', figure.html)
