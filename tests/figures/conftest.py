"""Fixtures of the figures' tests: the browser, and each kind of figure in turn."""

from __future__ import annotations

import pytest
from browser import chromium  # noqa: F401
from figure_samples import KINDS, make

from mvsnet_edu.figures import Figure


@pytest.fixture(scope="module", params=KINDS)
def figure(request: pytest.FixtureRequest) -> Figure:
    return make(request.param)
