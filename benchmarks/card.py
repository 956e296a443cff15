"""The figures of the model cards, computed again: `make figures`.

    python benchmarks/card.py            # computes the tables and writes them into the cards
    python benchmarks/card.py --check    # says which numbers of the cards it confirms; exit code 1 if not all
    python benchmarks/card.py --quick    # a minute or two: few samples, whose tables it only shows

A table stands in a card between two comments, the first of which says what it is made of. What was measured
on photographs that are not ours to ship has no such comments, and nobody can repeat it from here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import experiment
import held_out
import recurrent_memory
import torch

from mvsnet_edu.checkpoints import FOLDER
from mvsnet_edu.data.formats import atomic_write
from mvsnet_edu.models import MVSNet, RMVSNet, load_pretrained

import confidence  # isort: skip

TABLE = re.compile(
    r"(?P<begin><!-- figures: (?P<kind>\w+)(?P<settings>[^>]*) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.S
)

#: A number as the cards have it; what else a cell holds must be equal.
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")

#: With --quick: samples of the smallest size, and views of each scene in data/.
FEW, FEW_VIEWS = 2, 1


class Table(NamedTuple):
    """One table of a card.

    Attributes:
        kind: which of ``KINDS`` makes it.
        settings: what its comment says, such as weights=mvsnet samples=60.
        lines: as they stand there.
    """

    kind: str
    settings: dict[str, str]
    lines: list[str]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="compare, and write nothing")
    how.add_argument("--quick", action="store_true", help="few samples, and write nothing")
    parser.add_argument("cards", nargs="*", type=Path, default=sorted(FOLDER.glob("*.md")), metavar="CARD")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    wrong = 0
    for card in options.cards:
        for table in tables(card.read_text(encoding="utf-8")):
            new = list(KINDS[table.kind](options.quick, **table.settings))
            print("\n".join(["", f"{card.name}, {table.kind}:", *new]), flush=True)
            if options.check or options.quick:
                found = different(table.lines, new, labels_only=options.quick)
                wrong += len(found)
                print("\n".join(found or [verdict(new, options.quick)]), flush=True)
            else:
                put(card, table, new)
    return 1 if wrong else 0


def tables(text: str) -> list[Table]:
    """All that a card has between comments.

    >>> tables("<!-- figures: memory a=1 -->\\n| x |\\n<!-- end -->")
    [Table(kind='memory', settings={'a': '1'}, lines=['| x |'])]
    """
    return [
        Table(
            match["kind"],
            dict(word.split("=", 1) for word in match["settings"].split()),
            match["body"].splitlines(),
        )
        for match in TABLE.finditer(text)
    ]


def put(card: Path, table: Table, lines: list[str]) -> None:
    """Replace a table in its card, and nothing else."""

    def replaced(match: re.Match) -> str:
        this = tables(match[0])[0] == table
        return "".join([match["begin"], *(f"{line}\n" for line in lines), match["end"]]) if this else match[0]

    text = TABLE.sub(replaced, card.read_text(encoding="utf-8"))
    with atomic_write(card) as file:
        file.write(text.encode())


def verdict(lines: list[str], quick: bool) -> str:
    count = sum("." in number for line in lines for number in NUMBER.findall(line))  # the others are settings
    return "the rows are those of the card" if quick else f"all {count} numbers confirmed"


def different(card: list[str], here: list[str], labels_only: bool = False) -> list[str]:
    """A sentence for each row that does not agree: numbers may differ by one in their last digit.

    >>> rows = ["| a | L1 |", "|---|---|", "| 2 x | 1.42 |"]
    >>> different(rows, rows[:2] + ["| 2 x | 1.43 |"]), different(rows, rows[:2] + ["| 2 x | 1.44 |"])
    ([], ['the card has | 2 x | 1.42 |, but here it is | 2 x | 1.44 |'])
    """
    if len(card) != len(here):
        return [f"the card has {len(card)} lines, but here there are {len(here)}"]
    same = same_labels if labels_only else same_numbers
    pairs = zip(card, here, strict=True)
    return [f"the card has {one}, but here it is {other}" for one, other in pairs if not same(one, other)]


def same_labels(one: str, other: str) -> bool:
    """Whether two rows are the same but for their numbers."""
    return [NUMBER.sub("#", cell) for cell in cells(one)] == [NUMBER.sub("#", cell) for cell in cells(other)]


def same_numbers(one: str, other: str) -> bool:
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=False)
    return same_labels(one, other) and all(near(*pair) for pair in pairs)


def near(one: str, other: str) -> bool:
    """Whether two printed numbers differ by at most one in the last digit; whole ones must be equal."""
    digits = len(one.partition(".")[2])
    apart = abs(float(one.replace(",", "")) - float(other.replace(",", "")))
    return apart <= (1.01 * 10**-digits if digits else 0)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


# --- what the tables are made of ---------------------------------------------------------------------


def of_held_out(quick: bool, weights: str, samples: str, depth: str = "initial,refined") -> Iterator[str]:
    """held_out.py, at two of its three sizes."""
    networks = {name: load_pretrained(name) for name in weights.split(",")}
    several = len(networks) > 1
    labels = ["images", "planes", "views", "samples", "enlarged", "subsets", "depth map"]
    yield from heading(
        [*(["weights"] if several else []), *labels, "L1, intervals", "< 1 interval", "< 3 intervals"]
    )
    for row in held_out.rows(networks, FEW if quick else int(samples), held_out.SETTINGS[:2]):
        if row[7] in depth.split(","):
            yield line(row if several else row[1:])


def of_confidence(quick: bool, weights: str, samples: str) -> Iterator[str]:
    """confidence.py."""
    network = MVSNet.from_pretrained(weights)
    within = "within 1 interval: probability below 0.1"
    yield from heading(
        ["samples", "all pixels: within 1 % of the depth", "the 80 % most confident", within, "... above 0.9"]
    )
    names = {
        "held-out": "held-out, 160 x 128",
        "still_life": "`data/still_life`",
        "courtyard": "`data/courtyard`",
    }
    for name, scenes in experiment.everywhere(FEW if quick else int(samples)).items():
        chosen = islice(scenes, FEW_VIEWS if quick and name != "held-out" else None)
        found = confidence.judged(*confidence.pixels(network, chosen))
        shares = [found["all"]["within_1_percent"], found["within_1_percent"][7]]
        shares += [found["bins"][k].get("within_1_interval", 0.0) for k in (0, -1)]
        yield line([names[name], *(f"{100 * share:.1f} %" for share in shares)])


def of_memory(quick: bool) -> Iterator[str]:
    """recurrent_memory.py, whose largest number of planes takes a while."""
    counts = recurrent_memory.PLANES["RMVSNet"]
    yield from heading(["planes", *(f"{D:,}" for D in counts)])
    for kind in (RMVSNet, MVSNet):
        peaks = recurrent_memory.measured(kind.from_pretrained())
        yield line([f"`{kind.__name__.lower()}`", *(f"{peaks[D]:.1f}" if D in peaks else "" for D in counts)])


KINDS: dict[str, Callable[..., Iterator[str]]] = {
    "held_out": of_held_out,
    "confidence": of_confidence,
    "memory": of_memory,
}


def heading(names: list[str]) -> list[str]:
    return [line(names), "|" + "---|" * len(names)]


def line(values: list[str]) -> str:
    return f"| {' | '.join(values)} |"


if __name__ == "__main__":
    sys.exit(main())
