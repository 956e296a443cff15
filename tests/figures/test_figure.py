"""What every figure must keep: one element, nothing global, nothing from the network, names for controls."""

from __future__ import annotations

import inspect
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import opened, serious_findings
from figure_samples import KINDS, make

from mvsnet_edu import figures
from mvsnet_edu.figures import Figure
from mvsnet_edu.figures.figure import asset, pack
from mvsnet_edu.figures.pictures import color_table, colorize, data_uri
from mvsnet_edu.figures.plot import ticks

VOID = {"img", "input", "meta", "link", "br", "path", "line"}
SCRIPT_KIB = 12
FRAME_KIB = 64  # a figure without its data and pictures


class Tree(HTMLParser):
    """Checks that the tags of a document nest, and keeps its elements."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} is given twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_public_figure_is_among_those_tested_here():
    public = [getattr(figures, name) for name in figures.__all__]
    makers = [
        f for f in public if inspect.isfunction(f) and inspect.signature(f).return_annotation == "Figure"
    ]
    assert [f.__name__ for f in makers if f"{f.__name__}(" not in inspect.getsource(make)] == []
    assert len(makers) == len(KINDS) and [make(kind).kind for kind in KINDS] == list(KINDS)


def test_the_same_content_gives_the_same_html_and_other_content_another_key(figure: Figure):
    assert make(figure.kind).html == figure.html
    other = Figure(figure.kind, figure.title, figure.alt, figure.body, {**figure.data, "more": 1})
    key = re.compile(r'data-mvs="([0-9a-f]{12})"')
    assert key.findall(other.html) != key.findall(figure.html)


def test_the_html_is_one_wellformed_element_without_ids(figure: Figure):
    elements = Tree(figure.html).elements
    assert elements[0][0] == "figure" and sum(tag == "figure" for tag, _ in elements) == 1
    assert not [attributes for _, attributes in elements if "id" in attributes]


def test_nothing_points_outside(figure: Figure):
    assert not re.search(r"https?:|//[a-z]+\.|@import|\bimport\s*\(|fetch\s*\(|XMLHttpRequest", figure.html)


def test_pictures_and_controls_have_names(figure: Figure):
    elements = Tree(figure.html).elements
    images = [attributes for tag, attributes in elements if tag == "img"]
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in images)
    assert elements[0][1]["aria-label"] == figure.alt and elements[0][1]["role"] == "group"


def test_text_from_outside_is_escaped():
    mean = '"><b>&'
    figure = Figure("loss", mean, mean, "", {"text": "</script>"}, mean)
    assert "<b>" not in figure.html
    data = re.search(r'<script type="application/json">(.*?)</script>', figure.html)
    assert json.loads(data[1]) == {"text": "</script>"}


def test_scripts_stay_small(figure: Figure):
    assert len(asset("figure.js") + asset(figure.kind + ".js")) < SCRIPT_KIB * 1024


def test_the_frame_stays_small(figure: Figure):
    frame = re.sub(r"data:image/[^\"]+", "", figure.html)
    frame = re.sub(r'(?s)<script type="application/json">.*?</script>', "", frame)
    assert len(frame) < FRAME_KIB * 1024


def test_the_style_of_one_kind_does_not_reach_another():
    """Figures share a page: a rule names its kind, or begins with a class that no other kind uses."""
    styles = {kind: re.sub(r"(?s)/\*.*?\*/", "", asset(kind + ".css")) for kind in KINDS}
    classes = {kind: set(re.findall(r"\.mvs-[\w-]+", style)) for kind, style in styles.items()}
    for kind, style in styles.items():
        elsewhere = set().union(*(classes[other] for other in KINDS if other != kind))
        for selector in re.split(r",(?![^(]*\))", ",".join(re.findall(r"([^{};]+)\{", style))):
            first = re.search(r"\.mvs-[\w-]+", selector)
            assert f".mvs-{kind}" in selector or first is None or first[0] not in elsewhere, selector


def test_repr_is_the_alternative_text(figure: Figure):
    assert repr(figure) == f"Figure({figure.kind}: {figure.alt})"
    assert figure._repr_html_() == figure.html


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.float32])
def test_pack_keeps_every_bit_whatever_the_byte_order(dtype: type):
    values = np.arange(-3, 9).astype(dtype).reshape(3, 4)
    swapped = values.astype(values.dtype.newbyteorder(">"))
    assert pack(swapped) == pack(values) == pack(np.asfortranarray(values))


def test_colours_follow_matplotlib_and_rise_in_brightness():
    viridis = pytest.importorskip("matplotlib").colormaps["viridis"](np.arange(256))[:, :3]
    table = color_table("viridis")
    assert np.abs(table / 255 - viridis).max() < 0.02
    assert (np.diff(table @ [0.2126, 0.7152, 0.0722]) > -0.5).all()


def test_colorize_clips_and_marks_what_is_missing():
    table, values = color_table("diverging"), np.array([[-9.0, 2.0, 9.0, np.nan, np.inf]])
    expected = [table[0], table[255], table[255], [128] * 3, [128] * 3]
    assert (colorize(values, (-2.0, 2.0), "diverging") == np.array([expected])).all()


def test_flat_pictures_are_lossless_and_photographs_small():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert data_uri(np.zeros((9, 9, 3), np.uint8)).startswith("data:image/png")
    assert data_uri(noise).startswith("data:image/jpeg")


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-6.0, 6.0), (0.0, 0.037), (1e4, 1.3e4), (-0.7, 118.0)])
@pytest.mark.parametrize("most", [4, 5, 7])
def test_ticks_are_inside_even_and_few(limits: tuple[float, float], most: int):
    values = np.array(ticks(limits, most))
    assert 2 <= len(values) <= most and limits[0] <= values[0] and values[-1] <= limits[1]
    assert np.allclose(np.diff(values), values[1] - values[0])


@pytest.fixture(scope="module")
def one_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds on one page, the first twice, as a chapter may have them; in the frame of a saved figure."""
    path = make("loss").save(tmp_path_factory.mktemp("page") / "all.html")
    more = "".join(make(kind).html for kind in (*KINDS, KINDS[0]))
    path.write_text(path.read_text().replace("</main>", more + "</main>"))
    return path


def test_figures_share_a_page(chromium: Any, one_page: Path):
    with opened(chromium, one_page) as page:
        started = page.eval_on_selector_all(".mvs-fig", "all => all.map(figure => figure.dataset.on)")
        assert started == ["yes"] * (len(KINDS) + 2)


def test_scripts_leave_nothing_global(chromium: Any, one_page: Path, tmp_path: Path):
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><title>empty</title><link rel=icon href='data:,'>")
    names = "() => Object.getOwnPropertyNames(window).sort()"
    with opened(chromium, empty) as page:
        before = page.evaluate(names)
    with opened(chromium, one_page) as page:
        assert set(page.evaluate(names)) == set(before)


def test_require_js_does_not_confuse_them(chromium: Any, one_page: Path, tmp_path: Path):
    path = tmp_path / "require.html"
    trap = "<script>window.define = () => { throw Error('define was called'); }; define.amd = {};</script>"
    path.write_text(one_page.read_text().replace("<body>", "<body>" + trap))
    with opened(chromium, path) as page:
        assert page.locator('.mvs-fig:not([data-on="yes"])').count() == 0


@pytest.mark.parametrize("width", [375, 1280])
def test_figures_fit_the_window(chromium: Any, one_page: Path, width: int):
    with opened(chromium, one_page, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_control_has_a_name_and_takes_the_focus(chromium: Any, one_page: Path):
    nameless = """all => all.filter(e => e.offsetParent && !e.ariaLabel
        && !(e.labels && e.labels.length && e.labels[0].innerText.trim())
        && !(e.tagName === "BUTTON" && e.innerText.trim())).map(e => e.outerHTML)"""
    with opened(chromium, one_page) as page:
        controls = ".mvs-fig :is(input, select, button, canvas, [tabindex])"
        assert page.locator(controls).count() > 15
        assert page.eval_on_selector_all(controls, nameless) == []
        visible = page.locator(controls).locator("visible=true")
        assert set(visible.evaluate_all("all => all.map(e => e.tabIndex)")) == {0}


def test_without_scripts_a_picture_stands_and_no_dead_control_shows(chromium: Any, one_page: Path):
    with opened(chromium, one_page, java_script_enabled=False) as page:
        assert page.locator(".mvs-fig").count() == len(KINDS) + 2
        for k in range(len(KINDS) + 2):
            figure = page.locator(".mvs-fig").nth(k)
            assert figure.locator("img:visible, svg.mvs-frame:visible, .mvs-bars:visible").count() > 0
            assert figure.locator(":is(input, select, button, .mvs-cursor, .mvs-handle):visible").count() == 0


def test_every_slider_moves_something_by_key(chromium: Any, one_page: Path):
    """The figure's elements, or else its pixels, are not the same after a step."""
    step = "e => (e.value === e.max ? 'ArrowLeft' : 'ArrowRight')"
    with opened(chromium, one_page) as page:
        for figure in page.locator(".mvs-fig").all()[1:-1]:
            for slider in figure.locator("input[type=range]:visible").all():
                elements, pixels = figure.inner_html(), figure.screenshot()
                slider.press(slider.evaluate(step))
                if figure.inner_html() == elements:
                    assert figure.screenshot() != pixels, slider.evaluate("e => e.outerHTML")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Any, one_page: Path, theme: str):
    with opened(chromium, one_page, color_scheme=theme) as page:
        assert serious_findings(page, ".mvs-fig") == []


def test_print_shows_a_picture_and_no_control(chromium: Any, one_page: Path):
    with opened(chromium, one_page) as page:
        page.emulate_media(media="print")
        for figure in page.locator(".mvs-fig").all():
            assert figure.locator(":is(img, svg.mvs-frame, .mvs-bars):visible").count() > 0
            assert figure.locator(":is(input, select, button):visible").count() == 0


def luminance(color: str) -> float:
    channels = np.array([float(c) for c in re.findall(r"[\d.]+", color)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize("asked", [None, "light", "dark"])
def test_the_page_decides_on_the_theme_before_the_system(
    chromium: Any, one_page: Path, system: str, asked: str | None
):
    with opened(chromium, one_page, color_scheme=system) as page:
        if asked:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", asked)
        style = "e => { const s = getComputedStyle(e); return [s.backgroundColor, s.color]; }"
        paper, ink = map(luminance, page.eval_on_selector(".mvs-fig", style))
        assert (paper < ink) == ((asked or system) == "dark")
        assert contrast(paper, ink) > 7
        soft = page.locator(".mvs-y, .mvs-keys").evaluate_all(
            "all => all.map(e => getComputedStyle(e).color)"
        )
        assert min(contrast(paper, luminance(color)) for color in soft) > 4.5


def test_figures_start_in_jupyter_which_builds_them_detached(chromium: Any, tmp_path: Path):
    """JupyterLab sets the HTML of a detached element, makes its scripts anew, and then attaches it."""
    path = tmp_path / "lab.html"
    path.write_text("<!doctype html><title>lab</title><link rel=icon href='data:,'><body></body>")
    render = """html => {
        const host = document.createElement("div");
        host.innerHTML = html;
        for (const dead of host.querySelectorAll("script")) {
            const script = document.createElement("script");
            for (const { name, value } of dead.attributes) script.setAttribute(name, value);
            script.textContent = dead.textContent;
            dead.replaceWith(script);
        }
        document.body.replaceChildren(host);
        return host.firstElementChild.dataset.on;
    }"""
    with opened(chromium, path) as page:
        for kind in (*KINDS, KINDS[0]):
            assert page.evaluate(render, make(kind).html) == "yes"
