"""The expectation, the winner and the probability map in the figure are the package's, for every control."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import opened
from figure_samples import make

from mvsnet_edu import probability_map, uniform_depths, winner_take_all
from mvsnet_edu import soft_argmin as regress
from mvsnet_edu.figures import soft_argmin

START, INTERVAL, PLANES = 2.0, 0.2, 15
DEPTHS = uniform_depths(torch.tensor(START, dtype=torch.float64), INTERVAL, PLANES)


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(chromium, make("regression").save(tmp_path / "regression.html")) as page:
        yield page


def from_package(
    bumps: Sequence[Sequence[float]], background: float = 0.0, temperature: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    """Probabilities (D,) and the three numbers, by torch's own Gaussian and the package's three functions."""
    score = torch.full_like(DEPTHS, background)
    for position, height, width in bumps:
        bell = torch.distributions.Normal(position, width * INTERVAL)
        top = bell.log_prob(torch.tensor(position, dtype=torch.float64))
        score = score + height * (bell.log_prob(DEPTHS) - top).exp()
    expected, probability = regress(-score.log().view(1, -1, 1, 1) / temperature, DEPTHS)
    numbers = {
        "expectation": expected.item(),
        "winner": winner_take_all(probability, DEPTHS)[0].item(),
        "trust": probability_map(probability, expected, DEPTHS).item(),
    }
    return probability.flatten(), numbers


def shown(page: Any) -> dict[str, float]:
    return {name: number(page, name) for name in ("expectation", "winner", "trust")}


def number(page: Any, part: str) -> float:
    return float(page.text_content(f'[data-part="{part}"]').replace("\N{MINUS SIGN}", "-"))


def tops(page: Any) -> list[tuple[float, float]]:
    """Position and height of each bump, as drawn."""
    paths = page.locator('[data-part="dot"]').evaluate_all("all => all.map(dot => dot.getAttribute('d'))")
    return [tuple(map(float, re.match(r"M([\d.]+),([\d.]+)h0", path).groups())) for path in paths]


def agree(page: Any, bumps: Sequence[Sequence[float]], **shared: float) -> None:
    probability, numbers = from_package(bumps, **shared)
    assert shown(page) == pytest.approx(numbers, abs=5.1e-4)
    for name in ("expectation", "winner"):
        line = page.locator(f'[data-part="{name}-line"]')
        assert line.evaluate("line => line.x1.baseVal.value") == pytest.approx(numbers[name], abs=1e-5)
    assert bars(page) == pytest.approx(probability.tolist(), abs=2e-5)
    trust = page.text_content('[data-part="readout"]')
    assert f"hold {numbers['trust']:.3f} of the probability" in trust


def bars(page: Any) -> list[float]:
    """Heights of all bars in the axis's own unit, from near to far."""
    heights: dict[float, float] = {}
    for part in ("others", "four"):
        path = page.get_attribute(f'[data-part="{part}"]', "d") or ""
        for left, height in re.findall(r"M([\d.]+),0V([\d.e-]+)H", path):
            heights[float(left)] = float(height)
    frame = page.locator('[data-part="bars"]')
    tick = "svg.previousElementSibling.lastElementChild"
    mark = float(frame.evaluate(f"svg => {tick}.textContent"))
    down = float(frame.evaluate(f"svg => {tick}.style.top").rstrip("%")) / 100
    height = frame.evaluate("svg => svg.viewBox.baseVal.height")
    unit = mark / (height * (1 - down))  # of probability, in that of the drawing
    return [unit * heights[left] for left in sorted(heights)]


BUMPS = [[2.46, 0.8, 1.2], [4.34, 0.5, 1.7]]


def test_as_it_comes(page: Any):
    agree(page, BUMPS)
    assert "hardly any evidence" in page.text_content('[data-part="readout"]')


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize(
    "part, column, values",
    [("Position", 0, (2.0, 3.34, 4.8)), ("Height", 1, (0.01, 0.37, 1.0)), ("Width", 2, (0.1, 0.9, 8.0))],
)
def test_sliders_of_the_bumps(page: Any, part: str, column: int, values: tuple[float, ...], k: int):
    slider = page.get_by_role("slider", name=f"{part} of bump {k + 1}")
    for value in values:
        slider.fill(f"{value:g}")
        bumps = [bump.copy() for bump in BUMPS]
        bumps[k][column] = value
        agree(page, bumps)


def test_background_and_temperature(page: Any):
    for background, temperature in ((0.5, 1.0), (0.13, 4.0), (0.0, 0.1), (0.03, 0.7)):
        page.get_by_role("slider", name="Background").fill(f"{background:g}")
        page.get_by_role("slider", name="Temperature").fill(f"{temperature:g}")
        agree(page, BUMPS, background=background, temperature=temperature)


def test_keys(page: Any):
    slider = page.get_by_role("slider", name="Position of bump 2")
    for _ in range(3):
        slider.press("ArrowLeft")
    agree(page, [BUMPS[0], [4.34 - 3 * 0.02, 0.5, 1.7]])


def test_dragging_takes_the_nearest_bump_and_lets_go(page: Any):
    box = page.locator('[data-part="score"]').bounding_box()

    def at(depth: float, score: float) -> tuple[float, float]:
        x = (depth - START + 0.6 * INTERVAL) / ((PLANES - 1 + 1.2) * INTERVAL)
        return box["x"] + x * box["width"], box["y"] + (1 - score / 1.15) * box["height"]

    page.mouse.move(*at(3.9, 0.5))
    page.mouse.down()
    page.mouse.move(*at(2.3, 0.9))  # past the other one, which stays
    page.mouse.up()
    page.mouse.move(*at(4.5, 0.2))
    assert tops(page)[0] == (2.46, 0.8)
    assert tops(page)[1] == pytest.approx((2.3, 0.9), abs=0.02)
    agree(page, [BUMPS[0], [*tops(page)[1], 1.7]])


def test_a_uniform_probability_gives_four_planes_of_all(page: Any):
    for k in (1, 2):
        page.get_by_role("slider", name=f"Height of bump {k}").fill("0.01")
        page.get_by_role("slider", name=f"Position of bump {k}").fill("4.8")
        page.get_by_role("slider", name=f"Width of bump {k}").fill("0.1")
    page.get_by_role("slider", name="Background").fill("0.5")
    assert number(page, "trust") == pytest.approx(4 / PLANES, abs=0.002)


def test_the_sentence_follows_the_trust(page: Any):
    page.get_by_role("slider", name="Height of bump 2").fill("0.01")
    page.get_by_role("slider", name="Width of bump 1").fill("0.5")
    assert "enough for the paper's filter" in page.text_content('[data-part="readout"]')
    page.get_by_role("slider", name="Width of bump 1").fill("2.5")
    assert "less than the 0.8" in page.text_content('[data-part="readout"]')


def test_the_script_draws_what_stood_there_before_it(chromium: Any, page: Any, tmp_path: Path):
    parts = ("score-curve", "others", "four")
    paths = lambda page: [numbers(page.get_attribute(f'[data-part="{part}"]', "d")) for part in parts]  # noqa: E731
    with opened(chromium, tmp_path / "regression.html", java_script_enabled=False) as still:
        for before, after in zip(paths(still), paths(page), strict=True):
            assert after == pytest.approx(before, rel=1e-5, abs=1e-6)
        assert shown(still) == shown(page)


def numbers(path: str) -> list[float]:
    return [float(text) for text in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", path.replace("h0", ""))]


@pytest.mark.parametrize("bump", [(1.9, 0.5, 1.0), (9.0, 0.5, 1.0), (3.0, 0.0, 1.0), (3.0, 0.5, -1.0)])
def test_refuses_bumps_that_cannot_be_drawn(bump: tuple[float, float, float]):
    with pytest.raises(ValueError, match="a bump must stand on the planes"):
        soft_argmin([bump])
