"""A picture with its defects outlined, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmrnet.pictures import to_channels

__all__ = ["overlay"]

RED = np.array([1.0, 0.23, 0.19], dtype=np.float32)


def overlay(
    picture: NDArray[np.float32],
    mask: NDArray[np.bool_] | None = None,
    boxes: Sequence[tuple[int, int, int]] | None = None,
) -> NDArray[np.uint8]:
    """The picture with its defects outlined in red: (H, W, 3) uint8.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) in [0, 1]
    mask : (H, W) bool, defective pixels
    boxes : row, column and side of defective patches, in pixels
    """
    painted = to_channels(picture, 3).copy()
    marked = np.zeros(picture.shape[:2], np.bool_) if mask is None else mask
    for row, column, side in boxes or ():
        marked = marked.copy()
        marked[row : row + side, column : column + side] = True
    reach = max(1, round(min(picture.shape[:2]) / 256))  # the outline stays visible on a large picture
    near = ndimage.binary_dilation(marked, structure=np.ones((3, 3), np.bool_), iterations=reach)
    outline = ndimage.binary_dilation(near, structure=np.ones((3, 3), np.bool_), iterations=reach) & ~near
    painted[marked] = 0.7 * painted[marked] + 0.3 * RED
    painted[outline] = RED
    return np.round(painted * 255).astype(np.uint8)
