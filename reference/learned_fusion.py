"""The learned alternative to the product of Eq 23 (not in the paper): its oracle, in plain NumPy.

I, R      picture and its restored background (H, W, C) in [0, 1]
s         standard deviation of the texture per channel (C,)
A_m1 ...  modality maps of Eq 19, 21 and 22
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from ._checks import Array, numbers, picture, same_shape
from .fusion import modality_maps

BLUR_SIGMA = 3.0  # pixels
BLUR_RADIUS = 9
DILATIONS = (1, 1, 2, 2, 4, 4, 1)
SLOPE = 0.2  # of every leaky ReLU


def fusion_inputs(image: npt.ArrayLike, background: npt.ArrayLike, std: npt.ArrayLike) -> Array:
    """What the fusion network sees: detail, signed residual, blurred residual, and the three modality maps.

    Parameters
    ----------
    image, background : (H, W, C) in [0, 1]
        I and R.
    std : (C,), positive
        s.

    Returns
    -------
    (3 C + 3, H, W)
        (I - blur(R)) / s, (I - R) / s, blur((I - R) / s), then 1 - GMS, 1 - SSIM and residual / mean(s).

    Raises
    ------
    ValueError
        Pictures of different shape, or std not (C,).
    """
    I, R = picture("image", image), picture("background", background)
    same_shape("image", I, "background", R)
    s = numbers("std", std, "(C,)")
    if s.shape != I.shape[2:] or s.min() <= 0:
        raise ValueError(f"std {s}; expected {I.shape[2]} positive numbers, one for each channel")
    maps = modality_maps(I, R)
    residual = (I - R) / s
    detail = (I - _blurred(R)) / s
    channels = np.concatenate([detail, residual, _blurred(residual)], axis=2).transpose(2, 0, 1)
    return np.concatenate([channels, [maps["gms"], maps["ssim"], maps["residual"] / s.mean()]])


def learned_map(
    image: npt.ArrayLike, background: npt.ArrayLike, std: npt.ArrayLike, weights: Mapping[str, npt.ArrayLike]
) -> Array:
    """Probability of each pixel being defective: seven 3 x 3 convolutions over `fusion_inputs`, a sigmoid.

    Parameters
    ----------
    image, background : (H, W, C) in [0, 1]
    std : (C,)
    weights : mapping of str to array
        fusion.layers.{0..6}.weight (out, in, 3, 3) and .bias (out,), the names of the model's state.

    Returns
    -------
    (H, W) in [0, 1]

    Raises
    ------
    ValueError
        As `fusion_inputs`, or a weight that is missing.
    """
    x = fusion_inputs(image, background, std)
    for i, dilation in enumerate(DILATIONS):
        names = (f"fusion.layers.{i}.weight", f"fusion.layers.{i}.bias")
        if missing := [name for name in names if name not in weights]:
            raise ValueError(f"weights have no {missing[0]!r}; expected a model with a learned fusion")
        W, b = (np.asarray(weights[name], dtype=np.float64) for name in names)
        x = dilated_conv(x, W, dilation) + b[:, None, None]
        if i < len(DILATIONS) - 1:
            x = np.where(x > 0, x, SLOPE * x)
    return np.asarray(1 / (1 + np.exp(-x[0])))


def dilated_conv(x: npt.ArrayLike, weight: npt.ArrayLike, dilation: int) -> Array:
    """3 x 3 convolution whose taps lie `dilation` pixels apart, edge pixels repeated, the size is kept.

    Parameters
    ----------
    x : (in, H, W)
    weight : (out, in, 3, 3)
    dilation : int, positive

    Returns
    -------
    (out, H, W)
    """
    x, W = numbers("x", x, "(in, H, W)"), numbers("weight", weight, "(out, in, 3, 3)")
    if W.shape[1:] != (len(x), 3, 3):
        raise ValueError(f"x {x.shape} and weight {W.shape}; expected (in, H, W) and (out, in, 3, 3)")
    _, height, width = x.shape
    d = dilation
    padded = np.pad(x, ((0, 0), (d, d), (d, d)), mode="edge")
    y = np.zeros((len(W), height, width))
    for m in range(3):
        for n in range(3):
            window = padded[:, m * d : m * d + height, n * d : n * d + width]
            y += np.tensordot(W[:, :, m, n], window, axes=1)
    return y


def focal_loss(p: npt.ArrayLike, support: npt.ArrayLike, gamma: float = 2.0) -> float:
    """Mean of -(1 - q)^gamma log q, where q is the probability given to what a pixel is.

    Parameters
    ----------
    p : array in (0, 1)
        Probability of each pixel being defective.
    support : array of the same shape in [0, 1]
        S of the synthetic defect; above 0.5 is defective.
    gamma : float
        How little the pixels count that are right already.

    Returns
    -------
    float
    """
    p, defective = np.asarray(p, dtype=np.float64), np.asarray(support) > 0.5
    q = np.where(defective, p, 1 - p)
    return float(np.mean(-((1 - q) ** gamma) * np.log(q)))


def _blurred(x: Array) -> Array:
    return np.asarray(
        gaussian_filter(x, (BLUR_SIGMA, BLUR_SIGMA, 0), mode="reflect", radius=(BLUR_RADIUS, BLUR_RADIUS, 0))
    )
