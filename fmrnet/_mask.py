"""Which pixels a ground-truth mask marks, by the rule that `fmrnet.pictures.read_mask` states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet._pixels import Pixels
from fmrnet.errors import PictureError

__all__ = ["marked"]

_LABELS = 16  # more different values come of resampling or compression, or are many labels
_BLOCK = 16  # pixels, within which JPEG spreads the traces of an edge (8, or 16 in colour)


def marked(pixels: Pixels, remarks: list[str] | None = None) -> NDArray[np.bool_]:
    """Where a mask marks a defect; see `read_mask`."""
    values = pixels.values if pixels.values.ndim == 2 else pixels.values.max(axis=2)
    if not values.min() >= 0:  # nor is NaN
        raise PictureError("holds NaN or negative values; expected a mask, above 0 where there is a defect")
    white = 1 if values.dtype.kind == "f" else pixels.white
    if pixels.negative:
        values = white - values
    defect: NDArray[np.bool_] = large.by_bands(lambda rows: rows > 0, values)
    if pixels.alpha is not None:
        shown = pixels.alpha > 0
        defect &= shown
        if shown.any() and not shown.all() and not defect.any():
            raise PictureError(
                "draws in black on clear ground: whether the defect is drawn cannot be told; "
                "save it in black and white"
            )
    bright = large.by_bands(lambda rows, of: rows & (of > white / 2), defect, values)
    faint = large.by_bands(lambda rows, of: rows & ~of, defect, bright)
    if not faint.any():
        return defect
    traces = not (faint & ~_blocks_around(bright)).any()
    many = len(np.unique(values[defect])) > _LABELS
    if not traces and not pixels.lossy and many and bright.any() and _scattered(values, faint):
        if remarks is not None:
            remarks.append("are soft, of many values: what is above one half counts as defective")
        return bright
    if pixels.lossy and not traces:
        raise PictureError(
            f"holds faint values (up to {values[faint].max()} of {white}) that may be labels or traces of its "
            "compression; save the mask as PNG"
        )
    if traces and (pixels.lossy or _scattered(values, faint) or many):
        return bright
    return defect


def _blocks_around(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The blocks of JPEG that hold a marked pixel, and those beside them."""
    from scipy.ndimage import binary_dilation

    height, width = marked.shape
    padded = np.pad(marked, ((0, -height % _BLOCK), (0, -width % _BLOCK)))
    blocks = padded.reshape(padded.shape[0] // _BLOCK, _BLOCK, padded.shape[1] // _BLOCK, _BLOCK).any((1, 3))
    around: NDArray[np.bool_] = binary_dilation(np.asarray(blocks), np.ones((3, 3), np.bool_))
    return around.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[:height, :width]


def _scattered(values: NDArray[Any], faint: NDArray[np.bool_]) -> bool:
    """Whether most faint values have less than two equals beside them, as in noise and not in what was drawn."""
    equals = np.zeros(values.shape, np.uint8)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        same = values[first] == values[second]
        equals[first] += same
        equals[second] += same
    return bool(np.mean(equals[faint] < 2) > 0.5)
