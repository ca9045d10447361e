"""Tables IV and V: several sets of surfaces, several seeds, one set of settings, in one command.

    python bench/experiments/surfaces.py carpet=MVTEC/carpet grid=MVTEC/grid [--seeds 0 1 2] [--preset edge]

Each NAME=FOLDER (or FOLDER, named as it is) is a data set in the MVTec layout. Each training writes what surface.py
writes, NAME-PRESET-SEED.json; a result that is there with the same settings is not made again, a finished model is
not trained again, and an interrupted training goes on when the command is repeated. surfaces-PRESET.json and .png have
the mean over the seeds and its spread: ROC-AUC of pixels and of pictures, AU-PRO, and precision, recall and F1 of
pixels at the k-sigma threshold and of pictures at theirs.
"""

from __future__ import annotations

import functools
import json
import operator
import statistics
from pathlib import Path
from typing import Any

import common
import record
import rows
import surface

from fmrnet.progress import Bar

FIGURES = {  # and where they stand in a result
    "pixel ROC-AUC": ("figures", "pixel", "roc_auc"),
    "AU-PRO": ("figures", "pixel", "au_pro"),
    "picture ROC-AUC": ("figures", "picture", "roc_auc"),
    "patch level": ("figures", "patch_level", "roc_auc"),
    "pixel ROC-AUC by Eq 23": ("pixel_roc_auc_of_products", common.EQ_23),
    "pixel precision": ("figures", "pixel", "precision"),
    "pixel recall": ("figures", "pixel", "recall"),
    "pixel F1": ("figures", "pixel", "f1"),
    "picture precision": ("figures", "picture", "precision"),
    "picture recall": ("figures", "picture", "recall"),
    "picture F1": ("figures", "picture", "f1"),
}
Summary = dict[str, dict[str, float]]


def main() -> None:
    """Read the command line, do what is not done yet, sum up."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("datasets", nargs="+", metavar="[NAME=]FOLDER")
    parser.add_argument("--name", default="surfaces", help="of the summary, in file names")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with Bar() as bar:
        for entry in given.datasets:
            name, _, folder = entry.rpartition("=")
            for seed in given.seeds:
                run = common.run_of(given, Path(folder), name, seed)
                results.setdefault(run.name, []).append(_result(run, bar))
    summaries = {name: summary(found) for name, found in results.items()}
    summaries["mean"] = {
        key: {"mean": statistics.mean(values)}
        for key in FIGURES
        if len(values := [s[key]["mean"] for s in summaries.values() if key in s]) == len(summaries)
    }
    stem = "-".join([given.name, given.preset, *sorted(given.set)])
    found = {"record": record.record(), "seeds": given.seeds, "summary": summaries}
    rows.write(given.out / f"{stem}.json", found)
    print(table(summaries))
    plot(results, given.out / f"{stem}.png")


def _result(run: common.Run, bar: Bar) -> dict[str, Any]:
    """The figures of one surface and seed: those written, if the settings are the same, else made."""
    path = run.out / f"{run.stem}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        if found["config"] == {**run.config.to_dict(), "image_channels": found["config"]["image_channels"]}:
            return found
    return surface.measure(run, common.trained(run, bar), bar)


def _values(results: list[dict[str, Any]], key: str) -> list[float]:
    """A figure of each result; none where it cannot be had, as ROC-AUC of pictures without good ones."""
    values = [functools.reduce(operator.getitem, FIGURES[key], result) for result in results]
    return [] if None in values else values


def summary(results: list[dict[str, Any]]) -> Summary:
    """Mean, least, greatest and (of two or more) standard deviation over the seeds, of each figure there is."""
    found: Summary = {}
    for key in FIGURES:
        if values := _values(results, key):
            found[key] = {"mean": statistics.mean(values), "least": min(values), "greatest": max(values)}
            if len(values) > 1:
                found[key]["deviation"] = statistics.stdev(values)
    return found


def table(summaries: dict[str, Summary]) -> str:
    """A Markdown table, a line for each surface."""

    def cell(summary: Summary, key: str) -> str:
        if key not in summary:
            return "-"
        spread = summary[key].get("deviation")
        return f"{summary[key]['mean']:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")

    lines = [f"| surface | {' | '.join(FIGURES)} |", "|---" * (len(FIGURES) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(cell(found, key) for key in FIGURES)} |" for name, found in summaries.items()
    ]
    return "\n".join(lines)


def plot(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A dot for each seed of each surface."""
    shown = list(FIGURES)[:5]
    made, axes = common.figure(1, len(shown), width=3.2, height=1.2 + 0.5 * len(results))
    for axis, key in zip(axes[0], shown):
        for row, found in enumerate(results.values()):
            values = _values(found, key)
            axis.plot(values, [row] * len(values), "o", color="#1f6f5c", alpha=0.6)
        axis.set(title=key, yticks=range(len(results)), ylim=(len(results) - 0.5, -0.5))
        axis.set_yticklabels(results if axis is axes[0][0] else [""] * len(results))
        axis.grid(axis="x", alpha=0.3)
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
