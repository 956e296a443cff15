"""A small ray caster: textured solids under one light, with exact depth.

Everything is a tensor operation over rays, in the dtype of the rays. Rays have z = 1 in the camera, so the
distance along a ray *is* the depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import camera_center, pixel_grid

__all__ = ["Blob", "Relief", "Solid", "Texture", "World", "cast", "render"]

#: Hits nearer than this share of the ray do not count: a surface must not shadow itself.
NEAR = 1e-4


@dataclass(frozen=True)
class Texture:
    """A colour for every point of space: a pattern of two colours, roughened by noise of many octaves.

    Args:
        pattern: one of :data:`PATTERNS`.
        colors: (2, 3), RGB in [0, 1].
        scale: size of the pattern's unit, in world units.
        noise: (3, 17, 17, 17), periodic: the last entry of every axis repeats the first.
        noise_scale: size of the coarsest noise cell, in world units.
        amplitudes: one per octave of noise, in units of colour.
        blocky: nearest instead of trilinear noise.
        gloss: strength of the highlight.
        picture: (3, S, S) RGB, periodic like the noise; it takes the place of the pattern.
        across: (3, 2), projects the solid's coordinates to those of the picture, in units of the scale.
    """

    pattern: str
    colors: Tensor
    scale: float
    noise: Tensor
    noise_scale: float
    amplitudes: tuple[float, ...]
    blocky: bool = False
    gloss: float = 0.0
    picture: Tensor | None = None
    across: Tensor | None = None

    def color(self, points: Tensor) -> Tensor:
        """RGB (N, 3) at points (N, 3) of the solid's own, unscaled coordinates."""
        octaves = _octaves(points / self.noise_scale, self.noise, self.amplitudes, self.blocky)  # (N, 3)
        if self.picture is not None:
            return _periodic(self.picture, points / self.scale @ self.across) * (1 + octaves)
        share = PATTERNS[self.pattern](points / self.scale, octaves[:, :1]).clamp(0, 1)  # (N, 1)
        colors = self.colors.to(points)
        return torch.lerp(colors[0], colors[1], share) * (1 + octaves)


@dataclass(frozen=True)
class Solid:
    """A unit shape, stretched, turned and moved into place.

    Args:
        shape: one of :data:`SHAPES`.
        center: (3,), in world units.
        half_size: (3,), in world units.
        rotation: (3, 3), own to world coordinates.
        texture: its surface.
    """

    shape: str
    center: Tensor
    half_size: Tensor
    rotation: Tensor
    texture: Texture

    @property
    def reach(self) -> Tensor:
        """No point of it is farther from its centre, in world units."""
        return self.half_size.norm() if self.shape != "plane" else self.half_size.new_tensor(torch.inf)

    def intersect(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Where rays (N, 3) first meet it, (N,), in lengths of the direction; infinite where they miss."""
        o, d = self._unit(origins - self.center), self._unit(directions)
        enter, leave = SHAPES[self.shape](o, d)
        return torch.where((enter <= leave) & (enter > NEAR), enter, torch.inf)

    def normal(self, points: Tensor) -> Tensor:
        """Outward unit normals (N, 3) at surface points (N, 3)."""
        own = NORMALS[self.shape](self._unit(points - self.center)) / self.half_size
        return F.normalize(own @ self.rotation.T, dim=-1)

    def color(self, points: Tensor) -> Tensor:
        """RGB (N, 3) at surface points (N, 3)."""
        return self.texture.color((points - self.center) @ self.rotation)

    def _unit(self, vectors: Tensor) -> Tensor:
        return (vectors @ self.rotation) / self.half_size


@dataclass(frozen=True)
class _Marched(Solid):
    """A surface without a closed form: where a height, positive outside, first falls to zero on the ray."""

    bumps: Tensor
    STEPS = 24
    HALVINGS = 14

    def intersect(self, origins: Tensor, directions: Tensor) -> Tensor:
        """As for any solid; a bump that lies within one step of a grazing ray can be missed."""
        o, d = self._unit(origins - self.center), self._unit(directions)
        enter, leave = self._bounds(o, d)
        near = ((leave > enter) & (leave > NEAR)).nonzero().squeeze(1)
        depth = torch.full_like(enter, torch.inf)
        depth[near] = self._march(o[near], d[near], enter[near].clamp(min=NEAR), leave[near])
        return depth

    def _march(self, o: Tensor, d: Tensor, enter: Tensor, leave: Tensor) -> Tensor:
        step, found = (leave - enter) / self.STEPS, torch.zeros_like(enter, dtype=torch.bool)
        below = enter
        for _ in range(self.STEPS):
            below = torch.where(found, below, below + step)
            found |= self.height(o + below[:, None] * d) <= 0
        above = below - step
        for _ in range(self.HALVINGS):
            middle = (above + below) / 2
            inside = self.height(o + middle[:, None] * d) <= 0
            above, below = torch.where(inside, above, middle), torch.where(inside, middle, below)
        return torch.where(found, below, torch.inf)

    def normal(self, points: Tensor) -> Tensor:
        """Outward unit normals (N, 3) at surface points (N, 3), by differences."""
        x = self._unit(points - self.center)
        axes = 0.02 * torch.eye(3, dtype=x.dtype, device=x.device)
        slopes = torch.stack([self.height(x + e) - self.height(x - e) for e in axes], dim=1)
        return F.normalize((slopes / self.half_size) @ self.rotation.T, dim=-1)


@dataclass(frozen=True)
class Relief(_Marched):
    """A plane with hills and hollows: z = bumps(x, y) in the unit shape's coordinates, repeated without end.

    Args:
        bumps: (1, n, n) heights in [-1, 1], periodic: the last row and column repeat the first; the period is
            2 half sizes.
    """

    @property
    def reach(self) -> Tensor:
        return self.half_size.new_tensor(torch.inf)

    def height(self, x: Tensor) -> Tensor:
        """Of points (N, 3) above the surface, (N,)."""
        return x[:, 2] - _periodic(self.bumps, x[:, :2] / 2)[:, 0]

    def _bounds(self, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Where the ray passes the layer of the bumps; at most a dozen periods of it."""
        down = torch.where(d[:, 2].abs() < 1e-12, 1e-12, d[:, 2])
        ends = torch.stack([-1.01 - o[:, 2], 1.01 - o[:, 2]]) / down
        enter = ends.amin(0).clamp(min=0)
        return enter, torch.minimum(ends.amax(0), enter + 24 / d[:, :2].norm(dim=-1).clamp(min=1e-6))


@dataclass(frozen=True)
class Blob(_Marched):
    """A ball with dents: its radius is 1 - depth * (1 + bumps) / 2 in each direction.

    Args:
        bumps: (1, n, n, n) in [-1, 1], periodic.
        depth: of the deepest dent, as a share of the radius.
    """

    depth: float
    STEPS = 12

    def height(self, x: Tensor) -> Tensor:
        """Of points (N, 3) above the surface, (N,)."""
        radius = x.norm(dim=-1)
        dents = _periodic(self.bumps, 0.3 * x / radius.clamp(min=1e-6)[:, None])[:, 0]
        return radius - 1 + self.depth / 2 * (1 + dents)

    def _bounds(self, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        return _sphere(o, d)


@dataclass(frozen=True)
class World:
    """Solids, a light and a sky.

    Args:
        solids: what there is.
        light: (3,), unit vector towards the light.
        ambient: share of light that comes from everywhere.
        sky: (3,), RGB of what no solid hides.
        softness: radius of the light as seen from the scene, in radians; shadows get that blurred.
        clouds: a texture for the sky, read at unit directions.
    """

    solids: list[Solid]
    light: Tensor
    ambient: float = 0.35
    sky: Tensor = field(default_factory=lambda: torch.tensor([0.75, 0.85, 0.95], dtype=torch.float64))
    softness: float = 0.0
    clouds: Texture | None = None

    def to(self, *args, **kwargs) -> World:
        """The same with all tensors of another dtype or on another device: the arguments of Tensor.to."""
        return _to(self, *args, **kwargs)


def _to(thing, *args, **kwargs):
    """Tensor.to for all tensors in nested lists and dataclasses."""
    if isinstance(thing, Tensor):
        return thing.to(*args, **kwargs)
    if isinstance(thing, list):
        return [_to(item, *args, **kwargs) for item in thing]
    if isinstance(thing, World | Solid | Texture):
        return replace(thing, **{name: _to(value, *args, **kwargs) for name, value in vars(thing).items()})
    return thing


def cast(world: World, intrinsics: Tensor, extrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Exact depth at every pixel centre.

    Args:
        world: what is seen.
        intrinsics: (3, 3), in pixels of the depth map.
        extrinsics: (4, 4), world to camera.
        size: (width, height).

    Returns:
        (height, width), 0 where nothing is hit.

    Source: ours.
    """
    origins, directions = _rays(intrinsics, extrinsics, size, samples=1)
    depth, _ = _nearest(world, origins, directions)
    return torch.where(depth.isfinite(), depth, 0).view(size[1], size[0])


def render(
    world: World, intrinsics: Tensor, extrinsics: Tensor, size: tuple[int, int], samples: int, lights: int = 1
) -> Tensor:
    """A photograph without noise.

    Args:
        world: what is seen.
        intrinsics: (3, 3), in pixels.
        extrinsics: (4, 4), world to camera.
        size: (width, height).
        samples: rays per pixel in each direction, against jagged edges.
        lights: shadow rays per hit, spread over the light, against hard shadows; 0 for no shadows.

    Returns:
        (3, height, width), in [0, 1].

    Source: ours.
    """
    origins, directions = _rays(intrinsics, extrinsics, size, samples)
    colors = _shade(world, origins, directions, lights)  # (h * samples * w * samples, 3)
    image = colors.view(1, size[1] * samples, size[0] * samples, 3).permute(0, 3, 1, 2)
    return F.avg_pool2d(image, samples)[0].clamp(0, 1)


def _rays(
    intrinsics: Tensor, extrinsics: Tensor, size: tuple[int, int], samples: int
) -> tuple[Tensor, Tensor]:
    """Origins and directions (N, 3), N = height * width * samples^2, with z = 1 in the camera."""
    width, height = size[0] * samples, size[1] * samples
    x = pixel_grid(height, width, dtype=intrinsics.dtype, device=intrinsics.device).view(-1, 2) / samples
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    directions = x @ torch.linalg.inv(intrinsics).T @ extrinsics[:3, :3]  # R^T K^-1 x, as rows
    return camera_center(extrinsics).expand_as(directions), directions


def _nearest(world: World, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (N,) and number (N,) of the first solid that each ray meets."""
    depths = torch.stack([_meet(solid, origins, directions) for solid in world.solids])  # (S, N)
    return depths.min(dim=0)


def _meet(solid: Solid, origins: Tensor, directions: Tensor) -> Tensor:
    """Where rays (N, 3) meet a solid, (N,); most miss even the ball around it, and cost little."""
    toward = solid.center - origins
    along = (toward * directions).sum(-1)
    off = toward.square().sum(-1) - along.square() / directions.square().sum(-1)  # squared distance
    near = (off <= solid.reach**2).nonzero().squeeze(1)
    depth = torch.full_like(along, torch.inf)
    depth[near] = solid.intersect(origins[near], directions[near])
    return depth


def _shade(world: World, origins: Tensor, directions: Tensor, lights: int) -> Tensor:
    depth, index = _nearest(world, origins, directions)
    index = torch.where(depth.isfinite(), index, -1)
    sky = world.sky.to(origins).expand_as(origins)
    colors = sky.clone() if world.clouds is None else world.clouds.color(F.normalize(directions, dim=-1))
    for number, solid in enumerate(world.solids):
        seen = (index == number).nonzero().squeeze(1)
        if len(seen):
            points = origins[seen] + depth[seen, None] * directions[seen]
            colors[seen] = _lit(world, solid, points, directions[seen], lights)
    return colors


def _lit(world: World, solid: Solid, points: Tensor, directions: Tensor, lights: int) -> Tensor:
    """Lambert's law, a highlight, and shadows."""
    light, normal = world.light.to(points), solid.normal(points)
    facing = (normal @ light).clamp(min=0) * _unshadowed(world, points, normal, lights)  # (M,)
    half_way = F.normalize(light - F.normalize(directions, dim=-1), dim=-1)
    highlight = solid.texture.gloss * facing * (normal * half_way).sum(-1).clamp(min=0) ** 40
    overhead = 0.75 + 0.25 * normal[:, 2]  # a little less light from below
    brightness = world.ambient * overhead + (1 - world.ambient) * facing
    return solid.color(points) * brightness[:, None] + highlight[:, None]


def _unshadowed(world: World, points: Tensor, normal: Tensor, lights: int) -> Tensor:
    """Share of the light (M,) that nothing hides."""
    if lights == 0:
        return torch.ones_like(points[:, 0])
    start = points + normal * 1e-3
    seen = torch.zeros_like(points[:, 0])
    for light in _spread(world.light.to(points), world.softness, lights):
        toward = light.expand_as(points)
        hidden = torch.zeros_like(seen, dtype=torch.bool)
        for solid in world.solids:
            hidden |= _meet(solid, start, toward).isfinite()
        seen += ~hidden
    return seen / lights


def _spread(light: Tensor, softness: float, count: int) -> Tensor:
    """Directions (count, 3) over the disc of the light: a sunflower's spiral."""
    k = torch.arange(count, dtype=light.dtype, device=light.device) + 0.5
    radius = softness * (k / count).sqrt() if count > 1 else 0 * k
    across = F.normalize(torch.linalg.cross(light, light.roll(1)), dim=0)
    up = torch.linalg.cross(light, across)
    turn = k * 2.399963229728653  # the golden angle
    offsets = torch.outer(radius * turn.cos(), across) + torch.outer(radius * turn.sin(), up)
    return F.normalize(light + offsets, dim=-1)


# ------------------------------------------------------------------------------------------
# Unit shapes, all convex: where a ray enters and where it leaves.


def _sphere(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    return _roots((d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1)


def _cylinder(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Radius 1 around z, from z = -1 to 1."""
    d = torch.where(d.abs() < 1e-12, 1e-12, d)
    enter, leave = _roots((d * d)[:, :2].sum(-1), (o * d)[:, :2].sum(-1), (o * o)[:, :2].sum(-1) - 1)
    ends = torch.stack([-1 - o[:, 2], 1 - o[:, 2]]) / d[:, 2]
    return torch.maximum(enter, ends.amin(0)), torch.minimum(leave, ends.amax(0))


def _plane(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """z = 0, seen from either side."""
    t = -o[:, 2] / torch.where(d[:, 2].abs() < 1e-12, 1e-12, d[:, 2])
    return t, t


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Solutions of a t^2 + 2 b t + c = 0; an empty interval where there is none."""
    discriminant = b * b - a * c
    root = discriminant.clamp(min=0).sqrt()
    enter = torch.where(discriminant > 0, (-b - root) / a, torch.inf)
    return enter, (-b + root) / a


def _polytope(normals: Tensor) -> tuple[Callable, Callable]:
    """The body with n . x <= 1 for all of these normals: its intersection and its normal."""

    def intersect(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        n = normals.to(o)
        toward = n @ d.T  # (faces, N): reducing over the first dimension is the fast way round
        toward = torch.where(toward.abs() < 1e-12, 1e-12, toward)
        t = (1 - n @ o.T) / toward
        return torch.where(toward < 0, t, -torch.inf).amax(0), torch.where(toward > 0, t, torch.inf).amin(0)

    def normal(x: Tensor) -> Tensor:
        n = normals.to(x)
        return n[(x @ n.T).argmax(dim=-1)]

    return intersect, normal


def _faces(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


_CUBE = torch.cat([torch.eye(3), -torch.eye(3)]).double()
_ROOF = _faces((0, 1, 0), (0, -1, 0), (0, 0, -1), (2, 0, 1), (-2, 0, 1))  # a ridge along y
_TURN = torch.arange(6, dtype=torch.float64) * (torch.pi / 3)
_HEXAGON = torch.cat([torch.stack([_TURN.cos(), _TURN.sin(), 0 * _TURN], 1), _CUBE[[2, 5]]])
_PYRAMID = _faces((2, 0, 1), (-2, 0, 1), (0, 2, 1), (0, -2, 1), (0, 0, -1))

_polytopes = {
    name: _polytope(faces)
    for name, faces in {"box": _CUBE, "roof": _ROOF, "hexagon": _HEXAGON, "pyramid": _PYRAMID}.items()
}

#: Name -> (origins, directions) -> (enter, leave), in the unit shape's coordinates.
SHAPES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "ellipsoid": _sphere,
    "cylinder": _cylinder,
    "plane": _plane,
    **{name: intersect for name, (intersect, _) in _polytopes.items()},
}


def _cylinder_normal(x: Tensor) -> Tensor:
    side = torch.cat([x[:, :2], torch.zeros_like(x[:, :1])], dim=1)
    end = torch.cat([torch.zeros_like(x[:, :2]), x[:, 2:].sign()], dim=1)
    return torch.where(x[:, 2:].abs() > side.norm(dim=-1, keepdim=True), end, side)


#: Name -> surface points -> outward normals of any length, in the unit shape's coordinates.
NORMALS: dict[str, Callable[[Tensor], Tensor]] = {
    "ellipsoid": lambda x: x,
    "cylinder": _cylinder_normal,
    "plane": lambda x: x.new_tensor([0.0, 0, 1]).expand_as(x),
    **{name: normal for name, (_, normal) in _polytopes.items()},
}


# ------------------------------------------------------------------------------------------
# Patterns: points (N, 3) in units of the pattern, and noise (N, 1) -> share of the second colour (N, 1).


def _checker(x: Tensor, noise: Tensor) -> Tensor:
    return (x + 1e-3).floor().sum(-1, keepdim=True).remainder(2)


def _stripes(x: Tensor, noise: Tensor) -> Tensor:
    return (x[:, :1] + x[:, 1:2]).remainder(1).sub(0.5).abs().mul(16).sub(3.5)


def _bricks(x: Tensor, noise: Tensor) -> Tensor:
    """Courses along z, or along y on what lies flat."""
    flat = x[:, 2].abs() < 1e-2
    row = torch.where(flat, x[:, 1], x[:, 2]) * 2
    along = torch.where(flat, x[:, 0], x[:, 0] + x[:, 1]) + row.floor().remainder(2) / 2
    mortar = (row.remainder(1) < 0.1) | (along.remainder(1) < 0.05)
    tint = torch.sin(12.9898 * row.floor() + 78.233 * along.floor()) * 0.2
    return torch.where(mortar, 1, 0.15 + tint)[:, None]


def _marble(x: Tensor, noise: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.sin(6.28 * (x[:, :1] + 0.6 * x[:, 2:]) + 12 * noise)


def _wood(x: Tensor, noise: Tensor) -> Tensor:
    rings = (x[:, :1] ** 2 + (0.3 * x[:, 2:] + 0.02 * x[:, 1:2]) ** 2).sqrt()
    return 0.5 + 0.5 * torch.sin(25 * rings + 8 * noise)


def _spots(x: Tensor, noise: Tensor) -> Tensor:
    """One ball in every cell of a grid, moved and sized at random."""
    cell = x.floor()
    hashed = torch.sin(
        cell @ x.new_tensor([[12.9898, 39.3467, 73.156], [78.233, 11.135, 52.235], [37.719, 83.155, 9.151]])
    )
    hashed = (hashed * 43758.5453).remainder(1)  # (N, 3) in [0, 1), the same for all points of a cell
    distance = (x - cell - 0.5 - 0.2 * (hashed - 0.5)).norm(dim=-1, keepdim=True)
    return (0.25 + 0.15 * hashed[:, :1] - distance) * 20


def _plain(x: Tensor, noise: Tensor) -> Tensor:
    return 0.5 + noise


#: Name -> (points, noise) -> share of the second colour.
PATTERNS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain": _plain,
    "checker": _checker,
    "stripes": _stripes,
    "bricks": _bricks,
    "marble": _marble,
    "wood": _wood,
    "spots": _spots,
}


def _periodic(table: Tensor, x: Tensor) -> Tensor:
    """A table (C, n, n) or (C, n, n, n) of period 1, read at (N, 2) or (N, 3) between its entries: (N, C)."""
    at = (x.remainder(1) * 2 - 1).view(1, *[1] * (x.shape[1] - 1), -1, x.shape[1])
    values = F.grid_sample(table.to(x)[None], at, padding_mode="border", align_corners=True)
    return values.view(len(table), -1).T


def _octaves(x: Tensor, noise: Tensor, amplitudes: tuple[float, ...], blocky: bool) -> Tensor:
    """Value noise (N, 3): each octave twice as fine as the one before."""
    period = noise.shape[-1] - 1
    table = noise.to(x)[None]  # (1, 3, 17, 17, 17)
    total = torch.zeros_like(x)
    for octave, amplitude in enumerate(amplitudes):
        at = (x * 2**octave + 5.3 * octave).remainder(period) * (2 / period) - 1
        mode = "nearest" if blocky else "bilinear"
        value = F.grid_sample(
            table, at.view(1, 1, 1, -1, 3), mode=mode, padding_mode="border", align_corners=True
        )
        total += amplitude * value.view(3, -1).T
    return total
