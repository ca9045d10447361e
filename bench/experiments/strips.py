"""Table VI and Fig 17: slender strips, such as rails, at patch level and at pixel level.

    python bench/experiments/strips.py DATASET [--name NAME] [--model FILE | --preset edge --seed 0 ...]

Three tables of ROC-AUC, precision, recall and F1 at the calibrated thresholds:

    patch level              a patch's distance to memory against whether the patch holds a defective pixel
    pixel level              the map and mask against every pixel
    pixel level, by patches  a patch's greatest map value, and whether the mask marks any of it, as patch level

and the same for whole strips at either level (without ROC-AUC where there are no good ones). Patches are those of
inspection, overlapping as the model's settings say. The seconds are those of this run, reading the file included.

Without --model, one is trained as surface.py does. Writes NAME-PRESET-SEED-strips.json (with --model,
NAME-strips.json) and .png, where one strip is shown: of the defective ones, that with the median pixel ROC-AUC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from numpy.typing import NDArray

from fmrnet import fast
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.evaluation.metrics import Confusion, PixelCounts
from fmrnet.inspection.inspector import Inspector
from fmrnet.pictures import read_picture
from fmrnet.progress import Bar

LEVELS = {
    "patch": "patch level",
    "pixel": "pixel level",
    "pixel_by_patches": "pixel level, by patches",
    "strip_at_patch_level": "strips, patch level",
    "strip_at_pixel_level": "strips, pixel level",
}
FIGURES = {"roc_auc": "ROC-AUC", "precision": "precision", "recall": "recall", "f1": "F1"}


@dataclass
class Decisions:
    """Scores and decisions of patches or strips, and whether they were right."""

    scores: list[float] = field(default_factory=list)
    truth: list[bool] = field(default_factory=list)
    confusion: Confusion = field(default_factory=Confusion)

    def add(self, scores: NDArray[Any], decisions: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Count those of a picture."""
        self.scores.extend(scores.tolist())
        self.truth.extend(truth.tolist())
        self.confusion.add(decisions, truth)

    def figures(self) -> dict[str, Any]:
        """ROC-AUC, precision, recall, F1 and the counts."""
        return {"roc_auc": common.roc_auc(self.scores, self.truth), **self.confusion.figures()}


def main() -> None:
    """Read the command line, inspect each strip at both levels, write."""
    given = common.parser_of_model(__doc__ or "").parse_args()
    with Bar() as bar:
        inspector, stem, about = common.model_of(given, bar)
        results = common.Results(given.out / f"{stem}-strips.json", about)
        found = results.part("levels", lambda: measure(inspector, given.dataset, bar))
    for key, label in LEVELS.items():
        print(
            f"{label:24}",
            {name: common.three(found[key][name]) for name in ("roc_auc", "precision", "recall", "f1")},
        )
    print(f"median seconds a strip: {found['seconds']}")
    plot(found, inspector, given.dataset, stem, results.path.with_suffix(".png"))


def measure(inspector: Inspector, dataset: Path, bar: Bar) -> dict[str, Any]:
    """Figures at every level, and the seconds a strip takes."""
    pixels = PixelCounts()
    counts = {name: Decisions() for name in LEVELS if name != "pixel"}
    seconds: dict[str, list[float]] = {"patch": [], "pixel": []}
    told: dict[str, float] = {}  # pixel ROC-AUC within each defective strip
    examples = load_dataset(dataset).examples
    for done, example in enumerate(examples):
        bar.show("strips", done, len(examples))
        fast_exit = inspector.inspect(example.picture, level="patch")
        full = inspector.inspect(example.picture, level="pixel")
        assert full.anomaly_map is not None
        assert full.mask is not None
        truth = common.truth_of(example, full.mask.shape)
        pixels.add(full.anomaly_map, full.mask, truth)
        distances = full.patch_scores.ravel()
        hit = by_patches(inspector, truth) > 0
        counts["patch"].add(distances, distances > inspector.calibration.patch_threshold, hit)
        counts["pixel_by_patches"].add(
            by_patches(inspector, full.anomaly_map), by_patches(inspector, full.mask) > 0, hit
        )
        for level, result in (("patch", fast_exit), ("pixel", full)):
            whole = counts[f"strip_at_{level}_level"]
            whole.add(np.array([result.score]), np.array([result.defective]), np.array([truth.any()]))
            seconds[level].append(result.seconds)
        if truth.any():
            told[str(example.picture.relative_to(dataset))] = float(
                common.roc_auc(full.anomaly_map.ravel(), truth.ravel()) or 0.0
            )
    bar.show("strips", len(examples), len(examples))
    return {
        **{name: count.figures() for name, count in counts.items()},
        "pixel": pixels.figures(),
        "seconds": {level: float(np.median(values)) for level, values in seconds.items()},
        "pixel_roc_auc_of_strips": told,
    }


def by_patches(inspector: Inspector, values: NDArray[Any]) -> NDArray[np.float32]:
    """The greatest of (H, W) values in each patch of inspection, in the order of `patch_scores`."""
    config = inspector.config
    beyond = [
        (0, -side % config.multiple) for side in values.shape
    ]  # the picture is filled up, with no truth there
    filled = torch.from_numpy(np.pad(values.astype(np.float32), beyond))
    patches, _ = fast.slice_patches(filled[None], config.patch_size, config.stride)
    return patches.amax((1, 2, 3)).numpy()


def plot(found: dict[str, Any], inspector: Inspector, dataset: Path, title: str, path: Path) -> None:
    """Bars for each level, above the strip of median ROC-AUC: as it is, its patches' distances, its map, its mask."""
    told = found["pixel_roc_auc_of_strips"]
    chosen = dataset / sorted(told, key=lambda name: told[name])[len(told) // 2]
    result = inspector.inspect(chosen, level="pixel")
    assert result.anomaly_map is not None
    assert result.mask is not None
    example = next(example for example in load_dataset(dataset).examples if example.picture == chosen)
    truth = common.truth_of(example, result.mask.shape)
    rows: list[tuple[str, NDArray[Any], str]] = [
        (f"{chosen.parent.name}/{chosen.name}; its defect in red", read_picture(chosen), "gray"),
        ("patch level: distance to memory", result.patch_scores, "magma"),
        ("pixel level: anomaly map", result.anomaly_map, "magma"),
        ("pixel level: mask", result.mask, "gray"),
    ]
    upright = truth.shape[0] > truth.shape[1]
    made, axes = common.figure(len(rows) + 1, 1, width=11, height=1.7)
    series = {label: [found[level][key] for level in LEVELS] for key, label in FIGURES.items()}
    common.bars(axes[0, 0], list(LEVELS.values()), series)
    axes[0, 0].set(title=title)
    for axis, (label, picture, colours) in zip(axes[1:, 0], rows):
        axis.imshow(np.swapaxes(picture, 0, 1) if upright else picture, cmap=colours, aspect="auto")
        axis.set(xticks=[], yticks=[])
        axis.set_title(label, fontsize=8, loc="left")
    axes[1, 0].contour(truth.T if upright else truth, levels=[0.5], colors="red", linewidths=0.8)
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
