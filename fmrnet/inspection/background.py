"""From a picture to its patches' distances to memory, its restored background, and the map of what differs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fmrnet import fast
from fmrnet.errors import ArtifactError
from fmrnet.network.learned_fusion import alarm, beyond_good, learned_map
from fmrnet.network.model import Features, FMRNet

__all__ = [
    "MODALITIES",
    "Comparison",
    "Encoded",
    "compare",
    "encode",
    "patch_distances",
    "restore",
    "restore_crops",
]

MODALITIES = ("gms", "ssim", "residual")
BATCH = 256  # patches at a time: bounds the memory that the network's inner layers take


@dataclass(frozen=True)
class Encoded:
    """A picture cut into patches, and what the encoder makes of them.

    Attributes
    ----------
    picture : Tensor, (C, H, W) in [0, 1]
    origins : Tensor, (N, 2)
        Row and column of each patch's upper left pixel.
    features : list of Features
        Latents and skips of the patches, BATCH of them at a time.
    """

    picture: Tensor
    origins: Tensor
    features: list[Features]


@dataclass(frozen=True)
class Comparison:
    """What differs between a picture and its background.

    Attributes
    ----------
    anomaly_map : Tensor, (H, W)
        The fused map, for pixels.
    alarm_map : Tensor, (H, W)
        What the picture score is made of: the learned fusion's `alarm`, in standard deviations of good pictures, 0 or
        more; or the map itself.
    """

    anomaly_map: Tensor
    alarm_map: Tensor


@torch.no_grad()
def encode(model: FMRNet, picture: Tensor) -> Encoded:
    """Cut a picture (C, H, W) into overlapping patches and encode them.

    Raises
    ------
    ArtifactError
        If the model's weights are such that a latent is not finite.
    """
    patches, origins = fast.slice_patches(picture, model.config.patch_size, model.config.stride)
    features = [model.encode(batch) for batch in patches.split(BATCH)]
    if not all(batch.z.isfinite().all() for batch in features):
        raise ArtifactError(
            "the model gives no number for this picture: its weights are damaged; train it again"
        )
    return Encoded(picture, origins, features)


@torch.no_grad()
def patch_distances(model: FMRNet, encoded: Encoded) -> Tensor:
    """Distance of each patch's latent to the nearest memory entry: the early exit's score, (rows, columns)."""
    distances = [fast.nearest_distance(features.z, model.memory)[0] for features in encoded.features]
    rows = len(encoded.origins[:, 0].unique())
    return torch.cat(distances).view(rows, -1)


@torch.no_grad()
def restore(model: FMRNet, encoded: Encoded) -> Tensor:
    """The picture as it would look without defects: (C, H, W) in [0, 1]."""
    patches = [model.decode(model.restore(features.z), features.skips) for features in encoded.features]
    stitched = fast.stitch_patches(torch.cat(patches), encoded.origins, encoded.picture.shape[1:])
    return model.denormalise(stitched).clamp(0, 1)


@torch.no_grad()
def restore_crops(model: FMRNet, crops: Tensor) -> Tensor:
    """`restore` for a batch of crops of one size, (B, C, S, S), in one pass of the network."""
    cut = [fast.slice_patches(crop, model.config.patch_size, model.config.stride) for crop in crops]
    z, skips = model.encode(torch.cat([patches for patches, _ in cut]))
    decoded = model.decode(model.restore(z), skips).chunk(len(crops))
    size = (crops.shape[2], crops.shape[3])
    stitched = [fast.stitch_patches(patches, cut[0][1], size) for patches in decoded]
    return model.denormalise(torch.stack(stitched)).clamp(0, 1)


@torch.no_grad()
def compare(model: FMRNet, picture: Tensor, background: Tensor) -> Comparison:
    """What differs between a picture and its restored background, both (C, H, W).

    From the learned fusion where the model has one, else the product of Eq 23.
    """
    if model.fusion is not None:
        scores = model.fusion.standard_scores(picture[None], background[None], model.mean, model.std)
        return Comparison(learned_map(beyond_good(scores)[0]), alarm(scores)[0])
    product = fast.anomaly_map(
        picture[None], background[None], modalities=MODALITIES, median=model.config.median
    )[0]
    return Comparison(product, product)
