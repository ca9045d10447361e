"""What no good picture looks like as a whole: limits of light, of contrast, of the distance to memory and of the mask.

A score tells how far the worst spot of a picture stands out from the rest of it. In a picture of something else nothing
stands out. What a picture is like as a whole therefore has limits of its own, from good pictures alone, and so generous
that no ordinary picture comes near them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet.errors import ArtifactError
from fmrnet.inspection.stored import Stored

__all__ = ["Limits", "Look", "Passed", "few_bits", "look"]

BLOCK = 32  # pixels; deviation is taken within such blocks, where light hardly changes
STEP = 2  # every second pixel of a block, across and down, tells its deviation well enough
SCALES = (1, 2, 4, 8)  # pixels; sides of the squares whose means are compared with those beside them
MARGIN = math.log(2)  # beyond the range of the good pictures: twice, or half, what any of them has
FEW_SHARES = (
    16  # times MARGIN / n more for the mask's share, which varies more than what a picture looks like
)
LEAST_LIGHT = 0.02  # added to brightness and to what it lacks to 1, for near black no ratio means much
LEAST_SHARE = 0.05  # the same of a mask's share
LEAST_CONTRAST = 1 / 510  # added to contrast, half a step of 8 bits
MOST_CONTRAST = 0.5  # of values in [0, 1], half of them 0 and half 1
LEAST_DISTANCE, GREATEST_DISTANCE = 1e-12, 1e9  # between latents
GREATEST_SIDE = 2**24  # of a picture, in pixels
NAMES = {1: ("brightness",), 3: ("red", "green", "blue")}
DEPTHS = (14, 12, 10)  # bits that cameras give and files of 16 bits hold


@dataclass(frozen=True)
class Look:
    """What a picture looks like as a whole.

    Attributes
    ----------
    level : tuple of float
        Mean of each channel, in [0, 1].
    deviation : float
        Standard deviation within a block of the grey picture, the median over all blocks.
    contrasts : tuple of float
        Median difference between the means of squares beside each other, down and across, for squares of each of
        SCALES. It tells one texture from another, and a defect hardly changes it.
    size : (int, int)
        Its height and width.
    """

    level: tuple[float, ...]
    deviation: float
    contrasts: tuple[float, ...]
    size: tuple[int, int]

    @classmethod
    def from_dict(cls, values: Any) -> Look:
        """From the values that JSON holds; ArtifactError if they are not what they should be."""
        stored = Stored("look", values, cls)
        rows, columns = stored.numbers("size", 1, GREATEST_SIDE, least_count=2, most_count=2)
        return cls(
            level=stored.numbers("level", 0, 1, least_count=1, most_count=3),
            deviation=stored.number("deviation", 0, MOST_CONTRAST),
            contrasts=stored.numbers(
                "contrasts", 0, MOST_CONTRAST, least_count=len(SCALES), most_count=len(SCALES)
            ),
            size=(int(rows), int(columns)),
        )


@dataclass(frozen=True)
class Passed:
    """A limit that a picture passes: how many times it does, and in words."""

    times: float
    reason: str


def look(picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> Look:
    """The look of a picture (C, H, W) in [0, 1], at least a block large.

    Given a mask `inside`, (H, W), that holds a square of twice a block, only what lies whole inside of it counts.
    """
    if inside is not None:
        picture = np.where(inside, picture, np.float32(np.nan))
    mean, median = (np.mean, large.median) if inside is None else (np.nanmean, np.nanmedian)
    grey = large.by_bands(lambda rows: rows.mean(1), picture.swapaxes(0, 1))
    level = np.asarray(mean(picture, (1, 2), dtype=np.float64))
    deviation = float(median(np.concatenate([_deviations(grey[rows]) for rows in large.bands(grey, BLOCK)])))
    size = picture.shape[1], picture.shape[2]
    return Look(tuple(level.tolist()), deviation, _contrasts(grey, median), size)


def _deviations(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each whole block of a grey picture, (N,)."""
    rows, columns = (side // BLOCK for side in grey.shape)
    side = BLOCK // STEP
    cut = grey[: rows * BLOCK : STEP, : columns * BLOCK : STEP].reshape(rows, side, columns, side)
    deviations: NDArray[np.float32] = cut.swapaxes(1, 2).reshape(rows * columns, side**2).std(1)
    return deviations


def _contrasts(means: NDArray[np.float32], median: Callable[[NDArray[np.float32]], Any]) -> tuple[float, ...]:
    """From single pixels on, squares of twice the side each time, (H, W) of their means."""
    found = []
    for _ in SCALES:
        rows, columns = (side // 2 * 2 for side in means.shape)
        pairs = means[:rows, :columns].reshape(rows // 2, 2, columns)
        found.append(float(median(large.by_bands(_contrasts_of_rows, pairs))) / 4)
        means = large.by_bands(_means_of_rows, pairs)
    return tuple(found)


def _contrasts_of_rows(pairs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four times the contrast within each square of four places of pairs of rows, (N, 2, W)."""
    down, both = pairs[:, 0] - pairs[:, 1], pairs[:, 0] + pairs[:, 1]
    down, across = down[:, ::2] + down[:, 1::2], both[:, ::2] - both[:, 1::2]
    contrasts: NDArray[np.float32] = np.abs(down) + np.abs(across)
    return contrasts


def _means_of_rows(pairs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of each of these squares."""
    both = pairs[:, 0] + pairs[:, 1]
    return np.float32(0.25) * (both[:, ::2] + both[:, 1::2])


@dataclass(frozen=True)
class Limits:
    """What no good picture passes.

    Attributes
    ----------
    level : tuple of (float, float)
        Least and greatest mean of each channel.
    deviation : float
        The least; below it a picture is flat.
    contrasts : tuple of (float, float)
        Least and greatest contrast at each of SCALES.
    distance : float
        Greatest median of a picture's patch distances to memory, or of its general features to good pictures'.
    share : float
        Greatest share of a picture that its mask may take.
    """

    level: tuple[tuple[float, float], ...]
    deviation: float
    contrasts: tuple[tuple[float, float], ...]
    distance: float
    share: float

    @classmethod
    def around(cls, looks: Sequence[Look], distances: Sequence[float], shares: Sequence[float]) -> Limits:
        """Limits about good pictures, at least one: their looks, median patch distances and masks' shares.

        Brightness is measured by the logarithm of its ratio to what it lacks to white; contrast and distance by their
        own. There the range of n good pictures is widened on either side by MARGIN and by (MARGIN + range) / n: few
        of them tell little of the next one. The greatest share of a mask is measured as brightness is and raised by
        MARGIN (1 + FEW_SHARES / n); at most it is half of what no good picture's mask takes.
        """
        levels = [_widened(map(_light, values)) for values in zip(*(seen.level for seen in looks))]
        contrasts = [_widened(map(_contrast, values)) for values in zip(*(seen.contrasts for seen in looks))]
        flattest, _ = _widened(_contrast(seen.deviation) for seen in looks)
        _, farthest = _widened(math.log(max(distance, LEAST_DISTANCE)) for distance in distances)
        masked = _odds(max(shares), LEAST_SHARE) + MARGIN * (1 + FEW_SHARES / len(shares))
        return cls(
            level=tuple((_to_light(low), _to_light(high)) for low, high in levels),
            deviation=_to_contrast(flattest),
            contrasts=tuple((_to_contrast(low), _to_contrast(high)) for low, high in contrasts),
            distance=math.exp(min(farthest, math.log(GREATEST_DISTANCE))),
            share=min(_of_odds(masked, LEAST_SHARE), (1 + max(shares)) / 2),
        )

    @classmethod
    def from_dict(cls, values: Any) -> Limits:
        """From the values that JSON holds; ArtifactError if they are not what they should be."""
        stored = Stored("limits", values, cls)
        level = tuple(stored.range("level", channel, 0, 1) for channel in stored.items("level"))
        if len(level) not in NAMES:
            raise ArtifactError(f"limits field level is of {len(level)} channels: expected 1 or 3")
        scales = stored.items("contrasts")
        if len(scales) != len(SCALES):
            raise ArtifactError(f"limits field contrasts is of {len(scales)} scales: expected {len(SCALES)}")
        return cls(
            level=level,
            deviation=stored.number("deviation", 0, MOST_CONTRAST),
            contrasts=tuple(stored.range("contrasts", scale, 0, MOST_CONTRAST) for scale in scales),
            distance=stored.number("distance", LEAST_DISTANCE, GREATEST_DISTANCE),
            share=stored.number("share", LEAST_SHARE, 1),
        )

    def in_words(self) -> dict[str, str]:
        """The least and the greatest that a good picture has, by what it is."""
        light = zip(NAMES[len(self.level)], self.level, strict=True)
        contrast = zip(SCALES, self.contrasts, strict=True)
        return {
            **{name: f"{low:.3f} to {high:.3f}" for name, (low, high) in light},
            "deviation": f"at least {self.deviation:.4f}",
            **{f"contrast at {scale} px": f"{low:.4f} to {high:.4f}" for scale, (low, high) in contrast},
            "median distance": f"up to {self.distance:.4g}",
            "mask": f"up to {self.share:.0%} of the picture",
        }

    def passed_by(
        self, seen: Look, distance: float | None = None, share: float | None = None
    ) -> list[Passed]:
        """The limits that a picture passes, by its look, its median patch distance and its mask's share."""
        return [limit for limit in self._compare(seen, distance, share) if limit.times > 1]

    def _compare(self, seen: Look, distance: float | None, share: float | None) -> Iterator[Passed]:
        for name, value, (low, high) in zip(NAMES[len(self.level)], seen.level, self.level, strict=True):
            yield Passed(_times(_light(low), _light(value)), f"{name} {value:.3f}, below {low:.3f}")
            yield Passed(_times(_light(value), _light(high)), f"{name} {value:.3f}, above {high:.3f}")
        times = _times(_contrast(self.deviation), _contrast(seen.deviation))
        yield Passed(times, f"deviation {seen.deviation:.4f}, below {self.deviation:.4f}")
        for scale, value, (low, high) in zip(SCALES, seen.contrasts, self.contrasts, strict=True):
            name = f"contrast at {scale} px"
            yield Passed(_times(_contrast(low), _contrast(value)), f"{name} {value:.4f}, below {low:.4f}")
            yield Passed(_times(_contrast(value), _contrast(high)), f"{name} {value:.4f}, above {high:.4f}")
        if distance is not None:
            named = f"median distance to good patches {distance:.4g}, above {self.distance:.4g}"
            yield Passed(distance / self.distance, named)
        if share is not None:
            yield Passed(share / self.share, f"mask of {share:.0%} of the picture, above {self.share:.0%}")


def few_bits(picture: NDArray[np.float32]) -> str | None:
    """What to say of a picture (C, H, W) whose values fill only the lowest part of 16 bits, as 10 to 14 bits do.

    None if they reach higher, or if they are multiples of 1/255: those of 8 bits are what they are.
    """
    top, by_rows = float(picture.max()), picture.swapaxes(0, 1)
    if all(_is_of_8_bits(by_rows[rows]) for rows in large.bands(by_rows)):
        return None
    depth = min((bits for bits in DEPTHS if top * 65535 < 2**bits), default=None)
    if depth is None:
        return None
    return f"its values reach only {top:.1%} of the range; {depth} bits in a 16-bit file? use --bits {depth}"


def _is_of_8_bits(picture: NDArray[np.float32]) -> bool:
    steps = picture * 255
    return np.allclose(steps, steps.round(), rtol=0, atol=1e-3)


def _widened(values: Iterable[float]) -> tuple[float, float]:
    known = list(values)
    low, high = min(known), max(known)
    more = MARGIN + (MARGIN + high - low) / len(known)
    return low - more, high + more


def _times(value: float, limit: float) -> float:
    """How many times the one is the other, both given as logarithms."""
    return math.exp(value - limit)


def _odds(share: float, least: float) -> float:
    """Logarithm of the ratio of a share to what it lacks to 1, `least` added to both."""
    return math.log((share + least) / (1 - share + least))


def _of_odds(logarithm: float, least: float) -> float:
    """The opposite of `_odds`, kept in [0, 1]: a limit of 0 or 1 is one that nothing passes."""
    share = 1 / (1 + math.exp(-logarithm))
    return min(max(share * (1 + 2 * least) - least, 0.0), 1.0)


def _light(level: float) -> float:
    return _odds(level, LEAST_LIGHT)


def _to_light(logarithm: float) -> float:
    return _of_odds(logarithm, LEAST_LIGHT)


def _contrast(value: float) -> float:
    return math.log(value + LEAST_CONTRAST)


def _to_contrast(logarithm: float) -> float:
    return min(max(math.exp(logarithm) - LEAST_CONTRAST, 0.0), MOST_CONTRAST)
