"""Whether a line has drifted: what a batch of pictures looks like and scores, beside what good pictures do.

Each measure is compared by its ranks (Mann and Whitney, 1947), upwards and downwards, after those pictures of the batch
are left out that speak for a drift most: a quarter for a look, half for the scores. So a batch is not told as drift
whose defective pictures are fewer than these, whatever they look like; nor for a shift that is small beside what good
pictures differ by, as those of one lot do. Of all measures' p-values together (Holm, 1979), at most FALSE_RATE of
batches that come from where the good pictures come from are told. The order of the pictures says nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import ConfigError
from fmrnet.inspection.limits import LEAST_CONTRAST, LEAST_LIGHT, Look

if TYPE_CHECKING:
    from fmrnet.inspection.calibration import Calibration

__all__ = ["FALSE_RATE", "Change", "Drift", "drift"]

FALSE_RATE = 0.001  # of batches of good pictures as they were, the share that may be told as drift
LEFT_OUT = 0.25  # of the batch, those that speak for a drift most: so many may be defective
LEFT_OUT_OF_SCORES = 0.5  # a defect raises the score, where it hardly changes a look
PAIRS = (
    10_000  # of a picture and a good one: up to so many the p-value is exact, beyond it is the normal law's
)
MOST = 1_000  # pictures; of more, evenly spaced ranks count, which say as much
FEW = 10  # pictures: up to here a drift must be plain to be told, and that none is told says little
LEAST_P = 1e-300
SCORE = "score"
CAUSES = {  # of a measure that is lower and higher, what to do
    "brightness": (
        "clean lamp and lens, check the exposure",
        "check the exposure and for light from elsewhere",
    ),
    "red against green": ("check the lamp and the white balance",) * 2,
    "blue against green": ("check the lamp and the white balance",) * 2,
    "contrast": ("clean the lens, check for stray light", "check where the light comes from"),
    "sharpness": ("check focus and distance, clean the lens", "check for noise, and the distance"),
    "grain": ("check distance and focus", "check distance and noise"),
    SCORE: (
        "defects may score less, too",
        "look at the overlays: if most of the pictures are defective, this is no drift",
    ),
}


@dataclass(frozen=True)
class Change:
    """A measure that is no longer as in the good pictures.

    Attributes
    ----------
    measure : str
        Its name, a key of CAUSES.
    p_value : float
        Of batches without a drift, at most this share differ as much in any measure.
    seen, good : float
        Medians of the pictures seen and of the good ones.
    """

    measure: str
    p_value: float
    seen: float
    good: float

    def __str__(self) -> str:
        higher = self.seen > self.good
        return (
            f"{self.measure} is {'higher' if higher else 'lower'} than in the good pictures "
            f"(median {self.seen:.3g}, was {self.good:.3g}; p = {self.p_value:.1g}): {CAUSES[self.measure][higher]}"
        )


@dataclass(frozen=True)
class Drift:
    """What a batch of pictures says of the line.

    Attributes
    ----------
    pictures, good : int
        How many were seen, and how many good ones they are compared with.
    measures : tuple of str
        What is compared: where pictures are so few that the plainest drift of a measure could be chance, it is not.
    p_value : float
        Of batches without a drift, at most this share differ as much; 1 where nothing is compared.
    needed : int, or None
        How many pictures must be seen to tell any drift; None if no number would do, for want of good ones.
    changes : tuple of Change
        The measures that drifted, the surest first.
    """

    pictures: int
    good: int
    measures: tuple[str, ...]
    p_value: float
    needed: int | None
    changes: tuple[Change, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether the line has drifted."""
        return bool(self.changes)

    def lines(self, model: object = "MODEL") -> Iterator[str]:
        """What there is to say, line by line; `model` is the file to calibrate anew."""
        if not self.pictures:
            return
        among, are = f"{self.pictures} pictures beside {self.good} good ones", "are"
        if self.pictures == 1:
            among, are = among.replace("1 pictures", "1 picture", 1), "is"
        if self.changes:
            yield f"the line has drifted, by {among}:"
            yield from (f"  {change}" for change in self.changes)
            yield f"  if pictures are to be like these from now on: fmrnet calibrate {model} GOOD"
        elif self.measures and min(self.pictures, self.good) < FEW:
            yield f"{among} {are} too few to tell a drift, unless it is a plain one: none is seen"
        elif self.measures:
            yield f"no drift of {', '.join(self.measures)} to tell, by {among} (p = {self.p_value:.2g})"
        elif self.needed is None:
            yield f"no drift can be told by so few good pictures ({self.good}); calibrate on more"
        else:
            yield f"a drift cannot be told by {among}; {self.needed} pictures would do"

    def to_dict(self) -> dict[str, Any]:
        """The values and the verdict, JSON-ready."""
        changes = [dataclasses.asdict(change) | {"says": str(change)} for change in self.changes]
        found = dataclasses.asdict(self) | {"changes": changes}
        return {"drifted": self.drifted, "false_rate": FALSE_RATE, **found}


def drift(calibration: Calibration, looks: Sequence[Look], scores: Sequence[float]) -> Drift:
    """Compare pictures with the good ones of a calibration. A test of the whole batch, to be made once.

    Parameters
    ----------
    calibration : Calibration
        Where parts of pictures were held out, the greater part of each picture counts, and scores are not compared:
        parts of one picture tell no more than one does, and score less than whole ones.
    looks : sequence of Look
        Of the pictures inspected, in any order: `Result.look`.
    scores : sequence of float, as many
        The greatest patch score of each, which every level gives: `Result.patch_scores.max()`.

    Raises
    ------
    ConfigError
        If there are not as many scores as looks, or they are of another number of channels than the calibration's.
    """
    if len(looks) != len(scores):
        raise ConfigError(f"{len(scores)} scores of {len(looks)} pictures: expected one of each")
    channels = len(calibration.limits.level)
    if other := {len(look.level) for look in looks} - {channels}:
        raise ConfigError(f"pictures of {min(other)} channels: expected {channels}, as the good ones have")
    whole = calibration.patch.parts == 1
    measures = _measures(channels)
    groups = [
        (tuple(measures), _values(measures, looks), _values(measures, calibration.whole_looks), LEFT_OUT)
    ]
    if whole:
        good = np.array([[readings[0] for readings in calibration.patch.held_out]])  # as `scores` are
        groups.append(((SCORE,), np.array([scores], dtype=np.float64), good, LEFT_OUT_OF_SCORES))
    tests = 2 * sum(len(names) for names, *_ in groups)
    sizes = {(good.shape[1], left_out) for _, _, good, left_out in groups}
    needed = next((n for n in range(1, MOST + 1) if _least(n, sizes, tests) <= FALSE_RATE), None)
    compared: dict[str, tuple[float, float, float]] = {}  # p-value, and the medians
    for names, seen, good, left_out in groups:
        if _least(len(looks), {(good.shape[1], left_out)}, tests) <= FALSE_RATE:
            rows = zip(
                _p_values(seen, good, left_out), np.median(seen, axis=1), np.median(good, axis=1), strict=True
            )
            compared |= {name: (float(p), float(now), float(was)) for name, (p, now, was) in zip(names, rows)}
    p_values = _holm([p for p, _, _ in compared.values()])
    changes = [
        Change(name, p, now, was)
        for (name, (_, now, was)), p in zip(compared.items(), p_values, strict=True)
        if p <= FALSE_RATE
    ]
    changes.sort(key=lambda change: change.p_value)
    return Drift(
        len(looks),
        len(calibration.whole_looks),
        tuple(compared),
        min(p_values, default=1.0),
        needed,
        tuple(changes),
    )


def _measures(channels: int) -> dict[str, Callable[[Look], float]]:
    """Each look's measures by name: ratios, so that one cause moves few of them."""

    def ratio(part: float, whole: float, least: float) -> float:
        return (part + least) / (whole + least)

    found: dict[str, Callable[[Look], float]] = {"brightness": lambda look: float(np.mean(look.level))}
    if channels == 3:
        found["red against green"] = lambda look: ratio(look.level[0], look.level[1], LEAST_LIGHT)
        found["blue against green"] = lambda look: ratio(look.level[2], look.level[1], LEAST_LIGHT)
    return found | {
        "contrast": lambda look: look.deviation / (float(np.mean(look.level)) + LEAST_LIGHT),
        "sharpness": lambda look: ratio(look.contrasts[0], look.contrasts[2], LEAST_CONTRAST),
        "grain": lambda look: ratio(look.contrasts[1], look.contrasts[3], LEAST_CONTRAST),
    }


def _values(measures: dict[str, Callable[[Look], float]], looks: Sequence[Look]) -> NDArray[np.float64]:
    """A row a measure, a column a picture."""
    found = [[measure(look) for look in looks] for measure in measures.values()]
    return np.array(found, dtype=np.float64)


def _p_values(seen: NDArray[np.float64], good: NDArray[np.float64], left_out: float) -> NDArray[np.float64]:
    """Of a difference either way, each way without the share of `seen` that speaks for it most: a row a measure."""
    ordered = np.sort(seen, axis=1)[:, :: math.ceil(seen.shape[1] / MOST)]
    count = _kept(ordered.shape[1], left_out)
    lower, upper = ordered[:, :count], ordered[:, -count:]
    either = _greater(np.vstack([lower, -upper]), np.vstack([good, -good])).reshape(2, -1)
    p_values: NDArray[np.float64] = np.minimum(2 * either.min(0), 1.0)
    return p_values


def _kept(count: int, left_out: float) -> int:
    return count - math.floor(left_out * count)


def _greater(seen: NDArray[np.float64], good: NDArray[np.float64]) -> NDArray[np.float64]:
    """The p-value of `seen` being greater, of each row; of values alike the good one counts as greater, to be safe."""
    from scipy import stats  # which takes longer to import than a picture to inspect

    count, pairs = seen.shape[1], seen.shape[1] * good.shape[1]
    order = np.argsort(np.hstack([seen, good]), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1).astype(np.float64)
    method: Literal["exact", "asymptotic"] = "exact" if pairs <= PAIRS else "asymptotic"
    found = stats.mannwhitneyu(
        ranks[:, :count], ranks[:, count:], alternative="greater", method=method, axis=1
    )
    p_values: NDArray[np.float64] = np.maximum(found.pvalue, LEAST_P)
    return p_values


def _holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, such that the least of them is below p with a probability of p at most."""
    order = np.argsort(p_values)
    raised = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return [float(p) for p in found]


def _least(count: int, sizes: Iterable[tuple[int, float]], tests: int) -> float:
    """The least p-value that so many pictures can give, by numbers of good ones and the shares left out."""
    kept = ((good, _kept(count, left_out)) for good, left_out in sizes)
    return min(tests / math.comb(good + seen, good) for good, seen in kept)
