"""The built book, as a reader on a train meets it: from ``file://``, with no network.

Skipped where the book is not built (`make book`) or no Chromium is found; MVSNET_EDU_CI=1 makes that fail.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import re
import shutil
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import pytest

import mvsnet_edu

ROOT = Path(__file__).parent.parent
HTML = ROOT / "_build" / "html"
VENDOR = ROOT / "book" / "_assets" / "vendor"

# A file name is no alternative text: it is what the builder writes where the cell gives none.
IMAGES_WITHOUT_ALT = """() => [...document.images]
    .filter(image => !image.alt || /[.](png|svg|jpe?g)$/.test(image.alt))
    .map(image => image.src.slice(-60))"""

UNRENDERED_MATHS = """() => [...document.querySelectorAll('.math')]
    .filter(maths => !maths.querySelector('mjx-container')
        || maths.querySelector('[data-mjx-error], [fill=red]'))  // an error, an unknown macro
    .map(maths => maths.textContent.slice(0, 60))"""


def skip_unless_ci(reason: str) -> NoReturn:
    (pytest.fail if os.environ.get("MVSNET_EDU_CI") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    if not (HTML / "index.html").exists():
        skip_unless_ci("the book is not built: run `make book`")
    templates = set((HTML / "_static").rglob("*.html"))  # parts of the theme
    return sorted(set(HTML.rglob("*.html")) - templates - {HTML / "index.html"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        skip_unless_ci("no Chromium on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


def open_page(browser: Any, path: Path, query: str = "", width: int = 1280) -> tuple[Any, list[str]]:
    """Open a page with the network cut; return it with the list of what goes wrong on it, now and later."""
    page, problems = browser.new_page(offline=True, viewport={"width": width, "height": 800}), []
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url[:99]}"))
    page.on("request", lambda request: is_remote(request.url) and problems.append(f"remote: {request.url}"))
    page.goto(path.as_uri() + query)
    page.evaluate("() => window.MathJax?.startup?.promise.then(() => {})")
    return page, problems


def only_bad(findings: dict[str, Any]) -> dict[str, Any]:
    return {name: finding for name, finding in findings.items() if finding}


def is_remote(url: str) -> bool:
    return urlsplit(url).scheme not in ("", "file", "data", "blob", "about")


def test_every_page_opens_without_a_network(pages: list[Path], browser: Any):
    found = {}
    for path in pages:
        page, problems = open_page(browser, path)
        problems += [f"no alt text: {image}" for image in page.evaluate(IMAGES_WITHOUT_ALT)]
        problems += [f"maths not rendered: {maths}" for maths in page.evaluate(UNRENDERED_MATHS)]
        page.close()
        found[path.relative_to(HTML).as_posix()] = problems
    assert only_bad(found) == {}


def test_no_chapter_scrolls_sideways_on_a_phone(pages: list[Path], browser: Any):
    overhang = {}
    for path in (path for path in pages if path.parent.name == "book"):
        page, _ = open_page(browser, path, width=375)
        overhang[path.name] = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        page.close()
    assert overhang and only_bad(overhang) == {}


def test_index_leads_to_the_first_page(pages: list[Path], browser: Any):
    page = browser.new_page(offline=True)
    page.goto((HTML / "index.html").as_uri())
    page.wait_for_url("**/book/welcome.html", timeout=10_000)


def test_search_finds_a_word(pages: list[Path], browser: Any):
    page, problems = open_page(browser, HTML / "search.html", "?q=homography")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    assert "Glossary" in page.inner_text("#search-results")
    assert not problems


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
    if is_remote(link):
        return False
    url = urlsplit(link)
    target = (path.parent / unquote(url.path)).resolve() if url.path else path
    if not url.fragment or target.suffix != ".html":
        return not target.exists()
    return not target.exists() or unquote(url.fragment) not in parse(target).anchors


def test_pages_load_nothing_from_the_network(pages: list[Path]):
    assert only_bad({path.name: list(filter(is_remote, parse(path).loads)) for path in pages}) == {}


def test_styles_load_nothing_from_the_network(pages: list[Path]):
    remote = re.compile(r"""(url\(|@import)\s*['"]?(https?:)?//""")
    sheets = list(HTML.rglob("*.css"))
    assert sheets and [sheet.name for sheet in sheets if remote.search(sheet.read_text())] == []


def test_no_link_is_broken(pages: list[Path]):
    assert only_bad({path.name: [u for u in parse(path).links if is_broken(u, path)] for path in pages}) == {}


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
