"""Thresholds from good pictures that training has not seen: one for pixels, one for patches, one for pictures.

Nothing here is fitted on a defective picture, and no threshold is taken from the picture under inspection.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import max_pool2d

from fmrnet.errors import DatasetError
from fmrnet.inspection import background
from fmrnet.inspection.background import patch_alarms
from fmrnet.inspection.limits import Limits, Look, look
from fmrnet.inspection.stored import Stored
from fmrnet.inspection.suspects import FEWEST, Suspect, loud, odd
from fmrnet.network.model import FMRNet

__all__ = ["Calibration", "calibrate", "picture_score"]

FALSE_ALARMS = 0.05  # share of good pictures that the picture threshold lets through as defective
LEAST_BLOCKS = 32  # whose largest values the picture threshold is fitted to
TAIL = 0.25  # share of these values, the greatest, that it rests on
EDGE = 1e-6  # how near to 0 and 1 a probability's logit is taken
LEAST = 1e-12  # a perfectly flat surface gives thresholds of 0, and scores are multiples of a threshold
GREATEST = 1e9  # beyond any threshold that pictures in [0, 1] give
GREATEST_MAP = 2.0  # of Eq 23, where 1 - SSIM is; a learned map ends at 1
SURE = 1 - 2.0**-20  # no pixel threshold of a learned map lies above: float32 rounds what comes near to 1
VALUES = 1025  # of each map, kept to tell what share of it passes a threshold that comes from all maps


@dataclass(frozen=True)
class Calibration:
    """What counts as a defect, in the units of the maps and distances themselves."""

    k: float  # of the k-sigma threshold
    pixel_mean: (
        float  # of the anomaly map over the held-out good pictures; of its logits unless it is Eq 23's
    )
    pixel_std: float
    pixel_threshold: float  # pixel_mean + k * pixel_std, on the map's own scale
    patch_quantile: float
    patch_threshold: float  # that quantile of the held-out patches' distances to memory
    picture_threshold: float  # of `picture_score`
    limits: Limits  # of what good pictures look like as a whole
    pictures: int  # held-out pictures or parts of pictures this rests on
    suspects: tuple[Suspect, ...] = ()  # held-out pictures that were left out, for they are unlike the others

    def to_dict(self) -> dict[str, Any]:
        """The values, JSON-ready."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The opposite of `to_dict`.

        Raises
        ------
        ArtifactError
            If a field is missing, unknown, of another type, not finite, or in no range that good pictures give.
        """
        stored = Stored("calibration", values, cls)
        return cls(
            k=stored.number("k", LEAST, 100),
            pixel_mean=stored.number("pixel_mean", -GREATEST, GREATEST),
            pixel_std=stored.number("pixel_std", 0, GREATEST),
            pixel_threshold=stored.number("pixel_threshold", LEAST, GREATEST_MAP),
            patch_quantile=stored.number("patch_quantile", LEAST, 1),
            patch_threshold=stored.number("patch_threshold", LEAST, GREATEST),
            picture_threshold=stored.number("picture_threshold", LEAST, GREATEST),
            limits=Limits.from_dict(stored.values["limits"]),
            pictures=stored.count("pictures", least=1),
            suspects=tuple(map(Suspect.from_dict, stored.items("suspects"))),
        )


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
    names: Sequence[str] | None = None,
    learnt: Mapping[str, Look] | None = None,
) -> Calibration:
    """Thresholds from good pictures.

    The pixel threshold is mean + k sigma of all their map values (of the logits, unless the map is Eq 23's:
    these are sums of scores). The patch threshold is a quantile of all their patches' distances. The picture
    threshold comes from the maxima of `patch_alarms` over blocks, whole pictures if there are enough of them: an
    exponential distribution is fitted to the greatest quarter of these, and the threshold is what the largest of all
    blocks of a picture passes with a probability of 5 %. The limits are those of `Limits.around`.

    Of five pictures and more, those that are unlike the others are left out of all this, and named.

    Parameters
    ----------
    model : FMRNet
    pictures : iterable of Tensor, (C, H, W) in [0, 1]
        Good pictures not used in training.
    pixels : int
        Size in pixels of a typical picture under inspection, for the picture threshold.
    k, patch_quantile : float, optional
        Default: the model's settings.
    names : sequence of str, optional
        What to call the pictures. Default: by their number, from 0.
    learnt : mapping of str to Look, optional
        The good pictures that training has seen. What they look like counts for the limits of light and contrast.

    Raises
    ------
    DatasetError
        If there is no picture.
    """
    k = model.config.k if k is None else k
    patch_quantile = model.config.patch_quantile if patch_quantile is None else patch_quantile
    every = [
        _evidence(model, picture, f"picture {number}" if names is None else names[number])
        for number, picture in enumerate(pictures)
    ]
    if not every:
        raise DatasetError("no good pictures to calibrate on")
    looks = [*((one.name, one.look) for one in every), *(learnt or {}).items()]
    suspects = _loud(every, model.config.patch_size) | _odd(looks)
    left = [one for number, one in enumerate(every) if number not in suspects]
    sums = np.sum([one.sums for one in left], axis=0)
    mean = float(sums[1] / sums[0])
    std = math.sqrt(max(sums[2] / sums[0] - mean**2, 0.0))
    threshold = mean + k * std
    distances = torch.cat([one.distances for one in left]).numpy()
    maxima, patches = _block_maxima([one.alarms for one in left])
    blocks = max(1.0, pixels / (model.config.patch_size // 2) ** 2 / patches)
    limits = Limits.around(
        [seen for number, (_, seen) in enumerate(looks) if number not in suspects],
        distances=[one.typical for one in left],
        shares=[float(np.mean(one.values > threshold)) for one in left],
    )
    return Calibration(
        k=k,
        pixel_mean=mean,
        pixel_std=std,
        pixel_threshold=min(float(expit(threshold)), SURE)
        if model.config.standard_map
        else max(threshold, LEAST),
        patch_quantile=patch_quantile,
        patch_threshold=max(float(np.quantile(distances, patch_quantile)), LEAST),
        picture_threshold=_largest_expected(maxima, blocks),
        limits=limits,
        pictures=len(left),
        suspects=tuple(suspects.values()),
    )


@dataclass(frozen=True)
class _Evidence:
    """What calibration keeps of a picture."""

    name: str
    look: Look
    distances: Tensor  # (N,) of its patches to memory, or their scores by general features
    typical: float  # of the distances
    alarms: Tensor  # (1, rows, columns), its `patch_alarms`
    sums: NDArray[np.float64]  # of 1, map, map^2 over its pixels; of the map's logits unless it is Eq 23's
    values: NDArray[np.float64]  # of the same, VALUES of them, evenly spaced in rank


def _evidence(model: FMRNet, picture: Tensor, name: str) -> _Evidence:
    seen = background.glance(model, picture)
    found = background.compare(model, seen)
    values = found.anomaly_map.double()
    if model.config.standard_map:
        values = torch.logit(values, EDGE)
    ranks = torch.linspace(0, values.numel() - 1, VALUES, dtype=torch.float64).round().long()
    return _Evidence(
        name,
        look(picture),
        seen.patch_scores.flatten().cpu(),
        seen.typical,
        patch_alarms(found.alarm_map, model.config.patch_size)[None].cpu(),
        np.array([values.numel(), values.sum().item(), values.square().sum().item()]),
        values.flatten().sort().values.cpu()[ranks].numpy(),
    )


def _loud(every: Sequence[_Evidence], size: int) -> dict[int, Suspect]:
    """Suspects by what stands out in them, by their number."""
    found = {}
    for number, times in loud([one.alarms.max().item() for one in every]).items():
        one = every[number]
        columns = one.alarms.shape[2]
        row, column = (size // 2 * at for at in divmod(int(one.alarms.argmax()), columns))
        height, width = (min(size, side - start) for side, start in zip(one.look.size, (row, column)))
        reason = f"{times:.1f} times as loud as the typical picture"
        found[number] = Suspect(one.name, reason, row, column, height, width)
    return found


def _odd(looks: Sequence[tuple[str, Look]]) -> dict[int, Suspect]:
    """Suspects by what they look like as a whole, by their number."""
    if len({name for name, _ in looks}) < FEWEST:
        return {}
    return {
        number: Suspect(looks[number][0], reason, 0, 0, *looks[number][1].size)
        for number, reason in odd([seen for _, seen in looks]).items()
    }


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
