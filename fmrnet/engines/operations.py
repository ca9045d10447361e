"""How many multiplications with an addition an inspection takes, counted on a model without numbers."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fmrnet.network.model import FMRNet

__all__ = ["operations"]


@torch.no_grad()
def operations(model: FMRNet, height: int, width: int) -> dict[str, int]:
    """Multiply-adds of layers, memory and textons for a picture of `height` x `width` pixels, filled up, by level.

    Norms, activations and what is done pixel by pixel, as in Eq 17 to 23, are not counted.

    Returns
    -------
    dict of int
        "patch", up to the early exit, and "pixel", all of it.
    """
    model = copy.deepcopy(model).to("meta")
    picture = model.filled(torch.empty(1, model.config.image_channels, height, width, device="meta"))
    with FlopCounterMode(display=False) as general:
        if model.general is not None:
            model.general.evidence(picture)
    with FlopCounterMode(display=False) as encoder:
        if model.config.generator:
            z, skips = model.encode(_tiles(model, picture))
            if model.general is None:
                z @ model.memory.mT  # what the distances to all entries are made of
    with FlopCounterMode(display=False) as rest:
        if model.config.generator:
            model.decode(model.restore(z), skips)
        if model.fusion is not None:
            model.fusion(picture.new_empty(1, 4 * model.config.image_channels + 3, *picture.shape[2:]))
    counts = [counter.get_total_flops() // 2 for counter in (general, encoder, rest)]
    return {"patch": counts[0] or counts[1], "pixel": sum(counts)}


def _tiles(model: FMRNet, picture: Tensor) -> Tensor:
    """What passes through the encoder, (B, C, H, W): patches, as many as there are, or the picture."""
    config = model.config
    if config.tile == "picture":
        return picture
    size = config.patch_size
    count = math.prod(1 + -(-(side - size) // config.stride) for side in picture.shape[2:])
    return picture.new_empty(count, config.image_channels, size, size)
