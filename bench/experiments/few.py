"""How few good pictures will do: train on the first 1, 2, 4, ... of them, and on all.

    python bench/experiments/few.py DATASET [--name NAME] [--counts 1 2 4] [--preset edge] [--seed 0] [--iterations N]

The first pictures are those first by name. All are split into what is learnt from and what is calibrated on as ever.
Writes NAME-PRESET-SEED-few.json and .png. What is trained is not trained again, an interrupted training goes on.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import common

from fmrnet.errors import ConfigError, DatasetError
from fmrnet.evaluation.evaluate import evaluate
from fmrnet.listing import list_pictures
from fmrnet.progress import Bar


def main() -> None:
    """Read the command line, train with each count, evaluate, write."""
    parser = common.parser_of_one(__doc__ or "")
    parser.add_argument("--counts", type=int, nargs="+", help="default: 1, 2, 4, ... and all")
    given = parser.parse_args()
    run = common.run_of(given, given.dataset, given.name, given.seed)
    folder = run.dataset / "train" / "good"
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: no such folder; expected the good pictures of a set in the MVTec layout"
        )
    good = list_pictures(folder)
    counts = given.counts or sorted({*(2**n for n in range(len(good).bit_length())), len(good)})
    if not 1 <= min(counts) <= max(counts) <= len(good):
        raise ConfigError(
            f"--counts {counts}: expected numbers from 1 to the {len(good)} good pictures there are"
        )
    about = {
        "name": run.name,
        "preset": run.preset,
        "config": run.config.to_dict(),
        "good_pictures": len(good),
    }
    results = common.Results(run.out / f"{run.stem}-few.json", about)
    with Bar() as bar:
        found = {
            count: results.part(str(count), lambda count=count: measure(run, good[:count], bar))  # type: ignore[misc]
            for count in sorted(counts)
        }
    for count, part in found.items():
        print(count, {label: common.three(value) for label, value in shown(part).items()})
    plot(found, run.stem, results.path.with_suffix(".png"))


def measure(run: common.Run, good: list[Path], bar: Bar) -> dict[str, Any]:
    """Train on these good pictures and evaluate."""
    with tempfile.TemporaryDirectory() as folder:
        for picture in good:
            shutil.copy(picture, folder)
        path = run.models / f"{run.stem}-few-{len(good)}.fmr"
        inspector = common.trained(run, bar, path=path, good=Path(folder))
    figures = evaluate(inspector, run.dataset, progress=bar.counter(f"evaluation with {len(good)}"))
    return {
        "pictures": [picture.name for picture in good],
        "training_seconds": inspector.provenance["seconds"],
        "calibration": inspector.calibration.to_dict(),
        **{level: figures[level] for level in ("pixel", "picture", "patch_level")},
    }


def shown(part: dict[str, Any]) -> dict[str, float | None]:
    """What is printed and drawn of a training's figures."""
    return {
        "pixel ROC-AUC": part["pixel"]["roc_auc"],
        "AU-PRO": part["pixel"]["au_pro"],
        "picture ROC-AUC": part["picture"]["roc_auc"],
        "patch level ROC-AUC": part["patch_level"]["roc_auc"],
    }


def plot(found: dict[int, dict[str, Any]], title: str, path: Path) -> None:
    """A line for each figure over the number of good pictures."""
    made, axes = common.figure(width=6.5, height=4.2)
    axis = axes[0, 0]
    for label in shown(next(iter(found.values()))):
        points = [
            (count, value) for count, part in found.items() if (value := shown(part)[label]) is not None
        ]
        if points:
            axis.plot(*zip(*points), "-o", markersize=4, label=label)
    axis.set(title=title, xlabel="good pictures learnt from", xscale="log")
    axis.set_xticks(list(found), [str(count) for count in found])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
