"""What is asked for, pinned, locked and licensed agrees; the workflow calls what the Makefile has."""

from __future__ import annotations

import hashlib
import re
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import audit  # noqa: E402
import installed  # noqa: E402
import licences  # noqa: E402
import lock  # noqa: E402

PLATFORMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
FREE = {"MIT", "MIT-CMU", "BSD", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0", "ISC"}
FREE |= {"Zlib", "MPL-2.0", "CC0-1.0", "BSL-1.0", "Public Domain", "Apache-2.0 WITH LLVM-exception"}


def pins(name: str) -> list[Requirement]:
    lines = re.findall(r"^[\w.-]+==[^\\#\n]+", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return [Requirement(line) for line in lines]


def active(pinned: list[Requirement], environment: dict[str, str]) -> dict[str, str]:
    """Names and versions that hold there; one version each."""
    here = [need for need in pinned if need.marker is None or need.marker.evaluate(environment)]
    versions = {canonicalize_name(need.name): str(need.specifier).removeprefix("==") for need in here}
    assert len(versions) == len(here)
    return versions


def test_every_dependency_is_pinned_for_the_book():
    pinned = {canonicalize_name(need.name) for need in pins("requirements.txt")}
    needed = {canonicalize_name(Requirement(need).name) for need in requires("mvsnet_edu")} - {"mvsnet-edu"}
    assert needed and needed <= pinned, needed - pinned


@pytest.mark.parametrize("system", PLATFORMS)
@pytest.mark.parametrize("python", ["3.10.0", "3.10.13", "3.11.7", "3.12.1", "3.13.0", "3.14.0"])
def test_the_lock_agrees_with_the_pins_on_every_python(python, system):
    there = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    there |= {"sys_platform": system, "platform_system": PLATFORMS[system]}
    direct, locked = (active(pins(name), there) for name in ("requirements.txt", "book.lock"))
    del direct["torch"]
    assert len(direct) > 20 and direct.items() <= locked.items()


def test_every_locked_package_has_hashes_and_torch_is_left_to_pip():
    entries = re.split(r"\n(?=\S)", (ROOT / "book.lock").read_text(encoding="utf-8").strip())[1:]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", entry) for entry in entries)
    assert not any(re.match(lock.TORCH, entry) for entry in entries)


def test_the_lock_lacks_nothing_that_the_pinned_packages_need_here():
    """By the metadata of what is installed, not by the tool that writes the lock."""
    locked, seen = active(pins("book.lock"), default_environment()), set()
    waiting = [need for need in pins("requirements.txt") if applies(need)]
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        if (name, *need.extras) in seen or re.match(lock.TORCH, f"{name}=="):
            continue
        seen.add((name, *need.extras))
        assert locked[name] == version(name)
        waiting += [other for other in map(Requirement, requires(name) or []) if applies(other, *need.extras)]
    assert len(seen) > 100


def applies(need: Requirement, *extras: str) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def test_torch_and_its_hashes_leave_the_lock_together():
    numpy, torch, zipp = (f"{name}==1 \\\n    --hash=sha256:{name}\n" for name in ("numpy", "torch", "zipp"))
    assert lock.without_torch(numpy + torch + zipp) == numpy + zipp


def test_lowest_versions_are_the_lower_bounds():
    needs = ["numpy>=1.24", "tomli>=2; extra == 'train'", "jupyter-book<2,>=1.0.4"]
    assert installed.lowest(needs) == ["numpy==1.24", "tomli==2", "jupyter-book==1.0.4"]


def test_every_dependency_has_a_lower_bound():
    needs = [need for need in requires("mvsnet_edu") if not need.startswith("mvsnet")]
    assert len(installed.lowest(needs)) == len(needs)


def test_audit_is_content_only_where_everything_was_looked_up():
    good, bad = '{"name": "six", "version": "1", "vulns": []}', '{"name": "numpy", "skip_reason": "none"}'
    hole = good.replace("[]", '[{"id": "CVE-1"}]')
    assert audit.verdict(f'{{"dependencies": [{good}]}}') == ""
    assert audit.verdict(f'{{"dependencies": [{good}, {bad}]}}') == "numpy could not be audited"
    assert audit.verdict(f'{{"dependencies": [{hole}]}}') == "six 1: CVE-1"
    assert "nothing was audited" in audit.verdict(f'{{"dependencies": [{bad}]}}')
    assert "nothing was audited" in audit.verdict("")


def licence_rows() -> dict[str, str]:
    table = licences.PAGE.read_text(encoding="utf-8").partition(licences.MARK)[2]
    return dict(re.findall(r"^\| `([\w.-]+)` \| ([^|]+) \|", table, re.MULTILINE))


def test_every_package_of_the_lock_has_its_licence_and_all_but_three_are_permissive():
    rows = licence_rows()
    assert list(rows) == licences.locked()
    strict = {name for name, licence in rows.items() if not set(re.split(" AND | OR ", licence)) <= FREE}
    assert strict == {"plyfile", "codespell", "docutils"}  # docutils: one file of an editor's mode


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the table was written with Python 3.11")
def test_the_licences_are_those_of_the_installed_packages():
    written = licences.PAGE.read_text(encoding="utf-8").partition(licences.MARK)[2].splitlines()
    found = licences.table().splitlines()
    assert [row for row in written if row not in found] == [row for row in found if row not in written] == []


def test_what_others_made_is_unchanged_and_listed():
    vendor = ROOT / "book" / "_assets" / "vendor"
    sums = dict(line.split()[::-1] for line in (vendor / "SHA256SUMS").read_text().splitlines())
    files = {file.name for file in vendor.iterdir()} - {"SHA256SUMS", "README.md"}
    assert sums == {name: hashlib.sha256((vendor / name).read_bytes()).hexdigest() for name in files}
    page = licences.PAGE.read_text(encoding="utf-8")
    assert all(f"`book/_assets/vendor/{name}`" in page and digest in page for name, digest in sums.items())


def test_the_workflow_calls_targets_that_the_makefile_has():
    targets = re.findall(r"^([\w ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {name for line in targets for name in line.split()}
    called = set()
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {})
            versions = [*matrix.get("versions", []), *(row["versions"] for row in matrix.get("include", []))]
            steps = " ".join(step.get("run", "") for step in job["steps"])
            called |= {*re.findall(r"make (\w+)", steps), *versions}
    assert {"test", "book", "pages", "lowest", "newest", "audit"} <= called <= known
