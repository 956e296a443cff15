"""The built book, as a reader on a train meets it: from ``file://``, with no network.

Skipped where the book is not built (`make book`) or no Chromium is found; MVSNET_EDU_CI=1 makes that fail.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium, is_remote, opened, serious_findings, skip_unless_ci  # noqa: F401

import mvsnet_edu

ROOT = Path(__file__).parent.parent
HTML = ROOT / "_build" / "html"
VENDOR = ROOT / "book" / "_assets" / "vendor"

TEMPLATES = set((HTML / "_static").rglob("*.html"))  # parts of the theme
PAGES = sorted(set(HTML.rglob("*.html")) - TEMPLATES - {HTML / "index.html"})
CHAPTERS = [path for path in PAGES if path.parent.name == "book"]

# A file name is no alternative text: it is what the builder writes where the cell gives none.
IMAGES_WITHOUT_ALT = """() => [...document.images]
    .filter(image => !image.alt || /[.](png|svg|jpe?g)$/.test(image.alt))
    .map(image => image.src.slice(-60))"""

MATHS_ARE_READY = "() => window.MathJax?.startup?.promise.then(() => {})"

UNRENDERED_MATHS = """() => [...document.querySelectorAll('.math')]
    .filter(maths => !maths.querySelector('mjx-container')
        || maths.querySelector('[data-mjx-error], [fill=red]'))  // an error, an unknown macro
    .map(maths => maths.textContent.slice(0, 60))"""

DOLLARS = """() => [...document.querySelectorAll('article p, article li, article td')]
    .map(part => part.cloneNode(true))
    .map(part => (part.querySelectorAll('code, pre, .math').forEach(child => child.remove()), part))
    .map(part => part.textContent)
    .filter(text => /[$][^$]+[$]/.test(text))"""


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(HTML).as_posix())


@pytest.fixture
def book() -> Path:
    if not (HTML / "index.html").exists():
        skip_unless_ci("the book is not built: run `make book`")
    return HTML


# Each colour of code, or of a comment, with what lies behind it.
CODE_CONTRASTS = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, k) => {
        const c = rgb[k] / 255;
        return sum + weight * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    }, 0);
    const behind = (element) => {
        const color = channels(getComputedStyle(element).backgroundColor);
        return color.length === 3 || color[3] === 1 ? color : behind(element.parentElement);
    };
    const found = {};
    for (const element of document.querySelectorAll(".highlight span")) {
        const ink = getComputedStyle(element).color, [a, b] = [light(channels(ink)), light(behind(element))];
        found[ink] = Math.min(found[ink] ?? 21, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }
    return found;
}"""
SET_THEME = """theme => {
    document.documentElement.dataset.theme = theme;
    document.documentElement.dataset.mode = theme;
}"""


@each(PAGES)
def test_page_reads_well_without_a_network(path: Path, chromium: Any):  # noqa: F811
    """One visit for all that needs a browser, for formulas take a while: in light, in dark, on a phone."""
    with opened(chromium, path, reduced_motion="reduce") as page:  # no colour is caught while it changes
        page.evaluate(MATHS_ARE_READY)
        assert page.evaluate(UNRENDERED_MATHS) == []
        assert page.evaluate(DOLLARS) == []
        assert page.evaluate(IMAGES_WITHOUT_ALT) == []
        page.evaluate(SET_THEME, "light")
        assert serious_findings(page) == []
        assert low_contrasts(page) == {}
        page.evaluate(SET_THEME, "dark")
        assert serious_findings(page, rules=("color-contrast",)) == []
        assert low_contrasts(page) == {}
        if path in CHAPTERS:
            page.set_viewport_size({"width": 375, "height": 700})
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 375


def low_contrasts(page: Any) -> dict[str, float]:
    """Colours of code whose contrast is below what WCAG asks of text (AA)."""
    return {color: ratio for color, ratio in page.evaluate(CODE_CONTRASTS).items() if ratio < 4.5}


def test_index_leads_to_the_first_page(book: Path, chromium: Any):  # noqa: F811
    with opened(chromium, book / "index.html") as page:
        page.wait_for_url("**/book/welcome.html")


def test_search_finds_a_word(book: Path, chromium: Any):  # noqa: F811
    with opened(chromium, book / "search.html") as page:
        page.goto(f"{page.url}?q=homography")
        page.wait_for_selector("#search-results li a")
        assert "Glossary" in page.inner_text("#search-results")


class Page(HTMLParser):
    """The parts of a page that point somewhere: what it loads, where it links to, and its own anchors."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        self.loads += filter(None, [attributes.get("src")])
        if href := attributes.get("href"):
            (self.loads if tag == "link" else self.links).append(href)


parse = cache(Page)


def is_broken(link: str, path: Path) -> bool:
    url = urlsplit(link)
    if is_remote(link) or url.scheme == "data":  # a picture in a figure holds itself
        return False
    target = (path.parent / unquote(url.path)).resolve() if url.path else path
    if not url.fragment or target.suffix != ".html":
        return not target.exists()
    return not target.exists() or unquote(url.fragment) not in parse(target).anchors


@each(PAGES)
def test_page_loads_nothing_from_the_network(path: Path):
    assert list(filter(is_remote, parse(path).loads)) == []


@each(PAGES)
def test_page_has_no_broken_link(path: Path):
    assert [link for link in parse(path).links if is_broken(link, path)] == []


def test_styles_load_nothing_from_the_network(book: Path):
    remote = re.compile(r"""(url\(|@import)\s*['"]?(https?:)?//""")
    sheets = list(book.rglob("*.css"))
    assert sheets and [sheet.name for sheet in sheets if remote.search(sheet.read_text())] == []


def test_every_module_is_in_the_api_reference():
    listed = set(re.findall(r"automodule:: (\S+)", (ROOT / "book" / "api.md").read_text()))
    found = pkgutil.walk_packages(mvsnet_edu.__path__, "mvsnet_edu.")
    modules = {module.name for module in found if not module.ispkg} - {"mvsnet_edu.__main__"}
    in_listed_package = {name for name in modules if name.rpartition(".")[0] in listed}
    assert modules - listed - in_listed_package == set()


def test_vendored_files_are_what_they_were():
    lines = (VENDOR / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    assert sums == {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in sums}
    assert set(sums) == {path.name for path in VENDOR.iterdir()} - {"README.md", "SHA256SUMS"}
