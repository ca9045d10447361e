"""Features as bytes: EL_5, EL_4 and EL_3 of a picture or a part of one, in float16 or 8 bits, by Zstandard.

    "FMRF" | bytes a value: 1 or 2 | B, h, w of EL_5, 16 bits each | EL_5 | EL_4 | EL_3

In 8 bits, each map begins with the least value and the step of each channel of each picture, in float32. Little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import FmrnetError

__all__ = ["FeaturesError", "Maps", "pack", "unpack"]

LEVEL = 3  # of Zstandard
HEAD = struct.Struct("<4sBHHH")
MAGIC = b"FMRF"
SCALES = (1, 2, 4)  # of EL_5, EL_4 and EL_3
Maps = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # each (B, C, h, w)


class FeaturesError(FmrnetError):
    """Bytes that are no features, or not those of this model."""


def pack(maps: Maps, width: Literal[1, 2]) -> bytes:
    """The bytes of maps, with 1 or 2 bytes a value."""
    import zstandard

    count, _, height, columns = maps[0].shape
    parts = [HEAD.pack(MAGIC, width, count, height, columns)]
    for one in maps:
        if width == 2:
            parts.append(one.astype("<f2").tobytes())
            continue
        one = one.astype(np.float32)
        low, high = one.min((2, 3), keepdims=True), one.max((2, 3), keepdims=True)
        step = np.maximum(high - low, 1e-12) / 255
        levels = np.rint((one - low) / step).astype(np.uint8)
        parts += [low.astype("<f4").tobytes(), step.astype("<f4").tobytes(), levels.tobytes()]
    return zstandard.ZstdCompressor(level=LEVEL).compress(b"".join(parts))


def unpack(data: bytes, channels: Sequence[int], most_cells: int) -> Maps:
    """The maps in what `pack` gave, in float16 or float32.

    Parameters
    ----------
    data : bytes
    channels : three int
        Of EL_5, EL_4 and EL_3.
    most_cells : int
        Of EL_5, B x h x w; memory is bounded by what these take.

    Raises
    ------
    FeaturesError
    """
    import zstandard

    greatest = HEAD.size + sum(
        4 * (scale**2 * most_cells * count + 2 * most_cells * count)
        for scale, count in zip(SCALES, channels, strict=True)
    )
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= greatest:
            raise FeaturesError(
                f"features of {size} bytes: expected up to {greatest}, and their size in the frame"
            )
        content = zstandard.ZstdDecompressor(max_window_size=2**27).decompress(data, max_output_size=greatest)
    except zstandard.ZstdError as error:
        raise FeaturesError(f"features are no Zstandard frame: {error}") from error
    if len(content) < HEAD.size or content[:4] != MAGIC:
        raise FeaturesError(f"features do not begin with {MAGIC.decode()}")
    _, width, count, height, columns = HEAD.unpack_from(content)
    if width not in (1, 2) or not 0 < count * height * columns <= most_cells:
        raise FeaturesError(
            f"features of {width} bytes a value, {count} of {height}x{columns} cells: "
            f"expected 1 or 2, and up to {most_cells} cells"
        )
    shapes = [
        (count, depth, scale * height, scale * columns) for scale, depth in zip(SCALES, channels, strict=True)
    ]
    expected = HEAD.size + sum(
        width * int(np.prod(shape)) + (8 * shape[0] * shape[1] if width == 1 else 0) for shape in shapes
    )
    if len(content) != expected:
        raise FeaturesError(f"features of {len(content)} bytes: expected {expected} of this model")
    place = HEAD.size
    found = []

    def take(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        nonlocal place
        array = np.frombuffer(content, dtype, int(np.prod(shape)), place).reshape(shape)
        place += array.nbytes
        return array

    for shape in shapes:
        if width == 2:
            found.append(take(shape, "<f2"))
            continue
        low, step = (take((*shape[:2], 1, 1), "<f4") for _ in range(2))
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # a stranger's numbers; who takes them looks at them
            found.append(low + take(shape, "u1") * step)
    return found[0], found[1], found[2]
