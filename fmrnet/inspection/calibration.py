"""What good pictures score: the p-values that verdicts rest on, and the thresholds that come of a rate of false alarms.

Nothing here is fitted on a defective picture but the early exit's level, on synthetic ones; and nothing is taken from
the picture under inspection.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from fmrnet import large
from fmrnet.engines import tiles
from fmrnet.engines.engine import Engine, Found
from fmrnet.errors import ArtifactError, ConfigError, DatasetError
from fmrnet.inspection.early_exit import LOST, EarlyExit
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.limits import Limits, Look, look
from fmrnet.inspection.stored import Stored
from fmrnet.inspection.suspects import FEWEST, Suspect, loud, most, odd

__all__ = ["Calibration", "calibrate"]

NAMED = 3  # good pictures that score highest, and as many that score lowest, are named with their place
MOST_NAMED = 10  # if more of them stand out
EDGE = 1e-6  # how near to 0 and 1 a probability's logit is taken
LEAST = 1e-12  # a perfectly flat surface gives thresholds of 0, and scores are multiples of a threshold
GREATEST_MAP = 2.0  # of Eq 23, where 1 - SSIM is; a learned map ends at 1
SURE = 1 - 2.0**-20  # no pixel threshold of a learned map lies above: float32 rounds what comes near to 1
MOST_NEEDED = 10_000  # good pictures that somebody may have
PIXELS = 1e-3  # share of good pictures' pixels that pass the pixel threshold; the mask of a good one is empty even so
PEAK = 0.4  # of a picture's greatest evidence of a defect, what its mask takes in
VALUES = 2**14 + 1  # of each map, kept to tell what share of it passes a threshold that comes from all maps


@dataclass(frozen=True)
class Calibration:
    """What counts as a defect.

    Attributes
    ----------
    false_alarms : float
        The rate in force: the share of good pictures that may be called defective.
    picture, patch : GoodScores
        Readings of good pictures at pixel level and at the early exit, the greatest over all patches of each.
    pixels : int
        Of a typical picture, where the readings are of parts of pictures: what `GoodScores.parts` is for.
    k : float
        Of the k-sigma pixel threshold; 0: the pixel threshold is what PIXELS of good pictures' pixels pass.
    pixel_threshold : float
        Of the anomaly map.
    early_exit : EarlyExit
        When a picture may leave early as good.
    limits : Limits
        Of what good pictures look like as a whole.
    looks : tuple of Look
        Of the good pictures, by which a drift is told.
    suspects : tuple of Suspect
        Good pictures that were left out, for they are unlike the others.
    loudest : tuple of Suspect
        The good pictures that score highest, and where: the held-out ones of these rule the threshold. Those that stand
        out and were not left out come first, for one in twenty is the most that is left out.
    quietest : tuple of Suspect
        Those that score lowest, the lowest first, and where they score most.
    """

    false_alarms: float
    picture: GoodScores
    patch: GoodScores
    pixels: int
    k: float
    pixel_threshold: float
    early_exit: EarlyExit
    limits: Limits
    looks: tuple[Look, ...]
    suspects: tuple[Suspect, ...] = ()
    loudest: tuple[Suspect, ...] = ()
    quietest: tuple[Suspect, ...] = ()

    @property
    def pictures(self) -> int:
        """How many held-out pictures, or parts of pictures, this rests on."""
        return len(self.picture.held_out)

    @property
    def whole_looks(self) -> tuple[Look, ...]:
        """Of the good pictures, a look each: where parts of them were held out, `looks` has these before."""
        return self.looks if self.patch.parts == 1 else self.looks[len(self.patch.held_out) :]

    @property
    def picture_threshold(self) -> float:
        """Of the surprise of a picture at pixel level; no more than the rate of good pictures are to pass it."""
        return self.picture.threshold(self.false_alarms)

    @property
    def patch_threshold(self) -> float:
        """The same of the early exit."""
        return self.patch.threshold(self.false_alarms)

    @property
    def promise(self) -> str:
        """In a sentence, what the rate of false alarms in force rests on."""
        rate, count = _percent(self.false_alarms), len(self.picture.held_out)
        needed = math.ceil(1 / self.false_alarms - 1e-9) - 1
        counted = {0: "", 1: ", if the one left out is indeed defective"}
        left = counted.get(len(self.suspects), f", if the {len(self.suspects)} left out are indeed defective")
        if self.picture.promised <= self.false_alarms + 1e-12:
            ones = "one promises" if count == 1 else "ones promise"
            return f"at most {rate} of good pictures are called defective: {count} held-out {ones} it{left}"
        alone = count == 1
        if self.picture.parts > 1:
            known = f"{count} held-out {'part of a picture promises' if alone else 'parts of pictures promise'} nothing"
        else:
            best = _percent(self.picture.promised)
            known = f"{count} held-out {'picture promises' if alone else 'pictures promise'} {best} at best"
        helps = f"calibrate on {needed} good pictures that training has not seen for a promise{left}"
        if needed > MOST_NEEDED:
            helps = f"a promise of so low a rate takes more good pictures than anyone has{left}"
        return f"about {rate} of good pictures are called defective: an estimate, for {known}; {helps}"

    @property
    def exit_promise(self) -> str:
        """In a sentence, what leaving at the early exit rests on."""
        if self.patch == self.picture:
            return "all levels decide alike: this model has no generator"
        found = self.early_exit.flagged(self.false_alarms)
        level = self.early_exit.level(self.false_alarms)
        if level == 1:
            if found < 1 / LOST - 1:
                reason = f"{found} synthetic defects found at level pixel are too few to learn from"
            else:
                reason = f"it would lose more than {_percent(LOST)} of {found} synthetic defects found at level pixel"
            return f"level auto lets no picture leave early: {reason}"
        share = float(np.mean(self.patch.p_values(self.patch.surprises) > max(level, self.false_alarms)))
        return (
            f"level auto lets {_percent(share)} of good pictures leave early; at most {_percent(LOST)} of what "
            f"level pixel calls defective is lost so, for defects like the {found} synthetic ones this rests on"
        )

    def mask(self, found: Found) -> NDArray[np.bool_]:
        """The defective pixels of a picture that is defective, (H, W) bool.

        They pass the pixel threshold and, unless it is one of k sigma, PEAK of the greatest evidence: around a strong
        defect its own halo passes the threshold.
        """
        if self.k:
            return large.by_bands(lambda mapped: mapped > self.pixel_threshold, found.anomaly_map)
        least = PEAK * found.evidence.max()
        return large.by_bands(
            lambda mapped, evidence: (mapped > self.pixel_threshold) & (evidence > least),
            found.anomaly_map,
            found.evidence,
        )

    def of_size(self, pixels: int) -> Calibration:
        """The same for a picture of so many pixels: the more parts it has, the more may one of them stand out."""
        if self.picture.parts == 1:
            return self
        parts = self.picture.parts * pixels / self.pixels
        picture, patch = (dataclasses.replace(good, parts=parts) for good in (self.picture, self.patch))
        return dataclasses.replace(self, picture=picture, patch=patch, pixels=pixels)

    @property
    def exit_level(self) -> float:
        """The p-value of the early exit beyond which a picture leaves there as good; 1: none does."""
        return max(self.early_exit.level(self.false_alarms), self.false_alarms)

    def is_settled(self, surprise: float) -> bool:
        """Whether a picture that surprises the early exit so much leaves there as good."""
        return self.patch.p_value(surprise) > self.exit_level

    def suspect(self, patch_p_values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The patches, by their p-values at the early exit, that keep a picture from leaving there."""
        return patch_p_values <= self.exit_level

    def at(self, false_alarms: float) -> Calibration:
        """The same at another rate of false alarms.

        Raises
        ------
        ConfigError
            If the rate is not between 0 and 1.
        """
        if not 0 < false_alarms < 1:
            raise ConfigError(
                f"false_alarms = {false_alarms}: expected a share between 0 and 1, such as 0.05"
            )
        return dataclasses.replace(self, false_alarms=false_alarms)

    def to_dict(self) -> dict[str, Any]:
        """The values, JSON-ready."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The opposite of `to_dict`.

        Raises
        ------
        ArtifactError
            If a field is missing, unknown, of another type, not finite, or in no range that good pictures give.
        """
        if isinstance(values, dict):
            values = {"quietest": [], **values}  # which models have not had from the beginning
        stored = Stored("calibration", values, cls)
        limits = Limits.from_dict(stored.values["limits"])
        looks = tuple(map(Look.from_dict, stored.items("looks")))
        if any(len(look.level) != len(limits.level) for look in looks):
            raise ArtifactError("calibration field looks is of another number of channels than its limits")
        scores = {name: GoodScores.from_dict(stored.values[name]) for name in ("picture", "patch")}
        return cls(
            false_alarms=stored.number("false_alarms", LEAST, 1 - LEAST),
            **scores,
            pixels=stored.count("pixels", least=1),
            k=stored.number("k", 0, 100),
            pixel_threshold=stored.number("pixel_threshold", LEAST, GREATEST_MAP),
            early_exit=EarlyExit.from_dict(stored.values["early_exit"]),
            limits=limits,
            looks=looks,
            suspects=tuple(map(Suspect.from_dict, stored.items("suspects"))),
            loudest=tuple(map(Suspect.from_dict, stored.items("loudest"))),
            quietest=tuple(map(Suspect.from_dict, stored.items("quietest"))),
        )


def calibrate(
    engine: Engine,
    held_out: Iterable[tuple[str, NDArray[np.float32]]],
    *,
    learnt: Iterable[tuple[str, NDArray[np.float32]]] = (),
    looks: Iterable[tuple[str, Look]] = (),
    early_exit: EarlyExit = EarlyExit(),  # noqa: B008 (it cannot change)
    pixels: int | None = None,
    false_alarms: float | None = None,
    k: float | None = None,
    keep_suspects: bool = False,
    inside: NDArray[np.bool_] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Calibration:
    """What good pictures score, and the limits of what they look like.

    Of five pictures and more, those that are unlike the others are left out of all this, and named.

    Parameters
    ----------
    engine : Engine
    held_out : iterable of (str, array (C, H, W) in [0, 1])
        Good pictures not used in training, and what to call them.
    learnt : the same
        Good pictures that training has seen, of whose scores the spread counts.
    looks : iterable of (str, Look)
        What all the good pictures that training has seen look like.
    early_exit : EarlyExit
        What is known of it. Default: nothing, and no picture leaves early.
    pixels : int, optional
        Size in pixels of a typical picture under inspection, where those held out are parts of pictures. Default: they
        are whole pictures.
    false_alarms, k : float, optional
        As in `fmrnet.Config`. Default: the model's settings.
    keep_suspects : bool
        Count the pictures that are unlike the others, too.
    inside : array (H, W), optional
        Which pixels of each picture count. Default: all.
    corner : (int, int)
        Row and column at which these pictures were cut out of those that they are called after.

    Raises
    ------
    DatasetError
        If there is no picture.
    """
    config = engine.config
    every = [_evidence(engine, name, picture, inside) for name, picture in held_out]
    if not every:
        raise DatasetError("no good pictures to calibrate on")
    known = [_evidence(engine, name, picture, inside) for name, picture in learnt]
    seen = [*((one.name, one.look) for one in every), *looks]
    standing_out = _loud((every, known), config.patch_size, corner)
    left_out = dict(list(standing_out.items())[: most(len(every) + len(known))])
    suspects = {} if keep_suspects else _odd(seen, corner) | left_out
    if all(one.name in suspects for one in every):  # a single one, say: there is nothing else to go by
        suspects = {name: one for name, one in suspects.items() if name not in {held.name for held in every}}
    every, known = ([one for one in group if one.name not in suspects] for group in (every, known))
    typical = float(np.mean([math.prod(one.look.size) for one in every]))
    parts = 1.0 if pixels is None else max(1.0, pixels / typical)
    rate = config.false_alarms if false_alarms is None else false_alarms
    k = config.k if k is None else k
    picture = _scores(every, known, parts, lambda one: one.readings.max((1, 2)))
    threshold = _pixel_threshold(every, k)
    limits = Limits.around(
        [one for name, one in seen if name not in suspects],
        distances=[one.typical for one in every],
        shares=[float(np.mean(one.values > threshold)) for one in every],
    )
    return Calibration(
        false_alarms=rate,
        picture=picture,
        patch=_scores(every, known, parts, lambda one: one.patch_readings),
        pixels=round(typical * parts),
        k=k,
        pixel_threshold=min(float(expit(threshold)), SURE) if config.standard_map else max(threshold, LEAST),
        early_exit=early_exit,
        limits=limits,
        looks=tuple(one for name, one in seen if name not in suspects),
        suspects=tuple(suspects.values()),
        loudest=_loudest(
            standing_out, suspects, _named(every, picture, config.patch_size, corner, loud=True)
        ),
        quietest=_named(every, picture, config.patch_size, corner, loud=False),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _pixel_threshold(every: Sequence[_Evidence], k: float) -> float:
    """Mean + k sigma of all values, or what PIXELS of them pass."""
    if not k:
        return float(np.quantile(np.concatenate([one.values for one in every]), 1 - PIXELS))
    sums = np.sum([one.sums for one in every], axis=0)
    mean = float(sums[1] / sums[0])
    return mean + k * math.sqrt(max(sums[2] / sums[0] - mean**2, 0.0))


@dataclass(frozen=True)
class _Evidence:
    """What calibration keeps of a picture."""

    name: str
    look: Look
    readings: NDArray[np.float64]  # (K, rows, columns), of its patches at pixel level
    patch_readings: NDArray[np.float64]  # (K',), the early exit's, the greatest over all patches
    typical: float  # of the distances
    sums: NDArray[np.float64]  # of 1, map, map^2 over its pixels; of the map's logits unless it is Eq 23's
    values: NDArray[np.float64]  # of the same, VALUES of them, evenly spaced in rank


def _evidence(
    engine: Engine, name: str, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None
) -> _Evidence:
    seen = tiles.glance(engine, picture, inside)
    found = tiles.compare(engine, seen)
    values = found.anomaly_map.astype(np.float64)
    if inside is not None:
        values = values[inside]
    if engine.config.standard_map:
        values = logit(values.clip(EDGE, 1 - EDGE))
    ranks = np.linspace(0, values.size - 1, VALUES).round().astype(int)
    return _Evidence(
        name,
        look(picture, inside),
        found.readings.astype(np.float64),
        seen.readings.max((1, 2)).astype(np.float64),
        seen.typical,
        np.array([values.size, values.sum(), np.square(values).sum()]),
        np.sort(values, axis=None)[ranks],
    )


def _scores(
    held_out: Sequence[_Evidence],
    learnt: Sequence[_Evidence],
    parts: float,
    readings: Callable[[_Evidence], NDArray[np.float64]],
) -> GoodScores:
    unseen, seen = (tuple(tuple(readings(one).tolist()) for one in group) for group in (held_out, learnt))
    return GoodScores(unseen, seen, parts)


def _loud(groups: Iterable[Sequence[_Evidence]], size: int, corner: tuple[int, int]) -> dict[str, Suspect]:
    """Suspects by what stands out in them, by their name; each group is compared with its own typical picture."""
    every: list[_Evidence] = []
    alarms: list[float] = []
    for group in groups:
        found = np.array([one.readings[0].max() for one in group])
        every += group
        alarms += (found / max(np.median(found), LEAST)).tolist() if group else []
    if len({one.name for one in every}) < FEWEST:
        return {}
    return {
        every[number].name: _place(
            every[number],
            every[number].readings[0],
            f"{times:.1f} times as loud as the typical picture",
            size,
            corner,
        )
        for number, times in loud(alarms).items()
    }


def _named(
    every: Sequence[_Evidence], good: GoodScores, size: int, corner: tuple[int, int], *, loud: bool
) -> tuple[Suspect, ...]:
    """The pictures that surprise the others most, or least, and where they do most; the first one most, or least."""
    surprises = good.held_out_surprises
    found = []
    for number in np.argsort(-surprises if loud else surprises, kind="stable")[:NAMED]:
        surprise = good.surprise(every[number].readings)
        found.append(_place(every[number], surprise, f"surprise {surprises[number]:.2f}", size, corner))
    return tuple(found)


def _loudest(
    standing_out: dict[str, Suspect], left_out: dict[str, Suspect], highest: tuple[Suspect, ...]
) -> tuple[Suspect, ...]:
    """What stands out and was not left out, then those that score highest, each once."""
    first = [one for name, one in standing_out.items() if name not in left_out]
    others = [one for one in highest if one.picture not in standing_out]
    return tuple([*first, *others][: max(NAMED, min(len(first), MOST_NAMED))])


def _place(
    one: _Evidence, alarms: NDArray[np.float64], reason: str, size: int, corner: tuple[int, int]
) -> Suspect:
    """A picture and its loudest patch (rows, columns), for which reason."""
    row, column = (size // 2 * int(at) for at in np.unravel_index(alarms.argmax(), alarms.shape))
    height, width = (min(size, side - start) for side, start in zip(one.look.size, (row, column)))
    return Suspect(one.name, reason, row + corner[0], column + corner[1], height, width)


def _odd(looks: Sequence[tuple[str, Look]], corner: tuple[int, int]) -> dict[str, Suspect]:
    """Suspects by what they look like as a whole, by their name."""
    if len({name for name, _ in looks}) < FEWEST:
        return {}
    return {
        looks[number][0]: Suspect(looks[number][0], reason, *corner, *looks[number][1].size)
        for number, reason in odd([seen for _, seen in looks]).items()
    }
