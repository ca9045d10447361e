"""The multimodal anomaly map, Eq 17 to 23 (section III.F).

I, I_rec  candidate picture and its reconstruction (H, W, C) in [0, 1]
p_x, p_y  Prewitt filters             g     gradient magnitude
mu        local Gaussian mean         sigma local standard deviation; sigma_xy covariance
A_m1      1 - GMS, in [0, 1]          A_m2  1 - SSIM, in [0, 2]
A_m3      residual, in [0, 1]         A     their product
Borders are mirrored with the edge pixel repeated, d c b a | a b c d | d c b a, in every filter.
"""

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers, picture, same_shape

MODALITIES = ("gms", "ssim", "residual")
C0 = 0.0026  # GMSD's 170 on a range of 255: 170 / 255^2


def gms(image: npt.ArrayLike, reconstruction: npt.ArrayLike, *, c0: float = C0) -> Array:
    """Gradient magnitude similarity, Eq 17 and 18, per channel, then the mean over channels.

    Parameters
    ----------
    image, reconstruction : (H, W, C) in [0, 1]
    c0 : float
        C_0, keeps flat regions stable.

    Returns
    -------
    (H, W) in (0, 1], 1 where the gradients have one magnitude

    Raises
    ------
    ValueError
        Shapes differ, values leave [0, 1] or are NaN.
    """
    I, I_rec = _pair(image, reconstruction)
    _positive(c0=c0)
    g, g_rec = _gradient_magnitude(I), _gradient_magnitude(I_rec)  # (H, W, C)                Eq 18
    similarity = (2 * g * g_rec + c0) / (g**2 + g_rec**2 + c0)  # (H, W, C)                    Eq 17
    return np.asarray(similarity.mean(axis=2))


def ssim(
    image: npt.ArrayLike,
    reconstruction: npt.ArrayLike,
    *,
    sigma: float = 1.5,
    window: int = 11,
    c1: float = 0.01**2,
    c2: float = 0.03**2,
) -> Array:
    """Structural similarity, Eq 20 with the covariance, per channel, then the mean over channels.

    Parameters
    ----------
    image, reconstruction : (H, W, C) in [0, 1]
    sigma : float
        Standard deviation of the Gaussian weights in pixels.
    window : int
        Side of the Gaussian window in pixels, odd.
    c1, c2 : float
        C_1 and C_2 for a data range of 1.

    Returns
    -------
    (H, W) in [-1, 1], 1 where the pictures are the same

    Raises
    ------
    ValueError
        Shapes differ, values leave [0, 1] or are NaN, an even window.

    Notes
    -----
    Equal to `skimage.metrics.structural_similarity(image, reconstruction, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1, full=True, channel_axis=-1)[1].mean(-1)`.
    """
    I, I_rec = _pair(image, reconstruction)
    _odd("window", window)
    _positive(sigma=sigma, c1=c1, c2=c2)
    k = np.arange(window) - window // 2
    with np.errstate(over="ignore"):  # a narrow enough Gaussian is a lone pixel
        weight = np.exp(-0.5 * (k / sigma) ** 2)
    weight /= weight.sum()  # (window,)

    mu, mu_rec = _filter(I, weight, weight), _filter(I_rec, weight, weight)  # (H, W, C)
    variance = np.maximum(_filter(I * I, weight, weight) - mu**2, 0)
    variance_rec = np.maximum(_filter(I_rec * I_rec, weight, weight) - mu_rec**2, 0)
    covariance = _filter(I * I_rec, weight, weight) - mu * mu_rec

    numerator = (2 * mu * mu_rec + c1) * (2 * covariance + c2)
    denominator = (mu**2 + mu_rec**2 + c1) * (variance + variance_rec + c2)
    return np.asarray((numerator / denominator).mean(axis=2))  # Eq 20


def residual(image: npt.ArrayLike, reconstruction: npt.ArrayLike) -> Array:
    """Per-pixel residual, Eq 22: the root mean square of the difference over channels.

    Parameters
    ----------
    image, reconstruction : (H, W, C) in [0, 1]

    Returns
    -------
    (H, W) in [0, 1]
    """
    I, I_rec = _pair(image, reconstruction)
    return np.asarray(np.sqrt(((I - I_rec) ** 2).mean(axis=2)))


def modality_maps(
    image: npt.ArrayLike,
    reconstruction: npt.ArrayLike,
    *,
    modalities: Sequence[str] = MODALITIES,
    median: int = 0,
) -> dict[str, Array]:
    """Anomaly map of each modality, Eq 19, 21, 22, each median filtered if asked.

    Parameters
    ----------
    image, reconstruction : (H, W, C) in [0, 1]
    modalities : of "gms", "ssim", "residual"
    median : int
        Side of the median window in pixels, odd; 0 for none.

    Returns
    -------
    dict of (H, W)
        By modality: A_m1 = 1 - GMS, A_m2 = 1 - SSIM, A_m3 = residual.

    Raises
    ------
    ValueError
        Unknown, repeated or no modality, an even median window, and as for `gms`.
    """
    if not modalities or len(set(modalities)) < len(modalities) or not set(modalities) <= set(MODALITIES):
        raise ValueError(f"modalities are {modalities!r}; expected one or more of {MODALITIES}, each once")
    if median:
        _odd("median", median)
    maps = {}
    for name in modalities:
        if name == "gms":
            A = 1 - gms(image, reconstruction)  # Eq 19
        elif name == "ssim":
            A = 1 - ssim(image, reconstruction)  # Eq 21
        else:
            A = residual(image, reconstruction)  # Eq 22
        maps[name] = median_filter(A, median) if median else A
    return maps


@overload
def anomaly_map(
    image: npt.ArrayLike,
    reconstruction: npt.ArrayLike,
    *,
    modalities: Sequence[str] = ...,
    median: int = ...,
    return_modalities: Literal[False] = ...,
) -> Array: ...
@overload
def anomaly_map(
    image: npt.ArrayLike,
    reconstruction: npt.ArrayLike,
    *,
    modalities: Sequence[str] = ...,
    median: int = ...,
    return_modalities: Literal[True],
) -> tuple[Array, dict[str, Array]]: ...


def anomaly_map(
    image: npt.ArrayLike,
    reconstruction: npt.ArrayLike,
    *,
    modalities: Sequence[str] = MODALITIES,
    median: int = 0,
    return_modalities: bool = False,
) -> Array | tuple[Array, dict[str, Array]]:
    """A = A_m1 * A_m2 * A_m3, Eq 23: the product of the modality maps.

    Parameters
    ----------
    image, reconstruction : (H, W, C) in [0, 1]
    modalities, median
        As for `modality_maps`.
    return_modalities : bool
        Return the modality maps as well.

    Returns
    -------
    A : (H, W)
        0 where the pictures are the same; not negative but for rounding.
    maps : dict of (H, W)
        Only with `return_modalities`.
    """
    maps = modality_maps(image, reconstruction, modalities=modalities, median=median)
    A = np.prod(list(maps.values()), axis=0)
    return (A, maps) if return_modalities else A


def median_filter(values: npt.ArrayLike, window: int) -> Array:
    """Median of the window about each pixel.

    Parameters
    ----------
    values : (H, W)
    window : int
        Side in pixels, odd.

    Returns
    -------
    (H, W)
    """
    A = numbers("values", values, "(H, W)")
    _odd("window", window)
    padded = np.pad(A, window // 2, mode="symmetric")
    result = np.empty_like(A)
    for y in range(A.shape[0]):
        rows = padded[y : y + window]  # (window, W + window - 1)
        windows = np.lib.stride_tricks.sliding_window_view(rows, window, axis=1)  # (window, W, window)
        result[y] = np.median(windows, axis=(0, 2))
    return result


def _gradient_magnitude(X: Array) -> Array:
    """g(X) of Eq 18, (H, W, C), with 3 x 3 Prewitt filters divided by 3 as in GMSD."""
    step, flat = np.array([-1.0, 0.0, 1.0]), np.full(3, 1 / 3)
    p_x, p_y = _filter(X, flat, step), _filter(X, step, flat)
    return np.asarray(np.sqrt(p_x**2 + p_y**2))


def _filter(X: Array, down: Array, across: Array) -> Array:
    """Correlate (H, W, C) with the separable filter `down` (rows) times `across` (columns)."""
    H, W, _ = X.shape
    half = len(down) // 2
    padded = np.pad(X, ((half, half), (half, half), (0, 0)), mode="symmetric")
    rows = sum((weight * padded[m : m + H] for m, weight in enumerate(down)), np.zeros(1))
    return sum((weight * rows[:, n : n + W] for n, weight in enumerate(across)), np.zeros(1))


def _pair(image: npt.ArrayLike, reconstruction: npt.ArrayLike) -> tuple[Array, Array]:
    I, I_rec = picture("image", image), picture("reconstruction", reconstruction)
    same_shape("reconstruction", I_rec, "image", I)
    return I, I_rec


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < np.inf:
            raise ValueError(f"{name} is {number!r}; expected a number above 0")


def _odd(name: str, window: int) -> None:
    if window < 1 or window % 2 == 0:
        raise ValueError(
            f"{name} is {window}; expected an odd number of pixels, such as {max(window, 0) | 1}"
        )
