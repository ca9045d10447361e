"""What the formats are made from: a line of the report and its mask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmrnet.inspection.annotations.regions import Region, regions
from fmrnet.inspection.names import below_shared
from fmrnet.inspection.record import path_of
from fmrnet.pictures import read_mask

__all__ = ["LABEL", "Finding", "findings"]

LABEL = "defect"  # what regions are called in formats that name them


@dataclass(frozen=True)
class Finding:
    """An inspected picture and its defects.

    Attributes
    ----------
    path : Path
        The picture, as it was given.
    name : str
        The same below the folder that all pictures share, with /.
    stem : str
        What its files in the results folder begin with, such as `cut/0` of `cut/0.mask.png`.
    line : dict
        Of report.json.
    regions : tuple of Region
        Of its mask; none where it is good, or was inspected at patch level.
    """

    path: Path
    name: str
    stem: str
    line: dict[str, Any]
    regions: tuple[Region, ...]

    @property
    def width(self) -> int:
        """Of the picture, in pixels."""
        return int(self.line["width"])

    @property
    def height(self) -> int:
        """Of the picture, in pixels."""
        return int(self.line["height"])


def findings(folder: Path, lines: list[dict[str, Any]]) -> Iterator[Finding]:
    """The pictures of a report in `folder`, by its lines.

    Raises PictureError if a mask has gone or was changed to something else meanwhile.
    """
    paths = list(map(path_of, lines))
    for path, name, line in zip(paths, below_shared(paths), lines, strict=True):
        files = line["files"]
        found = tuple(regions(read_mask(folder / files["mask"]))) if "mask" in files else ()
        yield Finding(
            path, name.as_posix(), os.fspath(files["overlay"]).removesuffix(".overlay.png"), line, found
        )
