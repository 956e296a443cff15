"""The book's page about data sets: its recipes are recipes, its calls are calls, its figures are right."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from mvsnet_edu import data
from mvsnet_edu.recipe import read_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "datasets.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_recipe_can_be_read(tmp_path):
    kinds = []
    for block in blocks("toml"):
        (tmp_path / "recipe.toml").write_text(block)
        kinds.append(read_recipe(tmp_path / "recipe.toml").data.kind)
    assert kinds == ["dtu", "blendedmvs", "scenes"]


@pytest.mark.parametrize("call", re.findall(r"`((?:DTU|BlendedMVS|SceneFolders)\([^`]*\))`", PAGE))
def test_every_call_fits_its_reader(call):
    tree = ast.parse(call, mode="eval").body
    arguments = [ast.literal_eval(value) for value in tree.args]
    keywords = {each.arg: ast.literal_eval(each.value) for each in tree.keywords}
    inspect.signature(getattr(data, tree.func.id)).bind(*arguments, **keywords)


def test_the_example_gives_what_its_comments_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    names: dict = {}
    exec(example, names)
    claims = re.findall(r"^(\S.*?)  +# ([^:\n]+)", example, re.MULTILINE)
    assert len(claims) == 4
    for expression, value in claims:
        result = eval(expression, names)
        assert type(ast.literal_eval(value))(result) == ast.literal_eval(value), expression


@pytest.mark.parametrize("scale", [1.0, 1.06])
def test_the_last_plane_of_dtus_test_scans(scale):
    assert f"{int(425 + 2.5 * scale * 191)} mm" in PAGE
