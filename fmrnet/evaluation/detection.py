"""The probability of detection of a defect against its size, as non-destructive testing states it: a90 and a90/95.

A picture's defect is found or missed. The logarithm of the odds of a hit is taken to be linear in the logarithm of
the size (MIL-HDBK-1823A, hit/miss); a90 is the size found nine times in ten. Its bound with 95 % confidence, a90/95,
comes of the profile of the likelihood ratio, one-sided. The likelihood is penalised as Firth does it (Heinze and
Schemper, 2002): the plain one has no greatest value where every defect above some size is found and every one below
missed, and its bound is too low for the few dozen defects that anybody has. Where all are found no curve is needed: the
chance of as many hits does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import log_expit, logit

__all__ = ["CONFIDENCE", "FEWEST", "SHARE", "Detection", "detection"]

SHARE, CONFIDENCE = 0.9, 0.95
FEWEST = math.ceil(math.log(1 - CONFIDENCE) / math.log(SHARE))  # 29 hits of 29: 0.9 ** 28 is more than 5 %
ALLOWED = float(stats.norm.ppf(CONFIDENCE)) ** 2 / 2  # below the greatest log-likelihood, one-sided
STEEPEST = math.log(1e3)  # logarithm of a slope in standard deviations of the logarithms of the sizes


@dataclass(frozen=True)
class Detection:
    """How the share of defects that are found grows with a measure of them, such as their area.

    Attributes
    ----------
    defects, found : int
    least, greatest : float
        Of the measure, among the defects tried. None if there is none.
    intercept, slope : float
        Log odds of a hit = intercept + slope * log(measure). None where no curve fits.
    a90 : float
        What is found nine times in ten, by estimate; `least`, if that or less. None if it is not known or more than
        `greatest`.
    a90_95 : float
        What is found nine times in ten or more with 95 % confidence; `least`, if that or less. None if none can be
        named.
    remark : str
        Why there is no `a90_95`, or what it rests on but the curve; else empty.
    """

    defects: int
    found: int
    least: float | None = None
    greatest: float | None = None
    intercept: float | None = None
    slope: float | None = None
    a90: float | None = None
    a90_95: float | None = None
    remark: str = ""


def detection(measures: Sequence[float], found: Sequence[bool]) -> Detection:
    """The probability of detection against a measure of the defects.

    Parameters
    ----------
    measures : of each defect, above 0
    found : whether it was found

    Raises
    ------
    ValueError : the two differ in length, or a measure is not above 0.
    """
    values, hits = np.asarray(measures, np.float64), np.asarray(found, np.bool_)
    if values.shape != hits.shape or not (values > 0).all():
        raise ValueError(f"{values.shape} measures above 0 expected for {hits.shape} hits and misses")
    count, number = len(hits), int(hits.sum())
    if not count:
        return Detection(0, 0, remark="no defect is known by its size")
    least, greatest = float(values.min()), float(values.max())
    few = f"{count} are too few: {FEWEST} found of {FEWEST} are the least that show it"
    if number == count:
        enough = float(np.sort(values)[FEWEST - 1]) if count >= FEWEST else None
        remark = (
            f"all are found, and {FEWEST} of them are no larger" if enough else f"all are found, but {few}"
        )
        return Detection(count, number, least, greatest, a90=least, a90_95=enough, remark=remark)
    if not number or least == greatest:
        remark = "none is found" if not number else "all are of one size"
        return Detection(count, number, least, greatest, remark=remark)
    logs = np.log(values)
    curve = _Curve(logs, hits)
    typical = {"intercept": curve.intercept, "slope": curve.slope}
    if curve.slope <= 0:
        remark = "larger ones are not found more often"
        return Detection(count, number, least, greatest, **typical, remark=remark)
    estimate = (float(logit(SHARE)) - curve.intercept) / curve.slope
    a90 = math.exp(max(estimate, logs.min())) if estimate <= logs.max() else None
    bound = curve.bound() if count >= FEWEST else None
    a90_95 = None if bound is None else math.exp(max(bound, logs.min()))
    remark = (
        "" if bound is not None else few if count < FEWEST else "the greatest are not found surely enough"
    )
    return Detection(count, number, least, greatest, **typical, a90=a90, a90_95=a90_95, remark=remark)


class _Curve:
    """A logistic curve in the logarithm of the size, fitted to hits and misses of more than one size."""

    def __init__(self, logs: NDArray[np.float64], hits: NDArray[np.bool_]) -> None:
        self._centre, self._spread = float(logs.mean()), float(logs.std())
        self._sizes, self._hits = (logs - self._centre) / self._spread, hits
        fitted = optimize.minimize(self._loss, np.zeros(2), method="Nelder-Mead")
        level, self._steepness = (float(value) for value in fitted.x)
        self._greatest = -float(fitted.fun)
        self._estimate = (float(logit(SHARE)) - level) / self._steepness
        self.slope = self._steepness / self._spread
        self.intercept = level - self.slope * self._centre

    def bound(self) -> float | None:
        """The greatest logarithm of a size whose chance the hits and misses allow to be SHARE; None beyond them all."""
        top = float(self._sizes.max())
        if self._estimate >= top or self._lack(top) <= ALLOWED:
            return None
        return float(
            optimize.brentq(lambda size: self._lack(size) - ALLOWED, self._estimate, top)
        ) * self._spread + (self._centre)

    def _lack(self, size: float) -> float:
        """By how much the likelihood is less if this size has the chance SHARE, with the slope that suits best."""
        best = optimize.minimize_scalar(
            lambda steepness: (
                -self._likelihood(float(logit(SHARE)) - math.exp(steepness) * size, math.exp(steepness))
            ),
            bounds=(-STEEPEST, STEEPEST),
            method="bounded",
        )
        return self._greatest + float(best.fun)

    def _loss(self, line: NDArray[np.float64]) -> float:
        return -self._likelihood(float(line[0]), float(line[1]))

    def _likelihood(self, level: float, steepness: float) -> float:
        """Firth's: the logarithm, and half that of the determinant of the information."""
        odds = level + steepness * self._sizes
        weights = np.exp(log_expit(odds) + log_expit(-odds))
        total, mean, square = (float((weights * self._sizes**power).sum()) for power in range(3))
        determinant = max(total * square - mean**2, 1e-300)
        return float(log_expit(np.where(self._hits, odds, -odds)).sum()) + math.log(determinant) / 2
