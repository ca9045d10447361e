"""What large pictures take: seconds and memory of panels and strips, and how far tiles agree with the whole picture.

    python bench/experiments/panels.py MODEL PICTURE [--engine onnxruntime] [--out FOLDER]

The picture is laid out, mirrored, to the sizes below. Each size is inspected in tiles, as it is, and whole, each in a
process of its own, which is to have one thread (OMP_NUM_THREADS=1). Writes panels.json: nanoseconds of processor time a
pixel at either level, the process's greatest resident memory, score and p-value.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import common
import numpy as np
import record
import rows
from numpy.typing import NDArray

import fmrnet
from fmrnet.engines import tiles
from fmrnet.pictures import read_picture

SIZES = ((512, 512), (2560, 3840), (256, 20_000))
WHOLE = 2**40  # pixels: no picture is cut
STATUS = Path("/proc/self/status")


def main() -> None:
    """Read the command line, inspect each size in a process of its own, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)  # height, width, whether whole
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.model, given.picture, given.engine, *given.one)))
        return
    found = []
    for (height, width), whole in product(SIZES, (0, 1)):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", *map(str, (height, width, whole))]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        print(found[-1], flush=True)
    rows.write(given.out / "panels.json", record.record() | {"engine": given.engine, "rows": found})


def measure(model: Path, picture: Path, engine: str, height: int, width: int, whole: int) -> dict[str, Any]:
    """One size in this process, in tiles or whole."""
    inspector = fmrnet.load(model, "cpu", engine=engine)
    laid = layout(read_picture(picture), height, width)
    inspector.inspect(laid[:256, :256])
    tiles.PIXELS = WHOLE if whole else tiles.PIXELS
    row: dict[str, Any] = {"height": height, "width": width, "way": "whole" if whole else "tiles"}
    for level in ("patch", "pixel"):
        started = time.process_time()
        found = inspector.inspect(laid, level)
        row[f"{level}_ns_a_pixel"] = round((time.process_time() - started) / laid.size * 1e9)
    return row | {
        "greatest_mb": round(resident() / 1e6),
        "score": round(found.score, 6),
        "p_value": float(f"{found.p_value:.5g}"),
    }


def layout(picture: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A picture (H, W), mirrored over and over, of another size."""
    missing = [max(length - side, 0) for length, side in zip((height, width), picture.shape)]
    return np.pad(picture, [(0, more) for more in missing], mode="symmetric")[:height, :width]


def resident() -> int:
    """The most memory that this process has had, in bytes."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return 1024 * int(lines["VmHWM"].split()[0])


if __name__ == "__main__":
    main()
