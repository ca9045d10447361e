"""What no good picture looks like as a whole: limits of light, of contrast, of the distance to memory and of the mask.

A score tells how far the worst spot of a picture stands out from the rest of it. In a picture of something else nothing
stands out. What a picture is like as a whole therefore has limits of its own, from good pictures alone, and so generous
that no ordinary picture comes near them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmrnet.errors import ArtifactError
from fmrnet.inspection.stored import Stored

__all__ = ["Limits", "Look", "Passed", "few_bits", "look"]

BLOCK = 32  # pixels; contrast is taken within such blocks, where light hardly changes
STEP = 2  # every second pixel of a block, across and down, tells its contrast well enough
MARGIN = math.log(
    2
)  # beyond the good pictures' range of light and distance: twice, or half, what any of them has
CONTRAST_MARGIN = math.log(3)  # noise in a tenth of the pixels may double the contrast, and is no defect
LEAST_LIGHT = 0.02  # added to brightness and to what it lacks to 1, for near black no ratio means much
LEAST_CONTRAST = 1 / 255  # added to contrast, one step of 8 bits
LEAST_DISTANCE, GREATEST_DISTANCE = 1e-12, 1e9  # between latents
MOST_CONTRAST = 0.5  # of values in [0, 1], half of them 0 and half 1
NAMES = {1: ("brightness",), 3: ("red", "green", "blue")}
DEPTHS = (14, 12, 10)  # bits, that cameras give and files of 16 bits hold


@dataclass(frozen=True)
class Look:
    """What a picture looks like as a whole.

    Attributes
    ----------
    level : tuple of float
        Mean of each channel, in [0, 1].
    deviation : float
        Standard deviation within a block of the grey picture, the median over all blocks.
    spread : float
        Half the distance between the quartiles within a block, the median over all blocks: lone pixels, however far
        off, hardly change it.
    size : (int, int)
        Its height and width.
    """

    level: tuple[float, ...]
    deviation: float
    spread: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Passed:
    """A limit that a picture passes: how many times it does, and in words."""

    times: float
    reason: str


@torch.no_grad()
def look(picture: Tensor) -> Look:
    """The look of a picture (C, H, W) in [0, 1], at least a block large."""
    grey = picture.mean(0)
    rows, columns = (side // BLOCK for side in grey.shape)
    side = BLOCK // STEP
    cut = grey[: rows * BLOCK : STEP, : columns * BLOCK : STEP].reshape(rows, side, columns, side)
    blocks = cut.transpose(1, 2).reshape(rows * columns, side**2).sort(1).values
    quarter = side**2 // 4
    spread = (blocks[:, -1 - quarter] - blocks[:, quarter]).median() / 2
    level = picture.mean((1, 2), dtype=torch.float64)
    return Look(
        tuple(level.tolist()),
        blocks.std(1, correction=0).median().item(),
        spread.item(),
        (picture.shape[1], picture.shape[2]),
    )


@dataclass(frozen=True)
class Limits:
    """What no good picture passes.

    Attributes
    ----------
    level : tuple of (float, float)
        Least and greatest mean of each channel.
    deviation : float
        The least, within a block: below it a picture is flat.
    spread : float
        The greatest, within a block: above it a picture is rough.
    distance : float
        Greatest median of a picture's patch distances to memory.
    share : float
        Greatest share of a picture that its mask may take.
    """

    level: tuple[tuple[float, float], ...]
    deviation: float
    spread: float
    distance: float
    share: float

    @classmethod
    def around(cls, looks: Sequence[Look], distances: Sequence[float], shares: Sequence[float]) -> Limits:
        """Limits about good pictures, at least one: their looks, median patch distances and masks' shares.

        Brightness is measured by the logarithm of its ratio to what it lacks to white; contrast and distance by their
        own. There the range of n good pictures is widened on either side by a margin and by (margin + range) / n: few
        of them tell little of the next one. Of the pixels that no good picture's mask takes, a mask may take half.
        """
        channels = zip(*(seen.level for seen in looks), strict=True)
        ranges = [_widened([_light(value) for value in channel]) for channel in channels]
        least, _ = _widened([_contrast(seen.deviation) for seen in looks], CONTRAST_MARGIN)
        _, most = _widened([_contrast(seen.spread) for seen in looks], CONTRAST_MARGIN)
        _, farthest = _widened([math.log(max(distance, LEAST_DISTANCE)) for distance in distances])
        return cls(
            level=tuple((_to_light(low), _to_light(high)) for low, high in ranges),
            deviation=_to_contrast(least),
            spread=_to_contrast(most),
            distance=math.exp(min(farthest, math.log(GREATEST_DISTANCE))),
            share=(1 + max(shares)) / 2,
        )

    @classmethod
    def from_dict(cls, values: Any) -> Limits:
        """From the values that JSON holds; ArtifactError if they are not what they should be."""
        stored = Stored("limits", values, cls)
        level = tuple(stored.range("level", channel, 0, 1) for channel in stored.items("level"))
        if len(level) not in NAMES:
            raise ArtifactError(f"limits field level is of {len(level)} channels: expected 1 or 3")
        return cls(
            level=level,
            deviation=stored.number("deviation", 0, MOST_CONTRAST),
            spread=stored.number("spread", 0, MOST_CONTRAST),
            distance=stored.number("distance", LEAST_DISTANCE, GREATEST_DISTANCE),
            share=stored.number("share", 0.5, 1),
        )

    def passed_by(
        self, seen: Look, distance: float | None = None, share: float | None = None
    ) -> list[Passed]:
        """The limits that a picture passes, by its look, its median patch distance and its mask's share."""
        return [limit for limit in self._compare(seen, distance, share) if limit.times > 1]

    def _compare(self, seen: Look, distance: float | None, share: float | None) -> Iterator[Passed]:
        for name, value, (low, high) in zip(NAMES[len(self.level)], seen.level, self.level, strict=True):
            yield Passed(_times(_light(low), _light(value)), f"{name} {value:.3f}, below {low:.3f}")
            yield Passed(_times(_light(value), _light(high)), f"{name} {value:.3f}, above {high:.3f}")
        deviation, spread = seen.deviation, seen.spread
        yield Passed(
            _times(_contrast(self.deviation), _contrast(deviation)),
            f"contrast {deviation:.4f}, below {self.deviation:.4f}",
        )
        yield Passed(
            _times(_contrast(spread), _contrast(self.spread)),
            f"contrast {spread:.4f}, above {self.spread:.4f}",
        )
        if distance is not None:
            yield Passed(
                distance / self.distance,
                f"median distance to memory {distance:.4g}, above {self.distance:.4g}",
            )
        if share is not None:
            yield Passed(share / self.share, f"mask of {share:.0%} of the picture, above {self.share:.0%}")


def few_bits(picture: Tensor) -> str | None:
    """What to say of a picture (C, H, W) whose values fill only the lowest part of 16 bits, as 10 to 14 bits do.

    None if they reach higher, or if they are multiples of 1/255: those of 8 bits are what they are.
    """
    top = picture.max().item()
    steps = picture * 255
    if torch.allclose(steps, steps.round(), rtol=0, atol=1e-3):
        return None
    depth = min((bits for bits in DEPTHS if top * 65535 < 2**bits), default=None)
    if depth is None:
        return None
    return f"its values reach only {top:.1%} of the range; {depth} bits in a 16-bit file? use --bits {depth}"


def _widened(values: Sequence[float], margin: float = MARGIN) -> tuple[float, float]:
    low, high = min(values), max(values)
    more = margin + (margin + high - low) / len(values)
    return low - more, high + more


def _times(value: float, limit: float) -> float:
    """How many times the one is the other, both given as logarithms."""
    return math.exp(value - limit)


def _light(level: float) -> float:
    return math.log((level + LEAST_LIGHT) / (1 - level + LEAST_LIGHT))


def _to_light(logarithm: float) -> float:
    """The opposite of `_light`, kept in [0, 1]: a limit of 0 or 1 is one that no picture passes."""
    share = 1 / (1 + math.exp(-logarithm))
    return min(max(share * (1 + 2 * LEAST_LIGHT) - LEAST_LIGHT, 0.0), 1.0)


def _contrast(value: float) -> float:
    return math.log(value + LEAST_CONTRAST)


def _to_contrast(logarithm: float) -> float:
    return min(max(math.exp(logarithm) - LEAST_CONTRAST, 0.0), MOST_CONTRAST)
