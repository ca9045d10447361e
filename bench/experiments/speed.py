"""How long a picture takes: today's version beside an earlier one and beside peers, all in turn in one run.

    python bench/experiments/speed.py GOOD [--before COMMIT] [--peers PYTHON] [--size 512] [--rounds 8] [--out FOLDER]

GOOD is a folder of good pictures. From them `edge` and `general` are trained for a few steps, and by the version of
COMMIT its own `edge`: a picture takes a model as long as it would after a whole training. PYTHON is an interpreter with
`pip install 'anomalib[cpu,openvino]==2.7.0'`; its PatchCore, PaDiM (both with ResNet-18, PatchCore with a tenth of the
good pictures' features in its bank) and EfficientAD-S are exported to OpenVINO, with random weights where anomalib
would fetch trained ones.

Each version and each peer lives in a process of its own (`speed_worker.py`), idle but when it is asked. A picture is a
float array in memory, and time ends with its map and score; of ours a verdict is made, too. Writes speed.json: medians
in seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common
import record
import rows

from fmrnet.engines.runtimes import threads

WORKER = Path(__file__).with_name("speed_worker.py")
BEFORE = (
    "4ad703e034"  # the last one before pictures were passed at once and runtimes other than PyTorch served
)


def main() -> None:
    """Read the command line, start the workers, time in turns, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("good", type=Path)
    parser.add_argument("--before", metavar="COMMIT", default=BEFORE)
    parser.add_argument("--peers", metavar="PYTHON", help="default: none are timed")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        earlier = installed(given.before, Path(folder) / "before")
        workers = [
            Worker("today", [sys.executable], given, folder),
            Worker("before", [sys.executable], given, folder, {"PYTHONPATH": str(earlier)}),
        ]
        if given.peers:
            workers.append(Worker("peers", [given.peers], given, folder))
        seconds: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            for worker in workers:
                for way in worker.ways:
                    seconds.setdefault(way, []).append(worker.timed(way))
        for worker in workers:
            worker.process.terminate()
    medians = {way: round(statistics.median(taken), 4) for way, taken in seconds.items()}
    load = round(os.getloadavg()[0], 1)
    about = {"before": given.before, "size": given.size, "channels": 3, "threads": threads(), "load": load}
    rows.write(given.out / "speed.json", record.record() | about | {"seconds": medians})
    print(*(f"{way:32}{taken:.3f} s" for way, taken in medians.items()), sep="\n")


class Worker:
    """A process that inspects one picture in several ways, when asked."""

    def __init__(
        self,
        role: str,
        python: Sequence[str],
        given: argparse.Namespace,
        folder: str,
        environment: dict[str, str] | None = None,
    ) -> None:
        command = [*python, str(WORKER), role, str(given.good.resolve()), str(given.size), folder]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | (environment or {}),
        )
        self.ways = self._line().split(";")
        for way in self.ways:
            self.timed(way)

    def timed(self, way: str) -> float:
        """Seconds that the picture took."""
        assert self.process.stdin is not None
        self.process.stdin.write(way + "\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        """The next line of the worker's own: what libraries print has no mark."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        raise SystemExit(f"a worker ended with {self.process.wait()}; what it says stands above")


def installed(commit: str, folder: Path) -> Path:
    """The version of a commit, in a folder that PYTHONPATH can name."""
    source = folder / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", commit], check=True, stdout=subprocess.PIPE, cwd=WORKER.parents[2]
    )
    subprocess.run(["tar", "-x", "-C", source], check=True, input=archive.stdout)
    quiet = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", str(folder / "lib")]
    subprocess.run([sys.executable, "-m", "pip", *quiet, str(source)], check=True)
    return folder / "lib"


if __name__ == "__main__":
    common.command(main)
