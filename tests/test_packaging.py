"""What a user installs and imports: few dependencies, all of them pinned for the book."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).parent.parent

IMPORT_ALONE = """
import sys
heavy = ["matplotlib", "PIL", "scipy", "plyfile", "tqdm", "safetensors", "IPython", "pycolmap"]
sys.modules.update(dict.fromkeys(heavy))  # importing any of them now fails
import mvsnet_edu
"""


def project_name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def test_import_needs_torch_and_numpy_only():
    result = subprocess.run([sys.executable, "-c", IMPORT_ALONE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_dependency_is_pinned_for_the_book():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = {project_name(line) for line in lines if "==" in line}
    needed = {project_name(requirement) for requirement in requires("mvsnet_edu")} - {"mvsnet-edu"}
    assert needed and needed <= pins, needed - pins
