"""Write book.lock: every package that requirements.txt brings along, its version, the hashes of its files.

    make lock        # or: python tools/lock.py path/to/uv

One file for Python 3.10 and newer and for every system. What it holds already stays as it is where
requirements.txt lets it: remove the file first to get everything as new as it can be.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "book.lock"

#: Not locked: torch's builds (CPU, CUDA, a machine's own) differ in their hashes, and each names the exact
#: versions of the CUDA libraries that it needs. requirements.txt has torch's version.
TORCH = r"(torch|nvidia-[\w-]+|cuda-[\w-]+)=="

HEADER = """\
# What requirements.txt brings along, but for torch: versions and hashes. `make lock` writes this file.
"""


def main() -> None:
    resolve(sys.argv[1])
    LOCK.write_text(HEADER + without_torch(LOCK.read_text(encoding="utf-8")), encoding="utf-8")


def resolve(uv: str) -> None:
    options = "--universal --python-version=3.10 --generate-hashes --no-annotate --no-header --quiet"
    command = [uv, "pip", "compile", *options.split(), "requirements.txt", "--output-file", str(LOCK)]
    subprocess.run(command, cwd=ROOT, check=True)


def without_torch(lock: str) -> str:
    """The same lock less torch's own lines; a package and its hashes are one line that goes on and on."""
    packages = re.split(r"\n(?! )", lock.strip())
    return "".join(package + "\n" for package in packages if not re.match(TORCH, package))


if __name__ == "__main__":
    main()
