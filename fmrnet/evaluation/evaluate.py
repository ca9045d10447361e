"""How well a model does on pictures with known defects; `layouts` says how these are found."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fmrnet
from fmrnet.errors import ConfigError, DatasetError, FmrnetError, PictureError, is_out_of_memory
from fmrnet.evaluation.defect import largest_area, largest_contrast
from fmrnet.evaluation.detection import detection
from fmrnet.evaluation.known import known_defects
from fmrnet.evaluation.layouts import GOOD, Example, few, load_dataset, unused_pictures
from fmrnet.evaluation.metrics import Confusion, PixelCounts, roc_auc
from fmrnet.pictures import read_picture, read_size

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector

__all__ = ["Evaluation", "evaluate", "explained"]


def evaluate(
    inspector: Inspector,
    dataset: str | Path,
    *,
    limit: float = 0.3,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Inspect every test picture at pixel level, and again at patch level, and compare with the truth.

    Parameters
    ----------
    inspector : a calibrated model.
    dataset : folder in a layout of `fmrnet.evaluation.layouts`.
    limit : greatest false positive rate of AU-PRO, above 0 and at most 1.
    progress : called with the number of pictures done and of all pictures.

    Returns
    -------
    as `Evaluation.figures`

    Raises
    ------
    ConfigError, DatasetError : as `Evaluation`.
    """
    evaluation = Evaluation(inspector, dataset, limit=limit)
    evaluation.run(progress)
    return evaluation.figures()


class Evaluation:
    """A comparison of findings with the truth; its figures can be asked for at any time, say after Ctrl-C.

    Parameters
    ----------
    inspector : a calibrated model.
    dataset : folder in a layout of `fmrnet.evaluation.layouts`.
    limit : greatest false positive rate of AU-PRO, above 0 and at most 1.
    examples : pictures in the folder and what is known of them; those that `load_dataset` finds by default.

    Raises
    ------
    ConfigError : the limit is outside its range.
    DatasetError : as `load_dataset`; or masks cannot be read, are empty, or of another size than their pictures.
        All masks are read before the first inspection, one at a time.
    """

    def __init__(
        self,
        inspector: Inspector,
        dataset: str | Path,
        *,
        limit: float = 0.3,
        examples: Sequence[Example] | None = None,
    ) -> None:
        if not 0 < limit <= 1:
            raise ConfigError(f"limit {limit}: expected a false positive rate above 0, at most 1")
        self.inspector = inspector
        self.limit = limit
        self.dataset = Path(dataset)
        self.examples = load_dataset(dataset) if examples is None else examples
        self.unused = unused_pictures(dataset, self.examples) if examples is None else []
        self.each: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []
        self._pixels: dict[str, PixelCounts] = {}
        _check_masks(self.examples)

    def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Inspect the pictures, one of each class in turn; those that cannot be inspected are noted.

        `progress` is called with the number of pictures done and of all pictures.
        """
        order = _in_turn(self.examples)
        for done, example in enumerate(order):
            if progress is not None:
                progress(done, len(order))
            try:
                self._add(example)
            except Exception as error:  # no single picture ends the comparison, whatever it raises
                self.errors.append({"picture": self._name(example), **explained(error, example.picture)})
        if progress is not None:
            progress(len(order), len(order))

    def figures(self) -> dict[str, Any]:
        """What the pictures inspected so far say, ready for JSON.

        Returns
        -------
        `pictures` (how many), `pixel` and `picture` (ROC-AUC, AU-PRO, precision, recall, F1 at the calibrated
        thresholds), `patch_level` (pictures decided without the decoder), `classes` (the same for each kind of defect
        against the good pictures), `known` and `detection` (what of the known defects is found at the rate
        `false_alarms`, and by which area and contrast), `each` (every picture), `errors` (pictures that could not be
        inspected), `notes` (sentences: what is left out, and why a figure is None), `seconds`, and what the model is.
        `pixel` counts the good pictures and the defective ones that have masks.
        """
        kinds = sorted({entry["class"] for entry in self.each} - {GOOD})
        unreadable = sum(error["fault"] == "picture" for error in self.errors)
        return {
            "fmrnet": fmrnet.__version__,
            "dataset": str(self.dataset),
            "pictures": {
                **_count(self.each),
                "unreadable": unreadable,
                "failed": len(self.errors) - unreadable,
                "not_reached": len(self.examples) - len(self.each) - len(self.errors),
            },
            "pixel": {**self._pixel_figures(kinds), "au_pro_limit": self.limit},
            "false_alarms": self.inspector.calibration.false_alarms,
            "picture": _picture_figures(self.each),
            "patch_level": _picture_figures(self.each, "patch_level_"),
            "classes": {
                kind: {
                    "pixel": self._pixel_figures([kind]),
                    "picture": _picture_figures([e for e in self.each if e["class"] in (GOOD, kind)]),
                }
                for kind in kinds
            },
            "known": known_defects(self.each, self.inspector.calibration).to_dict(),
            "detection": self._detection(),
            "seconds": {
                "total": round(sum(e["seconds"] for e in self.each), 3),
                "median": _median([e["seconds"] for e in self.each]),
                "patch_level_median": _median([e["patch_level_seconds"] for e in self.each]),
            },
            "model": {
                "config": self.inspector.config.to_dict(),
                "calibration": self.inspector.calibration.to_dict(),
                "provenance": {k: v for k, v in self.inspector.provenance.items() if k != "loss_curve"},
            },
            "notes": self._notes(),
            "errors": self.errors,
            "each": self.each,
        }

    def _add(self, example: Example) -> None:
        """Inspect one picture and count what was found; nothing is counted if anything fails."""
        result = self.inspector.inspect(example.picture, level="pixel")
        fast = self.inspector.inspect(example.picture, level="patch")
        if result.anomaly_map is None or result.mask is None:
            raise RuntimeError("inspection at pixel level gave no map")
        truth = example.truth(result.anomaly_map.shape)
        measured: dict[str, float] = {}
        if truth is not None:
            if not example.good:
                picture = read_picture(example.picture, self.inspector.bits)
                measured = {"area": largest_area(truth), "contrast": largest_contrast(picture, truth)}
            self._pixels.setdefault(example.defect, PixelCounts()).add(result.anomaly_map, result.mask, truth)
        self.each.append(
            {
                "picture": self._name(example),
                "class": example.defect,
                "masks": len(example.masks),
                "score": float(result.score),
                "defective": bool(result.defective),
                "p_value": float(result.p_value),
                **measured,
                "patch_level_score": float(fast.score),
                "patch_level_defective": bool(fast.defective),
                "seconds": round(float(result.seconds), 4),
                "patch_level_seconds": round(float(fast.seconds), 4),
            }
        )

    def _name(self, example: Example) -> str:
        return str(example.picture.relative_to(self.dataset))

    def _pixel_figures(self, kinds: Sequence[str]) -> dict[str, Any]:
        """Figures of the pixels of good pictures and of some classes; None where no mask tells the truth."""
        marked = [self._pixels[kind] for kind in kinds if kind in self._pixels]
        figures = sum(marked, self._pixels.get(GOOD, PixelCounts())).figures(self.limit)
        return figures if marked else _without(figures, "precision", "recall", "f1")

    def _detection(self) -> dict[str, Any]:
        """The probability of detection against the area and the contrast of the defects that have masks."""
        marked = [entry for entry in self.each if "area" in entry]
        found = [entry["defective"] for entry in marked]
        return {
            measure: dataclasses.asdict(detection([entry[measure] for entry in marked], found))
            for measure in ("area", "contrast")
        }

    def _notes(self) -> list[str]:
        """What the figures leave out, and why some are None."""
        found = _count(self.each)
        left = len(self.examples) - len(self.each) - len(self.errors)
        notes = []
        if left:
            notes.append(
                f"stopped: {left} of {len(self.examples)} pictures were not reached and are left out"
            )
        if self.errors:
            notes.append(f"{len(self.errors)} pictures could not be inspected and are left out")
        if self.unused:
            names = few(str(path.relative_to(self.dataset)) for path in self.unused)
            notes.append(f"{len(self.unused)} files belong to no test picture and are left out: {names}")
        if not found["good"]:
            notes.append(
                "without good test pictures (test/good, ok or normal) pictures have no ROC-AUC, precision and F1"
            )
        if not found["defective"]:
            notes.append(
                "without defective test pictures there are no ROC-AUC, AU-PRO, precision, recall and F1, "
                "and only false alarms are counted"
            )
        elif found["without_mask"] == found["defective"]:
            notes.append("no defective picture has a mask: there are no figures of pixels")
        elif found["without_mask"]:
            notes.append(
                f"{found['without_mask']} of {found['defective']} defective pictures have no mask: "
                "figures of pixels leave them out"
            )
        return notes


def explained(error: Exception, picture: Path) -> dict[str, str]:
    """The `error` that a picture's inspection raised, in words, and whose `fault` it is: "picture" or "machine".

    An error that no other picture would be spared, of a setting, is raised again.
    """
    if isinstance(error, ConfigError) or str(error).startswith("FMRNET_BACKEND"):  # checked where it is used
        raise error
    if isinstance(error, FmrnetError):
        named = str(error)
    elif is_out_of_memory(error):
        named = "not enough memory for a picture of this size; cut it into pieces"
    else:
        named = f"{type(error).__name__}: {error}"
    return {
        "error": named if str(picture) in named else f"{picture}: {named}",
        "fault": "picture" if isinstance(error, FmrnetError) else "machine",
    }


def _check_masks(examples: Sequence[Example]) -> None:
    """Raise one DatasetError that names the masks which do not fit their pictures, of which no pixel is decoded.

    Whether a camera has noted that a picture lies on its side is seen when it is inspected.
    """
    problems = []
    for example in examples:
        if not example.masks:
            continue
        try:
            height, width = read_size(example.picture)
        except PictureError:
            continue  # it will be named when it is to be inspected
        try:
            example.truth((height, width), (width, height))
        except DatasetError as error:
            problems.append(str(error))
    if problems:
        raise DatasetError(few(problems, 3))


def _in_turn(examples: Sequence[Example]) -> list[Example]:
    """One of each class, then the next of each: so that the first few say something about all."""
    classes: dict[str, list[Example]] = {}
    for example in examples:
        classes.setdefault(example.defect, []).append(example)
    rounds = itertools.zip_longest(*classes.values())
    return [example for one_of_each in rounds for example in one_of_each if example is not None]


def _count(each: Sequence[dict[str, Any]]) -> dict[str, int]:
    defective = [entry for entry in each if entry["class"] != GOOD]
    return {
        "good": len(each) - len(defective),
        "defective": len(defective),
        "without_mask": sum(not entry["masks"] for entry in defective),
    }


def _picture_figures(each: Sequence[dict[str, Any]], prefix: str = "") -> dict[str, Any]:
    """Decisions about whole pictures; a score is a multiple of its threshold, so above 1 is defective."""
    truth = np.array([e["class"] != GOOD for e in each], np.bool_)
    confusion = Confusion()
    confusion.add(np.array([e[f"{prefix}defective"] for e in each], np.bool_), truth)
    scores = np.array([e[f"{prefix}score"] for e in each])
    figures = {"roc_auc": roc_auc(scores, truth, np.ones(len(each))), **confusion.figures()}
    if not truth.any():
        return _without(figures, "precision", "recall", "f1")
    return _without(figures, "precision", "f1") if truth.all() else figures


def _without(figures: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same figures, those of these names None: there is nothing that they could be a share of."""
    return {**figures, **dict.fromkeys(names)}


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
