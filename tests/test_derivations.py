"""The API reference, the chapters and the map: each public name is derived and mapped somewhere."""

from __future__ import annotations

import importlib
import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import mvsnet_edu
from mvsnet_edu import data, exercises

BOOK = Path(__file__).parent.parent / "book"
sys.path.insert(0, str(BOOK / "_ext"))
from derivations import DERIVED, SECTION  # noqa: E402

MAPPED = (BOOK / "original.md").read_text(encoding="utf-8")

#: `exercises` is a module and `Pairs` a type alias: neither has an entry of its own in the API reference.
PUBLIC = {
    f"{value.__module__}.{name}"
    for module in (mvsnet_edu, data)
    for name in module.__all__
    if (value := getattr(module, name)) is not exercises and name != "Pairs"
}


@cache
def text(page: str) -> str:
    path = BOOK / f"{page}.ipynb"
    if not path.exists():
        return (BOOK / f"{page}.md").read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def headings(page: str) -> set[str]:
    return {re.sub("[`$]", "", line) for line in re.findall(r"^##+ (.+)$", text(page), re.MULTILINE)}


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute)


def test_every_public_name_is_derived_somewhere():
    assert PUBLIC - set(SECTION) == set()


def test_no_name_is_derived_twice():
    names = [name for sections in DERIVED.values() for group in sections.values() for name in group.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", SECTION)
def test_what_is_derived_exists(name):
    assert exists(name)


@pytest.mark.parametrize(("page", "heading"), [(p, h) for p, sections in DERIVED.items() for h in sections])
def test_the_section_exists(page, heading):
    assert heading in headings(page)


def test_every_page_is_in_the_table_of_contents():
    contents = (BOOK.parent / "_toc.yml").read_text()
    assert [page for page in DERIVED if not re.search(rf"\bbook/{page}\b", contents)] == []


@pytest.mark.parametrize("page", DERIVED)
def test_a_page_mentions_what_it_derives(page):
    names = " ".join(DERIVED[page].values()).split()
    assert [name for name in names if name.rpartition(".")[2] not in text(page)] == []


def test_the_map_names_only_what_exists():
    names = re.findall(r"\{py:obj\}`~([\w.]+)`", MAPPED)
    assert len(names) > 50 and [name for name in names if not exists(name)] == []


def test_every_public_name_is_in_the_map():
    assert PUBLIC - set(re.findall(r"\{py:obj\}`~([\w.]+)`", MAPPED)) == set()
    assert "`Pairs`" in MAPPED and "{py:mod}`~mvsnet_edu.exercises`" in MAPPED
