"""What share of good pictures would score as high: the p-value that a verdict rests on, and the promise it carries.

For a picture that is drawn like n held-out good ones, the rank of its score among theirs is any of n + 1 ranks with the
same probability, whatever the law of the scores (split conformal prediction: Vovk, Gammerman and Shafer, 2005). That
is a promise, and it ends at 1 / (n + 1). Beyond the greatest held-out score the p-value is an estimate: the logarithm
of a score is taken to be normal, and its spread is learnt from the pictures that training has seen, too.
`fmrnet.reference.good_scores` is the oracle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fmrnet.inspection.stored import Stored

__all__ = ["GoodScores"]

LEAST, GREATEST = 1e-12, 1e9  # a perfectly flat surface scores 0, which has no logarithm
PRIOR_SPREAD = 0.2  # of the logarithm of one surface's scores: 0.05 to 0.35 on the surfaces measured
PRIOR_WEIGHT = 3.0  # observations that this counts for
LEAST_P = 1e-300


@dataclass(frozen=True)
class GoodScores:
    """Scores of good pictures, and what they say of another picture's score.

    Parameters
    ----------
    held_out : sequence of float, 0 or more
        Of pictures that nothing was learnt from, at least one, in the order of the pictures.
    learnt : sequence of float, 0 or more
        Of pictures that training has seen. They score lower, by how much is not known beforehand; only their spread
        counts.
    parts : float, 1 or more
        How many times larger a picture under inspection is than those of the scores, where these are parts of pictures.
    """

    held_out: tuple[float, ...]
    learnt: tuple[float, ...] = ()
    parts: float = 1.0

    @classmethod
    def from_dict(cls, values: Any) -> GoodScores:
        """From the values that JSON holds; ArtifactError if they are not what they should be."""
        stored = Stored("scores", values, cls)
        return cls(
            held_out=stored.numbers("held_out", 0, GREATEST, least_count=1),
            learnt=stored.numbers("learnt", 0, GREATEST),
            parts=stored.number("parts", 1, GREATEST),
        )

    @property
    def promised(self) -> float:
        """The least rate of false alarms that the held-out pictures alone promise; 1 if they are parts of pictures."""
        return 1 / (len(self.held_out) + 1) if self.parts == 1 else 1.0

    def p_value(self, score: float) -> float:
        """The share of good pictures that score as high, in (0, 1]."""
        return float(self.p_values(np.array([score]))[0])

    def p_values(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """`p_value` of each of several scores, any shape."""
        location, scale, freedom = self._law
        logs = np.log(np.maximum(scores, LEAST, dtype=np.float64))
        each = np.minimum(stats.t.sf((logs - location) / scale, freedom), 1 - 1e-16)
        estimate = np.clip(-np.expm1(self.parts * np.log1p(-each)), LEAST_P, self.promised)
        if self.parts > 1:
            return estimate
        count = len(self.held_out)
        at_least = count - np.searchsorted(self._ordered, scores, side="left")
        return np.where(at_least > 0, (1 + at_least) / (count + 1), estimate)

    def threshold(self, rate: float) -> float:
        """The greatest score whose `p_value` is above `rate`; a picture that scores more is called defective."""
        count = len(self.held_out)
        rank = math.floor(rate * (count + 1) + 1e-9) if self.parts == 1 else 0
        if rank > count:
            return 0.0
        if rank:
            return max(float(self._ordered[count - rank]), LEAST)
        location, scale, freedom = self._law
        each = -math.expm1(math.log1p(-rate) / self.parts)
        estimate = math.exp(min(location + scale * float(stats.t.isf(each, freedom)), math.log(GREATEST)))
        return max(estimate, float(self._ordered[-1]) if self.parts == 1 else LEAST)

    @cached_property
    def _ordered(self) -> NDArray[np.float64]:
        return np.sort(np.asarray(self.held_out, dtype=np.float64))

    @cached_property
    def _law(self) -> tuple[float, float, float]:
        """Location, scale and degrees of freedom of the next logarithm of a score: Student's t.

        The predictive law of one more normal observation, its mean known from the held-out scores alone, its variance
        from both groups and PRIOR_WEIGHT observations of PRIOR_SPREAD.
        """
        groups = [np.log(np.maximum(scores, LEAST)) for scores in (self.held_out, self.learnt) if scores]
        squares = sum(float(np.square(group - group.mean()).sum()) for group in groups)
        freedom = PRIOR_WEIGHT + sum(len(group) - 1 for group in groups)
        variance = (PRIOR_WEIGHT * PRIOR_SPREAD**2 + squares) / freedom
        return float(groups[0].mean()), math.sqrt(variance * (1 + 1 / len(self.held_out))), freedom
