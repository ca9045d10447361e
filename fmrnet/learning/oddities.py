"""Pictures that do not look like a surface: a mask beside the good pictures, a shot with the lens cap on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import DatasetError

__all__ = ["check_oddities", "oddity"]

EXTREME = 0.05  # how far from black or white a pixel of a smoothed or compressed mask is at most
FEW_VALUES = 8  # that a mask with several labels has at most
NAMED = 5  # pictures in a message


def oddity(picture: NDArray[np.float32]) -> str | None:
    """What keeps a picture, (H, W) or (H, W, C) in [0, 1], from being one of a surface, in words; None for most.

    That is one value only; two values only, as a mask has; or black in most places and in the others nearly black or
    nearly white, but for a twentieth of the pixels, or of few values: a mask that was smoothed, compressed or labelled.
    """
    low, high = picture.min((0, 1)), picture.max((0, 1))
    if np.all(low == high):
        return "one value only"
    if np.all((picture == low) | (picture == high)):
        return "two values only, as a mask has"
    grey = picture if picture.ndim == 2 else picture.max(2)
    if np.mean(grey == 0) > 0.5:
        extreme = (grey < EXTREME) | (grey > 1 - EXTREME)
        if extreme.mean() > 0.95 or len(np.unique(grey)) <= FEW_VALUES:
            return "mostly black, as a mask is"
    return None


def check_oddities(folder: Path, files: Sequence[Path], pictures: Sequence[NDArray[np.float32]]) -> None:
    """Raise DatasetError if some of a folder's pictures do not look like a surface."""
    found = ((file.name, oddity(picture)) for file, picture in zip(files, pictures, strict=True))
    odd = [f"{name} ({reason})" for name, reason in found if reason]
    if odd:
        more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
        raise DatasetError(
            f"{folder}: {len(odd)} of {len(files)} good pictures do not look like a surface: "
            f"{', '.join(odd[:NAMED])}{more}; take them out, or learn from them, too, with --keep-odd"
        )
