"""Headless Chromium for the tests of pages: no network, software WebGL, and all that goes wrong noted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

SOFTWARE_WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def skip_unless_ci(reason: str) -> NoReturn:
    (pytest.fail if os.environ.get("MVSNET_EDU_CI") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        skip_unless_ci("no Chromium on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=SOFTWARE_WEBGL)
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Any, path: Path, **context: Any) -> Iterator[Any]:
    """A page from the disk with the network cut; closing it fails if it sent a request or logged an error."""
    session = chromium.new_context(**{"offline": True, "viewport": {"width": 800, "height": 900}, **context})
    page, problems = session.new_page(), []
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: is_remote(request.url) and problems.append(request.url[:99]))
    page.set_default_timeout(60_000)  # a busy machine takes its time
    page.goto(path.as_uri())
    yield page
    session.close()
    assert problems == []


def serious_findings(page: Any, inside: str = "body", rules: tuple[str, ...] = ()) -> list[str]:
    """What axe-core calls serious or critical: the rule, and the first elements that break it.

    Formulas and code are left out: thousands of elements in a few colours, which take minutes.

    Args:
        page: an open page.
        inside: selector of the part to look at.
        rules: only these; by default all.
    """
    from axe_playwright_python.sync_playwright import Axe

    where = {"include": [[inside]], "exclude": [["mjx-container"], [".highlight"]]}
    options = {"resultTypes": ["violations"], "preload": False, **({"runOnly": list(rules)} if rules else {})}
    findings = Axe().run(page, where, options).response["violations"]
    return [
        f"{finding['id']}: {[node['html'][:200] for node in finding['nodes'][:3]]}"
        for finding in findings
        if finding["impact"] in ("serious", "critical")
    ]


def is_remote(url: str) -> bool:
    return urlsplit(url).scheme not in ("", "file", "data", "blob", "about")
