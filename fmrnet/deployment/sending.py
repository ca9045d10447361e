"""What goes up of an open picture, and how its verdict comes of what comes back."""

from __future__ import annotations

from collections.abc import Callable

from fmrnet.deployment.compress import lossless, lossless_part
from fmrnet.deployment.elsewhere import DecoderElsewhere, divided
from fmrnet.deployment.uplink import Answer, Uplink
from fmrnet.deployment.verdict import Send, Verdict
from fmrnet.errors import ConfigError
from fmrnet.inspection.inspector import Inspector
from fmrnet.pictures import decode_picture

__all__ = ["sender"]


def sender(
    send: Send, inspector: Inspector, uplink: Uplink
) -> Callable[[Verdict, bytes], tuple[Answer, Send]]:
    """What asks for the pixel level's verdict on an open one and its picture: the answer, and what has gone up for it.

    It raises as `Uplink`, and, with features, as `Inspector.inspect`.

    Raises
    ------
    ConfigError
        If this engine or this model cannot send that.
    """
    bits = inspector.bits

    def whole(verdict: Verdict, picture: bytes) -> tuple[Answer, Send]:
        return uplink.ask(verdict.request, lossless(picture, bits), inspector.false_alarms), Send.whole

    def part(verdict: Verdict, picture: bytes) -> tuple[Answer, Send]:
        cut = None if verdict.suspect is None else lossless_part(picture, verdict.suspect, bits)
        if cut is None:
            return whole(verdict, picture)
        return uplink.ask(verdict.request, cut, inspector.false_alarms), Send.part

    if send == Send.whole:
        return whole
    if send == Send.part:
        if inspector.region is not None:
            raise ConfigError(
                "--send part: this model has a region of interest, whose place a part does not keep"
            )
        return part
    here = divided(inspector.engine)

    def features(verdict: Verdict, picture: bytes) -> tuple[Answer, Send]:
        engine = DecoderElsewhere(
            here,
            lambda packed: uplink.paint(verdict.request, packed),
            1 if send == Send.features_8bit else 2,
        )
        other = Inspector(engine, inspector.calibration, inspector.provenance)
        found = other.inspect(decode_picture(picture, bits), "pixel")
        return Answer(found.defective, found.score, found.p_value, found.level), send

    return features
