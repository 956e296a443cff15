"""The viewer draws the cloud as the camera sees it, and obeys mouse, touch, wheel and keys."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import opened
from figure_samples import make, patches
from PIL import Image

from mvsnet_edu.camera import project
from mvsnet_edu.figures import Viewpoint, point_cloud
from mvsnet_edu.figures.cloud import quantise, splat

RED, GREEN, BLUE = np.eye(3, dtype=bool)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("cloud").save(tmp_path_factory.mktemp("cloud") / "fused.html")


@pytest.fixture
def page(chromium: Any, saved: Path) -> Iterator[Any]:
    with opened(chromium, saved) as page:
        yield page


def canvas_colors(page: Any) -> np.ndarray:
    """(H, W, 3), the picture in the canvas after the next frame."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.locator("canvas").screenshot())).convert("RGB"))


def places(image: np.ndarray, color: np.ndarray) -> np.ndarray:
    """(H, W), where a picture has a pure colour."""
    return (image[..., color].min(axis=-1) > 200) & (image[..., ~color].max(axis=-1) < 60)


def middle(image: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Mean place (x, y) of a colour, as shares of the picture's height."""
    return np.argwhere(places(image, color)).mean(axis=0)[::-1] / len(image)


def readout(page: Any) -> tuple[int, int, float]:
    """Degrees to the right and above, and the distance."""
    text = page.text_content('[data-part="readout"]')
    pattern = r"(\d+)° (\w+) and (\d+)° (\w+) the first view, at ([\d.]+) times"
    turn, side, tilt, way, zoom = re.search(pattern, text).groups()
    return int(turn) * (-1) ** (side == "left"), int(tilt) * (-1) ** (way == "below"), float(zoom)


def test_the_first_picture_is_the_projection_by_the_camera(page: Any):
    points, colors, _ = patches()
    image = canvas_colors(page)
    height, width = image.shape[:2]
    focal = height / 2 / math.tan(math.radians(45) / 2)
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    pixels, _ = project(torch.from_numpy(points), intrinsics, torch.eye(4, dtype=torch.float64))
    for color in (RED, GREEN):
        of_color = pixels.numpy()[(colors == 255 * color).all(axis=1)]
        assert middle(image, color) * height == pytest.approx(of_color.mean(axis=0), abs=1.5)
        area = np.prod(of_color.max(axis=0) - of_color.min(axis=0))
        assert places(image, color).sum() == pytest.approx(area, rel=0.2)


def test_the_first_picture_is_the_static_one(page: Any):
    points, colors, _ = patches()
    image = canvas_colors(page)
    view = Viewpoint((0, 0, 0), (0, 0, 10), (0, -1, 0), 45.0, image.shape[1] / image.shape[0])
    still = splat(points, colors, view, make("cloud").data["size"], height=image.shape[0])
    for color in (RED, GREEN):
        ours, theirs = places(image, color), places(still[..., :3], color)
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.85


def test_near_points_hide_far_ones(page: Any):
    assert not places(canvas_colors(page), BLUE).any()
    for _ in range(4):
        page.locator("canvas").press("ArrowRight")
    assert places(canvas_colors(page), BLUE).any()


def test_keys_turn_zoom_and_reset(page: Any):
    canvas = page.locator("canvas")
    start = canvas_colors(page)
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        canvas.press(key)
    assert readout(page) == (10, 5, 1.0)
    assert np.abs(canvas_colors(page).astype(int) - start).mean() > 1
    canvas.press("+")
    assert readout(page) == (10, 5, 0.8)
    canvas.press("-")
    canvas.press("r")
    assert readout(page) == (0, 0, 1.0)
    assert np.array_equal(canvas_colors(page), start)


def test_seen_from_the_right_the_near_patch_goes_left_of_the_far_one(page: Any):
    before = middle(canvas_colors(page), GREEN)[0] - middle(canvas_colors(page), RED)[0]
    for _ in range(3):
        page.locator("canvas").press("ArrowRight")
    image = canvas_colors(page)
    expected = turned(math.radians(15))
    assert middle(image, GREEN)[0] - middle(image, RED)[0] == pytest.approx(expected, abs=0.01)
    assert expected > before


def turned(angle: float) -> float:
    """How far right of the red patch the green one lies, seen from that far right, in picture heights."""
    points, colors, _ = patches()
    target = np.array([0, 0, 10.0])
    # The camera goes to the right about the target and so looks to the left of where it looked.
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    seen = (points - target) @ rotation.T + target
    x = seen[:, 0] / seen[:, 2] / (2 * math.tan(math.radians(45) / 2))
    return x[(colors == 255 * GREEN).all(axis=1)].mean() - x[(colors == 255 * RED).all(axis=1)].mean()


def test_the_mouse_turns_and_moves_the_scene_with_it(page: Any):
    box = page.locator("canvas").bounding_box()
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def drag(dx: float, dy: float) -> None:
        page.mouse.move(*centre)
        page.mouse.down()
        page.mouse.move(centre[0] + dx, centre[1] + dy, steps=4)
        page.mouse.up()

    drag(-40, 0)
    turn, tilt, _ = readout(page)
    assert turn > 5 and tilt == 0
    page.get_by_role("button", name="Reset view").click()
    drag(0, 40)
    turn, tilt, _ = readout(page)
    assert turn == 0 and tilt > 5
    page.get_by_role("button", name="Reset view").click()
    before = middle(canvas_colors(page), GREEN)
    page.keyboard.down("Shift")
    drag(-60, 30)
    page.keyboard.up("Shift")
    assert readout(page) == (0, 0, 1.0)
    moved = (middle(canvas_colors(page), GREEN) - before) * box["height"]
    assert moved == pytest.approx([-60, 30], abs=2)  # the green patch is as far as the target


def test_the_wheel_scrolls_the_page_until_the_cloud_is_clicked(page: Any):
    page.set_viewport_size({"width": 800, "height": 500})
    canvas = page.locator("canvas")
    canvas.hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function("scrollY > 0")
    assert readout(page)[2] == 1.0
    canvas.click()
    page.mouse.wheel(0, -100)
    page.get_by_text("at 0.82 times").wait_for()


def test_double_click_and_buttons(page: Any):
    page.get_by_role("button", name="Nearer").click()
    page.get_by_role("button", name="Nearer").click()
    page.get_by_role("button", name="Farther").click()
    assert readout(page)[2] == 0.8
    page.locator("canvas").dblclick()
    assert readout(page) == (0, 0, 1.0)


def test_two_fingers_pinch(page: Any):
    fingers = """canvas => {
        const box = canvas.getBoundingClientRect();
        const x = box.left + box.width / 2, y = box.top + box.height / 2;
        canvas.setPointerCapture = () => {};
        const send = (type, id, dx) => canvas.dispatchEvent(new PointerEvent(
            type, {pointerId: id, pointerType: "touch", clientX: x + dx, clientY: y, buttons: 1}));
        send("pointerdown", 1, -20); send("pointerdown", 2, 20);
        send("pointermove", 1, -40); send("pointermove", 2, 40);
        send("pointerup", 1, -40); send("pointerup", 2, 40);
    }"""
    page.locator("canvas").evaluate(fingers)
    assert readout(page)[2] == 0.5


def test_points_grow_with_the_slider_and_nearness(page: Any):
    small = places(canvas_colors(page), GREEN).sum()
    page.get_by_role("slider", name="Point size").fill("2")
    assert places(canvas_colors(page), GREEN).sum() > 1.2 * small


def test_normals_can_be_painted(page: Any):
    page.get_by_role("combobox", name="Colour").select_option("normals")
    image = canvas_colors(page).reshape(-1, 3).astype(int)
    facing = np.abs(image - [128, 128, 0]).max(axis=1) < 4  # (0, 0, -1) as a colour
    assert facing.mean() > 0.02 and not places(canvas_colors(page), RED).any()


def test_the_canvas_is_sharp_on_a_dense_screen(chromium: Any, saved: Path):
    with opened(chromium, saved, device_scale_factor=2) as page:
        canvas_colors(page)
        assert page.eval_on_selector("canvas", "c => c.width / c.clientWidth") == pytest.approx(2, abs=0.01)


def test_without_webgl_the_picture_stays(chromium: Any, saved: Path, tmp_path: Path):
    path = tmp_path / "none.html"
    trap = "<script>HTMLCanvasElement.prototype.getContext = () => null;</script>"
    path.write_text(saved.read_text().replace("<body>", "<body>" + trap))
    with opened(chromium, path) as page:
        assert page.locator("img").is_visible() and page.get_by_text("no WebGL 2").is_visible()
        assert page.locator("canvas:visible, button:visible, input:visible").count() == 0


def test_print_shows_the_static_picture(page: Any):
    page.emulate_media(media="print")
    assert page.locator("img").is_visible() and not page.locator("canvas").is_visible()


def test_quantised_points_are_off_by_half_a_step_at_most():
    points = np.random.default_rng(1).normal(0, (1, 50, 1e-3), (4000, 3)) + (0, 1e5, 7)
    low, step, steps = quantise(points)
    assert steps.dtype == np.uint16 and steps.min() == 0 and steps.max() == 65535
    assert (np.abs(low + step * steps - points) <= step * (0.5 + 1e-6)).all()
    assert (step == np.ptp(points, axis=0) / 65535).all()


def test_thinning_is_seeded_uniform_and_keeps_points_with_their_colours():
    shade = np.arange(1000)
    points = np.stack([shade, 0 * shade, 0 * shade], axis=1)
    colors = np.stack([shade % 256, shade // 256, 0 * shade], axis=1).astype(np.uint8)
    thin = {seed: point_cloud(points, colors, max_points=300, seed=seed) for seed in (0, 0, 1)}
    assert thin[0].html == point_cloud(points, colors, max_points=300).html != thin[1].html
    data = thin[0].data
    x = data["low"][0] + data["step"][0] * unpacked(data["points"], "<u2")[:, 0]
    red, green, _ = unpacked(data["colors"], "u1").T.astype(int)
    assert data["count"] == 300 and np.abs(x - (red + 256 * green)).max() < 0.01
    assert x.mean() == pytest.approx(500, abs=50)


def unpacked(packed: dict[str, Any], dtype: str) -> np.ndarray:
    import base64

    return np.frombuffer(base64.b64decode(packed["bytes"]), dtype).reshape(packed["shape"])


def test_the_viewpoint_of_a_camera_is_that_camera():
    extrinsics = torch.eye(4)  # becomes a camera rolled by 90 degrees, not at the origin
    extrinsics[:2, :2], extrinsics[:3, 3] = torch.tensor([[0.0, -1], [1, 0]]), torch.tensor([0.3, -0.2, 1.0])
    intrinsics = torch.tensor([[91.3, 0, 40], [0, 91.3, 30], [0, 0, 1]])
    points = torch.tensor([[0.5, 0.4, 4.0], [-0.6, 0.2, 5.0], [0.1, -0.3, 6.0]])
    view = Viewpoint.of_camera(extrinsics, intrinsics, points)
    pixels, depth = project(points, intrinsics, extrinsics)
    assert view.aspect == pytest.approx(4 / 3) and np.median(depth) == pytest.approx(6.0)
    image = splat(points.numpy(), np.full((3, 3), 255, np.uint8), view, 0.0, height=60)
    drawn = {(int(x), int(y)) for y, x in np.argwhere(image[..., 3] > 0)}
    assert drawn == {(int(x), int(y)) for x, y in pixels}


def test_splat_draws_the_nearest_in_front_whatever_the_order():
    view = Viewpoint((0, 0, 0), (0, 0, 1), (0, -1, 0), 90.0, 1.0)
    points, colors = np.array([[0, 0, 2.0], [0, 0, 5.0]]), np.array([[9, 0, 0], [0, 9, 0]], np.uint8)
    for order in ([0, 1], [1, 0]):
        image = splat(points[order], colors[order], view, 1.2, height=20)
        assert image[10, 10].tolist() == [9, 0, 0, 255]
    assert 0 < (image[..., 3] > 0).sum() < 400


def test_points_behind_or_beside_the_camera_are_not_drawn():
    view = Viewpoint((0, 0, 0), (0, 0, 1), (0, -1, 0), 45.0, 1.0)
    points = np.array([[0, 0, -2.0], [9, 0, 1.0], [0, 0, 0.0]])
    assert splat(points, np.full((3, 3), 255, np.uint8), view, 0.1, height=20).max() == 0


def test_strays_and_gaps_are_survived():
    points, colors, normals = patches()
    points, normals = points.copy(), normals.copy()
    points[:4], normals[5] = np.nan, np.nan
    figure = point_cloud(points, colors, normals)
    assert figure.data["count"] == len(points) - 4
    assert "NaN" not in figure.html


def test_refuses_arrays_that_do_not_belong_together():
    with pytest.raises(ValueError, match="colors"):
        point_cloud(np.zeros((4, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="points must be"):
        point_cloud(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="finite"):
        point_cloud(np.full((4, 3), np.nan), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="eye"):
        Viewpoint((1, 1, 1), (1, 1, 1), (0, 1, 0)).frame()
