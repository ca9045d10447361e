"""The defects of a picture one by one: where each lies, how large it is and how surprising."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        across = p_values[np.ix_(_touching(tops, side, rows), _touching(lefts, side, columns))]
        found.append(
            Defect(
                rows.start,
                columns.start,
                rows.stop - rows.start,
                columns.stop - columns.start,
                int(np.count_nonzero(labels[rows, columns] == number)),
                float(across.min(initial=math.inf)) if across.size else 1.0,
            )
        )
    return sorted(found, key=lambda one: (one.p_value, -one.pixels))


def _touching(starts: NDArray[np.int64], side: int, span: slice) -> NDArray[np.bool_]:
    return (starts < span.stop) & (starts + side > span.start)
