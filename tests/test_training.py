"""The training loop: it learns, goes on where it was stopped, and never sees a held-out scene."""

from __future__ import annotations

import json
import random
from itertools import islice, repeat

import pytest
import torch

from mvsnet_edu import MVSNet, mvsnet_regression_loss
from mvsnet_edu import training as training_module
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.training import _collate, _shuffled, evaluate, predict, train

SIZE = {"size": (64, 48), "depth_num": 16}


@pytest.fixture(autouse=True)
def small_scenes(monkeypatch):
    """Samples of a fortieth of the size, drawn in this process."""

    def batches(seed: int):
        samples = iter(SyntheticScenes(seed, **SIZE))
        while True:
            yield _collate([next(samples), next(samples)], views=3)

    monkeypatch.setattr(training_module, "_batches", batches)
    monkeypatch.setattr(training_module, "SyntheticScenes", Small)


class Small(SyntheticScenes):
    def __init__(self, seed: int = 0):
        super().__init__(seed, **SIZE)


def test_training_learns_one_batch_by_heart_and_writes_weights_that_load(tmp_path, monkeypatch):
    batch = _collate(list(islice(SyntheticScenes(1, **SIZE), 2)), views=3)
    monkeypatch.setattr(training_module, "_batches", lambda seed: repeat(batch))
    network = train(tmp_path, 40, report=10)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    loaded = MVSNet.from_pretrained(tmp_path / "mvsnet.safetensors")
    ours, theirs = network.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_finished_run_is_not_repeated(tmp_path):
    once = {name: value.clone() for name, value in train(tmp_path, 4, report=2).state_dict().items()}
    again = train(tmp_path, 4, report=2).state_dict()
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_a_stopped_run_goes_on_with_its_weights_its_optimiser_and_its_count(tmp_path):
    train(tmp_path, 4, report=2)
    before = torch.load(tmp_path / "state.pt", weights_only=True)
    train(tmp_path, 6, report=2)
    after = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (before["step"], after["step"]) == (4, 6) and after["seconds"] > before["seconds"]
    steps = {state["step"].item() for state in after["optimizer"]["state"].values()}
    assert steps == {6.0}


def test_evaluation_is_the_mean_over_the_held_out_samples():
    torch.manual_seed(0)
    network = MVSNet().eval()
    figures = evaluate(network, count=3)
    held_out = islice(SyntheticScenes(SyntheticScenes.HELD_OUT, **SIZE), 3)
    with torch.no_grad():
        expected = [
            mvsnet_regression_loss(predict(network, s).depth, s.ground_truth, s.depth_interval)
            for s in held_out
        ]
    names = ("initial_l1", "initial_less_one", "initial_less_three")
    torch.testing.assert_close(
        torch.tensor([figures[name] for name in names]),
        torch.tensor(expected).mean(dim=0),
        rtol=1e-5,
        atol=1e-6,
    )
    assert figures["refined_l1"] == pytest.approx(
        figures["initial_l1"], rel=1e-5
    )  # untrained: nothing to refine


def test_shuffling_keeps_every_sample_uses_each_twice_and_mixes_them():
    drawn = list(islice(_shuffled(range(10_000), random.Random(3), size=64), 2000))
    assert max(drawn.count(number) for number in set(drawn)) == 2
    assert set(range(900)) <= set(drawn)
    assert drawn != sorted(drawn) and abs(drawn[1000] - 500) < 200


def test_a_batch_holds_the_samples_one_after_the_other():
    samples = list(islice(SyntheticScenes(2, **SIZE), 3))
    batch = _collate(samples, views=4)
    assert batch.images.shape == (3, 4, 3, 48, 64) and batch.depth_interval.shape == (3,)
    assert torch.equal(batch.images[1], samples[1].images[0, :4])
    assert torch.equal(batch.ground_truth[2], samples[2].ground_truth[0])
