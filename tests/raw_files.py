"""Picture files put together by hand: what no writer would write, and what only cameras do."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # of the values of a TIFF tag


def tiff(
    tags: Mapping[int, tuple[int, Sequence[int]]], data: bytes = b"", *, big: bool = False, following: int = 0
) -> bytes:
    """A little-endian TIFF of one page whose pixels start at byte 8 (BigTIFF: 16)."""
    head, number, count, offset = (16, "<Q", "Q", "Q") if big else (8, "<H", "I", "I")
    room = struct.calcsize(offset)
    beyond, entries = b"", b""
    for code, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{TYPES[kind]}", *values)
        if len(packed) > room:
            place = head + len(data) + len(beyond)
            beyond += packed + bytes(-len(packed) % 8)
            packed = struct.pack("<" + offset, place)
        entries += struct.pack("<HH" + count, code, kind, len(values)) + packed.ljust(room, b"\0")
    directory = head + len(data) + len(beyond)
    start = b"II+\0\x08\0\0\0" if big else b"II*\0"
    return (
        start
        + struct.pack("<" + offset, directory)
        + data
        + beyond
        + struct.pack(number, len(tags))
        + entries
        + struct.pack("<" + offset, following)
    )


def grey_tags(height: int, width: int, bits: int = 8, *, start: int = 8) -> dict[int, tuple[int, list[int]]]:
    """The tags of a grey page in one strip."""
    return {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits]),
        259: (3, [1]),
        262: (3, [1]),
        273: (4, [start]),
        277: (3, [1]),
        278: (4, [height]),
        279: (4, [height * -(-width * bits // 8)]),
    }


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(picture: NDArray[np.uint8] | NDArray[np.uint16], *chunks: bytes) -> bytes:
    """A PNG of (H, W) or (H, W, C), C 1 to 4 for grey, grey and alpha, RGB, RGBA, with `chunks` before its pixels."""
    height, width = picture.shape[:2]
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    rows = picture.astype(picture.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    data = zlib.compress(np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes())
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * picture.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0
    )
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
