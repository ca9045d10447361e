"""Train on one set of surfaces, evaluate on its test pictures, and record everything.

    python bench/experiments/surface.py DATASET --name aitex-fabric02 [--preset edge] [--seed 0] [--iterations N]

DATASET is a folder in the MVTec layout. Writes NAME-PRESET-SEED.json (machine, versions, commit, command, settings,
loss curve, figures of the learned fusion and of all seven products of modalities, as Tables III to V of the paper)
and a picture of the loss curve to bench/results/. An interrupted training goes on when the command is repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import record

import fmrnet
from fmrnet import background, fast
from fmrnet.config import preset
from fmrnet.evaluation import PixelCounts, evaluate, load_dataset
from fmrnet.files import write_json
from fmrnet.inspection import Inspector
from fmrnet.pictures import read_mask, read_picture, to_channels
from fmrnet.training import checkpoint_path

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Read the command line, train, evaluate, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--preset", default="edge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int)
    parser.add_argument(
        "--models", type=Path, default=Path(tempfile.gettempdir()), help="where models are kept"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="other numeric settings")
    given = parser.parse_args()

    changes = dict(item.split("=") for item in given.set)
    config = dataclasses.replace(preset(given.preset), **{k: float(v) for k, v in changes.items()})
    stem = "-".join([given.name, given.preset, *sorted(given.set), str(given.seed)])
    model = given.models / f"{stem}.fmr"
    inspector = fmrnet.train(
        given.dataset,
        model,
        config=config,
        iterations=given.iterations,
        seed=given.seed,
        resume=checkpoint_path(model).exists(),
        progress=lambda phase, step, total, loss: (
            print(f"{phase} {step}/{total} loss {loss:.3f}", flush=True)
            if step % 200 == 0 or step == total
            else None
        ),
    )
    found = {
        "name": given.name,
        "record": record.record(),
        "config": inspector.config.to_dict(),
        "calibration": inspector.calibration.to_dict(),
        "training": inspector.provenance,
        "figures": evaluate(inspector, given.dataset),
        "pixel_roc_auc_of_products": products(inspector, given.dataset),
    }
    found["figures"]["dataset"] = given.dataset.name
    del found["training"]["command"]  # the record above has it without the folders of one machine
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{stem}.json", found)
    plot(inspector.provenance["loss_curve"], RESULTS / f"{stem}-loss.png", stem)
    print(
        found["figures"]["pixel"], found["figures"]["picture"], found["pixel_roc_auc_of_products"], sep="\n"
    )


def products(inspector: Inspector, dataset: Path) -> dict[str, float | None]:
    """Pixel ROC-AUC of every product of modalities, Eq 23 with and without each, at the model's median window."""
    names = background.MODALITIES
    choices = [c for size in (1, 2, 3) for c in itertools.combinations(names, size)]
    counts = {choice: PixelCounts() for choice in choices}
    for example in load_dataset(dataset):
        picture = to_channels(read_picture(example.picture), inspector.config.image_channels)
        image = torch.from_numpy(picture.transpose(2, 0, 1).copy()).to(inspector.device)
        restored = background.restore(inspector.model, background.encode(inspector.model, image))
        maps = fast.modality_maps(image[None], restored[None], median=inspector.config.median)
        truth = read_mask(example.mask) if example.mask else np.zeros(picture.shape[:2], np.bool_)
        for choice, count in counts.items():
            fused = torch.stack([maps[name][0] for name in choice]).prod(0).cpu().numpy()
            count.add(fused, np.zeros_like(truth), truth)
    return {"*".join(choice): count.roc_auc() for choice, count in counts.items()}


def plot(curve: list[tuple[int, int, float]], path: Path, title: str) -> None:
    """Draw the loss of each phase over its steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names: dict[int, str] = {1: "phase 1, L_1", 2: "phase 2, L_2", 3: "learned fusion, focal"}
    phases = sorted({phase for phase, _, _ in curve})
    figure, axes = plt.subplots(
        1, len(phases), figsize=(4 * len(phases), 3), layout="constrained", squeeze=False
    )
    for axis, phase in zip(axes[0], phases, strict=True):
        points: list[Any] = [(step, loss) for p, step, loss in curve if p == phase]
        axis.plot(*zip(*points, strict=True))
        axis.set(title=names[phase], xlabel="step", yscale="log")
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
