"""The mistakes a user can make, one class a kind, and how a message may be shown.

The command line prints a mistake as one line and exits with 2.
"""

import unicodedata
from typing import Any

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DatasetError",
    "FmrnetError",
    "PictureError",
    "SizeError",
    "fault_of",
    "in_text",
    "is_out_of_memory",
    "printable",
    "shown",
]

LONGEST_LINE = 1000  # characters of a message; a path takes a few hundred
LONGEST_SHOWN = 80  # characters of a value in a message


class FmrnetError(Exception):
    """A mistake of the user's; the message says what was given, what was expected and what to do."""


class PictureError(FmrnetError):
    """A picture that cannot be read or inspected."""


class SizeError(PictureError):
    """A picture that is whole, and of a size that does not do: it is smaller than a patch or the region of interest."""


class DatasetError(FmrnetError):
    """A folder of pictures that training, calibration or evaluation cannot use."""


class ArtifactError(FmrnetError):
    """A file of this program's, such as a model or a checkpoint, that cannot be used or written."""


class ConfigError(FmrnetError):
    """A setting outside its range, or settings that contradict each other."""


def fault_of(error: BaseException) -> str:
    """Whose fault it is that a picture is not inspected: of the "picture", of its "size", or of the "machine"."""
    if isinstance(error, SizeError):
        return "size"
    return "picture" if isinstance(error, FmrnetError) else "machine"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory is exhausted: Python's, NumPy's, and torch's on each of its devices."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def in_text(name: str) -> str:
    r"""A file's name as every output has it: bytes that are no UTF-8 stand as \udc80 to \udcff in it.

    >>> print(in_text("caf\udce9.png"))
    caf\udce9.png
    """
    return name.encode("utf-8", "backslashreplace").decode()


def printable(text: object, limit: int = LONGEST_LINE) -> str:
    r"""One line that shows `text` and does nothing else to a terminal, a log or a reader.

    File names and a model's texts come from others. Line breaks, escape codes, marks that turn the reading
    direction and bytes that are no text are shown escaped; of a text longer than `limit` the middle is left out.

    >>> print(printable("a\x1b[2Jb\nDEFECTIVE c.png"))
    a\x1b[2Jb\nDEFECTIVE c.png
    >>> printable("0123456789" * 9, limit=20)
    '01234567 ... 3456789'
    """
    line = str(text)
    if len(line) > limit:
        half = (limit - 5) // 2
        line = f"{line[: limit - 5 - half]} ... {line[-half:]}"
    return "".join(character if _is_shown(character) else _escape(character) for character in line)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shown(value: Any, limit: int = LONGEST_SHOWN) -> str:
    """A value as a message quotes it: on one line, control characters escaped, cut to `limit` characters.

    >>> print(shown("two\nlines"), shown([0] * 100))
    'two\nlines' [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list
        text = f"{type(value).__name__} too long to show"
    return text if len(text) <= limit else text[: limit - 3] + "..."
