"""Batches by number: the same for every number of workers, shared out evenly among processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from small_scenes import small_scene

from mvsnet_edu import InputError
from mvsnet_edu.batches import Batches, collate, held_out_batches, load, spare_workers, training_batches
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.recipe import DataTable, NetworkTable, Recipe, StageTable, ValidationTable


class Numbered:
    """Samples without content, whose interval is their number."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, n: int) -> Sample:
        image = torch.full((1, 5, 3, 2, 3), n) + torch.arange(5).view(1, 5, 1, 1, 1) / 10
        pose, camera = torch.eye(4).expand(1, 5, 4, 4), torch.eye(3).expand(1, 5, 3, 3)
        return Sample(
            image, camera, pose, torch.ones(1, 4), torch.tensor([float(n)]), torch.ones(1, 1, 1), []
        )


def numbers(batch: Sample) -> list[int]:
    return batch.depth_interval.int().tolist()


def test_a_batch_holds_the_samples_one_after_the_other_with_the_first_views():
    samples = [Numbered(9)[n] for n in (4, 7, 2)]
    batch = collate(samples, views=3)
    assert batch.images.shape == (3, 3, 3, 2, 3) and batch.views == [0, 1, 2]
    assert batch.intrinsics.shape == (3, 3, 3, 3) and batch.extrinsics.shape == (3, 3, 4, 4)
    assert numbers(batch) == [4, 7, 2]
    torch.testing.assert_close(batch.images[1, :, 0, 0, 0], torch.tensor([7.0, 7.1, 7.2]))


def test_processes_take_turns_and_together_leave_nothing_out():
    shares = [Batches(Numbered(10**6), 2, rank=rank, ranks=3) for rank in range(3)]
    drawn = [numbers(share[k]) for k in range(4) for share in shares]
    assert sum(drawn, []) == list(range(24))
    assert shares[0].numbers(2, rank=1) == numbers(shares[1][2]) == [14, 15]


def test_a_stage_goes_on_with_the_samples_that_the_one_before_it_has_left():
    first = StageTable(5, 1.0, views=(2,), size=(64, 48), depth_num=8, batch=2, accumulate=3)
    recipe = Recipe((first, replace(first, batch=1), first))
    last = [training_batches(recipe, 0, rank, 2).numbers(5 * 3 - 1, rank) for rank in range(2)]
    following = [training_batches(recipe, 1, rank, 2).numbers(0, rank) for rank in range(2)]
    assert (last, following) == ([[56, 57], [58, 59]], [[60], [61]])
    assert training_batches(recipe, 2, 0, 2).numbers(0, 0) == [90, 91]


def test_all_processes_draw_the_same_number_of_views_in_the_proportion_that_is_asked_for():
    shares = [Batches(Numbered(10**6), 1, (3, 3, 3, 5), 7, rank=rank, ranks=2) for rank in range(2)]
    counts = [[share[k].images.shape[1] for k in range(400)] for share in shares]
    assert counts[0] == counts[1] and set(counts[0]) == {3, 5}
    assert 70 < Counter(counts[0])[5] < 130
    other = replace(shares[0], seed=8)
    assert counts[0][:50] != [other[k].images.shape[1] for k in range(50)]


def test_a_finite_set_is_gone_through_in_another_order_every_time():
    batches = Batches(Numbered(10), 4, seed=3, shuffle=True)
    drawn = sum((numbers(batches[k]) for k in range(10)), [])  # four times through
    epochs = [drawn[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert numbers(batches[3]) == drawn[12:16]  # whatever was asked for before
    assert numbers(replace(batches, seed=4)[0]) != numbers(batches[0])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_neither_the_batches_nor_their_order_nor_the_dice(workers):
    batches = Batches(SyntheticScenes(3, (64, 48), 8, views=2, uses=2, slots=2), views=(2,))
    before = torch.get_rng_state()
    drawn = list(load(batches, range(2, 7), workers))
    assert torch.equal(torch.get_rng_state(), before) and len(drawn) == 5
    for k, batch in enumerate(drawn, 2):
        assert torch.equal(batch.images, batches[k].images)
        assert torch.equal(batch.ground_truth, batches[k].ground_truth)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named_in_one_sentence_whoever_reads_it(workers):
    class Broken(Numbered):
        def __getitem__(self, n: int) -> Sample:
            if n == 1:
                raise InputError("depth.pfm ends too early.")
            return super().__getitem__(n)

    drawn = load(Batches(Broken(5)), range(5), workers)
    assert numbers(next(drawn)) == [0]
    with pytest.raises(InputError) as caught:
        next(drawn)
    assert str(caught.value) == "depth.pfm ends too early."


def test_spare_workers_never_draw_a_scene_twice(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(16), raising=False)

    class Slots(Numbered):
        slots = 64

    assert spare_workers(Batches(Numbered(5))) == 15
    assert spare_workers(Batches(Numbered(5)), processes=8) == 1
    assert spare_workers(Batches(Slots(5), 2)) == 8
    assert spare_workers(Batches(Slots(5), 2), processes=4) == 2
    assert spare_workers(Batches(Slots(5), 3)) == 1
    batches = Batches(Slots(5), 2, ranks=4)
    workers = spare_workers(batches)
    drawn_by = [{(n % 64): k % workers for n in batches.numbers(k, 1)} for k in range(64)]
    for slot in range(64):
        assert len({by[slot] for by in drawn_by if slot in by}) <= 1
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(1), raising=False)
    assert spare_workers(Batches(Numbered(5))) == 1


def test_generated_scenes_are_held_out_from_each_other():
    stage = StageTable(5, 1.0, views=(2, 3), size=(64, 48), depth_num=8, batch=2)
    data = DataTable(uses=3, slots=4, camera_error=0.25)
    recipe = Recipe((stage,), seed=5, data=data, validation=ValidationTable(samples=7))
    training, held_out = training_batches(recipe, 0, 1, 2), held_out_batches(recipe, 1, 2)
    drawn = training.samples
    assert (drawn.seed, drawn.uses, drawn.slots, drawn.camera_error) == (5, 3, 4, 0.25)
    assert (training.size, training.rank, training.ranks, training.views) == (2, 1, 2, (2, 3))
    assert held_out.samples.seed == SyntheticScenes.HELD_OUT > 10**6 * drawn.slots
    assert held_out.size == 1 and held_out[0].images.shape == (1, 3, 3, 48, 64)
    assert held_out.samples.camera_error == 0


@pytest.fixture(scope="module")
def two_scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate(("train", "val")):
        small_scene(folder / name, seed, views=4)
    return folder


def test_scene_folders_are_learnt_from_and_held_out(two_scenes):
    stage = StageTable(5, 1.0, views=(3,), depth_num=12, batch=2)
    data = DataTable("scenes", root=str(two_scenes / "train"), held_out=str(two_scenes / "val"))
    recipe = Recipe((stage,), data=data)
    training, held_out = training_batches(recipe, 0), held_out_batches(recipe)
    assert training.shuffle and len(training.samples) == 4
    batch = training[0]
    assert batch.images.shape == (2, 3, 3, 48, 64) and batch.depth_values.shape == (2, 12)
    assert (batch.ground_truth > 0).any()
    assert not torch.equal(held_out[0].images, training.samples[held_out.numbers(0, 0)[0]].images)


def test_dtu_and_blendedmvs_are_read_by_their_readers(monkeypatch):
    from mvsnet_edu import batches as module

    def reader(*arguments):
        return arguments

    monkeypatch.setattr(module, "DTU", reader)
    monkeypatch.setattr(module, "BlendedMVS", lambda *arguments: ("blended", *arguments))
    stage = StageTable(5, 1.0, views=(3, 4), depth_num=12)
    recipe = Recipe((stage,), data=DataTable("dtu", root="there"))
    assert training_batches(recipe, 0).samples == ("there", "train", 4, 12, None)
    assert held_out_batches(recipe).samples == ("there", "val", 4, 12, None)
    recipe = replace(recipe, data=DataTable("blendedmvs", root="there"))
    assert training_batches(recipe, 0).samples[0] == "blended"


def test_every_second_batch_of_a_recurrent_network_is_swept_from_the_back():
    """The same samples with the same interval; only the order of the planes differs."""
    stage = StageTable(steps=4, rate=1e-3, size=(64, 48), depth_num=8)
    recipe = Recipe((stage,), network=NetworkTable(kind="rmvsnet", refine=False))
    plain, alternating = training_batches(Recipe((stage,)), 0), training_batches(recipe, 0)
    for k in range(4):
        one, other = plain[k], alternating[k]
        turned = one.depth_values.flip(1) if k % 2 else one.depth_values
        assert torch.equal(other.depth_values, turned) and torch.equal(other.images, one.images)
        assert torch.equal(other.depth_interval, one.depth_interval)
    assert held_out_batches(recipe).alternate is False
