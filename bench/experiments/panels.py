"""What large pictures take: seconds and memory of panels and strips, and how far tiles agree with the whole picture.

    python bench/experiments/panels.py MODEL PICTURE [--engine onnxruntime] [--out FOLDER] [--side 20000 --level patch]

The picture is laid out, mirrored, to the sizes below. Each size is inspected in tiles, as it is, and whole, each in a
process of its own, which is to have one thread (OMP_NUM_THREADS=1). Writes panels.json: nanoseconds of processor time a
pixel at either level, the process's greatest resident memory, score and p-value.

With --side one panel of so many pixels a side is laid out into a TIFF file in tiles, deflated, and `fmrnet inspect`
inspects it into a report at one level, as one process that may take LIMIT bytes of data (RLIMIT_DATA). Writes
large_panel.json: its greatest memory that cannot be given back (RssAnon), seconds, seconds of processor time, score.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import common
import numpy as np
import record
import rows
import tifffile
from numpy.typing import NDArray

import fmrnet
from fmrnet.engines import tiles
from fmrnet.pictures import read_picture

SIZES = ((512, 512), (2560, 3840), (256, 20_000), (4096, 6144))
LIMIT = 10**9  # bytes
BAND = 512  # rows of a panel that are laid out at once
WHOLE = 2**40  # pixels: no picture is cut


def main() -> None:
    """Read the command line, inspect each size in a process of its own, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    parser.add_argument("--side", type=int)
    parser.add_argument("--level", default="patch")
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)  # height, width, whether whole
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.model, given.picture, given.engine, *given.one)))
        return
    if given.side:
        with tempfile.TemporaryDirectory() as folder:
            row = inspect_panel(
                given.model, given.picture, given.engine, given.side, given.level, Path(folder)
            )
        print(row)
        rows.write(given.out / "large_panel.json", record.record() | {"engine": given.engine, "row": row})
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


def inspect_panel(
    model: Path, picture: Path, engine: str, side: int, level: str, folder: Path
) -> dict[str, Any]:
    """One large panel, as a user inspects it."""
    file, strip = folder / "panel.tif", np.round(255 * read_picture(picture)).astype(np.uint8)
    bands = (layout_rows(strip, row, side) for row in range(0, side, BAND))
    tiles_of = (
        np.pad(band[:, start : start + BAND], ((0, BAND - len(band)), (0, max(start + BAND - side, 0))))
        for band in bands
        for start in range(0, side, BAND)
    )
    tifffile.imwrite(
        file, tiles_of, shape=(side, side), dtype=np.uint8, tile=(BAND, BAND), compression="deflate"
    )
    command = [sys.executable, "-m", "fmrnet", "inspect", str(model), str(file), "--engine", engine]
    command += ["--level", level, "--out", str(folder / "report"), "--quiet"]
    started, most = time.perf_counter(), 0
    child = subprocess.Popen(
        command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    )
    while child.poll() is None:
        most = max(most, status(f"/proc/{child.pid}/status").get("RssAnon", 0))
        time.sleep(0.05)
    line = json.loads((folder / "report" / "report.json").read_text())["pictures"][0]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **{"height": side, "width": side, "level": line["level"], "limit_mb": round(LIMIT / 1e6)},
        "unreclaimable_mb": round(most / 1e6),
        "seconds": round(time.perf_counter() - started),
        "processor_seconds": round(used.ru_utime + used.ru_stime),
        **{name: line[name] for name in ("score", "p_value", "defect_count")},
    }


def layout_rows(strip: NDArray[np.uint8], row: int, side: int) -> NDArray[np.uint8]:
    """BAND rows, or what there is, of a strip (H, W) that is mirrored over and over to `side` x `side`."""
    places = (
        np.abs((np.arange(start, stop) + length) % (2 * length) - length)
        for start, stop, length in ((row, min(row + BAND, side), len(strip)), (0, side, strip.shape[1]))
    )
    rows_of, columns = (np.minimum(place, length - 1) for place, length in zip(places, strip.shape))
    found: NDArray[np.uint8] = strip[np.ix_(rows_of, columns)]
    return found


def status(path: str) -> dict[str, int]:
    """The sizes that Linux tells of a process, in bytes, by name; none once it has ended."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines() if line.endswith(" kB")]
    except OSError:
        return {}
    return {name.rstrip(":"): 1024 * int(size) for name, size, _ in lines}


def layout(picture: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A picture (H, W), mirrored over and over, of another size."""
    missing = [max(length - side, 0) for length, side in zip((height, width), picture.shape)]
    return np.pad(picture, [(0, more) for more in missing], mode="symmetric")[:height, :width]


def resident() -> int:
    """The most memory that this process has had, in bytes."""
    return status("/proc/self/status")["VmHWM"]


if __name__ == "__main__":
    main()
