"""Pictures given as good that are unlike the others: named, and left out of the thresholds.

A single defective picture among eight good ones would double the threshold, and most defects would pass. Who gave the
pictures is told which they are and where to look, and decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.inspection.limits import Limits, Look
from fmrnet.inspection.stored import Stored

__all__ = ["FEWEST", "Suspect", "loud", "most", "odd"]

FEWEST = 5  # of fewer pictures none can be said to be unlike the others
SHARE = 20  # no more than one picture in so many, or one, is left out: more of a kind are a kind of good ones
DEVIATIONS = 4.0  # from the typical picture's alarm, on a logarithmic scale
LEAST_TIMES = 1.5  # the typical alarm; the loudest of sixty good pictures comes to 1.6
CONSISTENT = 1.4826  # makes a median distance of the normal distribution's deviation
LEAST = 1e-12  # an alarm of 0 has no logarithm


@dataclass(frozen=True)
class Suspect:
    """A picture given as good that is unlike the others, and the part of it to look at, in pixels."""

    picture: str
    reason: str
    row: int
    column: int
    height: int
    width: int

    @classmethod
    def from_dict(cls, values: Any) -> Suspect:
        """From the values that JSON holds; ArtifactError if they are not what they should be."""
        stored = Stored("suspect", values, cls)
        rows_and_columns = (stored.count(name, least=0) for name in ("row", "column", "height", "width"))
        return cls(stored.text("picture"), stored.text("reason"), *rows_and_columns)

    def __str__(self) -> str:
        return (
            f"{self.picture}: {self.reason}, rows {self.row} to {self.row + self.height - 1}, "
            f"columns {self.column} to {self.column + self.width - 1}"
        )


def loud(alarms: Sequence[float]) -> dict[int, float]:
    """Which of the pictures' greatest alarms stand out, loudest first, and how many times the typical one they are.

    Those more than DEVIATIONS robust standard deviations and LEAST_TIMES above the median, on a logarithmic scale; none
    of fewer than FEWEST. What a few are moves neither median nor deviation.
    """
    if len(alarms) < FEWEST:
        return {}
    values = np.log(np.maximum(np.asarray(alarms, dtype=np.float64), LEAST))
    above: NDArray[np.float64] = values - np.median(values)
    deviation = CONSISTENT * np.median(np.abs(above))
    least = max(DEVIATIONS * deviation, np.log(LEAST_TIMES))
    return {int(i): float(np.exp(above[i])) for i in np.argsort(-above, kind="stable") if above[i] > least}


def most(count: int) -> int:
    """How many of so many pictures may be left out."""
    return max(1, count // SHARE)


def odd(looks: Sequence[Look]) -> dict[int, str]:
    """Which of the looks pass the limits about all the others, and which limit; none of fewer than FEWEST."""
    if len(looks) < FEWEST:
        return {}
    found: dict[int, str] = {}
    for number in sorted(_outermost(looks)):
        others = [seen for other, seen in enumerate(looks) if other != number]
        passed = Limits.around(others, distances=[0.0], shares=[0.0]).passed_by(looks[number])
        if passed:
            found[number] = max(passed, key=lambda limit: limit.times).reason
    return found if len(found) <= most(len(looks)) else {}


def _outermost(looks: Sequence[Look]) -> set[int]:
    """The looks at either end of each measure: only these can pass the limits about the others."""
    measures = np.array([(*seen.level, seen.deviation, *seen.contrasts) for seen in looks])
    return set(measures.argmin(0).tolist()) | set(measures.argmax(0).tolist())
