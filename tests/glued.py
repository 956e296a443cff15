"""A plugin of pytest for `make repeat`: what of a built page's outputs is to be the same a second time.

Not what a cell glues into the prose, which is no output of the page; nor what libraries write past Python to
the terminal, which a kernel passes on in the book's build and not under pytest. And as in the build, figures
come without the forms that need a kernel.
"""

from __future__ import annotations

import os
from typing import Any

from mvsnet_edu.figures.form import STILL

os.environ[STILL] = "1"


def pytest_collectstart(collector: Any) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/text/plain", "stderr")
