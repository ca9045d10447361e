"""What counting and resampling take: memory and time of `fmrnet evaluate`'s figures over synthetic maps.

    python bench/experiments/evaluation.py [--pictures 1000] [--side 1024]

Half of the maps have a defect, and scores span eight powers of two; inspection itself is left out. Writes
evaluation-memory.json to bench/results/: how far the greatest memory of the process grew, and seconds.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import common
import numpy as np
import record
import rows

from fmrnet.evaluation.figures import pixel_figures
from fmrnet.evaluation.metrics import Histogram, PixelCounts


def main() -> None:
    """Read the command line, count, resample, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="where results are written")
    given = parser.parse_args()
    rng, before = np.random.default_rng(0), peak()
    counts, started = PixelCounts(), time.perf_counter()
    good: list[Histogram] = []
    defective: list[Histogram] = []
    for number in range(given.pictures):
        scores = np.exp2(-8 * rng.random((given.side, given.side), np.float32))
        truth = np.zeros(scores.shape, np.bool_)
        if number % 2:
            row, column = rng.integers(0, given.side * 3 // 4, 2)
            truth[row : row + given.side // 4, column : column + given.side // 8] = True
            scores[truth] *= np.float32(4)
        (defective if number % 2 else good).append(counts.add(scores, scores > 0.5, truth))
    counted = time.perf_counter() - started
    figures, _ = pixel_figures(counts, good, defective)
    found = {
        "pictures": given.pictures,
        "side": given.side,
        "megabytes": round(peak() - before, 1),
        "counting_seconds": counted,
        "resampling_seconds": time.perf_counter() - started - counted,
        "figures": {name: figures[name] for name in figures["doubt"]},
        "doubt": figures["doubt"],
        "record": record.record(),
    }
    rows.write(given.out / "evaluation-memory.json", found)
    print(rows.text(found))


def peak() -> float:
    """The greatest memory of this process until now, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
