"""Which pictures a command is given: files, folders and patterns become a list of files, each once."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fmrnet.errors import DatasetError

__all__ = ["EXTENSIONS", "GOOD_FOLDERS", "each_once", "is_pattern", "list_pictures"]

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
NONE = "holds no pictures (.png .jpg .tif .bmp and others)"


def list_pictures(
    paths: str | Path | Iterable[str | Path],
    *,
    recursive: bool = False,
    passed_over: Callable[[Path], bool] = lambda folder: False,
    unlisted: Callable[[Path, DatasetError], None] | None = None,
) -> list[Path]:
    """The picture files behind a mixture of files, folders and patterns, each once.

    A folder gives its files with the suffix of a picture (EXTENSIONS), sorted by name, without hidden ones and
    without those in folders below it: so no folder of defective pictures slips in among the good ones. A link
    that leads nowhere is given, too. A pattern, such as `line?/*.png` or `**/*.tif`, gives what a shell would give for
    it; a file that is called so goes before. Any other path is taken as a picture file, whatever its name; reading it
    tells whether it is one. Two spellings of one file are one picture, under the first.

    Parameters
    ----------
    paths : path or iterable of paths
    recursive : bool
        Take the pictures in folders below, too, those of a folder before those of the folders in it; hidden folders
        are left out, and what several links lead to is taken once.
    passed_over : callable
        Whether a folder below is left out.
    unlisted : callable, optional
        Told of a folder below that cannot be listed, and why; the others are taken then. Default: it is an error.

    Raises
    ------
    DatasetError : a folder holds no picture, or cannot be listed; a pattern fits nothing; a path is none (it holds a
        zero byte, say).
    """
    found: list[Path] = []
    for given in [paths] if isinstance(paths, str | Path) else paths:
        for path in _expanded(Path(given)):
            if not os.path.isdir(path):
                found.append(path)
            elif recursive:
                found += _anywhere_inside(path, passed_over, unlisted)
            else:
                found += _inside(path)
    return each_once(found)


def each_once(files: Iterable[Path]) -> list[Path]:
    """Of several spellings of one file, the first; DatasetError if one is no path."""
    found: dict[str, Path] = {}
    for file in files:
        found.setdefault(_place(file), file)
    return list(found.values())


def is_pattern(path: Path) -> bool:
    """Whether a path is one for many: it has `*`, `?` or `[...]`, and nothing is called so."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def _expanded(path: Path) -> list[Path]:
    """The paths that a pattern fits, sorted; or the path, if it is none."""
    try:
        if not is_pattern(path):
            return [path]
        found = sorted(map(Path, glob.iglob(str(path), recursive=True)))
    except ValueError as error:
        raise DatasetError(f"{str(path)!r} is no path: {error}") from None
    if not found:
        raise DatasetError(f"{path}: nothing fits this pattern, and no file is called so")
    return found


def _inside(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    entries = _entries(folder)
    found = [path for path in entries if _is_listed(path)]
    if not found:
        folders = [path.name for path in entries if _holds_pictures(path)]
        named = ", ".join(folders[:5])
        hint = (
            f"; it has the folders {named}: name one of them, or inspect with --recursive" if folders else ""
        )
        raise DatasetError(f"{folder} {NONE}{hint}")
    return found


def _anywhere_inside(
    folder: Path,
    passed_over: Callable[[Path], bool],
    unlisted: Callable[[Path, DatasetError], None] | None,
) -> list[Path]:
    """The pictures of a folder and of those below it, by name."""
    found: list[Path] = []
    waiting, seen = [folder], set[str]()
    while waiting:
        inner = waiting.pop()
        if (place := os.path.realpath(inner)) in seen:
            continue
        seen.add(place)
        try:
            entries = _entries(inner)
        except DatasetError as error:
            if unlisted is None or inner == folder:
                raise
            unlisted(inner, error)
            continue
        found += filter(_is_listed, entries)
        below = [path for path in entries if not path.name.startswith(".") and os.path.isdir(path)]
        waiting += (path for path in reversed(below) if not passed_over(path))  # the last in is the first out
    if not found:
        raise DatasetError(f"{folder} {NONE}, nor do the folders below it")
    return found


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}") from error


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
