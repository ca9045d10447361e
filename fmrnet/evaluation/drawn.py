"""What a model will miss, before the first real defect: drawn defects of graded size and contrast on good pictures.

A defect is drawn into a window of a good picture, and its size goes with the window's side; its contrast goes with the
strength of the drawing. Only good pictures that are called good as they are take part, so that a picture is called
defective for the drawing alone. These defects are drawn; real ones may be easier or harder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fmrnet
from fmrnet.errors import DatasetError
from fmrnet.evaluation.defect import largest_area, largest_contrast
from fmrnet.evaluation.detection import Detection, detection
from fmrnet.evaluation.drawn_defects import KINDS, draw_defect
from fmrnet.evaluation.evaluate import explained
from fmrnet.listing import list_pictures
from fmrnet.pictures import read_picture

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector

__all__ = ["STRENGTHS", "DrawnEvaluation"]

DRAWS = 30  # of each kind and strength: one more than the least that may show 90 % found with 95 % confidence
STRENGTHS = (1.0, 0.5, 0.25)
SIDES = 64, 512  # pixels of the windows, evenly spaced in their logarithm
# Multiples of it, without their whole part, are evenly spaced however many there are.
GOLDEN = (5**0.5 - 1) / 2


class DrawnEvaluation:
    """A count of the drawn defects that are found; its figures can be asked for at any time, say after Ctrl-C.

    Parameters
    ----------
    inspector : a calibrated model.
    good : folder of good pictures that the model has not seen.

    Raises
    ------
    DatasetError : the folder holds no picture.
    """

    def __init__(self, inspector: Inspector, good: str | Path) -> None:
        self.inspector, self.good = inspector, Path(good)
        found = list_pictures(self.good)
        chosen = np.unique(np.linspace(0, len(found) - 1, min(len(found), DRAWS)).round().astype(int))
        self.pictures = [found[number] for number in chosen]
        self.flagged: list[str] = []
        self.each: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []

    def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Inspect the good pictures, then each drawing; what cannot be inspected is noted.

        `progress` is called with the number of inspections done and of all.

        Raises
        ------
        DatasetError : all the good pictures are called defective as they are.
        """
        done, total = 0, len(self.pictures) + DRAWS * len(KINDS) * len(STRENGTHS)

        def step() -> None:
            nonlocal done
            if progress is not None:
                progress(done, total)
            done += 1

        usable = []
        for path in self.pictures:
            step()
            try:
                clean = not self.inspector.inspect(path, "pixel").defective
            except Exception as error:  # no single picture ends the comparison
                self._add_error(path, error)
                continue
            usable += [path] if clean else []
            self.flagged += [] if clean else [str(path)]
        if not usable and self.flagged:
            raise DatasetError(
                f"all {len(self.flagged)} good pictures are called defective as they are, so that no drawing could be "
                "missed; run `fmrnet calibrate` with good pictures of this camera and lot"
            )
        for number in range(DRAWS if usable else 0):
            path = usable[number % len(usable)]
            picture = read_picture(path, self.inspector.bits)
            for kind, strength in _grades():
                step()
                drawn, truth = _drawn(picture, kind, strength, number)
                try:
                    result = self.inspector.inspect(drawn, "pixel")
                except Exception as error:
                    self._add_error(path, error)
                    continue
                self.each.append(
                    {
                        "picture": str(path),
                        "kind": kind,
                        "strength": strength,
                        "area": largest_area(truth),
                        "contrast": largest_contrast(drawn, truth),
                        "defective": bool(result.defective),
                        "p_value": float(result.p_value),
                        "score": float(result.score),
                    }
                )
        step()

    def figures(self) -> dict[str, Any]:
        """What the drawings inspected so far say, ready for JSON.

        Returns
        -------
        `drawn` (true), `false_alarms` (the rate in force), `pictures` (how many), `kinds` (of each kind and strength,
        how many are found, the typical contrast, and `area`, the probability of detection against the area in pixels;
        and of each kind `contrast`, the same against the contrast, over all sizes), `flagged` (good pictures that are
        called defective as they are, and left out), `each` (every drawing), `errors`, and what the model is.
        """
        faults = [error["fault"] for error in self.errors]
        return {
            "fmrnet": fmrnet.__version__,
            "dataset": str(self.good),
            "drawn": True,
            "false_alarms": self.inspector.calibration.false_alarms,
            "pictures": {
                "good": len(self.pictures)
                - len(self.flagged)
                - faults.count("picture")
                - faults.count("size"),
                "flagged": len(self.flagged),
                "unreadable": faults.count("picture"),
                "wrong_size": faults.count("size"),
                "failed": faults.count("machine"),
            },
            "kinds": {
                kind: {
                    "strengths": [self._strength(kind, strength) for strength in STRENGTHS],
                    "contrast": dataclasses.asdict(_against("contrast", self._of(kind))),
                }
                for kind in KINDS
                if self._of(kind)
            },
            "model": {
                "config": self.inspector.config.to_dict(),
                "calibration": self.inspector.calibration.to_dict(),
                "provenance": {k: v for k, v in self.inspector.provenance.items() if k != "loss_curve"},
            },
            "flagged": self.flagged,
            "errors": self.errors,
            "each": self.each,
        }

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.each if entry["kind"] == kind]

    def _strength(self, kind: str, strength: float) -> dict[str, Any]:
        these = [entry for entry in self._of(kind) if entry["strength"] == strength]
        typical = float(np.median([entry["contrast"] for entry in these])) if these else None
        return {
            "strength": strength,
            "contrast": typical,
            "area": dataclasses.asdict(_against("area", these)),
        }

    def _add_error(self, path: Path, error: Exception) -> None:
        self.errors.append({"picture": str(path), **explained(error, path)})


def _grades() -> Iterator[tuple[str, float]]:
    return ((kind, strength) for kind in KINDS for strength in STRENGTHS)


def _against(measure: str, drawings: list[dict[str, Any]]) -> Detection:
    return detection([entry[measure] for entry in drawings], [entry["defective"] for entry in drawings])


def _drawn(
    picture: NDArray[np.float32], kind: str, strength: float, number: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The picture with a defect in a window of it, whose side the number sets, and the defect's mask.

    Drawings of one number and kind differ in their strength alone.
    """
    least, greatest = SIDES[0], min(SIDES[1], *picture.shape[:2])
    side = round(least * (greatest / least) ** (number * GOLDEN % 1))
    rng = np.random.default_rng(number)
    row, column = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
    window = slice(row, row + side), slice(column, column + side)
    drawn, truth = picture.copy(), np.zeros(picture.shape[:2], np.bool_)
    drawn[window], truth[window] = draw_defect(picture[window], kind, strength=strength, seed=number)
    return drawn, truth
