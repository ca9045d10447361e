"""The third phase, which the paper does not have: the learned fusion is trained to find synthetic defects.

The generator stays as the two phases of Algorithm 1 have left it. It restores a set of crops once; the fusion then
sees these, what was restored and where the defects are, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fmrnet import devices, fast
from fmrnet.config import Config
from fmrnet.engines import background
from fmrnet.learning import data, losses, processes
from fmrnet.learning.synthesis import lit, speckled, synthetic_defects
from fmrnet.network.learned_fusion import defect_labels, size_weights
from fmrnet.network.model import FMRNet

__all__ = ["PHASE", "RATE", "Crops", "batch_of", "batches", "labelled_crops", "make_crops", "update"]

PHASE = 3
RATE = 3e-3  # learning rate
LEAST_SPECKLE = 0.05  # of a crop's pixels, where the fusion is to take no notice: a lone speck is a defect
CROPS_AT_ONCE = 16  # when they are restored


@dataclass
class Crops:
    """What the learned fusion learns from: pictures with synthetic defects, their backgrounds, and labels."""

    image: Tensor  # (N, C, S, S), without light
    background: Tensor  # in [0, 1]
    label: Tensor  # (N, S, S), of `defect_labels`


@torch.no_grad()
def make_crops(
    model: FMRNet,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
    between: Callable[[int, int], None],
) -> Crops:
    """Crops of several patches, for the fusion looks at stitched pictures: as many as it has steps.

    Restoring them costs more than a step on them does; each is seen about eight times, mirrored anew. `between` is
    called with the number of restored crops and of all.
    """
    parts = []
    total = model.config.iterations[PHASE - 1]
    for synthetic, label in labelled_crops(model, good, natural, PHASE, total, device, between):
        restored = processes.of_shares(partial(background.restore_crops, model), synthetic)
        unlit = fast.without_light(synthetic, restored, model.std)
        parts.append([tensor.half().cpu() for tensor in (unlit, restored, label)])
    return Crops(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def labelled_crops(
    model: FMRNet,
    good: data.PicturePool,
    natural: data.PicturePool,
    phase: int,
    total: int,
    device: torch.device,
    between: Callable[[int, int], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Crops of two patches' width, under all kinds of light and some in noise, with a synthetic defect each.

    They come CROPS_AT_ONCE at a time, with their `defect_labels`; `between` is called before with the number of those
    that came and of all. Each lot is drawn from a generator of its own, fixed by seed, phase and number.
    """
    config = model.config
    size = min(config.patch_size * 2, good.largest_crop, natural.largest_crop)
    spread = good.light(config.patch_size).to(device)
    for first in range(0, total, CROPS_AT_ONCE):
        between(first, total)
        generator = data.step_generator(config.seed, phase, 2**31 + first)
        count = min(CROPS_AT_ONCE, total - first)
        normal, own = devices.sent(good.crops(2 * count, size, generator), device).chunk(2)
        contents = devices.sent(natural.crops(count, size, generator), device)
        normal = lit(normal, config.light, spread, generator)
        synthetic, support = synthetic_defects(normal, contents, own, generator)
        label = defect_labels(normal, synthetic, support, model.std)
        yield speckled(synthetic, config.speckle, generator, least=LEAST_SPECKLE), label


def batch_of(config: Config) -> int:
    """How many crops a step sees."""
    return max(1, config.batch_size // 4)


def batches(model: FMRNet, crops: Crops, start: int, device: torch.device) -> Iterator[Crops]:
    """A random batch of the crops for each step from `start` on, mirrored at random."""
    config = model.config
    for step in range(start, config.iterations[PHASE - 1]):
        generator = data.step_generator(config.seed, PHASE, step)
        chosen = processes.share(torch.randint(len(crops.label), (batch_of(config),), generator=generator))
        mirrored = [axis for axis in (-1, -2) if torch.rand((), generator=generator) < 0.5]
        tensors = (crops.image, crops.background, crops.label)
        yield Crops(*(devices.sent(tensor[chosen], device).float().flip(mirrored) for tensor in tensors))


def update(model: FMRNet, learner: nn.Module, optimiser: torch.optim.Optimizer, batch: Crops) -> Tensor:
    """One step of the learned fusion, which is to find the defects; gives its focal loss (0-dimensional, detached)."""
    inputs, _ = fast.fusion_inputs(batch.image, batch.background, model.mean, model.std)
    with devices.autocast(inputs.device):
        logit = learner(inputs.contiguous(memory_format=torch.channels_last))
    loss = losses.focal_loss(logit.float(), batch.label, size_weights(batch.label))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()
