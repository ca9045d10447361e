"""The two blurs of the learned fusion: a narrow one, and a broad one through the means of cells.

Borders are mirrored with the edge pixel repeated, d c b a | a b c d | d c b a.
"""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, zoom

from ._checks import Array, numbers

BLUR_SIGMA = 3.0  # pixels
BLUR_RADIUS = 9
CELL = 8  # pixels


def blurred(x: npt.ArrayLike) -> Array:
    """Gaussian blur of BLUR_SIGMA pixels, cut off at BLUR_RADIUS, borders mirrored with the edge pixel repeated.

    Parameters
    ----------
    x : (H, W, C)

    Returns
    -------
    (H, W, C)
    """
    given = numbers("x", x, "(H, W, C)")
    soft = gaussian_filter(given, BLUR_SIGMA, axes=(0, 1), mode="reflect", radius=BLUR_RADIUS)
    return np.asarray(soft)


def broadly_blurred(x: npt.ArrayLike, sigma: float, radius: int) -> Array:
    """What a Gaussian blur leaves of the means over cells of CELL x CELL pixels.

    The last cells are filled up with the edge; between the cells' centres the values lie on straight lines.

    Parameters
    ----------
    x : (H, W, C)
    sigma, radius : of the blur, in cells.

    Returns
    -------
    (H, W, C)
    """
    given = numbers("x", x, "(H, W, C)")
    height, width, channels = given.shape
    filled = np.pad(given, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge")
    rows, columns = filled.shape[0] // CELL, filled.shape[1] // CELL
    cells = filled.reshape(rows, CELL, columns, CELL, channels).mean((1, 3))
    blurred = gaussian_filter(cells, sigma, axes=(0, 1), mode="reflect", radius=radius)
    drawn: Array = zoom(blurred, (CELL, CELL, 1), order=1, mode="nearest", grid_mode=True)
    return drawn[:height, :width]
