"""Fig 12: how the figures fall when noise spoils the test pictures, by modality and fused.

    python bench/experiments/noise.py DATASET [--name NAME] [--model FILE | --preset edge --seed 0 ...]
        [--levels 0 0.05 0.1 0.15 0.2 0.25 0.3] [--noise-seed 0]

The paper (IV.D): "Probabilistic speckle noise is utilized for image corruption in experiments; that is, the pixel
intensities of the images will be replaced with uniformly distributed random values by the probability p". It leaves the
range of the values and what happens to colour open. Here: values from [0, 1], the whole range of a picture; a pixel
that is hit is replaced in all its channels, each by a value of its own. Only test pictures are spoilt ("for model
testing"), training and thresholds are as ever. The same pixels and values serve every level, so that a pixel spoilt at
one p is spoilt alike at each greater one.

Without --model, one is trained as surface.py does. Writes NAME-PRESET-SEED-noise.json (with --model,
NAME-noise.json) and .png. A level that is done is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor

from fmrnet.engines import background
from fmrnet.progress import Bar

LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
SHOWN = (*background.MODALITIES, common.EQ_23, common.LEARNED)


def main() -> None:
    """Read the command line, score each level, write."""
    parser = common.parser_of_model(__doc__ or "")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="p, from 0 to 1")
    parser.add_argument("--noise-seed", type=int, default=0)
    given = parser.parse_args()
    with Bar() as bar:
        inspector, stem, about = common.model_of(given, bar)
        results = common.Results(given.out / f"{stem}-noise.json", {**about, "noise_seed": given.noise_seed})

        def measure(p: float) -> dict[str, Any]:
            noise = speckle(p, given.noise_seed)
            return {"scores": common.scores(inspector, given.dataset, bar, f"noise {p:g}", noise)}

        found = {
            p: results.part(f"{p:g}", lambda p=p: measure(p))["scores"]  # type: ignore[misc]
            for p in sorted(given.levels)
        }
    for p, scores in found.items():
        print(f"{p:g}", {name: common.three(score["pixel_roc_auc"]) for name, score in scores.items()})
    plot(found, stem, results.path.with_suffix(".png"))


def speckle(p: float, seed: int) -> Callable[[Tensor, int], Tensor]:
    """A function that replaces pixels of the n-th picture (C, H, W), each with probability p."""

    def spoil(picture: Tensor, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 2**32 + number)
        hit = torch.rand(picture.shape[1:], generator=generator) < p
        values = torch.rand(picture.shape, generator=generator)
        return torch.where(hit, values, picture)

    return spoil


def plot(found: dict[float, common.Scores], title: str, path: Path) -> None:
    """A line for each modality and each fusion, pixel ROC-AUC over p."""
    made, axes = common.figure(width=6.5, height=4.2)
    axis = axes[0, 0]
    for name in SHOWN:
        points = [(p, scores[name]["pixel_roc_auc"]) for p, scores in found.items() if name in scores]
        label = "Eq 23, product of all" if name == common.EQ_23 else name
        if points:
            axis.plot(*zip(*points), "-o" if name in SHOWN[3:] else "--o", markersize=4, label=label)
    axis.set(title=title, xlabel="share p of pixels replaced by noise", ylabel="pixel ROC-AUC")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
