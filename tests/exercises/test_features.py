import torch
import torch.nn.functional as F

from mvsnet_edu import standardize

from .trials import both_kinds


def seen_by_gradient(kernels, strides):
    """The pixels that one output depends on, counted."""
    x = torch.zeros(1, 1, 4000, requires_grad=True)
    y = x
    for kernel, stride in zip(kernels, strides, strict=True):
        y = F.conv1d(y, torch.ones(1, 1, kernel), stride=stride)
    y[0, 0, 0].backward()
    return int((x.grad != 0).sum())


def backwards(kernels, strides):
    seen = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        seen = (seen - 1) * stride + kernel
    return seen


def field(kernels, strides, start=1, own_stride=False, cut=1):
    seen, distance = start, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        distance *= stride if own_stride else 1
        seen += (kernel - cut) * distance
        distance *= 1 if own_stride else stride
    return seen


def middle_of_the_ends(j, kernels, strides, pads):
    low = high = j
    for kernel, stride, pad in zip(kernels[::-1], strides[::-1], pads[::-1], strict=True):
        low, high = stride * low - pad, stride * high - pad + kernel - 1
    return (low + high) / 2


def centre(j, kernels, strides, pads, order=-1, sign=-1, half=1, middle=True):
    for kernel, stride, pad in zip(kernels[::order], strides[::order], pads[::order], strict=True):
        j = stride * j + sign * pad + ((kernel - half) / 2 if middle else 0)
    return float(j)


def product_only(j, kernels, strides, pads):
    return float(j * torch.tensor(strides).prod().item())


def floored(j, kernels, strides, pads):
    return float(middle_of_the_ends(j, kernels, strides, pads) // 1)


def standard(images, dims=(-2, -1), eps=1e-6, correction=0, centred=True, root=True):
    mean = images.mean(dims, keepdim=True)
    variance = images.var(dims, keepdim=True, correction=correction)
    scale = (variance.sqrt() if root else variance) + eps
    return (images - (mean if centred else 0)) / scale


def brightest_is_one(images):
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return (images - low) / (high - low + 1e-6)


def in_place(images):
    images -= images.mean((-2, -1), keepdim=True)
    return images / (images.square().mean((-2, -1), keepdim=True).sqrt() + 1e-6)


def normed(x, groups, correction=0, eps=1e-5, outside=0.0, pixels=True, batch=False, interleaved=False):
    B, C, H, W = x.shape
    if interleaved:
        parts = x.view(B, C // groups, groups, H, W).transpose(1, 2)
    else:
        parts = x.view(B, groups, C // groups, H, W)
    dims = ((0,) if batch else ()) + ((2, 3, 4) if pixels else (2,))
    mean = parts.mean(dims, keepdim=True)
    deviation = (parts.var(dims, keepdim=True, correction=correction) + eps).sqrt() + outside
    result = (parts - mean) / deviation
    return (result.transpose(1, 2) if interleaved else result).reshape(x.shape)


RIGHT = {
    "receptive-field": [seen_by_gradient, backwards, field],
    "feature-centre": [middle_of_the_ends, centre],
    "standardise-images": [standardize, standard, lambda images: standard(images, eps=1e-8)],
    "group-norm": [normed, F.group_norm],
}
WRONG = {
    "receptive-field": {
        "sum of the kernels": lambda kernels, strides: sum(kernels),
        "strides forgotten": lambda kernels, strides: field(kernels, [1] * len(strides)),
        "own stride counted": lambda kernels, strides: field(kernels, strides, own_stride=True),
        "kernel, not kernel less one": lambda kernels, strides: field(kernels, strides, cut=0),
        "starting from nothing": lambda kernels, strides: field(kernels, strides, start=0),
        "layers in reverse": lambda kernels, strides: field(kernels[::-1], strides[::-1]),
        "a float": lambda kernels, strides: float(field(kernels, strides)),
    },
    "feature-centre": {
        "first layer first": lambda *inputs: centre(*inputs, order=1),
        "padding added": lambda *inputs: centre(*inputs, sign=1),
        "padding forgotten": lambda *inputs: centre(*inputs, sign=0),
        "half a pixel off": lambda *inputs: centre(*inputs, half=0),
        "first pixel, not the middle": lambda *inputs: centre(*inputs, middle=False),
        "strides only": product_only,
        "a whole pixel": floored,
    },
    "standardise-images": {
        "one mean for the image": lambda images: standard(images, (-3, -2, -1)),
        "over the views": lambda images: standard(images, (1, -2, -1)),
        "over the channels": lambda images: standard(images, (-3,)),
        "columns alone": lambda images: standard(images, (-1,)),
        "unbiased": lambda images: standard(images, correction=1),
        "not centred": lambda images: standard(images, centred=False),
        "by the variance": lambda images: standard(images, root=False),
        "nothing over nothing": lambda images: standard(images, eps=0.0),
        "a large epsilon": lambda images: standard(images, eps=1e-2),
        "to 0 and 1": brightest_is_one,
        "in place": in_place,
    },
    "group-norm": {
        "instance norm": lambda x, groups: normed(x, x.shape[1]),
        "layer norm": lambda x, groups: normed(x, 1),
        "batch norm": lambda x, groups: F.batch_norm(x, None, None, training=True),
        "groups over the batch": lambda x, groups: normed(x, groups, batch=True),
        "every other channel": lambda x, groups: normed(x, groups, interleaved=True),
        "pixel by pixel": lambda x, groups: normed(x, groups, pixels=False),
        "unbiased": lambda x, groups: normed(x, groups, correction=1),
        "epsilon outside the root": lambda x, groups: normed(x, groups, eps=0.0, outside=1e-5),
        "groups for their size": lambda x, groups: normed(x, x.shape[1] // groups),
    },
}
test_accepts, test_refuses = both_kinds(RIGHT, WRONG)
