"""What every chapter keeps to, read from its file; `make notebooks` and `make repeat` execute them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "book").glob("*.ipynb"))

Cell = dict[str, Any]
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}


def code_cells(path: Path) -> list[Cell]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


def tells_the_time(cell: Cell) -> bool:
    return "perf_counter() -" in cell["source"] and bool(re.search(r"glue\(|print\(", cell["source"]))


def names(cells: list[Cell]) -> list[str]:
    return [cell["id"] for cell in cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_has_no_stored_outputs(self, path):
        cells = code_cells(path)
        assert names([cell for cell in cells if cell["outputs"] or cell["execution_count"]]) == []

    def test_loses_no_line_of_prose(self, path):
        """A line that begins with a percent sign is a comment of MyST: the page breaks off there."""
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = [cell for cell in cells if cell["cell_type"] == "markdown"]
        assert names([cell for cell in prose if re.search(r"(?m)^\s*%", "".join(cell["source"]))]) == []

    def test_shows_short_cells(self, path):
        shown = [cell for cell in code_cells(path) if not HIDDEN & set(cell["metadata"].get("tags", []))]
        assert names([cell for cell in shown if len(re.findall(r"(?m)^.", cell["source"])) > 15]) == []

    def test_marks_what_a_second_run_will_not_repeat(self, path):
        timed = [cell for cell in code_cells(path) if tells_the_time(cell)]
        untagged = [cell for cell in timed if "nbval-ignore-output" not in cell["metadata"].get("tags", [])]
        assert names(untagged) == []
