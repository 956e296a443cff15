"""The training loop: it learns, shares its work, skips bad batches, and goes on exactly where it stopped."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from mvsnet_edu import InputError, MVSNet, mvsnet_loss, mvsnet_regression_loss, streaming
from mvsnet_edu import training as module
from mvsnet_edu.batches import Batches, held_out_batches, training_batches
from mvsnet_edu.data import synthetic
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.data.synthetic import SyntheticScenes
from mvsnet_edu.recipe import DataTable, LossTable, NetworkTable, OptimizerTable, Recipe, StageTable

from mvsnet_edu.recipe import ComputeTable, ValidationTable  # isort: skip
from small_scenes import small_scene

from mvsnet_edu.training import evaluate, predict, train

SMALL = {"size": (64, 48), "depth_num": 16}
STAGE = StageTable(steps=4, rate=1e-3, warm_up=2, batch=2, views=(2, 3), **SMALL)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """Four steps in this process."""
    data, watch = DataTable(uses=2, slots=4, workers=0), ValidationTable(every=2, samples=2)
    optimizer = OptimizerTable(ema=0.5)
    return Recipe(
        (STAGE,), out=str(tmp_path / "run"), report=2, data=data, validation=watch, optimizer=optimizer
    )


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def timeless(line: dict) -> dict:
    return {name: value for name, value in line.items() if name not in ("seconds", "steps_per_s", "waiting")}


def state(out: str) -> dict:
    return torch.load(Path(out) / "state.pt", weights_only=True)


def state_after(recipe: Recipe) -> dict:
    train(recipe, "cpu")
    return state(recipe.out)


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def staged(recipe: Recipe, **changes) -> Recipe:
    return replace(recipe, stage=(replace(recipe.stage[0], **changes),))


@pytest.fixture(autouse=True)
def _drawn_once(monkeypatch):
    """Drawing scenes takes longer than everything else here."""
    monkeypatch.setattr(synthetic, "random_views", DRAW)


DRAW = functools.cache(synthetic.random_views)


def distance(one: dict, other: dict, start: dict) -> float:
    """How far two trainings ended from each other, as a share of the way that they went."""
    way = sum((other[name] - start[name]).square().sum() for name in start)
    return (sum((one[name] - other[name]).square().sum() for name in start) / way).sqrt().item()


# --- learning


def test_training_learns_a_scene_by_heart_and_writes_weights_that_load(recipe):
    recipe = replace(
        staged(recipe, steps=80, rate=3e-3, warm_up=5, batch=1, views=(3,)),
        data=replace(recipe.data, uses=1000, slots=1),
        loss=LossTable(20),
        report=20,
        optimizer=OptimizerTable(ema=0.9),
        validation=ValidationTable(0, 1),
    )
    network = train(recipe, "cpu")
    reports = [line for line in lines(recipe.out) if "loss" in line]
    assert [line["step"] for line in reports] == [20, 40, 60, 80]
    assert reports[-1]["loss"] < 0.7 * reports[0]["loss"]
    assert equal(
        MVSNet.from_pretrained(f"{recipe.out}/mvsnet.safetensors").state_dict(), network.state_dict()
    )
    scenes = SyntheticScenes(SyntheticScenes.HELD_OUT, **SMALL, views=3, uses=1)
    assert lines(recipe.out)[-1]["held_out"] == pytest.approx(evaluate(network, [scenes[0]]), rel=1e-5)


def test_a_step_is_that_of_a_plain_loop(recipe):
    """Two stages, clipped AdamW, averaged weights; written out."""
    recipe = replace(recipe, stage=(STAGE, replace(STAGE, steps=2, rate=5e-4, batch=1)), loss=LossTable(20))
    averaged = train(recipe, "cpu").state_dict()
    torch.manual_seed(0)
    network = MVSNet().train()
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters())
    plan = [(0, 0, 5e-4), (0, 1, 5e-4), (0, 2, 5e-4 * (1 - 0.5**0.5)), (0, 3, 0), (1, 0, 2.5e-4), (1, 1, 0)]
    for stage, k, rate in plan:
        optimizer.param_groups[0]["lr"] = rate
        sample = training_batches(recipe, stage)[k]
        estimate = predict(network, sample)
        truth, reach = sample.ground_truth, 20 * sample.depth_interval.view(-1, 1, 1)
        maps = [
            depth.clamp(truth - reach, truth + reach) for depth in (estimate.depth, estimate.refined_depth)
        ]
        optimizer.zero_grad()
        mvsnet_loss(*maps, truth, sample.depth_interval).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        keep = min(0.5, (1 + k) / (10 + k))  # the average starts anew with the second stage
        expected = {n: keep * expected[n] + (1 - keep) * v for n, v in network.state_dict().items()}
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value, rtol=1e-4, atol=1e-6)


def test_evaluation_is_the_mean_over_the_samples():
    network = MVSNet().eval()
    scenes = SyntheticScenes(5, **SMALL, views=3)
    samples = [scenes[n] for n in range(3)]
    found = evaluate(network, samples)
    expected = []
    for sample in samples:
        depth = predict(network, sample).depth.detach()
        measured = sample.ground_truth > 0
        error = (depth - sample.ground_truth).abs()[measured].mean()
        expected.append([*mvsnet_regression_loss(depth, sample.ground_truth, sample.depth_interval), error])
    means = torch.tensor(expected).mean(dim=0).tolist()
    names = ("initial_l1", "initial_less_one", "initial_less_three", "initial_error")
    assert [found[name] for name in names] == pytest.approx(means, rel=1e-5)
    assert found["refined_l1"] == pytest.approx(found["initial_l1"], rel=1e-5)  # untrained: refines nothing


def test_accumulated_batches_are_one_large_batch(recipe):
    two = staged(recipe, batch=2, views=(3,))
    one = replace(staged(recipe, batch=1, accumulate=2, views=(3,)), out=recipe.out + "2")
    whole, parts = train(two, "cpu").state_dict(), train(one, "cpu").state_dict()
    torch.manual_seed(0)
    assert distance(parts, whole, MVSNet().state_dict()) < 0.01
    for line, other in zip(lines(two.out), lines(one.out), strict=True):
        if "loss" in line:  # less_one may differ: it is pooled over a batch
            assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_training_starts_from_given_weights(recipe, tmp_path):
    train(staged(recipe, steps=1), "cpu")
    first = MVSNet.from_pretrained(f"{recipe.out}/mvsnet.safetensors").state_dict()
    again = replace(staged(recipe, rate=1e-9), out=recipe.out + "2")
    again = replace(again, start_from=f"{recipe.out}/mvsnet.safetensors")
    second = train(again, "cpu").state_dict()
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    with pytest.raises(InputError, match="mvsnet.safetensors: its settings are .*'group'.* not those of"):
        train(replace(again, network=NetworkTable(norm="batch")), "cpu")


@pytest.mark.parametrize(
    "part, moves", [("refinement", {"refine_net"}), ("initial", {"feature_net", "cost_reg_net"})]
)
def test_a_stage_can_train_a_part_and_leave_the_rest_as_it_is(recipe, part, moves):
    """To the last bit; and afterwards everything learns again."""
    first, second = replace(recipe, stage=(STAGE,)), replace(STAGE, steps=2, rate=1e-2, train=part)
    before = {name: value.clone() for name, value in state_after(first)["network"].items()}
    after = state_after(replace(recipe, stage=(STAGE, second)))["network"]
    assert _moved(before, after) == moves
    last = state_after(replace(recipe, stage=(STAGE, second, STAGE)))["network"]
    assert _moved(after, last) == {"feature_net", "cost_reg_net", "refine_net"}


def _moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the network in which any weight changed."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_a_stage_can_enlarge_the_images(recipe, monkeypatch):
    """Or not, step by step: the features see both sizes, and validation sees the larger one."""
    seen, build = [], module._network

    def spied(recipe: Recipe) -> MVSNet:
        network = build(recipe)
        network.feature_net.register_forward_hook(lambda m, x, y: seen.append(tuple(x[0].shape[-2:])))
        return network

    monkeypatch.setattr(module, "_network", spied)
    recipe = staged(recipe, steps=5, enlarge=(1, 2))
    state_after(recipe)
    width, height = recipe.stage[0].size
    assert set(seen) == {(height, width), (2 * height, 2 * width)}
    assert seen[-1] == (2 * height, 2 * width)
    assert MVSNet.from_pretrained(f"{recipe.out}/mvsnet.safetensors").enlarge == 2


def test_bf16_keeps_the_variance_in_float32(recipe, monkeypatch):
    """Convolutions run in half precision; cameras, depths and what is read from the cost volume are whole."""
    seen: dict[str, set[torch.dtype]] = {"inputs": set(), "features": set(), "volume": set()}
    build = module._network

    def spied(recipe: Recipe) -> MVSNet:
        network = build(recipe)
        network.register_forward_pre_hook(lambda m, x: seen["inputs"].update(each.dtype for each in x))
        network.feature_net.register_forward_hook(lambda m, x, y: seen["features"].add(y.dtype))
        return network

    spread = streaming._spread
    monkeypatch.setattr(streaming, "available", lambda table: False)  # C code knows float32 only
    monkeypatch.setattr(streaming, "_spread", lambda x: seen["volume"].add(x[0].dtype) or spread(x))
    monkeypatch.setattr(module, "_network", spied)
    recipe = staged(recipe, depth_num=32)  # with 16, PyTorch 2.13's 64-channel convolution reads stray memory
    recipe = replace(recipe, compute=ComputeTable("bf16-mixed"), validation=ValidationTable(0, 1))
    train(recipe, "cpu")
    assert torch.bfloat16 in seen["features"] and seen["volume"] == seen["inputs"] == {torch.float32}
    whole = replace(recipe, compute=ComputeTable(), out=recipe.out + "2")
    train(whole, "cpu")
    half, full = lines(recipe.out)[0]["loss"], lines(whole.out)[0]["loss"]
    assert half == pytest.approx(full, rel=0.1) and half != full


# --- bad batches


class Spoilt:
    """Samples of which some hold a NaN."""

    def __init__(self, samples: SyntheticScenes, bad: Callable[[int], bool]):
        self.samples, self.bad = samples, bad

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, n: int) -> Sample:
        sample = self.samples[n]
        return replace(sample, images=sample.images * float("nan")) if self.bad(n) else sample


def spoil(monkeypatch, bad: Callable[[int], bool]) -> None:
    def spoilt(*arguments) -> Batches:
        batches = training_batches(*arguments)
        return replace(batches, samples=Spoilt(batches.samples, bad))

    monkeypatch.setattr(module, "training_batches", spoilt)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_batch_that_is_not_finite_is_named_and_skipped(recipe, monkeypatch, norm):
    recipe = replace(recipe, network=NetworkTable(norm=norm), validation=ValidationTable(0, 1))
    spoil(monkeypatch, lambda n: n == 5)  # in the third of four batches
    network = train(recipe, "cpu")
    skipped = [line for line in lines(recipe.out) if "skipped_samples" in line]
    assert [(line["step"], line["skipped_samples"]) for line in skipped] == [(3, [4, 5])]
    assert all(value.isfinite().all() for value in network.state_dict().values())
    held = state(recipe.out)
    assert all(value.isfinite().all() for value in held["network"].values()) and held["step"] == 4
    assert {int(each["step"]) for each in held["optimizer"]["state"].values()} == {3}
    second = [line for line in lines(recipe.out) if "loss" in line][1]
    assert second["step"] == 4 and second["loss"] < 100  # the mean over the one step that counts


def test_training_gives_up_when_it_goes_on(recipe, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 3)
    spoil(monkeypatch, lambda n: n >= 4)
    long = staged(recipe, steps=30)
    with pytest.raises(InputError, match=r"3 steps in a row .* samples \[8, 9\]") as caught:
        train(long, "cpu")
    assert long.out in str(caught.value)
    assert all(value.isfinite().all() for value in state(long.out)["network"].values())


def test_skipped_steps_between_good_ones_do_not_add_up(recipe, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 3)
    spoil(monkeypatch, lambda n: n // 2 % 3 != 2)  # two bad batches, a good one, ...
    train(staged(replace(recipe, validation=ValidationTable(0, 1)), steps=8), "cpu")
    assert sum("skipped_samples" in line for line in lines(recipe.out)) == 6


def test_an_infinite_loss_is_skipped_even_if_its_gradients_are_finite(recipe, monkeypatch):
    """As the gradient of |x| is; nothing but the loss tells."""
    good = module.clamped_loss
    monkeypatch.setattr(module, "clamped_loss", lambda *a: good(*a) + (torch.inf if next(count) == 1 else 0))
    count = iter(range(100))
    train(recipe, "cpu")
    assert [line["step"] for line in lines(recipe.out) if "skipped_samples" in line] == [2]


# --- stopping and going on


def test_a_finished_run_is_not_repeated(recipe):
    once = {name: value.clone() for name, value in train(recipe, "cpu").state_dict().items()}
    count = len(lines(recipe.out))
    again = train(recipe, "cpu").state_dict()
    assert equal(once, again) and len(lines(recipe.out)) == count == 4


def test_a_finished_run_goes_on_with_another_stage(recipe):
    longer = replace(recipe, stage=(STAGE, replace(STAGE, rate=5e-4)))
    straight = replace(longer, out=recipe.out + "2")
    train(recipe, "cpu")
    assert equal(train(longer, "cpu").state_dict(), train(straight, "cpu").state_dict())


def test_another_recipe_is_refused_by_the_name_of_what_changed(recipe):
    train(recipe, "cpu")
    with pytest.raises(InputError, match="run was begun with another optimizer.clip: put it back"):
        train(replace(recipe, optimizer=replace(recipe.optimizer, clip=1.0)), "cpu")
    with pytest.raises(InputError, match="begun with another stage.0.rate"):
        train(staged(recipe, rate=2e-3), "cpu")
    train(replace(recipe, report=1, validation=ValidationTable(1, 3)), "cpu")  # these are harmless


def test_data_that_are_not_there_leave_no_folder(recipe):
    with pytest.raises(InputError, match="nowhere"):
        train(replace(recipe, data=DataTable("dtu", root="nowhere")), "cpu")
    assert not Path(recipe.out).exists()


CONFIG = """\
report = 5
[data]
kind = "scenes"
root = "{root}/training"
held_out = "{root}/held_out"
workers = {workers}
[optimizer]
kind = "{kind}"
ema = 0.9
[validation]
every = 5
samples = 2
[[stage]]
steps = {steps}
rate = 1e-3
warm_up = 2
batch = {batch}
views = [2, 3]
depth_num = 16
[[stage]]
steps = {more}
rate = 1e-3
batch = {batch}
depth_num = 16
train = "refinement"
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Two folders with a scene each."""
    root = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate(("training", "held_out")):
        small_scene(root / name, seed)
    return root


def command(scenes: Path, out: Path, workers: int = 0, **changes) -> list[str]:
    settings = {"kind": "adamw", "steps": 7, "more": 3, "batch": 1} | changes
    config = out.with_suffix(".toml")
    config.write_text(CONFIG.format(root=scenes, workers=workers, **settings))
    words = [sys.executable, "-m", "mvsnet_edu", "train", str(config)]
    return [*words, "--out", str(out), "--device", "cpu"]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def run(words: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, scenes) -> Path:
    """Ten steps at one go."""
    out = tmp_path_factory.mktemp("straight") / "run"
    done = run(command(scenes, out))
    assert done.returncode == 0, done.stderr
    return out


def same_run(one: Path, other: Path) -> bool:
    first, second = state(one), state(other)
    assert first["step"] == second["step"] == 10
    same_log = [timeless(line) for line in lines(one)] == [timeless(line) for line in lines(other)]
    kept = ("network", "average")
    weights = [(first[name], second[name]) for name in kept]
    momenta = [
        (first["optimizer"]["state"][k], second["optimizer"]["state"][k]) for k in first["optimizer"]["state"]
    ]
    bits = all(equal(*pair) for pair in weights + momenta) and torch.equal(first["rng"], second["rng"])
    return bits and same_log and len(lines(one)) == 4


def test_ten_steps_are_five_then_kill_9_then_five(scenes, straight, tmp_path):
    """Bit for bit, and with another number of workers, which read ahead when the axe falls."""
    words = command(scenes, tmp_path / "run", workers=1)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    ) as process:
        while not (tmp_path / "run" / "state.pt").exists():
            assert process.poll() is None
        process.kill()
    assert process.returncode == -signal.SIGKILL and state(tmp_path / "run")["step"] == 5
    done = run(words)
    assert done.returncode == 0, done.stderr
    assert same_run(straight, tmp_path / "run")


def test_ctrl_c_saves_after_the_step_says_how_to_go_on_and_is_exact(scenes, straight, tmp_path):
    words = command(scenes, tmp_path / "run", workers=1)
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        while not (tmp_path / "run" / "log.jsonl").exists():  # the report of step 5 is on its way
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.strip().splitlines()[-1] == "mvsnet-edu: Interrupted."
    assert "Traceback" not in err and "of 10 is saved; the same command goes on from there." in out
    assert 5 <= state(tmp_path / "run")["step"] < 10
    assert run(words).returncode == 0 and same_run(straight, tmp_path / "run")


def test_a_stop_between_two_reports_keeps_what_the_next_one_is_made_of(recipe, monkeypatch):
    straight = replace(recipe, out=recipe.out + "2", report=4)
    train(straight, "cpu")
    recipe, look = replace(recipe, report=4), module.Training._look_around

    def stop_at_three(training: module.Training, stop: Callable[[], bool]) -> None:
        look(training, lambda: training.progress.step == 3)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.Training, "_look_around", stop_at_three)
        train(recipe, "cpu")
    assert state(recipe.out)["step"] == 3
    train(recipe, "cpu")
    assert [timeless(line) for line in lines(recipe.out)] == [timeless(line) for line in lines(straight.out)]


# --- several processes

RANKS = """
import sys
from dataclasses import replace
import torch
from mvsnet_edu.recipe import read_recipe
from mvsnet_edu import training
recipe, made = replace(read_recipe(sys.argv[1]), out=sys.argv[2]), []
start = training.Training.run
training.Training.run = lambda self, folder: (made.append(self), start(self, folder))
training.train(recipe, "cpu")
state = {"network": made[0].network.state_dict(), "average": made[0].average.state_dict()}
torch.save(state, f"{sys.argv[2]}.{made[0].fabric.global_rank}.pt")
"""


def test_two_processes_end_with_equal_weights_those_of_one_with_twice_the_batch(scenes, tmp_path):
    """By RMSProp, as Adam makes whole steps of gradients that are nothing but rounding."""
    six = {"kind": "rmsprop", "steps": 4, "more": 2}
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    (tmp_path / "ranks.py").write_text(RANKS)
    config, _, out, *_ = command(scenes, tmp_path / "two", batch=1, **six)[4:]
    done = run([*torchrun, str(tmp_path / "ranks.py"), config, out])
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(f"{out}.{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(equal(ranks[0][name], ranks[1][name]) for name in ("network", "average"))
    done = run(command(scenes, tmp_path / "one", batch=2, **six))
    assert done.returncode == 0, done.stderr
    alone, together = state(tmp_path / "one"), state(tmp_path / "two")
    torch.manual_seed(0)
    assert distance(together["network"], alone["network"], MVSNet().state_dict()) < 1e-3
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two] == [5, 5, 6, 6]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-3)
    assert two[1]["held_out"]["initial_l1"] == pytest.approx(one[1]["held_out"]["initial_l1"], rel=1e-3)
    done = run(command(scenes, tmp_path / "two", batch=1, **six))
    assert done.returncode == 2 and "two was begun by 2 processes, not 1" in done.stderr


def test_the_recipe_is_in_the_checkpoint(recipe):
    train(recipe, "cpu")
    assert json.loads(state(recipe.out)["recipe"]) == json.loads(json.dumps(asdict(recipe)))


def test_held_out_samples_are_shared_out_among_processes(recipe):
    recipe = replace(recipe, validation=ValidationTable(0, 5))
    shares = [held_out_batches(recipe, rank, 2) for rank in range(2)]
    numbers = [share.numbers(k, share.rank)[0] for share in shares for k in range(3)]
    assert sorted(numbers)[:5] == [0, 1, 2, 3, 4]
