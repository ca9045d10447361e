"""How long an inspection takes with each engine: PyTorch, and the runtimes on the graphs of the model file.

    python bench/experiments/engines.py MODEL [--before MODEL] [--pictures FOLDER] [--size 512x512] [--rounds 8]

MODEL has graphs; those of --before, of the same network, are timed beside them. One noisy picture in memory, medians
over rounds in which all take turns: of the time that passed, and of the processors' time, which tells more where others
compute, too. With --pictures, level auto is held beside the others on up to MOST pictures of the surface: how many
leave early, and what those take that stay with less than FEW of their patches suspect. Nothing is written if an
engine's score is not PyTorch's. Writes engines.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import record
import rows

import fmrnet
from fmrnet.engines.choice import ENGINES
from fmrnet.engines.runtimes import RUNTIMES, threads
from fmrnet.inspection.inspector import Inspector
from fmrnet.listing import list_pictures

LEVELS = ("patch", "pixel")
MOST = 16  # pictures of the surface, from all of the folder
FEW = 0.02  # of a picture's patches


def main() -> None:
    """Read the command line, compare the scores, time in turns, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--pictures", type=Path)
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
    surface = {} if given.pictures is None else on_surface(inspectors, list_pictures([given.pictures]))
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
        record.record() | about | {"seconds": medians, "processor_seconds": processors} | surface,
    )
    print(*(f"{name:20} {levels}" for name, levels in processors.items()), sep="\n")
    for name, told in surface.items():
        print(f"{name}: {told}")


def on_surface(inspectors: dict[str, Inspector], paths: list[Path]) -> dict[str, Any]:
    """What level auto takes beside the others, by engine, of the pictures in which little is suspect.

    The processors' seconds are medians over these pictures, and `times` is that of auto over patch, picture by picture.
    """
    levels = ("patch", "auto", "pixel")
    seconds: dict[str, list[list[float]]] = {name: [] for name in inspectors}
    early = changed = 0
    suspect: list[float] = []
    chosen = [paths[number * len(paths) // MOST] for number in range(MOST)] if len(paths) > MOST else paths
    for path in chosen:
        first = inspectors["torch"].inspect(path, "auto")
        share = float(inspectors["torch"].calibration.suspect(first.patch_p_values).mean())
        if first.level == "patch":
            early += 1
        elif share < FEW:
            suspect.append(share)
        for name, inspector in inspectors.items():
            taken, verdicts = [], []
            for level in levels:
                before = time.process_time()
                verdicts.append(inspector.inspect(path, level).defective)
                taken.append(time.process_time() - before)
            changed += verdicts[1] != verdicts[2]
            if first.level == "pixel" and share < FEW:
                seconds[name].append(taken)
    about = {
        "pictures": len(chosen),
        "left_early": early,
        "little_suspect": len(suspect),
        "suspect": round(statistics.mean(suspect), 4) if suspect else None,
        "verdicts_not_those_of_pixel": changed,
    }
    if not suspect:
        return {"surface": about}
    rows_of = {
        name: {
            level: round(statistics.median(one[at] for one in taken), 4) for at, level in enumerate(levels)
        }
        | {"times": round(statistics.median(one[1] / one[0] for one in taken), 3)}
        for name, taken in seconds.items()
    }
    return {"surface": about, "surface_processor_seconds": rows_of}


if __name__ == "__main__":
    common.command(main)
