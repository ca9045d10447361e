"""The folder of a report: apart from the pictures, of one run at a time, and without anybody else's files.

This program knows its own files by what they say: `Software` of a picture is fmrnet, and so is the first key of JSON,
the first comment of XML and the generator of a page; a table has the very columns of ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fmrnet.errors import ConfigError
from fmrnet.inspection.annotations.table import COLUMNS
from fmrnet.inspection.names import LOCK, RECORD

__all__ = ["check_apart", "check_replaceable", "claimed", "holds_results", "is_ours", "make"]

_HEAD = 2**17  # bytes in which a file says who wrote it; in a large TIFF the places of its strips come before


def check_apart(out: Path, folders: Iterable[Path]) -> None:
    """Raise ConfigError if `out` is one of the folders to inspect, whatever its spelling.

    A folder within one is apart: only what lies in a folder itself is inspected, or results are passed over.
    """
    for folder in folders:
        if os.path.exists(out) and os.path.samefile(out, folder):
            raise ConfigError(f"--out {out} is {folder}, a folder to inspect; name another")


def holds_results(folder: Path) -> bool:
    """Whether `folder` is one that an inspection writes or wrote its results into."""
    return is_ours(folder / RECORD)


def check_replaceable(path: Path, remedy: str = "name another folder as --out") -> None:
    """Raise ConfigError, which tells the remedy, if something stands at `path` that this program did not write."""
    if os.path.lexists(path) and not is_ours(path):
        raise ConfigError(f"{path} was not written by fmrnet, and is not replaced; {remedy}")


def is_ours(path: Path) -> bool:
    """Whether `path` is a picture or a report that this program wrote; a link is none."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:  # not there, or not to be read, and so not to be replaced
        return False
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"tEXtSoftware\0fmrnet" in head
    if head.startswith((b"II", b"MM")):
        return b"fmrnet\0" in head
    if head.startswith(b"<?xml"):
        return b"<!--fmrnet " in head
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xfe\x00\x08fmrnet" in head  # a comment
    if head.startswith(b"<!doctype html>"):
        return b'<meta name="generator" content="fmrnet ' in head
    if head.startswith(",".join(COLUMNS).encode() + b"\r\n"):
        return True
    return head.replace(b"\n ", b"").replace(b" ", b"").startswith(b'{"fmrnet":')


def make(folder: Path) -> None:
    """Make `folder`, if it is not there yet.

    Raises
    ------
    ConfigError : it is a file, or lies in one.
    OSError : it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"--out {folder} is a file or lies in one; name a folder") from None


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other runs out of it while the block lasts; a killed run keeps out nobody.

    Raises
    ------
    ConfigError : another run is at work in it, or it is a file.
    OSError : it cannot be made or written.
    """
    make(folder)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"another `fmrnet inspect` is writing to {folder}; wait for its end, or name another folder"
        ) from None
