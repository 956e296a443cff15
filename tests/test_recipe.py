"""Recipes: what is misspelt or impossible is named, with its file and its key."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from mvsnet_edu import InputError
from mvsnet_edu.recipe import read_recipe, shipped_recipes

GOOD = """\
[data]
camera_error = 1
[optimizer]
kind = "rmsprop"
[[stage]]
steps = 5
rate = 1
views = [3, 5]
size = [64, 48]
[[stage]]
steps = 7
rate = 0.5
size = [96, 64]
batch = 4
"""


def written(folder, text: str):
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def test_a_recipe_is_read_into_the_types_of_its_fields(tmp_path):
    recipe = read_recipe(written(tmp_path, GOOD))
    first, second = recipe.stage
    assert (first.steps, first.rate, first.views, first.size) == (5, 1.0, (3, 5), (64, 48))
    assert type(first.rate) is float and type(recipe.data.camera_error) is float
    assert (second.batch, second.views, recipe.steps, recipe.out) == (4, (3,), 12, "runs/mine")
    assert recipe.optimizer.kind == "rmsprop" and recipe.start_from is None


@pytest.mark.parametrize("name", shipped_recipes())
def test_what_ships_can_be_read(name):
    recipe = read_recipe(name)
    assert recipe.steps > 0 and recipe.out == f"runs/{name}"


def test_only_the_network_that_answers_with_a_depth_is_trained_on_enlarged_images(tmp_path):
    good = GOOD.replace("views", "enlarge = [1, 2]\nviews")
    recurrent = f'[network]\nkind = "rmvsnet"\nrefine = false\n{good}'
    with pytest.raises(InputError, match=r'stage.enlarge must be .1. for network.kind = "rmvsnet"'):
        read_recipe(written(tmp_path, recurrent))


def test_the_papers_recipe():
    recipe = read_recipe("paper")
    (stage,), optimizer = recipe.stage, recipe.optimizer
    assert (optimizer.kind, stage.rate, stage.schedule, stage.batch) == ("rmsprop", 1e-3, "exponential", 1)
    assert (optimizer.clip, optimizer.ema, optimizer.weight_decay, recipe.loss.clamp) == (0, 0, 0, 0)
    assert (stage.views, stage.depth_num, recipe.data.kind, recipe.network.refine) == ((3,), 192, "dtu", True)


@pytest.mark.parametrize(
    "change, says",
    [
        (("steps = 5", "steps = 5\nstesp = 1"), "unknown key stage[0].stesp"),
        (("[data]", "[dates]"), "unknown key dates"),
        (("steps = 5", ""), "stage[0].steps is missing"),
        (("steps = 5", "steps = 0"), "stage[0].steps must be at least 1, not 0"),
        (("steps = 5", "steps = 5.0"), "stage[0].steps must be a whole number, not 5.0"),
        (("steps = 5", "steps = true"), "stage[0].steps must be a whole number, not True"),
        (("steps = 5", "steps = 5\nenlarge = [2, 0]"), "stage[0].enlarge must be at least 1, not 0"),
        (("rate = 1\n", "rate = 0\n"), "stage[0].rate must be positive, not 0.0"),
        (("rate = 1\n", "rate = nan\n"), "stage[0].rate must be positive, not nan"),
        (("rate = 1\n", "rate = inf\n"), "stage[0].rate must be a number, not inf"),
        (("rate = 1\n", 'rate = "1"\n'), "stage[0].rate must be a number, not '1'"),
        (("views = [3, 5]", "views = [3, 1]"), "stage[0].views must be at least 2, not 1"),
        (("views = [3, 5]", "views = []"), "stage[0].views must be at least 2, not 0"),
        (("views = [3, 5]", "views = 3"), "stage[0].views must be a list, not 3"),
        (("views = [3, 5]", "views = [3, 5.5]"), "stage[0].views[1] must be a whole number, not 5.5"),
        (("size = [64, 48]", "size = [64]"), "stage[0].size must be a list of 2, not [64]"),
        (("size = [64, 48]", "size = [64, 16]"), "stage[0].size must be at least 32, not 16"),
        (("size = [64, 48]", ""), "stage.size is missing"),
        (('"rmsprop"', '"sgd"'), "optimizer.kind must be one of adamw, rmsprop, not 'sgd'"),
        (('"rmsprop"', "[]"), "optimizer.kind must be one of adamw, rmsprop, not []"),
        (('"rmsprop"', '"adamw"\nema = 1'), "optimizer.ema must be below 1, not 1.0"),
        (('"rmsprop"', '"adamw"\nclip = -1'), "optimizer.clip must be at least 0, not -1.0"),
        (("[data]", 'data = 3\n[network]'), "data must be a table, not 3"),
        (("[data]", '[data]\nkind = "dtu"'), 'data.root is missing for kind = "dtu"'),
        (("[data]", '[data]\nroot = "x"'), 'data.root has no meaning for kind = "generated"'),
        (("[data]", '[data]\nkind = "scenes"\nroot = "x"'), 'data.held_out is missing for kind = "scenes"'),
        (("[data]", "[data]\nworkers = -1"), "data.workers must be at least 0, not -1"),
        (("[data]", "[compute]\nprecision = 16\n[data]"), "compute.precision must be one of 32-true, bf16"),
        (("[data]", '[network]\nkind = "rmvsnet"\n[data]'), "network.refine must be false for kind ="),
        (("[data]", '[loss]\nclamp = 20\n[network]\nkind = "rmvsnet"\nrefine = false\n[data]'),
         "loss.clamp has no meaning"),
        (("[[stage]]", "[[stages]]"), "unknown key stages"),
        (("[data]", "[data"), "no TOML file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_file(tmp_path, change, says):
    assert change[0] in GOOD
    path = written(tmp_path, GOOD.replace(change[0], change[1], 1 if change[0] != "[[stage]]" else 2))
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and says in message and "\n" not in message


def test_no_stage_and_no_recipe_are_refused(tmp_path):
    with pytest.raises(InputError, match="stage is missing"):
        read_recipe(written(tmp_path, "seed = 1"))
    with pytest.raises(InputError, match="stage must be at least 1, not 0"):
        read_recipe(written(tmp_path, "stage = []"))
    with pytest.raises(
        InputError, match="nothing.*no such recipe; the names that ship are mvsnet, paper, quick"
    ):
        read_recipe("nothing")


def test_only_what_changes_no_step_may_change(tmp_path):
    recipe = read_recipe(written(tmp_path, GOOD))
    before = json.loads(json.dumps(asdict(recipe)))  # as a checkpoint holds it
    first, second = recipe.stage
    harmless = replace(
        recipe,
        out="elsewhere",
        report=7,
        stage=(first, second, second),
        data=replace(recipe.data, workers=5),
        validation=replace(recipe.validation, every=3, samples=4),
    )
    assert recipe.changed(before) is None and harmless.changed(before) is None
    assert replace(recipe, seed=1).changed(before) == "seed"
    assert replace(recipe, stage=(first,)).changed(before) == "stage.1.steps"
    longer = replace(recipe, stage=(replace(first, steps=6), second))
    assert longer.changed(before) == "stage.0.steps"
    other_views = replace(recipe, stage=(replace(first, views=(3, 4)), second))
    assert other_views.changed(before) == "stage.0.views.1"
    assert replace(recipe, optimizer=replace(recipe.optimizer, clip=1.0)).changed(before) == "optimizer.clip"
