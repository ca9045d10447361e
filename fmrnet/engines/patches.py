"""A picture cut into overlapping patches, and patches laid back, in NumPy; `fmrnet.fast.patches` does it on tensors."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["corners", "cut", "laid"]


def corners(size: tuple[int, int], side: int, stride: int) -> tuple[list[tuple[int, int]], int]:
    """Row and column of each patch's first pixel, row by row, and how many rows of patches there are.

    The last patch of a row or column lies flush with the border.
    """
    starts = [sorted({*range(0, length - side + 1, stride), length - side}) for length in size]
    return list(product(*starts)), len(starts[0])


def cut(picture: NDArray[np.float32], places: list[tuple[int, int]], side: int) -> NDArray[np.float32]:
    """The patches (N, C, side, side) of a picture (C, H, W)."""
    return np.stack([picture[:, row : row + side, column : column + side] for row, column in places])


def laid(
    patches: NDArray[np.float32], places: list[tuple[int, int]], size: tuple[int, int]
) -> NDArray[np.float32]:
    """The picture (C, *size) of patches: where they overlap, a mean in which each fades towards its border."""
    side = patches.shape[2]
    steps = np.arange(side)
    triangle = np.minimum(steps + 1, side - steps).astype(np.float32)
    weight = np.outer(triangle, triangle)
    total = np.zeros((patches.shape[1], *size), np.float32)
    weights = np.zeros(size, np.float32)
    for patch, (row, column) in zip(patches, places, strict=True):
        total[:, row : row + side, column : column + side] += weight * patch
        weights[row : row + side, column : column + side] += weight
    return total / weights
