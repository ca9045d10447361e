"""A picture with its defects outlined, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet.pictures import to_channels

__all__ = ["RED", "breadth", "marked", "outline", "overlay"]

RED = np.array([1.0, 0.23, 0.19], dtype=np.float32)
WHITE = np.float32(1)


def overlay(
    picture: NDArray[np.float32],
    mask: NDArray[np.bool_] | None = None,
    boxes: Sequence[tuple[int, int, int]] | None = None,
) -> NDArray[np.uint8]:
    """The picture with its defects outlined in red, and in white around the red: (H, W, 3) uint8.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) in [0, 1]
    mask : (H, W) bool, defective pixels
    boxes : row, column and side of defective patches, in pixels
    """
    painted = to_channels(picture, 3).copy()
    whole = marked((picture.shape[0], picture.shape[1]), mask, boxes)
    line, rim = outline(whole, breadth(whole.shape))
    painted[whole] = 0.7 * painted[whole] + 0.3 * RED
    painted[line] = RED
    painted[rim] = WHITE
    return np.round(painted * 255).astype(np.uint8)


def marked(
    size: tuple[int, int],
    mask: NDArray[np.bool_] | None = None,
    boxes: Sequence[tuple[int, int, int]] | None = None,
) -> NDArray[np.bool_]:
    """The pixels of a mask and of boxes, as `overlay` takes them, on a picture of this size: (H, W) bool."""
    whole = large.zeros(size, np.bool_) if mask is None else large.by_bands(np.copy, mask)
    for row, column, side in boxes or ():
        whole[row : row + side, column : column + side] = True
    return whole


def breadth(size: tuple[int, int]) -> int:
    """Of an outline on a picture (H, W), in pixels, so that it stays visible when a large one is seen whole."""
    return max(1, round(min(size) / 256))


def outline(mask: NDArray[np.bool_], reach: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The line around the defects of a mask (H, W) and its rim, by which grey shows it, `reach` pixels broad each.

    The line lies as far from the defects.
    """
    if not mask.any():
        return np.zeros_like(mask), np.zeros_like(mask)
    near, line, rim = (_grown(mask, reach * times) for times in (1, 2, 3))
    return line & ~near, rim & ~line


def _grown(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """What lies within `reach` pixels of a mask, across, down or both."""
    from scipy.ndimage import maximum_filter

    grown: NDArray[np.bool_] = maximum_filter(mask.view(np.uint8), 2 * reach + 1, mode="constant") > 0
    return grown
