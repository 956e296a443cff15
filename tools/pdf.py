"""Print the built book as one PDF: all pages in their order, one heading tree, links that lead inside.

    make pdf        # or: python tools/pdf.py, after `make book`
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parent.parent
HTML = ROOT / "_build" / "html"
OUT = ROOT / "_build" / "pdf"

#: What a screen needs and paper does not.
SCREEN_ONLY = "script, noscript, .headerlink, .mvs-live, .viewcode-link, .prev-next-footer, .copybtn"

STYLE = """
@page { size: A4; margin: 18mm 17mm 20mm 17mm; }
html { font-size: 9.5pt; }
body { background: white; }
article.bd-article { max-width: none; padding: 0; }
article.bd-article h1 { break-before: page; margin-top: 0; font-size: 2rem; }
article.bd-article h2 { font-size: 1.4rem; margin-top: 1.5rem; }
article.bd-article h3 { font-size: 1.15rem; margin-top: 1.2rem; }
h1, h2, h3 { break-after: avoid; break-inside: avoid; }
img, figure, tr, .admonition { break-inside: avoid; }
img { max-width: 100%; max-height: 22cm; object-fit: contain; }
.pst-scrollable-table-container { overflow: visible; }
details.hide > summary { display: none; }  /* "Hide it" */
table { font-size: 0.85em; }
div.cell div.cell_input pre, div.cell div.cell_output pre { font-size: 0.72em; white-space: pre-wrap; }
.front { text-align: center; padding-top: 7cm; }
.front img { height: 5cm; }
"""

FOOTER = """<div style="width: 100%; text-align: center; font: 8pt sans-serif; color: #666">
<span class="pageNumber"></span></div>"""


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("No Chromium or Chrome is on the path: install one, and `make pdf` prints the book with it.")
    if not (HTML / "index.html").exists():
        sys.exit(f"There is no built book in {HTML}: run `make book` first.")
    OUT.mkdir(exist_ok=True)
    (OUT / "book.html").write_text(one_page(), encoding="utf-8")
    print_page(chromium, OUT / "book.html", OUT / "book.pdf")
    print(f"The book is in {OUT / 'book.pdf'}.")


def pages() -> list[str]:
    """Names of all pages, in the order of the table of contents."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = (chapter["file"] for part in contents["parts"] for chapter in part["chapters"])
    return [contents["root"], *chapters]


def one_page() -> str:
    """The whole book as one HTML page: the head of a page with maths, a title, and every page's article."""
    names = pages()
    texts = {name: (HTML / f"{name}.html").read_text(encoding="utf-8") for name in names}
    soups = {name: BeautifulSoup(text, "html.parser") for name, text in texts.items()}
    articles = "".join(str(article(soup, name, names)) for name, soup in soups.items())
    with_maths = next(soup for soup in soups.values() if maths(soup))
    return f"""<!doctype html>
<html lang="en" data-theme="light" data-mode="light">
<head>{head(with_maths)}<style>{STYLE}</style></head>
<body>{front()}{articles}</body>
</html>"""


def maths(soup: BeautifulSoup) -> list[Tag]:
    return [script for script in soup.find_all("script") if "mathjax" in str(script).lower()]


def head(soup: BeautifulSoup) -> str:
    """Title, styles and MathJax of a page."""
    elements = [*soup.find_all("link", rel="stylesheet"), *maths(soup)]
    for element in elements:
        resolve(element, HTML / "book")
    title = f"<title>{config()['title']}</title>"
    return '<meta charset="utf-8">' + title + "".join(map(str, elements))


def config() -> dict[str, str]:
    return yaml.safe_load((ROOT / "_config.yml").read_text())


def front() -> str:
    logo = (ROOT / config()["logo"]).as_uri()
    return f"""<div class="front"><img src="{logo}" alt=""><p style="font-size: 2rem">{config()["title"]}</p>
<p>{config()["author"]}</p></div>"""


def article(soup: BeautifulSoup, name: str, names: list[str]) -> Tag:
    """A page's text with unique anchors, links within the one page, and all that is folded unfolded."""
    found = soup.select_one("article.bd-article")
    for element in found.select(SCREEN_ONLY):
        element.decompose()
    for element in found.find_all(id=True):
        element["id"] = anchor(name, element["id"])
    for element in found.find_all("details"):
        element["open"] = ""
    for element in found.find_all(src=True):
        resolve(element, (HTML / name).parent)
    for link in found.find_all("a", href=True):
        redirect(link, name, names)
    found["id"] = anchor(name, "")
    return found


def anchor(name: str, fragment: str) -> str:
    return f"{name.replace('/', '-')}--{fragment}"


def redirect(link: Tag, name: str, names: list[str]) -> None:
    """Lead a link to a page to that page's part of the one page; drop it where there is no such part."""
    url = urlsplit(link["href"])
    if url.scheme:
        return
    path = (HTML / name).parent / url.path
    target = path.resolve().relative_to(HTML).with_suffix("").as_posix() if url.path else name
    if target in names:
        link["href"] = "#" + anchor(target, url.fragment)
    else:
        del link["href"]


def resolve(element: Tag, folder: Path) -> None:
    """Make the address of a style, a script or a picture absolute."""
    for attribute in ("src", "href"):
        address = element.get(attribute)
        if address and not urlsplit(address).scheme:
            element[attribute] = (folder / urlsplit(address).path).resolve().as_uri()


def print_page(chromium: str, page_file: Path, pdf: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_context(offline=True).new_page()
        page.set_default_timeout(600_000)
        page.goto(page_file.as_uri())
        page.evaluate("() => MathJax.startup.promise.then(() => {})")
        page.pdf(
            path=pdf,
            prefer_css_page_size=True,
            print_background=True,
            outline=True,
            tagged=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
        )
        browser.close()


if __name__ == "__main__":
    main()
