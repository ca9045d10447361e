"""Standard output and standard error of the program, whatever stands at their other end."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["settle"]


class _Stream(io.FileIO):
    """A descriptor that falls silent once writing fails: a reader who has gone is no error, a full disk is one."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._stands_for = name

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of `data`. An error names the stream, and is raised once; of standard error nobody would learn."""
        try:
            return super().write(data)
        except OSError as error:
            _discard(self.fileno())
            if isinstance(error, BrokenPipeError) or self._stands_for == "standard error":
                return memoryview(data).nbytes
            raise OSError(error.errno, error.strerror, self._stands_for) from None


def settle() -> None:
    """Make `sys.stdout` and `sys.stderr` hold for the rest of the program.

    A pipe whose reader has gone (`| head -1`) and a stream that was closed (`>&-`) take what is written and drop it.
    Each line leaves at once. Characters that the other end does not know are shown escaped.
    """
    sys.stdout = _settled(sys.stdout, 1, "standard output")
    sys.stderr = _settled(sys.stderr, 2, "standard error")


def _settled(stream: TextIO | None, descriptor: int, name: str) -> TextIO:
    if stream is not None and stream.isatty():
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream
    if stream is None:  # closed; its number must not go to the next file that is opened
        _discard(descriptor)
    encoding = "utf-8" if stream is None else stream.encoding
    raw = io.BufferedWriter(_Stream(descriptor, name))
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True)


def _discard(descriptor: int) -> None:
    """Let what is written to `descriptor` go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
