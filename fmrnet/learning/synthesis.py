"""Draws the parameters of synthetic defects (section III.B); `fast.synthesize` renders them by Eq 1.

A defect has a support S (noise blob, wobbling line, or dots, with soft edges), a content I_d (natural picture,
the texture's own from another place, or a brightened or dimmed copy of what is there), and is an occlusion
(translucent, opacity lambda) or destructive. Everything is drawn on the CPU from one generator, so that a seed
gives the same defects on every device.
"""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor

from fmrnet import devices, fast

__all__ = ["GRID", "DefectParameters", "draw", "lit", "speckled", "synthetic_defects"]

GRID = 9  # lattice of the noise blobs
SCALE = (
    64  # pixels; in a crop of this size lines are up to twice as long, dots up to an eighth of it in radius
)
DOTS = 6  # dots in a picture at most
MOST_SPECKLE = 0.2  # of a picture's pixels


class DefectParameters(TypedDict):
    """The drawn parameters of B defects, as `fast.synthesize` and the oracle take them."""

    kind: Tensor  # (B,) 0 blob, 1 line, 2 dots
    grid: Tensor  # (B, GRID, GRID)
    line: Tensor  # (B, 7) centre x, centre y, angle, half length, amplitude, period, phase
    dots: Tensor  # (B, DOTS, 3) x, y, radius
    level: Tensor  # (B,)
    edge: Tensor  # (B,)
    destructive: Tensor  # (B,) 0 or 1
    opacity: Tensor  # (B,) lambda


def draw(count: int, size: int, generator: torch.Generator) -> DefectParameters:
    """Parameters of `count` defects in crops of `size` x `size` pixels."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def log_uniform(low: float, high: float, *shape: int) -> Tensor:
        return uniform(math.log(low), math.log(high), *shape).exp()

    kind = torch.randint(3, (count,), generator=generator)
    blob, line = kind == 0, kind == 1

    # Noise on a coarse lattice: the coarser, the broader the blobs.
    fine = torch.randn(count, 1, GRID, GRID, generator=generator)
    coarse = torch.nn.functional.interpolate(fine[:, :, ::3, ::3], GRID, mode="bilinear", align_corners=True)
    grid = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, fine, coarse * 1.5).squeeze(1)

    centre = uniform(0, size, 2)
    lines = torch.cat(
        (
            centre,
            uniform(0, math.pi, 1),
            log_uniform(SCALE / 8, SCALE, 1),
            uniform(0, 1, 1) ** 2 * SCALE / 10,
            uniform(SCALE / 4, 2 * SCALE, 1),
            uniform(0, 2 * math.pi, 1),
        ),
        dim=1,
    )
    half_width = log_uniform(0.5, SCALE / 10)

    spots = torch.cat((uniform(0, size, DOTS, 2), log_uniform(0.7, SCALE / 8, DOTS, 1)), dim=2)
    absent = torch.arange(DOTS) > torch.randint(DOTS, (count, 1), generator=generator)
    spots[..., :2][absent] = -10.0 * size  # far outside the patch

    softness = log_uniform(0.5, SCALE / 8)
    if size > SCALE:  # in a larger crop, defects of every size from a patch's to the crop's
        growth = log_uniform(1, size / SCALE)
        lines[:, 3:6] *= growth[:, None]
        half_width, softness = half_width * growth, softness * growth
        spots[..., 2] *= growth[:, None]
    level = torch.where(blob, uniform(0.0, 1.3), torch.where(line, -half_width, torch.zeros(count)))
    edge = torch.where(blob, softness * 4 / size, softness)
    return DefectParameters(
        kind=kind,
        grid=grid,
        line=lines,
        dots=spots,
        level=level,
        edge=edge,
        destructive=torch.randint(2, (count,), generator=generator).float(),
        opacity=uniform(0.1, 0.9),
    )


def synthetic_defects(
    image: Tensor, natural: Tensor, own: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures with a synthetic defect each, and the defects' supports.

    Parameters
    ----------
    image : Tensor, (B, C, H, W) in [0, 1]
        Defect-free patches I_o, on any device.
    natural, own : Tensor, (B, C, H, W) in [0, 1]
        Patches of natural pictures, and defect-free patches from elsewhere, to take contents from.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    tuple of Tensor
        I_s (B, C, H, W) in [0, 1] and S (B, H, W) in [0, 1].
    """
    count, size, device = image.shape[0], image.shape[-1], image.device
    parameters = draw(count, size, generator)
    choice = torch.randint(3, (count, 1, 1, 1), generator=generator)
    # A shading of the picture itself: gain 1 and offset up to 0.3 either way, never close to none.
    sign = torch.randint(2, (count, 1, 1, 1), generator=generator) * 2 - 1
    offset = sign * (0.04 + 0.26 * torch.rand(count, 1, 1, 1, generator=generator))
    choice, offset = devices.sent(choice, device), devices.sent(offset, device)
    shaded = (image + offset).clamp(0, 1)
    source = torch.where(choice == 0, natural, torch.where(choice == 1, own, shaded))
    return fast.synthesize(
        image,
        source,
        kind=devices.sent(parameters["kind"], device),
        grid=devices.sent(parameters["grid"], device),
        line=devices.sent(parameters["line"], device),
        dots=devices.sent(parameters["dots"], device),
        level=devices.sent(parameters["level"], device),
        edge=devices.sent(parameters["edge"], device),
        destructive=devices.sent(parameters["destructive"], device),
        opacity=devices.sent(parameters["opacity"], device),
    )


def lit(image: Tensor, share: float, spread: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, C, H, W), of which a share comes under another light, brighter here and darker there.

    It is drawn at the corners, the middles of the sides and the centre, and linear in between; its deviation is
    drawn evenly for each picture, from none to `spread` (C,), in the pictures' unit.
    """
    count, _, *size = image.shape
    lattice = torch.randn(count, 1, 3, 3, generator=generator)
    light = torch.nn.functional.interpolate(lattice, size, mode="bilinear", align_corners=True)
    light *= torch.rand(count, 1, 1, 1, generator=generator)
    light *= torch.rand(count, 1, 1, 1, generator=generator) < share
    return (image + devices.sent(light, image.device) * spread[:, None, None]).clamp(0, 1)


def speckled(image: Tensor, share: float, generator: torch.Generator, *, least: float = 0.0) -> Tensor:
    """Pictures (B, C, H, W), of which a share loses pixels to noise, with random values in [0, 1] in their place.

    The noise of section IV.D: a pixel is replaced, in all channels, with a probability p; here p is drawn evenly
    for each picture, from `least` to MOST_SPECKLE.
    """
    count, _, height, width = image.shape
    p = least + (MOST_SPECKLE - least) * torch.rand(count, 1, 1, 1, generator=generator)
    p *= torch.rand(count, 1, 1, 1, generator=generator) < share
    hit = torch.rand(count, 1, height, width, generator=generator) < p
    values = torch.rand(image.shape, generator=generator)
    return torch.where(devices.sent(hit, image.device), devices.sent(values, image.device), image)
