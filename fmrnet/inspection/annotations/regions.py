"""The regions of a mask, and a mask as lengths of runs, which COCO and CVAT have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrnet import large

__all__ = ["Region", "filled", "regions", "run_lengths"]


@dataclass(frozen=True)
class Region:
    """A connected part of a mask.

    Attributes
    ----------
    x, y : int
        Column and row of the upper left pixel of the least upright rectangle around it.
    inside : (height, width) bool
        Which pixels of that rectangle belong to it.
    """

    x: int
    y: int
    inside: NDArray[np.bool_]

    @property
    def width(self) -> int:
        """Of the rectangle, in pixels."""
        return int(self.inside.shape[1])

    @property
    def height(self) -> int:
        """Of the rectangle, in pixels."""
        return int(self.inside.shape[0])

    @property
    def area(self) -> int:
        """How many pixels belong to it."""
        return int(self.inside.sum())

    def on(self, height: int, width: int) -> NDArray[np.bool_]:
        """The region on a picture of this size, (height, width)."""
        whole = np.zeros((height, width), np.bool_)
        whole[self.y : self.y + self.height, self.x : self.x + self.width] = self.inside
        return whole


def regions(mask: NDArray[np.bool_]) -> Iterator[Region]:
    """The regions of a mask (H, W), from the top on; pixels that touch at a corner belong together."""
    from scipy.ndimage import find_objects, label

    if not mask.any():
        return
    labels = large.empty(mask.shape, np.int32)
    count = label(mask, np.ones((3, 3)), output=labels)
    for number, (rows, columns) in enumerate(find_objects(labels, count), start=1):
        yield Region(
            columns.start, rows.start, large.by_bands(lambda one, of=number: one == of, labels[rows, columns])
        )


def run_lengths(values: NDArray[np.bool_]) -> list[int]:
    """How long the runs of False and True in (N,) are, taking turns from False on, whose first run may be 0 long.

    >>> run_lengths(np.array([True, True, False]))
    [0, 2, 1]
    """
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff([0, *ends.tolist(), values.size]).tolist()
    return [0, *lengths] if values.size and values[0] else lengths


def filled(lengths: Sequence[int], count: int) -> NDArray[np.bool_]:
    """The opposite of `run_lengths`, `count` values; ValueError if the runs are not that long together."""
    if min(lengths, default=0) < 0 or sum(lengths) != count:
        raise ValueError(f"runs of {sum(lengths)} values: expected {count}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
