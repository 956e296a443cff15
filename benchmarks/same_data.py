"""Draw the scenes of ``data/`` anew and compare them with those in the repository, byte by byte.

python benchmarks/same_data.py
"""

from __future__ import annotations

import sys
from filecmp import cmpfiles
from pathlib import Path
from tempfile import TemporaryDirectory

from mvsnet_edu.cli import main

DATA = Path(__file__).parents[1] / "data"


def differing(ours: Path, theirs: Path) -> list[str]:
    """Files that are not the same in both folders, or not in both."""
    names = {
        str(path.relative_to(root)) for root in (ours, theirs) for path in root.rglob("*/*") if path.is_file()
    }
    _, different, missing = cmpfiles(ours, theirs, names, shallow=False)
    return sorted(different + missing)


if __name__ == "__main__":
    with TemporaryDirectory() as parent:
        drawn = Path(parent) / "data"
        if main(["make-data", str(drawn)]):
            sys.exit("make-data failed")
        bad = differing(DATA, drawn)
        if bad:
            sys.exit(f"different: {', '.join(bad)}")
        print("all files are the same")
