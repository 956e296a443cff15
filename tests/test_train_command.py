"""mvsnet-edu train: what it writes, and what it says about a recipe or a folder that is no good."""

from __future__ import annotations

import json

import pytest
import torch
from small_scenes import small_scene

from mvsnet_edu import MVSNet, RMVSNet
from mvsnet_edu.checkpoints import save_network
from mvsnet_edu.cli import main

CONFIG = """\
out = "{out}"
[data]
kind = "scenes"
root = "{scene}"
held_out = "{scene}"
workers = 0
[validation]
samples = 1
[[stage]]
steps = 2
rate = 1e-3
depth_num = 8
"""


@pytest.fixture
def config(tmp_path):
    small_scene(tmp_path / "scene")
    text = CONFIG.format(out=tmp_path / "run", scene=tmp_path / "scene")
    (tmp_path / "mine.toml").write_text(text)
    return tmp_path / "mine.toml"


def run(*words) -> int:
    return main(["train", *(str(word) for word in words), "--device", "cpu"])


def refused(capsys, *words) -> str:
    """The one sentence on stderr with which the command ends."""
    capsys.readouterr()
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert err.startswith("mvsnet-edu: ") and err.count("\n") == 1
    return err


def test_it_leaves_weights_a_log_a_checkpoint_and_events(config, tmp_path):
    assert run(config) == 0
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names[0].startswith("events.out.tfevents.")
    assert names[1:] == ["lock", "log.jsonl", "mvsnet.safetensors", "state.pt"]
    network = MVSNet.from_pretrained(tmp_path / "run" / "mvsnet.safetensors")
    assert network.config["norm"] == "group"
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 2] and "held_out" in log[1]


def test_out_goes_before_what_the_recipe_says(config, tmp_path):
    assert run(config, "--out", tmp_path / "other") == 0
    assert (tmp_path / "other" / "mvsnet.safetensors").is_file() and not (tmp_path / "run").exists()


def test_root_goes_before_what_the_recipe_says(config, tmp_path, capsys):
    (tmp_path / "scene").rename(tmp_path / "moved")
    assert f"{tmp_path / 'scene'}" in refused(capsys, config)
    text = config.read_text().replace(
        f'held_out = "{tmp_path / "scene"}"', f'held_out = "{tmp_path / "moved"}"'
    )
    config.write_text(text)
    assert run(config, "--root", tmp_path / "moved") == 0
    assert "root has no meaning" in refused(capsys, "quick", "--root", tmp_path)


def test_what_is_wrong_with_a_recipe_is_said_and_nothing_is_written(config, tmp_path, capsys):
    good = config.read_text()
    config.write_text(good.replace("rate =", "speed ="))
    assert f"{config}: unknown key stage[0].speed" in refused(capsys, config)
    config.write_text(good.replace("steps = 2", 'steps = "two"'))
    assert f"{config}: stage[0].steps must be a whole number, not 'two'" in refused(capsys, config)
    assert "absent.toml: no such recipe" in refused(capsys, tmp_path / "absent.toml")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_recipe_is_not_overwritten(config, tmp_path, capsys):
    assert run(config) == 0
    before = (tmp_path / "run" / "mvsnet.safetensors").read_bytes()
    config.write_text(config.read_text().replace("depth_num = 8", "depth_num = 9"))
    assert "run was begun with another stage.0.depth_num" in refused(capsys, config)
    assert (tmp_path / "run" / "mvsnet.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_named(config, tmp_path, capsys):
    assert run(config) == 0
    torch.save({"step": object}, tmp_path / "run" / "state.pt")
    assert "state.pt is no checkpoint" in refused(capsys, config)


@pytest.mark.parametrize(
    "module, says",
    [("lightning_fabric", "Training needs Lightning Fabric"), ("torch.utils.tensorboard", "TensorBoard")],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(config, capsys, monkeypatch, module, says):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    message = refused(capsys, config)
    assert says in message and 'pip install "mvsnet_edu[train]"' in message


def test_it_trains_an_r_mvsnet_from_the_features_of_an_mvsnet(config, tmp_path):
    start = MVSNet(refine=False)
    save_network(start, tmp_path / "start.safetensors")
    text = config.read_text().replace("[data]", '[network]\nkind = "rmvsnet"\nrefine = false\n[data]')
    config.write_text(f'start_from = "{tmp_path}/start.safetensors"\n' + text.replace("1e-3", "1e-12"))
    assert run(config) == 0
    network = RMVSNet.from_pretrained(tmp_path / "run" / "rmvsnet.safetensors")
    for name, value in network.feature_net.state_dict().items():
        torch.testing.assert_close(value, start.feature_net.state_dict()[name])
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 < log[0]["loss"] < 10 and "held_out" in log[1]
