"""The plane sweep shows torch's homographies and costs, and the browser warps as the package does."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from browser import opened
from cameras import pose, rotation
from figure_samples import DEPTHS, HEIGHT, WIDTH, make, photographs

from mvsnet_edu import backproject, homography_warp, plane_homographies, project, scale_intrinsics
from mvsnet_edu.figures import plane_sweep

IMAGES, K, E, (_, TRUTH, _) = photographs()


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(chromium, make("sweep").save(tmp_path / "sweep.html")) as page:
        yield page


def target(source: int, column: int, row: int, plane: int) -> np.ndarray:
    """The pixel in the source, without a homography: back-projected, then projected."""
    depth = torch.full((1, HEIGHT, WIDTH), DEPTHS[plane], dtype=torch.float64)
    points = backproject(depth, scale_intrinsics(K[:1], 0.25), E[:1])
    return project(points[0, row, column], K[source], E[source])[0].numpy()


def costs(column: int, row: int) -> np.ndarray:
    """(D,) variance of the three colours over the views, by numpy, averaged over the channels."""
    small = F.avg_pool2d(IMAGES.double(), 4)
    K4 = scale_intrinsics(K, 0.25)
    depths = torch.tensor([DEPTHS], dtype=torch.float64)
    views = [small[:1, :, None].expand(-1, -1, len(DEPTHS), -1, -1)]
    for v in (1, 2):
        H = plane_homographies(K4[:1], E[:1], K4[v : v + 1], E[v : v + 1], depths)
        views.append(homography_warp(small[v : v + 1], H))
    return np.var(torch.stack(views)[:, 0, :, :, row, column].numpy(), axis=0).mean(axis=0)


def agree(page: Any, column: int, row: int, plane: int, source: int = 1) -> None:
    text = page.text_content('[data-part="readout"]').replace("\N{MINUS SIGN}", "-")
    assert text.startswith(f"plane {plane + 1} of {len(DEPTHS)}, depth {DEPTHS[plane]:.3f} ")
    assert f"pixel ({4 * column + 2:.2f}, {4 * row + 2:.2f})" in text and f"source {source} at" in text
    found = re.search(r"at \((-?[\d.]+), (-?[\d.]+)\)(, outside)?", text)
    expected = target(source, column, row, plane)
    assert (float(found[1]), float(found[2])) == pytest.approx(tuple(expected), abs=0.0051)
    assert bool(found[3]) == bool((expected < 0).any() or (expected > [4 * WIDTH, 4 * HEIGHT]).any())
    curve = costs(column, row)
    shown = float(re.search(r"cost ([\d.]+)", text)[1])
    assert shown == pytest.approx(curve[plane], abs=6e-6 + curve.max() / 2**16)
    assert float(page.text_content('[data-part="cost-value"]')) == shown
    assert f"lowest at {DEPTHS[int(curve.argmin())]:.3f}" in text
    known = float(TRUTH[row, column])
    assert text.endswith(f"true depth {known:.3f}" if known else "true depth not measured")


def test_it_begins_where_it_was_told(page: Any):
    agree(page, 3, 1, 2)


def test_the_slider_moves_the_plane(page: Any):
    slider = page.get_by_role("slider", name="Plane")
    for plane in (0, 4, 1):
        slider.fill(str(plane))
        agree(page, 3, 1, plane)
    slider.press("ArrowRight")
    agree(page, 3, 1, 2)


def test_sources_take_turns(page: Any):
    page.get_by_role("combobox", name="Source").select_option(label="2")
    agree(page, 3, 1, 2, source=2)
    shown = page.locator('[data-part="source"]').evaluate_all("all => all.map(i => i.style.display)")
    assert shown == ["none", ""]
    page.get_by_role("combobox", name="Source").select_option(label="1")
    agree(page, 3, 1, 2, source=1)


def test_clicks_and_keys_choose_the_pixel(page: Any):
    stage = page.get_by_role("application")
    box = stage.bounding_box()
    for column, row in ((6, 2), (0, 0), (WIDTH - 1, HEIGHT - 1)):
        x, y = box["width"] * (column + 0.5) / WIDTH, box["height"] * (row + 0.5) / HEIGHT
        stage.click(position={"x": x, "y": y})
        agree(page, column, row, 2)
    stage.press("ArrowRight")
    stage.press("ArrowUp")
    agree(page, WIDTH - 1, HEIGHT - 2, 2)
    stage.press("Shift+ArrowLeft")
    agree(page, 0, HEIGHT - 2, 2)


def drag(page: Any, part: str, x: float, y: float) -> None:
    """From the middle of a frame to a place in it, from 0 to 1."""
    page.locator(f'[data-part="{part}"]').scroll_into_view_if_needed()
    box = page.locator(f'[data-part="{part}"]').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    page.mouse.up()
    page.mouse.move(box["x"] + 1, box["y"] + 1)  # let go: this must not move it


def test_the_plane_can_be_dragged_in_both_drawings(page: Any):
    drag(page, "cost", (3.0 - 2.5) / (7.5 - 2.5), 0.5)
    agree(page, 3, 1, 1)
    _, top, _, height = (float(n) for n in page.get_attribute('[data-part="above"]', "viewBox").split())
    drag(page, "above", 0.5, (-4.9 - top) / height)
    agree(page, 3, 1, 3)
    assert page.text_content('[data-part="above-value"]') == "z = 5.000"


def numbers(path: str) -> list[float]:
    return [float(text) for text in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", path)]


def strokes(path: str) -> list[float]:
    return numbers(path.replace("h0", ""))


def test_the_script_draws_what_stood_there_before_it(chromium: Any, page: Any, tmp_path: Path):
    names = ("curve", "true", "surface", "ray", "plane", "pixel")
    read = lambda page: [page.get_attribute(f'[data-part="{name}"]', "d") for name in names]  # noqa: E731
    with opened(chromium, tmp_path / "sweep.html", java_script_enabled=False) as still:
        before = read(still)
    for name, one, other in zip(names, before, read(page), strict=True):
        if name == "plane":  # "h" is relative
            assert numbers(other)[1] == numbers(one)[1]
        else:
            assert strokes(other) == pytest.approx(strokes(one), rel=2e-5, abs=5e-4)  # 16 bits


def test_the_surface_breaks_where_nobody_measured(page: Any):
    page.get_by_role("application").press("ArrowDown")
    assert page.get_attribute('[data-part="surface"]', "d").count("M") == 2
    for _ in range(3):
        page.get_by_role("application").press("ArrowRight")
    agree(page, 6, 2, 2)
    assert page.get_attribute('[data-part="true"]', "d") == ""


def waves() -> tuple[Any, ...]:
    """Two smooth pictures, and a source that is turned, rolled and moved."""
    torch.manual_seed(3)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    waves = [torch.sin(x / a + y / b) for a, b in ((9, 14), (-7, 11), (16, 6), (12, -9), (8, 20), (-15, 10))]
    images = 0.5 + 0.4 * torch.stack(waves).view(2, 3, 96, 128)
    K = torch.tensor([[110.0, 0, 61], [0, 112, 50], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    E = torch.stack([torch.eye(4).double(), pose(rotation(0.06, -0.1, 0.2), [0.5, -0.1, 0.15])])
    return images, K, E, torch.tensor([[3.0, 4.0, 6.0]], dtype=torch.float64)


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_the_browser_warps_as_the_package_does(chromium: Any, tmp_path: Path, plane: int):
    from PIL import Image

    images, K, E, depths = waves()
    figure = plane_sweep(images, K, E, depths[0])
    H = plane_homographies(K[:1], E[:1], K[1:], E[1:], depths)
    expected = homography_warp(images[1:].double(), H)[0, :, plane].movedim(0, -1).numpy()
    seen = homography_warp(torch.ones(1, 1, 96, 128).double(), H)[0, 0, plane].numpy() > 0.999
    seen[[0, -1]] = seen[:, [0, -1]] = False  # where the page's own edges shine through
    with opened(chromium, figure.save(tmp_path / "waves.html")) as page:
        page.get_by_role("slider", name="Plane").fill(str(plane))
        page.get_by_role("slider", name="Share").fill("100")
        page.add_style_tag(content=".mvs-sheets svg { display: none; }")
        shot = Image.open(io.BytesIO(page.locator('[data-part="stage"]').screenshot())).convert("RGB")
    shown = np.asarray(shot.resize((128, 96), Image.Resampling.BOX)) / 255
    error = np.abs(shown - expected).max(axis=-1)[seen]
    assert seen.mean() > 0.5 and np.abs(images[0].movedim(0, -1).numpy() - expected)[seen].mean() > 0.2
    assert error.mean() < 0.02 and np.quantile(error, 0.99) < 0.06


def test_the_modes(page: Any):
    style = lambda name: page.locator('[data-part="source"]').first.evaluate(f"e => e.style.{name}")  # noqa: E731
    assert (style("opacity"), style("mixBlendMode")) == ("0.5", "normal")
    page.get_by_role("slider", name="Share").fill("20")
    assert style("opacity") == "0.2"
    page.get_by_role("combobox", name="Show").select_option("difference")
    assert (style("opacity"), style("mixBlendMode")) == ("1", "difference")
    assert page.get_by_role("slider", name="Share").is_disabled()
    page.get_by_role("combobox", name="Show").select_option("flicker")
    for opacity in ("0", "1", "0"):
        page.wait_for_function(
            "o => document.querySelector('[data-part=source]').style.opacity === o", arg=opacity
        )
    page.get_by_role("combobox", name="Show").select_option("blend")
    page.wait_for_timeout(600)
    assert style("opacity") == "0.2"


def test_a_source_that_looks_away_says_so(chromium: Any, tmp_path: Path):
    away = E.clone()
    away[1] = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64)) @ E[0]
    with opened(chromium, plane_sweep(IMAGES, K, away, DEPTHS).save(tmp_path / "away.html")) as page:
        assert "source 1 at behind the camera" in page.text_content('[data-part="readout"]')
        assert "true" not in page.text_content('[data-part="readout"]')


def test_features_replace_the_colours():
    features = torch.rand(3, 7, 10, 16)
    figure = plane_sweep(IMAGES, K, E, DEPTHS, features=features)
    assert figure.data["grid"] == [16, 10] and figure.data["cost"]["shape"] == [len(DEPTHS), 10, 16]


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="the features are 5 x 8"):
        plane_sweep(IMAGES, K, E, DEPTHS, truth=TRUTH[1:])
    with pytest.raises(ValueError, match="outside of 8 x 5 pixels"):
        plane_sweep(IMAGES, K, E, DEPTHS, pixel=(8, 0))
