from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys

import pytest

import mvsnet_edu

#: Names that other people's code relies on.
CONTRACT = """
    pixel_grid scale_intrinsics crop_intrinsics camera_center project backproject
    uniform_depths inverse_depths soft_argmin winner_take_all probability_map
    plane_homographies homography_warp variance_cost_volume
    FeatureNet CostRegNet RefineNet depth_refine
    non_zero_mean_absolute_diff less_one_percentage less_three_percentage
    mvsnet_regression_loss mvsnet_classification_loss mvsnet_loss MVSNet RMVSNet
""".split()


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after the statement."""
    names = "{name.split('.')[0] for name in sys.modules}"
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({names})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_torch_numpy_and_nothing_else():
    torch_and_numpy = loaded_by("import numpy, torch.utils.checkpoint")  # which brings sympy in torch 2.4
    extra = loaded_by("import mvsnet_edu") - torch_and_numpy - set(sys.stdlib_module_names)
    assert extra == {"mvsnet_edu"}


FLOORS = [
    ["errors", "camera", "depth", "homography", "losses", "layers"],
    [
        "features",
        "cost_volume",
        "kernels",
        "last_layer",
        "native",
        "plane_convolution",
        "regularization",
        "recurrence",
        "refinement",
        "streaming",
        "subsets",
    ],
    ["foreign", "checkpoints", "models", "enlargement"],
]


@pytest.mark.parametrize("module", [module for floor in FLOORS for module in floor])
def test_a_stage_imports_from_its_own_floor_and_those_below(module):
    floor = next(k for k, modules in enumerate(FLOORS) if module in modules)
    below = {name for modules in FLOORS[: floor + 1] for name in modules}
    source = inspect.getsource(importlib.import_module(f"mvsnet_edu.{module}"))
    assert set(re.findall(r"^ *from \.(\w+) import", source, re.MULTILINE)) <= below


def test_everything_public_is_importable_from_the_package_itself():
    assert set(CONTRACT) <= set(mvsnet_edu.__all__)
    assert all(hasattr(mvsnet_edu, name) for name in mvsnet_edu.__all__)
    assert len(mvsnet_edu.__all__) == len(set(mvsnet_edu.__all__))


FUNCTIONS = [name for name in mvsnet_edu.__all__ if inspect.isfunction(getattr(mvsnet_edu, name))]
CLASSES = [name for name in mvsnet_edu.__all__ if inspect.isclass(getattr(mvsnet_edu, name))]


def sections(name: str) -> str:
    return inspect.getdoc(getattr(mvsnet_edu, name)) or ""


@pytest.mark.parametrize("name", mvsnet_edu.__all__)
def test_the_first_line_is_a_sentence(name):
    first, *rest = sections(name).split("\n")
    assert first.endswith(".") and (not rest or rest[0] == "")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_documents_its_arguments_its_result_where_it_comes_from_and_an_example(name):
    text = sections(name)
    assert "Returns:" in text and "Source: " in text and ">>> " in text
    arguments = text.split("Args:")[1].split("Returns:")[0]
    documented = re.findall(r"^    (\w+): ", arguments, re.MULTILINE)
    parameters = inspect.signature(getattr(mvsnet_edu, name)).parameters
    assert documented == list(parameters)


@pytest.mark.parametrize("name", [n for n in CLASSES if n not in ("InputError", "DepthEstimate")])
def test_a_network_documents_its_settings_where_it_comes_from_and_an_example(name):
    text = sections(name)
    assert "Source: " in text and ">>> " in text
    settings = re.split("Raises:|Source:", text.split("Args:")[1])[0]
    documented = re.findall(r"^    (\w+): ", settings, re.MULTILINE)
    assert documented == list(inspect.signature(getattr(mvsnet_edu, name)).parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_everything_is_typed(name):
    signature = inspect.signature(getattr(mvsnet_edu, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


def test_an_input_error_is_a_value_error():
    assert issubclass(mvsnet_edu.InputError, ValueError)
