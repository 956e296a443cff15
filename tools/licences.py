"""Write the table in THIRD_PARTY.md: licence and source of every package that pip installs for the book.

    make licences        # or: .venv/bin/python tools/licences.py

It needs Python 3.11 or newer. Versions and hashes are book.lock's; torch's version is requirements.txt's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from email.message import Message
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "THIRD_PARTY.md"
MARK = "<!-- `make licences` writes what follows -->\n"

#: Names of one licence.
SAME = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD",
    "GNU General Public License (GPL)": "GPL",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "ISC license": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}

#: What the metadata leave out.
UNSTATED = {"axe-playwright-python": "MIT AND MPL-2.0"}  # the second is that of axe-core, inside

#: Installed on other systems or Pythons only. Metadata are not asked even if found: setuptools brings its own
#: copy of tomli.
NOT_HERE = {
    "appnope": "BSD",
    "async-timeout": "Apache-2.0",
    "cffi": "MIT",
    "colorama": "BSD-3-Clause",
    "decorator": "BSD",
    "exceptiongroup": "MIT",
    "pycparser": "BSD-3-Clause",
    "six": "MIT",
    "tomli": "MIT",
}


def main() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(text + MARK + table(), encoding="utf-8")


def table() -> str:
    wanted = asked_for()
    rows = [f"| `{name}` | {licence(name)} | {source(name)} | {wanted.get(name, '')} |" for name in locked()]
    head = ["| package | licence | source | asked for by |", "|---|---|---|---|"]
    return "\n".join(head + rows) + "\n"


def locked() -> list[str]:
    """Names of the packages in book.lock, and torch."""
    names = re.findall(r"^([\w.-]+)==", (ROOT / "book.lock").read_text(encoding="utf-8"), re.MULTILINE)
    return sorted({*names, "torch"})


def asked_for() -> dict[str, str]:
    """Who asks for a package in pyproject.toml: the package itself, or which of its extras."""
    import tomllib  # Python 3.11 or newer

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = defaultdict(list)
    for group, needs in {"the package": project["dependencies"], **project["optional-dependencies"]}.items():
        for need in needs:
            asked[re.match(r"[\w.-]+", need).group()].append(group)
    return {name: ", ".join(groups) for name, groups in asked.items()}


def described(name: str) -> Message:
    """Its metadata; none where it is not installed everywhere."""
    return Message() if name in NOT_HERE else metadata(name)


def licence(name: str) -> str:
    """As the package's metadata state it: by an expression, in a few words, or by classifiers."""
    if name in UNSTATED or name in NOT_HERE:
        return UNSTATED.get(name) or NOT_HERE[name]
    about = described(name)
    stated = about.get("License") or ""  # [...] raises, once importlib_metadata is loaded
    short = stated if len(stated) < 40 and re.search("Apache|BSD|ISC|MIT|MPL|PSF", stated) else ""
    expression = about.get("License-Expression") or short
    kinds = [kind for kind in about.get_all("Classifier", []) if kind.startswith("License")]
    names = [expression] if expression else [kind.rpartition(" :: ")[2] for kind in kinds]
    return " AND ".join(SAME.get(name, name) for name in names)


def source(name: str) -> str:
    """The address of its source or, where it states none, of its page."""
    about = described(name)
    stated = dict(link.split(", ", 1) for link in about.get_all("Project-URL", []))
    labels = ["source", "source code", "repository", "code", "github", "homepage", "download"]
    links = {label.lower(): link for label, link in stated.items()}
    found = [links[label] for label in labels if label in links]
    return next(iter(found), about.get("Home-page") or "")


if __name__ == "__main__":
    main()
