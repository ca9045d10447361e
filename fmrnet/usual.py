"""What each witness usually says of good pictures at a place: at their borders, and at places that mean something.

Beside a picture a network sees zeros, and there a part may end; light falls off to a side, a selvage or a busbar runs
where it runs in every picture. What is loud there in all good pictures is no defect. Of each witness two things are
known, in cells of CELL x CELL pixels: what it says so far from the border, and by how much more it says at each place,
as far as good pictures agree on it. A picture of another size than the good ones has no such places.

What a Gaussian says is a distance: it is known by its logarithm, and a distance is divided by what is usual. The other
witnesses speak in logits and deviations, from which it is subtracted. `fmrnet.reference.usual` is the oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import ArtifactError

__all__ = [
    "ALIKE",
    "BANDS",
    "CELL",
    "GAUSSIANS",
    "MOST_PLACES",
    "QUIETEST",
    "Usual",
    "alike",
    "bands",
    "cells",
    "may_be_places",
    "resized",
]

CELL = 4  # pixels of a side
BANDS = 9  # of cells by their distance from the border: eight of them one cell wide, then what lies further inside
MOST_PLACES = 2**18  # cells, such as those of 2048 x 2048 pixels
ALIKE = 0.25  # of each side, by which a picture may be larger or smaller than the good ones
GAUSSIANS = 2  # the first witnesses, whose distances are known by their logarithms
QUIETEST = -0.25  # by which the logarithm of a distance is less at a place, at most; see the oracle's `place`
GREATEST_LOG = 30.0  # of these; its exponential times itself is a number in float32 still

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Usual:
    """What W witnesses usually say.

    Parameters
    ----------
    near : (W, BANDS)
        So far from the border, in cells; the last band is what lies further inside.
    place : (W, h, w)
        How much more at each place of pictures of h x w cells; h and w are 0 where nothing is known of places.
    """

    near: Floats
    place: Floats

    def __post_init__(self) -> None:
        for values in (self.near[:GAUSSIANS], self.place[:GAUSSIANS]):
            if values.size and not np.abs(values).max() <= GREATEST_LOG:
                raise ArtifactError(
                    f"a distance is usually {np.abs(values).max():.3g} by its logarithm: expected up to {GREATEST_LOG}"
                )

    @classmethod
    def of(cls, weights: Mapping[str, NDArray[Any]]) -> Usual:
        """That of a model file; ArtifactError if it holds none, or another shape than it can have."""
        near, place = (weights.get(f"general.{name}", np.zeros(0)) for name in ("near", "place"))
        fits = near.ndim == 2 and near.shape[1] == BANDS and may_be_places(place.shape, len(near))
        if not fits or {near.dtype, place.dtype} != {np.dtype(np.float32)}:
            raise ArtifactError(
                f"the weights say what is usual in {near.shape} and {place.shape} numbers of {near.dtype} and "
                f"{place.dtype}; train the model again"
            )
        return cls(near, place)

    def at(
        self, filled: tuple[int, int], size: tuple[int, int], corner: tuple[int, int] = (0, 0)
    ) -> NDArray[np.float32]:
        """What is usual in the cells of a picture, or of a part of it.

        Parameters
        ----------
        filled : (H', W')
            Pixels of the part, as it is filled up: multiples of CELL.
        size : (H, W)
            Of the whole picture, before it was filled up.
        corner : (row, column)
            Of the part's first pixel in the picture: multiples of CELL.

        Returns
        -------
        (W, H' / CELL, W' / CELL)
            Of the Gaussians what a distance is to be divided by, of the others what is to be subtracted.
        """
        found = self.near[:, bands(filled, size, corner)]
        if self.place.size and alike(size, self.place.shape[1:]):
            found = found + resized(self.place, cells(size), cells(filled), cells(corner))
        found[:GAUSSIANS] = np.exp(found[:GAUSSIANS])
        return found.astype(np.float32)


def cells(size: tuple[int, ...]) -> tuple[int, int]:
    """How many rows and columns of cells a picture of a size, in pixels, has."""
    height, width = (-(-side // CELL) for side in size)
    return height, width


def bands(
    filled: tuple[int, int], size: tuple[int, int], corner: tuple[int, int] = (0, 0)
) -> NDArray[np.intp]:
    """How far each cell of a part of a picture lies from the picture's border, in cells, BANDS - 1 at most: (h, w).

    Of the cell's middle; what lies beyond the border counts as 0. Arguments are those of `Usual.at`.

    >>> bands((16, 20), (16, 20))
    array([[0, 0, 0, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 0, 0, 0]])
    """
    down, across = (
        np.minimum(middles, length - middles)
        for middles, length in zip(_middles(filled, corner), size, strict=True)
    )
    nearest = np.minimum(down[:, None], across) // CELL
    return nearest.clip(0, BANDS - 1).astype(np.intp)


def alike(size: tuple[int, ...], places: tuple[int, ...]) -> bool:
    """Whether pictures of a size, in pixels, show the same places as pictures of so many cells.

    >>> alike((60, 200), (15, 50)), alike((72, 200), (15, 50)), alike((80, 200), (15, 50))
    (True, True, False)
    """
    return all(abs(side - of) <= ALIKE * of for side, of in zip(cells(size), places, strict=True))


def may_be_places(shape: tuple[int, ...], witnesses: int) -> bool:
    """Whether places of so many witnesses may have this shape."""
    return len(shape) == 3 and shape[0] == witnesses and shape[1] * shape[2] <= MOST_PLACES


def resized(
    values: Floats, whole: tuple[int, ...], count: tuple[int, ...], corner: tuple[int, ...] = (0, 0)
) -> Floats:
    """Maps (W, h, w) drawn to `whole` cells, and of these `count` from `corner` on: (W, *count).

    On straight lines between the middles of cells; beyond the outermost middles the values stay.
    """
    for axis, (old, new) in enumerate(zip(values.shape[1:], whole, strict=True)):
        places = (np.arange(corner[axis], corner[axis] + count[axis]) + 0.5) * old / new - 0.5
        places = places.clip(0, old - 1)
        below = np.minimum(places.astype(np.intp), max(old - 2, 0))
        part = (places - below).astype(values.dtype).reshape((-1, 1) if axis == 0 else (-1,))
        low, high = (values.take(one, axis=1 + axis) for one in (below, np.minimum(below + 1, old - 1)))
        values = low + part * (high - low)
    return values


def _middles(filled: tuple[int, int], corner: tuple[int, int]) -> list[Floats]:
    """Where the middles of cells lie, in pixels from the picture's first row and column."""
    return [
        np.arange(start // CELL, (start + side) // CELL) * CELL + CELL / 2
        for side, start in zip(filled, corner, strict=True)
    ]
