import torch
import torch.nn.functional as F

from .trials import both_kinds


def block_mean(image, reduce=torch.mean):
    B, C, H, W = image.shape
    small = torch.empty(B, C, H // 4, W // 4)
    for i in range(H // 4):
        for j in range(W // 4):
            block = image[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            small[:, :, i, j] = reduce(block.flatten(2), dim=-1)
    return small


def interpolated(image, **options):
    H, W = image.shape[-2:]
    return F.interpolate(image, size=(H // 4, W // 4), **options)


def refined(
    z, image, num, start, step, net, add=True, back=True, unit=True, clip=False, gaps=1, detach=False
):
    start = start.view(-1, 1, 1, 1)
    extent = (num - gaps) * step.view(-1, 1, 1, 1)
    shifted = z.detach() if detach else z
    n = (shifted - start) / extent if unit else shifted
    out = net(image, n) + (n if add else 0)
    out = out.clamp(0, 1) if clip else out
    if not unit:
        return out
    return out * extent + (start if back else 0)


def relu_residual(z, image, num, start, step, net):
    return refined(z, image, num, start, step, lambda image, n: net(image, n).relu())


def residual_in_world_units(z, image, num, start, step, net):
    start, extent = start.view(-1, 1, 1, 1), (num - 1) * step.view(-1, 1, 1, 1)
    return z + net(image, (z - start) / extent)


def around_the_net_only(z, image, num, start, step, net):
    start, extent = start.view(-1, 1, 1, 1), (num - 1) * step.view(-1, 1, 1, 1)
    return z + extent * net(image, ((z - start) / extent).detach())


def subtracting(z, image, num, start, step, net):
    return refined(z, image, num, start, step, lambda image, n: -net(image, n))


def first_scene_for_all(z, image, num, start, step, net):
    return refined(z, image, num, start[:1], step[:1], net)


def follows(refine, z, start, step, f, scale=(1, 1, 1), answer=1, **tolerance):
    s = [f if on else 1 for on in scale]
    other = refine(s[0] * z, s[1] * start, s[2] * step)
    expected = refine(z, start, step) * (f if answer else 1)
    return torch.allclose(other, expected, **tolerance)


def follows_relatively(refine, z, start, step, f):
    a, b = refine(f * z, f * start, f * step), f * refine(z, start, step)
    return bool(((a - b).abs() <= 1e-4 * b.abs()).all())


def follows_exactly(refine, z, start, step, f):
    return torch.equal(refine(f * z, f * start, f * step), f * refine(z, start, step))


RIGHT = {
    "normalise-depth": [
        lambda z, num, start, step: (z - start) / (step * (num - 1)),
        lambda z, num, start, step: (z - start) / step / (num - 1),
    ],
    "shrink-image": [
        block_mean,
        lambda image: F.avg_pool2d(image, 4),
        lambda i: interpolated(i, mode="area"),
    ],
    "refine-with-residual": [refined],
    "scale-equivariance": [
        follows_relatively,
        lambda *inputs: follows(*inputs, rtol=1e-4, atol=0),
    ],
}
WRONG = {
    "normalise-depth": {
        "planes for gaps": lambda z, num, start, step: (z - start) / (step * num),
        "start forgotten": lambda z, num, start, step: z / (step * (num - 1)),
        "by its own extremes": lambda z, num, start, step: (z - z.min()) / (z.max() - z.min()),
        "clipped": lambda z, num, start, step: ((z - start) / (step * (num - 1))).clamp(0, 1),
        "in intervals": lambda z, num, start, step: (z - start) / step,
        "precedence": lambda z, num, start, step: z - start / (step * (num - 1)),
        "upside down": lambda z, num, start, step: 1 - (z - start) / (step * (num - 1)),
        "eps with a unit": lambda z, num, start, step: (z - start) / (step * (num - 1) + 1e-2),
        "in place": lambda z, num, start, step: z.sub_(start).div_(step * (num - 1)),
    },
    "shrink-image": {
        "every fourth pixel": lambda image: image[:, :, ::4, ::4],
        "nearest": lambda image: interpolated(image, mode="nearest"),
        "bilinear": lambda image: interpolated(image, mode="bilinear", align_corners=False),
        "corners aligned": lambda image: interpolated(image, mode="bilinear", align_corners=True),
        "largest": lambda image: F.max_pool2d(image, 4),
        "sum for mean": lambda image: block_mean(image, torch.sum),
        "axes swapped": lambda image: block_mean(image).transpose(2, 3),
        "half": lambda image: F.avg_pool2d(image, 2),
        "median": lambda image: block_mean(image, lambda x, dim: x.median(dim=dim).values),
    },
    "refine-with-residual": {
        "residual alone": lambda *inputs: refined(*inputs, add=False),
        "start not added back": lambda *inputs: refined(*inputs, back=False),
        "not normalised": lambda *inputs: refined(*inputs, unit=False),
        "clipped": lambda *inputs: refined(*inputs, clip=True),
        "planes for gaps": lambda *inputs: refined(*inputs, gaps=0),
        "residual never negative": relu_residual,
        "residual not scaled": residual_in_world_units,
        "wrong sign": subtracting,
        "planes of the first scene": first_scene_for_all,
        "no gradient through the net": around_the_net_only,
        "no gradient at all": lambda *inputs: refined(*inputs, detach=True),
        "depth as it was": lambda z, *_: z,
    },
    "scale-equivariance": {
        "always yes": lambda *inputs: True,
        "always no": lambda *inputs: False,
        "invariance": lambda *inputs: follows(*inputs, answer=0, rtol=1e-4, atol=0),
        "depth alone scaled": lambda *inputs: follows(*inputs, scale=(1, 0, 0), rtol=1e-4, atol=0),
        "interval forgotten": lambda *inputs: follows(*inputs, scale=(1, 1, 0), rtol=1e-4, atol=0),
        "start forgotten": lambda *inputs: follows(*inputs, scale=(1, 0, 1), rtol=1e-4, atol=0),
        "to the last bit": follows_exactly,
        "far too tolerant": lambda *inputs: follows(*inputs, rtol=0.0, atol=10.0),
        "a tensor": lambda r, z, s, i, f: (r(f * z, f * s, f * i) - f * r(z, s, i)).abs().max() < 1e-4 * f,
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
