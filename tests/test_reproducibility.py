"""Same seed, same machine, same bits: scenes, depth maps, clouds and training, in whatever process.

Between different numbers of threads sums are taken in another order, and so they are where no C compiler is
about, and PyTorch does the sweep. What that may change is stated here, and in the chapter on training.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mvsnet_edu import MVSNet
from mvsnet_edu.data.formats import read_pfm
from mvsnet_edu.data.scene import Scene

#: Other numbers of threads, and no C compiler.
OTHERS = pytest.mark.parametrize("other", ["2", "4", "plain/1"])

PROGRAM = """
import sys
from pathlib import Path

import torch

from mvsnet_edu import MVSNet
from mvsnet_edu.data import Scene
from mvsnet_edu.data.synthetic import make_scene
from mvsnet_edu.inference import estimate_scene
from mvsnet_edu.recipe import DataTable, Recipe, StageTable, ValidationTable
from mvsnet_edu.reconstruction import fuse_scene
from mvsnet_edu.training import train

folder, stage = Path(sys.argv[1]), StageTable(4, 1e-3, warm_up=2, batch=2, size=(64, 48), depth_num=16)
data, watch = DataTable(uses=4, slots=2, workers=0), ValidationTable(0, 1)
for threads in sys.argv[2:]:
    torch.set_num_threads(int(threads))
    out = folder / threads
    make_scene(out / "scene", "courtyard", seed=5, views=3, size=(96, 64), planes=16)
    scene = Scene.open(out / "scene")
    estimate_scene(scene, out / "maps", MVSNet.from_pretrained(), device="cpu")
    fuse_scene(scene, out / "maps", min_probability=0, min_views=1, max_relative_depth=1)
    train(Recipe((stage,), seed=3, out=str(out / "run"), data=data, validation=watch), "cpu")
"""


def run(folder: Path, threads: list[int], seed: int, **settings: str) -> None:
    """A process of its own, whose sets have an order of their own."""
    words = [sys.executable, "-c", PROGRAM, str(folder), *map(str, threads)]
    environment = os.environ | {"PYTHONHASHSEED": str(seed)} | settings
    subprocess.run(words, check=True, capture_output=True, env=environment)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """By threads; once more by one; and by one without a C compiler."""
    folder = tmp_path_factory.mktemp("results")
    run(folder, [1, 2, 4], seed=1)
    run(folder / "again", [1], seed=2)
    run(folder / "plain", [1], seed=1, PATH="")
    return folder


def made(folder: Path) -> dict[str, bytes]:
    """All files of scene and maps."""
    paths = [path for part in ("scene", "maps") for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "run" / "state.pt", weights_only=True)["network"]


def test_another_process_makes_the_same_bits(results):
    first, second = made(results / "1"), made(results / "again" / "1")
    assert first == second and {"maps/fused.ply", "maps/depth/00000000.pfm", "scene/pair.txt"} <= first.keys()
    first, second = trained(results / "1"), trained(results / "again" / "1")
    assert all(torch.equal(first[name], second[name]) for name in first)


@OTHERS
def test_others_draw_the_same_scene(results, other):
    scenes = [
        {n: data for n, data in made(results / t).items() if n.startswith("scene/")} for t in ("1", other)
    ]
    assert scenes[0] == scenes[1]


@OTHERS
def test_others_estimate_nearly_the_same_depth(results, other):
    """To a thousandth of an interval."""
    for view, interval in (
        (v, Scene.open(results / "1" / "scene").camera(v).depth_interval) for v in range(3)
    ):
        here, there = (read_pfm(results / t / f"maps/depth/{view:08d}.pfm") for t in ("1", other))
        assert abs(here - there).max() < 1e-3 * interval


@OTHERS
def test_others_train_nearly_the_same_weights(results, other):
    """Of four steps; Adam makes whole ones of gradients that are nothing but rounding."""
    torch.manual_seed(3)
    start, here, there = MVSNet().state_dict(), trained(results / "1"), trained(results / other)
    way, apart = (
        sum((a[name] - b[name]).square().sum() for name in here).sqrt().item()
        for a, b in ((here, start), (there, here))
    )
    assert 0 < way and apart < 0.05 * way
