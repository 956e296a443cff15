"""British spelling in the prose (codespell finds the typing errors, and knows no country)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book").glob("*.md"), *ROOT.glob("*.md")])

NOT_PROSE = r"(?s)```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|<[^>]*>|https?://\S+"
AMERICAN = (
    r"(?i)\b(color\w*|center(s|ed)?|gray|neighbor\w*|behavior\w*|labeled|modeling|\w+yzed?"
    r"|(?!\w*(si|pri|sei)z)\w+iz(e|es|ed|ing|ation|er)s?)\b"
)


def prose(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(NOT_PROSE, " ", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_prose_is_british(path):
    assert [match.group() for match in re.finditer(AMERICAN, prose(path))] == []


def test_the_test_finds_american_words():
    text = "the color of the resized center, normalization of gray, sizes, colour, horizon, resizing"
    found = [word[0] for word in re.findall(AMERICAN, text)]
    assert found == ["color", "center", "normalization", "gray"]
