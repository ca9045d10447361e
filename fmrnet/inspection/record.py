"""report.jsonl: what a run has done so far, one JSON object a line, each line whole or not there.

The first line says which model, level and release the others are of.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from fmrnet.errors import ArtifactError, ConfigError, in_text
from fmrnet.files import as_json, replacing
from fmrnet.inspection.defects import Defect
from fmrnet.inspection.limits import Look

__all__ = ["Line", "Record", "identify", "named", "path_of", "read_lines", "read_record"]

Line = dict[str, Any]

NUMBERS = (
    *("score", "p_value", "patch_p_value", "largest_patch_distance"),
    *("defect_count", "width", "height", "seconds"),
)
DEFECT = tuple(field.name for field in dataclasses.fields(Defect))


def named(path: str | Path) -> Line:
    """How a line names its picture; one that is no UTF-8 is `quoted`, too, its bytes percent-encoded as in a URL."""
    name = str(path)
    if (text := in_text(name)) == name:
        return {"picture": name}
    with suppress(UnicodeEncodeError):  # halves of surrogates that stand for no byte: no file is called so
        return {"picture": text, "quoted": quote(os.fsencode(name))}
    return {"picture": text}


def identify(path: Path) -> Line:
    """Size and time of a file, by which a changed picture is known; empty if there is none."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # whoever reads it says why
        return {}
    return {"bytes": state.st_size, "modified_ns": state.st_mtime_ns}


def path_of(line: Line) -> Path:
    """The path that `named` was given."""
    return Path(os.fsdecode(unquote_to_bytes(line["quoted"])) if "quoted" in line else line["picture"])


class Record:
    """A record that grows. A new one takes the place of what stands at `path`, in one step.

    Attributes
    ----------
    lines : what is in it, but for the first line; a line that is not here is not in the file either, whatever
        interrupted the writing

    Raises
    ------
    OSError : it cannot be written, or the disk is full; `filename` is `path`, and no part of a line is left.
    """

    def __init__(self, path: Path, head: Line, lines: Iterable[Line]) -> None:
        self.path, self.lines = path, list(lines)
        with replacing(path) as file:
            file.write(b"".join(map(_encoded, (head, *self.lines))))
        self._file = io.FileIO(path, "ab")

    def append(self, line: Line) -> None:
        """Add a line, and see it to the disk."""
        data = memoryview(_encoded(line))
        end, before = os.fstat(self._file.fileno()).st_size, len(self.lines)
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
            self.lines.append(line)
        except BaseException as error:
            if len(self.lines) == before:
                self._file.truncate(end)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise

    def holds(self, line: Line) -> bool:
        """Whether `line` is the last one."""
        return bool(self.lines) and self.lines[-1] is line

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read_record(path: Path) -> tuple[Line, list[Line]] | None:
    """The record of a report, as of `read_lines`."""
    return read_lines(path, _is_line)


def read_lines(path: Path, is_line: Callable[[object], bool]) -> tuple[Line, list[Line]] | None:
    """The first line and the others; None if there is no record. A last line that a power cut tore is left out.

    Raises
    ------
    ConfigError : the file is no record; `is_line` says whether what stands on a line but the first belongs there.
    OSError : it cannot be read.
    """
    try:
        head, *lines = path.read_bytes().split(b"\n")[:-1]
        parsed = [json.loads(line) for line in (head, *lines)]
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise _damaged(path) from None
    if not all(map(is_line, parsed[1:])):
        raise _damaged(path)
    return parsed[0], parsed[1:]


def _encoded(line: Line) -> bytes:
    return as_json(line).encode() + b"\n"


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f"{path} is damaged; remove it, or name another folder as --out")


def _is_line(line: object) -> bool:
    """Whether a line is of a picture and has what the report is made from; its files lie below the record's folder."""
    if not isinstance(line, dict) or not isinstance(line.get("picture"), str):
        return False
    if not isinstance(line.get("quoted", ""), str):
        return False
    if "error" in line:
        return isinstance(line["error"], str) and "files" not in line
    files = line.get("files")
    return (
        isinstance(line.get("defective"), bool)
        and all(isinstance(line.get(name), int | float) for name in NUMBERS)
        and isinstance(line.get("reasons"), list)
        and isinstance(line.get("level"), str)
        and _are_defects(line.get("defects"))
        and isinstance(line.get("would_be"), dict)
        and isinstance(line["would_be"].get("count"), int)
        and _are_defects(line["would_be"].get("defects"))
        and _is_look(line.get("look"))
        and isinstance(files, dict)
        and "overlay" in files
        and all(
            isinstance(name, str)
            and not PurePosixPath(name).is_absolute()
            and ".." not in PurePosixPath(name).parts
            for name in files.values()
        )
    )


def _are_defects(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(name), int | float) for name in DEFECT)
        for one in values
    )


def _is_look(values: object) -> bool:
    try:
        Look.from_dict(values)
    except ArtifactError:
        return False
    return True
