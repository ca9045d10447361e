"""Values read from a model file, each checked for its type and range: the file may come from anybody."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import Any

from fmrnet.errors import ArtifactError

__all__ = ["Stored"]

LONGEST_TEXT = 4096  # characters; a path that a system takes is no longer
LONGEST_LIST = 2**20
GREATEST_COUNT = 2**40


class Stored:
    """The values of a dataclass as JSON holds them, taken out one by one.

    Parameters
    ----------
    name : what they are, for messages.
    values : as read, of any type.
    kind : the dataclass.

    Raises
    ------
    ArtifactError
        If they are no dictionary with exactly the fields of the dataclass; and from each method, if the value is not
        what it says.
    """

    def __init__(self, name: str, values: Any, kind: type[Any]) -> None:
        self.name = name
        self.values = values
        expected = {field.name for field in dataclasses.fields(kind)}
        if not isinstance(values, dict) or values.keys() != expected:
            found = sorted(map(str, values)) if isinstance(values, dict) else values
            raise ArtifactError(f"{name} has the fields {reprlib.repr(found)}; expected {sorted(expected)}")

    def number(self, field: str, least: float, greatest: float) -> float:
        """A number from `least` to `greatest`."""
        return self._number(field, self.values[field], least, greatest)

    def count(self, field: str, least: int) -> int:
        """An integer from `least` on."""
        value = self.values[field]
        if type(value) is not int or not least <= value <= GREATEST_COUNT:
            raise self._error(field, value, f"an integer of {least} or more")
        return value

    def text(self, field: str) -> str:
        """A text no longer than a path may be."""
        value = self.values[field]
        if not isinstance(value, str) or len(value) > LONGEST_TEXT:
            raise self._error(field, value, f"a text of up to {LONGEST_TEXT} characters")
        return value

    def numbers(
        self,
        field: str,
        least: float,
        greatest: float,
        *,
        least_count: int = 0,
        most_count: int = LONGEST_LIST,
    ) -> tuple[float, ...]:
        """Numbers from `least` to `greatest`, so many of them."""
        values = self.items(field)
        if not least_count <= len(values) <= most_count:
            raise self._error(field, values, f"{least_count} to {most_count} numbers")
        return tuple(self._number(field, value, least, greatest) for value in values)

    def rows(
        self, field: str, least: float, greatest: float, *, most_count: int
    ) -> tuple[tuple[float, ...], ...]:
        """Rows of up to so many numbers from `least` to `greatest`."""
        found = []
        for row in self.items(field):
            if not isinstance(row, list | tuple) or len(row) > most_count:
                raise self._error(field, row, f"a row of up to {most_count} numbers")
            found.append(tuple(self._number(field, value, least, greatest) for value in row))
        return tuple(found)

    def items(self, field: str) -> list[Any]:
        """A list, of whatever it holds."""
        value = self.values[field]
        if not isinstance(value, list | tuple) or len(value) > LONGEST_LIST:
            raise self._error(field, value, "a list")
        return list(value)

    def range(self, field: str, value: Any, least: float, greatest: float) -> tuple[float, float]:
        """Two numbers from `least` to `greatest`, the lower one first: `value`, a part of the field."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise self._error(field, value, "two numbers")
        low, high = (self._number(field, side, least, greatest) for side in value)
        if not low < high:
            raise self._error(field, value, "the lower number first")
        return low, high

    def _number(self, field: str, value: Any, least: float, greatest: float) -> float:
        if type(value) not in (int, float) or not least <= value <= greatest:  # NaN is in no range
            raise self._error(field, value, f"a number from {least:g} to {greatest:g}")
        return float(value)

    def _error(self, field: str, value: Any, expected: str) -> ArtifactError:
        return ArtifactError(f"{self.name} field {field} = {reprlib.repr(value)}: expected {expected}")
