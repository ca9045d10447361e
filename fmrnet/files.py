"""Files that are whole or not there: written under a temporary name in the same folder, flushed, then renamed."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from fmrnet.errors import ArtifactError, in_text

if sys.platform != "win32":
    import fcntl

__all__ = ["KINDS", "as_json", "cache_folder", "check_writable", "digest", "replacing", "write_json"]

KINDS = {  # what is no regular file, by its type
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
TEMPORARY = re.compile(r"\.fmrnet-[0-9a-f]{16}\.tmp")
_swept: set[Path] = set()  # folders in which this process has removed what killed runs left


def cache_folder() -> Path:
    """Where this user keeps what can be made again: FMRNET_CACHE, or as the system has it; it may not be there yet."""
    return Path(os.environ.get("FMRNET_CACHE") or platformdirs.user_cache_path("fmrnet"))


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal. OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: str | Path, *, at_once: bool = True) -> Iterator[BinaryIO]:
    """Put what the block writes in the place of `path` when the block ends well, in one step.

    The block writes into memory, so an encoder's error leaves nothing behind. Then a temporary file beside `path` is
    written, flushed to the disk and renamed, and its folder is flushed. If anything fails before the renaming,
    what stood at `path` stays as it was. A file that stood there hands its mode and owner on; where `path` is a
    link, the file that it points to is replaced. Temporary files that killed runs left in the folder are removed.

    Parameters
    ----------
    path : where the file will stand; its folder must exist.
    at_once : False: the block writes into the temporary file itself, for what is too large for memory.

    Yields
    ------
    a binary file (write, seek and tell).

    Raises
    ------
    ArtifactError : `path` is a folder, a device, a pipe, a circle of links or a file that may not be changed.
    OSError : the folder is missing or cannot be written, or the disk is full; `filename` is `path`.
    """
    target, earlier = _target(path)
    content = io.BytesIO()
    if at_once:
        yield content
    try:
        _sweep(target.parent)
        with _temporary_file(target.parent, 0o666 if earlier is None else 0o600) as file:
            try:
                if earlier is not None:
                    _hand_on(file.fileno(), earlier)
                if at_once:
                    file.write(content.getbuffer())
                else:
                    yield file
                file.flush()
                os.fsync(file.fileno())
                if os.name != "posix":  # where an open file has no other name
                    file.close()
                os.replace(file.name, target)
            except BaseException:
                with suppress(OSError):  # the first error is the one to tell
                    os.unlink(file.name)
                raise
        _flush_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` as readable JSON in one step; NaN and infinity are refused (they are not JSON)."""
    text = as_json(content, indent=2)
    with replacing(path) as file:
        file.write(text.encode() + b"\n")


def as_json(content: Any, indent: int | None = None) -> str:
    """JSON in ASCII, with every text in it as `fmrnet.errors.in_text` has it; ValueError for NaN and infinity."""
    between = (",", ":") if indent is None else None
    text = json.dumps(content, indent=indent, separators=between, allow_nan=False)
    if "\\ud" not in text:  # no half of a surrogate, then, and nothing to be gone through
        return text
    return json.dumps(_in_text(content), indent=indent, separators=between, allow_nan=False)


def _in_text(content: Any) -> Any:
    if isinstance(content, str):
        return in_text(content)
    if isinstance(content, dict):
        return {_in_text(name): _in_text(part) for name, part in content.items()}
    return [_in_text(part) for part in content] if isinstance(content, list | tuple) else content


def check_writable(path: str | Path) -> None:
    """Raise ArtifactError if `replacing` could put no file at `path`; to be asked before hours of training."""
    target, earlier = _target(path)
    folder = target.parent
    if not folder.is_dir():
        raise ArtifactError(f"{path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ArtifactError(f"{path}: no permission to write into {folder}; name another place")
    if earlier is not None and os.name == "posix" and os.geteuid() != 0:
        groups = {os.getegid(), *os.getgroups(), folder.stat().st_gid}
        if earlier.st_uid != os.geteuid() or earlier.st_gid not in groups:
            raise ArtifactError(f"{path} belongs to another user, and would not any more; name another place")


def _target(path: str | Path) -> tuple[Path, os.stat_result | None]:
    """The file that `path` means, links followed, and its state; None if it does not exist yet."""
    state, writable = None, True
    try:
        target = Path(os.path.realpath(path))
        with suppress(FileNotFoundError):
            state = target.stat()
            writable = os.access(target, os.W_OK)
    except (OSError, ValueError) as error:  # ValueError: no name can hold a NUL or half a surrogate
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{path}: no file can be here ({reason}); name another place") from error
    if state is not None and not stat.S_ISREG(state.st_mode):
        kind = KINDS.get(stat.S_IFMT(state.st_mode), "no regular file")
        example = f", such as {Path(path) / 'model.fmr'}" if stat.S_ISDIR(state.st_mode) else ""
        raise ArtifactError(f"{path} is {kind}; expected a file name{example}")
    if not writable:
        raise ArtifactError(f"{path}: no permission to change this file; name another place")
    return target, state


def _temporary_file(folder: Path, mode: int) -> BinaryIO:
    """A new file, locked for as long as it is open: a lock ends with its process, so that `_sweep` knows the dead."""
    while True:
        path = folder / f".fmrnet-{secrets.token_hex(8)}.tmp"
        file = open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if not _lock(file.fileno(), wait=True) or os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another run swept it away in the instant before it was locked


def _sweep(folder: Path) -> None:
    """Remove the temporary files of killed runs, once per process; what cannot be removed stays."""
    if folder in _swept or sys.platform == "win32":
        return
    _swept.add(folder)
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if TEMPORARY.fullmatch(entry.name)]
    for path in left:
        with suppress(OSError):  # another user's, or just renamed
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(file).st_mode) and _lock(file, wait=False):
                    os.unlink(path)
            finally:
                os.close(file)


def _lock(file: int, *, wait: bool) -> bool:
    """Lock an open file for this process; whether that was possible, which some network disks do not know."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _hand_on(file: int, earlier: os.stat_result) -> None:
    """Give an open file the owner and the mode of the one whose place it takes."""
    if os.name != "posix":
        return
    state = os.fstat(file)
    if (state.st_uid, state.st_gid) != (earlier.st_uid, earlier.st_gid):
        os.chown(file, earlier.st_uid, earlier.st_gid)
    os.chmod(file, stat.S_IMODE(earlier.st_mode))


def _flush_folder(folder: Path) -> None:
    """Make the renaming last through a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a disk that flushes no folders
            raise
    finally:
        os.close(descriptor)
