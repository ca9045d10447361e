"""Table III: all seven combinations of modalities, and the learned fusion beside them.

    python bench/experiments/modalities.py DATASET [--name NAME] [--model FILE | --preset edge --seed 0 ...]

Without --model, one is trained as surface.py does. Writes NAME-PRESET-SEED-modalities.json (with --model,
NAME-modalities.json) and .png: ROC-AUC of pixels and of pictures, and AU-PRO, of each.
"""

from __future__ import annotations

from pathlib import Path

import common

from fmrnet.progress import Bar


def main() -> None:
    """Read the command line, score, write."""
    given = common.parser_of_model(__doc__ or "").parse_args()
    with Bar() as bar:
        inspector, stem, about = common.model_of(given, bar)
        results = common.Results(given.out / f"{stem}-modalities.json", about)
        found = results.part(
            "combinations", lambda: {"scores": common.scores(inspector, given.dataset, bar, "scoring")}
        )["scores"]
    for name, score in found.items():
        print(f"{name:22}", {key: common.three(value) for key, value in score.items()})
    plot(found, stem, results.path.with_suffix(".png"))


def plot(found: common.Scores, title: str, path: Path) -> None:
    """A group of bars for each combination."""
    figures = {"pixel_roc_auc": "pixel ROC-AUC", "au_pro": "AU-PRO", "picture_roc_auc": "picture ROC-AUC"}
    made, axes = common.figure(width=11)
    axis = axes[0, 0]
    for place, (key, label) in enumerate(figures.items()):
        common.bars(axis, [score[key] or 0 for score in found.values()], place, len(figures), label)
    axis.set_xticks(range(len(found)), [name.replace("*", "\n× ") for name in found], fontsize=8)
    axis.set(title=title, ylim=(0, 1.08))
    axis.legend(loc="lower right", fontsize=8)
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
