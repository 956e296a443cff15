"""The ray caster against closed forms and marching along rays."""

from __future__ import annotations

import math

import pytest
import torch

from mvsnet_edu.camera import pixel_grid
from mvsnet_edu.data.render import NORMALS, SHAPES, Blob, Relief, Solid, Texture, World, _spread, cast, render

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


def marched(kind: str, seed: int = 0) -> Solid:
    """A stretched, turned relief or dented ball with smooth bumps."""
    base = solid("relief", (0.2, -0.1, 5.0), (1.1, 0.8, 0.4), turn=math.pi - 0.5)  # faces the camera
    wave = torch.linspace(0, 2 * math.pi, 33, dtype=torch.float64)
    if kind == "relief":
        bumps = 0.9 * (wave.sin()[:, None] * (2 * wave).cos())[None]
        return Relief("relief", base.center, base.half_size, base.rotation, base.texture, bumps)
    bumps = (wave.sin()[:, None, None] * wave.cos()[:, None] * (2 * wave).sin())[None]
    return Blob("blob", base.center, base.half_size, base.rotation, base.texture, bumps, 0.6)


def rays() -> torch.Tensor:
    directions = torch.cat(
        [(pixel_grid(18, 22).double() - INTRINSICS[:2, 2]) / 30, torch.ones(18, 22, 1)], -1
    )
    directions[..., 1] *= 30 / 32
    return directions.view(-1, 3)


@pytest.mark.parametrize("kind", ["relief", "blob"])
def test_a_marched_surface_lies_where_its_height_first_falls_to_zero(kind):
    body, d = marched(kind), rays()
    depth = cast(world(body), INTRINSICS, torch.eye(4).double(), (22, 18)).view(-1)
    seen = depth > 0
    assert seen.sum() > (300 if kind == "relief" else 40)
    x = (depth[seen, None] * d[seen] - body.center) @ body.rotation / body.half_size
    assert body.height(x).abs().max() < 1e-4
    t = torch.linspace(1, 12, 3001, dtype=torch.float64)[:, None]  # nothing lies before it
    for ray, first in zip(d[seen][::7], depth[seen][::7], strict=True):
        heights = body.height((t * ray - body.center) @ body.rotation / body.half_size)
        assert (heights[(t[:, 0] < first - 1e-3) & (t[:, 0] > 1)] > -1e-3).all()


@pytest.mark.parametrize("kind", ["relief", "blob"])
def test_normals_of_a_marched_surface_point_where_its_height_rises(kind):
    body, d = marched(kind), rays()
    depth = cast(world(body), INTRINSICS, torch.eye(4).double(), (22, 18)).view(-1)
    points = depth[depth > 0, None] * d[depth > 0]
    normals = body.normal(points)
    own = [
        (points + sign * 0.02 * normals - body.center) @ body.rotation / body.half_size for sign in (1, -1)
    ]
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(points), dtype=torch.float64))
    assert (body.height(own[0]) > 0).float().mean() > 0.98 and (body.height(own[1]) < 0).float().mean() > 0.98


def test_a_flat_relief_is_a_plane_and_a_ball_without_dents_is_a_ball():
    flat, ball = marched("relief"), marched("blob")
    plane = Solid("plane", flat.center, flat.half_size, flat.rotation, flat.texture)
    ellipsoid = Solid("ellipsoid", ball.center, ball.half_size, ball.rotation, ball.texture)
    flat = Relief(
        "relief", *[getattr(flat, n) for n in ("center", "half_size", "rotation", "texture")], 0 * flat.bumps
    )
    args = [getattr(ball, n) for n in ("center", "half_size", "rotation", "texture")]
    for ours, exact in ((flat, plane), (Blob("blob", *args, 0 * ball.bumps - 1, 0.5), ellipsoid)):
        depths = [cast(world(s), INTRINSICS, torch.eye(4).double(), (22, 18)) for s in (ours, exact)]
        agree = (depths[0] > 0) == (depths[1] > 0)
        assert agree.float().mean() > 0.97  # a march may miss what a ray only grazes
        torch.testing.assert_close(depths[0][agree], depths[1][agree], rtol=1e-4, atol=0)


def test_the_ball_around_a_solid_holds_it():
    """What the quick test discards, the exact one would not have met."""
    d = rays()
    for body in [solid(shape, half=(1.3, 0.6, 0.9), turn=0.7) for shape in INSIDE] + [marched("blob")]:
        exact = body.intersect(torch.zeros_like(d), d)
        drawn = cast(world(body), INTRINSICS, torch.eye(4).double(), (22, 18)).view(-1)
        torch.testing.assert_close(drawn, torch.where(exact.isfinite(), exact, 0), rtol=1e-9, atol=1e-9)


def test_a_picture_takes_the_place_of_the_pattern_and_repeats():
    picture = torch.rand(3, 5, 5, dtype=torch.float64)
    picture[:, -1], picture[:, :, -1] = picture[:, 0], picture[:, :, 0]
    picture[:, -1, -1] = picture[:, 0, 0]
    across = torch.tensor([[1.0, 0], [0, 1], [0, 0]], dtype=torch.float64)
    drawn = Texture(
        "plain", texture().colors, 2.0, texture().noise, 1.0, (0.0,), picture=picture, across=across
    )
    points = torch.tensor([[0.5, 1.0, 7], [2.5, -1.0, 3]], dtype=torch.float64)  # a period of 2 apart
    torch.testing.assert_close(drawn.color(points), picture[:, 2, 1].expand(2, 3))


def test_clouds_are_fixed_to_directions_and_a_world_moves_as_a_whole():
    scene = world(marched("relief"), marched("blob"), clouds=texture("checker"))
    single = scene.to(torch.float32)
    assert single.solids[0].bumps.dtype == single.clouds.colors.dtype == single.light.dtype == torch.float32
    shifted = torch.eye(4).double()
    shifted[0, 3] = -100.0
    back = torch.diag(torch.tensor([1.0, -1, -1, 1])).double()  # looks away from everything
    sky = world(marched("blob"), clouds=texture("checker"))
    images = [render(sky, INTRINSICS, back @ E, (22, 18), 1) for E in (torch.eye(4).double(), shifted)]
    assert torch.equal(*images) and images[0].std() > 0.01
