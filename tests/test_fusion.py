import math

import numpy as np
import pytest
import torch

from mvsnet_edu.camera import camera_center, project
from mvsnet_edu.fusion import (
    depth_normals,
    filter_depth_maps,
    fuse_depth_maps,
    geometric_consistency,
    sample_depth,
)

H, W = 18, 26  # of the depth maps
STRIDE = 4
K = torch.tensor([[60.0, 0, 12.5], [0, 63, 9.5], [0, 0, 1]], dtype=torch.float64)
K_FULL = torch.tensor([[240.0, 0, 50], [0, 252, 38], [0, 0, 1]], dtype=torch.float64)
FRONTAL = (torch.tensor([0.0, 0, 1]).double(), 4.0)  # the plane n . X = c
SLANTED = (torch.tensor([0.5, -0.3, 0.81]).double(), 3.5)


def pose(position=(0.0, 0, 0), turn=0.0, tilt=0.0, roll=0.0):
    """World to camera: stand at `position`, turned about y, x and z by these degrees."""
    a, b, c = (math.radians(angle) for angle in (turn, tilt, roll))
    Ry = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    Rx = torch.tensor([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    Rz = torch.tensor([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    E = torch.eye(4, dtype=torch.float64)
    E[:3, :3] = (Rz @ Rx @ Ry).double()
    E[:3, :3] = torch.linalg.qr(E[:3, :3])[0] * torch.sign(torch.linalg.qr(E[:3, :3])[1].diagonal())
    E[:3, 3] = -E[:3, :3] @ torch.tensor(position, dtype=torch.float64)
    return E


RIG = [pose(), pose((0.2, 0, 0.1), turn=-2), pose((-0.15, 0.1, 0), roll=7), pose((0, -0.2, -0.1), tilt=2)]
RIG += [pose((0.1, 0.15, 0.2), turn=3, roll=-90)]


def ray(K, E, x, y):
    """Direction in the world of the ray through a pixel, with z = 1 in the camera."""
    return E[:3, :3].T @ torch.linalg.inv(K) @ torch.tensor([x, y, 1.0], dtype=torch.float64)


def plane_depth(plane, E, K=K, height=H, width=W):
    """Depth of a plane, where the rays meet it."""
    normal, offset = plane
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    directions = torch.stack([x, y, torch.ones_like(x)], dim=-1).double() @ torch.linalg.inv(K).T @ E[:3, :3]
    return (offset - normal @ camera_center(E)) / (directions @ normal)


def scene(plane, poses):
    depths = torch.stack([plane_depth(plane, E) for E in poses])
    return depths, torch.ones_like(depths), [K_FULL] * len(poses), poses


def sees(E_ref, E_src, depth):
    """Which reference pixels fall into the source's image, by one pixel after the other."""
    inside = torch.zeros(H, W, dtype=torch.bool)
    for i in range(H):
        for j in range(W):
            point = camera_center(E_ref) + depth[i, j] * ray(K, E_ref, j + 0.5, i + 0.5)
            (x, y), z = project(point, K, E_src)
            inside[i, j] = z > 0 and 0 <= x < W and 0 <= y < H
    return inside


# --- two views ------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", [FRONTAL, SLANTED], ids=["frontal", "slanted"])
@pytest.mark.parametrize("src", [1, 2, 3, 4])
def test_exact_depths_agree_to_rounding(plane, src):
    ref_depth, src_depth = plane_depth(plane, RIG[0]), plane_depth(plane, RIG[src])
    check = geometric_consistency(ref_depth, K, RIG[0], src_depth, K, RIG[src])
    inside = sees(RIG[0], RIG[src], ref_depth)
    assert 0.2 < inside.float().mean() < 1
    assert check.reprojection_error[inside].max() < 1e-9
    assert check.relative_depth_error[inside].max() < 1e-11
    assert (check.depth - ref_depth)[inside].abs().max() < 1e-10
    assert all(torch.isinf(value[~inside]).all() for value in check)


def test_maps_and_cameras_of_two_sizes_agree_too():
    K_src = torch.tensor([[35.0, 0, 8], [0, 34, 5], [0, 0, 1]], dtype=torch.float64)
    ref_depth = plane_depth(SLANTED, RIG[0])
    src_depth = plane_depth(SLANTED, RIG[3], K_src, height=11, width=17)
    check = geometric_consistency(ref_depth, K, RIG[0], src_depth, K_src, RIG[3])
    known = check.reprojection_error.isfinite()
    assert known.float().mean() > 0.8 and check.reprojection_error[known].max() < 1e-9


def test_errors_of_a_wrong_source_are_those_of_two_view_geometry():
    aside = pose((0.3, 0, 0))  # so the disparity is f b / z
    check = geometric_consistency(
        torch.full((H, W), 4.0).double(), K, pose(), torch.full((H, W), 5.0).double(), K, aside
    )
    inside = check.depth.isfinite()
    assert inside.any()
    assert check.reprojection_error[inside].numpy() == pytest.approx(60 * 0.3 * (1 / 4 - 1 / 5))
    assert check.relative_depth_error[inside].numpy() == pytest.approx(0.25)
    assert check.depth[inside].numpy() == pytest.approx(5)


def test_a_camera_that_looks_away_confirms_nothing():
    depth = plane_depth(FRONTAL, RIG[0])
    check = geometric_consistency(depth, K, RIG[0], depth, K, pose((0, 0, 0.5), turn=180))
    assert all(torch.isinf(value).all() for value in check)


def test_unmeasured_pixels_say_nothing_and_break_nothing():
    depth = plane_depth(FRONTAL, RIG[0])
    ref_depth, src_depth = depth.clone(), depth.clone()
    ref_depth[2, 3], ref_depth[4, 5], ref_depth[6, 7] = 0, math.nan, math.inf
    src_depth[8, 9], src_depth[10, 11], src_depth[12, 13] = 0, math.nan, math.inf
    check = geometric_consistency(ref_depth, K, RIG[0], src_depth, K, RIG[0])
    expected = torch.ones(H, W, dtype=torch.bool)
    for i, j in [(2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)]:
        expected[i, j] = False
    assert torch.equal(check.reprojection_error < 1e-9, expected)
    assert not any(value.isnan().any() for value in check)


# --- reading a depth map --------------------------------------------------------------------------


def test_sampling_is_exact_on_a_plane_up_to_the_border():
    E, depth = RIG[0], plane_depth(SLANTED, RIG[0])
    pixels = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[0, 0], [W - 1e-9, H - 1e-9]], dtype=torch.float64)
    pixels = torch.cat([pixels * torch.tensor([W, H]), corners])
    normal, offset = SLANTED
    expected = torch.stack([offset / (normal @ ray(K, E, float(x), float(y))) for x, y in pixels])
    assert (sample_depth(depth, pixels) - expected).abs().max() < 1e-9


def test_sampling_never_invents_a_depth_between_two_surfaces():
    depth = torch.full((H, W), 2.0)
    depth[:, 10:] = 3.0
    pixels = torch.rand(2000, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([W, H])
    sampled = sample_depth(depth, pixels)
    assert torch.allclose(sampled, torch.where(pixels[:, 0] < 10, 2.0, 3.0), rtol=1e-6)


@pytest.mark.parametrize(
    "pixel", [(-1e-6, 5), (W, 5), (5, -1), (5, H), (math.nan, 5), (math.inf, 5), (5, -math.inf)]
)
def test_sampling_outside_gives_no_depth(pixel):
    assert sample_depth(torch.ones(H, W), torch.tensor(pixel)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_sampling_a_map_of_one_row_or_column(shape):
    assert sample_depth(torch.full(shape, 2.0), torch.tensor([0.3, 0.9])) == 2


# --- filtering ------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", [FRONTAL, SLANTED], ids=["frontal", "slanted"])
def test_exact_depths_survive_wherever_three_views_look(plane):
    depths, probabilities, intrinsics, poses = scene(plane, RIG)
    kept = filter_depth_maps(depths, probabilities, intrinsics, poses)
    for ref, depth in enumerate(depths):
        views = 1 + sum(sees(poses[ref], poses[src], depth).long() for src in range(5) if src != ref)
        assert torch.equal(kept.views[ref], views)
        assert torch.equal(kept.depths[ref] > 0, views >= 3)
        assert (kept.depths[ref] - depth)[views >= 3].abs().max() < 1e-9


def test_a_wrong_depth_is_dropped_and_harms_nobody_else():
    depths, probabilities, intrinsics, poses = scene(SLANTED, RIG[:4])
    clean = filter_depth_maps(depths, probabilities, intrinsics, poses)
    wrong = depths.clone()
    wrong[0, 8:11, 12:15] *= 1.03
    kept = filter_depth_maps(wrong, probabilities, intrinsics, poses)
    changed = wrong[0] != depths[0]
    assert (clean.depths[0][changed] > 0).all() and (kept.depths[0][changed] == 0).all()
    assert torch.equal(kept.depths[0][~changed], clean.depths[0][~changed])


def test_the_mean_is_over_the_views_that_agree():
    depths = torch.tensor([4.0, 4.02, 4.03, 5.0]).double().view(4, 1, 1).expand(4, H, W)
    kept = filter_depth_maps(depths, torch.ones(4, H, W), [K_FULL] * 4, [pose()] * 4)
    assert kept.depths[0][3, 4] == pytest.approx((4 + 4.02 + 4.03) / 3)
    assert kept.views[0][3, 4] == 3 and kept.depths[3][3, 4] == 0


def test_an_improbable_pixel_is_dropped_and_does_not_vote():
    depths = torch.full((3, H, W), 4.0)
    probabilities = torch.full((3, H, W), 0.8)  # the threshold itself is enough
    probabilities[1, 5, 6] = 0.79
    kept = filter_depth_maps(depths, probabilities, [K_FULL] * 3, [pose()] * 3, min_views=2)
    assert [int(views[5, 6]) for views in kept.views] == [2, 0, 2]
    assert [int(views[5, 7]) for views in kept.views] == [3, 3, 3]


def test_views_are_compared_with_their_sources_only():
    depths = torch.full((3, H, W), 4.0)
    arguments = depths, torch.ones_like(depths), [K_FULL] * 3, [pose()] * 3
    kept = filter_depth_maps(*arguments, sources=[[1], [0, 2], []], min_views=1)
    assert [int(views[0, 0]) for views in kept.views] == [2, 3, 1]


def by_loop(depths, probabilities, poses, ref, limits=(1.0, 0.01), min_views=3, dynamic=False):
    """The filter for one view, pixel by pixel and with nothing but numbers."""
    usable = torch.where(probabilities >= 0.8, depths, 0).nan_to_num(0, 0, 0)
    result = torch.zeros(H, W, dtype=torch.float64)
    sources = [src for src in range(len(poses)) if src != ref]
    for i in range(H):
        for j in range(W):
            depth = float(usable[ref, i, j])
            found = [_claim_of(usable[src], poses[ref], poses[src], i, j, depth) for src in sources]
            found = [
                (distance * STRIDE / limits[0], abs(claim - depth) / depth / limits[1], claim)
                for distance, claim in filter(None, found)
            ]
            claims = (_dynamic if dynamic else _static)(found, min_views)
            if depth > 0 and len(claims) >= min_views - 1:
                result[i, j] = (depth + sum(claims)) / (1 + len(claims))
    return result


def _static(found, min_views):
    return [claim for *errors, claim in found if max(errors) < 1]


def _dynamic(found, min_views):
    """As the docstring says it: the largest k from min_views - 1 on whose k sources are there."""
    for k in range(len(found), min_views - 2, -1):
        claims = [claim for *errors, claim in found if max(errors) < k / 4]
        if len(claims) >= k:
            return claims
    return []


def _claim_of(src_depth, E_ref, E_src, i, j, depth):
    if depth <= 0:
        return None
    (x, y), z = project(camera_center(E_ref) + depth * ray(K, E_ref, j + 0.5, i + 0.5), K, E_src)
    x, y = float(x), float(y)
    if not (z > 0 and 0 <= x < W and 0 <= y < H):
        return None
    j0, i0 = min(max(math.floor(x - 0.5), 0), W - 2), min(max(math.floor(y - 0.5), 0), H - 2)
    four = [float(src_depth[i0 + di, j0 + dj]) for di in (0, 1) for dj in (0, 1)]
    if min(four) > 0 and max(four) <= 1.05 * min(four):
        u, v = x - 0.5 - j0, y - 0.5 - i0
        top, bottom = (1 - u) / four[0] + u / four[1], (1 - u) / four[2] + u / four[3]
        claimed = 1 / ((1 - v) * top + v * bottom)
    else:
        claimed = float(src_depth[math.floor(y), math.floor(x)])
    if claimed <= 0:
        return None
    (back_x, back_y), back_z = project(camera_center(E_src) + claimed * ray(K, E_src, x, y), K, E_ref)
    return math.hypot(float(back_x) - j - 0.5, float(back_y) - i - 0.5), float(back_z)


@pytest.mark.parametrize("seed", range(2))
def test_equals_the_loop_on_noisy_maps_with_edges_and_holes(seed):
    generator = torch.Generator().manual_seed(seed)
    poses = RIG[:4]
    depths = torch.stack([plane_depth(SLANTED, E) for E in poses])
    front = torch.stack([plane_depth(FRONTAL, E) for E in poses]) - 0.8
    depths[:, :, 15:] = front[:, :, 15:]
    depths *= 1 + 0.003 * torch.randn(depths.shape, generator=generator, dtype=torch.float64)
    depths[torch.rand(depths.shape, generator=generator) < 0.05] = 0
    probabilities = torch.rand(depths.shape, generator=generator) + 0.75
    kept = filter_depth_maps(depths, probabilities, [K_FULL] * 4, poses, max_reprojection=1.2)
    for ref in (0, 3):
        expected = by_loop(depths, probabilities, poses, ref, limits=(1.2, 0.01))
        assert 0.1 < (expected > 0).float().mean() < 0.8
        assert (kept.depths[ref] - expected).abs().max() < 1e-10


@pytest.mark.parametrize("min_views", [2, 3])
def test_dynamic_consistency_equals_the_loop(min_views):
    generator = torch.Generator().manual_seed(min_views)
    poses = [*RIG, pose((-0.1, -0.1, 0.1), roll=20)]
    depths = torch.stack([plane_depth(SLANTED, E) for E in poses])
    depths *= 1 + 0.006 * torch.randn(depths.shape, generator=generator, dtype=torch.float64)
    limits = {"max_reprojection": 3.0, "max_relative_depth": 0.015}
    options = dict(limits, min_views=min_views, dynamic=True)
    kept = filter_depth_maps(depths, torch.ones_like(depths), [K_FULL] * 6, poses, **options)
    expected = by_loop(depths, torch.ones_like(depths), poses, 1, (3.0, 0.015), min_views, dynamic=True)
    assert 0.2 < (expected > 0).double().mean() < 0.95 and len(kept.views[1].unique()) >= 4
    assert (kept.depths[1] - expected).abs().max() < 1e-10


@pytest.mark.parametrize("total, error, static, dynamic", [(3, 0.6, 1, 0), (5, 0.6, 1, 1), (7, 1.2, 0, 1)])
def test_many_views_may_be_less_precise_than_few(total, error, static, dynamic):
    """All sources differ from the reference by this share of the threshold."""
    depths = torch.full((total, H, W), 4.0).double()
    depths[1:] *= 1 + 0.01 * error
    arguments = depths, torch.ones_like(depths), [K_FULL] * total, [pose()] * total
    for flag, expected in ((False, static), (True, dynamic)):
        kept = filter_depth_maps(*arguments, dynamic=flag)
        assert (kept.depths[0] > 0).double().mean() == expected


# --- fusion ---------------------------------------------------------------------------------------


def images(total, seed=0):
    return torch.rand(total, 3, H * STRIDE, W * STRIDE, generator=torch.Generator().manual_seed(seed))


def fuse(plane, poses, **options):
    depths, probabilities, intrinsics, poses = scene(plane, poses)
    return fuse_depth_maps(depths, probabilities, images(len(poses)), intrinsics, poses, **options)


def test_all_points_lie_on_the_plane_and_their_normals_are_its_own():
    cloud = fuse(SLANTED, RIG)
    normal, offset = (np.asarray(part) for part in SLANTED)
    assert len(cloud) > H * W
    assert np.abs(cloud.points @ normal - offset).max() < 1e-5
    assert np.abs(cloud.normals + normal / np.linalg.norm(normal)).max() < 1e-5  # towards the cameras


def test_one_surface_seen_by_equal_cameras_is_said_once():
    cloud = fuse(SLANTED, [pose()] * 4)
    assert len(cloud) == H * W
    expected = images(4)[0].unfold(1, STRIDE, STRIDE).unfold(2, STRIDE, STRIDE).mean((-1, -2)) * 255
    assert np.abs(cloud.colors - expected.permute(1, 2, 0).reshape(-1, 3).numpy()).max() <= 0.51


def test_a_second_view_adds_only_what_the_first_did_not_see():
    step = 5 * 4.0 / 60  # shifts the image of the frontal plane by five pixels
    cloud = fuse(FRONTAL, [pose(), pose((step, 0, 0))], min_views=1)
    assert len(cloud) == H * W + 5 * H
    assert len(np.unique(cloud.points.round(4), axis=0)) == len(cloud)


@pytest.mark.parametrize("roll, most", [(3, 0.01), (10, 0.05), (45, 0.2)])
def test_turned_pixels_leave_few_doubles(roll, most):
    """A pixel that no point happens to fall into speaks again: rarely, as long as the cameras are upright."""
    poses = [pose(), pose((0.03, 0.02, 0), roll=roll)]
    cloud = fuse(FRONTAL, poses, min_views=1)
    seen = sees(poses[1], poses[0], plane_depth(FRONTAL, poses[1]))
    doubles = len(cloud) - H * W - int((~seen).sum())
    assert 0 <= doubles <= most * int(seen.sum())


def test_masked_pixels_give_no_point_and_confirm_none():
    masks = torch.ones(3, H * STRIDE, W * STRIDE, dtype=torch.bool)
    masks[0, 9, 17] = False  # one pixel of the image, so one of the depth map: row 2, column 4
    masks[1, :, 4 * STRIDE :] = False
    cloud = fuse(FRONTAL, [pose()] * 3, min_views=2, masks=masks)
    pixels, _ = project(torch.from_numpy(cloud.points).double(), K, pose())
    found = torch.zeros(H, W)
    found[pixels[:, 1].long(), pixels[:, 0].long()] = 1
    expected = torch.ones(H, W)
    expected[2, 4] = 0  # only view 2 sees it there
    assert torch.equal(found, expected) and len(cloud) == H * W - 1
    assert len(fuse(FRONTAL, [pose()] * 3, masks=masks)) == H * 4


def test_surfaces_behind_one_another_are_both_kept():
    near, far = plane_depth(FRONTAL, pose()) - 2, plane_depth(FRONTAL, pose())
    probabilities, cameras = [torch.ones(H, W)] * 2, ([K_FULL] * 2, [pose()] * 2)
    cloud = fuse_depth_maps([near, far], probabilities, images(2), *cameras, min_views=1)
    assert len(cloud) == 2 * H * W and sorted(set(cloud.points[:, 2].round(4))) == [2, 4]


def test_points_are_averages_over_the_views():
    depths = torch.tensor([4.0, 4.02, 4.03]).double().view(3, 1, 1).expand(3, H, W)
    cloud = fuse_depth_maps(depths, torch.ones(3, H, W), images(3), [K_FULL] * 3, [pose()] * 3)
    assert cloud.points[:, 2] == pytest.approx((4 + 4.02 + 4.03) / 3)


def test_nothing_left_is_an_empty_cloud():
    cloud = fuse(FRONTAL, RIG[:2])
    assert len(cloud) == 0 and cloud.colors.shape == cloud.normals.shape == (0, 3)


def test_images_may_have_a_remainder_that_the_depth_maps_leave_out():
    depths = torch.full((1, H, W), 4.0)
    pictures = torch.zeros(1, 3, H * STRIDE + 3, W * STRIDE + 1)
    pictures[..., H * STRIDE :, :], pictures[..., W * STRIDE :] = 1, 1
    cloud = fuse_depth_maps(depths, torch.ones_like(depths), pictures, [K_FULL], [pose()], min_views=1)
    assert cloud.colors.max() == 0


def test_far_from_the_origin_nothing_changes_but_the_place():
    shift = torch.tensor([3e5, -2e5, 1e5], dtype=torch.float64)
    moved = []
    for E in RIG:
        E = E.clone()
        E[:3, 3] -= E[:3, :3] @ shift
        moved.append(E)
    depths, probabilities, intrinsics, poses = scene(SLANTED, RIG)
    near = filter_depth_maps(depths, probabilities, intrinsics, poses)
    far = filter_depth_maps(depths, probabilities, intrinsics, moved)
    assert all(torch.equal(a, b) for a, b in zip(near.views, far.views, strict=True))


def test_the_same_input_gives_the_same_cloud():
    one, two = fuse(SLANTED, RIG), fuse(SLANTED, RIG)
    assert np.array_equal(one.points, two.points) and np.array_equal(one.colors, two.colors)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"probabilities": torch.ones(2, H, W)}, "3 depth maps need as many probabilities, not 2"),
        ({"images": images(2)}, "3 depth maps need as many images, not 2"),
        ({"extrinsics": [pose()] * 4}, "3 depth maps need as many extrinsics, not 4"),
        ({"images": torch.rand(3, 3, 80, 104)}, "does not fit an image of 80 x 104"),
        ({"min_views": 0}, "at least 1, not 0"),
        ({"masks": torch.ones(2, H * STRIDE, W * STRIDE)}, "need as many masks, not 2"),
        ({"masks": torch.ones(3, H, W)}, "does not fit a mask"),
    ],
)
def test_says_what_does_not_fit(change, message):
    arguments = {"depths": torch.full((3, H, W), 4.0), "probabilities": torch.ones(3, H, W)}
    arguments |= {"images": images(3), "intrinsics": [K_FULL] * 3, "extrinsics": [pose()] * 3}
    arguments |= change
    with pytest.raises(ValueError, match=message):
        fuse_depth_maps(**arguments)


# --- normals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("E", RIG)
def test_normals_of_a_plane_point_at_the_camera(E):
    normals = depth_normals(plane_depth(SLANTED, E), K, E)
    assert (normals + SLANTED[0] / SLANTED[0].norm()).abs().max() < 1e-9


def test_a_normal_does_not_look_over_an_edge():
    depth = torch.where(torch.arange(W) < 10, plane_depth(SLANTED, RIG[0]), plane_depth(FRONTAL, RIG[0]) * 2)
    normals = depth_normals(depth, K, RIG[0])
    assert (normals[:, :10] + SLANTED[0] / SLANTED[0].norm()).abs().max() < 1e-9
    assert (normals[:, 10:] + FRONTAL[0]).abs().max() < 1e-9


def test_a_pixel_without_neighbours_is_parallel_to_the_image():
    depth = torch.zeros(5, 5)
    depth[2, 2] = 3.0
    normals = depth_normals(depth, K.float(), torch.eye(4))
    assert normals[2, 2].tolist() == [0, 0, -1] and not normals.isnan().any()


@pytest.mark.gpu
def test_the_gpu_gives_the_same_cloud():
    depths, probabilities, intrinsics, poses = scene(SLANTED, RIG)
    on_cpu = fuse_depth_maps(depths, probabilities, images(5), intrinsics, poses)
    arguments = depths, probabilities, images(5), intrinsics, poses
    on_gpu = fuse_depth_maps(*([value.cuda() for value in values] for values in arguments))
    assert on_gpu.points == pytest.approx(on_cpu.points, abs=1e-6) and (on_gpu.colors == on_cpu.colors).all()
