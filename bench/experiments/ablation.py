"""What each setting of the network and its training is worth to the background, without a look at a test picture.

    python bench/experiments/ablation.py DATASET [--name NAME] [--preset edge] [--seed 0] [--steps 600 300]
        [--changes mixing=none patch_size=128+batch_size=8 ...]

One training of T_1 and T_2 steps as the preset has it, and one for each change (FIELD=VALUE, several joined by "+").
Each then restores the same crops of the good pictures that training held out, as they are and with synthetic defects.
A good setting keeps the texture (a small error on good crops) and loses the defect (residual and Eq 23 find it, and so
does the distance to the memory).

Writes NAME-PRESET-SEED-ablation.json and .png. A change that the pictures do not allow (patches larger than they are)
is said and left out. What is trained is not trained again, an interrupted training goes on.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor

from fmrnet import fast
from fmrnet.engines import background
from fmrnet.errors import DatasetError, PictureError
from fmrnet.inspection.inspector import Inspector
from fmrnet.learning import data
from fmrnet.learning.synthesis import synthetic_defects
from fmrnet.network.learned_fusion import defect_labels
from fmrnet.progress import Bar

UNCHANGED = "as it is"
CHANGES = (
    "mixing=none",
    "mixing=dense",
    "temperature=1",
    "weight_lat=1",
    "epsilon=0",
    "learning_rate=0.003",
    "schedule=constant",
    "batch_size=16",
    "channels=[32,64,128,256,64]",
    "patch_size=128+batch_size=8",
)
CROPS, SIZE, AT_ONCE = 64, 128, 16  # size in pixels: several patches, stitched as at inspection
SHOWN = {
    "residual_roc_auc": "residual, pixels",
    "eq_23_roc_auc": "Eq 23, pixels",
    "patch_roc_auc": "distance to memory, crops",
}


def main() -> None:
    """Read the command line, train what is not trained yet, measure, write."""
    parser = common.parser_of_one(__doc__ or "")
    parser.add_argument("--steps", type=int, nargs=2, default=(600, 300), metavar=("T_1", "T_2"))
    parser.add_argument("--changes", nargs="*", default=CHANGES, metavar="FIELD=VALUE")
    given = parser.parse_args()
    run = common.run_of(given, given.dataset, given.name, given.seed)
    config = dataclasses.replace(run.config, iterations=(*given.steps, 0))
    about = {"name": run.name, "preset": run.preset, "config": config.to_dict(), "crops": CROPS, "size": SIZE}
    results = common.Results(run.out / f"{run.stem}-ablation.json", about)
    found = {}
    with Bar() as bar:
        for change in (UNCHANGED, *given.changes):
            try:
                found[change] = results.part(change, partial(measure, run, given.steps, change, bar))
            except (DatasetError, PictureError) as error:
                if change == UNCHANGED:
                    raise
                print(f"{change} left out: {error}", file=sys.stderr)
    for change, part in found.items():
        print(change, {name: common.three(part[name]) for name in ("background_error", *SHOWN)})
    plot(found, run.stem, results.path.with_suffix(".png"))


def measure(run: common.Run, steps: tuple[int, int], change: str, bar: Bar) -> dict[str, Any]:
    """Train with one change and measure."""
    changes = () if change == UNCHANGED else tuple(change.split("+"))
    varied = dataclasses.replace(run, changes=(*run.changes, *changes))
    config = dataclasses.replace(varied.config, iterations=(*steps, 0))
    path = run.models / f"{varied.stem}-ablation.fmr"
    inspector = common.trained(varied, bar, path=path, config=config)
    return {
        "training_seconds": inspector.provenance["seconds"],
        "parameters": sum(weights.numel() for weights in inspector.model.parameters()),
        **restored(inspector, run.dataset),
    }


@torch.no_grad()
def restored(inspector: Inspector, dataset: Path) -> dict[str, float | None]:
    """How a model restores crops of the held-out good pictures, and tells the defects drawn on them.

    The error is the mean square of what background and good crop differ by, in deviations of the texture. Pixels are
    labelled as for the learned fusion, those of neither kind left out.
    """
    model, config = inspector.model, inspector.config
    pictures, channels = data.load_good_pictures(dataset, config.patch_size)
    pool = data.PicturePool(data.hold_out(pictures, config.patch_size)[1])
    natural = data.load_natural_pictures(None, channels, config.patch_size)
    generator = torch.Generator().manual_seed(0)
    size = min(SIZE, pool.largest_crop, natural.largest_crop)
    size -= size % config.multiple  # as pictures are filled up
    errors: list[float] = []
    maps: dict[str, list[Tensor]] = {"residual_roc_auc": [], "eq_23_roc_auc": []}
    labels, distances, defective = [], [], []
    for _ in range(CROPS // AT_ONCE):
        good, own = pool.crops(2 * AT_ONCE, size, generator).chunk(2)
        contents = natural.crops(AT_ONCE, size, generator)
        synthetic, support = synthetic_defects(good, contents, own, generator)
        label = defect_labels(good, synthetic, support, model.std)
        difference = (background.restore_crops(model, good) - good) / model.std[:, None, None]
        errors.append(difference.square().mean().item())
        each = fast.modality_maps(synthetic, background.restore_crops(model, synthetic), median=config.median)
        maps["residual_roc_auc"].append(each["residual"])
        maps["eq_23_roc_auc"].append(torch.stack([each[name] for name in background.MODALITIES]).prod(0))
        labels.append(label)
        distances += [
            background.patch_distances(model, background.encode(model, crop)).max().item()
            for crop in (*good, *synthetic)
        ]
        defective += [*[False] * AT_ONCE, *(label == 1).flatten(1).any(1).tolist()]
    truth = torch.cat(labels).flatten()
    counted = truth >= 0
    return {
        "background_error": float(np.mean(errors)),
        **{
            name: common.roc_auc(torch.cat(parts).flatten()[counted].numpy(), (truth[counted] == 1).numpy())
            for name, parts in maps.items()
        },
        "patch_roc_auc": common.roc_auc(distances, defective),
    }


def plot(found: dict[str, Any], title: str, path: Path) -> None:
    """Bars: the background's error on good crops, and how well defects are told."""
    made, axes = common.figure(2, 1, width=3 + len(found), height=3.2)
    names = [change.replace("+", "\n") for change in found]
    axes[0, 0].bar(range(len(names)), [part["background_error"] for part in found.values()])
    axes[0, 0].set_xticks(range(len(names)), names, fontsize=6)
    axes[0, 0].set(title=title, ylabel="error of the background, variances", ylim=(0, None))
    common.bars(
        axes[1, 0], names, {label: [part[key] for part in found.values()] for key, label in SHOWN.items()}
    )
    axes[1, 0].set_xticks(range(len(names)), names, fontsize=6)
    axes[1, 0].set(ylabel="ROC-AUC")
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
