"""How far a figure could have been another one with other pictures: a bootstrap over pictures.

Each resample draws as many good and as many defective pictures as there are, with replacement. The draws come of SEED
and of these two numbers alone: two models that inspected the same pictures are resampled alike, so the differences of
their replicates are those of a paired bootstrap. Intervals are percentiles.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.evaluation import curves
from fmrnet.evaluation.metrics import AUPIMO_RATES, Histogram, pixel_curves, rates

__all__ = ["CONFIDENCE", "RESAMPLES", "interval", "pictures", "pixels", "record", "replicates"]

RESAMPLES, SEED, CONFIDENCE = 1000, 0, 0.95
_STEPS = 4096  # thresholds at most
_TOGETHER = 100  # resamples, so that the curves of all do not lie in memory at once
Replicates = dict[str, NDArray[np.float64]]


def interval(replicates: NDArray[np.float64]) -> tuple[float, float]:
    """Where the middle CONFIDENCE of the replicates of a figure lies."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def record(parts: Mapping[str, Replicates]) -> dict[str, Any]:
    """The replicates of figures, by the part and the name of a figure, ready for JSON: float32 in base64."""
    return {
        "resamples": RESAMPLES,
        "seed": SEED,
        "confidence": CONFIDENCE,
        "replicates": {
            f"{part}.{name}": base64.b64encode(values.astype("<f4").tobytes()).decode()
            for part, found in parts.items()
            for name, values in found.items()
        },
    }


def replicates(recorded: Mapping[str, Any]) -> Replicates:
    """What `record` has made, back again; ValueError if it was made with other settings or is damaged."""
    made = {"resamples": RESAMPLES, "seed": SEED, "confidence": CONFIDENCE}
    if any(recorded.get(name) != value for name, value in made.items()):
        raise ValueError("its resamples were drawn with other settings")
    found = {}
    for name, text in recorded["replicates"].items():
        try:
            values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        except (TypeError, ValueError):  # no base64, or not of whole numbers
            raise ValueError(f"its replicates of {name} are damaged") from None
        if values.shape != (RESAMPLES,) or not np.isfinite(values).all():
            raise ValueError(f"its replicates of {name} are damaged")
        found[name] = values.astype(np.float64)
    return found


def draws(good: int, defective: int) -> NDArray[np.float64]:
    """How often each picture is drawn, the good ones first: (RESAMPLES + 1, pictures); once each in the last row."""
    rng = np.random.default_rng((SEED, good, defective))
    parts = [
        rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) for count in (good, defective) if count
    ]
    return np.concatenate([np.concatenate(parts, 1), np.ones((1, good + defective))]).astype(np.float64)


def pictures(
    scores: NDArray[np.float64], decisions: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> Replicates:
    """Figures of pictures by name, (RESAMPLES + 1,) each, that of the pictures themselves last.

    Parameters
    ----------
    scores, decisions, truth : (pictures,), the good ones first
    """
    weights = draws(int((~truth).sum()), int(truth.sum()))
    counts = [weights @ part for part in _kinds(decisions, truth)]
    found = dict(rates(np.stack(counts, -1)))
    if truth.any() and not truth.all():
        order = np.argsort(-scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # of equal scores
        good, defective = (
            np.add.reduceat(weights[:, order] * part[order], starts, axis=1) for part in (~truth, truth)
        )
        found["roc_auc"] = curves.roc_auc(good, defective).value
        found["average_precision"] = curves.average_precision(good, defective).value
        found["f1_max"] = curves.f1_max(good, defective).value
    return found


def pixels(good: Sequence[Histogram], defective: Sequence[Histogram]) -> Replicates:
    """Figures of the pixels of pictures by name, (RESAMPLES + 1,) each, that of the pictures themselves last."""
    every = [*good, *defective]
    weights = draws(len(good), len(defective))
    counts = np.array([one.decided for one in every], np.float64)
    found = {name: [values] for name, values in rates(weights @ counts).items()}
    if defective:
        tables = _tables(every)
        regions = np.array([one.regions for one in every], np.float64)
        for some in np.array_split(weights, -(-len(weights) // _TOGETHER)):
            for name, values in _curves(some, tables, regions, len(good)).items():
                found.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in found.items()}


def _kinds(decisions: NDArray[np.bool_], truth: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Which pictures count where, in the order of `Confusion`."""
    return [decisions & truth, decisions & ~truth, ~decisions & truth, ~decisions & ~truth]


def _tables(every: Sequence[Histogram]) -> list[NDArray[np.float64]]:
    """Good and defective pixels and overlaps of each picture, (pictures, T), the highest scores first."""
    used = np.unique(np.concatenate([one.bins for one in every]))
    wide = -(-len(used) // _STEPS)
    tables = [np.zeros((len(every), -(-len(used) // wide))) for _ in range(3)]
    for row, one in enumerate(every):
        columns = (len(used) - 1 - np.searchsorted(used, one.bins)) // wide
        for table, part in zip(tables, (one.good, one.defective, one.overlap), strict=True):
            np.add.at(table[row], columns, part)
    return tables


def _curves(
    weights: NDArray[np.float64],
    tables: Sequence[NDArray[np.float64]],
    regions: NDArray[np.float64],
    number: int,
) -> Replicates:
    """Figures of some resamples; the first `number` pictures are the good ones."""
    good, defective, overlap = tables
    totals = (weights @ regions)[:, None]
    found = {
        name: area.value
        for name, area in pixel_curves(
            weights @ good, weights @ defective, weights @ overlap / totals
        ).items()
    }
    if number:
        shares = [part / part.sum(1, keepdims=True) for part in (good[:number], defective[number:])]
        drawn = [weights[:, :number], weights[:, number:]]
        x, y = (
            curves.cumulative(times @ share / len(share)) for times, share in zip(drawn, shares, strict=True)
        )
        low, high = np.log(AUPIMO_RATES)
        found["aupimo"] = curves.area_under(curves.log_rates(x, AUPIMO_RATES[0]), y, low, high).value
    return found
