"""Weights that other code has trained, under the names and with the settings that our modules have for them.

* ``xy-guo/MVSNet_pytorch``: an :class:`mvsnet_edu.MVSNet` without refinement (theirs cannot run).
* ``leejaeyong7/RMVSNet-Pytorch``: an :class:`mvsnet_edu.RMVSNet`; the weights of R-MVSNet's authors,
  converted from TensorFlow.

A network so loaded computes what the code that trained it computed. That is not always what the code beside
the file computes today: see the settings below.
"""

from __future__ import annotations

import re
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from .errors import InputError

__all__ = ["translate"]

Weights = dict[str, Tensor]

#: Trained with colours in [0, 1], running averages of batch norm, and pixel centres at integers. The latter
#: go with aligned corners, grid_sample's default until torch 1.2; the same code samples elsewhere since 1.3.
XY_GUO = {
    "refine": False,
    "norm": "batch",
    "padding": "symmetric",
    "bias": True,
    "chained": True,
    "standardized": False,
    "centre": 0.0,
}
XY_GUO_NAMES = {
    **{f"feature.conv{k}": f"feature_net.head.{k}" for k in (0, 1)},
    **{f"feature.conv{k}": f"feature_net.tail.{k - 2}" for k in range(2, 7)},
    "feature.feature": "feature_net.tail.5",
    **{f"cost_regularization.conv{2 * k}": f"cost_reg_net.conv{k}_1" for k in range(4)},
    **{f"cost_regularization.conv{2 * k - 1}": f"cost_reg_net.conv{k}_0" for k in range(1, 7) if k != 4},
    "cost_regularization.conv7": "cost_reg_net.conv4_0",
    "cost_regularization.prob": "cost_reg_net.conv6_2",
}

#: Trained in TensorFlow, by whose padding strided and transposed convolutions look elsewhere than those of
#: the PyTorch code beside the file. That code also has ReLUs after the transposed ones; TensorFlow has none.
LEEJAEYONG7 = {"norm": "group", "features": "unet", "padding": "same", "widths": [16, 4, 2]}
LEEJAEYONG7_NAMES = {
    **{f"feature_extractor.conv{k}_0": f"feature_net.head.down.{k - 1}" for k in range(1, 5)},
    **{f"feature_extractor.conv{k}_1": f"feature_net.head.skip.{k}.0" for k in range(5)},
    **{f"feature_extractor.conv{k}_2": f"feature_net.head.skip.{k}.1" for k in range(5)},
    **{f"feature_extractor.conv{k + 5}_0": f"feature_net.head.up.{k}" for k in range(4)},
    **{f"feature_extractor.conv{k + 5}_1": f"feature_net.head.merge.{k}.0" for k in range(4)},
    **{f"feature_extractor.conv{k + 5}_2": f"feature_net.head.merge.{k}.1" for k in range(4)},
    **{f"feature_extractor.conv{9 + k // 3}_{k % 3}": f"feature_net.tail.{k}" for k in range(6)},
    **{f"gru{k + 1}.gate_conv": f"recurrent_net.cells.{k}.gates" for k in range(3)},
    **{f"gru{k + 1}.reset_gate_norm": f"recurrent_net.cells.{k}.reset_norm" for k in range(3)},
    **{f"gru{k + 1}.update_gate_norm": f"recurrent_net.cells.{k}.update_norm" for k in range(3)},
    **{f"gru{k + 1}.output_conv": f"recurrent_net.cells.{k}.proposal" for k in range(3)},
    **{f"gru{k + 1}.output_norm": f"recurrent_net.cells.{k}.proposal_norm" for k in range(3)},
    "prob_conv": "recurrent_net.score",
}


def translate(content: Any, path: str | PathLike[str]) -> tuple[str, dict[str, Any], Weights]:
    """Find out whose weights these are.

    Args:
        content: of the file: a state dict, or one under "model" or "state_dict"; "module." may precede names.
        path: the file, for messages.

    Returns:
        the name of our class, its settings, and the weights under our names.

    Raises:
        InputError: if it is nothing that we know.

    Source: ``models/mvsnet.py`` and ``rmvsnet/rmvsnet.py`` of the two repositories, for the names.

    >>> translate({"model": {}}, "model.ckpt")
    Traceback (most recent call last):
    mvsnet_edu.errors.InputError: model.ckpt: holds no weights of a network that is known here.
    """
    for name in ("model", "state_dict"):
        content = content.get(name, content) if isinstance(content, dict) else {}
    weights = {str(name).removeprefix("module."): x for name, x in content.items() if isinstance(x, Tensor)}
    if {"cost_regularization.prob.weight", "feature.feature.weight"} <= weights.keys():
        return "MVSNet", XY_GUO, _xy_guo(weights)
    if {"gru1.gate_conv.weight", "feature_extractor.conv10_2.weight"} <= weights.keys():
        return "RMVSNet", LEEJAEYONG7, _leejaeyong7(weights)
    raise InputError(f"{path}: holds no weights of a network that is known here.")


def _xy_guo(weights: Weights) -> Weights:
    """Theirs ends in a score, ours in a cost: minus the score, but for a constant that softmax ignores."""
    unused = ("refine_network.", "cost_regularization.prob.bias")
    kept = {name: x for name, x in weights.items() if not name.startswith(unused)}
    kept["cost_regularization.prob.weight"] = -kept["cost_regularization.prob.weight"]
    numbered = {name.replace(".conv.", ".0.").replace(".bn.", ".1."): x for name, x in kept.items()}
    ours = _renamed(numbered, XY_GUO_NAMES)
    for name in [name for name in ours if name.endswith("running_mean")]:  # torch before 0.4.1 did not count
        ours.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return ours


def _leejaeyong7(weights: Weights) -> Weights:
    """OpenCV, which read the photographs in training, has blue first: two convolutions read the image."""
    blue_first = ("feature_extractor.conv0_1.0.weight", "feature_extractor.conv1_0.0.weight")
    turned = {name: x.flip(1) if name in blue_first else x for name, x in weights.items()}
    ours = _renamed(turned, LEEJAEYONG7_NAMES)
    return {re.sub(r"(up\.\d)\.1\.", r"\1.2.", name): x for name, x in ours.items()}  # ours crop in between


def _renamed(weights: Weights, names: dict[str, str]) -> Weights:
    """Beginnings of names exchanged; what has no name of ours keeps its own."""
    ours = {}
    for name, x in weights.items():
        known = next((theirs for theirs in names if name.startswith(f"{theirs}.")), None)
        name = name.replace(known, names[known], 1) if known else name
        shifted = re.sub(r"(tail\.[03])\.([01])\.", lambda m: f"{m[1]}.{int(m[2]) + 1}.", name)
        ours[shifted] = x  # ours have their padding first
    return ours
