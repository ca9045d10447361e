"""PNG, JPEG and the other usual files to pixels, by Pillow; PNG of 16 bits by imagecodecs, as Pillow keeps 8."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from fmrnet import large
from fmrnet._pixels import MAX_PIXELS, SEVERAL, Pixels, check_pixels, check_size, jpeg_frame, upright
from fmrnet.errors import PictureError

__all__ = ["decode", "pixels", "size"]

# Only these are ever opened: other plugins of Pillow run programs (EPS) or read further files. Naming their modules
# registers them; else Pillow would look for them by loading every plugin that it has.
_FORMATS = [
    *("PNG", "JPEG", "BMP", "GIF", "PPM"),
    *(plugin.format for plugin in (WebPImagePlugin.WebPImageFile, AvifImagePlugin.AvifImageFile)),
    Jpeg2KImagePlugin.Jpeg2KImageFile.format,
]
_LOSSY = {"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000"}  # or may be; what their files do not all say
_PNG = b"\x89PNG\r\n\x1a\n"
_NETPBM = re.compile(rb"P[1-7fFy]\s+[#\d]")  # how PBM, PGM and PPM begin; a text may begin with P6, too
_ORIENTATION = 0x0112


def decode(data: bytes, most: int = MAX_PIXELS) -> Pixels:
    """The one picture of a file of one of the formats above, of MAX_PIXELS at most; a plain PNG, of `most`.

    Raises
    ------
    PictureError
        If it holds more than one frame, is too large, or is of another kind.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata; we check ourselves
        if (found := _large_png(data, most)) is not None:
            return found
        image = _opened(data)
        width, height = image.size
        deep_png = image.format == "PNG" and data[24] == 16
        itemsize = 2 if deep_png else {"I": 4, "F": 4, "I;16": 2}.get(image.mode, 1)
        check_size(width, height, len(image.getbands()), itemsize)
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise PictureError(SEVERAL)
        if deep_png:
            return _deep_png(data, image)
        if image.format == "PPM" and image.mode in ("L", "I", "RGB") and image.tile[0].codec_name == "ppm":
            return _deep_ppm(data, image)
        decoded = pixels(image)
        if image.format == "JPEG2000" and decoded.values.dtype == np.uint16:
            decoded = _unstretched(data, decoded.values)
        return dataclasses.replace(decoded, lossy=image.format in _LOSSY)


def size(data: bytes) -> tuple[int, int]:
    """Height and width that the header of such a file claims. Raises as `decode`, but for frames and size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        width, height = _opened(data).size
        return height, width


def pixels(image: Image.Image) -> Pixels:
    """The pixels of a Pillow image, which is loaded and turned upright in place."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    alpha = None
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"), dtype=np.float32) / np.float32(255)
    mode = image.mode
    if mode == "I" and image.format == "PPM":  # plain PGM, which Pillow stretches to 16 bits
        return Pixels(np.asarray(image).astype(np.uint16), 65535)
    if mode in ("I", "I;16N"):
        raise PictureError("holds signed or 32-bit integers; save it as unsigned 8 or 16 bits")
    if mode.startswith("I;16"):
        return Pixels(np.asarray(image), 65535, alpha=alpha)
    if mode not in ("L", "RGB", "F"):
        image = image.convert("L" if mode in ("1", "LA", "La") else "RGB")
    return Pixels(np.asarray(image), 255, alpha=alpha)


def _opened(data: bytes) -> ImageFile.ImageFile:
    if data.startswith(b"\xff\xd8"):
        frame = jpeg_frame(data)
        if frame is not None and frame.bits != 8:
            raise PictureError(
                f"is a JPEG of {frame.bits} bits, of which 8 are read; save it as 16-bit PNG or TIFF"
            )
    known = ", ".join(name.replace("PPM", "PBM, PGM, PPM") for name in _FORMATS)
    unknown = PictureError(f"is no picture of a known kind ({known}, TIFF)")
    if data.startswith(b"P") and not _NETPBM.match(data):
        raise unknown
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise unknown from None
    except Image.DecompressionBombError:
        raise PictureError(f"has more than {MAX_PIXELS:,} pixels; cut it into pieces") from None


def _deep_png(data: bytes, image: ImageFile.ImageFile) -> Pixels:
    """PNG of 16 bits a value; `image` knows its orientation."""
    chunks = _png_chunks(data)
    exif = Image.Exif()
    if b"eXIf" in chunks:  # may follow the pixels, so that Pillow would decode them to look for it
        exif.load(chunks[b"eXIf"])
    elif "Raw profile type exif" in image.info:  # as older programs write it
        exif = image.getexif()
    import imagecodecs  # which takes its time

    stored = imagecodecs.png_decode(data)
    stored = upright(stored[:, :, None] if stored.ndim == 2 else stored, exif.get(_ORIENTATION, 1))
    colours = 1 if stored.shape[2] < 3 else 3
    values, alpha = stored[:, :, :colours], None
    if stored.shape[2] > colours:
        alpha = stored[:, :, colours].astype(np.float32) / np.float32(65535)
    white = _white(values, chunks.get(b"sBIT", b"")[:colours])
    return Pixels(values[:, :, 0] if colours == 1 else values, white, alpha=alpha)


def _large_png(data: bytes, most: int) -> Pixels | None:
    """A PNG too large for memory, grey or RGB of 8 bits, that says nothing of clear places or rotation; else None."""
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    channels = {0: 1, 2: 3}.get(kind)
    if channels is None or depth != 8 or width * height * channels <= large.MOST:
        return None
    if not {b"tRNS", b"eXIf", b"acTL"}.isdisjoint(_png_chunks(data)):
        return None
    check_pixels(width, height, most)
    import imagecodecs  # as above

    values = large.empty((height, width, channels)[: 2 + (channels > 1)], np.uint8)
    imagecodecs.png_decode(data, out=values)
    return Pixels(values, 255)


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """The last chunk of each name."""
    chunks, at = {}, len(_PNG)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name != b"IDAT":
            chunks[name] = data[at + 8 : at + 8 + length]
        at += length + 12
    return chunks


def _white(values: NDArray[Any], significant: bytes) -> int:
    """The integer of full brightness, given the bits of each channel that sBIT calls significant.

    By the standard such values are stretched to all 16 bits, and sBIT only says how many were measured. Cameras
    write them as they are: then no value is beyond those bits, and the lowest of the 16 are in use.
    """
    bits = max(significant, default=16)
    if not 8 <= bits < 16 or values.max() > 2**bits - 1:
        return 65535
    step = 2 ** (16 - bits)
    stretched = bool(np.all(values % step <= 1))  # by shifting, or by 65535 / (2^bits - 1) and rounding
    return 65535 if stretched else int(2**bits - 1)


def _deep_ppm(data: bytes, image: ImageFile.ImageFile) -> Pixels:
    """PGM or PPM whose greatest value is neither 255 nor 65535, or in 16-bit colour: Pillow would keep 8 bits."""
    tile, (width, height) = image.tile[0], image.size
    white = int(tile.args[1])  # type: ignore[index]
    colours = 1 if image.mode in ("L", "I") else 3
    kind = ">u2" if white > 255 else "u1"
    values = np.frombuffer(data, kind, height * width * colours, tile.offset).reshape(height, width, colours)
    return Pixels(values[:, :, 0] if colours == 1 else values, white)


def _unstretched(data: bytes, values: NDArray[np.uint16]) -> Pixels:
    """JPEG 2000 of 9 to 16 bits in grey, which Pillow has shifted to 16."""
    size = data.find(b"\xff\x4f\xff\x51")
    depth = data[size + 42]
    if depth & 0x80:
        raise PictureError("holds signed integers; save it as unsigned 8 or 16 bits")
    bits = depth + 1
    return Pixels(values >> (16 - bits), 2**bits - 1)
