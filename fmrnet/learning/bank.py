"""The memory bank M between the two training phases (Algorithm 1, lines 12-16)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fmrnet import fast
from fmrnet.config import Config
from fmrnet.errors import DatasetError
from fmrnet.learning.data import PicturePool
from fmrnet.network.model import FMRNet

__all__ = ["check_enough_patches", "establish_bank"]

STRIDES = (64, 32, 16, 8)  # the widest that gives PATCHES_PER_ENTRY is taken
PATCHES_PER_ENTRY = 8
MOST_PATCHES = 16_384
BATCH = 256


def _count(pool: PicturePool, size: int, stride: int) -> int:
    """How many patches a sliding window cuts, the flush one at each border included."""
    return sum(math.prod(-(-(side - size) // stride) + 1 for side in p.shape[:2]) for p in pool.pictures)


def _stride(pool: PicturePool, size: int, entries: int) -> int:
    for stride in STRIDES:
        if _count(pool, size, stride) >= PATCHES_PER_ENTRY * entries:
            return stride
    return STRIDES[-1]


def check_enough_patches(pool: PicturePool, size: int, entries: int) -> None:
    """Raise DatasetError if the good pictures cannot give one patch for each memory entry."""
    count = _count(pool, size, STRIDES[-1])
    if count < entries:
        raise DatasetError(
            f"the good pictures give {count} patches of {size}x{size}, even overlapping at "
            f"every {STRIDES[-1]} pixels; {entries} memory entries need as many: give more or larger pictures, "
            "or fewer memory entries"
        )


@torch.no_grad()
def establish_bank(model: FMRNet, pool: PicturePool) -> Tensor:
    """K-means centroids of the latents of the normal patches: M (L, K).

    Patches overlap as much as the bank needs; of more than 16,384 of them a random part is taken, about as many. One
    thread sums the centroids, so that a seed gives the same bank each time.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    config = model.config
    check_enough_patches(pool, config.patch_size, config.memory_entries)
    stride = _stride(pool, config.patch_size, config.memory_entries)
    share = MOST_PATCHES / _count(pool, config.patch_size, stride)
    random = np.random.default_rng(config.seed)

    def some(rows: Tensor) -> Tensor:
        return rows[torch.from_numpy(random.random(len(rows)) < share)]

    model.encoder.eval()
    latents: list[Tensor] = []
    for picture in pool.whole():
        if config.tile == "patch":
            patches, _ = fast.slice_patches(picture, config.patch_size, stride)
            batches = some(patches).split(BATCH)
            latents.extend(model.encode(batch.to(model.memory.device)).z.cpu() for batch in batches)
        else:
            views = (model.filled(moved[None]) for moved in _moved(picture, config, stride))
            latents.extend(some(model.encode(view.to(model.memory.device)).z.cpu()) for view in views)
    points = torch.cat(latents).numpy()
    with threadpool_limits(1):
        means = KMeans(config.memory_entries, n_init=1, max_iter=50, random_state=config.seed).fit(points)
    return torch.from_numpy(means.cluster_centers_)


def _moved(picture: Tensor, config: Config, stride: int) -> Iterator[Tensor]:
    """A picture (C, H, W) less its first rows and columns, so that all windows together lie `stride` pixels apart."""
    starts = range(0, config.stride, min(stride, config.stride))
    for row, column in product(starts, repeat=2):
        rest = picture[:, row:, column:]
        if min(rest.shape[1:]) >= config.patch_size:
            yield rest
