"""What both levels say of synthetic defects on good pictures that nothing was learnt from: the early exit's promise.

Crops are looked at in place of whole pictures, which is on the safe side: whatever else a picture shows can only raise
what the early exit says of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from fmrnet.inspection import background
from fmrnet.inspection.calibration import Calibration, picture_score
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.learning import data
from fmrnet.learning.fusion_training import labelled_crops
from fmrnet.network.model import FMRNet

__all__ = ["PHASE", "learn"]

PHASE = 5
CROPS = 256  # of which a hundred must be found at pixel level before anything can be promised


@torch.no_grad()
def learn(
    model: FMRNet,
    calibration: Calibration,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
    between: Callable[[int, int], None],
) -> EarlyExit:
    """Both levels' p-values of crops with synthetic defects.

    CROPS of them, or as many as the training has drawn in all its steps, if these are fewer. `between` is called with
    the number of crops done and of all.
    """
    drawn = model.config.batch_size * sum(model.config.steps)
    total = min(CROPS, drawn) if drawn else CROPS
    pixel, patch = [], []
    for crops, label in labelled_crops(model, good, natural, PHASE, total, device, between):
        for crop in crops[(label == 1).flatten(1).any(1)]:
            seen = background.glance(model, crop)
            score = picture_score(background.compare(model, seen).alarm_map, model.config.patch_size)
            pixel.append(calibration.picture.p_value(score))
            patch.append(calibration.patch.p_value(seen.patch_scores.max().item()))
    return EarlyExit(tuple(pixel), tuple(patch))
