"""What an inspection says of each picture of a batch, and of all of them: its lines, in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet.errors import printable
from fmrnet.inspection.defects import Defect, defects
from fmrnet.inspection.drift import Drift, drift
from fmrnet.inspection.limits import Look
from fmrnet.inspection.overlay import marked
from fmrnet.inspection.record import Line, named, path_of
from fmrnet.inspection.reduced import reduction

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector, Level, Result

__all__ = ["LOOSEST", "MOST_DEFECTS", "Told", "Verdicts"]

MOST_DEFECTS = (
    100  # of a picture that are listed, the most surprising; a picture of something else has thousands
)


LOOSEST = 0.5  # rate of false alarms up to which it is told what would be outlined


@dataclasses.dataclass(frozen=True)
class Told:
    """What there is to say of a picture.

    Attributes
    ----------
    line : dict
        As report.json has it, without files.
    mask : (H, W) bool
        What is outlined: at patch level, patches.
    defects : list of Defect
        All of its parts, the most surprising first.
    would_be : (H, W) bool
        What would be outlined in a picture that is good, and at a rate up to LOOSEST is not; at patch level nothing.
    """

    line: Line
    mask: NDArray[np.bool_]
    defects: list[Defect]
    would_be: NDArray[np.bool_]


class Verdicts:
    """The lines of a batch. Nothing is written; `fmrnet.inspection.report.Report` writes.

    Parameters
    ----------
    inspector : the model in use.
    level : the level that is asked for.
    paths : the pictures of the batch, each file once.
    sources : where pictures came from that were given as no file; they are called so.

    Attributes
    ----------
    kept : the pictures that need no inspection any more; here there are none
    lines : what has been said so far, a dict a picture
    """

    def __init__(
        self,
        inspector: Inspector,
        level: Level,
        paths: Sequence[Path],
        sources: Mapping[Path, str] = MappingProxyType({}),
    ) -> None:
        self.inspector, self.level = inspector, level
        self.kept: set[Path] = set()
        self.lines: list[Line] = []
        self._paths, self._sources = paths, sources

    def add(self, path: Path, picture: NDArray[np.float32], result: Result, identity: Line) -> Line:
        """Note what was found in a picture, (H, W) or (H, W, 3) in [0, 1]; gives its line.

        `identity` is what `fmrnet.inspection.record.identify` said of the file before it was read.
        """
        line = self._told(path, picture, result, identity).line
        self._append(line)
        return line

    def add_error(self, path: str | Path, error: object, fault: str = "picture", **more: str) -> Line:
        """Note a picture (or whatever was given) that could not be inspected, why, and what `more` there is to say.

        `fault` is as of `fmrnet.errors.fault_of`, or "given": there is no picture behind what was given.
        """
        line: Line = {**self._named(path), "error": self._calls(path, error), "fault": fault, **more}
        self._append(line)
        return line

    def drift(self) -> Drift:
        """Whether the pictures inspected so far look and score as the good ones did."""
        seen = [line for line in self.lines if "error" not in line]
        looks = [Look.from_dict(line["look"]) for line in seen]
        return drift(self.inspector.calibration, looks, [line["largest_patch_distance"] for line in seen])

    def summary(self) -> dict[str, Any]:
        """How many pictures are what, JSON-ready."""
        pictures = [line for line in self.lines if "error" not in line]
        faults = [line["fault"] for line in self.lines if "error" in line]
        reached = set(map(path_of, self.lines))
        defective = sum(line["defective"] for line in pictures)
        return {
            "defective": defective,
            "good": len(pictures) - defective,
            "unreadable": faults.count("picture"),
            "wrong_size": faults.count("size"),
            "failed": faults.count("machine"),
            "without_pictures": faults.count("given"),
            "left_early": sum(line["level"] == "patch" for line in pictures),
            "not_reached": sum(path not in reached for path in self._paths),
            "seconds": round(sum(line["seconds"] for line in pictures), 3),
        }

    def _append(self, line: Line) -> None:
        self.lines.append(line)

    def _named(self, path: str | Path) -> Line:
        return named(self._sources.get(Path(path), path))

    def _calls(self, path: str | Path, error: object) -> str:
        """What is wrong, in which the picture has the name that it was given by."""
        return printable(str(error).replace(str(path), str(self._sources.get(Path(path), path))))

    def _told(self, path: Path, picture: NDArray[np.float32], result: Result, identity: Line) -> Told:
        tops, lefts = self._origins(picture, result)
        p_values = result.patch_p_values if result.pixel_p_values is None else result.pixel_p_values
        side = self.inspector.config.patch_size
        mask = result.mask
        if (
            mask is None
        ):  # patches that hardly any good picture has the like of; they may reach beyond the border
            beyond = np.argwhere(p_values <= self.inspector.false_alarms)
            boxes = [(int(tops[i]), int(lefts[j]), side) for i, j in beyond]
            mask = marked((picture.shape[0], picture.shape[1]), boxes=boxes)
        found = defects(mask, p_values, tops, lefts, side)
        would_be, others = large.zeros(mask.shape, np.bool_), list[Defect]()
        if result.marked is None:  # at another rate, the patches that it is reached by
            reached = np.argwhere(p_values <= LOOSEST)
            patches = (
                Defect(int(tops[i]), int(lefts[j]), side, side, side**2, p_values[i, j]) for i, j in reached
            )
            others = sorted(patches, key=lambda one: one.p_value)
        elif not result.defective and result.p_value <= LOOSEST:
            would_be = result.marked
            others = defects(would_be, p_values, tops, lefts, side)
        line: Line = {
            **self._named(path),
            "score": float(result.score),
            "defective": bool(result.defective),
            "p_value": float(result.p_value),
            "patch_p_value": float(result.patch_p_values.min()),
            "reasons": list(result.reasons),
            "level": result.level,
            "defective_pixels": None if result.mask is None else int(result.mask.sum()),
            "defect_count": len(found),
            "defects": [dataclasses.asdict(one) for one in found[:MOST_DEFECTS]],
            "would_be": {
                "count": len(others),
                "defects": [dataclasses.asdict(one) for one in others[:MOST_DEFECTS]],
            },
            "largest_patch_distance": float(result.patch_scores.max()),
            "look": dataclasses.asdict(result.look),
            "width": picture.shape[1],
            "height": picture.shape[0],
            "shown": 1 / reduction(mask),
            "seconds": round(float(result.seconds), 4),
            "files": {},
            "file": identity,
        }
        return Told(line, mask, found, would_be)

    def _origins(
        self, picture: NDArray[np.float32], result: Result
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first rows and columns, in pixels, of the patches that the p-values are of."""
        config = self.inspector.config
        rows, columns = (
            result.patch_p_values if result.pixel_p_values is None else result.pixel_p_values
        ).shape

        def starts(length: int, count: int) -> NDArray[np.int64]:
            if config.general or result.pixel_p_values is not None:
                return np.arange(count) * (config.patch_size // 2)
            filled = length + -length % config.multiple
            return np.minimum(np.arange(count) * config.stride, filled - config.patch_size)

        region = self.inspector.region
        height, width = picture.shape[:2] if region is None else (region.height, region.width)
        top, left = starts(height, rows), starts(width, columns)
        return (top, left) if region is None else (top + region.y, left + region.x)
