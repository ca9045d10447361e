"""General features: what the witnesses take from good pictures, and the training of the head.

Everything here is seen once by the frozen backbone; the head then learns from its features alone, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmrnet import devices, usual
from fmrnet.engines import background
from fmrnet.learning import data, fusion_training, losses, processes
from fmrnet.network.backbone import whole
from fmrnet.network.general import GRIDS, beyond, in_cells
from fmrnet.network.learned_fusion import size_weights
from fmrnet.network.model import FMRNet

__all__ = [
    "BATCH",
    "PHASE",
    "CellCrops",
    "batches",
    "fit_gaussians",
    "fit_surprise",
    "fit_usual",
    "make_crops",
    "update",
]

PHASE = 4
ROWS = 40_000  # features that the Gaussians rest on, of all good pictures together
CROPS = 1_600  # with synthetic defects, of which each step of the head sees BATCH
BATCH = 12
VALUES = 2**16  # of a good picture, evenly spaced in rank, that a witness's surprise is taken from
PICTURES = 8  # good ones alike, from which places are known
CELL = GRIDS[2]

Floats = NDArray[np.floating[Any]]


@torch.no_grad()
def fit_gaussians(
    model: FMRNet, good: data.PicturePool, device: torch.device, between: Callable[[int, int], None]
) -> None:
    """Take what the good pictures' features are like; `between` is called with the number of them done and of all."""
    assert model.general is not None
    total = len(good.pictures)
    share = max(1, ROWS // total)
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for number, picture in enumerate(good.whole()):
        between(number, total)
        generator = data.step_generator(model.config.seed, PHASE, 2**32 + number)
        fine, coarse, _ = model.general.features(model.filled(picture[None].to(device)))
        for part, features in zip(parts, (fine, coarse), strict=True):
            rows = features.permute(0, 2, 3, 1).flatten(0, 2)
            part.append(rows[torch.randperm(len(rows), generator=generator)[:share].to(device)].cpu())
    for gaussian, part in zip((model.general.fine, model.general.coarse), parts, strict=True):
        gaussian.fit(torch.cat(part))


@dataclass
class CellCrops:
    """What the head learns from: all features of crops with synthetic defects, and a label and a weight a cell."""

    features: Tensor  # (N, F, h, w), float16
    label: Tensor  # (N, h, w): 1 defective, 0 good, negative: not counted
    weight: Tensor  # (N, h, w)


@torch.no_grad()
def make_crops(
    model: FMRNet,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
    between: Callable[[int, int], None],
) -> CellCrops:
    """Crops of several patches through the backbone, CROPS of them or as many as the head sees in all its steps.

    A cell is defective if any of its pixels is, and good if all are. `between` is called with the number of crops done
    and of all.
    """
    assert model.general is not None
    backbone = model.general.backbone
    total = min(CROPS, BATCH * model.config.head_iterations)
    parts = []
    for crops, label in fusion_training.labelled_crops(model, good, natural, PHASE, total, device, between):
        filled = model.filled(crops)
        features = processes.of_shares(lambda rows: whole(backbone(rows)), filled)
        missing = filled.shape[-1] - crops.shape[-1]
        label = torch.nn.functional.pad(label, (0, missing, 0, missing), value=-1.0)
        defective = torch.nn.functional.max_pool2d((label == 1).float()[:, None], CELL)[:, 0]
        good_share = torch.nn.functional.avg_pool2d((label == 0).float()[:, None], CELL)[:, 0]
        cells = torch.where(defective > 0, 1.0, torch.where(good_share == 1, 0.0, -1.0))
        parts.append([features.half().cpu(), cells.cpu(), size_weights(cells, CELL).cpu()])
    return CellCrops(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def batches(model: FMRNet, crops: CellCrops, start: int, device: torch.device) -> Iterator[CellCrops]:
    """A random batch of the crops for each step from `start` on."""
    for step in range(start, model.config.head_iterations):
        generator = data.step_generator(model.config.seed, PHASE, step)
        chosen = processes.share(torch.randint(len(crops.label), (BATCH,), generator=generator))
        tensors = (crops.features, crops.label, crops.weight)
        yield CellCrops(*(devices.sent(tensor[chosen], device).float() for tensor in tensors))


def update(learner: nn.Module, optimiser: torch.optim.Optimizer, batch: CellCrops) -> Tensor:
    """One step of the head, which is to find the defective cells; gives its focal loss (0-dimensional, detached)."""
    with devices.autocast(batch.features.device):
        logit = learner(batch.features)
    loss = losses.focal_loss(logit.float(), batch.label, batch.weight)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()


@torch.no_grad()
def fit_usual(model: FMRNet, good: Iterable[Tensor], whole: bool) -> None:
    """Take what every witness usually says of good pictures (C, H, W), at their borders and at each place.

    Nothing is known of places unless PICTURES of them are alike in size, and `whole`: else they are parts of pictures.
    """
    general = model.general
    assert general is not None
    sums, counts = np.zeros((general.witnesses, usual.BANDS)), np.zeros(usual.BANDS)
    maps: list[Floats] = []  # (W, h, w), of pictures that may have places
    sizes: list[tuple[int, int]] = []
    for picture in good:
        filled = model.filled(picture[None])
        found = torch.cat(
            [
                in_cells(number, values, filled.shape[-1] // values.shape[-1])
                for number, values in enumerate(_evidence(model, filled))
            ]
        ).cpu()
        size = (picture.shape[1], picture.shape[2])
        there = usual.bands((filled.shape[2], filled.shape[3]), size).ravel()
        counts += np.bincount(there, minlength=usual.BANDS)
        for total, values in zip(sums, found, strict=True):
            total += np.bincount(there, values.flatten().double(), minlength=usual.BANDS)
        if math.prod(found.shape[1:]) <= usual.MOST_PLACES:
            maps.append(found.numpy())
            sizes.append(size)
    near = np.where(counts > 0, sums / np.maximum(counts, 1), (sums.sum(1) / counts.sum())[:, None])
    general.near.copy_(torch.from_numpy(near))
    place = _places(maps, sizes, near) if whole else np.zeros((general.witnesses, 0, 0))
    general.make_places(place.shape)
    general.place.copy_(torch.from_numpy(place))


def _places(maps: Sequence[Floats], sizes: Sequence[tuple[int, int]], near: NDArray[np.float64]) -> Floats:
    """By how much each witness says more at each place, (W, h, w): as much of it as two halves of the pictures share.

    From their maps (W, h, w) as they are filled up; empty if fewer than PICTURES of them are alike in size.
    """
    every = np.array([usual.cells(size) for size in sizes] or [(0, 0)])
    height, width = np.median(every, axis=0).round().astype(int).tolist()
    alike = [pair for pair in zip(maps, sizes, strict=True) if usual.alike(pair[1], (height, width))]
    if len(alike) < PICTURES:
        return np.zeros((len(near), 0, 0))
    halves = np.zeros((2, len(near), height, width))
    for number, (values, size) in enumerate(alike):
        rows, columns = usual.cells(size)
        filled = (usual.CELL * values.shape[1], usual.CELL * values.shape[2])
        there = (values - near[:, usual.bands(filled, size)])[:, :rows, :columns]
        rest = usual.resized(there, (height, width), (height, width))
        halves[number % 2] += rest - rest.mean((1, 2), keepdims=True)
    count = len(alike)
    mean = halves.sum(0) / count
    shared = halves.prod(0).mean((1, 2)) / ((count + 1) // 2 * (count // 2))
    power = np.square(mean).mean((1, 2))
    share = np.where(power > 0, shared / np.where(power > 0, power, 1.0), 0.0).clip(0, 1)
    found: Floats = mean * share[:, None, None]
    found[: usual.GAUSSIANS] = found[: usual.GAUSSIANS].clip(usual.QUIETEST)
    return found


@torch.no_grad()
def fit_surprise(model: FMRNet, good: Iterable[Tensor]) -> None:
    """Take what every witness says of good pictures (C, H, W) beyond what is usual; nothing was learnt from these."""
    assert model.general is not None
    values: list[list[Tensor]] = []
    for picture in good:
        filled = model.filled(picture[None])
        usually = background.usual_of(model, filled[0], (picture.shape[1], picture.shape[2]))
        found = _evidence(model, filled)
        values.append([_ranked(beyond(number, one, usually)) for number, one in enumerate(found)])
    for witness, of_pictures in enumerate(zip(*values, strict=True)):
        model.general.surprise.fit(witness, torch.cat(of_pictures))


def _evidence(model: FMRNet, filled: Tensor) -> list[Tensor]:
    """What every witness, the network's own too, says of a filled picture (1, C, H, W): (1, h, w) each."""
    assert model.general is not None
    found = model.general.evidence(filled)
    if model.config.generator:
        restored = background.restore(model, background.encode(model, filled[0]))
        found += [one[None] for one in background.map_and_alarm(model, filled[0], restored)]
    return found


def _ranked(values: Tensor) -> Tensor:
    """Up to VALUES of a map's values, evenly spaced in rank."""
    ordered = values.flatten().sort().values
    if len(ordered) <= VALUES:
        return ordered
    ranks = (
        torch.linspace(0, len(ordered) - 1, VALUES, dtype=torch.float64, device=values.device).round().long()
    )
    return ordered[ranks]
