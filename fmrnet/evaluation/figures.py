"""Figures of pictures and of pixels with their intervals, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.evaluation import resampling
from fmrnet.evaluation.examples import GOOD
from fmrnet.evaluation.metrics import AU_PRO_LIMITS, Confusion, Histogram, PixelCounts

__all__ = ["picture_figures", "pixel_figures"]

Figures = tuple[dict[str, Any], dict[str, NDArray[np.float64]]]


def picture_figures(each: Sequence[dict[str, Any]], prefix: str = "") -> Figures:
    """Decisions about whole pictures, and replicates; a score is a multiple of its threshold: above 1 is defective."""
    each = sorted(each, key=_place)
    truth = np.array([entry["class"] != GOOD for entry in each], np.bool_)
    decisions = np.array([entry[f"{prefix}defective"] for entry in each], np.bool_)
    scores = np.array([entry[f"{prefix}score"] for entry in each], np.float64)
    confusion = Confusion()
    confusion.add(decisions, truth)
    curves = dict.fromkeys(("roc_auc", "average_precision", "f1_max"))
    replicates = resampling.pictures(scores, decisions, truth) if len(each) else {}
    figures = {
        **curves,
        **{name: float(values[-1]) for name, values in replicates.items()},
        **confusion.figures(),
    }
    if not truth.any():
        figures = _without(figures, "precision", "recall", "f1")
    elif truth.all():
        figures = _without(figures, "precision", "f1")
    if truth.all():
        figures = _without(figures, "false_positive_rate")
    return _with_intervals(figures, replicates, int((~truth).sum()), int(truth.sum()))


def pixel_figures(counts: PixelCounts, good: Sequence[Histogram], defective: Sequence[Histogram]) -> Figures:
    """Figures of the pixels of good pictures and of some defective ones with masks, and replicates.

    `counts` holds them all together. What no mask tells is None.
    """
    figures = counts.figures()
    doubt = figures.pop("doubt")
    replicates = resampling.pixels(good, defective) if good or defective else {}
    if not defective:
        figures = _without(figures, "precision", "recall", "f1")
    figures, replicates = _with_intervals(figures, replicates, len(good), len(defective))
    return {**figures, "doubt": doubt, "au_pro_limits": AU_PRO_LIMITS}, replicates


def _with_intervals(
    figures: dict[str, Any], replicates: dict[str, NDArray[np.float64]], good: int, defective: int
) -> Figures:
    """The figures with their intervals, and the replicates around them, without that of the pictures themselves."""
    around = {}
    if 1 not in (good, defective):
        for name, values in replicates.items():
            if figures.get(name) is not None:
                around[name] = np.clip(values[:-1] - values[-1] + figures[name], 0, 1)
    intervals = {name: list(resampling.interval(values)) for name, values in around.items()}
    return {**figures, "intervals": intervals}, around


def _place(entry: dict[str, Any]) -> tuple[bool, str]:
    """Good pictures first, each by its name: the order in which they are resampled."""
    return entry["class"] != GOOD, entry["picture"]


def _without(figures: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same figures, those of these names None: there is nothing that they could be a share of."""
    return {**figures, **dict.fromkeys(names)}
