"""What the experiments share: their command line, trained models, scores of test pictures, results part by part."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import record
import rows

import fmrnet
from fmrnet import fast
from fmrnet.config import Config, preset
from fmrnet.engines import background
from fmrnet.engines.engine import Found
from fmrnet.errors import ConfigError, DatasetError, FmrnetError
from fmrnet.evaluation.examples import Example
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.evaluation.metrics import PixelCounts
from fmrnet.inspection.inspector import Inspector
from fmrnet.learning import training
from fmrnet.pictures import read_picture, to_channels
from fmrnet.progress import Bar

RESULTS = Path(__file__).parents[1] / "results"
LEARNED = "learned fusion"
EQ_23 = "*".join(background.MODALITIES)
PRODUCTS = [c for size in (1, 2, 3) for c in itertools.combinations(background.MODALITIES, size)]
FIGURES = {"pixel_roc_auc": "pixel ROC-AUC", "au_pro": "AU-PRO", "picture_roc_auc": "picture ROC-AUC"}
Scores = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Run:
    """One training: the surface, the settings, the seed, and where its files are kept."""

    dataset: Path  # in the MVTec layout
    name: str  # of the surface, in file names
    preset: str
    changes: tuple[str, ...]  # of the preset's settings, FIELD=VALUE
    seed: int
    iterations: int | None  # of all phases together; None: the preset's
    models: Path
    out: Path

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return "-".join([self.name, self.preset, *sorted(self.changes), str(self.seed)])

    @property
    def model(self) -> Path:
        """The model's file."""
        return self.models / f"{self.stem}.fmr"

    @cached_property
    def config(self) -> Config:
        """The preset with the changes; the number of channels comes from the pictures, in training."""
        chosen = preset(self.preset)
        if wrong := [change for change in self.changes if "=" not in change]:
            raise ConfigError(f"--set {' '.join(wrong)}: expected FIELD=VALUE")
        given = {field: _value(text) for field, text in (change.split("=", 1) for change in self.changes)}
        config = Config.from_dict({**chosen.to_dict(), **given})
        if self.iterations is not None:
            config = training._with_steps(config, self.iterations)
        return dataclasses.replace(config, seed=self.seed)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def command(work: Callable[[], None]) -> None:
    """Run an experiment's main function; a user's mistake is one line on standard error and exit code 2.

    A stopped training (Ctrl-C) is one line, too, and exit code 130.
    """
    try:
        work()
    except training.Interrupted:
        print("stopped; repeat the command to go on", file=sys.stderr)
        sys.exit(130)
    except FmrnetError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every experiment with a training has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--preset", default="edge")
    made.add_argument("--iterations", type=int, help="steps of all phases together")
    made.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="other settings")
    made.add_argument(
        "--models", type=Path, default=Path(tempfile.gettempdir()), help="where models are kept"
    )
    made.add_argument("--out", type=Path, default=RESULTS, help="where results are written")
    return made


def parser_of_one(description: str) -> argparse.ArgumentParser:
    """The arguments of an experiment that trains on one surface."""
    made = parser(description)
    made.add_argument("dataset", type=Path, help="folder in the MVTec layout")
    made.add_argument("--name", help="in file names; default: the folder's")
    made.add_argument("--seed", type=int, default=0)
    return made


def parser_of_model(description: str) -> argparse.ArgumentParser:
    """The arguments of an experiment with one model, given or to be trained."""
    made = parser_of_one(description)
    made.add_argument(
        "--model", type=Path, help="a trained model; default: one is trained as surface.py does"
    )
    return made


def run_of(given: argparse.Namespace, dataset: Path, name: str | None, seed: int) -> Run:
    """The training that a command line asks for."""
    for folder in (given.out, given.models):
        folder.mkdir(parents=True, exist_ok=True)
    chosen = name or dataset.resolve().name
    changes = tuple(given.set)
    return Run(dataset, chosen, given.preset, changes, seed, given.iterations, given.models, given.out)


def model_of(given: argparse.Namespace, bar: Bar) -> tuple[Inspector, str, dict[str, Any]]:
    """The model that a command line asks for, what the names of its results begin with, and what they hold for."""
    run = run_of(given, given.dataset, given.name, given.seed)
    path = given.model or run.model
    inspector = fmrnet.load(path, engine="torch") if given.model else trained(run, bar)
    about = {
        "name": run.name,
        "model": path.name,
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "config": inspector.config.to_dict(),
    }
    return inspector, (given.name or path.stem) if given.model else run.stem, about


def trained(
    run: Run, bar: Bar, *, path: Path | None = None, good: Path | None = None, config: Config | None = None
) -> Inspector:
    """The model of a run, or one beside it from other pictures or settings: loaded if it is there, else trained.

    Raises
    ------
    ConfigError : there is a model of that name with other settings.
    """
    wanted, path = config or run.config, path or run.model
    if path.exists():
        inspector = fmrnet.load(path, engine="torch")
        wanted = dataclasses.replace(wanted, image_channels=inspector.config.image_channels)
        if inspector.config != wanted:
            fields = [f for f, v in wanted.to_dict().items() if inspector.config.to_dict()[f] != v]
            raise ConfigError(
                f"{path} was trained with another {', '.join(fields)}; delete it, or give another --models"
            )
        print(f"{path} is there: loaded, not trained again", file=sys.stderr)
        return inspector
    return train(run, bar, path, good or run.dataset, wanted)


def train(run: Run, bar: Bar, path: Path, good: Path, config: Config) -> Inspector:
    """Train a model, or go on with its interrupted training."""
    return fmrnet.train(
        good,
        path,
        config=config,
        seed=run.seed,
        resume=True,
        progress=bar.training(config),
    )


def pictures(
    inspector: Inspector, dataset: Path, bar: Bar, label: str
) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
    """The test pictures of a data set, (C, H, W) in [0, 1], each with its truth (H, W)."""
    examples = load_dataset(dataset).examples
    for done, example in enumerate(examples):
        bar.show(label, done, len(examples))
        picture = to_channels(read_picture(example.picture), inspector.config.image_channels)
        truth = truth_of(example, picture.shape[:2])
        yield torch.from_numpy(picture.transpose(2, 0, 1).copy()), truth
    bar.show(label, len(examples), len(examples))


def truth_of(example: Example, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The defective pixels (H, W) of a test picture; the experiments need a mask for each defective one."""
    truth = example.truth(shape)
    if truth is None:
        raise DatasetError(
            f"{example.picture} has no mask; the experiments need one for each defective picture"
        )
    return truth


def maps(inspector: Inspector, picture: Tensor) -> dict[str, Found]:
    """What every product of modalities finds, and the learned fusion where the model has one."""
    model, (height, width) = inspector.model, picture.shape[1:]
    filled = model.filled(picture[None].to(model.mean.device))
    restored = background.restore(model, background.encode(model, filled[0]))
    each = fast.modality_maps(filled, restored[None], median=model.config.median)
    found = {}
    for names in PRODUCTS:
        product = torch.stack([each[name][0] for name in names]).prod(0)
        alarms = background.patch_alarms(product, model.config.patch_size)[None]
        shown = product[:height, :width].cpu().numpy()
        found["*".join(names)] = Found(shown, shown, alarms.cpu().numpy())
    if model.config.learned_fusion:
        found[LEARNED] = inspector.engine.compare(inspector.engine.glance(picture.numpy()))
    return found


def scores(
    inspector: Inspector,
    dataset: Path,
    bar: Bar,
    label: str,
    spoil: Callable[[Tensor, int], Tensor] | None = None,
) -> Scores:
    """How well each of `maps` tells defects: pixel ROC-AUC and AU-PRO, and ROC-AUC of pictures.

    `spoil`, if given, changes a picture (C, H, W), the n-th of the test pictures, before it is inspected.
    """
    counts: dict[str, PixelCounts] = {}
    whole: dict[str, list[float]] = {}
    defective = []
    for number, (picture, truth) in enumerate(pictures(inspector, dataset, bar, label)):
        seen = picture if spoil is None else spoil(picture, number)
        defective.append(bool(truth.any()))
        for name, found in maps(inspector, seen).items():
            counts.setdefault(name, PixelCounts()).add(found.anomaly_map, np.zeros_like(truth), truth)
            whole.setdefault(name, []).append(float(found.readings[0].max()))
    return {
        name: {
            "pixel_roc_auc": count.roc_auc(),
            "au_pro": count.au_pro(),
            "picture_roc_auc": roc_auc(whole[name], defective),
        }
        for name, count in counts.items()
    }


def roc_auc(values: list[float] | NDArray[Any], labels: list[bool] | NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve; None without examples of both kinds."""
    return float(roc_auc_score(labels, values)) if 0 < np.sum(labels) < len(labels) else None


class Results:
    """Results of an experiment, written part by part: a part that is done is not done again.

    Parameters
    ----------
    path : the JSON file.
    about : what the results hold for. If the file holds for something else, it is begun anew.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {**about, "parts": {}}
        if path.exists():
            earlier = json.loads(path.read_text())
            if all(earlier.get(key) == value for key, value in json.loads(json.dumps(about)).items()):
                self.content = earlier

    def part(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of a part: found in the file, or worked out and written."""
        if name not in self.content["parts"]:
            figures = work()
            made = record.record()
            self.content["parts"][name] = {**figures, "commit": made["commit"], "time": made["time"]}
            self.content["record"] = made
            rows.write(self.path, self.content)
        part: dict[str, Any] = self.content["parts"][name]
        return part


def size_of(text: str) -> tuple[int, int]:
    """
    >>> size_of("1024x64")
    (1024, 64)
    """
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError:
        raise ConfigError(f"size {text}: expected HEIGHTxWIDTH, such as 512x512") from None
    return height, width


def three(value: float | None) -> str:
    """
    >>> three(0.98765), three(None)
    ('0.988', '-')
    """
    return "-" if value is None else f"{value:.3f}"


def figure(rows: int = 1, columns: int = 1, width: float = 5.0, height: float = 3.6) -> tuple[Any, Any]:
    """A matplotlib figure, drawn without a screen, and its array of axes (rows, columns)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), layout="constrained", squeeze=False
    )


def bars(axis: Any, names: list[str], series: dict[str, list[float | None]]) -> None:
    """For each name a group of bars, one of each series, from 0 to 1, their heights written on them."""
    width = 0.8 / len(series)
    for place, (label, given) in enumerate(series.items()):
        middles = [x + (place - (len(series) - 1) / 2) * width for x in range(len(given))]
        drawn = axis.bar(middles, [value or 0.0 for value in given], width, label=label)
        axis.bar_label(drawn, [three(value) for value in given], fontsize=6, rotation=90, padding=2)
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(0, 1.18)
    axis.legend(fontsize=7, ncols=len(series), loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False)


def plot_scores(found: dict[str, Any], title: str, path: Path) -> None:
    """Draw the figures of `scores`, a group of bars for each name."""
    made, axes = figure(width=2 + 1.2 * len(found))
    names = [name.replace("*", "\n× ") for name in found]
    bars(
        axes[0, 0], names, {label: [score[key] for score in found.values()] for key, label in FIGURES.items()}
    )
    axes[0, 0].set(title=title)
    save(made, path)


def save(made: Any, path: Path) -> None:
    """Write a figure and free it."""
    import matplotlib.pyplot as plt

    made.savefig(path, dpi=100)
    plt.close(made)
    print(path)
