"""What of an open picture should go up: measured for one model, its pictures and one link.

    edge only             nothing; the patch level decides
    picture               the whole picture, as PNG, lossless WebP or JPEG
    suspect part          the part of it around the suspect windows, inspected as a picture of its own
    features              EL_5 and the two skips, in float16 or in 8 bits per channel, and Zstandard; the decoder's
                          background comes back, and the edge compares
    suspect features      the same of that part

Only a whole picture without loss, or its features in float16, is decided up there as here; of the other ways the plan
counts the verdicts that change on these pictures.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmrnet.deployment.compress import lossless, lossless_part
from fmrnet.deployment.elsewhere import DecoderElsewhere, divided
from fmrnet.deployment.features import unpack
from fmrnet.deployment.suspect import Box, rectangle, suspect
from fmrnet.deployment.uplink import Uplink
from fmrnet.deployment.verdict import Send
from fmrnet.engines.engine import Divided
from fmrnet.errors import ConfigError, PictureError
from fmrnet.inspection.inspector import Inspector, Result
from fmrnet.pictures import decode_picture

__all__ = ["Plan", "Row", "plan"]

QUALITY = 90  # of JPEG
ANSWER = 400  # bytes of four numbers and their names


@dataclass
class Row:
    """One way, over all open pictures.

    Attributes
    ----------
    name : str
    send : Send, or None
        What `fmrnet edge` calls it; None if it does not go that way.
    up, down : list of int
        Bytes of each picture.
    encode, serve : list of float
        Seconds of each: what the edge does beyond the early exit, and what is done above.
    changed : int
        Verdicts other than those of the pixel level on the whole picture.
    """

    name: str
    send: Send | None = None
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
        How many could be inspected, and how many of these the early exit leaves open.
    rows : list of Row
    megabits : float
        Per second, of the link.
    notes : list of str
        Ways that are left out, and why.
    unreadable : list of str
        Each file that is no picture for this model, and why.
    """

    pictures: int
    open: int
    rows: list[Row]
    megabits: float
    notes: list[str]
    unreadable: list[str]

    @property
    def best(self) -> Row:
        """The quickest way of `fmrnet edge` on which no verdict changes."""
        ways = [row for row in self.rows if row.send is not None and not row.changed]
        whole = next(row for row in self.rows if row.send is Send.whole)
        return min(ways, key=lambda row: row.seconds(self.megabits), default=whole)


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
    Unreachable, Refused
        If the cloud gives no answer.
    """
    if not megabits > 0:
        raise ConfigError(f"--link {megabits:g}: expected megabits per second, more than 0")
    ways, notes = _ways(inspector, uplink)
    count, left, unreadable = 0, 0, []
    for number, path in enumerate(paths):
        try:
            data = path.read_bytes()
            picture = decode_picture(data, inspector.bits)
            first = inspector.inspect(picture, "patch")
        except (PictureError, OSError) as error:
            unreadable.append(f"{path}: {getattr(error, 'strerror', None) or error}")
        else:
            count += 1
            if not first.settled:
                left += 1
                _measure(ways, _Case(data, picture, first, inspector))
        done(number + 1, len(paths))
    return Plan(count, left, [row for row, _ in ways], megabits, notes, unreadable)


class _Case:
    """An open picture, and what is suspect of it."""

    def __init__(
        self, data: bytes, picture: NDArray[np.float32], first: Result, inspector: Inspector
    ) -> None:
        self.data, self.picture, self.first = data, picture, first
        self.rectangle = rectangle(inspector, picture.shape, first)
        self.box = suspect(inspector, _inspected(picture, inspector), first)
        self.defective = inspector.inspect(picture, "pixel").defective

    @property
    def part(self) -> NDArray[np.float32]:
        """The pixels of what is suspect."""
        x, y, width, height = self.rectangle
        return self.picture[y : y + height, x : x + width]


@dataclass(frozen=True)
class _Sent:
    """What one way makes of an open picture."""

    up: int
    down: int
    encode: float
    serve: float
    defective: bool


Way = Callable[[_Case], _Sent]


def _measure(ways: Sequence[tuple[Row, Way]], case: _Case) -> None:
    for row, way in ways:
        sent = way(case)
        row.up.append(sent.up)
        row.down.append(sent.down)
        row.encode.append(sent.encode)
        row.serve.append(sent.serve)
        row.changed += sent.defective != case.defective


def _ways(inspector: Inspector, uplink: Uplink | None) -> tuple[list[tuple[Row, Way]], list[str]]:
    """Each way and the row that it fills; and, in words, those that are left out."""
    bits = inspector.bits

    def whole(kind: str, **options: Any) -> Way:
        return _by_picture(inspector, uplink, lambda case: _encoded(case.picture, kind, **options))

    def part(kind: str, **options: Any) -> Way:
        return _by_picture(inspector, uplink, lambda case: _encoded(case.part, kind, **options))

    ways = [
        (Row("edge only"), lambda case: _Sent(0, 0, 0.0, 0.0, case.first.defective)),
        (Row("picture, PNG"), whole("PNG")),
        (
            Row("picture, lossless WebP", Send.whole),
            _by_picture(inspector, uplink, lambda case: lossless(case.data, bits)),
        ),
        (Row(f"picture, JPEG {QUALITY}"), whole("JPEG", quality=QUALITY)),
    ]
    notes = []
    if inspector.region is None:
        ways += [
            (Row("suspect part, PNG"), part("PNG")),
            (
                Row("suspect part, lossless WebP", Send.part),
                _by_picture(
                    inspector,
                    uplink,
                    lambda case: lossless_part(case.data, case.rectangle, bits) or lossless(case.data, bits),
                ),
            ),
            (Row(f"suspect part, JPEG {QUALITY}"), part("JPEG", quality=QUALITY)),
        ]
    else:
        notes.append("parts are left out: this model has a region of interest, whose place they do not keep")
    try:
        engine = divided(inspector.engine)
    except ConfigError as error:
        return ways, [*notes, str(error)]
    kinds: dict[str, tuple[Literal[1, 2], Send]] = {
        "float16": (2, Send.features),
        "8 bits": (1, Send.features_8bit),
    }
    for name, (width, send) in kinds.items():
        ways += [
            (
                Row(f"features, {name}, Zstandard", send),
                _by_features(inspector, engine, uplink, width, lambda case: None),
            ),
            (
                Row(f"suspect features, {name}, Zstandard"),
                _by_features(inspector, engine, uplink, width, lambda case: case.box),
            ),
        ]
    return ways, notes


def _by_picture(inspector: Inspector, uplink: Uplink | None, encode: Callable[[_Case], bytes]) -> Way:
    def way(case: _Case) -> _Sent:
        started = time.perf_counter()
        sent = encode(case)
        encoded = time.perf_counter()
        if uplink is not None:
            defective = uplink.ask("plan", sent, inspector.false_alarms).defective
        else:
            defective = inspector.inspect(decode_picture(sent, inspector.bits), "pixel").defective
        return _Sent(len(sent), ANSWER, encoded - started, time.perf_counter() - encoded, defective)

    return way


def _by_features(
    inspector: Inspector,
    engine: Divided,
    uplink: Uplink | None,
    width: Literal[1, 2],
    box: Callable[[_Case], Box | None],
) -> Way:
    channels = inspector.config.channels[4:1:-1]

    def way(case: _Case) -> _Sent:
        up, down, serve = 0, 0, 0.0

        def paint(packed: bytes) -> NDArray[np.float32]:
            nonlocal up, down, serve
            started = time.perf_counter()
            if uplink is not None:
                painted = uplink.paint("plan", packed)
            else:
                painted = engine.decode(unpack(packed, channels, case.picture.size))
            up, down, serve = len(packed), painted.nbytes, time.perf_counter() - started
            return painted

        apart = DecoderElsewhere(engine, paint, width, box(case))
        other = Inspector(apart, inspector.calibration, inspector.provenance)
        started = time.perf_counter()
        found = other.inspect(case.picture, "pixel")
        rest = time.perf_counter() - started - serve - case.first.seconds
        return _Sent(up, down, max(rest, 0.0), serve, found.defective)

    return way


def _inspected(picture: NDArray[np.float32], inspector: Inspector) -> tuple[int, ...]:
    """The shape of what is inspected of a picture."""
    region = inspector.region
    return picture.shape if region is None else (region.height, region.width)


def _encoded(picture: NDArray[np.float32], kind: str, **options: Any) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(encoded, format=kind, **options)
    return encoded.getvalue()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
