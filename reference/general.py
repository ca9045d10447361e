"""Witnesses on the general features, which know good pictures, and the sum of their surprises (not in the paper).

fine      distance of the features of strides 4 and 8 from those of good pictures
coarse    the same of all features, of the picture at half its size
head      logit of a small network on all features; a model may have none
beyond    what a witness says beyond what is usual at a place (`usual`)
p         share of good values that are as great as a value; its surprise is -log10 p

The first two are Mahalanobis' distance (1936), with one Gaussian for every place of a picture. That logarithms of
shares may be added is Fisher's method (Statistical Methods for Research Workers, 1932).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve

from . import backbone, usual
from ._checks import Array, numbers, picture
from .fusion_network import conv
from .network import batch_norm, leaky_relu

GRIDS = (4, 16, 8)  # pixels of a side of a cell of each witness's map
GAUSSIANS = 2  # the first witnesses, whose distances are divided by what is usual
LEAST = 1e-6  # of a distance, whose logarithm is taken
LEVELS = 1024  # of a witness's good values, evenly spaced in rank
TAIL = 0.99  # share of good values that are no greater than the last level
FEWEST = 10  # values beyond the last level whose mean is taken
LEAST_RATE = 1e-6

Weights = Mapping[str, npt.ArrayLike]
Gaussian = tuple[npt.ArrayLike, npt.ArrayLike]  # mean and covariance


def features(image: npt.ArrayLike, weights: Weights) -> list[Array]:
    """What fine witness, coarse witness and head see.

    Parameters
    ----------
    image : (H, W, C) in [0, 1]
        C is 1 or 3; the sides are multiples of 32, see `patches.filled`.
    weights : mapping of str to array
        backbone. before each name of `backbone.maps`.

    Returns
    -------
    [(F1 + F2, H / 4, W / 4), (F, H / 16, W / 16), (F, H / 8, W / 8)]

    Raises
    ------
    ValueError
        As `backbone.maps`.
    """
    own = {
        name.removeprefix("backbone."): value
        for name, value in weights.items()
        if name.startswith("backbone.")
    }
    I = picture("image", image)
    maps = backbone.maps(I, own)
    half = backbone.halved(I.transpose(2, 0, 1)).transpose(1, 2, 0)
    return [backbone.fine(maps), backbone.whole(backbone.maps(half, own)), backbone.whole(maps)]


def gaussian(rows: npt.ArrayLike, shrinkage: float = 0.01) -> tuple[Array, Array]:
    """Mean and covariance of good pictures' features.

    Parameters
    ----------
    rows : (N, F)
    shrinkage : float, 0 or more
        To each variance this share of their mean is added, and 1e-9.

    Returns
    -------
    mean : (F,)
    covariance : (F, F)
        Positive definite.
    """
    X = numbers("rows", rows, "(N, F)")
    mean = X.mean(0)
    covariance = np.einsum("ni, nj -> ij", X - mean, X - mean) / max(len(X) - 1, 1)
    floor = shrinkage * np.trace(covariance) / len(mean) + 1e-9
    return np.asarray(mean), np.asarray(covariance + floor * np.eye(len(mean)))


def distance(features: npt.ArrayLike, mean: npt.ArrayLike, covariance: npt.ArrayLike) -> Array:
    """Mahalanobis' distance sqrt((x - mean)^T covariance^-1 (x - mean)) of the features x of each cell.

    Parameters
    ----------
    features : (F, h, w)
    mean : (F,)
    covariance : (F, F), positive definite

    Returns
    -------
    (h, w), 0 or more
    """
    x = numbers("features", features, "(F, h, w)")
    mu, S = numbers("mean", mean, "(F,)"), numbers("covariance", covariance, "(F, F)")
    if mu.shape != x.shape[:1] or S.shape != (len(x), len(x)):
        raise ValueError(f"features {x.shape}, mean {mu.shape} and covariance {S.shape}; expected one F")
    d = x.reshape(len(x), -1) - mu[:, None]
    square = (d * solve(S, d, assume_a="pos")).sum(0)
    return np.asarray(np.sqrt(np.maximum(square, 0)).reshape(x.shape[1:]))


def head(features: npt.ArrayLike, weights: Weights) -> Array:
    """Logit of each cell being defective: batch norm, a 1 x 1 and a 3 x 3 convolution, and a weighted sum.

    Parameters
    ----------
    features : (F, h, w)
    weights : mapping of str to array
        head.scale.{weight, bias, running_mean, running_var} (F,); head.narrow.{weight (64, F, 1, 1), bias (64,)};
        head.around.{weight (64, 64, 3, 3), bias (64,)}, its borders repeated; head.norm.* (64,) as head.scale.*;
        head.output.{weight (1, 64, 1, 1), bias (1,)}.

    Returns
    -------
    (h, w)

    Raises
    ------
    ValueError
        A weight is missing.
    """
    statistics = ("weight", "bias", "running_mean", "running_var")
    x = batch_norm(features, *(_weight(weights, f"head.scale.{part}") for part in statistics))
    x = leaky_relu(_weighted_sums(x, weights, "head.narrow"))
    x = conv(x, _weight(weights, "head.around.weight")) + _weight(weights, "head.around.bias")[:, None, None]
    x = leaky_relu(batch_norm(x, *(_weight(weights, f"head.norm.{part}") for part in statistics)))
    return np.asarray(_weighted_sums(x, weights, "head.output")[0])


def evidence(image: npt.ArrayLike, weights: Weights, fine: Gaussian, coarse: Gaussian) -> list[Array]:
    """What each witness says of a picture, in its own unit and on its own grid.

    Parameters
    ----------
    image : (H, W, C) in [0, 1]
    weights : mapping of str to array
        As `features`, and `head` unless there is none.
    fine, coarse : (mean, covariance)
        From `gaussian`, of F1 + F2 and of F features.

    Returns
    -------
    [(H / 4, W / 4), (H / 16, W / 16), (H / 8, W / 8)], the last one absent without a head

    Raises
    ------
    ValueError
        As `features`.
    """
    seen = features(image, weights)
    found = [distance(seen[0], *fine), distance(seen[1], *coarse)]
    return [*found, head(seen[2], weights)] if "head.output.weight" in weights else found


def levels(values: npt.ArrayLike) -> tuple[Array, float]:
    """What `surprise` needs to know of the values of one witness over good pictures.

    Parameters
    ----------
    values : (N,)

    Returns
    -------
    levels : (LEVELS,), rising
        The values at ranks evenly spaced from the least one to the TAIL of them, each rank rounded.
    rate : float
        By how much the values beyond the last level are greater, on average; of fewer than FEWEST, that of the
        exponential that falls from 1/2 at the median to 1 - TAIL at the last level. No less than LEAST_RATE.
    """
    ordered = np.sort(numbers("values", values, "(N,)"))
    ranks = np.linspace(0, TAIL * (len(ordered) - 1), LEVELS)
    chosen = ordered[np.round(ranks).astype(int)]
    beyond = ordered[ordered > chosen[-1]] - chosen[-1]
    if len(beyond) < FEWEST:
        beyond = (chosen[-1] - ordered[len(ordered) // 2]) / np.log(0.5 / (1 - TAIL))
    return chosen, max(float(np.mean(beyond)), LEAST_RATE)


def surprise(values: npt.ArrayLike, levels: npt.ArrayLike, rate: float) -> Array:
    """-log10 of the share of good values that are as great.

    That share lies on straight lines between the levels, 1 at the first and 1 - TAIL at the last; of equal levels the
    first counts. Beyond, it falls
    exponentially: to 1/e of that over each `rate`.

    Parameters
    ----------
    values : of any shape
    levels : (n,), rising
    rate : float, positive
        In the values' unit.

    Returns
    -------
    of that shape, 0 or more
    """
    x = np.asarray(values, dtype=np.float64)
    q = numbers("levels", levels, "(n,)")
    places = np.linspace(0, TAIL, len(q))
    first = np.searchsorted(q, x).clip(max=len(q) - 1)  # of levels that are equal to x, all are as great
    share = 1 - np.where(q[first] == x, places[first], np.interp(x, q, places))
    tail = (x - q[-1]) / rate / math.log(10) - math.log10(1 - TAIL)
    return np.asarray(np.where(x > q[-1], tail, -np.log10(share)))


def drawn(values: npt.ArrayLike, cell: int) -> Array:
    """A map of cells at each pixel (`backbone.larger`).

    Parameters
    ----------
    values : (h, w)
    cell : int, pixels of a side

    Returns
    -------
    (h * cell, w * cell)
    """
    each = numbers("values", values, "(h, w)")
    return np.asarray(backbone.larger(each[None], cell)[0])


def cells_of(pixels: npt.ArrayLike, cell: int) -> npt.NDArray[np.bool_]:
    """Which cells are marked in half of their pixels or more: those of a mask that count.

    Parameters
    ----------
    pixels : (h * cell, w * cell), 0 and 1
    cell : int, pixels of a side

    Returns
    -------
    (h, w) bool
    """
    marked = numbers("pixels", pixels, "(H, W)")
    found: npt.NDArray[np.bool_] = marked.reshape(len(marked) // cell, cell, -1, cell).mean((1, 3)) >= 0.5
    return found


def in_cells(evidence: npt.ArrayLike, witness: int) -> Array:
    """What a witness on general features says, as `usual.near` and `usual.place` take it.

    Parameters
    ----------
    evidence : (h, w), as `evidence` gives it
    witness : int, its number there

    Returns
    -------
    (H / 4, W / 4)
        Of a Gaussian the logarithms of the distances, each of LEAST or more.
    """
    values = numbers("evidence", evidence, "(h, w)")
    if witness < GAUSSIANS:
        values = np.log(np.maximum(values, LEAST))
    return usual.in_cells(values, GRIDS[witness])


def beyond(evidence: npt.ArrayLike, usually: npt.ArrayLike, witness: int) -> Array:
    """What a witness on general features says beyond what is usual at a place.

    Parameters
    ----------
    evidence : (h, w), as `evidence` gives it
    usually : (H / 4, W / 4), from `usual.usual`
    witness : int, its number in `evidence`

    Returns
    -------
    (h, w)
        Of a Gaussian how many times as far as usual the features lie, of the head by how much its logit is greater.
    """
    values, expected = numbers("evidence", evidence, "(h, w)"), numbers("usually", usually, "(h, w)")
    if witness < GAUSSIANS:
        return np.asarray(values / usual.drawn(np.exp(expected), GRIDS[witness]))
    return np.asarray(values - usual.drawn(expected, GRIDS[witness]))


def joined(
    evidence: Sequence[npt.ArrayLike],
    usually: Sequence[npt.ArrayLike],
    levels: Sequence[npt.ArrayLike],
    rates: Sequence[float],
) -> Array:
    """The sum of the witnesses' surprises at each pixel.

    Parameters
    ----------
    evidence : of each witness (h, w), as `evidence` gives it
    usually : of each (H / 4, W / 4), from `usual.usual`
    levels, rates : of each, from `levels` of what it says of good pictures beyond what is usual

    Returns
    -------
    (H, W), 0 or more
        Of independent witnesses it is Fisher's statistic -2 (ln p_1 + ln p_2 + ...) divided by 2 ln 10.
    """
    each = [
        drawn(surprise(beyond(values, expected, witness), good, rate), GRIDS[witness])
        for witness, (values, expected, good, rate) in enumerate(
            zip(evidence, usually, levels, rates, strict=True)
        )
    ]
    return np.asarray(np.sum(each, axis=0))


def _weighted_sums(x: Array, weights: Weights, name: str) -> Array:
    """A 1 x 1 convolution with its bias."""
    summed = np.tensordot(_weight(weights, f"{name}.weight")[:, :, 0, 0], x, axes=1)
    return np.asarray(summed + _weight(weights, f"{name}.bias")[:, None, None])


def _weight(weights: Weights, name: str) -> Array:
    if name not in weights:
        raise ValueError(f"weights have no {name!r}; expected the names that `head` lists")
    return np.asarray(weights[name], dtype=np.float64)
