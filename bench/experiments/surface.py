"""Train on one set of surfaces, evaluate on its test pictures, and record everything.

    python bench/experiments/surface.py DATASET --name aitex-fabric02 [--preset edge] [--seed 0] [--iterations N]

DATASET is a folder in the MVTec layout. Writes NAME-PRESET-SEED.json (machine, versions, commit, command, settings,
loss curve, figures of the learned fusion and of all seven products of modalities, as Tables III to V of the paper)
and a picture of the loss curve to bench/results/. An interrupted training goes on when the command is repeated; a
finished one is done anew (surfaces.py keeps what is done).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import record
import rows

from fmrnet.evaluation.evaluate import evaluate
from fmrnet.inspection.inspector import Inspector
from fmrnet.progress import Bar


def main() -> None:
    """Read the command line, train, evaluate, write."""
    given = common.parser_of_one(__doc__ or "").parse_args()
    run = common.run_of(given, given.dataset, given.name, given.seed)
    with Bar() as bar:
        found = measure(run, common.train(run, bar, run.model, run.dataset, run.config), bar)
    print(
        found["figures"]["pixel"], found["figures"]["picture"], found["pixel_roc_auc_of_products"], sep="\n"
    )


def measure(run: common.Run, inspector: Inspector, bar: Bar) -> dict[str, Any]:
    """Evaluate a run's model on the test pictures; write and give its figures."""
    scores = common.scores(inspector, run.dataset, bar, "products")
    found = {
        "name": run.name,
        "record": record.record(),
        "config": inspector.config.to_dict(),
        "calibration": inspector.calibration.to_dict(),
        "training": dict(inspector.provenance),
        "figures": evaluate(inspector, run.dataset, progress=bar.counter("evaluation")),
        "pixel_roc_auc_of_products": {
            name: score["pixel_roc_auc"] for name, score in scores.items() if name != common.LEARNED
        },
    }
    found["figures"]["dataset"] = run.dataset.name
    found["figures"]["each"] = rows.rounded(found["figures"]["each"])
    del found["figures"]["resampling"]  # for comparisons of two results, and long
    del found["figures"]["model"]  # its settings, thresholds and training stand above
    del found["training"]["command"]  # the record above has it without the folders of one machine
    rows.write(run.out / f"{run.stem}.json", found)
    plot(inspector.provenance["loss_curve"], run.out / f"{run.stem}-loss.png", run.stem)
    return found


def plot(curve: list[tuple[int, int, float]], path: Path, title: str) -> None:
    """Draw the loss of each phase over its steps."""
    names: dict[int, str] = {1: "phase 1, L_1", 2: "phase 2, L_2", 3: "learned fusion, focal"}
    phases = sorted({phase for phase, _, _ in curve})
    figure, axes = common.figure(columns=max(1, len(phases)), width=4, height=3)
    for axis, phase in zip(axes[0], phases):
        points: list[Any] = [(step, loss) for p, step, loss in curve if p == phase]
        axis.plot(*zip(*points, strict=True))
        axis.set(title=names[phase], xlabel="step", yscale="log")
    figure.suptitle(title)
    common.save(figure, path)


if __name__ == "__main__":
    common.command(main)
