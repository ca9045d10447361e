"""The presets beside each other on several sets of surfaces.

    python bench/experiments/presets.py NAME=DATASET ... [--presets instant edge general] [--seed 0] [--models FOLDER]

Each NAME=DATASET is a folder in the MVTec layout; masks are used where there are any. Writes presets.json to
bench/results/, a part for each set and preset: ROC-AUC of pixels and pictures, AU-PRO, ROC-AUC at patch level, what the
thresholds flag, and where the model was trained. A part that is done is not done again; a model that is there is not
trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import rows

from fmrnet.evaluation.evaluate import evaluate
from fmrnet.progress import Bar

# Of pixels; precision, recall and rate tell them, and figures are to stay on a line.
COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


def main() -> None:
    """Read the command line, train and evaluate what is not done yet, print a table."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("datasets", nargs="+", metavar="[NAME=]FOLDER")
    parser.add_argument("--presets", nargs="+", default=["instant", "edge", "general"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = common.Results(given.out / "presets.json", {"seed": given.seed})
    with Bar() as bar:
        for entry in given.datasets:
            name, _, folder = entry.rpartition("=")
            for preset in given.presets:
                given.preset = preset
                run = common.run_of(given, Path(folder), name, given.seed)
                results.part(f"{run.name} {preset}", lambda run=run: measure(run, bar))
    print(table(results.content["parts"]))


def measure(run: common.Run, bar: Bar) -> dict[str, Any]:
    """The figures of one set and preset."""
    inspector = common.trained(run, bar)
    found = evaluate(inspector, run.dataset, progress=bar.counter("inspecting"))
    training = inspector.provenance
    return {
        "seed": run.seed,
        "pictures": found["pictures"],
        "good_pictures": training["good"]["pictures"],
        "pixel": plain(found["pixel"], COUNTS),
        **{name: plain(found[name]) for name in ("picture", "patch_level")},
        "seconds": found["seconds"],
        "training": {
            key: training[key] for key in ("device", "seconds", "versions", "note") if key in training
        },
    }


def plain(figures: dict[str, Any] | None, left: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Figures without their intervals and those named, which `fmrnet evaluate` tells, in six digits: a line."""
    return figures and rows.rounded(
        {name: value for name, value in figures.items() if name not in left and not isinstance(value, dict)}
    )


def table(parts: dict[str, dict[str, Any]]) -> str:
    """A Markdown table, a line for each set and preset."""
    lines = ["| set | preset | pixel | AU-PRO | picture | patch level |", "|---|---|---|---|---|---|"]
    for name, part in parts.items():
        surface, preset = name.rsplit(" ", 1)
        figures = [
            (part["pixel"] or {}).get("roc_auc"),
            (part["pixel"] or {}).get("au_pro"),
            part["picture"]["roc_auc"],
            part["patch_level"]["roc_auc"],
        ]
        lines.append(f"| {surface} | {preset} | {' | '.join(map(common.three, figures))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    common.command(main)
