"""Three witnesses on general features: two that know good pictures alone, and one that was shown synthetic defects.

    fine    how far the features of strides 4 and 8 lie from the Gaussian of good pictures' features
    coarse  the same of all features of the picture at half its size: broad defects, and those in the wrong place
    head    a small network on all features, taught on synthetic defects; presets may leave it out

What each says is a map of its own unit and grid. What it says beyond what is usual at a place (`fmrnet.usual`)
`Surprise` turns into tail probabilities of good pictures, which may be added. `fmrnet.reference.general` is the oracle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from fmrnet.config import SLOPE, Config
from fmrnet.network.backbone import Backbone, channels, fine, whole
from fmrnet.usual import BANDS, CELL, GAUSSIANS, may_be_places

__all__ = ["GRIDS", "Gaussian", "General", "Head", "Surprise", "beyond", "cells_of", "drawn", "in_cells"]

GRIDS = (4, 16, 8)  # pixels of a side of a cell of each witness's grid
WIDTH = 64  # channels of the head
LEVELS = 1024  # of each witness over good pictures, evenly spaced in rank up to TAIL
TAIL = 0.99  # share of good values that the levels hold; beyond, an exponential tail
FEWEST = 10  # values beyond the last level whose mean is taken
LEAST_RATE = 1e-6  # of the tail: of a flat surface every value is the same
LEAST = 1e-6  # of a distance, whose logarithm is taken


class Gaussian(nn.Module):
    """How far features lie from those of good pictures: Mahalanobis distance, with the covariance of all of them."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("whitening", torch.eye(features))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, H, W), 0 or more."""
        rows = features.permute(0, 2, 3, 1) - self.mean
        distance: Tensor = torch.linalg.vector_norm(rows @ self.whitening, dim=3)
        return distance

    @torch.no_grad()
    def fit(self, rows: Tensor, shrinkage: float = 0.01) -> None:
        """Take mean and covariance of rows (N, F), in float64; to each variance a share of their mean is added."""
        wide = rows.double()
        centre = wide.mean(0)
        covariance = (wide - centre).mT @ (wide - centre) / max(len(wide) - 1, 1)
        floor = shrinkage * covariance.diagonal().mean() + 1e-9
        values, vectors = torch.linalg.eigh(
            covariance + floor * torch.eye(len(centre), dtype=wide.dtype, device=wide.device)
        )
        self.mean.copy_(centre)
        self.whitening.copy_(vectors / values.sqrt())


class Head(nn.Module):
    """Logit of each cell of 8 x 8 pixels being defective, from all F features (B, F, H / 8, W / 8)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(features)
        self.narrow = nn.Conv2d(features, WIDTH, 1)
        self.around = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="replicate")
        self.norm = nn.BatchNorm2d(WIDTH)
        self.output = nn.Conv2d(WIDTH, 1, 1)
        nn.init.constant_(self.output.bias, -4.0)  # type: ignore[arg-type]  # nearly everything is good

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, h, w)."""
        x = leaky_relu(self.narrow(self.scale(features)), SLOPE)
        logit: Tensor = self.output(leaky_relu(self.norm(self.around(x)), SLOPE))
        return logit.squeeze(1)


class Surprise(nn.Module):
    """-log10 of the share of good values that are as great: what lets witnesses of different units be added (Fisher).

    Up to the greatest hundredth that share is counted; beyond, good values are taken to fall off exponentially.
    """

    levels: Tensor  # (W, LEVELS)
    rate: Tensor  # (W,), mean excess over the last level

    def __init__(self, witnesses: int) -> None:
        super().__init__()
        self.register_buffer("levels", torch.linspace(0, 1, LEVELS).repeat(witnesses, 1))
        self.register_buffer("rate", torch.ones(witnesses))

    def forward(self, witness: int, values: Tensor) -> Tensor:
        """Of the values of one witness, any shape; 0 or more."""
        levels = self.levels[witness]
        above = torch.searchsorted(levels, values.contiguous()).clamp(1, LEVELS - 1)
        low, high = levels[above - 1], levels[above]
        part = torch.where(high > low, (values - low) / (high - low).clamp_min(1e-30), 0.0).clamp(0, 1)
        share = 1 - TAIL * (above - 1 + part) / (LEVELS - 1)
        last = levels[-1]
        beyond = (values - last) / (self.rate[witness] * math.log(10)) - math.log10(1 - TAIL)
        return torch.where(values > last, beyond, -torch.log10(share))

    @torch.no_grad()
    def fit(self, witness: int, values: Tensor) -> None:
        """Take the levels of one witness from its values over good pictures, (N,)."""
        ordered = values.flatten().double().sort().values
        ranks = torch.linspace(0, TAIL * (len(ordered) - 1), LEVELS, dtype=torch.float64).round().long()
        levels = ordered[ranks.to(ordered.device)]
        excess = ordered[ordered > levels[-1]] - levels[-1]
        # Too few to take the fall-off from: then it is that between the middle and the last level, 0.5 to 1 - TAIL.
        half = (levels[-1] - ordered[len(ordered) // 2]) / math.log(0.5 / (1 - TAIL))
        self.levels[witness] = levels
        self.rate[witness] = (excess.mean() if len(excess) >= FEWEST else half).clamp_min(LEAST_RATE)


class General(nn.Module):
    """The backbone, the witnesses on it, and the surprise of every witness, the network's own two as the last.

    What they usually say, `near` and `place`, is taken by `fmrnet.usual.Usual`.
    """

    near: Tensor  # (W, BANDS)
    place: Tensor  # (W, h, w)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone)
        given = channels(config.backbone)
        self.fine = Gaussian(sum(given[:2]))
        self.coarse = Gaussian(sum(given))
        self.head = Head(sum(given)) if config.head_iterations else None
        self.witnesses = self.own + 2 * config.generator
        self.surprise = Surprise(self.witnesses)
        self.register_buffer("near", torch.zeros(self.witnesses, BANDS))
        self.register_buffer("place", torch.zeros(self.witnesses, 0, 0))

    @property
    def own(self) -> int:
        """Number of the witness after those on general features: the network's own map, and after it its alarm map."""
        return 2 if self.head is None else 3

    def make_places(self, shape: tuple[int, ...]) -> None:
        """Forget places, and have room for those of this shape, (W, h, w), if they may have it."""
        if may_be_places(shape, self.witnesses):
            self.place = self.near.new_zeros(shape)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What fine witness, coarse witness and head see of pictures (B, C, H, W) in [0, 1], multiples of 32 pixels."""
        maps = self.backbone(image)
        halved = nn.functional.avg_pool2d(image, 2)
        return fine(maps), whole(self.backbone(halved)), whole(maps)

    def evidence(self, image: Tensor) -> list[Tensor]:
        """What each witness says of pictures (B, C, H, W), in its own unit and on its own grid (B, h, w)."""
        fine_features, coarse_features, all_features = self.features(image)
        found = [self.fine(fine_features), self.coarse(coarse_features)]
        return found if self.head is None else [*found, self.head(all_features)]

    def surprised(self, witness: int, values: Tensor, usual: Tensor) -> Tensor:
        """The surprise of one witness, (B, h, w), from what it says and what all usually say, (W, H / 4, W / 4)."""
        surprise: Tensor = self.surprise(witness, beyond(witness, values, usual))
        return surprise

    def surprises(self, evidence: list[Tensor], usual: Tensor) -> list[Tensor]:
        """The surprise of each witness on general features, on its own grid (B, h, w), from `evidence`."""
        return [self.surprised(number, values, usual) for number, values in enumerate(evidence)]

    def joined(self, surprises: list[Tensor]) -> Tensor:
        """The sum of `surprises` at each pixel, (B, H, W)."""
        return torch.stack([drawn(values, cell) for values, cell in zip(surprises, GRIDS)]).sum(0)


def beyond(witness: int, values: Tensor, usual: Tensor) -> Tensor:
    """What a witness says, (B, h, w), beyond what all usually say, (W, H / 4, W / 4), from `fmrnet.usual.Usual.at`."""
    cell = CELL * usual.shape[-1] // values.shape[-1]
    there = usual[witness][None]
    there = nn.functional.avg_pool2d(there, cell // CELL) if cell > CELL else drawn(there, CELL // cell)
    return values / there if witness < GAUSSIANS else values - there


def in_cells(witness: int, values: Tensor, cell: int) -> Tensor:
    """What a witness says, (B, h, w) in cells of so many pixels, in those of `fmrnet.usual`: (B, H / 4, W / 4).

    Of a Gaussian the mean of its logarithm.
    """
    if witness < GAUSSIANS:
        values = values.clamp_min(LEAST).log()
    if cell > CELL:
        times = cell // CELL
        return values.repeat_interleave(times, 1).repeat_interleave(times, 2)
    return nn.functional.avg_pool2d(values, CELL // cell)


def cells_of(pixels: Tensor, cell: int) -> Tensor:
    """Which cells are marked in half of their pixels or more: (H, W), 0 and 1 -> (h, w) bool."""
    return nn.functional.avg_pool2d(pixels[None], cell)[0] >= 0.5


def drawn(values: Tensor, cell: int) -> Tensor:
    """A map (B, h, w) of cells of so many pixels, at each pixel (B, H, W)."""
    if cell == 1:
        return values
    large = interpolate(values[:, None], scale_factor=float(cell), mode="bilinear", align_corners=False)
    return large[:, 0]
