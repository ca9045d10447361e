"""What a command says, and how it ends: one line for a mistake, never a traceback, and an exit code.

Exit codes: 0 done; 1 what was looked at is not as it should be (defects, where `--fail-on-defect` asks for it; a kernel
unlike the oracle); 2 the user's mistake, such as a picture that cannot be read; 3 the machine could not (disk full, no
permission, no memory), or the program failed; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from fmrnet.errors import FmrnetError, is_out_of_memory, printable
from fmrnet.extras import explained

if TYPE_CHECKING:
    from types import FrameType

__all__ = [
    "MACHINE",
    "MISTAKE",
    "WRONG",
    "errors_in_one_line",
    "exit_code",
    "fail",
    "note",
    "say",
    "show",
    "signals_as_errors",
]

WRONG, MISTAKE, MACHINE = 1, 2, 3  # exit codes


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what Ctrl-C does is done, and the exit code differs."""


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    try:
        earlier = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # only the main thread may set handlers, and only it is interrupted
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """What ends a command is told in one line, and is its exit code."""
    try:
        yield
        sys.stdout.flush()
    except FmrnetError as error:
        raise fail(error, MISTAKE) from None
    except ModuleNotFoundError as error:
        told = explained(error)
        if told is error:
            raise
        raise fail(told, MISTAKE) from None
    except KeyboardInterrupt as error:
        stopped = "stopped; what is written is whole, and the same command starts again"
        raise fail(stopped, exit_code(error)) from None
    except (ValueError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise fail("not enough memory for a picture of this size; cut it into pieces", MACHINE) from None
        if str(error).startswith("FMRNET_BACKEND"):  # the one setting that is checked only where it is used
            raise fail(error, MISTAKE) from None
        raise
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        raise fail(f"{named}{error.strerror or error}{notes}", MACHINE) from None


def exit_code(error: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM."""
    return 143 if isinstance(error, _Terminated) else 130


def fail(message: object, code: int) -> typer.Exit:
    """Say why the command ends; to be raised."""
    say(message)
    return typer.Exit(code)


def say(message: object) -> None:
    """One line of the program's on standard error."""
    note(f"fmrnet: {message}")


def note(message: object) -> None:
    """One line on standard error, beside the progress."""
    print(printable(message), file=sys.stderr)


def show(line: object) -> None:
    """One line of results on standard output."""
    print(printable(line))
