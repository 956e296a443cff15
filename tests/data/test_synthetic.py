"""Generated scenes: the cameras, the depth and the images must agree with one another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from mvsnet_edu import InputError, backproject, homography_warp, plane_homographies, project, scale_intrinsics
from mvsnet_edu.data import synthetic
from mvsnet_edu.data.dice import Dice
from mvsnet_edu.data.render import cast
from mvsnet_edu.data.scene import Scene
from mvsnet_edu.data.synthetic import LAYOUTS, SHIPPED, SyntheticScenes, make_scene, random_views

DATA = Path(__file__).parents[2] / "data"


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_scenes_in_data_are_those_that_the_generator_draws(name):
    """Their first depth map; ``benchmarks/same_data.py`` takes minutes and compares every byte."""
    scene, arguments = Scene.open(DATA / name), SHIPPED[name]
    assert len(scene.views) == arguments["views"] and 5 <= len(scene.views) <= 7
    depth, camera = scene.depth(0), scene.camera(0)
    world = LAYOUTS[arguments["layout"]].world(Dice(arguments["seed"]))
    drawn = cast(world, scale_intrinsics(camera.intrinsics, 0.25), camera.extrinsics, (160, 128))
    assert torch.equal(torch.as_tensor(depth), drawn.float())


def test_the_scenes_in_data_are_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 3_000_000


def test_the_same_arguments_make_the_same_bytes_and_another_seed_others(tmp_path):
    for folder, seed in (("a", 3), ("b", 3), ("c", 5)):
        make_scene(tmp_path / folder, "still-life", seed=seed, views=2, size=(48, 32))
    a, b, c = (fingerprint(tmp_path / folder) for folder in "abc")
    assert a == b and len(a) == 7
    assert all(a[name] != c[name] for name in a)


def test_bad_arguments_and_a_full_folder_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="full"):
        make_scene(tmp_path / "full", "still-life", views=2, size=(48, 32))
    with pytest.raises(ValueError, match="layout"):
        make_scene(tmp_path / "a", "moon")
    with pytest.raises(ValueError, match="views"):
        make_scene(tmp_path / "a", "still-life", views=1)
    with pytest.raises(ValueError, match="multiples of 4"):
        make_scene(tmp_path / "a", "still-life", size=(50, 32))
    with pytest.raises(ValueError, match="at most 16,777,216 pixels, not 4096 x 4100"):
        make_scene(tmp_path / "a", "still-life", size=(4096, 4100))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_depths_of_two_views_agree_where_both_see_the_same_point():
    """What other views see lands in the first view at the depth it has there, or is hidden behind it."""
    _, intrinsics, extrinsics, depths = random_views(11, 3, (96, 80))
    small, (h, w) = scale_intrinsics(intrinsics, 0.25), depths[0].shape
    for v in (1, 2):
        points = backproject(depths[v][None], small[None], extrinsics[v][None])[0][depths[v] > 0]
        pixels, z = project(points, small, extrinsics[0])
        inside = ((pixels > 0) & (pixels < torch.tensor([w, h]))).all(-1) & (z > 0)
        column, row = pixels[inside].long().unbind(-1)
        there = depths[0][row, column]
        relative = (z[inside] - there) / there.clamp(min=1e-3)
        assert inside.sum() > 0.2 * h * w
        assert (
            relative.abs() < 0.05
        ).float().mean() > 0.7  # edges, and pixels between which depth changes, differ
        assert (relative < -0.05).float().mean() < 0.15  # nothing floats before what the first view sees


def test_images_of_two_views_agree_through_the_true_depth():
    """Warping at the true depth brings the images together; at a wrong one it does not."""
    better = []
    for seed in range(5):
        images, intrinsics, extrinsics, depths = random_views(seed, 2, (160, 128))
        small = scale_intrinsics(intrinsics, 0.25)[None]
        grey = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4)
        near, true, far = (_correlation(grey, small, extrinsics, depths[0] * f) for f in (0.67, 1.0, 1.5))
        better.append(true > 0.5 and true > near and true > far)
    assert sum(better) >= 4


def _correlation(grey: torch.Tensor, intrinsics: torch.Tensor, extrinsics: torch.Tensor, depth: torch.Tensor):
    """Of the first view and the second, warped by a depth map, where something was found."""
    planes = torch.linspace(depth[depth > 0].min().item(), depth.max().item(), 200)[None]
    homographies = plane_homographies(intrinsics, extrinsics[:1], intrinsics, extrinsics[1:], planes)
    warped = homography_warp(grey[1:], homographies)[0, 0]  # (200, h, w)
    nearest = (planes[0][:, None, None] - depth).abs().argmin(0, keepdim=True)
    there = warped.gather(0, nearest)[0]
    seen = (there != 0) & (depth > 0)
    return torch.corrcoef(torch.stack([there[seen], grey[0, 0][seen]]))[0, 1].item()


def test_samples_are_functions_of_their_number_and_sound():
    scenes, again = (
        SyntheticScenes(5, size=(64, 48), depth_num=16, views=3, slots=4, uses=2) for _ in range(2)
    )
    for n in (0, 6, 3, 3, 9):
        sample = scenes[n]
        assert sample.images.shape == (1, 3, 3, 48, 64)
        assert 0 <= sample.images.min() and sample.images.max() <= 1
        assert sample.depth_values.shape == (1, 16) and sample.ground_truth.shape == (1, 12, 16)
        measured = sample.ground_truth[sample.ground_truth > 0]
        assert len(measured) > 0.25 * 12 * 16
        assert sample.depth_values[0, 0] <= measured.min() and measured.max() <= sample.depth_values[0, -1]
        steps = sample.depth_values[0].diff()
        torch.testing.assert_close(steps, sample.depth_interval.expand(15), rtol=1e-3, atol=1e-5)
    for n in (9, 0):  # in another order, after other samples
        assert torch.equal(again[n].images, scenes[n].images)
        assert torch.equal(again[n].ground_truth, scenes[n].ground_truth)


def test_scenes_serve_several_samples_and_slots_change_theirs_in_turn(monkeypatch):
    drawn = []
    real = synthetic.random_views
    monkeypatch.setattr(
        synthetic, "random_views", lambda seed, *args: drawn.append(seed) or real(seed, *args)
    )
    scenes = SyntheticScenes(0, size=(32, 32), depth_num=8, views=2, slots=6, uses=3)
    counts = []
    for start in range(0, 60, 6):
        before = len(drawn)
        samples = [scenes[n] for n in range(start, start + 6)]
        counts.append(len(drawn) - before)
    assert counts[0] == 6 and set(counts[1:]) == {2}  # a third of the slots in each round
    assert {(b - a) % 6 for a, b in zip(drawn[6::2], drawn[7::2], strict=True)} == {3}  # evenly, not at once
    assert len(set(drawn)) == len(drawn)  # no scene is ever drawn again
    assert not torch.equal(samples[0].images, samples[1].images)


def test_a_camera_error_moves_the_sources_by_about_so_many_pixels():
    exact, shaken = (SyntheticScenes(2, size=(64, 48), views=5, slots=8, camera_error=e) for e in (0.0, 2.0))
    shifts = []
    for n in range(8):
        a, b = exact[n], shaken[n]
        assert torch.equal(a.extrinsics[:, 0], b.extrinsics[:, 0])  # the reference is where it was
        turn = (b.extrinsics[0, 1:, :3, :3] @ a.extrinsics[0, 1:, :3, :3].mT)[:, :2, 2]  # of the optical axis
        shifts.append(turn * a.intrinsics[0, 0, 0, 0])
    assert 0.5 < torch.cat(shifts).std() < 2


def test_held_out_scenes_are_never_trained_on():
    """Training draws scenes seed, seed + 1, ...; the held-out ones start where no training run arrives."""
    ours, held_out = (SyntheticScenes(seed, (64, 48), 16, 2)[0] for seed in (0, SyntheticScenes.HELD_OUT))
    assert SyntheticScenes.HELD_OUT > 10**6 and not torch.equal(ours.images, held_out.images)
