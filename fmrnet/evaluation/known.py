"""What a model makes of known defective pictures: how many it finds, which it misses, and what missing none would cost.

Nothing is learnt from these pictures; the user may choose another rate of false alarms for what they show.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrnet.errors import DatasetError
from fmrnet.evaluation.examples import GOOD, Example, few

if TYPE_CHECKING:
    from fmrnet.inspection.calibration import Calibration

__all__ = ["Known", "check_not_good", "known_defects"]

CONFIDENCE = 0.95
DIGITS = 3  # of the rate that misses none, rounded up


@dataclass(frozen=True)
class Known:
    """Known defective pictures at the rate of false alarms in force.

    Attributes
    ----------
    pictures, found : int
    interval : (low, high), or None without pictures
        Of the share found, with 95 % confidence (Clopper and Pearson).
    false_alarms : float
        The rate in force.
    missed : tuple of (name, p-value), the greatest p-value first
    rate : float, or None
        The least rate of false alarms at which none would be missed: the greatest p-value of them, rounded up. None if
        no rate below 1 does.
    promise : str
        What a calibration promises at that rate; else empty.
    """

    pictures: int
    found: int
    interval: tuple[float, float] | None
    false_alarms: float
    missed: tuple[tuple[str, float], ...]
    rate: float | None
    promise: str

    def to_dict(self) -> dict[str, Any]:
        """The values, JSON-ready."""
        return dataclasses.asdict(self)

    def sentences(self) -> list[str]:
        """How many are found, and what missing none would cost."""
        if self.interval is None:
            return []
        low, high = self.interval
        said = [
            f"at a rate of false alarms of {self.false_alarms:g}, {self.found} of {self.pictures} known defective "
            f"pictures are found: {self.found / self.pictures:.0%} (95 % interval {low:.0%} to {high:.0%})"
        ]
        if self.rate is None:
            said.append(
                "no rate of false alarms misses none of them: one scores no more than any good picture"
            )
            return said
        least = "would still miss none of them" if not self.missed else "would miss none of them"
        said.append(
            f"--false-alarms {self.rate:g} {least}: {self.promise}. It is chosen on these {self.pictures}: of the next "
            f"ones like them about {self.pictures} in {self.pictures + 1} would be found"
        )
        return said


def known_defects(each: Iterable[dict[str, Any]], calibration: Calibration) -> Known:
    """What is found of the defective pictures among those that an `Evaluation` has inspected, its `each`."""
    from scipy import stats

    defective = [entry for entry in each if entry["class"] != GOOD]
    found = sum(entry["defective"] for entry in defective)
    missed = [
        (str(entry["picture"]), float(entry["p_value"])) for entry in defective if not entry["defective"]
    ]
    greatest = max((float(entry["p_value"]) for entry in defective), default=1.0)
    rate = _rounded_up(greatest)
    interval = None
    if defective:
        bounds = stats.binomtest(found, len(defective)).proportion_ci(CONFIDENCE, "exact")
        interval = float(bounds.low), float(bounds.high)
    return Known(
        len(defective),
        found,
        interval,
        calibration.false_alarms,
        tuple(sorted(missed, key=lambda one: -one[1])),
        rate,
        "" if rate is None else calibration.at(rate).promise,
    )


def check_not_good(defective: Sequence[Example], good: Iterable[Path]) -> None:
    """Raise DatasetError, which names them, if defective pictures are given as good, too: the same file or a copy."""
    sizes: dict[int, list[Path]] = {}
    for path in good:
        if path.is_file():  # what is none is named by whoever reads it
            sizes.setdefault(path.stat().st_size, []).append(path)
    both = []
    for picture in (example.picture for example in defective if example.picture.is_file()):
        digest = None
        for path in sizes.get(picture.stat().st_size, []):
            digest = digest or _digest(picture)
            if _digest(path) == digest:
                both.append(f"{picture} (as good: {path})")
                break
    if both:
        raise DatasetError(
            f"{len(both)} defective pictures are given as good, too: {few(both, 3)}; "
            "take them out of one of the folders"
        )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rounded_up(rate: float) -> float | None:
    """The rate with a few digits, never less; None if that is 1."""
    step = 10.0 ** (math.floor(math.log10(rate)) - DIGITS + 1)
    rounded = float(f"{math.ceil(rate / step) * step:.{DIGITS}g}")
    while rounded < rate:
        rounded = float(f"{rounded + step:.{DIGITS}g}")
    return rounded if rounded < 1 else None
