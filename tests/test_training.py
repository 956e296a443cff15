"""The training loop: it learns, and goes on exactly where it was stopped."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mvsnet_edu import MVSNet
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.optimization import learning_rate
from mvsnet_edu.recipe import (
    DataTable,
    LossTable,
    OptimizerTable,
    Recipe,
    StageTable,
    ValidationTable,
)
from mvsnet_edu.training import evaluate, train

SMALL = {"size": (64, 48), "depth_num": 16}
STAGE = StageTable(steps=4, rate=1e-3, warm_up=2, batch=2, views=(2, 3), **SMALL)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """Four steps in this process."""
    data, watch = DataTable(uses=2, slots=4, workers=0), ValidationTable(every=2, samples=2)
    return Recipe((STAGE,), out=str(tmp_path / "run"), report=2, data=data, validation=watch)


def lines(recipe: Recipe) -> list[dict]:
    with open(f"{recipe.out}/log.jsonl") as file:
        return [json.loads(line) for line in file]


def test_training_learns_its_samples_by_heart_and_writes_weights_that_load(recipe):
    few = replace(recipe.data, uses=1000, slots=1)  # one scene for ever
    stage = replace(STAGE, steps=80, rate=3e-3, warm_up=5)
    recipe = replace(
        recipe,
        stage=(stage,),
        data=few,
        report=20,
        loss=LossTable(20),
        optimizer=OptimizerTable(ema=0.9),
        validation=ValidationTable(0, 1),
    )
    network = train(recipe, "cpu")
    reports = [line for line in lines(recipe) if "loss" in line]
    assert [line["step"] for line in reports] == [20, 40, 60, 80]
    assert reports[-1]["loss"] < 0.7 * reports[0]["loss"]
    loaded = MVSNet.from_pretrained(f"{recipe.out}/mvsnet.safetensors")
    ours, theirs = network.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    scenes = SyntheticScenes(SyntheticScenes.HELD_OUT, **SMALL, views=3, uses=1)
    measured = evaluate(network, [scenes[0]])
    assert lines(recipe)[-1]["held_out"] == pytest.approx(measured, rel=1e-5)


def test_a_finished_run_is_not_repeated(recipe):
    once = {name: value.clone() for name, value in train(recipe, "cpu").state_dict().items()}
    again = train(recipe, "cpu").state_dict()
    assert all(torch.equal(once[name], again[name]) for name in once) and len(lines(recipe)) == 4


def test_the_rate_rises_straight_and_falls_along_a_cosine():
    stage = StageTable(steps=100, rate=2.0, warm_up=10)
    assert learning_rate(stage, 5) == 1.0
    assert learning_rate(stage, 50) == pytest.approx(1.0)
    assert learning_rate(stage, 100) == pytest.approx(0.0)


def test_the_originals_rate_falls_by_a_tenth_every_ten_thousand_steps():
    stage = StageTable(steps=10**5, rate=1e-3, schedule="exponential")
    assert learning_rate(stage, 1) == 1e-3
    assert learning_rate(stage, 20_001) == pytest.approx(0.81e-3)
    assert learning_rate(stage, 5_001) == pytest.approx(1e-3 * 0.9**0.5)
