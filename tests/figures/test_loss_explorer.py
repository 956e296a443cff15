"""The numbers that the loss explorer shows are torch's, for every control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import opened
from figure_samples import depth_maps

from mvsnet_edu.figures import loss_explorer
from mvsnet_edu.losses import mvsnet_regression_loss

NAMES = ("loss", "less_one", "less_three")
INTERVAL = 2.5


def from_torch(start: torch.Tensor, truth: torch.Tensor, shift: float) -> dict[str, float]:
    """Values and gradients by another route: each estimate is a leaf, and its gradients are added."""
    estimate = (start + shift * INTERVAL).requires_grad_()
    numbers = {}
    for name, value in zip(NAMES, mvsnet_regression_loss(estimate, truth, INTERVAL), strict=True):
        estimate.grad = None
        if value.requires_grad:
            value.backward()
        numbers[name] = value.item()
        numbers[name + "-gradient"] = 0.0 if estimate.grad is None else estimate.grad.sum().item()
    return numbers


def shown(page: Any) -> dict[str, float]:
    parts = [name + kind for name in NAMES for kind in ("", "-gradient")]
    content = (
        """parts => parts.map(part => document.querySelector(`[data-part="${part}-value"]`).textContent)"""
    )
    texts = dict(zip(parts, page.evaluate(content, parts), strict=True))
    return {part: float(text.replace("\N{MINUS SIGN}", "-")) for part, text in texts.items()}


MAPS = [torch.from_numpy(values)[None] for values in depth_maps()]
CASES = {
    "pixel": (torch.full((1, 1, 1), 600.0), torch.full((1, 1, 1), 600.0)),
    "map": (MAPS[0], MAPS[2]),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    return CASES[request.param]


@pytest.fixture
def page(case: tuple[torch.Tensor, torch.Tensor], chromium: Any, tmp_path: Path) -> Iterator[Any]:
    figure = loss_explorer(*case, interval=INTERVAL, reach=4, steps=4)
    with opened(chromium, figure.save(tmp_path / "loss.html")) as page:
        yield page


def agree(page: Any, start: torch.Tensor, truth: torch.Tensor, shift: float) -> None:
    assert shown(page) == pytest.approx(from_torch(start, truth, shift), abs=5.1e-4)
    cursors = page.locator('[data-part="cursor"]').evaluate_all(
        "all => all.map(line => line.x1.baseVal.value)"
    )
    assert cursors == [shift] * 6


def test_slider(page: Any, case: tuple[torch.Tensor, torch.Tensor]):
    slider = page.get_by_role("slider", name="Shift")
    for shift in (-4.0, -3.25, -3.0, -1.0, -0.25, 0.0, 0.75, 1.0, 1.25, 3.0, 3.25, 4.0):
        slider.fill(f"{shift:g}")  # to an older Playwright, "1.0" is malformed
        agree(page, *case, shift)


def test_keys(page: Any, case: tuple[torch.Tensor, torch.Tensor]):
    page.get_by_role("slider", name="Shift").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    agree(page, *case, 2 - 3 / 4)


def test_dragging_in_a_frame(page: Any, case: tuple[torch.Tensor, torch.Tensor]):
    box = page.locator('[data-part="less_one"]').bounding_box()
    at = lambda shift: (box["x"] + box["width"] * (shift + 4) / 8, box["y"] + box["height"] / 2)  # noqa: E731
    page.mouse.move(*at(3.0))
    page.mouse.down()
    page.mouse.move(*at(-1.5))
    page.mouse.up()
    page.mouse.move(*at(2.0))  # let go: this must not move it
    agree(page, *case, -1.5)


def test_without_measured_truth_all_is_zero(page: Any):
    page.get_by_role("checkbox").uncheck()
    assert set(shown(page).values()) == {0.0}
    assert "no gradient" in page.text_content('[data-part="readout"]')


def test_the_sentence_says_the_way_and_the_unit(page: Any):
    page.get_by_role("slider", name="Shift").fill("-3")
    text = page.text_content('[data-part="readout"]')
    assert "\N{MINUS SIGN}3.00 intervals (\N{MINUS SIGN}7.50 mm, nearer)" in text and "farther away" in text


def test_the_table_reaches_both_ends_and_holds_zero():
    data = loss_explorer(reach=3, steps=20).data
    assert data["shifts"][0] == -3 and data["shifts"][-1] == 3 and 0.0 in data["shifts"]
    at_three = data["shifts"].index(3.0)
    assert data["measured"]["less_three"]["value"][at_three] == 1.0  # exactly three still count


def test_less_one_of_a_whole_map_slopes_and_yet_gives_no_gradient():
    table = loss_explorer(*CASES["map"], interval=INTERVAL).data["measured"]["less_one"]
    assert len(set(table["value"])) > 3 and set(table["gradient"]) == {0.0}
