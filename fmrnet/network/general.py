"""Three witnesses on general features: two that know good pictures alone, and one that was shown synthetic defects.

    fine    how far the features of strides 4 and 8 lie from the Gaussian of good pictures' features
    coarse  the same of all features of the picture at half its size: broad defects, and those in the wrong place
    head    what both are made of, and a distance of all features beside, weighted by synthetic defects; presets may
            leave it out

What each says is a map of its own unit and grid. `Surprise` turns it into tail probabilities of good pictures, which
may be added. `fmrnet.reference.general` is the oracle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from fmrnet.config import Config
from fmrnet.network.backbone import CHANNELS, FINE_STAGES, MULTIPLE, Backbone, filled_up, fine, whole

__all__ = ["GRIDS", "Gaussian", "General", "Head", "Surprise", "drawn"]

GRIDS = (4, 16, 8)  # pixels of a side of a cell of each witness's grid
FINE = sum(CHANNELS[:2])  # features of strides 4 and 8
WHOLE = sum(CHANNELS)
MOST = 6.0  # deviations of good features, beyond which a component counts no more for its sign
LEVELS = 1024  # of each witness over good pictures, evenly spaced in rank up to TAIL
TAIL = 0.99  # share of good values that the levels hold; beyond, an exponential tail
FEWEST = 10  # values beyond the last level whose mean is taken
LEAST_RATE = 1e-6  # of the tail: of a flat surface every value is the same


class Gaussian(nn.Module):
    """How far features lie from those of good pictures: Mahalanobis distance, with the covariance of all of them."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("whitening", torch.eye(features))

    def components(self, features: Tensor) -> Tensor:
        """What the distance is made of, (B, F, H, W) -> (B, H, W, F): over good features without correlation, mean 0,
        deviation 1."""
        components: Tensor = (features.permute(0, 2, 3, 1) - self.mean) @ self.whitening
        return components

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, H, W), 0 or more."""
        return distance(self.components(features))

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
    """Logit of each cell of 8 x 8 pixels being defective: a weighted sum of what the components of three distances say.

    A distance counts every component alike, and either sign alike. Synthetic defects tell which matter: each has a
    weight for its value, and one for the logarithm of its square. A sum of these and no network, as what a network
    learns of synthetic defects beyond that does not hold of real ones (bench/decisions.md, thirteenth round).
    """

    def __init__(self) -> None:
        super().__init__()
        self.good = Gaussian(WHOLE)
        self.sum = nn.Linear(2 * (FINE + 2 * WHOLE), 1)
        nn.init.zeros_(self.sum.weight)
        nn.init.zeros_(self.sum.bias)

    @staticmethod
    def inputs(fine: Tensor, coarse: Tensor, all_features: Tensor) -> Tensor:
        """What is weighted, (B, h, w, 832).

        Parameters
        ----------
        fine : (B, 2 h, 2 w, 64)
            Components of the fine witness, and so on.
        coarse : (B, H, W, 176)
            On a grid of 16 pixels, which may reach beyond the others'.
        all_features : (B, h, w, 176)
        """
        small = avg_pool2d(_said(fine), 2)
        large = interpolate(_said(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        middle = _said(all_features)
        height, width = middle.shape[2:]
        return torch.cat((small, large[:, :, :height, :width], middle), 1).permute(0, 2, 3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., 832) -> (...)."""
        logit: Tensor = self.sum(inputs)
        return logit.squeeze(-1)


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
    """The backbone, the witnesses on it, and the surprise of every witness, the network's own two as the last."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.fine = Gaussian(FINE)
        self.coarse = Gaussian(WHOLE)
        self.head = Head() if config.head_iterations else None
        self.surprise = Surprise(self.own + 2 * config.generator)

    @property
    def own(self) -> int:
        """Number of the witness after those on general features: the network's own map, and after it its alarm map."""
        return 2 if self.head is None else 3

    def features(self, image: Tensor) -> list[Tensor]:
        """What fine witness, coarse witness and, if there is one, head see of pictures (B, C, H, W) in [0, 1]."""
        halved = whole(self.backbone(avg_pool2d(filled_up(image, MULTIPLE), 2)))
        if self.head is None:
            return [fine(self.backbone(image, FINE_STAGES)), halved]
        maps = self.backbone(image)
        return [fine(maps), halved, whole(maps)]

    @property
    def gaussians(self) -> list[Gaussian]:
        """What is known of the good pictures' `features`, of each."""
        return [self.fine, self.coarse] if self.head is None else [self.fine, self.coarse, self.head.good]

    def components(self, image: Tensor) -> list[Tensor]:
        """What the distances of `features` are made of, (B, h, w, F) each."""
        return [
            known.components(seen) for known, seen in zip(self.gaussians, self.features(image), strict=True)
        ]

    def evidence(self, image: Tensor) -> list[Tensor]:
        """What each witness says of pictures (B, C, H, W), in its own unit and on its own grid (B, h, w)."""
        components = self.components(image)
        found = [distance(part) for part in components[:2]]
        return found if self.head is None else [*found, self.head(self.head.inputs(*components))]

    def joined(self, evidence: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The sum of the witnesses' surprises at each pixel, (B, H, W), from `evidence`."""
        maps = [
            drawn(self.surprise(number, values), cell, size)
            for number, (values, cell) in enumerate(zip(evidence, GRIDS))
        ]
        return torch.stack(maps).sum(0)


def drawn(values: Tensor, cell: int, size: tuple[int, int]) -> Tensor:
    """A map (B, h, w) of cells of so many pixels, at each pixel (B, H, W); what lies beyond the picture is cut off."""
    large = interpolate(values[:, None], scale_factor=float(cell), mode="bilinear", align_corners=False)
    return large[:, 0, : size[0], : size[1]]


def distance(components: Tensor) -> Tensor:
    """Mahalanobis' distance from its components, (B, h, w, F) -> (B, h, w)."""
    length: Tensor = torch.linalg.vector_norm(components, dim=3)
    return length


def _said(components: Tensor) -> Tensor:
    """Of each component (B, h, w, F) its value, cut off, and the logarithm of its square: (B, 2 F, h, w)."""
    values = components.clamp(-MOST, MOST)
    return torch.cat((values, components.square().log1p()), 3).permute(0, 3, 1, 2)
