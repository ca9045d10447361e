"""What the decoders of pictures share: the pixels of a file, and checks of what its header claims.

A reason for which a picture is refused starts with a verb; whoever knows the picture's name puts it before.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import PictureError
from fmrnet.headroom import headroom

__all__ = [
    "MAX_PIXELS",
    "MAX_PIXELS_OF_FILE",
    "Frame",
    "Pixels",
    "check_pixels",
    "check_size",
    "jpeg_frame",
    "upright",
]

MAX_PIXELS = 2**27  # 134 million, 32768 lines of a 4096-pixel line camera; in colour 1.6 GB as float32
MAX_PIXELS_OF_FILE = 2**30  # of a TIFF that lies in a file: it is read piece by piece
SEVERAL = "holds more than one frame; save the one to inspect as a picture of its own"


@dataclass(frozen=True)
class Pixels:
    """A decoded picture, its values as the file holds them.

    Attributes
    ----------
    values : (H, W) grey or (H, W, 3) RGB, integers or floating point
    white : int
        The integer that stands for full brightness. Floats are taken as they are, 1 for full brightness.
    negative : bool
        Whether full brightness and 0 change places.
    alpha : (H, W) float32, 1 where opaque and 0 where clear; None if opaque all over
    lossy : bool
        Whether the file's compression may have changed the values.
    """

    values: NDArray[Any]
    white: int
    negative: bool = False
    alpha: NDArray[np.float32] | None = None
    lossy: bool = False


def check_size(width: int, height: int, channels: int, itemsize: int) -> None:
    """Refuse a picture of no pixels, of more than MAX_PIXELS, or that would not fit into memory."""
    check_pixels(width, height)
    needed = width * height * channels * (2 * itemsize + 4)  # twice as the file holds it, once as float32
    left = headroom()
    if needed > left:
        raise PictureError(
            f"is {width}x{height} pixels, which take {needed / 1e9:.2f} GB of memory to read, and "
            f"{left / 1e9:.2f} GB are free; cut it into pieces"
        )


def check_pixels(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Refuse a picture of no pixels, or of more than `most`."""
    if width < 1 or height < 1:
        raise PictureError(f"is {width}x{height} pixels: nothing to read")
    if width * height > most:
        raise PictureError(f"is {width}x{height} pixels, more than {most:,}; cut it into pieces")


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W) or (H, W, C) as the orientation tag of EXIF and TIFF says, 1 to 8; others say nothing."""
    if orientation in (3, 4, 6, 7):
        values = values[::-1]
    if orientation in (2, 3, 7, 8):
        values = values[:, ::-1]
    return values.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else values


class Frame(NamedTuple):
    """What the frame header (SOF) of a JPEG claims."""

    bits: int
    height: int
    width: int


def jpeg_frame(data: bytes) -> Frame | None:
    """The frame header of a JPEG, None if there is none before the first scan."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # DHT, JPG and DAC are no frames
            return Frame(*struct.unpack_from(">BHH", data, at + 4))
        elif marker == 0xDA:
            return None
        else:
            at += 2 if marker in (0x01, *range(0xD0, 0xD9)) else 2 + length  # markers without a segment
    return None
