"""What both levels say of pictures with synthetic defects: the early exit's promise.

The defects are drawn on crops of good pictures that nothing was learnt from. What a level says of a picture is what it
says of its worst place; so that of a whole picture with this defect it says what it says of the crop, or what it says
of a good picture without it, whichever is worse.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.inspection.calibration import Calibration
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.learning import data
from fmrnet.learning.fusion_training import labelled_crops

__all__ = ["PHASE", "learn"]

PHASE = 5
CROPS = 384  # of which a hundred must be found at pixel level before anything can be promised


@torch.no_grad()
def learn(
    engine: TorchEngine,
    calibration: Calibration,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
    between: Callable[[int, int], None],
) -> EarlyExit:
    """Both levels' p-values of pictures with a synthetic defect each.

    CROPS of them, or as many as the training has drawn in all its steps, if these are fewer. `between` is called
    with the number of crops done and of all.
    """
    model = engine.model
    total = min(CROPS, model.config.batch_size * sum(model.config.steps))
    pixel: list[float] = []
    patch: list[float] = []
    levels = ((calibration.picture, pixel), (calibration.patch, patch))
    for crops, label in labelled_crops(model, good, natural, PHASE, total, device, between):
        for crop in crops[(label == 1).flatten(1).any(1)]:
            seen = engine.glance(crop.cpu().numpy())
            found = engine.compare(seen)
            for (scores, p_values), readings in zip(levels, (found.readings, seen.readings), strict=True):
                whole = scores.held_out[len(p_values) % len(scores.held_out)]
                worst = np.maximum(readings.max((1, 2)).astype(np.float64), whole)
                p_values.append(scores.p_value(float(scores.surprise(worst))))
    return EarlyExit(tuple(pixel), tuple(patch))
