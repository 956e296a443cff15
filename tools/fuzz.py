"""Damaged files by the thousands for every reader and command: make fuzz.

A defect is any answer but a sound result or one sentence that names the file; so is a crash, a hang and a
case for which the memory grows by hundreds of megabytes. The last column tells how to see one again:
python tools/fuzz.py --seed 1 --only "^pair.txt$" --case 17
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile import Folder, Reader, Verdict, case, judge  # noqa: E402
from readers import READERS  # noqa: E402

PATIENCE = 300  # seconds without a word from a child


def main() -> int:
    """Try all cases, print the table; 1 if there are defects."""
    options = _options()
    torch.set_num_threads(1)
    readers = [reader for reader in READERS if re.search(options.only, reader.name)]
    shares = [0.2 if reader.costly else 1.0 for reader in readers]
    print(f"{'reader':32}{'cases':>7}{'results':>9}{'refusals':>10}{'defects':>9}{'ms':>7}", flush=True)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for reader, share in zip(readers, shares, strict=True):
            cases = round(options.cases * share / sum(shares))
            numbers = range(cases) if options.case is None else range(options.case, options.case + 1)
            total += _try(reader, numbers, options)
    print(f"{'all':32}{_row(total)}")
    return 1 if total["defect"] else 0


def _options() -> argparse.Namespace:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("--cases", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--seed", default="0", help="other cases")
    parser.add_argument("--only", default="", metavar="PATTERN", help="readers whose name it is found in")
    parser.add_argument("--case", type=int, metavar="N", help="this one alone, with what was said")
    parser.add_argument("--memory", type=float, default=6.0, metavar="GB", help="limit for each child")
    return parser.parse_args()


def _try(reader: Reader, numbers: range, options: argparse.Namespace) -> Counter[str]:
    """All cases of a reader, in children, and its line of the table."""
    files, start, counts = reader.seed(), time.monotonic(), Counter[str]()
    defects: dict[str, list[int]] = {}
    for number, verdict in _verdicts(reader, files, numbers, options):
        counts[verdict.kind] += 1
        if verdict.kind == "defect":
            defects.setdefault(verdict.said[:90], []).append(number)
        if options.case is not None:
            print(verdict)
    ms = 1000 * (time.monotonic() - start) / max(1, len(numbers))
    print(f"{reader.name:32}{_row(counts)}{ms:7.0f}", flush=True)
    for said, found in defects.items():
        print(f"    {len(found)} x {said} (--case {found[0]})", flush=True)
    return counts


def _row(counts: Counter[str]) -> str:
    return f"{sum(counts.values()):7}{counts['result']:9}{counts['refusal']:10}{counts['defect']:9}"


def _verdicts(
    reader: Reader, files: Folder, numbers: range, options: argparse.Namespace
) -> Iterator[tuple[int, Verdict]]:
    """Number and verdict of each case; a child that is lost is one, and the next one goes on."""
    at = numbers.start
    while at < numbers.stop:
        child, pipe = _child(reader, files, range(at, numbers.stop), options)
        lost = "ends the process"
        for line in _lines(pipe):
            if line is None:
                lost = "hangs"
                os.kill(child, signal.SIGKILL)
            else:
                yield at, Verdict(*json.loads(line))
                at += 1
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if at < numbers.stop:
            yield at, Verdict("defect", f"{lost} ({code})")
            at += 1


def _lines(pipe: int) -> Iterator[bytes | None]:
    """Whole lines that come out of a pipe, or None where none comes for long."""
    rest, part = b"", b" "
    while part:
        if not select.select([pipe], [], [], PATIENCE)[0]:
            yield None
        part = os.read(pipe, 1 << 16)
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
    os.close(pipe)


def _child(reader: Reader, files: Folder, numbers: range, options: argparse.Namespace) -> tuple[int, int]:
    """A process that tries cases and says a line about each, and the end of the pipe to listen at."""
    listen, speak = os.pipe()
    child = os.fork()
    if child:
        os.close(speak)
        return child, listen
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C have much to say
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(options.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with os.fdopen(speak, "w", buffering=1) as pipe:
        for number in numbers:
            verdict = judge(reader, case(reader, files, f"{options.seed} {number}"))
            print(json.dumps([verdict.kind, verdict.said[:500]]), file=pipe)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
