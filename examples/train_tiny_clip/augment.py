"""Random changes to a batch of drawings, so that a style's colors, place and size tell nothing."""

import math
import re

import torch
from concepts import Concept
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

_SYMBOLS, _FLAGS = 8, 9
_SIDED = re.compile(r"left|right|moon|o’clock|-thirty|letter|button|number|calendar|abc")


def may_flip(concept: Concept) -> bool:
    """Tell whether a mirrored image still shows the concept."""
    return concept.group not in (_SYMBOLS, _FLAGS) and _SIDED.search(concept.label) is None


def augment(rgba: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Turn (n, 4, s, s) drawings in 0..1 into (n, 3, s, s) training images in -1..1.

    Parameters
    ----------
    rgba : Tensor
        Colors are multiplied by alpha, so that resampling leaves no fringe.
    flip : bool Tensor of shape (n,)
        Which may be mirrored.
    """
    moved = _move(rgba, flip)
    color, alpha = moved[:, :3], moved[:, 3:]
    color = _recolor(color, alpha)
    image = color + (1 - alpha) * _background(len(rgba), rgba.shape[-1])
    image = _spoil(image)
    return image.clamp(0, 1) * 2 - 1


def _chance(n: int, p: float) -> torch.Tensor:
    return (torch.rand(n) < p).view(n, 1, 1, 1)


def _between(n: int, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.rand(n)


def _move(rgba: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Zoom, stretch, turn, shear, shift and mirror; half of the images keep their pose, as users' mostly do."""
    n = len(rgba)
    on = (torch.rand(n) < 0.7).float()
    angle, shear = on * _between(n, -0.35, 0.35), on * _between(n, -0.2, 0.2)
    zoom, stretch = torch.exp(on * _between(n, -0.2, 0.4)), torch.exp(on * _between(n, -0.12, 0.12))
    mirror = torch.where(flip & (torch.rand(n) < 0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * stretch * cos * mirror, zoom * (shear - sin)
    theta[:, 1, 0], theta[:, 1, 1] = zoom * sin * mirror, zoom / stretch * cos
    theta[:, :, 2] = on[:, None] * torch.empty(n, 2).uniform_(-0.2, 0.2)
    grid = affine_grid(theta, list(rgba.shape), align_corners=False)
    return grid_sample(rgba, grid, align_corners=False)


def _recolor(color: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Shift hue, contrast and brightness; sometimes gray or inverted. Colors stay multiplied by alpha."""
    n = len(color)
    mix = torch.eye(3) + _chance(n, 0.6).view(n, 1, 1) * torch.randn(n, 3, 3) * 0.12
    mixed = torch.einsum("nij,njhw->nihw", mix, color)
    gray = color.mean(1, keepdim=True).expand_as(color)
    mixed = torch.where(_chance(n, 0.12), gray, mixed)
    gain, bias = _between(n, 0.7, 1.25).view(n, 1, 1, 1), _between(n, -0.12, 0.12).view(n, 1, 1, 1)
    mixed = (mixed * gain + bias * alpha).clamp(0, 1).minimum(alpha)
    return torch.where(_chance(n, 0.04), alpha - mixed, mixed)


def _background(n: int, size: int) -> torch.Tensor:
    """White for half of the images, else a plain color or a slope between two."""
    first, second = torch.rand(n, 3, 1, 1), torch.rand(n, 3, 1, 1)
    second = torch.where(_chance(n, 0.5), first, second)
    ramp = torch.linspace(0, 1, size)
    ramp = torch.where(_chance(n, 0.5), ramp.view(1, 1, 1, size), ramp.view(1, 1, size, 1))
    return torch.where(_chance(n, 0.5), torch.ones(n, 3, 1, 1), first + (second - first) * ramp)


def _spoil(image: torch.Tensor) -> torch.Tensor:
    """Blur, noise, and a plain patch over a part of the image, each on some."""
    n, _, size, _ = image.shape
    blurred, noisy = ((torch.rand(n) < 0.15).nonzero().flatten() for _ in range(2))
    image[blurred] = avg_pool2d(image[blurred], 3, 1, 1, count_include_pad=False)
    image[noisy] += 0.06 * torch.randn(len(noisy), *image.shape[1:])
    for row in (torch.rand(n) < 0.2).nonzero().flatten().tolist():
        height, width = torch.randint(size // 10, size // 3, (2,)).tolist()
        top, left = torch.randint(0, size * 4 // 5, (2,)).tolist()
        image[row, :, top : top + height, left : left + width] = torch.rand(3, 1, 1)
    return image


def warmup_cosine(step: int, steps: int, warmup: float = 0.06) -> float:
    """Return the learning rate's factor at a step."""
    if step < warmup * steps:
        return (step + 1) / (warmup * steps)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup * steps) / ((1 - warmup) * steps)))
