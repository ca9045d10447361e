"""Thresholds from good pictures that training has not seen: one for pixels, one for patches, one for pictures.

Nothing here is fitted on a defective picture, and no threshold is taken from the picture under inspection.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from fmrnet.errors import ArtifactError, DatasetError
from fmrnet.inspection import background
from fmrnet.network.model import FMRNet

__all__ = ["Calibration", "calibrate", "patch_alarms", "picture_score"]

ALARM_PIXELS = 64  # of a patch, the greatest, whose mean is its alarm: a defect is no lone pixel
FALSE_ALARMS = 0.05  # share of good pictures that the picture threshold lets through as defective
LEAST_BLOCKS = 32  # whose largest values the picture threshold is fitted to
TAIL = 0.25  # share of these values, the greatest, that it rests on
EDGE = 1e-6  # how near to 0 and 1 a probability's logit is taken
LEAST = 1e-12  # a perfectly flat surface gives thresholds of 0, and scores are multiples of a threshold


@dataclass(frozen=True)
class Calibration:
    """What counts as a defect, in the units of the maps and distances themselves."""

    k: float  # of the k-sigma threshold
    pixel_mean: float  # of the anomaly map over the held-out good pictures; of its logits if that is learned
    pixel_std: float
    pixel_threshold: float  # pixel_mean + k * pixel_std, on the map's own scale
    patch_quantile: float
    patch_threshold: float  # that quantile of the held-out patches' distances to memory
    picture_threshold: float  # of `picture_score`
    pictures: int  # held-out pictures or parts of pictures this rests on

    def to_dict(self) -> dict[str, Any]:
        """The values, JSON-ready."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The opposite of `to_dict`.

        Raises
        ------
        ArtifactError
            If a field is missing, unknown, or not a finite number.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if values.keys() != names:
            raise ArtifactError(f"calibration has the fields {sorted(values)}; expected {sorted(names)}")
        for name, value in values.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise ArtifactError(f"calibration field {name} = {value!r}: expected a finite number")
        return cls(**values)


def patch_alarms(alarm_map: Tensor, size: int) -> Tensor:
    """Mean of the ALARM_PIXELS greatest values of each patch, half of it beside the next: (rows, columns).

    Parameters
    ----------
    alarm_map : Tensor, (H, W)
        Of values of 0 or more.
    size : int
        Of a patch, in pixels; patches that reach beyond the border are filled up with 0.
    """
    step = size // 2
    missing = [max(size - side, 0) + -max(side - size, 0) % step for side in alarm_map.shape]
    filled = pad(alarm_map, (0, missing[1], 0, missing[0]))
    rows = [row.unfold(1, size, step).transpose(0, 1).flatten(1) for row in filled.unfold(0, size, step).mT]
    return torch.stack([row.topk(ALARM_PIXELS).values.mean(1) for row in rows])


def picture_score(alarm_map: Tensor, size: int) -> float:
    """The largest of the `patch_alarms` of a map (H, W). Oracle: `reference.scoring.picture_score`."""
    return patch_alarms(alarm_map, size).max().item()


def calibrate(
    model: FMRNet,
    pictures: Iterable[Tensor],
    *,
    pixels: int,
    k: float | None = None,
    patch_quantile: float | None = None,
) -> Calibration:
    """Thresholds from good pictures.

    The pixel threshold is mean + k sigma of all their map values (of the logits, where the fusion is learned:
    there they are standard scores). The patch threshold is a quantile of all their patches' distances. The picture
    threshold comes from the maxima of `patch_alarms` over blocks, whole pictures if there are enough of them: an
    exponential distribution is fitted to the greatest quarter of these, and the threshold is what the largest of all
    blocks of a picture passes with a probability of 5 %.

    Parameters
    ----------
    model : FMRNet
    pictures : iterable of Tensor, (C, H, W) in [0, 1]
        Good pictures not used in training.
    pixels : int
        Size in pixels of a typical picture under inspection, for the picture threshold.
    k, patch_quantile : float, optional
        Default: the model's settings.

    Raises
    ------
    DatasetError
        If there is no picture.
    """
    k = model.config.k if k is None else k
    patch_quantile = model.config.patch_quantile if patch_quantile is None else patch_quantile
    count = 0
    sums = np.zeros(3)  # of 1, map, map^2
    distances: list[Tensor] = []
    alarms: list[Tensor] = []
    for picture in pictures:
        count += 1
        encoded = background.encode(model, picture)
        distances.append(background.patch_distances(model, encoded).flatten().cpu())
        found = background.compare(model, picture, background.restore(model, encoded))
        values = found.anomaly_map.double()
        if model.config.learned_fusion:
            values = torch.logit(values, EDGE)
        sums += [values.numel(), values.sum().item(), values.square().sum().item()]
        alarms.append(patch_alarms(found.alarm_map, model.config.patch_size)[None].cpu())
    if not count:
        raise DatasetError("no good pictures to calibrate on")
    mean = float(sums[1] / sums[0])
    std = math.sqrt(max(sums[2] / sums[0] - mean**2, 0.0))
    threshold = mean + k * std
    maxima, patches = _block_maxima(alarms)
    return Calibration(
        k=k,
        pixel_mean=mean,
        pixel_std=std,
        pixel_threshold=float(expit(threshold)) if model.config.learned_fusion else threshold,
        patch_quantile=patch_quantile,
        patch_threshold=max(float(np.quantile(torch.cat(distances).numpy(), patch_quantile)), LEAST),
        picture_threshold=_largest_expected(
            maxima, max(1.0, pixels / (model.config.patch_size // 2) ** 2 / patches)
        ),
        pictures=count,
    )


def _block_maxima(alarms: Sequence[Tensor]) -> tuple[list[float], float]:
    """Largest values of square blocks of patches, from those of each patch (1, rows, columns), and patches a block.

    The blocks are as large as they can be with LEAST_BLOCKS of them: what lies close together is alike, and the larger
    the block, the less has to be concluded from it about a whole picture.
    """
    blocks, side = list(alarms), 1
    while side < max(max(alarm.shape) for alarm in alarms):
        side *= 2
        larger = [max_pool2d(alarm, side, ceil_mode=True) for alarm in alarms]
        if sum(block.numel() for block in larger) < LEAST_BLOCKS:
            break
        blocks = larger
    maxima = torch.cat([block.flatten() for block in blocks]).tolist()
    return maxima, sum(alarm.numel() for alarm in alarms) / len(maxima)


def _largest_expected(maxima: Sequence[float], blocks: float) -> float:
    """What the largest of `blocks` such maxima exceeds with probability FALSE_ALARMS.

    Peaks over a threshold (Pickands, 1975): beyond the upper TAIL of the maxima their probability is taken to fall off
    exponentially. How dull the other blocks are says nothing of it.
    """
    values = np.asarray(maxima, dtype=np.float64)
    start = float(np.quantile(values, 1 - TAIL))
    excess = values[values > start] - start
    scale = float(excess.mean()) if excess.size else 0.0
    alarm = -math.expm1(math.log1p(-FALSE_ALARMS) / blocks)  # of a single block
    return max(start + scale * math.log(TAIL / alarm), LEAST)
