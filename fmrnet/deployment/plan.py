"""What of an open picture should go up: measured for one model, its pictures and one link.

    edge only             nothing; the patch level decides
    picture               the whole picture, as PNG, lossless WebP or JPEG
    picture, suspect      the part of it around the suspect windows, inspected as a picture of its own
    features, suspect     EL_5 and the two skips of that part, in float16 or in 8 bits per channel, and Zstandard; the
                          decoder's background comes back, and the edge compares

A window is suspect if its p-value is no better than that with which a picture may leave early. What is suspect is taken
together in one rectangle of whole cells of 32 pixels, a cell more on each side, which the network's windows reach over.
Only a whole picture without loss is decided up there as here by construction; of the other ways the plan counts the
verdicts that change on these pictures.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmrnet.deployment.compress import lossless
from fmrnet.deployment.uplink import Uplink
from fmrnet.engines.engine import Found, Seen, filled
from fmrnet.errors import ConfigError, PictureError
from fmrnet.inspection.inspector import Inspector, Result
from fmrnet.pictures import decode_picture

__all__ = ["DEFAULT", "Plan", "Row", "plan"]

DEFAULT = "picture, lossless WebP"  # what `fmrnet edge` does
CELL = 32  # pixels of a side of EL_5's cells
QUALITY = 90  # of JPEG
LEVEL = 3  # of Zstandard
Maps = tuple[NDArray[Any], ...]
Box = tuple[slice, slice]


@dataclass
class Row:
    """One way, over all open pictures.

    Attributes
    ----------
    name : str
    up, down : list of int
        Bytes of each picture.
    encode, serve : list of float
        Seconds of each: what the edge does beyond the early exit, and what is done above.
    changed : int
        Verdicts other than those of the pixel level on the whole picture.
    """

    name: str
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)
    serve: list[float] = field(default_factory=list)
    changed: int = 0

    def link(self, megabits: float) -> float:
        """Seconds that a picture's bytes take on the link, up and down, in the mean."""
        return _mean(
            [8 * (up + down) / (megabits * 1e6) for up, down in zip(self.up, self.down, strict=True)]
        )

    def seconds(self, megabits: float) -> float:
        """Seconds until the answer, in the mean."""
        return _mean(self.encode) + self.link(megabits) + _mean(self.serve)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    pictures, open : int
        How many there are, and how many the early exit leaves open.
    rows : list of Row
    megabits : float
        Per second, of the link.
    notes : list of str
        Ways that are left out, and why.
    """

    pictures: int
    open: int
    rows: list[Row]
    megabits: float
    notes: list[str]

    @property
    def best(self) -> Row:
        """The quickest way on which no verdict changes; what `fmrnet edge` does if there is none."""
        sent = [row for row in self.rows if any(row.up) and not row.changed]
        return min(sent, key=lambda row: row.seconds(self.megabits), default=self.default)

    @property
    def default(self) -> Row:
        """What `fmrnet edge` does."""
        return next(row for row in self.rows if row.name == DEFAULT)


def plan(
    inspector: Inspector,
    paths: Sequence[Path],
    megabits: float,
    *,
    uplink: Uplink | None = None,
    done: Callable[[int, int], None] = lambda count, total: None,
) -> Plan:
    """Measure all ways.

    Parameters
    ----------
    inspector : Inspector
        On PyTorch, for the features.
    paths : sequence of Path
        Picture files as the line will have them.
    megabits : float
        Per second, of the link.
    uplink : Uplink, optional
        Pictures are asked there, and the round trip is what serving takes. Default: the pixel level here stands for it.
    done : function
        Told the count after each picture.

    Raises
    ------
    ConfigError
        If the link has no speed.
    PictureError
        If a file is no picture.
    Unreachable, Refused
        If the cloud gives no answer.
    """
    if not megabits > 0:
        raise ConfigError(f"--link {megabits:g}: expected megabits per second, more than 0")
    ways, notes = _ways(inspector, uplink)
    rows, left = [Row(name) for name in ways], 0
    for number, path in enumerate(paths):
        try:
            data = path.read_bytes()
            picture = decode_picture(data, inspector.bits)
            first = inspector.inspect(picture, "patch")
        except PictureError as error:
            raise PictureError(f"{path} {error}") from None
        if not first.settled:
            left += 1
            started = time.perf_counter()
            whole = inspector.inspect(picture, "pixel")
            case = _Case(
                data,
                picture,
                first,
                whole,
                time.perf_counter() - started,
                _suspect(inspector, picture, first),
            )
            for row, way in zip(rows, ways.values(), strict=True):
                sent = way(case)
                row.up.append(sent.up)
                row.down.append(sent.down)
                row.encode.append(sent.encode)
                row.serve.append(sent.serve)
                row.changed += sent.defective != whole.defective
        done(number + 1, len(paths))
    return Plan(len(paths), left, rows, megabits, notes)


@dataclass(frozen=True)
class _Case:
    """An open picture, what both levels say of it, how long the pixel level took, and what of it is suspect."""

    data: bytes
    picture: NDArray[np.float32]
    first: Result
    whole: Result
    seconds: float
    box: Box


@dataclass(frozen=True)
class _Sent:
    """What one way makes of an open picture."""

    up: int
    down: int
    encode: float
    serve: float
    defective: bool


def _ways(
    inspector: Inspector, uplink: Uplink | None
) -> tuple[dict[str, Callable[[_Case], _Sent]], list[str]]:
    """Each way by its name; and those that are left out."""
    answer = 400  # bytes of four numbers and their names

    def by_picture(encode: Callable[[_Case], bytes], suspect: bool = False) -> Callable[[_Case], _Sent]:
        def way(case: _Case) -> _Sent:
            part = _part(case) if suspect else case
            started = time.perf_counter()
            sent = encode(part)
            encoded = time.perf_counter() - started
            if uplink is not None:
                started = time.perf_counter()
                defective = uplink.ask("plan", sent, inspector.false_alarms).defective
                return _Sent(len(sent), answer, encoded, time.perf_counter() - started, defective)
            started = time.perf_counter()
            found = inspector.inspect(decode_picture(sent, inspector.bits), "pixel")
            return _Sent(len(sent), answer, encoded, time.perf_counter() - started, found.defective)

        return way

    ways: dict[str, Callable[[_Case], _Sent]] = {
        "edge only": lambda case: _Sent(0, 0, 0.0, 0.0, case.first.defective),
        "picture, PNG": by_picture(lambda case: _encoded(case.picture, "PNG")),
        DEFAULT: by_picture(lambda case: lossless(case.data, inspector.bits)),
        f"picture, JPEG {QUALITY}": by_picture(lambda case: _encoded(case.picture, "JPEG", quality=QUALITY)),
        "suspect part, PNG": by_picture(lambda case: _encoded(case.picture, "PNG"), True),
        "suspect part, lossless WebP": by_picture(lambda case: lossless(case.data, inspector.bits), True),
        f"suspect part, JPEG {QUALITY}": by_picture(
            lambda case: _encoded(case.picture, "JPEG", quality=QUALITY), True
        ),
    }
    if not hasattr(inspector.engine, "features"):
        return ways, [f"features are left out: engine {inspector.engine.name} gives none; use engine torch"]
    if not inspector.config.generator or inspector.config.tile != "picture":
        return ways, [
            "features are left out: this model has no decoder, or cuts pictures into patches beforehand"
        ]
    for name, pack in {"float16": _halves, "8 bits": _bytes}.items():
        ways[f"suspect features, {name}, Zstandard"] = _by_features(inspector, pack)
    return ways, []


def _by_features(
    inspector: Inspector, pack: Callable[[Maps], tuple[bytes, Maps]]
) -> Callable[[_Case], _Sent]:
    def way(case: _Case) -> _Sent:
        through = _Through(inspector.engine, pack, case.box)
        other = Inspector(through, inspector.calibration, inspector.provenance)
        started = time.perf_counter()
        found = other.inspect(case.picture, "pixel")
        rest = time.perf_counter() - started - through.serve - case.first.seconds
        return _Sent(through.up, through.down, max(rest, 0.0), through.serve, found.defective)

    return way


class _Through:
    """An engine whose decoder is elsewhere: features of a part go there, a background comes back.

    Outside that part the picture stands for its own background, and nothing differs.
    """

    def __init__(self, engine: Any, pack: Callable[[Maps], tuple[bytes, Maps]], box: Box) -> None:
        self.name, self.config = engine.name, engine.config
        self._engine, self._pack, self._box = engine, pack, box
        self.up, self.down, self.serve = 0, 0, 0.0

    def glance(self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> Seen:
        seen: Seen = self._engine.glance(picture, inside)
        return seen

    def compare(self, seen: Seen) -> Found:
        maps = self._engine.features(seen.picture)
        cut = tuple(
            one[:, :, *(slice(side.start * scale // CELL, side.stop * scale // CELL) for side in self._box)]
            for one, scale in zip(maps, (1, 2, 4), strict=True)
        )
        sent, received = self._pack(cut)
        started = time.perf_counter()
        painted = self._engine.decode(received)
        self.serve = time.perf_counter() - started
        self.up, self.down = len(sent), painted.nbytes
        background = filled(seen.picture, self.config.multiple)
        background[:, *self._box] = painted[0]
        found: Found = self._engine.compare_with(seen, background)
        return found

    def restore(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        restored: NDArray[np.float32] = self._engine.restore(picture)
        return restored


def _suspect(inspector: Inspector, picture: NDArray[np.float32], first: Result) -> Box:
    """The rectangle around what is suspect, in pixels of the filled picture, multiples of CELL; all if nothing is."""
    config = inspector.config
    sides = [side + -side % config.multiple for side in picture.shape[:2]]
    calibration = inspector.calibration
    level = max(calibration.early_exit.level(calibration.false_alarms), calibration.false_alarms)
    suspect = (
        np.argwhere(first.patch_p_values <= level) if level < 1 else np.argwhere(first.patch_p_values <= 0.5)
    )
    if not len(suspect):
        return slice(0, sides[0]), slice(0, sides[1])
    step = config.patch_size // 2 if config.general else config.stride
    low, high = suspect.min(0) * step, suspect.max(0) * step + config.patch_size
    found = []
    for start, stop, side in zip(low.tolist(), high.tolist(), sides, strict=True):
        start, stop = (max(start - CELL, 0) // CELL * CELL, min(-(-(stop + CELL) // CELL) * CELL, side))
        found.append(slice(min(start, side - config.patch_size), stop))
    return found[0], found[1]


def _part(case: _Case) -> _Case:
    """The suspect part of a picture as one of its own."""
    part = case.picture[case.box]
    return _Case(_encoded(part, "PNG"), part, case.first, case.whole, case.seconds, case.box)


def _encoded(picture: NDArray[np.float32], kind: str, **options: Any) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(encoded, format=kind, **options)
    return encoded.getvalue()


def _halves(maps: Maps) -> tuple[bytes, Maps]:
    """Features in float16: the bytes that go, and what arrives."""
    halves = tuple(one.astype(np.float16) for one in maps)
    return _packed(one.tobytes() for one in halves), halves


def _bytes(maps: Maps) -> tuple[bytes, Maps]:
    """The same in 8 bits, each channel from its least to its greatest value, which go along in float32."""
    parts, received = [], []
    for one in maps:
        low, high = one.min((2, 3), keepdims=True), one.max((2, 3), keepdims=True)
        step = np.maximum(high - low, 1e-12) / 255
        levels = np.rint((one - low) / step).astype(np.uint8)
        parts += [low.tobytes(), step.tobytes(), levels.tobytes()]
        received.append((low + levels * step).astype(np.float32))
    return _packed(parts), tuple(received)


def _packed(parts: Iterable[bytes]) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=LEVEL).compress(b"".join(parts))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
