"""A learned alternative to the product of Eq 23: seven small convolutions over what the comparison gives.

The product forgets what a defect looks like; this network is trained, after the generator, to find the supports
of synthetic defects in the picture, its background and their differences. `fmrnet.reference.learned_fusion` is
its oracle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

from fmrnet import fast
from fmrnet.config import SLOPE

__all__ = ["DILATIONS", "LearnedFusion", "fusion_inputs"]

DILATIONS = (1, 1, 2, 2, 4, 4, 1)
WIDTH = 32
BLUR_SIGMA = 3.0  # pixels; of what shows broad changes of brightness
BLUR_RADIUS = 9


def fusion_inputs(image: Tensor, background: Tensor, std: Tensor) -> Tensor:
    """What the network sees, (B, 3 C + 3, H, W), from a picture and its background (B, C, H, W) in [0, 1].

    In units of the texture's deviation `std` (C,): the picture less the blurred background, the residual with
    its sign, and the residual blurred; then 1 - GMS, 1 - SSIM and the residual's size, Eq 19, 21 and 22.
    """
    scale = std[:, None, None]
    residual = (image - background) / scale
    maps = fast.modality_maps(image, background)
    size = maps["residual"] / std.mean()
    detail = (image - _blurred(background)) / scale
    return torch.cat(
        (detail, residual, _blurred(residual), torch.stack((maps["gms"], maps["ssim"], size), 1)), 1
    )


def _blurred(x: Tensor) -> Tensor:
    """Gaussian blur of (B, C, H, W), borders mirrored with the edge pixel repeated."""
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / BLUR_SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (2, 3):
        r = BLUR_RADIUS
        size = x.shape[axis]
        mirrored = torch.cat(
            (x.narrow(axis, 0, r).flip(axis), x, x.narrow(axis, size - r, r).flip(axis)), axis
        )
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        flat = mirrored.reshape(-1, 1, *mirrored.shape[2:])
        x = conv2d(flat, kernel.view(shape)).reshape(x.shape)
    return x


class LearnedFusion(nn.Module):
    """Seven 3x3 convolutions, 32 channels wide, dilated up to 4: a pixel's answer rests on 31 x 31 pixels.

    Borders repeat the edge pixel: a defect at the border is as plain as one inside.
    """

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        widths = (3 * image_channels + 3, *[WIDTH] * (len(DILATIONS) - 1), 1)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=3, padding=d, dilation=d, padding_mode="replicate")
            for a, b, d in zip(widths[:-1], widths[1:], DILATIONS, strict=True)
        )
        for layer in self.layers:  # PyTorch's own start lets the signal fade from layer to layer
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        # Start by calling nearly everything good: the focal loss then begins small.
        nn.init.constant_(self.layers[-1].bias, -math.log(99))  # type: ignore[arg-type]

    def forward(self, image: Tensor, background: Tensor, std: Tensor) -> Tensor:
        """Logit of each pixel being defective, (B, H, W)."""
        x = fusion_inputs(image, background, std)
        for layer in self.layers[:-1]:
            x = leaky_relu(layer(x), SLOPE, inplace=True)
        logit: Tensor = self.layers[-1](x)
        return logit.squeeze(1)
