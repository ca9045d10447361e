"""The mistakes a user can make, one class a kind. The command line prints them as one line and exits with 2."""

from typing import Any

__all__ = ["ArtifactError", "ConfigError", "DatasetError", "FmrnetError", "PictureError", "shown"]

LONGEST_SHOWN = 80  # characters of a value in a message


class FmrnetError(Exception):
    """A mistake of the user's; the message says what was given, what was expected and what to do."""


class PictureError(FmrnetError):
    """A picture that cannot be read or inspected."""


class DatasetError(FmrnetError):
    """A folder of pictures that training, calibration or evaluation cannot use."""


class ArtifactError(FmrnetError):
    """A file of this program's, such as a model or a checkpoint, that cannot be used or written."""


class ConfigError(FmrnetError):
    """A setting outside its range, or settings that contradict each other."""


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
