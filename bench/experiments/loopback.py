"""What the split between edge and cloud adds on loopback: 50 requests a second, the computing taken out.

    python bench/experiments/loopback.py [--rate 50] [--seconds 30] [--out FOLDER]

`fmrnet serve` with the tests' tiny model on a core of its own where there are two, asked by an edge's uplink at a
steady rate for pictures of 96 x 112. Of each request, its time from when it was due until the answer is there less the
seconds that the server computed, by its log. Writes loopback.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import record
import rows

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from lines import texture, write_model
from serving import Process

from fmrnet.deployment.compress import webp
from fmrnet.deployment.models import version_of
from fmrnet.deployment.uplink import Uplink

WORKERS = 4


def main() -> None:
    """Start the server, ask, compare with its log, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        model = write_model(Path(name) / "tiny.fmr")
        server = Process(model, "--device", "cpu")
        try:
            os.sched_setaffinity(server.process.pid, {cores[-1]})
            os.sched_setaffinity(0, {cores[0]})
            uplink = Uplink(f"http://{server.address}", "tiny", version_of(model), "A", connections=WORKERS)
            ask(uplink, "warm", given.rate, 2.0)
            seconds = ask(uplink, "timed", given.rate, given.seconds)
            uplink.close()
        finally:
            server.stop()
        computed = {line["id"]: line["computed"] for line in server.log if "computed" in line}
    beside = 1e3 * np.array([seconds[one] - computed[one] for one in seconds])
    whole = 1e3 * np.array(list(seconds.values()))
    found: dict[str, Any] = {
        "rate": given.rate,
        "requests": len(seconds),
        "load": os.getloadavg()[0],
        "beside the computing, ms": percentiles(beside),
        "in all, ms": percentiles(whole),
    }
    rows.write(given.out / "loopback.json", record.record() | found)
    print(found)


def ask(uplink: Uplink, name: str, rate: float, seconds: float) -> dict[str, float]:
    """Seconds from when each request was due until its answer was there, by its id."""
    picture = webp(texture(1))
    taken: dict[str, float] = {}
    started = time.perf_counter()

    def work(worker: int) -> None:
        for number in range(worker, int(rate * seconds), WORKERS):
            due = started + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            uplink.ask(f"{name}-{number}", picture, 0.05)
            taken[f"{name}-{number}"] = time.perf_counter() - due

    threads = [threading.Thread(target=work, args=(one,)) for one in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def percentiles(values: Any) -> dict[str, float]:
    """The median, the 99th of 100 and the greatest."""
    return {
        name: round(float(np.percentile(values, q)), 2)
        for name, q in (("p50", 50), ("p99", 99), ("most", 100))
    }


if __name__ == "__main__":
    common.command(main)
