"""After how many pictures a drift is told, and how often one is told that is none (not in the paper).

    python bench/experiments/drift.py NAME=DATASET:GOOD ... [--scores NAME ...] [--orders 15] [--draws 1000]

Of each set's good pictures, in the MVTec layout, GOOD are drawn at random to compare with, and others are spoilt: a
first 5, 10, 15, ... of them are asked for a drift, until one is told; the median over orders. Looks alone are compared,
from all good pictures; for the sets named by --scores the early exit's scores, too, by a model of the preset instant,
and then GOOD are drawn from the held-out and the good test pictures. False rates are of batches of the greatest size:
of good pictures not spoilt, of the same with a quarter of defective ones, and of neighbours in the set's own order,
which are alike. Writes drift.json.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

import fmrnet
from fmrnet.config import preset
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.inspection.drift import FALSE_RATE, Drift, drift
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.limits import Look, look
from fmrnet.learning import data
from fmrnet.pictures import read_picture
from fmrnet.progress import Bar

SIZES = (5, 10, 15, 20, 30, 40, 60, 80)
STEP = 5  # pictures from one run of neighbours to the next
Spoil = Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]


def scaled(picture: NDArray[np.float32], times: float) -> NDArray[np.float32]:
    """A picture (H, W, C) of so many times the height and width."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    size = [round(side * times) for side in picture.shape[:2]]
    found = torch.nn.functional.interpolate(tensor, size, mode="bicubic", antialias=True)
    return found[0].permute(1, 2, 0).numpy()


SPOILS: dict[str, Spoil] = {
    **{f"brightness x{f:g}": lambda p, _, f=f: p * f for f in (0.8, 0.9, 1.1, 1.25)},
    **{
        f"contrast x{f:g}": lambda p, _, f=f: (p - p.mean((0, 1))) * f + p.mean((0, 1))
        for f in (0.8, 0.9, 1.1, 1.25)
    },
    **{f"blur, sigma {s:g}": lambda p, _, s=s: ndimage.gaussian_filter(p, (s, s, 0)) for s in (0.5, 1, 2)},
    **{f"scale x{f:g}": lambda p, _, f=f: scaled(p, f) for f in (0.8, 0.9, 1.1, 1.25)},
    **{f"noise, sd {s:g}": lambda p, draw, s=s: p + draw.normal(0, s, p.shape) for s in (0.01, 0.03)},
}


@dataclass(frozen=True)
class Seen:
    """What inspecting a picture leaves for the test; a score of 0 where there is no model."""

    look: Look
    score: float


def main() -> None:
    """Read the command line, measure each set, write, print a table."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("datasets", nargs="+", metavar="NAME=FOLDER:GOOD")
    parser.add_argument("--scores", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--orders", type=int, default=15)
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args()
    about = {"false_rate": FALSE_RATE, "orders": given.orders, "draws": given.draws, "sizes": SIZES}
    results = common.Results(given.out / "drift.json", about)
    pools: dict[tuple[str, bool], dict[str, list[Seen]]] = {}
    with Bar() as bar:
        for entry in given.datasets:
            name, _, rest = entry.partition("=")
            folder, _, count = rest.rpartition(":")
            with_scores = name in given.scores

            def measure(name=name, folder=Path(folder), count=int(count), with_scores=with_scores):
                if (name, with_scores) not in pools:
                    pools[name, with_scores] = inspected(folder, with_scores, bar)
                return figures(pools[name, with_scores], count, with_scores, given.orders, given.draws, bar)

            results.part(f"{name}, {count} good{' and scores' if with_scores else ''}", measure)
    print(table(results.content["parts"]))


def inspected(folder: Path, with_scores: bool, bar: Bar) -> dict[str, list[Seen]]:
    """The set's good pictures as they are and spoilt each way, and its defective ones: see SPOILS."""
    examples = load_dataset(folder).examples
    train = [str(file) for file in data.good_files(folder)]
    good = [str(example.picture) for example in examples if example.good]
    inspector = instant(folder) if with_scores else None
    good = [*(data.hold_out_names(train)[1] if with_scores else train), *good]
    ways: dict[str, Spoil] = {"none": lambda picture, _: picture, **SPOILS}
    found: dict[str, list[Seen]] = {}
    for number, (way, spoil) in enumerate(ways.items()):
        bar.show(f"inspecting {folder.name}", number, len(ways))
        found[way] = [see(inspector, file, spoil, np.random.default_rng(n)) for n, file in enumerate(good)]
    defective = [str(example.picture) for example in examples if not example.good]
    found["defective"] = [see(inspector, file, ways["none"], np.random.default_rng(0)) for file in defective]
    return found


def instant(folder: Path) -> Inspector:
    """A model of the preset instant."""
    with tempfile.TemporaryDirectory() as made:
        return fmrnet.train(folder, Path(made) / "instant.fmr", config=preset("instant"))


def see(inspector: Inspector | None, file: str, spoil: Spoil, draw: np.random.Generator) -> Seen:
    """What a picture looks like and scores, spoilt and brought to 8 bits."""
    picture = read_picture(file)
    picture = picture if picture.ndim == 3 else picture[:, :, None]
    spoilt = np.round(np.clip(spoil(picture, draw), 0, 1) * 255).astype(np.float32) / 255
    pixels = np.ascontiguousarray(spoilt.transpose(2, 0, 1))
    score = 0.0 if inspector is None else float(inspector.engine.glance(pixels).readings[0].max())
    return Seen(look(pixels), score)


def compare(good: Sequence[Seen], batch: Sequence[Seen], with_scores: bool) -> Drift:
    """Drift of a batch from good pictures, with their scores or without."""
    level = good[0].look.level
    known = SimpleNamespace(
        looks=tuple(seen.look for seen in good),
        patch=GoodScores(tuple((s.score,) for s in good))
        if with_scores
        else GoodScores((), parts=2.0),  # of parts, which are not compared
        limits=SimpleNamespace(level=level),
    )
    return drift(known, [seen.look for seen in batch], [seen.score for seen in batch])  # type: ignore[arg-type]


def figures(
    pool: dict[str, list[Seen]], count: int, with_scores: bool, orders: int, draws: int, bar: Bar
) -> dict[str, Any]:
    """After how many pictures each way of spoiling is told, by median, and the share told of good batches."""
    draw = np.random.default_rng(0)
    good, defective = pool["none"], pool["defective"]
    sizes = [size for size in SIZES if size <= len(good) - count]
    most = sizes[-1]

    def split() -> tuple[list[Seen], list[int]]:
        order = draw.permutation(len(good))
        return [good[i] for i in order[:count]], [int(i) for i in order[count : count + most]]

    told = {}
    for number, way in enumerate(SPOILS):
        bar.show(f"drifts, {count} good", number, len(SPOILS))
        each = []
        for _ in range(orders):
            known, others = split()
            batch = [pool[way][i] for i in others]
            each.append(next((n for n in sizes if compare(known, batch[:n], with_scores).drifted), 10 * most))
        median = statistics.median_low(sorted(each))
        told[way] = {
            "pictures": median if median <= most else None,
            "told_in_all": float(np.mean(np.array(each) <= most)),
        }

    def share(defects: int) -> float:
        found = []
        for _ in range(draws):
            known, others = split()
            batch = [good[i] for i in others[: most - defects]]
            batch += [defective[int(i)] for i in draw.integers(len(defective), size=defects)]
            found.append(compare(known, batch, with_scores).drifted)
        return float(np.mean(found))

    neighbours = []
    for start in range(0, len(good) - most + 1, STEP):
        others = [*good[:start], *good[start + most :]]
        chosen = draw.permutation(len(others))[:count]
        neighbours.append(
            compare([others[i] for i in chosen], good[start : start + most], with_scores).drifted
        )
    return {
        "good": count,
        "batch": most,
        "false_rate": {"good": share(0), "a_quarter_defective": share(most // 4)},
        "in_order": {"batches": len(neighbours), "told": float(np.mean(neighbours))},
        "told_after": told,
    }


def table(parts: dict[str, dict[str, Any]]) -> str:
    """A Markdown table, a line a way of spoiling."""
    lines = ["| | " + " | ".join(parts) + " |", "|---" * (len(parts) + 1) + "|"]
    for way in SPOILS:
        after = [part["told_after"][way]["pictures"] for part in parts.values()]
        lines.append(f"| {way} | " + " | ".join("-" if n is None else str(n) for n in after) + " |")
    for label, of in (
        ("false rate", lambda part: part["false_rate"]["good"]),
        ("the same, a quarter defective", lambda part: part["false_rate"]["a_quarter_defective"]),
        ("neighbours", lambda part: part["in_order"]["told"]),
    ):
        lines.append(f"| {label} | " + " | ".join(f"{of(part):.3g}" for part in parts.values()) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    common.command(main)
