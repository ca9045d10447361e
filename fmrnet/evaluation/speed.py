"""How fast one engine inspects on this machine, in a process of its own, so that the memory measured is its own.

    python -m fmrnet.evaluation.speed < REQUEST > FOUND

REQUEST is the keyword arguments of `measured` as JSON, FOUND what it returns, or {"error": LINE}.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray

from fmrnet.errors import FmrnetError, is_out_of_memory
from fmrnet.evaluation.energy import joules_between, readings
from fmrnet.extras import explained

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector, Level

__all__ = ["LEVELS", "apart", "measured"]

LEVELS: tuple[Level, ...] = ("patch", "auto", "pixel")
LEAST = 5  # inspections of each level, however long they take
SIDE, TEXTURES = 512, 4  # of the pictures that are drawn where none are given, and how many
COMPARED = 50  # pictures whose scores are kept


def measured(
    *, model: str, engine: str, device: str, pictures: Sequence[str], budget: float, bits: int | None = None
) -> dict[str, Any]:
    """Load a model, inspect pictures in turn at each level, and say how long it took.

    Parameters
    ----------
    model : a model file with a calibration.
    engine, device : as `fmrnet.load` takes them.
    pictures : picture files, read anew for each inspection. Default: textures of SIDE pixels a side, in memory.
    budget : seconds of inspecting for each level.
    bits : as `Inspector.bits`.

    Returns
    -------
    `engine`, `threads`, `first_verdict_seconds` (from the start of the process to the end of the first inspection, at
    level patch), and `levels`: of each `inspections`, `p50_seconds`, `p99_seconds`, `pictures_per_second`,
    `megapixels_per_second`, `left_early` (a share), `suspect` (at level auto the share of patches, of pictures that
    stayed, that kept them from leaving; None where none stayed), `resident_megabytes` at its end, `watts` (of the
    processors; None where they do not tell) and `scores` of up to COMPARED pictures.

    Raises
    ------
    FmrnetError : as `fmrnet.load` and `Inspector.inspect`.
    """
    import fmrnet
    from fmrnet.engines.runtimes import threads

    inspector = fmrnet.load(model, device, engine=engine)
    if bits is not None:
        inspector.bits = bits
    given: Sequence[str | NDArray[np.float32]] = pictures or [
        _texture(inspector, seed) for seed in range(TEXTURES)
    ]
    inspector.inspect(given[0], "patch")
    process = psutil.Process()
    return {
        "engine": inspector.engine.name,
        "threads": threads(),
        "first_verdict_seconds": round(time.time() - process.create_time(), 3),
        "levels": {level: _measured(inspector, given, level, budget, process) for level in LEVELS},
    }


def _measured(
    inspector: Inspector,
    pictures: Sequence[str | NDArray[np.float32]],
    level: Level,
    budget: float,
    process: psutil.Process,
) -> dict[str, Any]:
    inspector.inspect(pictures[0], level)  # what a first time prepares is not counted
    seconds: list[float] = []
    scores: list[float] = []
    suspect: list[float] = []
    pixels = early = 0
    before, started = readings(), time.perf_counter()
    while len(seconds) < LEAST or time.perf_counter() - started < budget:
        number = len(seconds) % len(pictures)
        begun = time.perf_counter()
        result = inspector.inspect(pictures[number], level)
        seconds.append(time.perf_counter() - begun)
        pixels += math.prod(result.look.size)
        early += result.level == "patch"
        if level == "auto" and result.level == "pixel":
            suspect.append(float(inspector.calibration.suspect(result.patch_p_values).mean()))
        if len(seconds) <= min(len(pictures), COMPARED):
            scores.append(result.score)
    whole = time.perf_counter() - started
    joules = joules_between(before, readings())
    return {
        "inspections": len(seconds),
        "p50_seconds": _digits(np.quantile(seconds, 0.5)),
        "p99_seconds": _digits(np.quantile(seconds, 0.99)),
        "pictures_per_second": _digits(len(seconds) / whole),
        "megapixels_per_second": _digits(pixels / whole / 1e6),
        "left_early": _digits(early / len(seconds)),
        "suspect": _digits(np.mean(suspect)) if suspect else None,
        "resident_megabytes": round(process.memory_info().rss / 1e6),
        "watts": None if joules is None else _digits(joules / whole),
        "scores": scores,
    }


def _digits(number: float | np.floating[Any]) -> float:
    return float(f"{number:.4g}")


def _texture(inspector: Inspector, seed: int) -> NDArray[np.float32]:
    from fmrnet.evaluation.agreement import texture

    return texture(inspector.config.image_channels, seed, SIDE)


def apart(**request: Any) -> dict[str, Any]:
    """`measured` in a process of its own; what is wrong there comes as {"error": a line}."""
    command = [sys.executable, "-m", "fmrnet.evaluation.speed"]
    ended = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    if ended.returncode:
        last = (ended.stderr.strip() or f"the process ended with {ended.returncode}").splitlines()[-1]
        return {"error": last}
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def main() -> None:
    """Read the request, measure, write what was found."""
    request = json.load(sys.stdin)
    try:
        found = measured(**request)
    except FmrnetError as error:
        found = {"error": str(error)}
    except ModuleNotFoundError as error:
        found = {"error": str(explained(error))}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        found = {"error": "not enough memory for a picture of this size; cut it into pieces"}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
