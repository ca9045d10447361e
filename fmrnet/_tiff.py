"""TIFF and BigTIFF to pixels, by tifffile and imagecodecs.

tifffile hands out values as they are stored, so what they mean is settled here: bits, palette, white and black,
alpha, orientation. It trusts the file, so what the file claims is held against its length before anything is read.
"""

from __future__ import annotations

import io
import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, SAMPLEFORMAT

from fmrnet import large
from fmrnet._pixels import MAX_PIXELS, SEVERAL, Pixels, check_pixels, check_size, jpeg_frame, upright
from fmrnet.errors import PictureError

__all__ = ["decode", "size"]

BUFFER = 2**24  # bytes of strips or tiles that are read at once
_REMEDY = "save it as grey or RGB, unsigned 8 or 16 bits"

_TYPE_SIZES = (
    0,
    1,
    1,
    2,
    4,
    8,
    1,
    1,
    2,
    4,
    8,
    4,
    8,
    4,
    0,
    0,
    8,
    8,
    8,
)  # bytes of a value, by its type in a tag
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS = 273, 274, 277, 278, 279
_MAX_VALUE, _PLANAR, _PREDICTOR, _COLOUR_MAP = 281, 284, 317, 320
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _SMAX_VALUE, _JPEG_TABLES = 332, 338, 339, 341, 347
_NEEDED = {
    *(_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER),
    *(_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS),
    *(_MAX_VALUE, _PLANAR, _PREDICTOR, _COLOUR_MAP),
    *(_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS),
    *(_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _SMAX_VALUE, _JPEG_TABLES),
}
_COLOURS: dict[int, int] = {  # channels of each kind of colour
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.SEPARATED: 4,
    PHOTOMETRIC.YCBCR: 3,
}
_COMPRESSIONS = {  # whose decoders are told how much may come out, or say so before they begin
    COMPRESSION.NONE,
    COMPRESSION.CCITTRLE,
    COMPRESSION.CCITT_T4,
    COMPRESSION.CCITT_T6,
    COMPRESSION.LZW,
    COMPRESSION.JPEG,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
    COMPRESSION.PACKBITS,
    COMPRESSION.ZSTD,
}


def decode(file: BinaryIO, most: int = MAX_PIXELS) -> Pixels:
    """The one page of a TIFF file, of at most so many pixels; large values lie in a file, see `fmrnet.large`.

    Raises
    ------
    PictureError
        If it holds more than one page, claims what the file has no room for, or is of a kind that is not read.
    """
    with _page(file) as page:
        _check_kind(page)
        _check_segments(page, file, most)
        out = large.empty(page.shaped, np.dtype(page.dtype)) if math.prod(page.shaped) > large.MOST else None
        # Planes, depth, height, width, channels of a plane
        stored = page.asarray(squeeze=False, maxworkers=1, buffersize=BUFFER, out=out)
        return _meaning(page, stored[:, 0].transpose(1, 2, 0, 3).reshape(*stored.shape[2:4], -1))


def size(file: BinaryIO) -> tuple[int, int]:
    """Height and width that the page of a TIFF file claims. Raises PictureError as `decode`, but for its pixels."""
    with _page(file) as page:
        return int(page.imagelength), int(page.imagewidth)


@contextmanager
def _page(file: BinaryIO) -> Iterator[tifffile.TiffPage]:
    """The one page, of which every tag that is needed can be read."""
    codes = _check_directory(file)
    file.seek(0)
    with (
        _silence(),
        tifffile.TiffFile(file, is_lsm=False, is_ndpi=False, is_scanimage=False) as read,
    ):
        page = read.pages.first
        lost = [code for code in codes & _NEEDED if code not in page.tags]
        if lost:
            raise PictureError(f"is damaged or cut short (tag {lost[0]} cannot be read)")
        yield page


def _check_directory(file: BinaryIO) -> set[int]:
    """The tags of the first page, once its directory is known to be the only one and to fit into the file."""
    kind, length = _at(file, 0, 4), _length(file)
    order = "<" if kind[:2] == b"II" else ">"
    if b"+" in kind[2:4]:  # BigTIFF
        first, number, entry, offset = 8, "Q", "HHQ8x", "Q"
    else:
        first, number, entry, offset = 4, "H", "HHI4x", "I"
    start = _number(file, first, order + offset)
    count = _number(file, start, order + number)
    start += struct.calcsize(number)
    end = start + count * struct.calcsize(order + entry)
    if _number(file, end, order + offset):
        raise PictureError(SEVERAL)
    tags = list(struct.iter_unpack(order + entry, _at(file, start, end - start)))
    claimed = sum(values * _TYPE_SIZES[kind] for _, kind, values in tags if kind < len(_TYPE_SIZES))
    if claimed > length:
        raise PictureError(f"is damaged or cut short (its tags claim {claimed} bytes of {length})")
    return {code for code, _, _ in tags}


def _length(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def _at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _number(file: BinaryIO, start: int, kind: str) -> int:
    """The integer that stands at a place; struct.error if the file ends before."""
    number: int = struct.unpack(kind, _at(file, start, struct.calcsize(kind)))[0]
    return number


def _check_kind(page: tifffile.TiffPage) -> None:
    """Refuse what would not come out right, with the reason."""
    photometric, compression, bits = page.photometric, page.compression, page.bitspersample
    if compression not in _COMPRESSIONS:
        raise PictureError(
            f"is compressed by {_name(COMPRESSION, compression)}, which is not read; "
            "save it without compression, or by LZW, deflate or Zstandard"
        )
    if photometric not in _COLOURS:
        raise PictureError(f"holds {_name(PHOTOMETRIC, photometric)}, neither grey nor RGB; {_REMEDY}")
    if photometric == PHOTOMETRIC.YCBCR and compression != COMPRESSION.JPEG:
        raise PictureError(f"holds YCbCr that is not compressed by JPEG; {_REMEDY}")
    if photometric == PHOTOMETRIC.SEPARATED and page.tags.valueof(_INK_SET, 1) != 1:
        raise PictureError(f"holds inks other than CMYK; {_REMEDY}")
    if page.imagedepth != 1 or page.tiledepth not in (0, 1) or page.is_stk or page.is_lsm:
        raise PictureError(SEVERAL)
    extra = page.samplesperpixel - _COLOURS[photometric]
    if extra not in (0, 1):
        raise PictureError(
            f"holds {page.samplesperpixel} channels of {_name(PHOTOMETRIC, photometric)}; expected "
            f"{_COLOURS[photometric]}, and one for alpha at most"
        )
    if not isinstance(bits, int) or page.dtype is None:
        raise PictureError(f"holds {bits} bits a value, which are not read; {_REMEDY}")
    if page.sampleformat not in (SAMPLEFORMAT.UINT, SAMPLEFORMAT.INT, SAMPLEFORMAT.IEEEFP):
        raise PictureError(f"holds values of the kind {_name(SAMPLEFORMAT, page.sampleformat)}; {_REMEDY}")
    if photometric in (PHOTOMETRIC.PALETTE, PHOTOMETRIC.SEPARATED) and page.dtype.kind not in "bu":
        raise PictureError(f"holds {_name(PHOTOMETRIC, photometric)} as {page.dtype}; {_REMEDY}")
    if page.predictor != 1 and bits not in (8, 16, 32, 64):
        raise PictureError(f"holds {bits}-bit values with a predictor, which are not read; {_REMEDY}")


def _check_segments(page: tifffile.TiffPage, file: BinaryIO, most: int) -> None:
    """Hold the sizes and places of picture, strips and tiles against memory and the file's length."""
    channels, itemsize = page.samplesperpixel, np.dtype(page.dtype).itemsize
    length = _length(file)
    rows, columns = page.rowsperstrip, page.imagewidth
    if page.is_tiled:
        rows, columns = page.tilelength, page.tilewidth
        check_size(columns, rows, channels, itemsize)
    check_pixels(page.imagewidth, page.imagelength, most)
    # Of a large picture only a strip, or a tile, is in memory at a time, and none if it is not compressed.
    if math.prod(page.shaped) <= large.MOST:
        check_size(page.imagewidth, page.imagelength, channels, itemsize)
    elif not page.is_contiguous:
        check_size(columns, min(rows, page.imagelength), channels, itemsize)
    count = math.prod(page.chunked)
    if min(len(page.dataoffsets), len(page.databytecounts)) < count:
        raise PictureError(f"is damaged or cut short (it does not list its {count} strips or tiles)")
    for start, size in zip(page.dataoffsets[:count], page.databytecounts[:count]):
        if start == 0 or size == 0:
            raise PictureError("leaves some of its strips or tiles out; save it whole")
        if start + size > length:
            raise PictureError(f"is damaged or cut short (its pixels go to byte {start + size} of {length})")
        if page.compression == COMPRESSION.JPEG:
            frame = jpeg_frame(_at(file, start, size))
            if frame is None or frame.width * frame.height > rows * columns:
                raise PictureError("is damaged or cut short (a JPEG in it is larger than its strip or tile)")


def _meaning(page: tifffile.TiffPage, stored: NDArray[Any]) -> Pixels:
    """What the stored values (H, W, C) stand for."""
    photometric, orientation = page.photometric, int(page.tags.valueof(_ORIENTATION, 1))
    stored = upright(stored.view(np.uint8) if stored.dtype == np.bool_ else stored, orientation)
    colours = _COLOURS[photometric]
    values, white = stored[:, :, :colours], 1
    if values.dtype.kind == "u":
        white = _white(page)
    alpha = None
    if stored.shape[2] > colours:
        alpha = large.by_bands(
            lambda one: np.minimum(one.astype(np.float32) / np.float32(white), np.float32(1)),
            stored[:, :, colours],
        )
        if not any(page.extrasamples) and alpha.min() < 1:
            raise PictureError(
                f"holds a channel besides {_name(PHOTOMETRIC, photometric)} that is not said to be alpha"
            )
    if photometric == PHOTOMETRIC.PALETTE:
        palette, white = _palette(page), 255
        values = large.by_bands(lambda one: palette[one[:, :, 0]], values)
    elif photometric == PHOTOMETRIC.SEPARATED:
        values = large.by_bands(lambda one: _rgb(one, white), values)
    return Pixels(
        values[:, :, 0] if values.shape[2] == 1 else values,
        white,
        negative=photometric == PHOTOMETRIC.MINISWHITE,
        alpha=alpha,
        lossy=page.compression == COMPRESSION.JPEG,
    )


def _white(page: tifffile.TiffPage) -> int:
    """The integer of full brightness.

    Cameras of 10, 12 or 14 bits fill 16 and may say so by the greatest value. Others note there the greatest value
    that a picture happens to have, so only those values count that some number of bits ends at.
    """
    full = int(2**page.bitspersample - 1)
    if page.bitspersample == 16:
        for code in (_SMAX_VALUE, _MAX_VALUE):
            stated = int(np.max(page.tags.valueof(code, 0)))
            if stated in (2**bits - 1 for bits in range(8, 16)):
                return stated
    return full


def _palette(page: tifffile.TiffPage) -> NDArray[np.uint8]:
    """The colours of a palette, (entries, 3). The standard has 16 bits a colour, some writers use 8 of them."""
    colours = np.asarray(page.colormap)
    if colours.shape != (3, 2**page.bitspersample):
        raise PictureError("is damaged or cut short (its palette does not fit its values)")
    return (colours.T >> (8 if colours.max() > 255 else 0)).astype(np.uint8)


def _rgb(cmyk: NDArray[Any], white: int) -> NDArray[Any]:
    """CMYK (H, W, 4), `white` for full ink, to RGB; no colour profile."""
    paper = white - cmyk.astype(np.float32)
    return np.round(paper[:, :, :3] * paper[:, :, 3:] / white).astype(cmyk.dtype)


def _name(kinds: Any, value: int) -> str:
    try:
        return str(kinds(value).name)
    except ValueError:
        return f"kind {value}"


_reading: ContextVar[bool] = ContextVar("reading", default=False)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep tifffile's remarks from the log while this thread reads: what matters in them is an error here."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


logging.getLogger("tifffile").addFilter(lambda record: not _reading.get())
