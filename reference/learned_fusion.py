"""The learned alternative to the product of Eq 23 (not in the paper): its oracle, in plain NumPy.

I, R      picture and its restored background (H, W, C) in [0, 1]
m, s      mean and standard deviation of the texture per channel (C,)
A_m1 ...  modality maps of Eq 19, 21 and 22
The convolutions themselves are in `fusion_network`, what they are trained on in `fusion_labels`.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from ._checks import Array, numbers, two_pictures
from .blurs import blurred, broadly_blurred
from .fusion import modality_maps
from .fusion_network import fusion_logit

LIGHT_SIGMA = 4.0  # cells
LIGHT_RADIUS = 8  # cells
LIGHT_LEAST = 0.25  # deviations of the texture
NEIGHBOURHOOD_SIGMA = 2.0  # cells
NEIGHBOURHOOD_RADIUS = 4  # cells
NEIGHBOURHOOD_SHARE = 0.7
ANSWER_SHARE = 2 / 3
ALARM_SHARE = 0.8
AROUND_SHARE = 0.25
FLOOR = 1e-3  # of the residual's energy
HALF = 3.0  # standard deviations; where the map is 1/2


def without_light(image: npt.ArrayLike, background: npt.ArrayLike, std: npt.ArrayLike) -> Array:
    """The picture less the light that its background does not have.

    Light is what of the slow part of (I - R) / s (`broadly_blurred`) is beyond LIGHT_LEAST either way; the rest may
    be a faint broad defect, and stays.

    Parameters
    ----------
    image, background : (H, W, C) in [0, 1]
    std : (C,), positive

    Returns
    -------
    (H, W, C) in [0, 1]

    Raises
    ------
    ValueError
        Pictures of different shape, or std not (C,).
    """
    I, R, _, s = two_pictures(image, background, std, std)
    slow = broadly_blurred((I - R) / s, LIGHT_SIGMA, LIGHT_RADIUS)
    light = (slow - np.clip(slow, -LIGHT_LEAST, LIGHT_LEAST)) * s
    unlit: Array = np.clip(I - light, 0, 1)
    return unlit


def fusion_inputs(
    image: npt.ArrayLike, background: npt.ArrayLike, mean: npt.ArrayLike, std: npt.ArrayLike
) -> tuple[Array, Array]:
    """What the convolutions see, and the log energy of the residual, which knows no kind of defect and misses none.

    Parameters
    ----------
    image, background : (H, W, C) in [0, 1]
        I and R.
    mean, std : (C,), std positive
        m and s.

    Returns
    -------
    inputs : (4 C + 3, H, W)
        (I - blur(R)) / s, (blur(I) - m) / s, (I - R) / s, blur((I - R) / s), then A_m1 = 1 - GMS, A_m2 = 1 - SSIM
        and A_m3 / mean(s), the residual's size.
    energy : (H, W)
        log(blur(min(A_m3^2 / mean(s)^2, 1)) + FLOOR) / 2.

    Raises
    ------
    ValueError
        Pictures of different shape, or mean or std not (C,).
    """
    I, R, m, s = two_pictures(image, background, mean, std)
    maps = modality_maps(I, R)
    residual, size = (I - R) / s, maps["residual"] / s.mean()
    detail, level = (I - blurred(R)) / s, (blurred(I) - m) / s
    channels = np.concatenate([detail, level, residual, blurred(residual)], axis=2).transpose(2, 0, 1)
    inputs = np.concatenate([channels, [maps["gms"], maps["ssim"], size]])
    energy = np.log(blurred(np.minimum(size**2, 1)[..., None])[..., 0] + FLOOR) / 2
    return inputs, np.asarray(energy)


def neighbourhood(logit: npt.ArrayLike) -> Array:
    """The logit averaged over the pixels around, with Gaussian weights.

    Parameters
    ----------
    logit : (H, W)

    Returns
    -------
    (H, W)
    """
    each = numbers("logit", logit, "(H, W)")[..., None]
    return broadly_blurred(each, NEIGHBOURHOOD_SIGMA, NEIGHBOURHOOD_RADIUS)[..., 0]


def standard_scores(
    image: npt.ArrayLike,
    background: npt.ArrayLike,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    weights: Mapping[str, npt.ArrayLike],
) -> Array:
    """The evidence of each pixel, in standard deviations above what good pictures give.

    The evidence is the logit, the logit of the neighbourhood and the log energy.

    Parameters
    ----------
    image, background : (H, W, C) in [0, 1]
    mean, std : (C,)
    weights : mapping of str to array
        As `fusion_logit`, with fusion.good_mean and fusion.good_std (3,): the evidence of good pictures.

    Returns
    -------
    (H, W, 3)

    Raises
    ------
    ValueError
        As `fusion_inputs` and `fusion_logit`.
    """
    unlit = without_light(image, background, std)
    inputs, energy = fusion_inputs(unlit, background, mean, std)
    logit = fusion_logit(inputs, weights)
    evidence = np.stack([logit, neighbourhood(logit), energy], axis=-1)
    centre, deviation = np.asarray(weights["fusion.good_mean"]), np.asarray(weights["fusion.good_std"])
    return np.asarray((evidence - centre) / deviation)


def beyond_good(standard_scores: npt.ArrayLike) -> Array:
    """How far each pixel lies beyond good pictures: ANSWER_SHARE of the answer's standard score, the rest the energy's.

    The answer is the logit's score, or that of its neighbourhood where NEIGHBOURHOOD_SHARE of it is more.

    Parameters
    ----------
    standard_scores : (H, W, 3)

    Returns
    -------
    (H, W)
        In standard deviations.
    """
    logit, around, energy = np.moveaxis(numbers("standard_scores", standard_scores, "(H, W, 3)"), -1, 0)
    answer = np.maximum(logit, NEIGHBOURHOOD_SHARE * around)
    return np.asarray(ANSWER_SHARE * answer + (1 - ANSWER_SHARE) * energy)


def alarm(standard_scores: npt.ArrayLike) -> Array:
    """What a picture's score is made of: as `beyond_good`, for defects that stand alone.

    The logit counts for what is beyond AROUND_SHARE of its neighbourhood, if that is positive, and the answer for
    ALARM_SHARE. A ragged edge, good as it is, answers faintly all along; a speck does not.

    Parameters
    ----------
    standard_scores : (H, W, 3)

    Returns
    -------
    (H, W), 0 or more
        In standard deviations. `scoring.patch_alarms` of it tells whether the picture is defective.
    """
    logit, around, energy = np.moveaxis(numbers("standard_scores", standard_scores, "(H, W, 3)"), -1, 0)
    answer = np.maximum(logit - AROUND_SHARE * np.maximum(around, 0), NEIGHBOURHOOD_SHARE * around)
    return np.asarray(np.maximum(ALARM_SHARE * answer + (1 - ALARM_SHARE) * energy, 0))


def learned_map(beyond: npt.ArrayLike) -> Array:
    """The anomaly map: what lies beyond good pictures through a sigmoid.

    Parameters
    ----------
    beyond : (H, W)
        From `beyond_good`.

    Returns
    -------
    (H, W) in [0, 1]
        1/2 at HALF standard deviations above good pictures.
    """
    return np.asarray(expit(numbers("beyond", beyond, "(H, W)") - HALF))
