"""Size and contrast of a known defect, measured with its mask; of several in one picture the largest counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["LEAST_CONTRAST", "largest_area", "largest_contrast"]

LEAST_CONTRAST = 0.01  # a defect may be as bright as its surroundings, and 0 has no logarithm
LEAST_DEVIATION = 1 / 255
LEAST_MARGIN = 4  # pixels


def largest_area(truth: NDArray[np.bool_]) -> int:
    """Pixels of the largest region of a mask (H, W) that marks something; regions connect over edges and corners."""
    return int(_largest(truth).sum())


def largest_contrast(picture: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """How far the largest region's mean lies from that of the surface around it, in the latter's standard deviations.

    The surface around it reaches as far as the region's equivalent radius. A region that differs in its texture alone
    has a small contrast.

    Parameters
    ----------
    picture : (H, W) or (H, W, C) in [0, 1]; the channel that shows it best counts
    truth : (H, W), which marks something

    Returns
    -------
    LEAST_CONTRAST or more; LEAST_CONTRAST where nothing unmarked lies around
    """
    region = _largest(truth)
    margin = max(LEAST_MARGIN, round(np.sqrt(region.sum() / np.pi)))
    rows, columns = (
        slice(max(0, where.min() - margin), where.max() + margin + 1) for where in np.nonzero(region)
    )
    region, marked, seen = region[rows, columns], truth[rows, columns], picture[rows, columns]
    around = (ndimage.distance_transform_edt(~region) <= margin) & ~marked
    if not around.any():
        return LEAST_CONTRAST
    inside, outside = (seen[part].astype(np.float64).reshape(part.sum(), -1) for part in (region, around))
    differences = np.abs(inside.mean(0) - outside.mean(0)) / np.maximum(outside.std(0), LEAST_DEVIATION)
    return max(float(differences.max()), LEAST_CONTRAST)


def _largest(truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(truth, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == sizes.argmax()
    return largest
