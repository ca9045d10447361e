"""The learned alternative to the product of Eq 23 (not in the paper): its oracle, in plain NumPy.

I, R      picture and its restored background (H, W, C) in [0, 1]
I_s, S    picture with a synthetic defect, and the defect's support
m, s      mean and standard deviation of the texture per channel (C,)
A_m1 ...  modality maps of Eq 19, 21 and 22
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, zoom

from ._checks import Array, numbers, picture, same_shape
from .fusion import modality_maps
from .network import batch_norm, leaky_relu

BLUR_SIGMA = 3.0  # pixels
BLUR_RADIUS = 9
CELL = 8  # pixels
LIGHT_SIGMA = 4.0  # cells
LIGHT_RADIUS = 8  # cells
LIGHT_LEAST = 0.25  # deviations of the texture
FOLD = 2  # the convolutions work on blocks of 2 x 2 pixels
MULTIPLE = 8  # pixels
VISIBLE = 0.3  # blurred change from I_o to I_s, in deviations of the texture
NEIGHBOURHOOD_SIGMA = 2.0  # cells
NEIGHBOURHOOD_RADIUS = 4  # cells
NEIGHBOURHOOD_SHARE = 0.7
ANSWER_SHARE = 2 / 3
ALARM_SHARE = 0.8
AROUND_SHARE = 0.25
DEFECT_AREA = 400.0  # pixels
SIZE_POWER = 0.75
MOST_WEIGHT = 12.0
NOT_COUNTED = -1.0
FLOOR = 1e-3  # of the residual's energy
HALF = 3.0  # standard deviations; where the map is 1/2


def fusion_inputs(
    image: npt.ArrayLike, background: npt.ArrayLike, mean: npt.ArrayLike, std: npt.ArrayLike
) -> Array:
    """What the convolutions see: detail, level, signed residual, blurred residual, and the three modality maps.

    Parameters
    ----------
    image, background : (H, W, C) in [0, 1]
        I and R.
    mean, std : (C,), std positive
        m and s.

    Returns
    -------
    (4 C + 3, H, W)
        (I - blur(R)) / s, (blur(I) - m) / s, (I - R) / s, blur((I - R) / s), then 1 - GMS, 1 - SSIM and
        residual / mean(s).

    Raises
    ------
    ValueError
        Pictures of different shape, or mean or std not (C,).
    """
    I, R, m, s = _checked(image, background, mean, std)
    maps = modality_maps(I, R)
    residual = (I - R) / s
    detail, level = (I - _blurred(R)) / s, (_blurred(I) - m) / s
    channels = np.concatenate([detail, level, residual, _blurred(residual)], axis=2).transpose(2, 0, 1)
    return np.concatenate([channels, [maps["gms"], maps["ssim"], maps["residual"] / s.mean()]])


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
    I, R, _, s = _checked(image, background, std, std)
    slow = broadly_blurred((I - R) / s, LIGHT_SIGMA, LIGHT_RADIUS)
    light = (slow - np.clip(slow, -LIGHT_LEAST, LIGHT_LEAST)) * s
    unlit: Array = np.clip(I - light, 0, 1)
    return unlit


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


def log_energy(image: npt.ArrayLike, background: npt.ArrayLike, std: npt.ArrayLike) -> Array:
    """Half the logarithm of the residual's blurred square, log(blur(min(A_m3^2 / mean(s)^2, 1)) + FLOOR) / 2.

    Parameters
    ----------
    image, background : (H, W, C) in [0, 1]
    std : (C,), positive

    Returns
    -------
    (H, W)
    """
    I, R, _, s = _checked(image, background, std, std)
    square = np.minimum(((I - R) ** 2).mean(2, keepdims=True) / s.mean() ** 2, 1)
    return np.asarray(np.log(_blurred(square)[..., 0] + FLOOR) / 2)


def defect_labels(
    image: npt.ArrayLike, synthetic: npt.ArrayLike, support: npt.ArrayLike, std: npt.ArrayLike
) -> Array:
    """What the convolutions are to say of each pixel of a picture with a synthetic defect.

    Parameters
    ----------
    image, synthetic : (H, W, C) in [0, 1]
        I_o and I_s.
    support : (H, W) in [0, 1]
        S.
    std : (C,), positive

    Returns
    -------
    (H, W)
        1 where S > 1/2 and the blurred change is more than VISIBLE, 0 where S < 0.02, else NOT_COUNTED.
    """
    I_o, I_s, _, s = _checked(image, synthetic, std, std)
    S = numbers("support", support, "(H, W)")
    seen = _blurred((((I_s - I_o) / s) ** 2).mean(2, keepdims=True))[..., 0] > VISIBLE**2
    return np.where((S > 0.5) & seen, 1.0, np.where(S < 0.02, 0.0, NOT_COUNTED))


def size_weights(label: npt.ArrayLike) -> Array:
    """What each pixel of a picture counts for in training, so that a small defect is learnt as well as a large one.

    Parameters
    ----------
    label : (H, W)
        From `defect_labels`.

    Returns
    -------
    (H, W)
        Where the label is 1, (DEFECT_AREA / number of such pixels)^SIZE_POWER, from 1 / MOST_WEIGHT to MOST_WEIGHT;
        elsewhere 1.
    """
    defective = numbers("label", label, "(H, W)") > 0
    weight = (DEFECT_AREA / max(defective.sum(), 1)) ** SIZE_POWER
    return np.where(defective, np.clip(weight, 1 / MOST_WEIGHT, MOST_WEIGHT), 1.0)


def fusion_logit(inputs: npt.ArrayLike, weights: Mapping[str, npt.ArrayLike]) -> Array:
    """A small U-Net on blocks of 2 x 2 pixels.

    Down: a block at 1/2 of the picture's size, two at 1/4, three at 1/8, the last of them dilated. Up: the coarser map
    through a 1 x 1 convolution, drawn twice as large, is added to the finer one, and a block follows.

    Parameters
    ----------
    inputs : (channels, H, W)
        From `fusion_inputs`.
    weights : mapping of str to array
        The model's state: fusion.stem, fusion.down.0.{0,1}, fusion.down.1.{0,1,2} and fusion.refine.{0,1} are blocks
        (see `conv_block`), fusion.up.{0,1}.weight (out, in, 1, 1), fusion.output.weight (4, in, 3, 3) and .bias (4,).

    Returns
    -------
    (H, W)

    Raises
    ------
    ValueError
        A weight is missing.
    """
    x = numbers("inputs", inputs, "(channels, H, W)")
    _, height, width = x.shape
    x = np.pad(x, ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="edge")
    half = conv_block(space_to_depth(x, FOLD), weights, "fusion.stem")
    quarter = conv_block(half, weights, "fusion.down.0.0", stride=2)
    quarter = conv_block(quarter, weights, "fusion.down.0.1")
    eighth = conv_block(quarter, weights, "fusion.down.1.0", stride=2)
    eighth = conv_block(eighth, weights, "fusion.down.1.1")
    eighth = conv_block(eighth, weights, "fusion.down.1.2", dilation=2)
    quarter = quarter + _drawn_larger(eighth, _weight(weights, "fusion.up.0.weight"))
    quarter = conv_block(quarter, weights, "fusion.refine.0")
    half = half + _drawn_larger(quarter, _weight(weights, "fusion.up.1.weight"))
    half = conv_block(half, weights, "fusion.refine.1")
    logit = conv(half, _weight(weights, "fusion.output.weight"))
    logit = logit + _weight(weights, "fusion.output.bias")[:, None, None]
    return depth_to_space(logit, FOLD)[0, :height, :width]


def conv_block(
    x: npt.ArrayLike, weights: Mapping[str, npt.ArrayLike], name: str, *, stride: int = 1, dilation: int = 1
) -> Array:
    """3 x 3 convolution, batch normalisation with the statistics of training, leaky ReLU.

    Parameters
    ----------
    x : (in, H, W)
    weights : mapping of str to array
        `name`.conv.weight (out, in, 3, 3); `name`.norm.weight, .bias, .running_mean and .running_var (out,).
    name : str
    stride, dilation : int, positive

    Returns
    -------
    (out, H / stride, W / stride)

    Raises
    ------
    ValueError
        A weight is missing.
    """
    y = conv(x, _weight(weights, f"{name}.conv.weight"), stride=stride, dilation=dilation)
    parts = ("weight", "bias", "running_mean", "running_var")
    return leaky_relu(batch_norm(y, *(_weight(weights, f"{name}.norm.{part}") for part in parts)))


def _weight(weights: Mapping[str, npt.ArrayLike], name: str) -> Array:
    if name not in weights:
        raise ValueError(f"weights have no {name!r}; expected a model with a learned fusion")
    return np.asarray(weights[name], dtype=np.float64)


def _drawn_larger(x: Array, weight: Array) -> Array:
    """A 1 x 1 convolution of x (in, H, W), each value repeated twice down and across: (out, 2 H, 2 W)."""
    mixed = np.tensordot(weight[:, :, 0, 0], x, axes=1)
    return np.asarray(mixed.repeat(2, axis=1).repeat(2, axis=2))


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
    logit = fusion_logit(fusion_inputs(unlit, background, mean, std), weights)
    evidence = np.stack([logit, neighbourhood(logit), log_energy(unlit, background, std)], axis=-1)
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
        In standard deviations. `scoring.picture_score` of it tells whether the picture is defective.
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
    return np.asarray(1 / (1 + np.exp(HALF - numbers("beyond", beyond, "(H, W)"))))


def space_to_depth(x: npt.ArrayLike, size: int) -> Array:
    """Blocks of size x size pixels as channels: (C, H, W) to (C size^2, H / size, W / size).

    Parameters
    ----------
    x : (C, H, W)
    size : int
        Divides H and W.

    Returns
    -------
    (C size^2, H / size, W / size)
        Channel c size^2 + size row + column.
    """
    x = numbers("x", x, "(C, H, W)")
    return np.concatenate(
        [x[c : c + 1, m::size, n::size] for c in range(len(x)) for m in range(size) for n in range(size)]
    )


def depth_to_space(x: npt.ArrayLike, size: int) -> Array:
    """The opposite of `space_to_depth`.

    Parameters
    ----------
    x : (C size^2, H, W)
    size : int

    Returns
    -------
    (C, H size, W size)
    """
    x = numbers("x", x, "(C size^2, H, W)")
    channels, height, width = x.shape
    y = np.zeros((channels // size**2, height * size, width * size))
    for i, plane in enumerate(x):
        c, m, n = i // size**2, i // size % size, i % size
        y[c, m::size, n::size] = plane
    return y


def conv(x: npt.ArrayLike, weight: npt.ArrayLike, *, stride: int = 1, dilation: int = 1) -> Array:
    """3 x 3 convolution whose taps lie `dilation` pixels apart, edge pixels repeated, at every `stride`-th pixel.

    Parameters
    ----------
    x : (in, H, W)
    weight : (out, in, 3, 3)
    stride, dilation : int, positive
        The stride divides H and W.

    Returns
    -------
    (out, H / stride, W / stride)
    """
    x, W = numbers("x", x, "(in, H, W)"), numbers("weight", weight, "(out, in, 3, 3)")
    if W.shape[1:] != (len(x), 3, 3):
        raise ValueError(f"x {x.shape} and weight {W.shape}; expected (in, H, W) and (out, in, 3, 3)")
    _, height, width = x.shape
    d = dilation
    padded = np.pad(x, ((0, 0), (d, d), (d, d)), mode="edge")
    y = np.zeros((len(W), height // stride, width // stride))
    for m in range(3):
        for n in range(3):
            window = padded[:, m * d : m * d + height : stride, n * d : n * d + width : stride]
            y += np.tensordot(W[:, :, m, n], window, axes=1)
    return y


def focal_loss(p: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike, gamma: float = 2.0) -> float:
    """Mean of -w (1 - q)^gamma log q over the counted pixels, where q is the probability given to what a pixel is.

    Parameters
    ----------
    p : array in (0, 1)
        Probability of each pixel being defective.
    label : array of the same shape
        1 defective, 0 good, negative: not counted. From `defect_labels`.
    weight : array of the same shape
        w, what each pixel counts for. From `size_weights`.
    gamma : float
        How little the pixels count that are right already.

    Returns
    -------
    float
    """
    p, label = np.asarray(p, dtype=np.float64), np.asarray(label)
    q = np.where(label == 1, p, 1 - p)[label >= 0]
    w = np.asarray(weight, dtype=np.float64)[label >= 0]
    return float(np.mean(-w * (1 - q) ** gamma * np.log(q)))


def _checked(
    image: npt.ArrayLike, other: npt.ArrayLike, mean: npt.ArrayLike, std: npt.ArrayLike
) -> tuple[Array, Array, Array, Array]:
    I, R = picture("image", image), picture("background", other)
    same_shape("image", I, "background", R)
    m, s = numbers("mean", mean, "(C,)"), numbers("std", std, "(C,)")
    if m.shape != I.shape[2:] or s.shape != I.shape[2:] or s.min() <= 0:
        raise ValueError(f"mean {m} and std {s}; expected {I.shape[2]} of each, one a channel, std positive")
    return I, R, m, s


def _blurred(x: Array) -> Array:
    return np.asarray(
        gaussian_filter(x, (BLUR_SIGMA, BLUR_SIGMA, 0), mode="reflect", radius=(BLUR_RADIUS, BLUR_RADIUS, 0))
    )
