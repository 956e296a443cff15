"""Links that lead out of the book: their form. Whether they lead anywhere, `make links` asks the network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    *(ROOT / "book").glob("*.ipynb"),
    *(ROOT / "book").glob("*.md"),
    *(ROOT / "mvsnet_edu").rglob("*.py"),
    *(set(ROOT.glob("*.md")) - {ROOT / "THIRD_PARTY.md"}),  # whose links are the packages' own
    ROOT / "book" / "references.bib",
    ROOT / "CITATION.cff",
]
NOT_OURS_TO_CHECK = ("http://www.w3.org/", "https://github.com/OWNER/")  # a name space; a place-holder

# An address as our pages have it: a host with a dot, words, and no mark at its end that belongs to the text.
WELL_FORMED = re.compile(
    r"https://([a-z0-9-]+\.)+[a-z]{2,}(/[\w./~-]*)?(\?[\w=&-]+)?(#[\w-]+)?(?<![.,;])", re.ASCII
)
ON_GITHUB = re.compile(r"https://github\.com/[\w-]+/[\w.-]+(/(issues|pull)/\d+)?")
ARXIV = re.compile(r"arxiv\.org/abs/(\S+)")
ENTRY = re.compile(r"(?ms)^@\w+\{(?P<key>[^,]+),\n(?P<fields>.*?)^\}")
FIELD = re.compile(r"(?m)^  (\w+) = \{(.*)\},?$")


def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def links_in(text: str) -> list[str]:
    found = re.findall(r"https?://[^\s<>\"'`{}\\|]+", text)
    closed = (link[: link.index(")")] if ")" in link else link for link in found)
    return [link.rstrip(".,;:") for link in closed if not link.startswith(NOT_OURS_TO_CHECK)]


LINKS = {link: path.name for path in SOURCES for link in links_in(text_of(path))}
REFERENCES = {
    entry["key"]: dict(FIELD.findall(entry["fields"]))
    for entry in ENTRY.finditer(text_of(ROOT / "book" / "references.bib"))
}


def test_links_are_found():
    text = 'see [a](https://a.org/b), <https://c.org>, "https://d.org/e?f=1". Or http://www.w3.org/2000/svg'
    assert links_in(text) == ["https://a.org/b", "https://c.org", "https://d.org/e?f=1"]
    assert len(LINKS) > 10 and len(REFERENCES) > 50


@pytest.mark.parametrize("link", sorted(LINKS))
def test_link_is_well_formed(link: str):
    assert WELL_FORMED.fullmatch(link), LINKS[link]
    assert "github.com/" not in link or ON_GITHUB.fullmatch(link), LINKS[link]


def test_a_bad_link_would_be_noticed():
    bad = "http://a.org", "https://a", "https://a.org/b,", "https://a.org/ü", "https://a.org/a b"
    assert [link for link in bad if WELL_FORMED.fullmatch(link)] == []


def test_one_page_has_one_address():
    plain = [re.sub(r"^https://(www\.)?|(\.git)?/?$", "", link).lower() for link in LINKS]
    assert sorted(plain) == sorted(set(plain))


@pytest.mark.parametrize("key", [key for key, fields in REFERENCES.items() if "eprint" in fields])
def test_preprint_is_no_younger_than_its_entry(key: str):
    year, month, _ = re.fullmatch(r"(\d\d)(\d\d)\.(\d{4,5})", REFERENCES[key]["eprint"]).groups()
    assert 1 <= int(month) <= 12 and 2000 + int(year) <= int(REFERENCES[key]["year"])


def test_preprints_are_those_of_the_bibliography():
    known = [fields["eprint"] for fields in REFERENCES.values() if "eprint" in fields]
    assert len(known) == len(set(known))
    assert {found[1] for link in LINKS if (found := ARXIV.search(link))} <= set(known)


def test_digital_object_identifiers_are_well_formed():
    found = [fields["doi"] for fields in REFERENCES.values() if "doi" in fields]
    assert all(re.fullmatch(r"10\.\d{4,9}/[^\s{}]+", doi) for doi in found)


@pytest.mark.parametrize("key", sorted(REFERENCES))
def test_entry_is_complete(key: str):
    fields = REFERENCES[key]
    assert {"author", "title", "year"} <= fields.keys()
    assert fields["year"] in key or not re.search(r"\d{4}", key), "a key with another year"
    assert {"booktitle", "journal", "publisher", "howpublished"} & fields.keys()
    assert "--" in fields.get("pages", "--"), "pages want an en dash"
