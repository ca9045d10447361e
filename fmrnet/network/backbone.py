"""The backbone of the general features: an EfficientNet-Lite (Liu, 2020) up to its fifth stage, with frozen weights.

It was taught to tell a thousand things apart on a million photographs, knows no surface better than another, and is
never trained here. `fmrnet.reference.backbone` is the same forward pass in NumPy, from this module's `state_dict`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

__all__ = ["FAMILY", "MULTIPLE", "STAGES", "STEM", "Backbone", "blocks", "channels", "fine", "whole"]

STAGES = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1))  # expansion, kernel size, stride
FAMILY = {  # channels of each stage, and its blocks
    "efficientnet-lite0": ((16, 24, 40, 80, 112), (1, 2, 2, 3, 3)),
    "efficientnet-lite1": ((16, 24, 40, 80, 112), (1, 3, 3, 4, 4)),
    "efficientnet-lite2": ((16, 24, 48, 88, 120), (1, 3, 3, 4, 4)),
    "efficientnet-lite3": ((24, 32, 48, 96, 136), (1, 3, 3, 5, 5)),
    "efficientnet-lite4": ((24, 32, 56, 112, 160), (1, 4, 4, 6, 6)),
}
GIVEN = (1, 2, 4)  # stages whose maps are given: strides 4, 8 and 16
STEM = 32  # channels of the first convolution
MULTIPLE = 16  # pixels, of which the sides are multiples: the last stride
# What pictures are brought to. The network was taught with (x - 127) / 128, less than half this contrast; here the
# usual mean and deviation of photographs find more (bench/decisions.md, twelfth round).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def channels(name: str) -> tuple[int, int, int]:
    """Of the maps that a backbone of FAMILY gives, F1, F2 and F3."""
    widths, _ = FAMILY[name]
    first, second, third = (widths[stage] for stage in GIVEN)
    return first, second, third


def blocks(name: str) -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Every block of a backbone of FAMILY: stage, number in it, inputs, outputs, expansion, kernel size, stride."""
    inputs = STEM
    for stage, ((expansion, kernel, stride), outputs, depth) in enumerate(
        zip(STAGES, *FAMILY[name], strict=True)
    ):
        for number in range(depth):
            yield stage, number, inputs, outputs, expansion, kernel, stride if number == 0 else 1
            inputs = outputs


class _Unit(nn.Module):
    """Convolution and perhaps ReLU6, of maps whose sides are multiples of the stride.

    Zeros are laid around as TensorFlow lays them: the odd one right and below.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, *, groups: int = 1, acts: bool = True
    ) -> None:
        super().__init__()
        around = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=around, groups=groups)
        self.acts = acts

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if stride > 1:
            before = (kernel - stride) // 2
            x = pad(x, 2 * (before, kernel - stride - before))
        x = self.conv(x)
        return x.clamp_(0, 6) if self.acts else x


class _Block(nn.Module):
    """Inverted bottleneck: channels are multiplied, filtered one by one, and brought together; added to the input
    where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        expand = [_Unit(inputs, middle, 1, 1)] if expansion > 1 else []
        filtered = _Unit(middle, middle, kernel, stride, groups=middle)
        self.body = nn.Sequential(*expand, filtered, _Unit(middle, outputs, 1, 1, acts=False))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found.add_(x) if self.adds else found


class Backbone(nn.Module):
    """Stem and five stages, without gradients. Each convolution holds the batch normalisation that came after it.

    Parameters
    ----------
    name : str
        Of FAMILY.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)
        self.stem = _Unit(3, STEM, 3, 2)
        stages: list[list[nn.Module]] = [[] for _ in STAGES]
        for stage, _, *shape in blocks(name):
            stages[stage].append(_Block(*shape))
        self.stages = nn.ModuleList(nn.Sequential(*parts) for parts in stages)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of pictures (B, 1 or 3, H, W) in [0, 1], whose sides are multiples of MULTIPLE.

        Returns
        -------
        (B, F1, H / 4, W / 4), (B, F2, H / 8, W / 8), (B, F3, H / 16, W / 16), of `channels`
        """
        x = self.stem((image.expand(-1, 3, -1, -1) - self.mean[:, None, None]) / self.std[:, None, None])
        given = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in GIVEN:
                given.append(x)
        return given[0], given[1], given[2]


def fine(maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The features of strides 4 and 8, drawn to stride 4: (B, F1 + F2, H / 4, W / 4)."""
    drawn = interpolate(maps[1], scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.cat((maps[0], drawn), 1)


def whole(maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """All features, drawn to stride 8: (B, F1 + F2 + F3, H / 8, W / 8)."""
    drawn = interpolate(maps[2], scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.cat((nn.functional.avg_pool2d(maps[0], 2), maps[1], drawn), 1)
