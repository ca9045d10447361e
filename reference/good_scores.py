"""What share of good pictures would score as high as another one: ranks among held-out pictures, and beyond them a law.

s_1 .. s_n  scores of good pictures that nothing was learnt from    t_1 .. t_m  of pictures that training has seen
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from ._checks import numbers

LEAST = 1e-12
PRIOR_SPREAD = 0.2
PRIOR_WEIGHT = 3.0
LEAST_P = 1e-300


def p_value(score: float, held_out: npt.ArrayLike, learnt: npt.ArrayLike = (), parts: float = 1.0) -> float:
    """The share of good pictures that score at least `score`.

    Up to the greatest held-out score, (1 + number of held-out scores >= score) / (n + 1): for exchangeable pictures the
    probability that this is at most a is at most a (split conformal prediction). Beyond it the tail of the predictive
    law of log s, Student's t about the mean of log s_i, its spread from both groups and a prior; 1 / (n + 1) at most.

    Parameters
    ----------
    score : float, 0 or more
    held_out : (n,), 0 or more
        s_1 .. s_n, at least one.
    learnt : (m,), 0 or more
        t_1 .. t_m.
    parts : float, 1 or more
        How many parts such as those of the scores a picture has; above 1 there is no rank to go by, and each part may
        pass the score by itself.

    Returns
    -------
    float in (0, 1]

    Raises
    ------
    ValueError
        NaN, a score below 0, or no held-out score.
    """
    s = numbers("held_out", held_out, "(n,)")
    t = numbers("learnt", learnt, "(m,)") if np.size(learnt) else np.empty(0)
    least = min(score, s.min(), t.min(initial=0))
    if not least >= 0:
        raise ValueError(f"the least score is {least}; expected 0 or more")
    count = s.size
    if parts == 1 and score <= s.max():
        return float((1 + np.sum(s >= score)) / (count + 1))
    logs = [np.log(np.maximum(group, LEAST)) for group in (s, t) if group.size]
    freedom = PRIOR_WEIGHT + sum(group.size - 1 for group in logs)
    squares = PRIOR_WEIGHT * PRIOR_SPREAD**2 + sum(np.sum((group - group.mean()) ** 2) for group in logs)
    scale = math.sqrt(squares / freedom * (1 + 1 / count))
    tail = student.sf((math.log(max(score, LEAST)) - logs[0].mean()) / scale, freedom)
    several = -math.expm1(parts * math.log1p(-min(tail, 1 - 1e-16)))
    return float(np.clip(several, LEAST_P, 1 / (count + 1) if parts == 1 else 1))
