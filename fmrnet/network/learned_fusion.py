"""A learned alternative to the product of Eq 23: a small U-Net, and the residual's energy beside it.

The product forgets what a defect looks like. The convolutions are trained, after the generator, to find the supports
of synthetic defects in the picture, its background and their differences. They know those defects best; the energy of
the residual knows none and misses none by kind. Each is measured in standard deviations of what good pictures give,
and the map rests on a mean of both, the answer counting twice: both help to say whether there is a defect, and where.
A broad faint defect, which drowns in the grain pixel by pixel, is plain in the convolutions' answer over a
neighbourhood; where that is the plainer it takes the pixel's place.
`fmrnet.reference.learned_fusion` is the oracle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pad, pixel_shuffle, pixel_unshuffle

from fmrnet import fast
from fmrnet.config import SLOPE
from fmrnet.fast.blurs import blurred, broadly_blurred

__all__ = [
    "Block",
    "LearnedFusion",
    "alarm",
    "beyond_good",
    "defect_labels",
    "learned_map",
    "neighbourhood",
    "size_weights",
]

WIDTHS = (32, 64, 96)  # channels at a half, a quarter and an eighth of the picture's size
FOLD = 2  # the convolutions work on blocks of 2 x 2 pixels, a quarter of the work and twice the view
MULTIPLE = 8  # pixels; pictures are filled up to a multiple of the coarsest map's
VISIBLE = 0.3  # deviations of the texture, blurred: a synthetic defect that changes less is not learnt from
NEIGHBOURHOOD_SIGMA = 2.0  # cells
NEIGHBOURHOOD_RADIUS = 4  # cells
NEIGHBOURHOOD_SHARE = 0.7  # of its standard score: where both are plain the pixel's own answer is the sharper
ANSWER_SHARE = 2 / 3  # of the map; the rest is the energy's
ALARM_SHARE = 0.8  # of the answer in what a picture's score is made of
AROUND_SHARE = (
    0.25  # of the neighbourhood's score, which a lone answer is beyond: ragged edges answer all along
)
DEFECT_AREA = 400.0  # pixels: a synthetic defect of this size counts for what it has
SIZE_POWER = 0.75  # 0: every pixel counts alike; 1: every defect
MOST_WEIGHT = 12.0
NOT_COUNTED = -1.0  # label of the pixels that are neither good nor defective
HALF = 3.0  # standard deviations; where the map is 1/2


def defect_labels(image: Tensor, synthetic: Tensor, support: Tensor, std: Tensor) -> Tensor:
    """What the convolutions are to say of each pixel, (B, H, W): 1 defective, 0 good, NOT_COUNTED neither.

    Defective is where S > 1/2 and the defect can be seen: where the change from I_o to I_s (B, C, H, W), blurred,
    is more than VISIBLE. Good is where S is next to nothing.
    """
    change = ((synthetic - image) / std[:, None, None]).square().mean(1, keepdim=True)
    seen = blurred(change).squeeze(1) > VISIBLE**2
    label = torch.full_like(support, NOT_COUNTED)
    label[support < 0.02] = 0.0
    label[(support > 0.5) & seen] = 1.0
    return label


def neighbourhood(logit: Tensor) -> Tensor:
    """The logit (B, H, W) averaged over the pixels around, with Gaussian weights 16 pixels broad."""
    return broadly_blurred(logit[:, None], NEIGHBOURHOOD_SIGMA, NEIGHBOURHOOD_RADIUS).squeeze(1)


def beyond_good(scores: Tensor) -> Tensor:
    """How far each pixel lies beyond good pictures, (B, H, W), from `LearnedFusion.standard_scores` (B, 3, H, W).

    The mean of the answer, by ANSWER_SHARE, and the energy, in standard deviations; the answer is the logit's score, or
    that of its neighbourhood where NEIGHBOURHOOD_SHARE of it is more.
    """
    logit, around, energy = scores.unbind(1)
    return torch.lerp(energy, torch.maximum(logit, NEIGHBOURHOOD_SHARE * around), ANSWER_SHARE)


def alarm(scores: Tensor) -> Tensor:
    """What a picture's score is made of, (B, H, W), 0 or more, from `LearnedFusion.standard_scores` (B, 3, H, W).

    As `beyond_good`, with ALARM_SHARE, and of the logit's score only what is beyond AROUND_SHARE of its
    neighbourhood's: a speck stands alone, and a ragged edge, good as it is, answers faintly all along.
    """
    logit, around, energy = scores.unbind(1)
    lone = logit - AROUND_SHARE * around.clamp_min(0)
    return torch.lerp(energy, torch.maximum(lone, NEIGHBOURHOOD_SHARE * around), ALARM_SHARE).clamp_min(0)


def learned_map(beyond: Tensor) -> Tensor:
    """The anomaly map in [0, 1] from `beyond_good`, of the same shape: 1/2 at HALF deviations."""
    return torch.sigmoid(beyond - HALF)


def size_weights(label: Tensor, cell: int = 1) -> Tensor:
    """What each pixel of `defect_labels` (B, H, W) counts for in training: a crack nearly as much as a stain.

    1 where it is good; where it is defective (DEFECT_AREA / defective pixels of the picture)^SIZE_POWER, no more than
    MOST_WEIGHT and no less than its inverse. Of labels of cells, `cell` is their side in pixels.
    """
    defective = label > 0
    area = defective.flatten(1).sum(1).clamp_min(1) * cell**2
    weight = (DEFECT_AREA / area).pow(SIZE_POWER).clamp(1 / MOST_WEIGHT, MOST_WEIGHT)
    return torch.where(defective, weight[:, None, None], 1.0)


class Block(nn.Module):
    """3x3 convolution that repeats edge pixels, batch normalisation, leaky ReLU; half the size with stride 2."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel_size=3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            padding_mode="replicate",
            bias=False,
        )
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, a=SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return leaky_relu(self.norm(self.conv(x)), SLOPE, inplace=True)


class LearnedFusion(nn.Module):
    """A small U-Net on blocks of 2 x 2 pixels: 32, 64 and 96 channels at a half, a quarter and an eighth of the size.

    On the way up each map is taken to the width of the finer one, drawn twice as large and added to it. A pixel's
    answer rests on about 100 x 100 around it. Borders repeat the edge pixel: a defect at the border is as plain as one
    inside. `forward` gives the logits that training works on, `standard_scores` what a map is made of.
    """

    good_mean: Tensor  # (3,) of the evidence over good pictures
    good_std: Tensor

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.stem = Block((4 * image_channels + 3) * FOLD**2, fine)
        self.down = nn.ModuleList(
            (
                nn.Sequential(Block(fine, middle, stride=2), Block(middle, middle)),
                nn.Sequential(
                    Block(middle, coarse, stride=2), Block(coarse, coarse), Block(coarse, coarse, dilation=2)
                ),
            )
        )
        self.up = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in ((coarse, middle), (middle, fine)))
        self.refine = nn.ModuleList((Block(middle, middle), Block(fine, fine)))
        self.output = nn.Conv2d(fine, FOLD**2, kernel_size=3, padding=1, padding_mode="replicate")
        # Start by calling nearly everything good: the focal loss then begins small.
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.constant_(self.output.bias, -math.log(99))  # type: ignore[arg-type]
        self.register_buffer("good_mean", torch.zeros(3))
        self.register_buffer("good_std", torch.ones(3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logit of each pixel being defective, (B, H, W), from `fast.fusion_inputs` (B, 4 C + 3, H, W)."""
        height, width = inputs.shape[2:]
        x = pad(inputs, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        maps = [self.stem(pixel_unshuffle(x, FOLD))]
        for block in self.down:
            maps.append(block(maps[-1]))
        x = maps.pop()
        for narrow, refine in zip(self.up, self.refine, strict=True):
            x = refine(maps.pop() + interpolate(narrow(x), scale_factor=2.0, mode="nearest"))
        logit: Tensor = pixel_shuffle(self.output(x), FOLD)
        return logit.squeeze(1)[:, :height, :width]

    def evidence(self, image: Tensor, background: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The logit, the logit of the neighbourhood and the log energy of each pixel, (B, 3, H, W)."""
        unlit = fast.without_light(image, background, std)
        inputs, energy = fast.fusion_inputs(unlit, background, mean, std)
        logit = self(inputs)
        return torch.stack((logit, neighbourhood(logit), energy), 1)

    def standard_scores(self, image: Tensor, background: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The evidence in standard deviations above what good pictures give, (B, 3, H, W)."""
        evidence = self.evidence(image, background, mean, std)
        return (evidence - self.good_mean[:, None, None]) / self.good_std[:, None, None]

    @torch.no_grad()
    def standardise(self, good: Iterable[tuple[Tensor, Tensor]], mean: Tensor, std: Tensor) -> None:
        """Take the mean and deviation of the evidence from good pictures and their backgrounds, (C, H, W) each."""
        sums = torch.zeros(3, len(self.good_mean), dtype=torch.float64, device=std.device)
        for image, background in good:
            values = self.evidence(image[None], background[None], mean, std)[0].flatten(1).double()
            sums[0] += values.shape[1]
            sums[1] += values.sum(1)
            sums[2] += values.square().sum(1)
        centre = sums[1] / sums[0]
        self.good_mean.copy_(centre)
        self.good_std.copy_((sums[2] / sums[0] - centre.square()).clamp_min(1e-6).sqrt())
