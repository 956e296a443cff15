"""Generated scenes: the cameras, the depth and the images must agree with one another."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

import pytest
import torch

from mvsnet_edu import InputError, backproject, homography_warp, plane_homographies, project, scale_intrinsics
from mvsnet_edu.data.render import cast
from mvsnet_edu.data.scene import Scene
from mvsnet_edu.data.synthetic import LAYOUTS, SHIPPED, Dice, SyntheticScenes, make_scene, random_views

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
    with pytest.raises(ValueError, match="multiple of 4"):
        make_scene(tmp_path / "a", "still-life", size=(50, 32))
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
    images, intrinsics, extrinsics, depths = random_views(4, 2, (160, 128))
    small = scale_intrinsics(intrinsics, 0.25)[None]
    grey = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4)
    grey = (grey - grey.mean((2, 3), keepdim=True)) / grey.std((2, 3), keepdim=True)
    correlations = []
    for factor in (1.0, 1.5):
        planes = torch.linspace(depths[0].min().item(), depths[0].max().item(), 160)[None]
        warped = homography_warp(
            grey[1][None],
            plane_homographies(small, extrinsics[0][None], small, extrinsics[1][None], planes * factor),
        )[0, 0]
        nearest = (planes[0][:, None, None] - depths[0]).abs().argmin(0, keepdim=True)
        at_truth = warped.gather(0, nearest)[0]
        seen = at_truth != 0
        correlations.append(torch.corrcoef(torch.stack([at_truth[seen], grey[0, 0][seen]]))[0, 1].item())
    assert correlations[0] > 0.9 and 1 - correlations[0] < 0.6 * (1 - correlations[1])


def test_a_stream_is_repeatable_and_its_samples_are_sound():
    first, again = (list(islice(SyntheticScenes(5, size=(64, 48), depth_num=16), 6)) for _ in range(2))
    for sample, same in zip(first, again, strict=True):
        assert torch.equal(sample.images, same.images) and torch.equal(sample.ground_truth, same.ground_truth)
        assert (
            sample.images.shape == (1, 5, 3, 48, 64) and 0 <= sample.images.min() and sample.images.max() <= 1
        )
        assert sample.depth_values.shape == (1, 16) and sample.ground_truth.shape == (1, 12, 16)
        measured = sample.ground_truth[sample.ground_truth > 0]
        assert len(measured) > 0.3 * 12 * 16
        assert sample.depth_values[0, 0] <= measured.min() and measured.max() <= sample.depth_values[0, -1]
        steps = sample.depth_values[0].diff()
        torch.testing.assert_close(steps, sample.depth_interval.expand(15), rtol=1e-3, atol=1e-5)
    assert not torch.equal(first[0].images, first[1].images)


def test_held_out_scenes_are_never_trained_on():
    """Training draws scenes seed, seed + 1, ...; the held-out ones start where no training run arrives."""
    ours = next(iter(SyntheticScenes(0, size=(64, 48), depth_num=16)))
    held_out = next(iter(SyntheticScenes(SyntheticScenes.HELD_OUT, size=(64, 48), depth_num=16)))
    assert SyntheticScenes.HELD_OUT > 10**6 and not torch.equal(ours.images, held_out.images)
