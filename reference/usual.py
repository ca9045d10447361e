"""What a witness usually says of good pictures at a place, and what it says beyond that (not in the paper).

near      the mean so far from the border, where a network sees zeros beside the picture and parts end
place     by how much it says more at each place of pictures of one size, as far as good pictures agree on it
usual     the sum of both: of distances their logarithm

All maps are of cells of CELL x CELL pixels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._checks import Array, Indices, numbers
from .backbone import larger

CELL = 4  # pixels of a side
BANDS = 9  # of cells by their distance from the border: eight of them one cell wide, then what lies further inside
ALIKE = 0.25  # of each side, by which a picture may be larger or smaller than the good ones
PICTURES = 8  # good ones alike, from which places are known
QUIETEST = -0.25  # by which the logarithm of a distance is less at a place, at most


def bands(filled: tuple[int, int], size: tuple[int, int]) -> Indices:
    """How far each cell lies from the border of a picture, in cells.

    Parameters
    ----------
    filled, size : (H', W'), (H, W)
        Of the picture as it is filled up at its lower and right border, and before.

    Returns
    -------
    (H' / CELL, W' / CELL)
        The distance of the cell's middle, rounded down, 0 beyond the border, BANDS - 1 at most.
    """
    found = np.zeros((filled[0] // CELL, filled[1] // CELL), dtype=np.int64)
    for row, column in np.ndindex(*found.shape):
        y, x = CELL * row + CELL / 2, CELL * column + CELL / 2
        nearest = min(y, x, size[0] - y, size[1] - x)
        found[row, column] = min(max(int(nearest // CELL), 0), BANDS - 1)
    return found


def alike(size: tuple[int, int], cells: tuple[int, int]) -> bool:
    """Whether a picture shows the same places as pictures of so many cells.

    Parameters
    ----------
    size : (H, W), pixels
    cells : (h, w)

    Returns
    -------
    bool
        Whether neither side differs by more than ALIKE.
    """
    return all(abs(-(-side // CELL) - of) <= ALIKE * of for side, of in zip(size, cells, strict=True))


def resized(values: npt.ArrayLike, whole: tuple[int, int], count: tuple[int, int]) -> Array:
    """A map drawn to another number of cells.

    Parameters
    ----------
    values : (h, w)
    whole : (h', w')
        Cells that it is to be drawn to.
    count : (h'', w'')
        How many rows and columns of these are given, from the first on; of those beyond, the values stay.

    Returns
    -------
    (h'', w'')
        On straight lines between the middles of cells; beyond the outermost middles the values stay.
    """
    found = numbers("values", values, "(h, w)")
    for axis in range(2):
        old = found.shape[axis]
        middles = (np.arange(count[axis]) + 0.5) * old / whole[axis] - 0.5
        drawn = [np.interp(middles, np.arange(old), line) for line in np.moveaxis(found, axis, -1)]
        found = np.moveaxis(np.array(drawn), -1, axis)
    return found


def near(maps: Sequence[npt.ArrayLike], sizes: Sequence[tuple[int, int]]) -> Array:
    """What a witness says of good pictures so far from their borders.

    Parameters
    ----------
    maps : of each good picture (h, w), as it is filled up
    sizes : of each (H, W), before it was

    Returns
    -------
    (BANDS,)
        The mean of all cells of a band; where there is none, that of all cells.
    """
    values = [numbers("maps", one, "(h, w)") for one in maps]
    there = [
        bands((CELL * one.shape[0], CELL * one.shape[1]), size)
        for one, size in zip(values, sizes, strict=True)
    ]
    every, band = (np.concatenate([one.ravel() for one in each]) for each in (values, there))
    return np.array([every[band == b].mean() if (band == b).any() else every.mean() for b in range(BANDS)])


def place(
    maps: Sequence[npt.ArrayLike],
    sizes: Sequence[tuple[int, int]],
    near: npt.ArrayLike,
    cells: tuple[int, int],
    quietest: float = -np.inf,
) -> Array:
    """By how much a witness says more at each place than so far from the border, as far as good pictures agree.

    Of each picture the mean is taken off first: one may be louder than another. What two halves of the pictures have
    in common, by the mean of their product, is that part of the mean of all which is no chance.

    Where all good pictures are flat, as where their sensor was full, features hardly vary, and under a little less
    light they lie many times as far away as ever before. So of a distance no place counts as quieter than QUIETEST.

    Parameters
    ----------
    maps, sizes : as `near` takes them
    near : (BANDS,)
    cells : (h, w)
        Of the places. Pictures that are not `alike` do not count.
    quietest : float
        The least that is given: QUIETEST of the logarithm of a distance.

    Returns
    -------
    (h, w)
        0 everywhere if fewer than PICTURES count.
    """
    usual = numbers("near", near, f"({BANDS},)")
    beyond = []
    for one, size in zip(maps, sizes, strict=True):
        values = numbers("maps", one, "(h, w)")
        if alike(size, cells):
            rest = values - usual[bands((CELL * values.shape[0], CELL * values.shape[1]), size)]
            rows, columns = (-(-side // CELL) for side in size)
            rest = resized(rest[:rows, :columns], cells, cells)
            beyond.append(rest - rest.mean())
    if len(beyond) < PICTURES:
        return np.zeros(cells)
    mean, even, odd = (np.mean(half, axis=0) for half in (beyond, beyond[::2], beyond[1::2]))
    power = np.mean(mean**2)
    share = np.clip(np.mean(even * odd) / power, 0, 1) if power > 0 else 0.0
    return np.asarray(np.maximum(share * mean, quietest))


def usual(
    near: npt.ArrayLike, place: npt.ArrayLike | None, filled: tuple[int, int], size: tuple[int, int]
) -> Array:
    """What a witness usually says of a picture in each cell.

    Parameters
    ----------
    near : (BANDS,)
    place : (h, w), or None if nothing is known of places
    filled, size : as `bands` takes them

    Returns
    -------
    (H' / CELL, W' / CELL)
    """
    found = numbers("near", near, f"({BANDS},)")[bands(filled, size)]
    if place is not None and alike(size, np.shape(place)):
        rows, columns = (-(-side // CELL) for side in size)
        found = found + resized(place, (rows, columns), (found.shape[0], found.shape[1]))
    return np.asarray(found)


def in_cells(values: npt.ArrayLike, cell: int) -> Array:
    """A map in cells of CELL x CELL pixels.

    Parameters
    ----------
    values : (h, w)
    cell : int, pixels of a side of a value: a multiple of CELL, or a divisor of it

    Returns
    -------
    (h * cell / CELL, w * cell / CELL)
        The mean where values are smaller, their repetition where they are larger.
    """
    found = numbers("values", values, "(h, w)")
    if cell > CELL:
        return found.repeat(cell // CELL, axis=0).repeat(cell // CELL, axis=1)
    times = CELL // cell
    return np.asarray(found.reshape(len(found) // times, times, -1, times).mean((1, 3)))


def drawn(usual: npt.ArrayLike, cell: int) -> Array:
    """What is usual in cells of CELL x CELL pixels, in cells of another side: the opposite of `in_cells`.

    Parameters
    ----------
    usual : (h, w)
    cell : int, pixels of a side

    Returns
    -------
    (h * CELL / cell, w * CELL / cell)
        The mean where cells are larger, `backbone.larger` where they are smaller.
    """
    found = numbers("usual", usual, "(h, w)")
    if cell > CELL:
        times = cell // CELL
        return np.asarray(found.reshape(len(found) // times, times, -1, times).mean((1, 3)))
    return np.asarray(larger(found[None], CELL // cell)[0])
