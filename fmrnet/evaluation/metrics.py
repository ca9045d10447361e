"""Figures over any number of pixels in fixed memory, and decisions against the truth.

Pixel scores are counted in bins of their upper 19 bits (the sign is 0), so that memory stays the same for any
number of pixels and a score is known to 1 part in 2048. Ties within a bin count half in ROC-AUC, as always; `doubt`
says how far a figure may be from that of the scores themselves, whatever their order within the bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.evaluation import curves

__all__ = ["AUPIMO_RATES", "AU_PRO_LIMITS", "Confusion", "Histogram", "PixelCounts", "pixel_curves", "rates"]

AU_PRO_LIMITS = {"au_pro": 0.3, "au_pro_05": 0.05}
AUPIMO_RATES = (1e-5, 1e-4)
_COARSER = 4  # bits fewer in what is kept of each picture: scores are known to 1 part in 128 there


@dataclass(frozen=True)
class Histogram:
    """How many pixels of one picture score in which bin; bins without pixels are left out.

    Attributes
    ----------
    bins : (n,), rising
    good, defective : (n,)
    overlap : (n,)
        Defective pixels, each weighing 1 / size of its region.
    regions : int
        Of the mask.
    decided : of four
        The counts of `Confusion`.
    """

    bins: NDArray[np.uint32]
    good: NDArray[np.uint32]
    defective: NDArray[np.uint32]
    overlap: NDArray[np.float32]
    regions: int
    decided: tuple[int, ...]


class PixelCounts:
    """Scores and decisions of pixels against the truth, counted in fixed memory (16 MB).

    Beside it, the bins of each defective picture's defect are kept, a few kB a picture, for AUPIMO.
    """

    BINS = 2**19

    def __init__(self) -> None:
        self.good = np.zeros(self.BINS, np.int64)  # defect-free pixels per bin of the score
        self.defective = np.zeros(self.BINS, np.int64)
        self.overlap = np.zeros(self.BINS)  # defective pixels, each weighing 1 / size of its region
        self.rates = np.zeros(self.BINS)  # pixels of good pictures, each weighing 1 / size of its picture
        self.regions = 0
        self.good_pictures = 0
        self.insides: list[
            tuple[NDArray[np.uint32], NDArray[np.uint32]]
        ] = []  # bins and counts of each defect
        self.confusion = Confusion()

    def add(
        self, scores: NDArray[np.float32], decision: NDArray[np.bool_], truth: NDArray[np.bool_]
    ) -> Histogram:
        """Count one picture.

        Parameters
        ----------
        scores : (H, W)
            0 or more; what is below counts as 0.
        decision, truth : (H, W)
            True is defective.

        Returns
        -------
        the picture's own counts, in bins 16 times as wide

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
        good = np.bincount(outside, minlength=self.BINS)
        defective = np.bincount(inside, minlength=self.BINS)
        overlap = np.bincount(inside, weights=inverse_sizes[labels[truth]], minlength=self.BINS)
        used = np.flatnonzero(good + defective)
        good, defective, overlap = good[used], defective[used], overlap[used]
        self.good[used] += good
        self.defective[used] += defective
        self.overlap[used] += overlap
        self.regions += regions
        if regions:
            self.insides.append(
                (used[defective > 0].astype(np.uint32), defective[defective > 0].astype(np.uint32))
            )
        else:
            self.rates[used] += good / truth.size
            self.good_pictures += 1
        decided = Confusion()
        decided.add(decision, truth)
        self.confusion += decided
        wide, starts = np.unique(used >> _COARSER, return_index=True)
        return Histogram(
            wide.astype(np.uint32),
            np.add.reduceat(good, starts).astype(np.uint32),
            np.add.reduceat(defective, starts).astype(np.uint32),
            np.add.reduceat(overlap, starts).astype(np.float32),
            regions,
            tuple(vars(decided).values()),
        )

    def __add__(self, other: PixelCounts) -> PixelCounts:
        total = PixelCounts()
        total.good = self.good + other.good
        total.defective = self.defective + other.defective
        total.overlap = self.overlap + other.overlap
        total.rates = self.rates + other.rates
        total.regions = self.regions + other.regions
        total.good_pictures = self.good_pictures + other.good_pictures
        total.insides = self.insides + other.insides
        total.confusion = self.confusion + other.confusion
        return total

    def areas(self) -> dict[str, curves.Area]:
        """What `pixel_curves` says of all pixels together, with AUPIMO as the mean over the defective pictures."""
        used = self._used()
        if not len(used):
            return {}
        areas = pixel_curves(self.good[used], self.defective[used], self.overlap[used] / max(self.regions, 1))
        if (each := self.aupimo()) is not None:
            areas["aupimo"] = curves.Area(each.value.mean(), each.least.mean(), each.greatest.mean())
        return areas

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
        used = self._used()
        x, y = curves.cumulative(self.good[used]), curves.cumulative(self.overlap[used])
        return float(curves.area_under(x / x[-1], y / self.regions, 0.0, limit).value)

    def aupimo(self) -> curves.Area | None:
        """Of each defective picture, in the order in which they were added: the area under its PIMO curve.

        None without a good picture or a defective one. `reference.scoring.aupimo` says what it is.
        """
        if not self.good_pictures or not self.insides:
            return None
        low, high = np.log(AUPIMO_RATES)
        rates = np.cumsum(self.rates[::-1] / self.good_pictures)[
            ::-1
        ]  # of a threshold at the bin's lower edge
        found = []
        for bins, counts in self.insides:
            # rates and recall at both edges of each bin of the defect; between two bins only rates rise
            edges = np.unique(np.concatenate([bins, bins + 1]))[::-1]
            x = np.append(rates, 0.0)[edges]
            y = np.append(0.0, np.cumsum(counts[::-1]) / counts.sum())[
                len(bins) - np.searchsorted(bins, edges)
            ]
            x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]])
            found.append(curves.area_under(curves.log_rates(x, AUPIMO_RATES[0]), y, low, high))
        return curves.Area(
            *(np.array([getattr(one, name) for one in found]) for name in ("value", "least", "greatest"))
        )

    def roc_auc(self) -> float | None:
        """Area under the ROC curve over all pixels; None without pixels of both kinds."""
        area = self.areas().get("roc_auc")
        return None if area is None else float(area.value)

    def figures(self) -> dict[str, Any]:
        """All of the above, ready for JSON; `doubt` is the greatest error that the bins may have caused."""
        areas = self.areas()
        names = ("roc_auc", "average_precision", *AU_PRO_LIMITS, "aupimo", "f1_max")
        return {
            **{name: float(areas[name].value) if name in areas else None for name in names},
            **self.confusion.figures(),
            "doubt": {name: float(area.doubt) for name, area in areas.items()},
        }

    def _used(self) -> NDArray[np.intp]:
        """Bins with pixels, the highest first."""
        return np.flatnonzero((self.good > 0) | (self.defective > 0))[::-1]


def pixel_curves(
    good: NDArray[Any], defective: NDArray[Any], overlap: NDArray[Any]
) -> dict[str, curves.Area]:
    """Figures of pixels, by name, from counts (..., T) in falling order; empty where one of both kinds is missing.

    `overlap` is the mean share of the regions that a step adds: it sums up to 1.
    """
    if not good.any() or not defective.any():
        return {}
    x, y = curves.cumulative(good), curves.cumulative(overlap)
    return {
        "roc_auc": curves.roc_auc(good, defective),
        "average_precision": curves.average_precision(good, defective),
        **{name: curves.area_under(x / x[..., -1:], y, 0.0, limit) for name, limit in AU_PRO_LIMITS.items()},
        "f1_max": curves.f1_max(good, defective),
    }


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
        """Precision, recall, F1 and false positive rate (0 where they are a share of nothing), and the four counts."""
        counts = np.array(list(vars(self).values()), np.float64)
        return {**{name: float(value) for name, value in rates(counts).items()}, **vars(self)}


def rates(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall, F1 and false positive rate of counts (..., 4) in the order of `Confusion`; 0 of nothing."""
    hits, alarms, misses, passed = np.moveaxis(counts, -1, 0)

    def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)

    return {
        "precision": share(hits, hits + alarms),
        "recall": share(hits, hits + misses),
        "f1": share(2 * hits, 2 * hits + alarms + misses),
        "false_positive_rate": share(alarms, alarms + passed),
    }
