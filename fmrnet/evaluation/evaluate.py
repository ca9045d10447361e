"""How well a model does on pictures with known defects, in the folder layout of MVTec AD.

DATASET/test/good/*.png                          defect-free
DATASET/test/<defect>/<name>.png                 with a defect of this kind
DATASET/ground_truth/<defect>/<name>_mask.png    where it is: white
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import DatasetError, PictureError
from fmrnet.evaluation.metrics import Confusion, PixelCounts, roc_auc
from fmrnet.listing import list_pictures
from fmrnet.pictures import read_mask

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector

__all__ = ["Example", "evaluate", "load_dataset"]


@dataclass(frozen=True)
class Example:
    """One test picture; `mask` is the file of its true defect, None for a defect-free picture."""

    picture: Path
    defect: str  # name of the class, "good" for none
    mask: Path | None


def load_dataset(dataset: str | Path) -> list[Example]:
    """Find the test pictures of a data set in the MVTec layout and their masks.

    Raises
    ------
    DatasetError : `test` is missing or has no defective pictures, or a defective picture has no mask.
    """
    root = Path(dataset)
    test = root / "test"
    if not test.is_dir():
        raise DatasetError(
            f"{root} has no folder test; expected test/good, test/<defect> and "
            "ground_truth/<defect>/<name>_mask.png"
        )
    examples = []
    for folder in sorted(path for path in test.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for picture in list_pictures(folder):
            mask = root / "ground_truth" / folder.name / f"{picture.stem}_mask.png"
            if folder.name != "good" and not mask.is_file():
                raise DatasetError(f"{picture} has no mask; expected {mask}")
            examples.append(Example(picture, folder.name, None if folder.name == "good" else mask))
    if all(example.mask is None for example in examples):
        raise DatasetError(f"{test} holds no defective pictures; expected them in {test / '<defect>'}")
    return examples


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
    dataset : folder in the MVTec layout.
    limit : greatest false positive rate of AU-PRO.
    progress : called with the number of pictures done and of all pictures.

    Returns
    -------
    figures ready for JSON: `pixel` and `picture` (ROC-AUC, AU-PRO, precision, recall, F1 at the calibrated
    thresholds), `patch_level` (pictures decided without the decoder), `classes` (the same for each kind of defect
    against the good pictures), `each` (every picture), `seconds`, and what the model is. A figure that needs
    good pictures is None where there are none.

    Raises
    ------
    DatasetError : as `load_dataset`, or a mask is empty or of another size than its picture.
    PictureError : a picture cannot be read or inspected.
    """
    examples = load_dataset(dataset)
    counts: dict[str, PixelCounts] = {}
    each: list[dict[str, Any]] = []
    for done, example in enumerate(examples):
        if progress is not None:
            progress(done, len(examples))
        result = inspector.inspect(example.picture, level="pixel")
        fast = inspector.inspect(example.picture, level="patch")
        if result.anomaly_map is None or result.mask is None:
            raise RuntimeError("inspection at pixel level gave no map")
        truth = _truth(example, result.anomaly_map.shape)
        counts.setdefault(example.defect, PixelCounts()).add(result.anomaly_map, result.mask, truth)
        each.append(
            {
                "picture": str(example.picture.relative_to(dataset)),
                "class": example.defect,
                "score": float(result.score),
                "defective": bool(result.defective),
                "patch_level_score": float(fast.score),
                "patch_level_defective": bool(fast.defective),
                "seconds": round(float(result.seconds), 4),
                "patch_level_seconds": round(float(fast.seconds), 4),
            }
        )
    if progress is not None:
        progress(len(examples), len(examples))

    good = counts.get("good", PixelCounts())
    defects = [name for name in counts if name != "good"]
    classes = [entry["class"] for entry in each]
    total = sum((counts[name] for name in defects), good)
    return {
        "dataset": str(dataset),
        "pictures": {"good": classes.count("good"), "defective": len(classes) - classes.count("good")},
        "pixel": {**total.figures(limit), "au_pro_limit": limit},
        "picture": _picture_figures(each),
        "patch_level": _picture_figures(each, "patch_level_"),
        "classes": {
            name: {
                "pixel": (good + counts[name]).figures(limit),
                "picture": _picture_figures([e for e in each if e["class"] in ("good", name)]),
            }
            for name in defects
        },
        "seconds": {
            "total": round(sum(e["seconds"] for e in each), 3),
            "median": float(np.median([e["seconds"] for e in each])),
            "patch_level_median": float(np.median([e["patch_level_seconds"] for e in each])),
        },
        "model": {
            "config": inspector.config.to_dict(),
            "calibration": inspector.calibration.to_dict(),
            "provenance": {k: v for k, v in inspector.provenance.items() if k != "loss_curve"},
        },
        "each": each,
    }


def _truth(example: Example, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if example.mask is None:
        return np.zeros(shape, np.bool_)
    try:
        mask = read_mask(example.mask)
    except PictureError as error:
        raise DatasetError(f"the mask of {example.picture}: {error}") from error
    if mask.shape != shape:
        raise DatasetError(
            f"{example.mask} is {mask.shape[1]}x{mask.shape[0]} pixels, its picture {shape[1]}x{shape[0]}; "
            "expected the same size"
        )
    if not mask.any():
        raise DatasetError(f"{example.mask} marks no pixel; a defect-free picture belongs in test/good")
    return mask


def _picture_figures(each: list[dict[str, Any]], prefix: str = "") -> dict[str, Any]:
    """Decisions about whole pictures; a score is a multiple of its threshold, so above 1 is defective."""
    truth = np.array([e["class"] != "good" for e in each])
    confusion = Confusion()
    confusion.add(np.array([e[f"{prefix}defective"] for e in each]), truth)
    scores = np.array([e[f"{prefix}score"] for e in each])
    return {"roc_auc": roc_auc(scores, truth, np.ones(len(each))), **confusion.figures()}
