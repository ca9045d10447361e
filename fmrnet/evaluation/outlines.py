"""Defects marked by outlines or runs in a JSON file, as COCO and LabelMe have them, drawn as masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import DatasetError
from fmrnet.pictures import MAX_PIXELS

__all__ = ["Outlines", "outline_of_coco", "outline_of_labelme"]

Shape = tuple[str, Any]  # what Outlines.shapes says


@dataclass(frozen=True)
class Outlines:
    """What marks the defects of one picture.

    Attributes
    ----------
    source : Path
        The JSON file.
    height, width : int
        Of the picture, as the file says.
    shapes : tuple of (kind, values)
        ("polygon", (x, y, x, y, ...)), ("circle", (x, y, radius)) or ("runs", lengths of 0 and 1 in turn, down the
        columns), in pixels, whose centres are at whole numbers and a half. A pixel is marked if its centre is inside.
    """

    source: Path
    height: int
    width: int
    shapes: tuple[Shape, ...]

    def __str__(self) -> str:
        return f"{self.source}"

    def marked(self) -> NDArray[np.bool_]:
        """(H, W), True where any of the shapes is.

        Raises
        ------
        DatasetError : the size is none, or runs do not fill it.
        """
        if not 0 < self.height * self.width <= MAX_PIXELS or self.height < 0:
            raise DatasetError(f"{self.source} says that a picture has {self.width}x{self.height} pixels")
        mask = np.zeros((self.height, self.width), np.bool_)
        for kind, values in self.shapes:
            if kind == "polygon":
                mask |= _of_polygon(np.reshape(values, (-1, 2)), self.height, self.width)
            elif kind == "circle":
                x, y, radius = values
                rows, columns = np.ogrid[: self.height, : self.width]
                mask |= np.hypot(rows + 0.5 - y, columns + 0.5 - x) <= radius
            else:
                mask |= _of_runs(values, self.height, self.width, self.source)
        return mask


def outline_of_coco(segmentation: Any, box: Any, source: Path) -> list[Shape]:
    """The shapes of one annotation of COCO: polygons, runs as a list or as text; the box where there are none."""
    try:
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            return [("runs", tuple(_runs(counts) if isinstance(counts, str) else map(int, counts)))]
        polygons = [_numbers(polygon) for polygon in segmentation or []]
        if polygons and all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons):
            return [("polygon", polygon) for polygon in polygons]
        if not polygons:
            left, top, width, height = _numbers(box)
            return [
                ("polygon", (left, top, left + width, top, left + width, top + height, left, top + height))
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{source} holds an annotation that is no outline ({error!r})") from None
    raise DatasetError(f"{source} holds a polygon of fewer than three points or half a point")


def outline_of_labelme(shape: Any, source: Path) -> list[Shape]:
    """The shapes of one of LabelMe's: polygon, rectangle or circle."""
    try:
        kind, points = shape.get("shape_type", "polygon"), [_numbers(point) for point in shape["points"]]
        if kind == "polygon" and len(points) >= 3 and all(len(point) == 2 for point in points):
            return [("polygon", tuple(value for point in points for value in point))]
        (x, y), (right, bottom) = points
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{source} holds a shape that is no outline ({error!r})") from None
    if kind == "rectangle":
        return [("polygon", (x, y, right, y, right, bottom, x, bottom))]
    if kind == "circle":
        return [("circle", (x, y, math.hypot(right - x, bottom - y)))]
    raise DatasetError(f"{source} holds a shape of type {kind!r}; expected polygon, rectangle or circle")


def _numbers(values: Any) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not all(math.isfinite(value) and abs(value) < 2**24 for value in found):
        raise ValueError("coordinates that are no places")
    return found


def _runs(text: str) -> list[int]:
    """COCO's compressed runs: numbers of 5 bits a character, the lowest first, each less the one before last."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place == len(text) or shift > 30:
                raise ValueError("runs that are cut short or too long")
            code = ord(text[place]) - 48
            value |= (code & 31) << shift
            shift, place, more = shift + 5, place + 1, bool(code & 32)
            if not more and code & 16:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _of_polygon(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels whose centres an odd number of sides has on its left."""
    crossed = np.zeros((height, width + 1), np.bool_)
    for (x, y), (right, below) in zip(points, np.roll(points, -1, 0), strict=True):
        if y == below:
            continue
        first, last = (min(max(math.ceil(end - 0.5), 0), height) for end in sorted((y, below)))
        rows = np.arange(first, last)
        at = x + (rows + 0.5 - y) * (right - x) / (below - y)
        crossed[rows, np.clip(np.ceil(at - 0.5), 0, width).astype(np.intp)] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :width]


def _of_runs(runs: tuple[int, ...], height: int, width: int, source: Path) -> NDArray[np.bool_]:
    if min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise DatasetError(f"{source} holds runs of {sum(runs)} pixels in all for {width}x{height}")
    lengths = np.array(runs, np.int64)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T
