"""Pictures in and out: files and arrays become float32 in [0, 1], or a PictureError that says why not.

What a file may hold, and what becomes of it:

* PNG, TIFF, JPEG, BMP, GIF, PBM, PGM, PPM, WebP, AVIF and JPEG 2000, told by content and not by name. Nothing else is
  opened, and JPEG is read in 8 bits.
* Grey and RGB of up to 16 bits. PNG, TIFF, PGM and PPM keep all their bits, JPEG 2000 does in grey; other colours of
  more than 8 bits become 8. A camera that measures 12 bits and writes them into 16 says so in the file (PNG's sBIT,
  TIFF's SMaxSampleValue or MaxSampleValue, the greatest value of PGM) or is told by `bits`; else it comes out dark.
* TIFF of one page: also BigTIFF, strips and tiles, planes apart, 1 to 16 bits a value, packed or not, white as 0; not
  compressed or by PackBits, CCITT, LZW, deflate, Zstandard or JPEG. Floating point must lie in [0, 1].
* Palette, CMYK, YCbCr and HSV pictures become RGB (colour profiles are not applied).
* An opaque alpha channel is dropped. Transparent pixels have no colour to inspect: an error.
* The rotation that a camera notes in EXIF or TIFF is applied.
* More than 2^27 pixels, up to 2^30, of TIFF, and of PNG of 8 bits in grey or RGB, if it is read from a file: then it is
  not in memory as a whole, see `fmrnet.large`.
* A file of several frames or pages is an error; the preview that cameras put into a JPEG (MPO) does not count.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, PngImagePlugin

from fmrnet import _pillow, large
from fmrnet._mask import marked
from fmrnet._pixels import MAX_PIXELS, MAX_PIXELS_OF_FILE, Pixels
from fmrnet.errors import ConfigError, PictureError
from fmrnet.files import replacing
from fmrnet.headroom import headroom

__all__ = [
    "MAX_PIXELS",
    "as_picture",
    "decode_picture",
    "decode_size",
    "read_mask",
    "read_picture",
    "read_size",
    "to_channels",
    "write_map",
    "write_picture",
]

# Stands in every picture written, so that this program knows its own and replaces no other.
SOFTWARE = "fmrnet"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such files begin
MOST_OF_TIFF = 2**32 - 2**25  # bytes of pixels; more need BigTIFF
Picture = NDArray[np.float32]


def read_picture(path: str | Path, bits: int | None = None) -> Picture:
    """Read one picture file.

    Parameters
    ----------
    path : a picture file (see the top of this file for what it may hold).
    bits : how many bits of a 16-bit value are in use, 1 to 16, say 12 for a camera that measures 12. Given, it holds
        against what the file says; None: what the file says, else all. Pictures of 8 bits or floats are not touched.

    Returns
    -------
    (H, W) grey or (H, W, 3) colour in the order red, green, blue, float32 in [0, 1]

    Raises
    ------
    PictureError : the file is missing, unreadable, empty, cut short, no picture, of several frames, partly
        transparent, larger than MAX_PIXELS (TIFF and plain PNG: MAX_PIXELS_OF_FILE) or than memory or disk allow
        (checked before any pixel is decoded), not within [0, 1], or holds values of more than `bits` bits.
    ConfigError : no such number of bits.
    """
    path = Path(path)
    pixels = _decode(path)
    try:
        return _to_unit(pixels, bits)
    except PictureError as error:
        raise PictureError(f"{path} {error}") from None


def decode_picture(data: bytes, bits: int | None = None) -> Picture:
    """The picture in the bytes of a file, as `read_picture` gives it; raises as that, with the reason alone."""
    if not data:
        raise PictureError("is empty (0 bytes); send it again")
    return _to_unit(_decoded(data), bits)


def decode_size(data: bytes) -> tuple[int, int]:
    """Height and width of the picture in the bytes of a file, as `read_size` gives them; raises as `decode_picture`."""
    with _as_picture_errors():
        if data[:4] not in TIFF:
            return _pillow.size(data)
        from fmrnet import _tiff  # tifffile takes its time to import

        return _tiff.size(io.BytesIO(data))


def read_mask(path: str | Path, remarks: list[str] | None = None) -> NDArray[np.bool_]:
    """Read a ground-truth mask: (H, W), True where there is a defect.

    A pixel is a defect where any channel is above 0: in black and white, 0 and 1, labels, colours, a palette (by its
    colours), 16 bits, integers of any other size. Where alpha is 0 there is none.

    Lossy compression and resampling leave faint values around what was drawn. Faint values, up to half of full
    brightness, are taken for such traces, and a pixel is then a defect above one half, if every one of them lies near
    a bright value, in the same block of JPEG or the next, and either the format may be lossy, or they are scattered, or
    the mask has more than 16 different values. A soft mask, whose many values rise step by step, is likewise a defect
    above one half, however far its faint values reach; `remarks` then gets words that go on from "this mask ".

    Raises
    ------
    PictureError : as `read_picture`, but for transparency; or the mask is ambiguous: it has faint values away from all
        bright ones in a format that may be lossy, draws in black on clear ground, or holds NaN or negative values.
    """
    path = Path(path)
    pixels = _decode(path)
    try:
        return marked(pixels, remarks)
    except PictureError as error:
        raise PictureError(f"{path} {error}") from None


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a picture file as it stores them, before any rotation; no pixel is decoded.

    Raises
    ------
    PictureError : the file is missing, unreadable, empty or no picture.
    """
    path = Path(path)
    with _naming(path), _opened(path) as file:
        if file.read(4) in TIFF:
            from fmrnet import _tiff  # as above

            return _tiff.size(file)
        return decode_size(_whole(file))


def as_picture(array: ArrayLike | Image.Image, bits: int | None = None) -> Picture:
    """Check a picture given as an array and bring it to float32 in [0, 1].

    Parameters
    ----------
    array : (H, W), (H, W, 1) or (H, W, 3), colour in the order red, green, blue (OpenCV reads blue first: give it
        `image[:, :, ::-1]`); uint8 (0 to 255), uint16 (0 to 65535, or as `bits` says) or floating point in [0, 1]. A
        Pillow image is taken as its file would be, a palette for its colours.
    bits : how many bits of a uint16 value are in use, 1 to 16; None: all.

    Returns
    -------
    (H, W) or (H, W, 3), float32 in [0, 1], an array of its own; a large one (see `fmrnet.large`) that is so already is
    given back itself

    Raises
    ------
    PictureError : another shape or type, no pixels, NaN, infinity, or values outside [0, 1] or of more than
        `bits` bits.
    ConfigError : no such number of bits.
    """
    try:
        pixels = _from_pillow(array) if isinstance(array, Image.Image) else _from_array(array)
        return _to_unit(pixels, bits)
    except PictureError as error:
        kind = "Pillow image" if isinstance(array, Image.Image) else "array"
        raise PictureError(f"{kind} {error}") from None


def to_channels(picture: Picture, channels: int) -> Picture:
    """Bring a picture to one channel or three: (H, W) or (H, W, 3) -> (H, W, channels).

    Grey becomes three equal channels, and those become it again; colour becomes its luma (ITU-R BT.601:
    0.299 R + 0.587 G + 0.114 B).
    """
    if channels not in (1, 3):
        raise ValueError(f"channels = {channels}: expected 1 or 3")
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.shape[2] == channels:
        return picture
    if channels == 3:
        return large.by_bands(lambda one: np.repeat(one, 3, axis=2), picture)
    if all((picture[rows] == picture[rows, :, :1]).all() for rows in large.bands(picture)):
        return picture[:, :, :1]  # the luma of grey is grey, to the last bit
    weights = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
    return large.by_bands(lambda one: np.minimum(one @ weights, np.float32(1)), picture)


def write_picture(path: str | Path, picture: NDArray[np.bool_] | NDArray[np.uint8]) -> None:
    """Write an 8-bit PNG in one step: (H, W) bool (as 0 and 255) or uint8, or (H, W, 3) uint8 RGB.

    Raises
    ------
    OSError : the folder is missing or cannot be written, or the disk is full; what stood at `path` stays.
    """
    if picture.dtype == np.bool_:
        picture = large.by_bands(lambda rows: rows.astype(np.uint8) * np.uint8(255), picture)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", SOFTWARE)
    _write(path, Image.fromarray(picture), format="PNG", pnginfo=text)


def write_map(path: str | Path, values: NDArray[np.float32]) -> None:
    """Write an (H, W) map as 32-bit float TIFF in one step, every bit kept. Raises as `write_picture`.

    TIFF and not .npy: ImageJ, HALCON, OpenCV, GIMP and Pillow open it as a picture. Beyond 4 GB it is BigTIFF.
    """
    if large.is_large(values):
        import tifffile  # as above

        content = (values[rows].astype(np.float32, copy=False).tobytes() for rows in large.bands(values))
        with replacing(path, at_once=False) as file:
            tifffile.imwrite(
                file,
                content,
                shape=values.shape,
                dtype=np.float32,
                bigtiff=4 * values.size > MOST_OF_TIFF,
                software=SOFTWARE,
                metadata=None,
            )
        return
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    _write(path, image, format="TIFF", software=SOFTWARE)


def _write(path: str | Path, image: Image.Image, **options: Any) -> None:
    # Given a file, Pillow writes to its descriptor and does not see that the disk is full.
    encoded = io.BytesIO()
    image.save(encoded, **options)
    with replacing(path) as file:
        file.write(encoded.getbuffer())


def _decode(path: Path) -> Pixels:
    """The pixels of a file."""
    with _naming(path), _opened(path) as file:
        if file.read(4) in TIFF:
            from fmrnet import _tiff  # as above

            return _tiff.decode(file, MAX_PIXELS_OF_FILE)
        return _pillow.decode(_whole(file), MAX_PIXELS_OF_FILE)


def _decoded(data: bytes) -> Pixels:
    """The pixels of a file's bytes."""
    with _as_picture_errors():
        if data[:4] not in TIFF:
            return _pillow.decode(data)
        from fmrnet import _tiff  # as above

        return _tiff.decode(io.BytesIO(data))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever the content of a file makes a decoder raise is a PictureError that names it."""
    try:
        with _as_picture_errors():
            yield
    except PictureError as error:
        raise PictureError(f"{path} {error}") from None


@contextmanager
def _as_picture_errors() -> Iterator[None]:
    """Whatever bytes make a decoder raise is a PictureError."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("takes more memory to read than is free; cut it into pieces") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, RuntimeError, ...
        raise PictureError(f"is damaged or cut short ({_brief(error)})") from error


def _opened(path: Path) -> BinaryIO:
    """A regular file that is not empty; PictureError if it is none, or cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(f"is {'a folder' if path.is_dir() else 'no regular file'}; expected a picture")
        if status.st_size == 0:
            raise PictureError("is empty (0 bytes); copy it again")
        return open(path, "rb")
    except FileNotFoundError:
        raise PictureError("does not exist") from None
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte or a lone surrogate
        raise PictureError(f"cannot be the name of a file: {error}") from None


def _whole(file: BinaryIO) -> bytes:
    """All bytes of a file, once they are known to fit into memory."""
    length, left = file.seek(0, io.SEEK_END), headroom()
    if length > left:
        raise PictureError(f"is {length / 1e9:.2f} GB large, and {left / 1e9:.2f} GB of memory are free")
    file.seek(0)
    return file.read(length)


def _from_pillow(image: Image.Image) -> Pixels:
    try:
        image.load()
        return _pillow.pixels(ImageOps.exif_transpose(image))  # a copy: the caller's own is left as it is
    except PictureError:
        raise
    except Exception as error:  # as above: the image may be a file that is not decoded yet
        raise PictureError(f"of mode {image.mode} cannot be read ({_brief(error)})") from error


def _from_array(array: ArrayLike) -> Pixels:
    try:
        given = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PictureError(f"of this {type(array).__name__} cannot be made: {_brief(error)}") from error
    if np.ma.isMaskedArray(array):
        raise PictureError("has a mask of its own; expected a plain one, such as array.filled(0)")
    if not (given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (1, 3))):
        raise PictureError(f"has the shape {given.shape}: expected (H, W), (H, W, 1) or (H, W, 3)")
    if given.size == 0:
        raise PictureError(f"of shape {given.shape} has no pixels")
    if given.dtype.kind == "u" and given.dtype.itemsize <= 2:
        white = int(np.iinfo(given.dtype).max)
    elif given.dtype.kind == "f":
        white = 1
    else:
        raise PictureError(f"is of type {given.dtype}: expected uint8, uint16, or floating point in [0, 1]")
    return Pixels(given[:, :, 0] if given.ndim == 3 and given.shape[2] == 1 else given, white)


def _to_unit(pixels: Pixels, bits: int | None) -> Picture:
    """float32 in [0, 1]."""
    if bits is not None and not (isinstance(bits, int) and 1 <= bits <= 16):
        raise ConfigError(f"bits = {bits}: expected 1 to 16, the bits in use of a 16-bit value")
    if pixels.alpha is not None and (clear := np.mean(large.by_bands(lambda one: one < 1, pixels.alpha))) > 0:
        raise PictureError(f"is transparent in {clear:.2%} of its pixels; flatten it onto a background")
    values, kind = pixels.values, pixels.values.dtype
    if kind.kind == "u" and kind.itemsize <= 2:
        white = pixels.white if bits is None or kind.itemsize == 1 else 2**bits - 1
        if white < np.iinfo(kind).max and (greatest := int(values.max())) > white:
            says = f"{bits} bits end at" if bits is not None else "it says that full brightness is"
            raise PictureError(
                f"holds values up to {greatest}, and {says} {white}; give the number of its bits"
            )

        def of_integers(given: NDArray[Any]) -> Picture:
            picture = np.array(white - given if pixels.negative else given, dtype=np.float32, order="C")
            picture /= np.float32(white)
            return picture

        return large.by_bands(of_integers, values)
    if kind.kind != "f":
        raise PictureError(f"holds signed or 32-bit integers ({kind}); save it as unsigned 8 or 16 bits")
    slack = 8 * max(np.finfo(np.float32).eps, np.finfo(kind).eps)  # what rounding may have added
    low, high = values.min(), values.max()  # NaN if any value is
    if not (low >= -slack and high <= 1 + slack):
        found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
        raise PictureError(f"holds {found}: expected numbers in [0, 1], or unsigned 8 or 16 bits")

    if large.is_large(values) and kind == np.float32 and low >= 0 and high <= 1 and not pixels.negative:
        return np.ascontiguousarray(values)

    def of_floats(given: NDArray[Any]) -> Picture:
        picture = np.array(1 - given if pixels.negative else given, dtype=np.float32, order="C")
        return np.clip(picture, 0, 1, out=picture)

    return large.by_bands(of_floats, values)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
