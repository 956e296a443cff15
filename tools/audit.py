"""Ask pip-audit for known vulnerabilities in what book.lock holds, and in torch.

    make audit        # or: python tools/audit.py path/to/pip-audit

It fails where anything is vulnerable, and where anything could not be looked up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    packages = pins(ROOT / "book.lock") + pins(ROOT / "requirements.txt", "torch==")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(packages))
        file.flush()
        options = "--no-deps --disable-pip --progress-spinner=off --format=json --requirement".split()
        done = subprocess.run([sys.argv[1], *options, file.name], capture_output=True, text=True)
    problem = verdict(done.stdout)
    print(problem or f"Nothing is known against the {len(packages)} packages of the book.")
    sys.exit(bool(problem))


def pins(file: Path, start: str = "") -> list[str]:
    """Its requirements, without their hashes; all, or those that start so."""
    lines = re.findall(r"^[\w.-]+==[^\\#\n]+", file.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.strip() for line in lines if line.startswith(start)]


def verdict(report: str) -> str:
    """What is wrong, by pip-audit's report; empty where nothing is.

    >>> verdict('{"dependencies": [{"name": "six", "version": "1", "vulns": [{"id": "CVE-1"}]}]}')
    'six 1: CVE-1'
    >>> verdict("")
    'The vulnerability service cannot be reached from here: nothing was audited.'
    """
    packages = json.loads(report)["dependencies"] if report else []
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return "The vulnerability service cannot be reached from here: nothing was audited."
    unknown = [f"{package['name']} could not be audited" for package in packages if "vulns" not in package]
    holes = [(package, [hole["id"] for hole in package["vulns"]]) for package in audited if package["vulns"]]
    return "\n".join([f"{p['name']} {p['version']}: {', '.join(ids)}" for p, ids in holes] + unknown)


if __name__ == "__main__":
    main()
