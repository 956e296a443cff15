"""The ray caster against closed forms and marching along rays."""

from __future__ import annotations

import math

import pytest
import torch

from mvsnet_edu.camera import pixel_grid
from mvsnet_edu.data.render import NORMALS, SHAPES, Solid, Texture, World, _spread, cast, render

INTRINSICS = torch.tensor([[30.0, 0, 11], [0, 32, 9], [0, 0, 1]], dtype=torch.float64)
INSIDE = {  # what the unit shapes are, as inequalities, written out a second time
    "ellipsoid": lambda x: x.norm(dim=-1) <= 1,
    "cylinder": lambda x: (x[..., :2].norm(dim=-1) <= 1) & (x[..., 2].abs() <= 1),
    "box": lambda x: x.abs().amax(-1) <= 1,
    "roof": lambda x: (x[..., 1].abs() <= 1) & (x[..., 2] >= -1) & (2 * x[..., 0].abs() + x[..., 2] <= 1),
    "pyramid": lambda x: (x[..., 2] >= -1) & (2 * x[..., :2].abs().amax(-1) + x[..., 2] <= 1),
    "hexagon": lambda x: (
        (x[..., 2].abs() <= 1)
        & (x[..., 0].abs() <= 1)
        & ((x[..., 0] / 2 + x[..., 1] * math.sqrt(3) / 2).abs() <= 1)
        & ((x[..., 0] / 2 - x[..., 1] * math.sqrt(3) / 2).abs() <= 1)
    ),
}


def texture(pattern: str = "plain", gloss: float = 0.0) -> Texture:
    colors = torch.tensor([[0.2, 0.4, 0.6], [0.8, 0.6, 0.4]], dtype=torch.float64)
    return Texture(pattern, colors, 0.5, torch.zeros(3, 17, 17, 17), 1.0, (0.0,), gloss=gloss)


def solid(shape: str, center=(0.0, 0.0, 5.0), half=(1.0, 1.0, 1.0), turn: float = 0.0, **surface) -> Solid:
    c, s = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    center, half = torch.tensor(center).double(), torch.tensor(half).double()
    return Solid(shape, center, half, rotation, texture(**surface))


def world(*solids: Solid, **settings) -> World:
    return World(list(solids), torch.tensor([0.0, 0, -1], dtype=torch.float64), **settings)


def test_depth_of_a_facing_plane_is_z_and_not_the_distance_along_the_ray():
    depth = cast(world(solid("plane")), INTRINSICS, torch.eye(4).double(), (22, 18))
    torch.testing.assert_close(depth, torch.full((18, 22), 5.0, dtype=torch.float64))


def test_depth_of_a_sphere_is_the_root_of_its_equation():
    depth = cast(world(solid("ellipsoid")), INTRINSICS, torch.eye(4).double(), (22, 18))
    x, y = ((pixel_grid(18, 22).double() - torch.tensor([11.0, 9])) / torch.tensor([30.0, 32])).unbind(-1)
    a = x * x + y * y + 1  # |d|^2 t^2 - 10 t + 24 = 0
    expected = torch.where(25 - 24 * a > 0, (5 - (25 - 24 * a).clamp(min=0).sqrt()) / a, 0)
    torch.testing.assert_close(depth, expected)
    assert 0 < (depth > 0).sum() < depth.numel()


@pytest.mark.parametrize("shape", INSIDE)
def test_a_ray_enters_where_a_march_first_finds_the_inside(shape):
    body = solid(shape, half=(1.3, 0.6, 0.9), turn=0.7)
    depth = cast(world(body), INTRINSICS, torch.eye(4).double(), (22, 18))
    rays = torch.cat([(pixel_grid(18, 22).double() - INTRINSICS[:2, 2]) / 30, torch.ones(18, 22, 1)], -1)
    rays[..., 1] *= 30 / 32
    steps = torch.linspace(2, 8, 1501, dtype=torch.float64)
    points = (rays[:, :, None] * steps[:, None] - body.center) @ body.rotation / body.half_size
    inside = INSIDE[shape](points)  # (18, 22, steps)
    first = torch.where(inside.any(-1), steps[inside.int().argmax(-1)], 0)
    deep = inside.sum(-1) > 4  # a march may miss what a ray only grazes
    assert deep.sum() > 20
    assert ((depth - first)[deep] <= 0).all() and ((depth - first)[deep] > -0.005).all()
    assert (depth[~inside.any(-1)] > 0).float().mean() < 0.05


@pytest.mark.parametrize("shape", INSIDE)
def test_normals_point_outward_and_stand_on_the_surface(shape):
    torch.manual_seed(1)
    origins = torch.nn.functional.normalize(torch.randn(400, 3).double(), dim=-1) * 5
    enter, leave = SHAPES[shape](origins, -origins)
    points = (origins - enter[:, None] * origins)[enter <= leave]
    normals = torch.nn.functional.normalize(NORMALS[shape](points), dim=-1)
    assert len(points) > 300
    outside, within = points + 1e-6 * normals, points - 1e-6 * normals
    assert not INSIDE[shape](outside).any() and INSIDE[shape](within).float().mean() > 0.99


def test_the_nearest_solid_wins_and_a_miss_has_depth_zero():
    near, far = solid("box", (0.0, 0, 4), (0.3, 0.3, 0.5)), solid("ellipsoid", (0.0, 0, 6), (1.5, 1.5, 1.0))
    depth = cast(world(far, near), INTRINSICS, torch.eye(4).double(), (22, 18))
    assert depth[9, 11] == 3.5 and depth[0, 0] == 0
    assert (depth > 4.5).any()


def test_what_hides_the_light_casts_a_shadow_and_without_lights_there_is_none():
    wall, body = solid("plane", turn=math.pi), solid("box", (0.6, 0, 3.0), (0.2, 0.2, 0.2))
    light = torch.nn.functional.normalize(torch.tensor([0.5, 0, -1], dtype=torch.float64), dim=0)
    scene = World([wall, body], light, ambient=0.3)
    lit, dark = (render(scene, INTRINSICS, torch.eye(4).double(), (22, 18), 1, lights) for lights in (0, 1))
    shadow = (lit - dark).amax(0) > 0.1
    x = (0.6 - 0.5 * 2) / 5 * 30 + 11  # a ray from the box along the light meets the wall here
    assert shadow[9, int(x)] and 2 < shadow.sum() < 40


def test_more_samples_are_the_average_of_smaller_pixels():
    scene = world(solid("ellipsoid", pattern="checker"), solid("plane", (0.0, 0, 7)))
    fine = render(
        scene, torch.diag(torch.tensor([3.0, 3, 1])).double() @ INTRINSICS, torch.eye(4).double(), (66, 54), 1
    )
    coarse = render(scene, INTRINSICS, torch.eye(4).double(), (22, 18), 3)
    blocks = fine.view(3, 18, 3, 22, 3).mean((2, 4))
    torch.testing.assert_close(coarse, blocks)


def test_the_light_is_spread_over_a_disc_around_its_direction():
    light = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    lights = _spread(light, 0.2, 16)
    angles = (lights @ light).clamp(-1, 1).arccos()
    assert angles.max() < 0.2 and angles.max() > 0.15 and len(lights.unique(dim=0)) == 16
    assert torch.nn.functional.normalize(lights.mean(0), dim=0) @ light > 0.999
