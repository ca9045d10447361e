"""Inspecting many pictures: whatever one of them raises, the others are inspected."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fmrnet.errors import ConfigError, FmrnetError, is_out_of_memory
from fmrnet.inspection.record import Line
from fmrnet.inspection.report import Report, identify
from fmrnet.pictures import read_picture

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector

__all__ = ["inspect_each"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of a disk that will take nothing more


def inspect_each(inspector: Inspector, report: Report, paths: Sequence[Path]) -> Iterator[Line]:
    """Inspect pictures one by one into a report; gives the line of each as soon as it is written.

    Pictures that a resumed report has are left out. A picture that cannot be read, or at which memory or the
    program fails, gets a line that says so.

    Raises
    ------
    ConfigError : a setting with which no picture could be inspected.
    OSError : the disk of the report is full or broken; `filename` says where.
    """
    for path in paths:
        if path not in report.kept:
            yield _inspect(inspector, report, path)


def _inspect(inspector: Inspector, report: Report, path: Path) -> Line:
    try:
        identity = identify(path)
        picture = read_picture(path, inspector.bits)
        result = inspector.inspect(picture, report.level)
        return report.add(path, picture, result, identity)
    except ConfigError:
        raise
    except FmrnetError as error:
        return report.add_error(path, _named(path, error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        if isinstance(error, ValueError) and str(error).startswith("FMRNET_BACKEND"):
            raise  # a setting, checked where it is used
        if is_out_of_memory(error):
            return report.add_error(
                path, f"{path}: not enough memory for a picture of this size; cut it into pieces", "machine"
            )
        if isinstance(error, OSError):
            where = error.filename or type(error).__name__
            return report.add_error(path, f"{path}: {where}: {error.strerror or error}", "machine")
        named = _named(path, f"{type(error).__name__}: {error}")
        return report.add_error(path, named, "machine", traceback=traceback.format_exc())


def _named(path: Path, error: object) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"
