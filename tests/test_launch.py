"""The notebooks beside the pages: the cell that they have for Colab installs what they need."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from own_notebooks import install_cell, launch_buttons  # noqa: E402

AFTERWARDS = """
from pathlib import Path

import mvsnet_edu
from mvsnet_edu.data import Scene

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "data" / "still_life").is_dir())
assert Scene.open(root / "data" / "still_life").views
assert Path(sys.prefix) in Path(mvsnet_edu.__file__).parents
"""


def run(python: Path | str, code: str, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", code], cwd=folder, check=True, env=environment)


@pytest.mark.skipif(not os.environ.get("MVSNET_EDU_CI"), reason="needs a package index, as CI has")
def test_install_cell_installs_all_that_a_chapter_needs(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    site = next((tmp_path / "env").rglob("site-packages"))
    # what the package needs is where these tests run; pip finds it there, and installs only the package
    (site / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    cell = "".join(install_cell(ROOT.as_uri())["source"])
    run(tmp_path / "env" / "bin" / "python", f"{cell}\n{AFTERWARDS}", tmp_path)


def test_install_cell_does_nothing_in_the_repository(tmp_path):
    (tmp_path / "data" / "still_life").mkdir(parents=True)
    (tmp_path / "book").mkdir()
    run(sys.executable, "".join(install_cell("nowhere")["source"]), tmp_path / "book")


def test_buttons_name_the_repository():
    group = launch_buttons("https://github.com/someone/something.git", "book/loss")
    colab, binder = (button["url"] for button in group["buttons"])
    assert colab.endswith("/github/someone/something/blob/gh-pages/book/loss.ipynb")
    assert "/gh/someone/something/main" in binder and binder.endswith("book/loss.ipynb")
