"""A plugin of pytest for `make repeat`: what of a built page's outputs is to be the same a second time.

Not what a cell glues into the prose, which is no output of the page; nor what libraries write past Python to
the terminal, which a kernel passes on when the book is built, and not under pytest.
"""

from __future__ import annotations

from typing import Any


def pytest_collectstart(collector: Any) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/text/plain", "stderr")
