"""Figures of a score against the truth, from counts at falling thresholds; many resamples at once.

Counts stand along the last axis, from the highest threshold to the lowest: how many good and how many defective ones
score in each step. Ties, or what was counted in one bin, are one step: the curve through it is straight. What order
within the bins could change at most is told by `doubt`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Area", "area_under", "average_precision", "cumulative", "f1_max", "log_rates", "roc_auc"]

Numbers = NDArray[Any]


class Area:
    """An area under a curve, and the least and the greatest that other orders within its steps could give."""

    def __init__(self, value: Numbers, least: Numbers, greatest: Numbers) -> None:
        self.value, self.least, self.greatest = value, least, greatest

    @property
    def doubt(self) -> Numbers:
        """How far the value may be from that of the scores themselves."""
        found: Numbers = np.maximum(self.greatest - self.value, self.value - self.least)
        return found


def cumulative(counts: Numbers) -> Numbers:
    """Counts at or above each threshold, 0 before the first: (..., T) -> (..., T + 1), float64."""
    counts = np.asarray(counts, np.float64)
    return np.concatenate([np.zeros((*counts.shape[:-1], 1)), np.cumsum(counts, -1)], -1)


def area_under(x: Numbers, y: Numbers, low: float, high: float) -> Area:
    """Area under the straight lines through (x, y) from x = low to x = high, as a share of that under y = 1.

    Parameters
    ----------
    x, y : (..., T), rising
    """
    left, right = (np.clip(part, low, high) for part in (x[..., :-1], x[..., 1:]))
    width = np.where(right > left, right - left, 0.0)
    across = np.where(width > 0, x[..., 1:] - x[..., :-1], 1.0)
    middle = np.where(width > 0, (left + right) / 2 - x[..., :-1], 0.0) / across
    first, last = y[..., :-1], y[..., 1:]
    total = high - low
    return Area(
        (width * (first + middle * (last - first))).sum(-1) / total,
        (width * first).sum(-1) / total,
        (width * last).sum(-1) / total,
    )


def log_rates(rates: Numbers, low: float) -> Numbers:
    """Logarithms of rates, for an area from `low` on: 0, which has none, counts as `low`."""
    found: Numbers = np.log(np.where(rates > 0, rates, low))
    return found


def roc_auc(good: Numbers, defective: Numbers) -> Area:
    """Area under the ROC curve of counts (..., T) in falling order; both kinds are there."""
    x, y = cumulative(good), cumulative(defective)
    return area_under(x / x[..., -1:], y / y[..., -1:], 0.0, 1.0)


def average_precision(good: Numbers, defective: Numbers) -> Area:
    """Precision at each threshold, weighed by what recall gains there (no interpolation); defective ones are there."""
    x, y = cumulative(good), cumulative(defective)
    gained = np.diff(y, axis=-1) / y[..., -1:]
    one = np.minimum(1.0, np.diff(y, axis=-1))  # the first of a step to be found
    found = []
    for hits, alarms in (
        (y[..., 1:], x[..., 1:]),
        (y[..., :-1] + one, x[..., 1:]),
        (y[..., 1:], x[..., :-1]),
    ):
        total = hits + alarms
        found.append((gained * np.divide(hits, total, out=np.zeros_like(total), where=total > 0)).sum(-1))
    return Area(*found)


def f1_max(good: Numbers, defective: Numbers) -> Area:
    """The greatest F1 of any threshold; defective ones are there."""
    x, y = cumulative(good), cumulative(defective)
    real = y[..., -1:]
    at_steps = (2 * y / (y + x + real)).max(-1)
    within = (2 * y[..., 1:] / (y[..., 1:] + x[..., :-1] + real)).max(-1)
    return Area(at_steps, at_steps, np.maximum(at_steps, within))
