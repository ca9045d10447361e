"""A table for spreadsheets: a row a region, and one a picture that has none."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from fmrnet.errors import in_text
from fmrnet.inspection.annotations.finding import Finding

__all__ = ["COLUMNS", "table"]

COLUMNS = ("picture", "defective", "score", "p_value", "level", "region", "x", "y", "width", "height", "area")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute


def table(found: Iterable[Finding]) -> bytes:
    """All findings as CSV in UTF-8, with COLUMNS; a picture without regions has the last six empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for finding in found:
        line = finding.line
        picture = in_text(str(finding.path))
        picture = f"./{picture}" if picture.startswith(FORMULA) else picture
        verdict = (picture, int(line["defective"]), line["score"], line["p_value"], line["level"])
        for number, region in enumerate(finding.regions, start=1):
            place = (region.x, region.y, region.width, region.height)
            writer.writerow((*verdict, number, *place, region.area))
        if not finding.regions:
            writer.writerow((*verdict, *[""] * 6))
    return text.getvalue().encode()
