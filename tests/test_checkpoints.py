from __future__ import annotations

import json

import pytest
import torch
from full_disk import no_room_beyond
from safetensors.torch import load_file, save_file
from torch import nn

from mvsnet_edu import InputError, MVSNet, checkpoints
from mvsnet_edu.checkpoints import load_network, save_network, shipped_weights


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_network_comes_back_as_it_was_saved(tmp_path, refine, norm):
    """Pitfall 12: settings, weights and running averages."""
    network = MVSNet(refine=refine, norm=norm)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(torch.randn(value.shape) if value.is_floating_point() else torch.tensor(7))
    save_network(network, tmp_path / "weights.safetensors")
    again = load_network(MVSNet, tmp_path / "weights.safetensors")
    assert again.config == network.config and not again.training
    assert again.state_dict().keys() == network.state_dict().keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_from_pretrained_takes_a_path_as_text_too(tmp_path):
    network = MVSNet(norm="instance")
    save_network(network, tmp_path / "weights.safetensors")
    again = MVSNet.from_pretrained(str(tmp_path / "weights.safetensors"))
    assert type(again) is MVSNet and again.config["norm"] == "instance"


def test_notes_stand_in_the_header(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_network(MVSNet(), path, steps="12", scenes="none")
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header["steps"] == "12" and header["class"] == "MVSNet"
    assert json.loads(header["config"]) == MVSNet().config


def test_how_much_images_are_to_be_enlarged_comes_back(tmp_path):
    network, path = MVSNet(refine=False), tmp_path / "weights.safetensors"
    save_network(network, path)
    assert load_network(MVSNet, path).enlarge == 1
    network.enlarge = 2
    save_network(network, path)
    assert load_network(MVSNet, path).enlarge == 2


def test_weights_that_ship_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    save_network(MVSNet(refine=False), tmp_path / "small.safetensors")
    save_network(MVSNet(), tmp_path / "large.safetensors")
    assert shipped_weights() == ["large", "small"]
    assert MVSNet.from_pretrained("small").refine_net is None
    assert MVSNet.from_pretrained("large").refine_net is not None


def refused(path, kind: type[nn.Module] = MVSNet) -> str:
    """The message: one line that names the file."""
    with pytest.raises(InputError) as caught:
        load_network(kind, path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 300 + len(str(path))
    return message


def test_a_missing_file_is_named_with_the_names_that_ship(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    save_network(MVSNet(), tmp_path / "large.safetensors")
    assert "no such weights file" in refused(tmp_path / "absent.safetensors")
    assert "large" in refused("enormous")
    assert "no such weights file" in refused(tmp_path)  # a folder


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip of torch.save, say", b"\xff" * 64])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "weights.safetensors").write_bytes(content)
    assert "no safetensors file" in refused(tmp_path / "weights.safetensors")


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_network(MVSNet(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "no safetensors file" in refused(path)


def test_weights_of_another_network_are_refused(tmp_path):
    class Other(MVSNet):
        pass

    path = tmp_path / "weights.safetensors"
    save_network(Other(), path)
    assert "holds weights of Other, not MVSNet" in refused(path)
    save_file({"x": torch.zeros(1)}, path)
    assert "holds weights of an unknown network, not MVSNet" in refused(path)


def damaged(path, change) -> None:
    """The file of a good network with its tensors or its header changed."""
    save_network(MVSNet(), path)
    weights, header = load_file(path), {"class": "MVSNet", "config": json.dumps(MVSNet().config)}
    change(weights, header)
    save_file(weights, path, metadata=header)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda w, h: w.update({"refine_net.residual.bias": torch.zeros(2)}), "refine_net.residual.bias"),
        (lambda w, h: w.pop("refine_net.residual.bias"), "refine_net.residual.bias"),
        (lambda w, h: w.update(surplus=torch.zeros(2)), "surplus"),
        (lambda w, h: h.update(config='{"norm": "layer"}'), "layer"),
        (lambda w, h: h.update(config='{"depth": 3}'), "depth"),
        (lambda w, h: h.update(enlarge="twice"), "twice"),
        (lambda w, h: h.update(config="{"), "does not fit MVSNet"),
        (lambda w, h: h.update(config="[]"), "does not fit MVSNet"),
    ],
    ids=["shape", "missing", "surplus", "setting", "unknown setting", "enlarge", "no json", "no settings"],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, says):
    damaged(tmp_path / "weights.safetensors", change)
    message = refused(tmp_path / "weights.safetensors")
    assert "does not fit MVSNet" in message and says in message


def test_without_room_the_file_is_named_and_the_one_before_stays(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_network(MVSNet(), path, steps="1")
    before = path.read_bytes()
    with (
        no_room_beyond(10_000),
        pytest.raises(InputError, match="mine.safetensors cannot be written: File too large"),
    ):
        save_network(MVSNet(), path, steps="2")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
