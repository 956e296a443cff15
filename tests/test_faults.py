"""A few of the faults of `make faults`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="Windows cannot fork")
pytest.importorskip("pycolmap")
pytest.importorskip("lightning_fabric")

TOOL = Path(__file__).parent.parent / "tools" / "faults.py"


def test_a_few_kills_full_disks_and_second_runs_of_each_command():
    few = ["--kills", "2", "--disks", "1", "--pairs", "1", "--processes", "0"]
    done = subprocess.run([sys.executable, str(TOOL), *few], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, f"{few}\n{done.stdout}\n{done.stderr}"
    found = dict(re.findall(r"^(\w+): (.*)$", done.stdout, re.MULTILINE))
    assert list(found) == ["train", "depth", "fuse", "reconstruct"]
    for counts in found.values():
        assert sum(int(count) for count in re.findall(r"(\d+) kills", counts)) >= 2
        assert re.search(r"disk", counts) and re.search(r"\d second runs", counts)
