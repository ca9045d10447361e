"""Table III: all seven combinations of modalities, and the learned fusion beside them.

    python bench/experiments/modalities.py DATASET [--name NAME] [--model FILE | --preset edge --seed 0 ...]

Without --model, one is trained as surface.py does. Writes NAME-PRESET-SEED-modalities.json (with --model,
NAME-modalities.json) and .png: ROC-AUC of pixels and of pictures, and AU-PRO, of each.
"""

from __future__ import annotations

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
    common.plot_scores(found, stem, results.path.with_suffix(".png"))


if __name__ == "__main__":
    common.command(main)
