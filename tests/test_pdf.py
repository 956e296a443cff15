"""The one page that `make pdf` prints: anchors stay apart, links lead inside, nothing stays folded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

bs4 = pytest.importorskip("bs4", reason="comes with jupyter-book")
sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import pdf  # noqa: E402

PAGE = """<article class="bd-article"><h2 id="summary">Summary<a class="headerlink" href="#summary">#</a></h2>
<a href="#summary">here</a> <a href="loss.html#unit">there</a> <a href="loss.html">whole</a>
<a href="../_modules/x.html#f">code</a> <a href="https://example.org/a#b">web</a>
<details><summary>more</summary></details><script>1</script><img src="../_images/a.png"></article>"""

NAMES = ["book/welcome", "book/loss"]


@pytest.fixture
def article():
    return pdf.article(bs4.BeautifulSoup(PAGE, "html.parser"), "book/welcome", NAMES)


def test_anchors_name_their_page(article):
    assert article["id"] == "book-welcome--" and article.h2["id"] == "book-welcome--summary"


def test_links_lead_inside(article):
    links = {link.text: link.get("href") for link in article.find_all("a")}
    assert links == {
        "here": "#book-welcome--summary",
        "there": "#book-loss--unit",
        "whole": "#book-loss--",
        "code": None,
        "web": "https://example.org/a#b",
    }


def test_nothing_is_folded_and_no_script_is_left(article):
    assert article.details.has_attr("open") and article.script is None
    assert article.img["src"].startswith("file:///") and article.img["src"].endswith("/_images/a.png")


def test_pages_are_all_there_and_begin_with_the_welcome():
    names = pdf.pages()
    assert names[0] == "book/welcome" and len(names) == len(set(names)) > 10


def test_without_a_browser_it_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="No Chromium or Chrome"):
        pdf.main()
