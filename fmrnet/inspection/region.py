"""The region of interest: the part of a picture that is inspected. Nothing outside of it counts.

A rectangle is cut out, so that inspecting it is inspecting a picture of it alone. A mask is, too, by the rectangle
around it; what is outside of the mask is then taken from every score, look and map, though the network still sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet._pixels import MAX_PIXELS
from fmrnet.errors import ArtifactError, ConfigError, SizeError, shown
from fmrnet.inspection.annotations.regions import filled, run_lengths
from fmrnet.inspection.stored import Stored
from fmrnet.pictures import read_mask

__all__ = ["Region"]

RECTANGLE = re.compile(r"\s*(\d{1,8})\s*,\s*(\d{1,8})\s*,\s*(\d{1,8})\s*,\s*(\d{1,8})\s*")
NUMBERS = re.compile(r"[-+.\s\d]*(,[-+.\s\d]*)+")  # of what was meant as a rectangle
GREATEST = 2**24  # pixels of a side
MOST_RUNS = 100_000  # of a mask: it goes into the header of the model file


@dataclass(frozen=True, eq=False)
class Region:
    """A region of interest.

    Attributes
    ----------
    x, y, width, height : int
        Of the rectangle, or of the least one around the mask, in pixels from the upper left corner of a picture.
    inside : (height, width) bool, or None
        Which pixels of the rectangle count; None: all.
    size : (int, int), or None
        Height and width that pictures must have, those of the mask; None: any that hold the rectangle.
    """

    x: int
    y: int
    width: int
    height: int
    inside: NDArray[np.bool_] | None = None
    size: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Region:
        """From "x,y,width,height" or the name of a mask, which is above 0 where pictures are inspected.

        Raises
        ------
        ConfigError : a rectangle without pixels, or a mask without any.
        PictureError : the mask cannot be read, see `fmrnet.pictures.read_mask`.
        """
        if found := RECTANGLE.fullmatch(text):
            x, y, width, height = map(int, found.groups())
            if not (width and height and max(x + width, y + height) <= GREATEST):
                raise ConfigError(
                    f"--roi {shown(text)}: expected x,y,width,height of a rectangle with pixels"
                )
            return cls(x, y, width, height)
        if NUMBERS.fullmatch(text):
            raise ConfigError(
                f"--roi {shown(text)}: expected x,y,width,height in whole pixels, or the file of a mask"
            )
        return cls.around(read_mask(Path(text)), f"--roi {text}")

    @classmethod
    def around(cls, mask: NDArray[np.bool_], name: str = "the mask") -> Region:
        """From a mask (H, W) of pictures of its size; ConfigError if it is empty."""
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not rows.size:
            raise ConfigError(f"{name} marks nothing; it is to be above 0 where pictures are inspected")
        (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
        inside = mask[top : bottom + 1, left : right + 1].copy()
        if (runs := len(run_lengths(inside.ravel()))) > MOST_RUNS:
            raise ConfigError(
                f"{name} has {runs} edges along its rows: expected up to {MOST_RUNS}; draw it plainer"
            )
        return cls(left, top, right + 1 - left, bottom + 1 - top, inside, (mask.shape[0], mask.shape[1]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.x, self.y, self.width, self.height))

    def __str__(self) -> str:
        rectangle = f"{self.width}x{self.height} pixels at x = {self.x}, y = {self.y}"
        if self.inside is None:
            return rectangle
        return f"a mask of {self.inside.sum()} pixels within {rectangle}"

    @property
    def pixels(self) -> int:
        """How many count."""
        return self.width * self.height if self.inside is None else int(self.inside.sum())

    def check(self, least: int) -> None:
        """Raise ConfigError if no patch of `least` x `least` pixels lies in it: nothing could be told then."""
        inside = np.ones((self.height, self.width), np.bool_) if self.inside is None else self.inside
        if not _holds_square(inside, least):
            raise ConfigError(
                f"the region of interest is {self}, and holds no square of {least}x{least}, a patch; widen it"
            )

    def cut(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The rectangle of a picture (H, W) or (H, W, C).

        Raises
        ------
        SizeError : the picture does not hold it, or is not of the mask's size.
        """
        height, width = picture.shape[:2]
        if self.size is not None and (height, width) != self.size:
            raise SizeError(
                f"{width}x{height} pixels, and the mask of the region of interest is {self.size[1]}x{self.size[0]}; "
                "give pictures and mask of one size"
            )
        if self.x + self.width > width or self.y + self.height > height:
            raise SizeError(
                f"{width}x{height} pixels do not hold the region of interest, {self}; give larger pictures or another "
                "region"
            )
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]

    def spread(self, values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
        """What `cut` gives, (h, w), on a whole picture (height, width): 0 where nothing counts."""
        whole = large.zeros((height, width), values.dtype)
        part = whole[self.y : self.y + self.height, self.x : self.x + self.width]
        part[:] = values if self.inside is None else values * self.inside
        return whole

    def laid(self, values: NDArray[Any], picture: NDArray[Any]) -> NDArray[Any]:
        """What `cut` gives, (h, w, C), on a copy of the picture (H, W, C)."""
        whole = large.by_bands(np.copy, picture)
        part = whole[self.y : self.y + self.height, self.x : self.x + self.width]
        part[:] = values if self.inside is None else np.where(self.inside[:, :, None], values, part)
        return whole

    @property
    def rectangle(self) -> tuple[int, int, int, int]:
        """x, y, width and height of the region, or of the largest rectangle inside the mask (squarer before longer)."""
        if self.inside is None:
            return self.x, self.y, self.width, self.height
        x, y, width, height = largest_rectangle(self.inside)
        return self.x + x, self.y + y, width, height

    def to_dict(self) -> dict[str, Any]:
        """The values, JSON-ready, a mask as lengths of runs along the rows of its rectangle."""
        runs = None if self.inside is None else run_lengths(self.inside.ravel())
        size = None if self.size is None else list(self.size)
        return {
            "x": self.x,
            "y": self.y,
            "width": self.width,
            "height": self.height,
            "inside": runs,
            "size": size,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Region:
        """The opposite of `to_dict`; ArtifactError if the values are not what they should be."""
        stored = Stored("region", values, cls)
        x, y = (stored.count(field, least=0) for field in ("x", "y"))
        width, height = (stored.count(field, least=1) for field in ("width", "height"))
        if max(x + width, y + height) > GREATEST:
            raise ArtifactError(f"region field width = {width}: no picture is so large")
        if values["inside"] is None:
            return cls(x, y, width, height)
        rows, columns = stored.numbers("size", 1, GREATEST, least_count=2, most_count=2)
        if width * height > MAX_PIXELS or x + width > columns or y + height > rows:
            raise ArtifactError("region field size does not hold the mask")
        runs = [int(run) for run in stored.numbers("inside", 0, MAX_PIXELS, most_count=MOST_RUNS)]
        try:
            inside = filled(runs, width * height).reshape(height, width)
        except ValueError as error:
            raise ArtifactError(f"region field inside has {error}") from error
        return cls(x, y, width, height, inside, (int(rows), int(columns)))


def _holds_square(mask: NDArray[np.bool_], side: int) -> bool:
    """Whether a square of `side` x `side` lies inside a mask."""
    if min(mask.shape) < side:
        return False
    sums = np.pad(mask.astype(np.int32).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    squares = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return bool((squares == side**2).any())


def largest_rectangle(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x, y, width and height of the largest upright rectangle inside a mask; of its sides, a square's before others'.

    Largest is here the one whose shorter side is longest, then whose area is: patches are to find room in it.

    >>> largest_rectangle(np.array([[0, 1, 1], [1, 1, 1]], bool))
    (1, 0, 2, 2)
    """
    heights = np.zeros(mask.shape[1], np.int64)
    best, found = (0, 0), (0, 0, 0, 0)
    for row in range(mask.shape[0]):
        heights = np.where(mask[row], heights + 1, 0)
        if not heights.any():
            continue
        open_: list[tuple[int, int]] = []  # columns where a rectangle begins, and how high it is, rising
        for column, height in enumerate([*heights.tolist(), 0]):
            start = column
            while open_ and open_[-1][1] >= height:
                start, high = open_.pop()
                width = column - start
                if (rank := (min(width, high), width * high)) > best:
                    best, found = rank, (start, row + 1 - high, width, high)
            if height:
                open_.append((start, height))
    return found
