"""From a picture to its patches' scores, its restored background, and the map of what differs, in PyTorch.

A picture is mirrored at its lower and right border until `Config.multiple` divides its sides (`FMRNet.filled`) before
anything else is done with it; what lies beyond it is cut off at the very end, by `fmrnet.engines.torch_engine`.

The early exit's score of a patch is its distance to memory or, with general features, how little their witnesses have
seen the like of it in good pictures. The map is what picture and background tell, what the witnesses tell, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from fmrnet import fast
from fmrnet.engines.engine import BREADTH, DAMAGED, HALF
from fmrnet.errors import ArtifactError
from fmrnet.network.general import GRIDS, cells_of
from fmrnet.network.learned_fusion import alarm, beyond_good, learned_map
from fmrnet.network.model import Features, FMRNet
from fmrnet.usual import Usual

__all__ = [
    "MODALITIES",
    "Comparison",
    "Encoded",
    "Glance",
    "compare",
    "decode",
    "encode",
    "features",
    "fuse",
    "glance",
    "map_and_alarm",
    "patch_alarms",
    "patch_distances",
    "patch_means",
    "restore",
    "restore_crops",
    "usual_of",
]

MODALITIES = ("gms", "ssim", "residual")
BATCH = 256  # patches at a time: bounds the memory that the network's inner layers take
ALARM_PIXELS = 64  # of a patch, the greatest, whose mean is its alarm: a defect is no lone pixel
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
    picture : Tensor, (C, H, W) in [0, 1], filled
    readings : Tensor, (K, rows, columns), 0 or more
        What is known of each patch: the distance of its latent to the nearest memory entry; or `patch_alarms` of
        `surprise`, what each witness on general features says alone, and what the coarse one says of it as a whole.
    typical : Tensor, ()
        The median distance of the picture's patches to memory, or of its features to those of good pictures.
    encoded : Encoded, or None
        With general features, the encoder has not been needed.
    surprise : Tensor, (H, W), or None
        The sum of the surprises of all witnesses on general features.
    inside : Tensor, (H, W), or None
        1 where a pixel counts, else 0; None: all count.
    usual : Tensor, (W, H / 4, W / 4), or None
        What the witnesses usually say there, of a model with general features.
    """

    picture: Tensor
    readings: Tensor
    typical: Tensor
    encoded: Encoded | None
    surprise: Tensor | None
    inside: Tensor | None = None
    usual: Tensor | None = None

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
        What is known of each patch: `patch_alarms` of all witnesses together; with general features, of the network's
        own alone, too. `fmrnet.engines.engine.all_readings` puts those of the glance beside them.
    background : Tensor, (C, H, W) in [0, 1], or None
        What the picture was compared with; `compare` keeps it.
    """

    anomaly_map: Tensor
    evidence: Tensor
    readings: Tensor
    background: Tensor | None = None


@torch.no_grad()
def encode(model: FMRNet, picture: Tensor) -> Encoded:
    """Encode a picture (C, H, W), filled, whole or cut into overlapping patches, as `Config.tile` says.

    Raises
    ------
    ArtifactError
        If the model's weights are such that a latent is not finite.
    """
    if model.config.tile == "patch":
        patches, origins = fast.slice_patches(picture, model.config.patch_size, model.config.stride)
    else:
        patches, origins = picture[None], None
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
    if encoded.origins is None:
        stitched = decoded[0]
    else:
        height, width = encoded.picture.shape[1:]
        stitched = fast.stitch_patches(decoded, encoded.origins, (height, width))
    return model.denormalise(stitched).clamp(0, 1)


@torch.no_grad()
def features(model: FMRNet, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """EL_5, EL_4 and EL_3 of a picture (C, H, W), filled: of the whole, or of its patches, as `Config.tile` says."""
    if model.config.tile == "picture":
        return model.maps(picture[None])
    patches, _ = fast.slice_patches(picture, model.config.patch_size, model.config.stride)
    deepest, *skips = zip(*map(model.maps, patches.split(BATCH)))
    return torch.cat(deepest), torch.cat(skips[0]), torch.cat(skips[1])


@torch.no_grad()
def decode(model: FMRNet, maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The backgrounds (B, C, H, W) in [0, 1] of what `features` gives, or of windows of it from a patch up."""
    deepest, *skips = maps
    latents = model.restore(model.latents(deepest))
    return model.denormalise(model.decode(latents, (skips[0], skips[1]))).clamp(0, 1)


@torch.no_grad()
def restore_crops(model: FMRNet, crops: Tensor) -> Tensor:
    """`restore` for a batch of crops of one size, (B, C, S, S), in one pass of the network; they are filled for it."""
    height, width = crops.shape[2:]
    filled = model.filled(crops)
    if model.config.tile == "picture":
        whole: Tensor = model(filled)
    else:
        cut = [fast.slice_patches(crop, model.config.patch_size, model.config.stride) for crop in filled]
        z, skips = model.encode(torch.cat([patches for patches, _ in cut]))
        decoded = model.decode(model.restore(z), skips).chunk(len(crops))
        size = (filled.shape[2], filled.shape[3])
        stitched = [fast.stitch_patches(patches, cut[0][1], size) for patches in decoded]
        whole = model.denormalise(torch.stack(stitched)).clamp(0, 1)
    return whole[:, :, :height, :width]


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
    return _of_rows(alarm_map, size // cell, lambda values: values.topk(count).values.mean(-1))


def patch_means(alarm_map: Tensor, size: int, cell: int = 1) -> Tensor:
    """Mean of each patch, as `patch_alarms` has them."""
    return _of_rows(alarm_map, size // cell, lambda values: values.mean(-1))


def _of_rows(alarm_map: Tensor, size: int, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """A statistic of the values of each patch, (..., size^2), one row of patches after the other: they overlap."""
    step = size // 2
    missing = [max(size - side, 0) + -max(side - size, 0) % step for side in alarm_map.shape]
    filled = pad(alarm_map, (0, missing[1], 0, missing[0]))
    rows = (row.unfold(1, size, step).transpose(0, 1).flatten(1) for row in filled.unfold(0, size, step).mT)
    return torch.stack([statistic(row) for row in rows])


@torch.no_grad()
def glance(
    model: FMRNet,
    picture: Tensor,
    inside: Tensor | None = None,
    evidence: list[Tensor] | None = None,
    usual: Tensor | None = None,
) -> Glance:
    """What the early exit makes of a picture (C, H, W) in [0, 1], filled.

    Where `inside`, (H, W), is 0, no surprise counts. A distance is that of a whole patch: it counts where half of the
    patch or more is inside. `evidence` is that of `General`, where it is known; `usual` that of `Glance`, by
    default of a picture that was not filled.
    """
    if model.general is None:
        encoded = encode(model, picture)
        distances = patch_distances(model, encoded)
        typical = _median(distances)
        if inside is not None:
            patches, _ = fast.slice_patches(inside[None], model.config.patch_size, model.config.stride)
            counts = (patches.mean((1, 2, 3)) >= 0.5).view(distances.shape)
            typical = _median(distances, counts)
            distances = distances * counts
        return Glance(picture, distances[None], typical, encoded, None, inside)
    if evidence is None:
        evidence = model.general.evidence(picture[None])
    if usual is None:
        usual = usual_of(model, picture)
    each = model.general.surprises(evidence, usual)
    surprise = model.general.joined(each)[0]
    seen_by_coarse: Tensor | None = None
    if inside is not None:
        surprise = _counted(surprise, inside)
        counting = [cells_of(inside, cell) for cell in GRIDS]
        each = [values * counts for values, counts in zip(each, counting)]
        seen_by_coarse = counting[COARSE]
    typical = _median(evidence[COARSE], seen_by_coarse)
    side = model.config.patch_size
    readings = [patch_alarms(surprise, side), *_alone(each, side)]
    return Glance(picture, torch.stack(readings), typical, None, surprise, inside, usual)


def usual_of(
    model: FMRNet, picture: Tensor, size: tuple[int, int] | None = None, corner: tuple[int, int] = (0, 0)
) -> Tensor:
    """What the witnesses of a model with general features usually say of a filled picture (C, H, W): (W, H / 4, W / 4).

    `size` is that of the whole picture before it was filled, of which this is the part from `corner` on; by default
    its own.
    """
    assert model.general is not None
    filled = (picture.shape[1], picture.shape[2])
    known = Usual(model.general.near.cpu().numpy(), model.general.place.cpu().numpy())
    return torch.from_numpy(known.at(filled, size or filled, corner)).to(picture)


def _alone(surprises: list[Tensor], size: int) -> Iterator[Tensor]:
    """What each witness on general features says of each patch, and the coarse one of the patch as a whole."""
    for number, (values, cell) in enumerate(zip(surprises, GRIDS)):
        yield patch_alarms(values[0], size, cell)
        if number == COARSE:
            yield patch_means(values[0], size, cell)


def _median(values: Tensor, counts: Tensor | None = None) -> Tensor:
    """The middle one, or the mean of the middle two, of the values that count; infinity if none does."""
    counts = torch.ones_like(values, dtype=torch.bool) if counts is None else counts
    ordered = torch.where(counts, values, torch.inf).flatten().sort().values
    number = counts.sum()
    return ordered[torch.stack(((number - 1).clamp_min(0) // 2, number // 2))].mean()


@torch.no_grad()
def compare(model: FMRNet, seen: Glance, restored: Tensor | None = None) -> Comparison:
    """The anomaly map of a picture, after the early exit has looked at it; `restored` is its background, if known."""
    if model.config.generator and restored is None:
        restored = restore(model, encode(model, seen.picture) if seen.encoded is None else seen.encoded)
    return replace(fuse(model, seen, restored), background=restored)


@torch.no_grad()
def fuse(model: FMRNet, seen: Glance, background: Tensor | None) -> Comparison:
    """The anomaly map from a picture as it was seen, and its background if there is a generator.

    Where a pixel does not count, no reading counts what the map shows.
    """
    picture, surprise, inside = seen.picture, seen.surprise, seen.inside
    size = model.config.patch_size
    own = None if background is None else map_and_alarm(model, picture, background)
    if surprise is None or model.general is None:
        assert own is not None
        found, alarms = own
        mapped = learned_map(found) if model.fusion is not None else found
        return Comparison(mapped, found, patch_alarms(_counted(alarms, inside), size)[None])
    found, readings = surprise, picture.new_zeros(0)
    if own is not None:
        assert seen.usual is not None
        mapped, alarms = (
            model.general.surprised(model.general.own + number, values[None], seen.usual)[0]
            for number, values in enumerate(own)
        )
        mapped, alarms = _counted(mapped, inside), _counted(alarms, inside)
        found = surprise + mapped
        readings = torch.stack([patch_alarms(one, size) for one in (surprise + alarms, alarms)])
    return Comparison(torch.sigmoid((found - HALF) / BREADTH), found, readings)


def _counted(values: Tensor, inside: Tensor | None) -> Tensor:
    """0 in place of the values (H, W) that do not count."""
    return values if inside is None else values * inside


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
