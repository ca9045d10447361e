"""A picture too large to be shown as it is, and what was found in it, made smaller for overlay and page."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet.inspection.defects import Defect

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Result

__all__ = ["Shown", "reduction", "shown"]

PIXELS = 2**22  # of a large picture as it is shown, at most: drawing takes some 40 bytes for each


@dataclass(frozen=True)
class Shown:
    """What is shown of a picture.

    Attributes
    ----------
    picture : (H, W) or (H, W, C) in [0, 1]
    result : Result
        Map and background of the same size.
    mask : (H, W) bool
        What is defective.
    outlined : (H, W) bool
        The same, and what would be at another rate of false alarms.
    surest : Defect, or None
        The most surprising one.
    """

    picture: NDArray[np.float32]
    result: Result
    mask: NDArray[np.bool_]
    outlined: NDArray[np.bool_]
    surest: Defect | None


def reduction(mask: NDArray[np.bool_]) -> int:
    """How many pixels of a picture with such a mask, across and as many down, are one where it is shown."""
    return math.ceil(math.sqrt(mask.size / PIXELS)) if large.is_large(mask) else 1


def shown(
    picture: NDArray[np.float32],
    result: Result,
    mask: NDArray[np.bool_],
    outlined: NDArray[np.bool_],
    surest: Defect | None,
) -> Shown:
    """A picture as it is shown: pictures by means of squares of pixels, map and masks by what is greatest in them."""
    times = reduction(mask)
    if times == 1:
        return Shown(picture, result, mask, outlined, surest)
    mapped, background = result.anomaly_map, result.background
    smaller = dataclasses.replace(
        result,
        anomaly_map=None if mapped is None else _reduced(mapped, times, np.maximum),
        background=None if background is None else _means(background, times),
    )
    mask, outlined = (_reduced(one, times, np.logical_or) for one in (mask, outlined))
    if surest is not None:
        place = {name: getattr(surest, name) // times for name in ("row", "column", "height", "width")}
        surest = dataclasses.replace(surest, **place)
    return Shown(_means(picture, times), smaller, mask, outlined, surest)


def _reduced(values: NDArray[Any], times: int, way: np.ufunc) -> NDArray[Any]:
    """Each square of `times` x `times` values (H, W, ...) in one; of those at the border, what there is."""
    across = np.arange(0, values.shape[1], times)
    bands = (values[rows] for rows in large.bands(values, times))
    return np.concatenate(
        [way.reduceat(way.reduceat(band, np.arange(0, len(band), times), 0), across, 1) for band in bands]
    )


def _means(picture: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    sides = (np.minimum(times, side - np.arange(0, side, times)) for side in picture.shape[:2])
    counts = np.outer(*sides).reshape(
        *(-(-side // times) for side in picture.shape[:2]), *[1] * (picture.ndim - 2)
    )
    means: NDArray[np.float32] = (_reduced(picture, times, np.add) / counts).astype(np.float32)
    return np.minimum(means, np.float32(1))
