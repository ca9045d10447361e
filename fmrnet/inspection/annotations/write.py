"""The files of every format in a results folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from fmrnet.errors import ConfigError, shown
from fmrnet.files import replacing
from fmrnet.inspection.annotations.coco import coco
from fmrnet.inspection.annotations.cvat import cvat
from fmrnet.inspection.annotations.finding import Finding, findings
from fmrnet.inspection.annotations.labelme import labelme
from fmrnet.inspection.annotations.table import table
from fmrnet.inspection.folder import check_replaceable, is_ours
from fmrnet.inspection.names import ANNOTATIONS

__all__ = ["FORMATS", "annotate", "clear", "formats"]

LABELME = "labelme"  # a folder of a file a picture
ONE_FILE: dict[str, Callable[[Iterable[Finding]], bytes]] = {"coco": coco, "cvat": cvat, "csv": table}
FORMATS = (*ONE_FILE, LABELME)


def formats(text: str) -> list[str]:
    """The formats in a text like "coco,csv", each once; ConfigError if there is no such format."""
    names = list(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"--format {shown(name)}: expected one or more of {', '.join(FORMATS)}")
    return names


def clear(folder: Path, names: Collection[str]) -> None:
    """Remove the files of all formats that an earlier run left in `folder`: they would tell of other pictures.

    Raises
    ------
    ConfigError : where a file of the formats `names` is to stand there is one that this program did not write.
    """
    for name in ONE_FILE:
        if name in names:
            check_replaceable(folder / ANNOTATIONS[name])
        _remove(folder / ANNOTATIONS[name])
    for file in sorted((folder / LABELME).rglob("*.json")):
        if LABELME in names:
            check_replaceable(file)
        _remove(file)


def annotate(folder: Path, names: Iterable[str], lines: list[dict[str, Any]]) -> list[Path]:
    """Write the defects of a report in `folder`, by its lines, in the formats `names`; gives what was written.

    Raises
    ------
    PictureError : a mask of the report has gone, or was changed to something else.
    OSError : the disk is full, or the folder cannot be written.
    """
    written = []
    for name in names:
        if name == LABELME:
            for finding in findings(folder, lines):
                file = folder / LABELME / f"{finding.stem}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                _write(file, labelme(finding, file.parent))
            written.append(folder / LABELME)
        else:
            file = folder / ANNOTATIONS[name]
            _write(file, ONE_FILE[name](findings(folder, lines)))
            written.append(file)
    return written


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _remove(file: Path) -> None:
    if is_ours(file):
        file.unlink(missing_ok=True)
