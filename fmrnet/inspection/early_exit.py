"""When the early exit may let a picture go as good: of those that the pixel level would call defective, hardly any.

Learnt from pictures with synthetic defects. Of those that the pixel level flags, the early exit's p-values are
exchangeable with that of the next one, so that it passes the k-th greatest of m with a probability of k / (m + 1)
at most (split conformal risk control). The promise holds for defects like these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fmrnet.inspection.stored import Stored

__all__ = ["LOST", "EarlyExit"]

LOST = 0.01  # of the pictures that the pixel level calls defective, the share that may leave early as good


@dataclass(frozen=True)
class EarlyExit:
    """What both levels say of pictures with synthetic defects.

    Parameters
    ----------
    pixel, patch : sequences of float in (0, 1], as long as each other
        The p-values of each such picture at pixel level and at the early exit.
    """

    pixel: tuple[float, ...] = ()
    patch: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: Any) -> EarlyExit:
        """From the values that JSON holds; ArtifactError if they are not what they should be."""
        stored = Stored("exit", values, cls)
        pixel = stored.numbers("pixel", 0, 1)
        return cls(pixel, stored.numbers("patch", 0, 1, least_count=len(pixel), most_count=len(pixel)))

    def level(self, rate: float) -> float:
        """The p-value of the early exit beyond which a picture leaves as good, at this rate of false alarms.

        1, which no p-value is beyond, where there are too few synthetic defects to promise anything.
        """
        flagged = sorted(self._flagged(rate), reverse=True)
        rank = math.floor(LOST * (len(flagged) + 1) + 1e-9)
        return flagged[rank - 1] if rank else 1.0

    def flagged(self, rate: float) -> int:
        """How many of the pictures with synthetic defects the pixel level calls defective."""
        return len(list(self._flagged(rate)))

    def _flagged(self, rate: float) -> Iterable[float]:
        return (patch for pixel, patch in zip(self.pixel, self.patch, strict=True) if pixel <= rate)
