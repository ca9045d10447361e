"""What verdicts promise and what they keep: on drawn readings of known laws, and on real good pictures.

    python bench/experiments/verdicts.py [NAME=DATASET ...] --models FOLDER

Each NAME=DATASET is a folder in the MVTec layout, NAME.fmr in FOLDER its model. Writes verdicts.json and verdicts.png
to bench/results/. As trained: what share of defective and of good test pictures each level flags at several rates of
false alarms, what leaves at the early exit and is lost there, how well masks meet the truth. Split anew SPLITS times:
of the good pictures that training has not seen, held-out and test, some are calibrated on and the others judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import fmrnet
from fmrnet.evaluation.examples import GOOD
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.evaluation.metrics import Confusion
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.inspector import Inspector
from fmrnet.progress import Bar

RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
RATE = 0.05
COUNTS = (3, 5, 8, 16, 19, 32, 48)  # good pictures to calibrate on
SPLITS = 1000
JUDGED = 200  # of drawn pictures after each calibration
Readings = NDArray[np.float64]  # (pictures, K)


def main() -> None:
    """Read the command line, measure what is not done yet, draw."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("datasets", nargs="*", metavar="[NAME=]FOLDER")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = common.Results(given.out / "verdicts.json", {"rate": RATE, "splits": SPLITS})
    for law, draw in LAWS.items():
        results.part(f"drawn, {law}", lambda draw=draw: {"false_alarms": drawn(draw)})
    with Bar() as bar:
        for entry in given.datasets:
            name, _, folder = entry.rpartition("=")
            name = name or Path(folder).resolve().name
            inspector = fmrnet.load(given.models / f"{name}.fmr")
            results.part(name, lambda i=inspector, f=Path(folder), n=name: measure(i, f, bar, n))
    plot(results.content["parts"], given.out / "verdicts.png")


def normal(generator: np.random.Generator, count: int) -> Readings:
    """Logarithms normal, six readings that have half of their variance in common."""
    shape = (count, 6)
    return np.exp(0.15 * generator.normal(size=(count, 1)) + 0.15 * generator.normal(size=shape))


def heavy(generator: np.random.Generator, count: int) -> Readings:
    """Pareto: one good picture in a hundred is ten times as loud as the typical one."""
    return (1 + generator.pareto(2, (count, 1))) * (1 + generator.pareto(4, (count, 6)))


def blocks(generator: np.random.Generator, count: int) -> Readings:
    """The greatest of 64 patches, neighbours alike, of pictures that are a little louder or less loud as a whole."""
    loud = np.exp(0.1 * generator.normal(size=(count, 1)))
    rough = generator.gumbel(1, 0.3, (count, 4, 6)).max(1)
    return loud * np.maximum(rough + generator.gumbel(0, 0.05, (count, 16, 6)).max(1), 0.01)


LAWS: dict[str, Callable[[np.random.Generator, int], Readings]] = {
    "normal logarithms": normal,
    "heavy tails": heavy,
    "greatest of dependent blocks": blocks,
}


def drawn(draw: Callable[[np.random.Generator, int], Readings]) -> dict[str, dict[str, float]]:
    """Realised false alarms by number of pictures calibrated on and by rate, the mean of SPLITS calibrations."""
    found = {}
    for count in COUNTS:
        generator = np.random.default_rng(count)
        realised = []
        for _ in range(SPLITS):
            readings = draw(generator, count + JUDGED)
            good = scores_of(readings[:count])
            surprises = good.surprise(readings[count:].T)
            realised.append([(surprises > good.threshold(rate)).mean() for rate in RATES])
        found[str(count)] = dict(zip(map(str, RATES), np.mean(realised, axis=0).round(5).tolist()))
    return found


def scores_of(readings: Readings, learnt: tuple[tuple[float, ...], ...] = ()) -> GoodScores:
    """What good pictures with these readings say."""
    return GoodScores(tuple(map(tuple, readings.tolist())), learnt)


def measure(inspector: Inspector, dataset: Path, bar: Bar, label: str) -> dict[str, Any]:
    """The figures of one set."""
    calibration, engine = inspector.calibration, inspector.engine
    pixel, patch, defective, masks = [], [], [], []
    examples = load_dataset(dataset).examples
    for done, example in enumerate(examples):
        bar.show(label, done, len(examples))
        seen = engine.glance(inspector._picture(example.picture))
        found = engine.compare(seen)
        pixel.append(found.readings.max((1, 2)).astype(np.float64))
        patch.append(seen.readings.max((1, 2)).astype(np.float64))
        defective.append(example.defect != GOOD)
        truth = example.truth(found.anomaly_map.shape)
        masks.append(None if truth is None else (calibration.mask(found), truth))
    bad, readings = np.array(defective), {"pixel": np.array(pixel), "patch": np.array(patch)}
    scores = {"pixel": calibration.picture, "patch": calibration.patch}
    surprises = {level: good.surprise(readings[level].T) for level, good in scores.items()}
    p_values = {level: good.p_values(surprises[level]) for level, good in scores.items()}
    confusion, marked = Confusion(), any(pair is not None and pair[1].any() for pair in masks)
    for pair, p in zip(masks, p_values["pixel"], strict=True):
        if pair is not None:
            confusion.add(pair[0] if p <= RATE else np.zeros_like(pair[0]), pair[1])
    settled = p_values["patch"] > max(calibration.early_exit.level(RATE), RATE)
    flagged = p_values["pixel"] <= RATE
    return {
        "pictures": {
            "good": int((~bad).sum()),
            "defective": int(bad.sum()),
            "held_out": calibration.pictures,
        },
        "promise": calibration.at(RATE).promise,
        "picture_roc_auc": {level: common.roc_auc(found, bad) for level, found in surprises.items()},
        "flagged": {
            level: {str(rate): shares(p <= rate, bad) for rate in RATES} for level, p in p_values.items()
        },
        "early_exit": {
            "promise": calibration.at(RATE).exit_promise,
            "left": shares(settled, bad),
            "lost_of_flagged": float((settled & flagged)[bad].sum() / max(flagged[bad].sum(), 1)),
        },
        "mask": confusion.figures() if marked else dict.fromkeys(("precision", "recall", "f1")),
        "split_anew": split_anew(calibration.picture, readings["pixel"], bad),
    }


def shares(decisions: NDArray[np.bool_], bad: NDArray[np.bool_]) -> dict[str, float | None]:
    """Of defective and of good pictures."""
    groups = {"defective": decisions[bad], "good": decisions[~bad]}
    return {name: round(float(group.mean()), 4) if group.size else None for name, group in groups.items()}


def split_anew(good: GoodScores, readings: Readings, bad: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Realised false alarms and the share of defects found at RATE, by number of pictures calibrated on."""
    unseen = np.concatenate([np.array(good.held_out), readings[~bad]])
    found = {}
    for count in (count for count in COUNTS if count <= len(unseen) - 10):
        realised = []
        for seed in range(SPLITS):
            order = np.random.default_rng(seed).permutation(len(unseen))
            fresh = replace(scores_of(unseen[order[:count]]), learnt=good.learnt)
            groups = (unseen[order[count:]], readings[bad])
            realised.append([(fresh.surprise(group.T) > fresh.threshold(RATE)).mean() for group in groups])
        means = np.mean(realised, axis=0).round(4).tolist()
        found[str(count)] = dict(zip(("false_alarms", "found"), means))
    return found


def plot(parts: dict[str, Any], target: Path) -> None:
    """Realised against promised rates: drawn readings by rate, real ones by number of pictures calibrated on."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    left.plot((0, 0.2), (0, 0.2), color="0.6", linewidth=1)
    for name, part in parts.items():
        if name.startswith("drawn"):
            for count, marker in (("5", "o"), ("19", "s"), ("48", "^")):
                of_rate = part["false_alarms"][count]
                rates = [float(rate) for rate in of_rate]
                left.plot(rates, list(of_rate.values()), marker, label=f"{name[7:]}, {count}", alpha=0.7)
        elif part["split_anew"]:
            counts = [int(count) for count in part["split_anew"]]
            values = [entry["false_alarms"] for entry in part["split_anew"].values()]
            right.plot(counts, values, "o-", label=name, linewidth=1)
    right.axhline(RATE, color="0.6", linewidth=1)
    left.set(
        xlabel="rate asked for",
        ylabel="realised false alarms",
        title="drawn readings; pictures calibrated on",
    )
    right.set(
        xlabel="good pictures calibrated on", ylim=(0, None), title=f"real good pictures, rate {RATE:g}"
    )
    for axis in (left, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    common.command(main)
