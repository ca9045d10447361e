"""Table II: what each component of FMR-Net is worth. Five trainings, A to E, with parts switched off.

    python bench/experiments/components.py DATASET [--name NAME] [--preset edge] [--seed 0] [--iterations N]

| | A | B | C | D | E |
|---|---|---|---|---|---|
| two-phase training with synthetic defects | x | | x | x | |
| CMFM: latent loss, memory and addressing | x | x | | x | |
| GFRM: skips rebuilt from textons | x | x | x | | |
| multimodal inspection | x | x | x | x | x |

Without the first, the generator is trained on defect-free pictures in both phases. Without the CMFM, the latent has no
loss of its own and is decoded as it is. Without the GFRM, the skips enter the decoder as they are. All else stays: the
steps of both phases, the seed, what phase 2 locks. The paper inspects by Eq 23; where the settings ask for a learned
fusion, each generator gets one (trained on synthetic defects, B's and E's too), and figures by both are given.

Writes NAME-PRESET-SEED-components.json and .png. What is trained is not trained again, an interrupted training goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
from torch import Tensor

from fmrnet.learning import generator_training, training
from fmrnet.network import weights
from fmrnet.network.model import FMRNet
from fmrnet.progress import Bar


class WithoutMemory(FMRNet):
    """Decodes the latent itself."""

    def restore(self, z: Tensor) -> Tensor:
        """(B, K) -> (B, K), unchanged."""
        return z


@dataclass(frozen=True)
class Variant:
    """Which of the three components there are."""

    synthetic_defects: bool = True
    memory: bool = True
    rearrangement: bool = True

    @property
    def network(self) -> type[FMRNet]:
        """The generator with or without a memory."""
        return FMRNet if self.memory else WithoutMemory


VARIANTS = {
    "A": Variant(),
    "B": Variant(synthetic_defects=False),
    "C": Variant(memory=False),
    "D": Variant(rearrangement=False),
    "E": Variant(synthetic_defects=False, memory=False, rearrangement=False),
}


@contextmanager
def built_as(variant: Variant) -> Iterator[None]:
    """While the block lasts, training and loading make this variant."""
    update = generator_training.update

    def on_good_pictures(networks: Any, optimisers: Any, step: generator_training.Step, phase: int) -> Tensor:
        return update(networks, optimisers, dataclasses.replace(step, synthetic=step.normal), phase)

    with (
        patch.object(training, "FMRNet", variant.network),
        patch.object(weights, "FMRNet", variant.network),
        patch.object(generator_training, "update", update if variant.synthetic_defects else on_good_pictures),
    ):
        yield


def main() -> None:
    """Read the command line, train what is not trained yet, evaluate, write."""
    given = common.parser_of_one(__doc__ or "").parse_args()
    run = common.run_of(given, given.dataset, given.name, given.seed)
    about = {"name": run.name, "preset": run.preset, "config": run.config.to_dict()}
    results = common.Results(run.out / f"{run.stem}-components.json", about)
    with Bar() as bar:
        found = {
            letter: results.part(letter, lambda letter=letter: measure(run, letter, bar))  # type: ignore[misc]
            for letter in VARIANTS
        }
    for letter, part in found.items():
        print(letter, {name: common.three(score["pixel_roc_auc"]) for name, score in part["scores"].items()})
    plot(found, run.stem, results.path.with_suffix(".png"))


def measure(run: common.Run, letter: str, bar: Bar) -> dict[str, Any]:
    """Train one variant and score it."""
    variant = VARIANTS[letter]
    config = dataclasses.replace(run.config, rearrange=variant.rearrangement)
    if not variant.memory:
        config = dataclasses.replace(config, weight_lat=0.0)
    with built_as(variant):
        path = run.models / f"{run.stem}-components-{letter}.fmr"
        inspector = common.trained(run, bar, path=path, config=config)
    return {
        "variant": dataclasses.asdict(variant),
        "training_seconds": inspector.provenance["seconds"],
        "scores": common.scores(inspector, run.dataset, bar, f"scoring {letter}"),
    }


def plot(found: dict[str, Any], title: str, path: Path) -> None:
    """Bars of pixel ROC-AUC and AU-PRO, by Eq 23 and by the learned fusion."""
    names = ["A: all", "B: no synthetic\ndefects", "C: no CMFM", "D: no GFRM", "E: none"]
    maps = [name for name in (common.EQ_23, common.LEARNED) if name in found["A"]["scores"]]
    made, axes = common.figure(1, 2, width=5.5)
    for axis, key in zip(axes[0], ("pixel_roc_auc", "au_pro")):
        series = {name: [found[letter]["scores"][name][key] for letter in VARIANTS] for name in maps}
        common.bars(axis, names, series)
        axis.set(title=common.FIGURES[key])
    made.suptitle(title)
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
