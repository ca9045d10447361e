"""What share of good pictures would look as defective: the p-value that a verdict rests on, and the promise it carries.

A picture has several readings: what all witnesses together say of its worst patch, and what each says alone, for a sum
drowns one that is sure. Each reading's logarithm is taken to be normal over good pictures, with its spread learnt
from the pictures that training has seen, too. The surprise of a picture is that of its most surprising reading, where
half of the false alarms are allowed to the first reading and the other half is shared by the others.

For a picture that is drawn like n held-out good ones, the rank of its surprise among theirs is any of n + 1 ranks with
the same probability, whatever the law (split conformal prediction: Vovk, Gammerman and Shafer, 2005). That is a
promise, and it ends at 1 / (n + 1). Between two held-out surprises the p-value is interpolated, which keeps the promise
where surprises become rarer the greater they are (a straight line lies above such a tail). Beyond the greatest held-out
surprise it is an estimate, by the law.
`fmrnet.reference.good_scores` is the oracle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fmrnet.errors import ArtifactError
from fmrnet.inspection.stored import Stored

__all__ = ["GoodScores"]

LEAST, GREATEST = 1e-12, 1e9  # of readings; a perfectly flat surface has 0, which has no logarithm
MOST = 16  # readings of a picture
MOST_LOG = 80.0  # of a threshold of readings, which float32 holds
PRIOR_SPREAD = 0.2  # of the logarithm of one surface's readings: 0.05 to 0.35 on the surfaces measured
PRIOR_WEIGHT = 3.0  # observations that this counts for
FIRST = 0.5  # share of the false alarms that the first reading may cause
MOST_SURPRISE = 300.0  # 10 to the power of its negative is a number still

Floats = NDArray[np.float64]
Readings = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class GoodScores:
    """Readings of good pictures, and what they say of another picture's.

    Parameters
    ----------
    held_out : (n, K), 0 or more
        Of pictures that nothing was learnt from, at least one, in the order of the pictures.
    learnt : (m, K), 0 or more
        Of pictures that training has seen. They are lower, by how much is not known beforehand; their spread counts.
    parts : float, above 0
        How many times larger a picture under inspection is than those of the readings, where these are of parts of
        pictures; 1 where they are of whole ones.
    """

    held_out: Readings
    learnt: Readings = ()
    parts: float = 1.0

    @classmethod
    def from_dict(cls, values: Any) -> GoodScores:
        """From the values that JSON holds; ArtifactError if they are not what they should be."""
        stored = Stored("scores", values, cls)
        groups = [stored.rows(name, 0, GREATEST, most_count=MOST) for name in ("held_out", "learnt")]
        if not groups[0] or not groups[0][0] or len({len(row) for group in groups for row in group}) != 1:
            raise ArtifactError(
                "scores field held_out or learnt: expected rows of one length, at least one of each"
            )
        held_out, learnt = groups
        return cls(held_out, learnt, stored.number("parts", 1, GREATEST))

    @property
    def promised(self) -> float:
        """The least rate of false alarms that the held-out pictures alone promise; 1 if they are parts of pictures."""
        return 1 / (len(self.held_out) + 1) if self.parts == 1 else 1.0

    def surprise(self, readings: NDArray[np.floating[Any]]) -> Floats:
        """How surprising readings (K, ...) are, (...), 0 or more: -log10 of FIRST times the estimated p-value."""
        location, scale, freedom = self._law
        shape = (-1,) + (1,) * (np.ndim(readings) - 1)
        return _most((_log(readings) - location.reshape(shape)) / scale.reshape(shape), freedom)

    def p_values(self, surprises: NDArray[np.floating[Any]]) -> Floats:
        """The share of good pictures that are as surprising, in (0, 1], of each of several surprises."""
        each = np.minimum(10.0 ** -np.asarray(surprises, dtype=np.float64) / FIRST, 1 - 1e-16)
        estimate = np.clip(-np.expm1(self.parts * np.log1p(-each)), 10**-MOST_SURPRISE, self.promised)
        if self.parts != 1:
            return estimate
        ordered, count = self.surprises, len(self.held_out)
        at_least = count - np.searchsorted(ordered, surprises, side="left")
        above, below = ordered[-np.maximum(at_least, 1)], ordered[-np.minimum(at_least + 1, count)]
        part = (above - surprises) / np.where(above > below, above - below, 1.0)
        ranked = np.where(at_least < count, (at_least + part) / (count + 1), 1.0)
        return np.where(at_least > 0, ranked, estimate)

    def p_value(self, surprise: float) -> float:
        """`p_values` of one."""
        return float(self.p_values(np.array([surprise]))[0])

    def threshold(self, rate: float) -> float:
        """The greatest surprise whose `p_value` is above `rate`; a picture beyond it is called defective."""
        count = len(self.held_out)
        rank, part = divmod(rate * (count + 1) + 1e-9, 1) if self.parts == 1 else (0, 0)
        if rank:
            above, below = (float(self.surprises[-min(int(rank) + step, count)]) for step in (0, 1))
            return max(above + part * (below - above), LEAST)
        each = -math.expm1(math.log1p(-rate) / self.parts)
        estimate = max(-math.log10(FIRST * each), LEAST)
        return max(estimate, float(self.surprises[-1])) if self.parts == 1 else estimate

    def thresholds(self, rate: float) -> tuple[float, ...]:
        """`threshold` in each reading's own unit, (K,): a picture passes it if one of its readings passes its own."""
        location, scale, freedom = self._law
        shared = _shared(len(location))
        logs = location - scale * special.stdtrit(freedom, 10.0 ** (shared - self.threshold(rate)))
        return tuple(np.exp(np.minimum(logs, MOST_LOG)).tolist())

    def relief(self, rate: float) -> float:
        """What share the first threshold would be of itself without the most surprising held-out picture."""
        if len(self.held_out) == 1:
            return 1.0
        loudest = int(self.held_out_surprises.argmax())
        others = replace(self, held_out=self.held_out[:loudest] + self.held_out[loudest + 1 :])
        return others.thresholds(rate)[0] / self.thresholds(rate)[0]

    @cached_property
    def surprises(self) -> Floats:
        """Of the held-out pictures, in rising order: each as the others see it."""
        return np.sort(self.held_out_surprises)

    @cached_property
    def held_out_surprises(self) -> Floats:
        """The same in the order of the pictures."""
        count = len(self.held_out)
        if count == 1:
            return np.array([-math.log10(0.5)])  # nothing is known of it but that it is as good as another
        logs, (mean, squares, freedom) = _log(np.array(self.held_out)), self._moments
        apart = (logs - mean) * count / (count - 1)  # from the mean of the others
        others = (squares - apart**2 * (count - 1) / count) / (freedom - 1)
        return _most((apart / np.sqrt(others * (1 + 1 / (count - 1)))).T, freedom - 1)

    @cached_property
    def _law(self) -> tuple[Floats, Floats, float]:
        """Location and scale (K,) and degrees of freedom of the next logarithm of each reading: Student's t.

        The predictive law of one more normal observation, its mean known from the held-out pictures alone, its variance
        from both groups and PRIOR_WEIGHT observations of PRIOR_SPREAD.
        """
        mean, squares, freedom = self._moments
        return mean, np.sqrt(squares / freedom * (1 + 1 / len(self.held_out))), freedom

    @cached_property
    def _moments(self) -> tuple[Floats, Floats, float]:
        """Mean of the held-out logarithms (K,), squares of all about their groups' means with the prior's, freedom."""
        groups = [_log(np.array(rows)) for rows in (self.held_out, self.learnt) if rows]
        squares = np.sum([np.square(group - group.mean(0)).sum(0) for group in groups], axis=0)
        freedom = PRIOR_WEIGHT + sum(len(group) - 1 for group in groups)
        return groups[0].mean(0), squares + PRIOR_WEIGHT * PRIOR_SPREAD**2, freedom


def _most(deviations: Floats, freedom: float) -> Floats:
    """The surprise of the most surprising of several readings (K, ...), given in scales beyond their locations."""
    with np.errstate(divide="ignore"):  # beyond all numbers
        each = -np.log10(special.stdtr(freedom, -deviations))
    each = (each.T + _shared(len(each))).T
    most: Floats = np.clip(each.max(0), 0.0, MOST_SURPRISE)
    return most


def _shared(count: int) -> Floats:
    """What is added to the surprise of each reading, for the share of the false alarms that it may cause."""
    added = np.zeros(count)
    added[1:] = math.log10((1 - FIRST) / max(count - 1, 1) / FIRST)
    return added


def _log(readings: NDArray[np.floating[Any]]) -> Floats:
    logs: Floats = np.log(np.maximum(readings, LEAST, dtype=np.float64))
    return logs
