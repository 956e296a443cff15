"""Test the wheel as it is once installed: in a fresh environment, in a folder outside the checkout.

    make installed                      # beside the packages of .venv: a few tests, a minute or two
    make lowest PYTHON=python3.10       # with the lowest versions that pyproject.toml allows
    make newest PYTHON=python3.13       # with the newest

The wheel tested is the one in dist/. Of the checkout, everything but the package is copied.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Tests of the checkout and of the book.
ELSEWHERE = "packaging book derivations pdf launch links speed spelling".split()

#: What an installed package might lack: names, the command, and files beside the modules.
FEW = [f"test_{name}.py" for name in ("imports", "cli", "checkpoints", "recipe")]

CAME_FROM = """
import sysconfig, mvsnet_edu
from importlib.metadata import distribution
from pathlib import Path
module, site = Path(mvsnet_edu.__file__).resolve(), Path(sysconfig.get_path("purelib")).resolve()
assert module.is_relative_to(site), f"{module} is not in {site}"
assert "editable" not in (distribution("mvsnet_edu").read_text("direct_url.json") or "")
print("mvsnet_edu", mvsnet_edu.__version__, "comes from", module.parent)
"""

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("versions", choices=["book", "lowest", "newest"], help="of what the package needs")
    parser.add_argument("python", help="the interpreter; for the book's versions, that of .venv")
    arguments = parser.parse_args()
    wheel = next((ROOT / "dist").glob("*.whl"))
    with tempfile.TemporaryDirectory(prefix="mvsnet_edu_") as folder:
        outside = Path(folder) / "outside"
        copy_all_but_the_package(outside)
        python = environment(arguments.python, Path(folder) / "environment")
        install(python, wheel, arguments.versions)
        run(python, "-c", CAME_FROM, cwd=outside)
        try_the_tests(python, outside, FEW if arguments.versions == "book" else None)
        try_the_command(python.parent / "mvsnet-edu", outside)


def copy_all_but_the_package(outside: Path) -> None:
    skip = shutil.ignore_patterns(".*", "_build", "build", "dist", "runs", "__pycache__", "mvsnet_edu")
    shutil.copytree(ROOT, outside, ignore=skip)


def environment(python: str, folder: Path) -> Path:
    """A fresh virtual environment; its interpreter."""
    run(python, "-m", "venv", str(folder))
    return folder / "bin" / "python"


def install(python: Path, wheel: Path, versions: str) -> None:
    pip = [python, "-m", "pip", "install", "--quiet"]
    if versions == "book":
        see_packages_of_the_book(python)
        run(*pip, "--no-deps", wheel)
    elif versions == "lowest":
        pins = python.parent / "lowest.txt"
        pins.write_text("\n".join(lowest(needs(wheel))))
        run(*pip, f"{wheel}[test]", "--constraint", pins)
    else:
        run(*pip, f"{wheel}[test]")
    if versions != "book":
        run(python, "-m", "pip", "freeze")


def see_packages_of_the_book(python: Path) -> None:
    """Add the folder with .venv's packages; ours, editable there, cannot be seen through it."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    book, site = (output(which, "-c", ask) for which in (ROOT / ".venv" / "bin" / "python", python))
    (Path(site) / "book.pth").write_text(book + "\n")


def needs(wheel: Path) -> list[str]:
    """What the wheel says that it needs, extras included."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return re.findall(r"^Requires-Dist: (.+)$", archive.read(metadata).decode(), re.MULTILINE)


def lowest(requirements: list[str]) -> list[str]:
    """Each lower bound as a pin.

    >>> lowest(["numpy>=1.24", "tomli>=2; extra == 'train'", "jupyter-book<2,>=1.0.4"])
    ['numpy==1.24', 'tomli==2', 'jupyter-book==1.0.4']
    """
    bounds = (re.match(r"([\w.-]+)[^;]*>=([\w.]+)", requirement) for requirement in requirements)
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def try_the_tests(python: Path, outside: Path, few: list[str] | None) -> None:
    """All tests of the package with its doctests, or a few files of them."""
    tests = [f"tests/{name}" for name in few] if few else ["tests", "--pyargs", "mvsnet_edu"]
    ignored = [f"--ignore=tests/test_{name}.py" for name in ELSEWHERE]
    run(python, "-m", "pytest", "-n", "2", "--dist", "loadfile", *tests, *ignored, cwd=outside)


def try_the_command(command: Path, outside: Path) -> None:
    """From a scene to depth maps, and to the page that shows their points."""
    run(command, "--help", cwd=outside, stdout=subprocess.DEVNULL)
    run(command, "depth", "data/courtyard", "out", "--planes", "32", "--size", "160", "128", cwd=outside)
    loose = "--min-probability 0.1 --max-relative-depth 0.1".split()
    run(command, "fuse", "data/courtyard", "out", *loose, cwd=outside)
    assert len(list((outside / "out" / "depth").glob("*.pfm"))) == 5
    assert (outside / "out" / "fused.html").stat().st_size > 1e4


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(*command: str | Path, **options: object) -> None:
    """Run a command that knows nothing of this checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([str(part) for part in command], check=True, env=clean, **options)


if __name__ == "__main__":
    main()
