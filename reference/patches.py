"""Fill a picture up, slice it into patches with a sliding window (section IV.B), and stitch patches back.

I  picture (H, W, C)      N     number of patches
P  patches (N, size, size, C)   origins  (N, 2), row and column of each patch's first pixel
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._checks import Array, Indices, numbers


def filled(image: npt.ArrayLike, multiple: int = 32) -> Array:
    """Mirror a picture at its lower and right border until `multiple` divides its sides.

    The last row and the last column are the mirror: they are not repeated.

    Parameters
    ----------
    image : (H, W, C)
        Any values; a side is longer than what it lacks.
    multiple : int, positive
        In pixels.

    Returns
    -------
    (H', W', C)

    Raises
    ------
    ValueError
        A side is too short to be mirrored so far.
    """
    I = numbers("image", image, "(H, W, C)")
    missing = [-side % multiple for side in I.shape[:2]]
    if any(lack >= side for lack, side in zip(missing, I.shape)):
        raise ValueError(f"image has shape {I.shape}; expected sides that can be mirrored up to {multiple}")
    return np.pad(I, [(0, lack) for lack in missing] + [(0, 0)], mode="reflect")


def slice_patches(image: npt.ArrayLike, size: int = 64, stride: int = 64) -> tuple[Array, Indices]:
    """Cut a picture into square patches, row by row.

    Along each axis patches begin at 0, stride, 2*stride, ... and, where these do not end at the border, one
    more lies flush with it, so that every pixel is in some patch.

    Parameters
    ----------
    image : (H, W, C)
        Any values; H and W at least `size`.
    size : int
        Side of a patch in pixels.
    stride : int
        Step between patches in pixels, 1 to `size`; below `size` patches overlap.

    Returns
    -------
    patches : (N, size, size, C)
    origins : (N, 2) int
        Row and column of each patch's upper left pixel.

    Raises
    ------
    ValueError
        The picture is smaller than a patch, or the stride would leave gaps.
    """
    I = numbers("image", image, "(H, W, C)")
    H, W, _ = I.shape
    if size < 1 or not 1 <= stride <= size:
        raise ValueError(
            f"size {size} and stride {stride}; expected size >= 1 and stride 1 to size: more skips pixels"
        )
    if min(H, W) < size:
        raise ValueError(
            f"image is {H} x {W} pixels, smaller than a patch of {size} x {size}; "
            "give a larger picture or scale it up"
        )
    origins = [(r, c) for r in _starts(H, size, stride) for c in _starts(W, size, stride)]
    patches = np.stack([I[r : r + size, c : c + size] for r, c in origins])
    return patches, np.array(origins, dtype=np.int64)


def stitch_patches(patches: npt.ArrayLike, origins: npt.ArrayLike, shape: Sequence[int]) -> Array:
    """Lay patches back at their origins; where they overlap, take the weighted mean.

    A pixel (i, j) of a patch weighs w(i) w(j) with the triangle w(i) = min(i + 1, size - i), so that a patch
    fades towards its border and no seam shows. Stitching what `slice_patches` cut gives the picture back
    to the last bit.

    Parameters
    ----------
    patches : (N, size, size, C)
    origins : (N, 2) int
    shape : (H, W) or (H, W, C)
        Size of the picture; its channels are those of the patches.

    Returns
    -------
    (H, W, C)

    Raises
    ------
    ValueError
        Shapes do not fit, a patch lies outside the picture, or a pixel lies in no patch.
    """
    P = numbers("patches", patches, "(N, size, size, C)")
    at = np.asarray(origins, dtype=np.int64)
    N, size, width, C = P.shape
    H, W = shape[:2]
    if width != size:
        raise ValueError(f"patches have shape {P.shape}; expected square ones, (N, size, size, C)")
    if at.shape != (N, 2):
        raise ValueError(f"origins has shape {at.shape}; expected ({N}, 2), row and column of each patch")
    if at.min() < 0 or at[:, 0].max() > H - size or at[:, 1].max() > W - size:
        raise ValueError(f"a patch of {size} x {size} lies outside the picture of {H} x {W} pixels")

    i = np.arange(size)
    triangle = np.minimum(i + 1, size - i).astype(np.float64)
    weight = np.outer(triangle, triangle)[:, :, None]  # (size, size, 1)

    mean, total = np.zeros((H, W, C)), np.zeros((H, W, 1))
    for patch, (r, c) in zip(P, at):
        here = np.s_[r : r + size, c : c + size]
        total[here] += weight
        mean[here] += (patch - mean[here]) * (weight / total[here])  # running mean: equal values stay exact
    if (total == 0).any():
        raise ValueError(
            f"{int((total == 0).sum())} of {H * W} pixels lie in no patch; give the origins of slice_patches"
        )
    return mean


def _starts(length: int, size: int, stride: int) -> list[int]:
    starts = list(range(0, length - size + 1, stride))
    return starts if starts[-1] == length - size else [*starts, length - size]
