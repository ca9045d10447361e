"""How well a model does on pictures with known defects; `layouts` says how these are found."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fmrnet
from fmrnet.errors import ConfigError, DatasetError, FmrnetError, PictureError, fault_of, is_out_of_memory
from fmrnet.evaluation import resampling
from fmrnet.evaluation.defect import largest_area, largest_contrast
from fmrnet.evaluation.detection import detection
from fmrnet.evaluation.examples import GOOD, Dataset, Example, few
from fmrnet.evaluation.figures import Figures, picture_figures, pixel_figures
from fmrnet.evaluation.gallery import Gallery
from fmrnet.evaluation.known import known_defects
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.evaluation.metrics import AUPIMO_RATES, Histogram, PixelCounts
from fmrnet.pictures import read_picture, read_size

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector

__all__ = ["Evaluation", "evaluate", "explained"]


def evaluate(
    inspector: Inspector,
    dataset: str | Path,
    *,
    layout: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Inspect every test picture at pixel level, and again at patch level, and compare with the truth.

    Parameters
    ----------
    inspector : a calibrated model.
    dataset : folder in a layout of `fmrnet.evaluation.layouts`.
    layout : name of the layout; None guesses it.
    progress : called with the number of pictures done and of all pictures.

    Returns
    -------
    as `Evaluation.figures`

    Raises
    ------
    ConfigError, DatasetError : as `Evaluation`.
    """
    evaluation = Evaluation(inspector, dataset, layout=layout)
    evaluation.run(progress)
    return evaluation.figures()


class Evaluation:
    """A comparison of findings with the truth; its figures can be asked for at any time, say after Ctrl-C.

    Parameters
    ----------
    inspector : a calibrated model.
    dataset : folder in a layout of `fmrnet.evaluation.layouts`.
    layout : name of the layout; None guesses it.
    examples : pictures in the folder and what is known of them; those that `load_dataset` finds by default.
    gallery : keep small pictures of the worst misses and false alarms, for a page.

    Raises
    ------
    ConfigError, DatasetError : as `load_dataset`; or masks cannot be read, are empty, or of another shape than their
        pictures. All masks are read before the first inspection, one at a time.
    """

    def __init__(
        self,
        inspector: Inspector,
        dataset: str | Path,
        *,
        layout: str | None = None,
        examples: Sequence[Example] | None = None,
        gallery: bool = False,
    ) -> None:
        self.inspector = inspector
        self.dataset = Path(dataset)
        self.found = load_dataset(dataset, layout) if examples is None else Dataset(None, list(examples))
        self.examples = self.found.examples
        self.each: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []
        self._pixels: dict[str, PixelCounts] = {}
        self._histograms: dict[str, Histogram] = {}  # of the pixels of each picture, by its name
        self.gallery = Gallery() if gallery else None
        self._about_masks = _check_masks(self.examples)

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
        inspected), `notes` (sentences: what is left out, and why a figure is None), `cautions` (sentences: how far
        figures can be trusted), `engine` and `seconds`, and what the model is.
        `pixel` counts the good pictures and the defective ones that have masks. `intervals` beside figures are those
        of a bootstrap over pictures, `doubt` is what counting scores in bins may have changed; `resampling` is what
        `fmrnet.evaluation.compare` needs.
        """
        kinds = sorted({entry["class"] for entry in self.each} - {GOOD})
        faults = [error["fault"] for error in self.errors]
        pixel, pixel_replicates = self._pixel_figures(kinds)
        picture, picture_replicates = picture_figures(self.each)
        patch_level, patch_replicates = picture_figures(self.each, "patch_level_")
        replicates = {
            "pixel": pixel_replicates,
            "picture": picture_replicates,
            "patch_level": patch_replicates,
        }
        return {
            "fmrnet": fmrnet.__version__,
            "dataset": str(self.dataset),
            "layout": self.found.layout,
            "pictures": {
                **_count(self.each),
                "unreadable": faults.count("picture"),
                "wrong_size": faults.count("size"),
                "failed": faults.count("machine"),
                "not_reached": len(self.examples) - len(self.each) - len(self.errors),
            },
            "pixel": pixel,
            "false_alarms": self.inspector.calibration.false_alarms,
            "picture": picture,
            "patch_level": patch_level,
            "classes": {
                kind: {
                    "pixel": self._pixel_figures([kind])[0],
                    "picture": picture_figures([e for e in self.each if e["class"] in (GOOD, kind)])[0],
                }
                for kind in kinds
            },
            "known": known_defects(self.each, self.inspector.calibration).to_dict(),
            "detection": self._detection(),
            "engine": self.inspector.engine.name,
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
            "cautions": self._cautions(pixel, picture),
            "errors": self.errors,
            "each": self._with_aupimo(),
            "resampling": resampling.record(replicates),
        }

    def _add(self, example: Example) -> None:
        """Inspect one picture and count what was found; nothing is counted if anything fails."""
        name = self._name(example)
        result = self.inspector.inspect(example.picture, level="pixel")
        fast = self.inspector.inspect(example.picture, level="patch")
        if result.anomaly_map is None or result.mask is None:
            raise RuntimeError("inspection at pixel level gave no map")
        truth = example.truth(result.anomaly_map.shape)
        with open(example.picture, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        measured: dict[str, float] = {}
        shown = None
        if self.gallery is not None or not example.good:
            picture = read_picture(example.picture, self.inspector.bits)
            if truth is not None and not example.good:
                measured = {"area": largest_area(truth), "contrast": largest_contrast(picture, truth)}
            if self.gallery is not None:
                score = float(result.score)
                shown = self.gallery.shown(name, score, example.good, picture, result.mask, truth)
        if truth is not None:
            counts = self._pixels.setdefault(example.defect, PixelCounts())
            self._histograms[name] = counts.add(result.anomaly_map, result.mask, truth)
        if self.gallery is not None and shown is not None:
            self.gallery.keep(shown)
        self.each.append(
            {
                "picture": name,
                "class": example.defect,
                "sha256": digest,
                "truth_sha256": None
                if truth is None
                else hashlib.sha256(np.packbits(truth).tobytes()).hexdigest(),
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

    def _pixel_figures(self, kinds: Sequence[str]) -> Figures:
        """Figures of the pixels of good pictures and of some classes."""
        marked = [self._pixels[kind] for kind in kinds if kind in self._pixels]
        counts = sum(marked, self._pixels.get(GOOD, PixelCounts()))
        return pixel_figures(counts, self._of(GOOD), self._of(*kinds))

    def _of(self, *kinds: str) -> list[Histogram]:
        """The histograms of pictures of these classes, by their names."""
        names = sorted(entry["picture"] for entry in self.each if entry["class"] in kinds)
        return [self._histograms[name] for name in names if name in self._histograms]

    def _with_aupimo(self) -> list[dict[str, Any]]:
        """Every picture, those whose defect is marked with the area under their own curve."""
        found: dict[str, float] = {}
        for kind, counts in self._pixels.items():
            names = [entry["picture"] for entry in self.each if entry["class"] == kind and "area" in entry]
            areas = (self._pixels.get(GOOD, PixelCounts()) + counts).aupimo() if kind != GOOD else None
            if areas is not None:
                found.update(zip(names, areas.value.tolist(), strict=True))
        return [
            {**entry, **({"aupimo": found[entry["picture"]]} if entry["picture"] in found else {})}
            for entry in self.each
        ]

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
        notes = [*self.found.notes, *self._about_masks]
        if left:
            notes.append(
                f"stopped: {left} of {len(self.examples)} pictures were not reached and are left out"
            )
        if self.errors:
            notes.append(f"{len(self.errors)} pictures could not be inspected and are left out")
        if self.found.unused:
            names = few(str(path.relative_to(self.dataset)) for path in self.found.unused)
            notes.append(
                f"{len(self.found.unused)} files belong to no test picture and are left out: {names}"
            )
        if not found["good"]:
            notes.append(
                "without good test pictures (test/good, ok or normal) pictures have no ROC-AUC, average precision, "
                "precision and F1, and there is no AUPIMO"
            )
        if not found["defective"]:
            notes.append(
                "without defective test pictures there are no ROC-AUC, average precision, AU-PRO, AUPIMO, "
                "precision, recall and F1, and only false alarms are counted"
            )
        elif found["without_mask"] == found["defective"]:
            notes.append("no defective picture has a mask: there are no figures of pixels")
        elif found["without_mask"]:
            notes.append(
                f"{found['without_mask']} of {found['defective']} defective pictures have no mask: "
                "figures of pixels leave them out"
            )
        return notes

    def _cautions(self, pixel: dict[str, Any], picture: dict[str, Any]) -> list[str]:
        """What to mind when the figures are read."""
        found = _count(self.each)
        cautions = []
        if 1 in (found["good"], found["defective"]):
            cautions.append("of one good or one defective picture alone no interval can be given")
        elif sure := [name for name, (low, high) in picture["intervals"].items() if low == high]:
            cautions.append(
                f"{', '.join(name.replace('_', ' ') for name in sure)} of pictures: the interval has no width, for "
                "every draw of these pictures gives the same; others may not"
            )
        good = sum(one.good.sum() for one in self._of(GOOD))
        if pixel["aupimo"] is not None and good * AUPIMO_RATES[0] < 1:
            cautions.append(
                f"AUPIMO looks at false positive rates from {AUPIMO_RATES[0]:g} on, and of {good} good pixels one is "
                "more: it rests on the highest few"
            )
        return cautions


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
        "fault": fault_of(error),
    }


def _check_masks(examples: Sequence[Example]) -> list[str]:
    """What is to be said of the masks; or one DatasetError that names those which do not fit their pictures.

    No pixel of a picture is decoded.

    Whether a camera has noted that a picture lies on its side is seen when it is inspected.
    """
    problems, remarks = [], Counter[str]()
    for example in examples:
        if not example.masks:
            continue
        try:
            height, width = read_size(example.picture)
        except PictureError:
            continue  # it will be named when it is to be inspected
        said: list[str] = []
        try:
            example.truth((height, width), (width, height), remarks=said)
        except DatasetError as error:
            problems.append(str(error))
        remarks.update(set(said))
    if problems:
        raise DatasetError(few(problems, 3))
    return [f"{count} masks {remark}" for remark, count in remarks.items()]


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


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
