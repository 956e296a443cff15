"""The bytes that the memory explorer shows are those of Python, for every control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import opened

from mvsnet_edu.figures import memory_explorer
from mvsnet_edu.figures.memory import _SIZES, Formulation, _amount, _place, peak_bytes

ROWS = (Formulation("plain <all>", 98, 2), Formulation("streamed", 25.5))


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    figure = memory_explorer(ROWS, size=(640, 512), planes=192, views=5)
    with opened(chromium, figure.save(tmp_path / "memory.html")) as page:
        yield page


def agrees(page: Any, size: tuple[int, int], planes: int, views: int) -> None:
    for k, row in enumerate(ROWS):
        expected = peak_bytes(row, *size, planes, views)
        assert page.text_content(f'[data-part="value-{k}"]') == _amount(expected)
        width = page.locator(f'[data-part="bar-{k}"]').evaluate("bar => parseFloat(bar.style.width)")
        assert width == pytest.approx(_place(expected), abs=0.01)


def test_a_volume_has_four_bytes_for_each_channel_of_each_voxel():
    assert peak_bytes(Formulation("", 32), 644, 515, 10, 2) == 4 * 161 * 128 * (10 * 32 + 2 * 32)
    assert peak_bytes(Formulation("", 0, 3), 8, 4, 1, 4) == 4 * 2 * (3 * 3 + 4 * 32)


def test_it_begins_as_python_drew_it(page: Any):
    agrees(page, (640, 512), 192, 5)
    assert page.get_by_text("plain <all>").count() == 1


def test_sliders(page: Any):
    page.get_by_role("slider", name="Image").fill("5")
    page.get_by_role("slider", name="Planes").fill("512")
    agrees(page, _SIZES[5], 512, 5)
    page.get_by_role("slider", name="Views").fill("2")
    agrees(page, _SIZES[5], 512, 2)
    page.get_by_role("slider", name="Image").fill("0")
    page.get_by_role("slider", name="Planes").fill("16")
    agrees(page, _SIZES[0], 16, 2)
    assert "160 × 128 pixels, 16 planes, 2 views" in page.text_content('[data-part="readout"]')
    assert "0.02 million voxels" in page.text_content('[data-part="readout"]')
