"""What a node says of a picture: at once by the early exit, and for good once it is decided."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import fmrnet

__all__ = ["DecidedBy", "Send", "Verdict"]


class DecidedBy(StrEnum):
    """What made a verdict final."""

    exit = "early exit"  # which is sure that the picture is good
    cloud = "cloud"  # the pixel level, computed there
    node = "node"  # the pixel level, computed here
    deadline = "deadline"  # the patch level stands, for nothing better came in time
    disk = "disk"  # the patch level stands, for the disk had no room to keep the picture for the pixel level
    refused = "refused"  # the patch level stands, for the cloud will not take this picture
    unreadable = "unreadable"  # there is no picture in the file, and so nothing to decide


class Send(StrEnum):
    """What goes up of an open picture."""

    whole = "whole"  # the picture without loss; it is decided up there as here
    part = "part"  # the rectangle around what is suspect, without loss, inspected as a picture of its own
    features = (
        "features"  # EL_5 and the two skips in float16; the background comes back, and the picture stays
    )
    features_8bit = "features-8bit"  # the same in 8 bits


@dataclass(frozen=True)
class Verdict:
    """A verdict on one picture.

    Attributes
    ----------
    line : str
    number : int
        Of the picture on its line, from 1 on, in the order in which pictures came.
    picture : str
        The name of its file.
    request : str
        Its id towards the cloud: the same whenever it is asked again.
    time : str
        When the picture came, by the clock on the wall: ISO 8601, UTC.
    defective : bool, or None of a file that is no picture
    score, p_value : float, or None
        See `fmrnet.inspection.inspector.Result`.
    level : str
        "patch" or "pixel".
    decided_by : DecidedBy, or None
        None as long as it is open: then this is the early exit's answer, and another one may follow.
    model : str
        File name and version of the model.
    reasons : tuple of str
        Limits of good pictures as a whole that it passes, why there is no verdict, or why none from the cloud.
    suspect : tuple of int, or None
        x, y, width and height of the rectangle around what the early exit is not sure of; None where it is sure.
    sent : Send, or None
        What the cloud's answer rests on; None of a verdict that is not the cloud's. Of a "part", score and p-value are
        those of the part as a picture of its own.
    """

    line: str
    number: int
    picture: str
    request: str
    time: str
    defective: bool | None
    score: float | None
    p_value: float | None
    level: str
    decided_by: DecidedBy | None
    model: str
    reasons: tuple[str, ...] = ()
    suspect: tuple[int, int, int, int] | None = None
    sent: Send | None = None

    @property
    def final(self) -> bool:
        """Whether it is decided."""
        return self.decided_by is not None

    @property
    def word(self) -> str:
        """defective, good or unreadable."""
        return {True: "defective", False: "good", None: "unreadable"}[self.defective]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the program's name first, by which it knows its own files."""
        return {"fmrnet": fmrnet.__version__, **dataclasses.asdict(self), "final": self.final}

    def to_json(self) -> str:
        """The same on one line."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """The opposite of `to_json`, of what this program wrote itself."""
        values = json.loads(text)
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        found = {
            "decided_by": known["decided_by"] and DecidedBy(known["decided_by"]),
            "reasons": tuple(known["reasons"]),
            "suspect": known["suspect"] and tuple(known["suspect"]),
            "sent": known["sent"] and Send(known["sent"]),
        }
        return cls(**known | found)
