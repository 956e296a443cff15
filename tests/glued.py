"""A plugin of pytest for `make repeat`: what a cell glues into the prose is no output of a built page."""

from __future__ import annotations

from typing import Any


def pytest_collectstart(collector: Any) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/text/plain",)
