"""Which pictures a command is given: files and folders become a list of files, each once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fmrnet.errors import DatasetError

__all__ = ["EXTENSIONS", "GOOD_FOLDERS", "list_pictures"]

GOOD_FOLDERS = frozenset({"good", "ok", "normal"})  # of a data set, whatever their case: BTAD has "ok"

_PHOTOGRAPHS = {".avif", ".avifs", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jxl", ".webp"}
_JPEG_2000 = {".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"}
_PLAIN = {
    ".apng",
    ".bmp",
    ".dib",
    ".gif",
    ".pam",
    ".pbm",
    ".pcx",
    ".pfm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tga",
}
_DEPTH = {".dcm", ".exr", ".hdr", ".tif", ".tiff"}
_CAMERAS = {".arw", ".cr2", ".cr3", ".dng", ".mpo", ".nef", ".orf", ".raf", ".raw", ".rw2"}
_PROGRAMS = {".psd", ".qoi", ".ras", ".sgi"}
EXTENSIONS = frozenset(_PHOTOGRAPHS | _JPEG_2000 | _PLAIN | _DEPTH | _CAMERAS | _PROGRAMS)
"""Suffixes of pictures. Not all these formats are read: a file that only looks like a picture is to be named by
whoever reads it, never passed over in silence."""


def list_pictures(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The picture files behind a mixture of files and folders, each once.

    A folder gives its files with the suffix of a picture (EXTENSIONS), sorted by name, without hidden ones and
    without those in folders below it: so no folder of defective pictures slips in among the good ones. A link
    that leads nowhere is given, too. Any other path is taken as a picture file, whatever its name; reading it
    tells whether it is one. Two spellings of one file are one picture, under the first.

    Raises
    ------
    DatasetError : a folder holds no picture, or cannot be listed; a path is none (it holds a zero byte, say).
    """
    found: dict[str, Path] = {}
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        inside = _inside(path) if os.path.isdir(path) else [path]
        for file in inside:
            found.setdefault(_place(file), file)
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}") from error
    found = [path for path in entries if _is_listed(path)]
    if not found:
        folders = [path.name for path in entries if _holds_pictures(path)]
        hint = f"; it has the folders {', '.join(folders[:5])}: name one of them" if folders else ""
        raise DatasetError(f"{folder} holds no pictures (.png .jpg .tif .bmp and others){hint}")
    return found


def _is_listed(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and not os.path.isdir(path)


def _holds_pictures(path: Path) -> bool:
    try:
        return os.path.isdir(path) and any(map(_is_listed, path.iterdir()))
    except OSError:  # it is only for a hint, and naming the folder itself tells why it cannot be listed
        return False


def _place(path: Path) -> str:
    """The same for two spellings of one name in one folder; a link is another name than what it leads to."""
    try:
        return os.path.join(os.path.realpath(path.parent), path.name)
    except ValueError as error:
        raise DatasetError(f"{str(path)!r} is no path: {error}") from None
