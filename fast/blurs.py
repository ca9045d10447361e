"""The two blurs of the learned fusion on tensors, in eager PyTorch: a narrow one, and a broad one through cells.

Borders are mirrored with the edge pixel repeated, d c b a | a b c d | d c b a, however small the picture.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

__all__ = ["BLUR_RADIUS", "BLUR_SIGMA", "CELL", "blurred", "broadly_blurred"]

BLUR_SIGMA = 3.0  # pixels
BLUR_RADIUS = 9
CELL = 8  # pixels; broad blurs work on the means of such cells


def blurred(x: Tensor, sigma: float = BLUR_SIGMA, radius: int = BLUR_RADIUS) -> Tensor:
    """Gaussian blur of (B, C, H, W), cut off at `radius` pixels.

    A sum of shifted pictures: on a CPU a convolution with a 19 x 1 kernel takes up to five times longer.

    Equivalent to: `scipy.ndimage.gaussian_filter(x, sigma, axes=(2, 3), mode="reflect", radius=radius)`.
    """
    kernel = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = kernel[0] + 2 * sum(kernel[1:])
    for axis in (2, 3):
        size = x.shape[axis]
        padded = _mirrored(x, radius, axis)
        x = padded.narrow(axis, radius, size) * (kernel[0] / total)
        for offset in range(1, radius + 1):
            both = padded.narrow(axis, radius - offset, size) + padded.narrow(axis, radius + offset, size)
            x = x.add_(both, alpha=kernel[offset] / total)
    return x


def broadly_blurred(x: Tensor, sigma: float, radius: int) -> Tensor:
    """What a Gaussian blur leaves of the means over cells of CELL x CELL pixels, (B, C, H, W).

    The last cells are filled up with the edge; between the cells' centres the values lie on straight lines.

    Equivalent to: `reference.blurs.broadly_blurred` on each picture; sigma and radius in cells.
    """
    height, width = x.shape[2:]
    cells = avg_pool2d(pad(x, (0, -width % CELL, 0, -height % CELL), mode="replicate"), CELL)
    drawn = interpolate(
        blurred(cells, sigma, radius), scale_factor=CELL, mode="bilinear", align_corners=False
    )
    return drawn[:, :, :height, :width]


def _mirrored(x: Tensor, radius: int, axis: int) -> Tensor:
    """Longer by `radius` at either end of the axis; a picture smaller than that is mirrored over and over."""
    while radius:
        step = min(radius, x.shape[axis])
        first, last = x.narrow(axis, 0, step), x.narrow(axis, x.shape[axis] - step, step)
        x = torch.cat((first.flip(axis), x, last.flip(axis)), axis)
        radius -= step
    return x
