"""After `mutmut run`: every error that the tests did not notice has to be explained in tests/mutants.md.

    make mutants
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parent.parent


def change(name: str) -> str:
    """The lines that a mutant takes away and puts in, without their indentation."""
    lines = [line for line in get_diff_for_mutant(name).splitlines() if line[:3] not in ("---", "+++", "@@ ")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines if line[:1] in ("-", "+"))


def main() -> int:
    """Print how many mutants there were, and those that survived unexplained; 1 if there are any."""
    explained = (ROOT / "tests" / "mutants.md").read_text()
    results: dict[str, int | None] = {}
    for path in sorted((ROOT / "mutants" / "mvsnet_edu").glob("*.py.meta")):
        results |= json.loads(path.read_text())["exit_code_by_key"]
    caught = [name for name, code in results.items() if status_by_exit_code[code] in ("killed", "timeout")]
    unknown = {name: change(name) for name in results if name not in caught}
    unknown = {name: lines for name, lines in unknown.items() if lines not in explained}
    for name, lines in unknown.items():
        print(f"\n{name}: {status_by_exit_code[results[name]]}\n{lines}")
    known = len(results) - len(caught) - len(unknown)
    print(f"\n{len(results)} mutants, {len(caught)} noticed, {known} explained, {len(unknown)} not")
    return bool(unknown)


if __name__ == "__main__":
    sys.exit(main())
