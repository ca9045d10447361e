"""Figures over any number of pixels in fixed memory, and decisions against the truth.

Pixel scores are counted in bins of their upper 19 bits (the sign is 0), so that memory stays the same for any
number of pixels and a score is known to 1 part in 2048. Ties within a bin count half in ROC-AUC, as always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Confusion", "PixelCounts", "roc_auc"]


class PixelCounts:
    """Scores and decisions of pixels against the truth, counted in fixed memory (12 MB)."""

    BINS = 2**19

    def __init__(self) -> None:
        self.good = np.zeros(self.BINS, np.int64)  # defect-free pixels per bin of the score
        self.defective = np.zeros(self.BINS, np.int64)
        self.overlap = np.zeros(self.BINS)  # defective pixels, each weighing 1 / size of its region
        self.regions = 0
        self.confusion = Confusion()

    def add(self, scores: NDArray[np.float32], decision: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Count one picture.

        Parameters
        ----------
        scores : (H, W)
            0 or more; what is below counts as 0.
        decision, truth : (H, W)
            True is defective.

        Raises
        ------
        ValueError
            The shapes differ, or a score is NaN or infinite; nothing is counted then.
        """
        from scipy import ndimage

        if not scores.shape == decision.shape == truth.shape:
            raise ValueError(
                f"scores of shape {scores.shape}, decision {decision.shape}, truth {truth.shape}"
            )
        if not np.isfinite(scores).all():
            raise ValueError("the anomaly map holds NaN or infinity; the model does not fit this picture")
        bins = np.maximum(scores, np.float32(0)).astype(np.float32).view(np.uint32) >> 12
        labels, regions = ndimage.label(truth, structure=np.ones((3, 3)))
        inverse_sizes = 1 / np.maximum(np.bincount(labels.ravel(), minlength=regions + 1), 1)
        inside, outside = bins[truth], bins[~truth]
        self.good += np.bincount(outside, minlength=self.BINS)
        self.defective += np.bincount(inside, minlength=self.BINS)
        self.overlap += np.bincount(inside, weights=inverse_sizes[labels[truth]], minlength=self.BINS)
        self.regions += regions
        self.confusion.add(decision, truth)

    def __add__(self, other: PixelCounts) -> PixelCounts:
        total = PixelCounts()
        total.good = self.good + other.good
        total.defective = self.defective + other.defective
        total.overlap = self.overlap + other.overlap
        total.regions = self.regions + other.regions
        total.confusion = self.confusion + other.confusion
        return total

    def roc_auc(self) -> float | None:
        """Area under the ROC curve over all pixels; None without pixels of both kinds."""
        return roc_auc(
            scores=np.concatenate([np.arange(self.BINS)] * 2),
            labels=np.repeat([0, 1], self.BINS),
            weights=np.concatenate([self.good, self.defective]),
        )

    def au_pro(self, limit: float = 0.3) -> float | None:
        """Area under the per-region overlap curve up to a false positive rate of `limit`, divided by it.

        None without a defective region or a good pixel. Regions connect over edges and corners.

        Raises
        ------
        ValueError
            The limit is not above 0 and at most 1.
        """
        if not 0 < limit <= 1:
            raise ValueError(f"limit is {limit!r}; expected a false positive rate above 0, at most 1")
        if not self.regions or not self.good.any():
            return None
        used = np.flatnonzero((self.good > 0) | (self.defective > 0))[::-1]
        x = np.concatenate([[0.0], np.cumsum(self.good[used]) / self.good.sum()])
        y = np.concatenate([[0.0], np.cumsum(self.overlap[used]) / self.regions])
        inside = x <= limit
        at_limit = np.interp(limit, x, y)
        x, y = np.append(x[inside], limit), np.append(y[inside], at_limit)
        return float(np.trapezoid(y, x) / limit)

    def figures(self, limit: float = 0.3) -> dict[str, Any]:
        """All of the above, ready for JSON."""
        return {"roc_auc": self.roc_auc(), "au_pro": self.au_pro(limit), **self.confusion.figures()}


@dataclass
class Confusion:
    """Decisions against the truth: how many of each of the four kinds."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    true_negatives: int = 0

    def add(self, decision: NDArray[np.bool_] | bool, truth: NDArray[np.bool_] | bool) -> None:
        """Count decisions about as many pixels or pictures."""
        decision, truth = np.asarray(decision), np.asarray(truth)
        self.true_positives += int((decision & truth).sum())
        self.false_positives += int((decision & ~truth).sum())
        self.false_negatives += int((~decision & truth).sum())
        self.true_negatives += int((~decision & ~truth).sum())

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def figures(self) -> dict[str, Any]:
        """Precision, recall and F1 (0 where they are a share of nothing), and the four counts."""
        hits = self.true_positives
        marked, real = hits + self.false_positives, hits + self.false_negatives
        return {
            "precision": hits / marked if marked else 0.0,
            "recall": hits / real if real else 0.0,
            "f1": 2 * hits / (marked + real) if marked + real else 0.0,
            **vars(self),
        }


def roc_auc(scores: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any]) -> float | None:
    """Area under the ROC curve of weighted scores; None where the labels are all alike."""
    values, places = np.unique(scores, return_inverse=True)
    good, defective = (np.bincount(places, weights * (labels == kind), len(values)) for kind in (0, 1))
    if not good.any() or not defective.any():
        return None
    below = np.cumsum(good) - good / 2  # ties count half
    return float(defective @ below / (defective.sum() * good.sum()))
