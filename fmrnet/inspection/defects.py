"""The defects of a picture one by one: where each lies, how large it is and how surprising."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrnet.inspection.annotations.regions import regions

__all__ = ["Defect", "defects"]


@dataclass(frozen=True)
class Defect:
    """A connected part of a mask.

    Attributes
    ----------
    row, column, height, width : int
        The least upright rectangle around it, in pixels.
    pixels : int
        How many belong to it.
    p_value : float
        The share of good pictures with a patch as surprising as the most surprising one that touches it.
    """

    row: int
    column: int
    height: int
    width: int
    pixels: int
    p_value: float


def defects(
    mask: NDArray[np.bool_],
    p_values: NDArray[np.float64],
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    side: int,
) -> list[Defect]:
    """The defects of a mask (H, W), the most surprising first; pixels that touch at a corner belong together.

    Parameters
    ----------
    p_values : (rows, columns)
        Of patches.
    tops, lefts : (rows,) and (columns,)
        Where the patches begin.
    side : int
        Of a patch, in pixels.
    """
    found = []
    for region in regions(mask):
        near = np.ix_(
            _touching(tops, side, region.y, region.height), _touching(lefts, side, region.x, region.width)
        )
        p_value = float(p_values[near].min(initial=1.0))
        found.append(Defect(region.y, region.x, region.height, region.width, region.area, p_value))
    return sorted(found, key=lambda one: (one.p_value, -one.pixels))


def _touching(starts: NDArray[np.int64], side: int, start: int, length: int) -> NDArray[np.bool_]:
    return (starts < start + length) & (starts + side > start)
