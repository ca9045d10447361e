"""The memory bank M between the two training phases (Algorithm 1, lines 12-16)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fmrnet import fast
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

    Patches are cut by a sliding window that overlaps as much as the bank needs; of more than 16,384 patches a
    random part is taken. One thread sums the centroids, so that a seed gives the same bank each time.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    config = model.config
    check_enough_patches(pool, config.patch_size, config.memory_entries)
    stride = _stride(pool, config.patch_size, config.memory_entries)
    total = _count(pool, config.patch_size, stride)
    keep = np.zeros(total, dtype=bool)
    keep[np.random.default_rng(config.seed).permutation(total)[:MOST_PATCHES]] = True
    model.encoder.eval()
    latents: list[Tensor] = []
    start = 0
    for picture in pool.whole():
        patches, _ = fast.slice_patches(picture, config.patch_size, stride)
        kept = torch.from_numpy(keep[start : start + len(patches)])
        start += len(patches)
        batches = patches[kept].split(BATCH)
        latents.extend(model.encode(batch.to(model.memory.device)).z.cpu() for batch in batches)
    points = torch.cat(latents).numpy()
    with threadpool_limits(1):
        means = KMeans(config.memory_entries, n_init=1, max_iter=50, random_state=config.seed).fit(points)
    return torch.from_numpy(means.cluster_centers_)
