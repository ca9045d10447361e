"""What share of good pictures would look as defective as another one: ranks among held-out ones, beyond them a law.

A picture has K readings, 0 or more. r (n, K)  readings of good pictures that nothing was learnt from
t (m, K)  of pictures that training has seen    L  logarithm    U  surprise of a picture
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from ._checks import Array, numbers

LEAST = 1e-12
PRIOR_SPREAD = 0.2
PRIOR_WEIGHT = 3.0
FIRST = 0.5
MOST_SURPRISE = 300.0


def surprise(readings: npt.ArrayLike, held_out: npt.ArrayLike, learnt: npt.ArrayLike = ()) -> float:
    """U = max over k of -log10 (P(T > T_k) w_1 / w_k): how surprising the most surprising reading is.

    T_k = (L_k - mean of the held-out L_k) / (sd_k sqrt(1 + 1 / n)), whose law is Student's t where logarithms are
    normal; sd_k from the squares of both groups about their own means and PRIOR_WEIGHT times PRIOR_SPREAD^2.
    w_1 = FIRST, the others share the rest: that any reading is so far out has a chance of 10^-U / FIRST at most
    (Bonferroni).

    Parameters
    ----------
    readings : (K,), 0 or more
    held_out : (n, K), 0 or more
    learnt : (m, K), 0 or more
        May be empty.

    Returns
    -------
    float in [0, MOST_SURPRISE]

    Raises
    ------
    ValueError
        NaN, a reading below 0, no held-out picture, or rows of other lengths.
    """
    x, r = numbers("readings", readings, "(K,)"), numbers("held_out", held_out, "(n, K)")
    t = numbers("learnt", learnt, "(m, K)") if np.size(learnt) else np.empty((0, x.size))
    if r.shape[1] != x.size or t.shape[1] != x.size:
        raise ValueError(f"{x.size} readings for rows of {r.shape[1]} and {t.shape[1]}; expected one length")
    if (least := min(x.min(), r.min(), t.min(initial=0))) < 0:
        raise ValueError(f"the least reading is {least}; expected 0 or more")
    groups = [_log(group) for group in (r, t) if len(group)]
    freedom = PRIOR_WEIGHT + sum(len(group) - 1 for group in groups)
    squares = PRIOR_WEIGHT * PRIOR_SPREAD**2 + sum(((group - group.mean(0)) ** 2).sum(0) for group in groups)
    T = (_log(x) - groups[0].mean(0)) / np.sqrt(squares / freedom * (1 + 1 / len(r)))
    weights = [FIRST if k == 0 else (1 - FIRST) / (x.size - 1) for k in range(x.size)]
    tails = [student.sf(value, freedom) * FIRST / weight for value, weight in zip(T, weights, strict=True)]
    return float(np.clip(-math.log10(max(min(tails), 10**-MOST_SURPRISE)), 0, MOST_SURPRISE))


def held_out_surprises(held_out: npt.ArrayLike, learnt: npt.ArrayLike = ()) -> Array:
    """`surprise` of each held-out picture to all the others; of a single one, which has none, that of an even chance.

    Parameters
    ----------
    held_out : (n, K), 0 or more
    learnt : (m, K), 0 or more
        May be empty.

    Returns
    -------
    (n,)
    """
    r = numbers("held_out", held_out, "(n, K)")
    if len(r) == 1:
        return np.array([-math.log10(0.5)])
    return np.array([surprise(r[i], np.delete(r, i, axis=0), learnt) for i in range(len(r))])


def p_value(U: float, held_out: npt.ArrayLike, learnt: npt.ArrayLike = (), parts: float = 1.0) -> float:
    """The share of good pictures with a surprise of U or more.

    k / (n + 1) at the k-th greatest held-out one U_k, straight lines between: for exchangeable pictures the probability
    of more than U_k is at most k / (n + 1) (split conformal prediction), and a tail that falls ever slower lies below
    its chords. 1 at the least and below. Beyond the greatest 10^-U / FIRST by the law, at most 1 / (n + 1).

    Parameters
    ----------
    U : float, 0 or more
    held_out, learnt
        As in `surprise`.
    parts : float, 1 or more
        How many parts such as those of the readings a picture has; above 1 there is no rank to go by, and each part may
        be as surprising by itself.

    Returns
    -------
    float in (0, 1]
    """
    ranked = np.sort(held_out_surprises(held_out, learnt))[::-1]
    if parts == 1 and ranked[0] >= U:
        k = int(np.sum(ranked >= U))
        if k == ranked.size:
            return 1.0
        return float((k + (ranked[k - 1] - U) / (ranked[k - 1] - ranked[k])) / (ranked.size + 1))
    several = -math.expm1(parts * math.log1p(-min(10.0**-U / FIRST, 1 - 1e-16)))
    return float(np.clip(several, 10**-MOST_SURPRISE, 1 / (ranked.size + 1) if parts == 1 else 1))


def _log(readings: Array) -> Array:
    return np.log(np.maximum(readings, LEAST))
