"""A line at a steady rate for as long as it takes: what edge, cloud and broker hold, minute by minute, and what fails.

    python bench/experiments/soak.py [--minutes 60] [--rate 2] [--out FOLDER]

`fmrnet serve`, `fmrnet edge` and mosquitto as processes, with the tests' tiny model, of which half of the pictures go
up. Pictures are removed after half a minute, as a line would; --disk is so small that verdicts go, too. Memory is RSS
and PSS in MB, disk what --out takes in kB. Writes edge-soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import common
import psutil
import record
import rows

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from lines import write, write_model

KEPT = 30.0  # seconds that a picture stays
DISK = 8  # megabytes for --out
WARM = 5  # minutes at the beginning that are not compared
MEASURED = {"rss", "pss", "files", "threads", "disk"}


def main() -> None:
    """Start the line, feed it, look at it each minute, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=float, default=2.0, help="pictures a second")
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = soak(Path(name), given.minutes, given.rate)
    rows.write(given.out / "edge-soak.json", record.record() | found)
    print(json.dumps(found["growth"]), found["errors"])


def soak(folder: Path, minutes: int, rate: float) -> dict[str, Any]:
    """A row a minute, what went wrong, and the most of each measure in five minutes early on and the last five."""
    model = write_model(folder / "tiny.fmr")
    (folder / "in").mkdir()
    cloud, broker, own = (free_port() for _ in range(3))
    (folder / "mosquitto.conf").write_text(f"listener {broker} 127.0.0.1\nallow_anonymous true\nuser root\n")
    log = open(folder / "log", "ab")  # noqa: SIM115
    node = f"edge {model} --watch {folder}/in --out {folder}/out --line A --disk {DISK} --device cpu"
    commands = {
        "broker": ["mosquitto", "-c", str(folder / "mosquitto.conf")],
        "cloud": [sys.executable, "-m", "fmrnet", *f"serve {model} --port {cloud} --device cpu".split()],
        "edge": [
            *(sys.executable, "-m", "fmrnet", *node.split(), "--cloud", f"http://127.0.0.1:{cloud}"),
            *("--port", str(own), "--mqtt", f"127.0.0.1:{broker}"),
        ],
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"] + ":/usr/sbin"}
    running = {
        name: subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        for name, command in commands.items()
    }
    try:
        return watched(folder, running, minutes, rate, cloud, own)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
        log.close()


def watched(
    folder: Path, running: dict[str, subprocess.Popen[bytes]], minutes: int, rate: float, cloud: int, own: int
) -> dict[str, Any]:
    """Feed the line and look at it."""
    while not (answers(cloud) and answers(own)):
        time.sleep(0.5)
    present: deque[tuple[float, Path]] = deque()
    rows_: list[dict[str, Any]] = []
    errors: list[str] = []
    started, count = time.monotonic(), 0
    for minute in range(1, minutes + 1):
        while (now := time.monotonic() - started) < 60 * minute:
            count += 1
            path = folder / "in" / f"{count:07d}.png"
            write(path.with_name("." + path.name), count)
            path.with_name("." + path.name).rename(path)
            present.append((now, path))
            while present[0][0] < now - KEPT:
                present.popleft()[1].unlink()
            time.sleep(max(0.0, count / rate - (time.monotonic() - started)))
        state = json.loads(read(own))
        disk = sum(path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file())
        row: dict[str, Any] = {"minute": minute, **state["totals"], "kB of disk": disk // 1000}
        for name in ("edge", "cloud"):
            process = psutil.Process(running[name].pid)
            memory = process.memory_full_info()
            row |= {f"{name} rss": round(memory.rss / 1e6, 1), f"{name} pss": round(memory.pss / 1e6, 1)}
            row |= {f"{name} files": process.num_fds(), f"{name} threads": process.num_threads()}
        errors += [f"minute {minute}: {text}" for text in state["troubles"]]
        errors += [
            f"minute {minute}: {name} ended" for name, one in running.items() if one.poll() is not None
        ]
        rows_.append(row)
        print(row, flush=True)
    lines = (folder / "log").read_text(errors="replace").splitlines()
    errors += [line for line in lines if "Traceback" in line or '"level": "error"' in line.lower()]
    decided = {
        name: rows_[-1].get(name, 0) for name in ("early exit", "cloud", "deadline", "refused", "disk")
    }
    early, late = rows_[WARM : WARM + 5], rows_[-5:]
    compared = [what for what in rows_[0] if what.split()[-1] in MEASURED]
    grown = {what: [max(row[what] for row in part) for part in (early, late)] for what in compared}
    return {
        "rate": rate,
        "pictures": count,
        "decided by": decided,
        "errors": errors,
        "growth": grown,
        "minutes": rows_,
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def read(port: int) -> bytes:
    """The state of the node."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        content: bytes = answer.read()
    return content


if __name__ == "__main__":
    common.command(main)
