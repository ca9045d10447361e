"""The training losses, Eq 2, 3 and 10 to 16 (sections III.C and III.E), as numbers; gradients are PyTorch's.

I_o, I_s  defect-free and artificial defect pictures    I_rec  reconstruction; all (N, H, W, C)
R0, R+    latents (N, K) of the sample and the positive patch of each triplet (P0, P+, P-)
C_A       auxiliary classifier, probability that a latent is normal
D         discriminator, probability that a picture is real; D^(l) its l-th feature map
epsilon   weight of the penalty on the weight matrices; Psi = 1/2 weight of each layer in L_per
N         batch size, N_o in the paper; every loss is a mean over the batch
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers, same_shape

LOG_FLOOR = -100.0  # least logarithm, as in torch's binary cross entropy: keeps a saturated output finite


def binary_cross_entropy(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """L_BCE(x, y) = -[y log x + (1 - y) log(1 - x)], Eq 3; the products of vectors are inner products.

    Parameters
    ----------
    x : (n,) in [0, 1]
        Probabilities.
    y : (n,) in [0, 1]
        Labels: 1 normal, 0 anomalous.

    Returns
    -------
    float
        The sum over the entries. Logarithms are taken no lower than -100.

    Raises
    ------
    ValueError
        Shapes differ or x leaves [0, 1].
    """
    x, y = _probabilities("x", x), numbers("y", y, "(n,)")
    same_shape("y", y, "x", x)
    return float(-(y * _log(x) + (1 - y) * _log(1 - x)).sum())


def latent_loss(
    r0: npt.ArrayLike,
    r_pos: npt.ArrayLike,
    c_pos: npt.ArrayLike,
    c_neg: npt.ArrayLike,
    compactness: float = 1.0,
) -> float:
    """L_lat, Eq 14: the mean over the batch of Eq 2, L_BCE([C_A(R+), C_A(R-)], [1, 0]) + ||R+ - R0||_2.

    Parameters
    ----------
    r0, r_pos : (N, K)
        Latents R0 and R+.
    c_pos, c_neg : (N,) in [0, 1]
        C_A(R+) and C_A(R-).
    compactness : float
        Weight of the distance; the paper has none, that is 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    R_0, R_pos = numbers("r0", r0, "(N, K)"), numbers("r_pos", r_pos, "(N, K)")
    C_pos, C_neg = _probabilities("c_pos", c_pos), _probabilities("c_neg", c_neg)
    same_shape("r_pos", R_pos, "r0", R_0)
    same_shape("c_neg", C_neg, "c_pos", C_pos)
    if len(C_pos) != len(R_0):
        raise ValueError(f"{len(C_pos)} classifier outputs for {len(R_0)} latents; expected one for each")
    hidden = [
        binary_cross_entropy([C_pos[n], C_neg[n]], [1, 0])
        + compactness * np.sqrt(((R_pos[n] - R_0[n]) ** 2).sum())  # Eq 2
        for n in range(len(R_0))
    ]
    return float(np.mean(hidden))  # Eq 14


def reconstruction_loss(
    images: npt.ArrayLike,
    reconstructions: npt.ArrayLike,
    weights: Sequence[npt.ArrayLike] = (),
    epsilon: float = 0.0,
) -> float:
    """L_rec, Eq 10: mean squared error of each picture, mean over the batch, plus epsilon sum ||omega||_F.

    Parameters
    ----------
    images, reconstructions : (N, H, W, C)
        The target I_o (in phase 2 too, where the input was I_s) and I_rec.
    weights : sequence of arrays
        The weight matrices omega, of any shape each.
    epsilon : float
        Penalty factor, 0 or more.

    Returns
    -------
    float
    """
    I_o = numbers("images", images, "(N, H, W, C)")
    I_rec = numbers("reconstructions", reconstructions, "(N, H, W, C)")
    same_shape("reconstructions", I_rec, "images", I_o)
    error = float(np.mean([((I_o[n] - I_rec[n]) ** 2).mean() for n in range(len(I_o))]))
    return error + epsilon * weight_norms(weights)


def weight_norms(weights: Sequence[npt.ArrayLike]) -> float:
    """Sum of the Frobenius norms ||omega||_F, the penalty of Eq 10.

    Parameters
    ----------
    weights : sequence of arrays
        Of any shape each.

    Returns
    -------
    float
    """
    return sum((float(np.sqrt((np.asarray(omega, dtype=np.float64) ** 2).sum())) for omega in weights), 0.0)


def gan_objective(d_real: npt.ArrayLike, d_fake: npt.ArrayLike) -> float:
    """L_gan = E log(1 - D(I_rec)) + E log D(I_o), Eq 12 as printed: the discriminator climbs it.

    Parameters
    ----------
    d_real, d_fake : (N,) in [0, 1]
        D(I_o) and D(I_rec).

    Returns
    -------
    float
        At most 0; -2 log 2 where D cannot tell.
    """
    real, fake = _probabilities("d_real", d_real), _probabilities("d_fake", d_fake)
    return float(_log(1 - fake).mean() + _log(real).mean())


def discriminator_loss(d_real: npt.ArrayLike, d_fake: npt.ArrayLike) -> float:
    """What the discriminator descends: Eq 12 with its sign turned.

    Parameters
    ----------
    d_real, d_fake : (N,) in [0, 1]

    Returns
    -------
    float
    """
    return -gan_objective(d_real, d_fake)


def gan_loss(d_fake: npt.ArrayLike) -> float:
    """What the generator descends for Eq 12: -E log D(I_rec), which does not saturate as log(1 - D) does.

    Parameters
    ----------
    d_fake : (N,) in [0, 1]

    Returns
    -------
    float
    """
    return float(-_log(_probabilities("d_fake", d_fake)).mean())


def perceptual_loss(
    features_real: Sequence[npt.ArrayLike], features_fake: Sequence[npt.ArrayLike], psi: float = 0.5
) -> float:
    """L_per = sum_l Psi^(l) |D^(l)(I_o) - D^(l)(I_rec)|_1, Eq 13, the mean absolute difference of each layer.

    Parameters
    ----------
    features_real, features_fake : sequences of arrays
        D^(l) of both pictures, blocks 3 and 4 in the paper; any shape, the same in both.
    psi : float
        Psi^(l), the same for every layer.

    Returns
    -------
    float
    """
    if len(features_real) != len(features_fake):
        raise ValueError(
            f"{len(features_real)} real and {len(features_fake)} fake layers; expected the same number"
        )
    total = 0.0
    for layer, (real, fake) in enumerate(zip(features_real, features_fake)):
        a, b = np.asarray(real, dtype=np.float64), np.asarray(fake, dtype=np.float64)
        same_shape(f"features_fake[{layer}]", b, f"features_real[{layer}]", a)
        total += psi * float(np.abs(a - b).mean())
    return total


def adversarial_loss(
    d_fake: npt.ArrayLike, features_real: Sequence[npt.ArrayLike], features_fake: Sequence[npt.ArrayLike]
) -> float:
    """L_adv, Eq 11, as the generator descends it: `gan_loss` + `perceptual_loss`.

    Parameters
    ----------
    d_fake : (N,) in [0, 1]
    features_real, features_fake : sequences of arrays

    Returns
    -------
    float
    """
    return gan_loss(d_fake) + perceptual_loss(features_real, features_fake)


def phase1_loss(
    rec: float, adv: float, lat: float, *, w_rec: float = 100.0, w_adv: float = 1.0, w_lat: float = 1.0
) -> float:
    """L_1 = w_rec L_rec + w_adv L_adv + w_lat L_lat, Eq 15, with the paper's weights.

    Parameters
    ----------
    rec, adv, lat : float
        Of the defect-free pictures and, in L_lat, the artificial defects.
    w_rec, w_adv, w_lat : float

    Returns
    -------
    float
    """
    return w_rec * rec + w_adv * adv + w_lat * lat


def phase2_loss(rec: float, adv: float, *, w_rec: float = 100.0, w_adv: float = 1.0) -> float:
    """L_2 = w_rec L_rec + w_adv L_adv, Eq 16, with the paper's weights.

    Parameters
    ----------
    rec, adv : float
        Of the artificial defects' reconstruction against the defect-free pictures they were made from.
    w_rec, w_adv : float

    Returns
    -------
    float
    """
    return w_rec * rec + w_adv * adv


def _log(x: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(x), LOG_FLOOR)


def _probabilities(name: str, value: npt.ArrayLike) -> Array:
    p = numbers(name, value, "(n,)")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(
            f"{name} has values {p.min():g} to {p.max():g}; expected [0, 1]: pass them through a sigmoid"
        )
    return p
