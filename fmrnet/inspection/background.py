"""From a picture to its patches' scores, its restored background, and the map of what differs.

The early exit's score of a patch is its distance to memory or, with general features, how little their witnesses have
seen the like of it in good pictures. The map is what picture and background tell, what the witnesses tell, or both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from fmrnet import fast
from fmrnet.errors import ArtifactError
from fmrnet.network.general import GRIDS
from fmrnet.network.learned_fusion import alarm, beyond_good, learned_map
from fmrnet.network.model import Features, FMRNet

__all__ = [
    "MODALITIES",
    "Comparison",
    "Encoded",
    "Glance",
    "compare",
    "encode",
    "glance",
    "map_and_alarm",
    "patch_alarms",
    "patch_distances",
    "patch_means",
    "restore",
    "restore_crops",
]

MODALITIES = ("gms", "ssim", "residual")
BATCH = 256  # patches at a time: bounds the memory that the network's inner layers take
ALARM_PIXELS = 64  # of a patch, the greatest, whose mean is its alarm: a defect is no lone pixel
DAMAGED = "the model gives no number for this picture: its weights are damaged; train it again"
HALF = 6.0  # sum of the surprises, where the map is 1/2
BREADTH = 4.0  # of its slope there: few pixels are to come so near to 1 that they cannot be told apart
COARSE = 1  # number of the witness that looks from afar


@dataclass(frozen=True)
class Encoded:
    """A picture, whole or cut into patches, and what the encoder makes of it.

    Attributes
    ----------
    picture : Tensor, (C, H, W) in [0, 1]
    origins : Tensor, (N, 2), or None
        Row and column of each patch's upper left pixel; None for a whole picture.
    features : list of Features
        Latents and skips of the patches, BATCH of them at a time; or those of the whole picture.
    """

    picture: Tensor
    origins: Tensor | None
    features: list[Features]


@dataclass(frozen=True)
class Glance:
    """What the early exit makes of a picture.

    Attributes
    ----------
    picture : Tensor, (C, H, W) in [0, 1]
    readings : Tensor, (K, rows, columns), 0 or more
        What is known of each patch: the distance of its latent to the nearest memory entry; or `patch_alarms` of
        `surprise`, what each witness on general features says alone, and what the coarse one says of it as a whole.
    typical : float
        The median distance of the picture's patches to memory, or of its features to those of good pictures.
    encoded : Encoded, or None
        With general features, the encoder has not been needed.
    surprise : Tensor, (H, W), or None
        The sum of the surprises of all witnesses on general features.
    """

    picture: Tensor
    readings: Tensor
    typical: float
    encoded: Encoded | None
    surprise: Tensor | None

    @property
    def patch_scores(self) -> Tensor:
        """The first reading, (rows, columns)."""
        return self.readings[0]


@dataclass(frozen=True)
class Comparison:
    """What differs between a picture and what good pictures, or its background, are like.

    Attributes
    ----------
    anomaly_map : Tensor, (H, W)
        The fused map, for pixels.
    evidence : Tensor, (H, W)
        The same before it was brought to [0, 1]: the sum of the surprises of all witnesses; or the learned fusion's
        answer, in standard deviations of good pictures; or Eq 23, which is the map itself.
    readings : Tensor, (K, rows, columns), 0 or more
        What is known of each patch: `patch_alarms` of all witnesses together, and with general features what each says
        alone, and what the coarse one says of the patch as a whole.
    """

    anomaly_map: Tensor
    evidence: Tensor
    readings: Tensor


@torch.no_grad()
def encode(model: FMRNet, picture: Tensor) -> Encoded:
    """Encode a picture (C, H, W), whole or cut into overlapping patches, as `Config.tile` says.

    Raises
    ------
    ArtifactError
        If the model's weights are such that a latent is not finite.
    """
    if model.config.tile == "patch":
        patches, origins = fast.slice_patches(picture, model.config.patch_size, model.config.stride)
    else:
        patches, origins = model.filled(picture[None]), None
    features = [model.encode(batch) for batch in patches.split(BATCH)]
    if not all(batch.z.isfinite().all() for batch in features):
        raise ArtifactError(DAMAGED)
    return Encoded(picture, origins, features)


@torch.no_grad()
def patch_distances(model: FMRNet, encoded: Encoded) -> Tensor:
    """Distance of each patch's latent to the nearest memory entry: the early exit's score, (rows, columns)."""
    distances = [fast.nearest_distance(features.z, model.memory)[0] for features in encoded.features]
    beyond = encoded.picture.shape[1] - model.config.patch_size
    return torch.cat(distances).view(1 + -(-beyond // model.config.stride), -1)


@torch.no_grad()
def restore(model: FMRNet, encoded: Encoded) -> Tensor:
    """The picture as it would look without defects: (C, H, W) in [0, 1]."""
    decoded = torch.cat([model.decode(model.restore(batch.z), batch.skips) for batch in encoded.features])
    height, width = encoded.picture.shape[1:]
    if encoded.origins is None:
        stitched = decoded[0, :, :height, :width]
    else:
        stitched = fast.stitch_patches(decoded, encoded.origins, (height, width))
    return model.denormalise(stitched).clamp(0, 1)


@torch.no_grad()
def restore_crops(model: FMRNet, crops: Tensor) -> Tensor:
    """`restore` for a batch of crops of one size, (B, C, S, S), in one pass of the network."""
    height, width = crops.shape[2:]
    if model.config.tile == "picture":
        whole: Tensor = model(model.filled(crops))
        return whole[:, :, :height, :width]
    cut = [fast.slice_patches(crop, model.config.patch_size, model.config.stride) for crop in crops]
    z, skips = model.encode(torch.cat([patches for patches, _ in cut]))
    decoded = model.decode(model.restore(z), skips).chunk(len(crops))
    stitched = [fast.stitch_patches(patches, cut[0][1], (height, width)) for patches in decoded]
    return model.denormalise(torch.stack(stitched)).clamp(0, 1)


def patch_alarms(alarm_map: Tensor, size: int, cell: int = 1) -> Tensor:
    """Mean of the ALARM_PIXELS greatest values of each patch, half of it beside the next: (rows, columns).

    Parameters
    ----------
    alarm_map : Tensor, (H, W)
        Of values of 0 or more, one for each cell of `cell` x `cell` pixels.
    size : int
        Of a patch, in pixels; patches that reach beyond the border are filled up with 0.
    cell : int
        Cells of more than ALARM_PIXELS count whole.
    """
    count = max(1, ALARM_PIXELS // cell**2)
    return torch.stack([row.topk(count).values.mean(1) for row in _patch_rows(alarm_map, size // cell)])


def patch_means(alarm_map: Tensor, size: int, cell: int = 1) -> Tensor:
    """Mean of each patch, as `patch_alarms` has them."""
    return torch.stack([row.mean(1) for row in _patch_rows(alarm_map, size // cell)])


def _patch_rows(alarm_map: Tensor, size: int) -> Iterator[Tensor]:
    """The patches of each row of them, (columns, size^2)."""
    step = size // 2
    missing = [max(size - side, 0) + -max(side - size, 0) % step for side in alarm_map.shape]
    filled = pad(alarm_map, (0, missing[1], 0, missing[0]))
    for row in filled.unfold(0, size, step).mT:
        yield row.unfold(1, size, step).transpose(0, 1).flatten(1)


@torch.no_grad()
def glance(model: FMRNet, picture: Tensor) -> Glance:
    """What the early exit makes of a picture (C, H, W) in [0, 1].

    Raises
    ------
    ArtifactError
        If the model's weights are such that something is not finite.
    """
    if model.general is None:
        encoded = encode(model, picture)
        distances = patch_distances(model, encoded)
        typical = distances.flatten().quantile(0.5).item()
        return Glance(picture, distances[None], typical, encoded, None)
    evidence = model.general.evidence(picture[None])
    each = model.general.surprises(evidence)
    surprise = model.general.joined(each, (picture.shape[1], picture.shape[2]))[0]
    typical = evidence[1].flatten().quantile(0.5).item()
    if not (math.isfinite(typical) and surprise.isfinite().all()):
        raise ArtifactError(DAMAGED)
    size = model.config.patch_size
    readings = [patch_alarms(surprise, size), *_alone(each, picture, size)]
    return Glance(picture, torch.stack(readings), typical, None, surprise)


def _alone(surprises: list[Tensor], picture: Tensor, size: int) -> Iterator[Tensor]:
    """What each witness on general features says of each patch, and the coarse one of the patch as a whole."""
    for number, (values, cell) in enumerate(zip(surprises, GRIDS)):
        rows, columns = (-(-side // cell) for side in picture.shape[1:])  # the backbone fills pictures up
        seen = values[0, :rows, :columns]
        yield patch_alarms(seen, size, cell)
        if number == COARSE:
            yield patch_means(seen, size, cell)


@torch.no_grad()
def compare(model: FMRNet, seen: Glance) -> Comparison:
    """The anomaly map of a picture, after the early exit has looked at it."""
    own = None
    if model.config.generator:
        encoded = encode(model, seen.picture) if seen.encoded is None else seen.encoded
        own = map_and_alarm(model, seen.picture, restore(model, encoded))
    if model.general is None or seen.surprise is None:
        assert own is not None
        found, alarms = own
        mapped = learned_map(found) if model.fusion is not None else found
        return Comparison(mapped, found, patch_alarms(alarms, model.config.patch_size)[None])
    found, readings = seen.surprise, seen.readings
    if own is not None:
        mapped, alarms = (
            model.general.surprise(model.general.own + number, values) for number, values in enumerate(own)
        )
        found = seen.surprise + mapped
        together, alone = (
            patch_alarms(one, model.config.patch_size) for one in (seen.surprise + alarms, alarms)
        )
        readings = torch.cat((together[None], seen.readings[1:], alone[None]))
    return Comparison(torch.sigmoid((found - HALF) / BREADTH), found, readings)


@torch.no_grad()
def map_and_alarm(model: FMRNet, picture: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """What a picture's map and its alarm map are made of, (H, W) each, from its background, (C, H, W) like itself.

    From the learned fusion where the model has one, in standard deviations of good pictures; else the product of Eq 23,
    for both.
    """
    if model.fusion is not None:
        scores = model.fusion.standard_scores(picture[None], background[None], model.mean, model.std)
        return beyond_good(scores)[0], alarm(scores)[0]
    product = fast.anomaly_map(
        picture[None], background[None], modalities=MODALITIES, median=model.config.median
    )[0]
    return product, product
