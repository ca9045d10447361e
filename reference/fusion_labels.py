"""What the learned fusion (not in the paper) is trained to say, and its loss: their oracle, in plain NumPy.

I_o, I_s  picture, and the picture with a synthetic defect (H, W, C) in [0, 1]
S         support of the defect (H, W) in [0, 1]
s         standard deviation of the texture per channel (C,)
"""

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers, two_pictures
from .blurs import blurred

VISIBLE = 0.3  # blurred change from I_o to I_s, in deviations of the texture
DEFECT_AREA = 400.0  # pixels
SIZE_POWER = 0.75
MOST_WEIGHT = 12.0
NOT_COUNTED = -1.0


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
    I_o, I_s, _, s = two_pictures(image, synthetic, std, std)
    S = numbers("support", support, "(H, W)")
    seen = blurred((((I_s - I_o) / s) ** 2).mean(2, keepdims=True))[..., 0] > VISIBLE**2
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
