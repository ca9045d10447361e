"""What of a picture is suspect: the rectangle around the windows that keep it from leaving early.

A window is suspect if its p-value is no better than that with which a picture may leave early. What is suspect is taken
together in one rectangle of whole cells of the network's, a cell more on each side, which its windows reach over.
"""

from __future__ import annotations

import numpy as np

from fmrnet.inspection.inspector import Inspector, Result

__all__ = ["Box", "rectangle", "suspect", "windows"]

Box = tuple[slice, slice]  # rows and columns of a picture


def suspect(inspector: Inspector, shape: tuple[int, ...], first: Result) -> Box:
    """The rectangle around what is suspect in what is inspected of a picture, filled up; all of it if no window is.

    Its sides are multiples of `Config.multiple` and no less than a patch.

    Parameters
    ----------
    inspector : Inspector
    shape : tuple of int
        Of what is inspected, (H, W, ...), before it is filled up.
    first : Result
        At patch level.
    """
    config = inspector.config
    cell = config.multiple
    sides = [side + -side % cell for side in shape[:2]]
    found = windows(inspector, shape, first)
    if not found:
        return slice(0, sides[0]), slice(0, sides[1])
    ends = []
    for axis, side in enumerate(sides):
        start = max(min(one[axis].start for one in found) - cell, 0) // cell * cell
        stop = min(-(-(max(one[axis].stop for one in found) + cell) // cell) * cell, side)
        ends.append(slice(min(start, side - config.patch_size), stop))
    return ends[0], ends[1]


def windows(inspector: Inspector, shape: tuple[int, ...], first: Result) -> list[Box]:
    """The suspect windows, each a patch large, in what is inspected of a picture, filled up; as `suspect`."""
    config, calibration = inspector.config, inspector.calibration
    level = max(calibration.early_exit.level(calibration.false_alarms), calibration.false_alarms)
    step = config.patch_size // 2 if config.general else config.stride
    return [
        (slice(row, row + config.patch_size), slice(column, column + config.patch_size))
        for row, column in (
            step * np.argwhere(first.patch_p_values <= (level if level < 1 else 0.5))
        ).tolist()
    ]


def rectangle(inspector: Inspector, shape: tuple[int, ...], first: Result) -> tuple[int, int, int, int]:
    """x, y, width and height of the same in the picture itself, no less than a patch; all of a region of interest.

    Raises nothing of a picture that has been inspected.
    """
    if (region := inspector.region) is not None:
        return region.x, region.y, region.width, region.height
    ends = []
    for side, length in zip(suspect(inspector, shape, first), shape, strict=False):
        start, stop = min(side.start, length - inspector.config.patch_size), min(side.stop, length)
        ends.append((start, stop - start))
    (y, height), (x, width) = ends
    return x, y, width, height
