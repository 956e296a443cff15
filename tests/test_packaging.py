from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"


def project_name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def test_every_dependency_is_pinned_for_the_book():
    pins = {project_name(line) for line in REQUIREMENTS.read_text().splitlines() if "==" in line}
    needed = {project_name(requirement) for requirement in requires("mvsnet_edu")} - {"mvsnet-edu"}
    assert needed and needed <= pins, needed - pins
