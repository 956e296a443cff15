"""The benchmark's own arithmetic, and that both sides of it compute the same."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mvsnet_edu import MVSNet, mvsnet_loss

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def _path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def measure():
    import measure

    return measure


@pytest.fixture
def speed():
    import speed

    return speed


@pytest.fixture
def plain():
    import plain

    return plain


def inputs(speed, batch=2, views=3, size=(128, 96), depth_num=16):
    """A sample in float64, where two formulations of the same agree to many digits; and its four inputs."""
    sample = speed.sample_for(speed.Case("test", "eval", size, depth_num, views, batch))
    names = "images", "intrinsics", "extrinsics", "depth_values", "ground_truth", "depth_interval"
    exact = replace(sample, **{name: getattr(sample, name).double() for name in names})
    return exact, (exact.images, exact.intrinsics, exact.extrinsics, exact.depth_values)


# --- the plain formulation -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["", "batch"])
@pytest.mark.parametrize("views", [2, 5])
def test_plain_and_package_estimate_the_same(norm, views, speed, plain):
    sample, seen = inputs(speed, views=views)
    network = speed.network_for("eval", norm).double()
    with torch.inference_mode():
        ours, theirs = network(*seen), plain.plain_forward(network, *seen)
    interval = sample.depth_interval.view(-1, 1, 1)
    assert ((ours.depth - theirs.depth) / interval).abs().max() < 1e-8
    assert ((ours.refined_depth - theirs.refined_depth) / interval).abs().max() < 1e-8
    agree = (ours.probability_map - theirs.probability_map).abs() < 1e-8
    assert agree.double().mean() > 0.99 and ours.depth[0].std() > interval.min()


def test_plain_and_package_learn_the_same(speed, plain):
    sample, seen = inputs(speed)
    gradients = []
    for forward in (MVSNet.__call__, plain.plain_forward):
        network = MVSNet.from_pretrained().to(speed.DEVICE).train().double()
        estimate = forward(network, *seen)
        loss = mvsnet_loss(estimate.depth, estimate.refined_depth, sample.ground_truth, sample.depth_interval)
        loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in network.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-8 * gradients[0].norm()


# --- measuring -----------------------------------------------------------------------------------------


def test_disturbed_samples_do_not_count(measure):
    assert measure.timing([1.0, 1.2, 9.0, 1.1, 1.3]) == (1.1, 3, 5)
    assert measure.timing([2.0]) == (2.0, 1, 1)
    assert measure.timing([1.0, 1.2]) == (1.1, 2, 2)


def test_programs_take_turns(measure):
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    samples = measure.in_turn(programs, rounds=3)
    assert calls == list("ababab") and {name: len(taken) for name, taken in samples.items()} == {
        "a": 3,
        "b": 3,
    }


def test_one_thread_is_timed_by_the_processors_clock(measure):
    import time

    assert measure.clock_name() == "processor"  # tests run in one thread
    assert measure.seconds(lambda: time.sleep(0.2)) < 0.1
    assert measure.clock_name("cuda") == "wall"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be forgotten")
def test_the_peak_of_a_call_is_what_it_takes_at_once(measure, tmp_path):
    """Twice 64 MB, of which the first were returned before; more was in use earlier, and in the parent."""
    before = torch.ones(40 << 20)  # 160 MB that the child must not inherit
    script = tmp_path / "take.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import measure, torch\n"
        "torch.ones(50 << 20)\n"
        "def take():\n"
        "    for _ in range(3): torch.ones(16 << 20).sum()\n"
        "print('noise'); print(measure.peak_growth(take))\n"
    )
    peak = measure.fresh_process(str(script))
    assert len(before) and 60e6 < peak < 80e6


def test_a_process_that_fails_is_heard(measure):
    with pytest.raises(RuntimeError, match="no such thing"):
        measure.fresh_process("-c", "raise SystemExit('no such thing')")


def test_a_slope_is_bytes_per_step(measure):
    assert measure.slope([1, 2, 4], [10.0, 13.0, 19.0]) == pytest.approx(3)


# --- the table -----------------------------------------------------------------------------------------


def row(speed, **changes):
    case = speed.Case("eval-small", "eval", (160, 128), 48, 5, faster=3)
    sides = {
        "plain": {"seconds": 2.0, "kept": 3, "taken": 3, "peak": 900_000_000},
        "package": {"seconds": 0.5, "kept": 3, "taken": 3, "peak": 100_000_000},
    }
    return {**case._asdict(), **sides, **changes}


def test_ratios_say_how_much_better_the_package_is(speed):
    assert speed.ratios(row(speed)) == (4.0, 9.0)
    assert speed.ratios(row(speed, plain=False)) is None


def test_the_table_has_both_sides_and_what_was_hoped_for(speed):
    line = speed.table([row(speed)]).splitlines()[1]
    assert "160 x 128" in line and "2 s 900 MB" in line and "4.0 x (3)" in line and line.endswith("9.0 x")
    alone = speed.table([row(speed, plain=False)]).splitlines()[1]
    assert " - " in alone and "100 MB" in alone and "x (" not in alone


def test_a_new_row_takes_the_place_of_the_old_one(speed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed.experiment, "RESULTS", tmp_path)
    here = {"device": "cpu", "norm": "shipped weights"}
    first, other = row(speed), row(speed, name="train-small")
    speed.save(tmp_path / "speed.json", [first, other], {"views": {"x": [1]}}, here)
    speed.save(tmp_path / "speed.json", [{**first, "rounds": 7}], None, here)
    speed.save(tmp_path / "speed.json", [first], None, {**here, "norm": "batch"})
    saved = json.loads((tmp_path / "speed.json").read_text())
    named = [(each["name"], each["norm"], each.get("rounds")) for each in saved["cases"]]
    assert named == [
        ("eval-small", "batch", None),
        ("eval-small", "shipped weights", 7),
        ("train-small", "shipped weights", None),
    ]
    assert len(saved["growth"]) == 1


def test_what_differs_is_not_compared(speed):
    speed.check({"mean": 1e-5, "most": 1e-3, "bins": 0.0})
    with pytest.raises(AssertionError, match="'most': 0.5"):
        speed.check({"mean": 1e-5, "most": 0.5, "bins": 0.0})
    with pytest.raises(AssertionError, match="nan"):
        speed.check({"loss": float("nan"), "gradient": 0.0})


def test_rounds_fill_the_budget(speed):
    assert [speed.rounds_within(60, one) for one in (100, 10, 0.1)] == [3, 6, 20]
