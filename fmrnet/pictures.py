"""Pictures in and out: files and arrays become float32 in [0, 1], or a PictureError that says why not.

What a file may hold, and what becomes of it:

* 1-bit, 8-bit and 16-bit grey and 8-bit colour of any format Pillow reads; 16-bit colour PNG and TIFF keep
  all 16 bits; float TIFF must be 32-bit grey with values in [0, 1].
* Palette, CMYK, YCbCr, LAB and HSV pictures become RGB (colour profiles are not applied).
* An opaque alpha channel is dropped. Transparent pixels have no colour to inspect: an error.
* The rotation that a camera notes in EXIF is applied.
* A file of several frames is an error; the preview that cameras put into a JPEG (MPO) does not count.
"""

from __future__ import annotations

import stat
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from fmrnet.errors import PictureError
from fmrnet.files import replacing

__all__ = [
    "MAX_PIXELS",
    "as_picture",
    "read_mask",
    "read_picture",
    "to_channels",
    "write_map",
    "write_picture",
]

MAX_PIXELS = 2**27  # 134 million, 32768 lines of a 4096-pixel line camera; in colour 1.6 GB as float32

SOFTWARE = (
    "fmrnet"  # stands in every picture written, so that this program knows its own and replaces no other
)

Picture = NDArray[np.float32]


def read_picture(path: str | Path) -> Picture:
    """Read one picture file.

    Parameters
    ----------
    path : a picture file (see the top of this file for what it may hold).

    Returns
    -------
    (H, W) grey or (H, W, 3) colour, float32 in [0, 1]

    Raises
    ------
    PictureError : the file is missing, unreadable, empty, cut short, no picture, of several frames, partly
        transparent, larger than MAX_PIXELS (checked before any pixel is decoded), or not within [0, 1].
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(
                f"{path} is {'a folder' if path.is_dir() else 'no regular file'}; expected a picture"
            )
        if status.st_size == 0:
            raise PictureError(f"{path} is empty (0 bytes); copy it again")
        with open(path, "rb") as file:
            return as_picture(_decode(file, path))
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error
    except PictureError as error:
        raise error if str(path) in str(error) else PictureError(f"{path}: {error}") from None


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read a ground-truth mask: True where any channel of the picture file is above one half of its range.

    Raises
    ------
    PictureError : as `read_picture`.
    """
    picture = read_picture(path)
    return (picture if picture.ndim == 2 else picture.max(axis=2)) > 0.5


def as_picture(array: ArrayLike) -> Picture:
    """Check a picture given as an array and bring it to float32 in [0, 1].

    Parameters
    ----------
    array : (H, W), (H, W, 1) or (H, W, 3); uint8 (0 to 255), uint16 (0 to 65535) or floating point in [0, 1].

    Returns
    -------
    (H, W) or (H, W, 3), float32 in [0, 1], an array of its own

    Raises
    ------
    PictureError : another shape or type, no pixels, NaN, infinity, or values outside [0, 1].
    """
    try:
        given = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PictureError(f"cannot make a picture of this {type(array).__name__}: {error}") from error
    if not (given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (1, 3))):
        raise PictureError(f"array of shape {given.shape}: expected (H, W), (H, W, 1) or (H, W, 3)")
    if given.size == 0:
        raise PictureError(f"array of shape {given.shape} has no pixels")
    if given.dtype.kind == "u" and given.dtype.itemsize <= 2:
        picture = given.astype(np.float32) / np.float32(np.iinfo(given.dtype).max)
    elif given.dtype.kind == "f":
        low, high = given.min(), given.max()  # NaN if any value is
        if not (low >= 0 and high <= 1):
            found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
            raise PictureError(f"array holds {found}: expected numbers in [0, 1], or uint8 or uint16")
        picture = np.array(given, dtype=np.float32, order="C")
    else:
        raise PictureError(
            f"array of type {given.dtype}: expected uint8, uint16, or floating point in [0, 1]"
        )
    return picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture


def to_channels(picture: Picture, channels: int) -> Picture:
    """Bring a picture to one channel or three: (H, W) or (H, W, 3) -> (H, W, channels).

    Grey becomes three equal channels; colour becomes its luma (ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B).
    """
    if channels not in (1, 3):
        raise ValueError(f"channels = {channels}: expected 1 or 3")
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.shape[2] == channels:
        return picture
    if channels == 3:
        return np.repeat(picture, 3, axis=2)
    luma: Picture = picture @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
    return np.minimum(luma, np.float32(1))


def write_picture(path: str | Path, picture: NDArray[np.bool_] | NDArray[np.uint8]) -> None:
    """Write an 8-bit PNG in one step: (H, W) bool (as 0 and 255) or uint8, or (H, W, 3) uint8."""
    if picture.dtype == np.bool_:
        picture = picture.astype(np.uint8) * np.uint8(255)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", SOFTWARE)
    with replacing(path) as file:
        Image.fromarray(picture).save(file, format="PNG", pnginfo=text)


def write_map(path: str | Path, values: NDArray[np.float32]) -> None:
    """Write an (H, W) map as 32-bit float TIFF in one step, every bit kept.

    TIFF and not .npy: ImageJ, HALCON, OpenCV, GIMP and Pillow open it as a picture.
    """
    with replacing(path) as file:
        image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        image.save(file, format="TIFF", software=SOFTWARE)


def _decode(file: BinaryIO, path: Path) -> NDArray[Any]:
    """The pixels of an open file as an array for `as_picture`; `path` is for messages."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow warns of large pictures and odd metadata; we check ourselves
            image = Image.open(file)
            _check_header(image, path)
            low_bytes = _tiles_of_low_bytes(image, path)
            pixels = _pixels(image, path)
            if low_bytes:
                image = Image.open(file)
                image.tile = low_bytes
                pixels = pixels.astype(np.uint16) << 8 | _pixels(image, path)
            return pixels
    except (PictureError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{path} is no picture of a known kind (float TIFF must be 32-bit grey)") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{path} has more than {MAX_PIXELS:,} pixels; cut it into pieces") from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... on broken files
        raise PictureError(f"{path} is damaged or cut short ({error})") from error


def _check_header(image: ImageFile.ImageFile, path: Path) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError(f"{path} is {width}x{height} pixels: nothing to read")
    if width * height > MAX_PIXELS:
        raise PictureError(f"{path} is {width}x{height} pixels, more than {MAX_PIXELS:,}; cut it into pieces")
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise PictureError(f"{path} holds {frames} frames; save the one to inspect as a picture of its own")


def _tiles_of_low_bytes(image: ImageFile.ImageFile, path: Path) -> list[Any]:
    """For 16-bit colour, Pillow's decoding steps changed to give the low bytes; for other pictures, none.

    Pillow has no 16-bit colour and keeps the high byte of each value. Told the other byte order, the same
    decoder keeps the low one, so two readings give all 16 bits.
    """
    if image.mode not in ("RGB", "RGBA"):
        return []
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        wide = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8
    else:
        wide = image.format == "PNG" and any(";16" in str(tile.args) for tile in image.tile)
    if not wide:
        return []
    swapped = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    tiles = []
    for tile in image.tile:
        rawmode, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        kind, _, order = str(rawmode).partition(";16")
        if kind not in ("RGB", "RGBA") or order not in swapped:
            raise PictureError(f"{path} stores its 16-bit colours apart ({rawmode}); save it as 16-bit PNG")
        other = f"{kind};16{swapped[order]}"
        tiles.append(tile._replace(args=(other, *rest) if isinstance(tile.args, tuple) else other))
    return tiles


def _pixels(image: ImageFile.ImageFile, path: Path) -> NDArray[Any]:
    """Decode, turn upright and bring to grey (8, 16 bit or float) or 8-bit RGB."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    mode = image.mode
    if image.has_transparency_data:
        clear = np.mean(np.asarray(image.convert("RGBA").getchannel("A")) < 255)
        if clear > 0:
            raise PictureError(
                f"{path} is transparent in {clear:.2%} of its pixels; flatten it onto a background"
            )
    if mode in ("L", "RGB", "F") or mode.startswith("I;16"):
        return np.asarray(image)
    if mode == "I":
        if image.format not in ("PNG", "PPM"):  # where it is Pillow's way to hold unsigned 16 bits
            raise PictureError(f"{path} holds signed or 32-bit integers; save it as unsigned 8 or 16 bits")
        return np.asarray(image).astype(np.uint16)
    return np.asarray(image.convert("L" if mode in ("1", "LA", "La") else "RGB"))
