"""The tables of the model cards are what benchmarks/card.py prints, and it notices when they are not."""

from __future__ import annotations

import functools
import sys
from itertools import islice
from pathlib import Path

import pytest

from mvsnet_edu.checkpoints import FOLDER
from mvsnet_edu.data import synthetic

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

CARD = """\
# A card

<!-- figures: held_out weights=mvsnet,rmvsnet samples=2 depth=initial -->
<!-- end -->

Between.

<!-- figures: held_out weights=mvsnet samples=2 -->
| old |
<!-- end -->
After.
"""


DRAW = functools.cache(synthetic.random_views)


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(BENCHMARKS))
    import card

    yield card
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def small(script, monkeypatch, tmp_path) -> Path:
    """A card of two tables, of scenes that take no time."""
    size = (32, 32), 8, 2
    monkeypatch.setattr(synthetic, "random_views", DRAW)
    monkeypatch.setattr(script.held_out, "SETTINGS", ((*size, 1.0), (*size, 0.5), (*size, 1e9)))
    (tmp_path / "card.md").write_text(CARD)
    return tmp_path / "card.md"


def test_the_shipped_cards_have_tables_of_known_kinds_with_their_headings(script):
    tables = [table for card in sorted(FOLDER.glob("*.md")) for table in script.tables(card.read_text())]
    assert {table.kind for table in tables} == set(script.KINDS)
    for table in tables:
        heading = list(islice(script.KINDS[table.kind](False, **table.settings), 2))
        assert table.lines[:2] == heading and len(table.lines) > 2


def test_tables_are_written_between_their_comments_and_confirmed(script, small, capsys):
    assert script.main([str(small)]) == 0
    text = small.read_text()
    first, second = script.tables(text)
    assert [len(first.lines), len(second.lines)] == [2 + 2 * (4 + 3), 2 + 2 * 4 * 2]
    assert [script.cells(row)[0] for row in first.lines[2:9]] == 4 * ["mvsnet"] + 3 * ["rmvsnet"]
    assert script.TABLE.sub("", text) == script.TABLE.sub("", CARD)
    capsys.readouterr()
    assert script.main(["--check", str(small)]) == 0
    assert "all 48 numbers confirmed" in capsys.readouterr().out and small.read_text() == text


def test_a_number_that_is_not_found_again_is_named(script, small, capsys):
    script.main([str(small)])
    *_, last = script.tables(small.read_text())[1].lines
    error = script.cells(last)[7]
    wrong = last.replace(error, f"{float(error) + 0.002:.3f}")
    small.write_text(small.read_text().replace(last, wrong))
    capsys.readouterr()
    assert script.main(["--check", str(small)]) == 1
    assert f"the card has {wrong}, but here it is {last}" in capsys.readouterr().out
    assert script.main(["--quick", str(small)]) == 0
    small.write_text(small.read_text().replace(f"{wrong}\n", ""))
    assert script.main(["--quick", str(small)]) == 1
    assert "the card has 17 lines, but here there are 18" in capsys.readouterr().out
