"""How long an inspection takes with each engine: PyTorch, and the runtimes on the graphs of the model file.

    python bench/experiments/engines.py MODEL [--before MODEL] [--size 512x512] [--rounds 8] [--out FOLDER]

MODEL has graphs; those of --before, of the same network, are timed beside them. One noisy picture in memory, medians
over rounds in which all take turns: of the time that passed, and of the processors' time, which tells more where others
compute, too. Nothing is written if an engine's score is not PyTorch's. Writes engines.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import common
import numpy as np
import record
import rows

import fmrnet
from fmrnet.engines.choice import ENGINES
from fmrnet.engines.runtimes import RUNTIMES, threads

LEVELS = ("patch", "pixel")


def main() -> None:
    """Read the command line, compare the scores, time in turns, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--size", default="512x512", help="HEIGHTxWIDTH")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    given = parser.parse_args()
    inspectors = {name: fmrnet.load(given.model, "cpu", engine=name) for name in ENGINES}
    model = inspectors["torch"].model
    if given.before is not None:
        inspectors |= {f"{name} before": fmrnet.load(given.before, "cpu", engine=name) for name in RUNTIMES}
    noise = np.random.default_rng(0).normal(0, 1, (*common.size_of(given.size), model.config.image_channels))
    picture = (noise * model.std.numpy() + model.mean.numpy()).clip(0, 1).astype(np.float32)
    for level in LEVELS:
        scores = {name: one.inspect(picture, level).score for name, one in inspectors.items()}
        if not np.allclose(list(scores.values()), scores["torch"], rtol=1e-3):
            raise SystemExit(f"the engines do not agree at level {level}: {scores}")
    seconds: dict[str, dict[str, list[tuple[float, float]]]] = {
        name: {level: [] for level in LEVELS} for name in inspectors
    }
    for _ in range(given.rounds):
        for name, inspector in inspectors.items():
            for level in LEVELS:
                before = time.perf_counter(), time.process_time()
                inspector.inspect(picture, level)
                after = time.perf_counter(), time.process_time()
                seconds[name][level].append((after[0] - before[0], after[1] - before[1]))
    medians, processors = (
        {
            name: {
                level: round(statistics.median(one[kind] for one in values), 4)
                for level, values in levels.items()
            }
            for name, levels in seconds.items()
        }
        for kind in range(2)
    )
    load = round(os.getloadavg()[0], 1)
    about = {
        "threads": threads(),
        "load": load,
        "size": given.size,
        "channels": model.config.image_channels,
        "tile": model.config.tile,
    }
    rows.write(
        given.out / "engines.json",
        record.record() | about | {"seconds": medians, "processor_seconds": processors},
    )
    print(*(f"{name:20} {levels}" for name, levels in processors.items()), sep="\n")


if __name__ == "__main__":
    common.command(main)
