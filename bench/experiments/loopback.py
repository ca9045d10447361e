"""What the split between edge and cloud adds on loopback: 50 requests a second, the computing taken out.

    python bench/experiments/loopback.py [--rate 50] [--seconds 30] [--out FOLDER]

`fmrnet serve --engine onnxruntime` with a tiny model on a core of its own where there are two, asked by an edge's
uplink at a steady rate for pictures of 64 x 64, which take so little computing that a core is not full of it. Of each
request, its time from when it was due until the answer is there, less the seconds that the server computed, by its log.
And where these go: the client until it asks (its clock rings late); the way, which is the client's HTTP, both sockets
and the server's HTTP; the app, which checks and answers; the queue before the thread that computes.

On a machine that others use, too, run it as `chrt -r 10 python ...`, or it is their turns of the processor that are
measured. Writes loopback.json.
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
from serving import Process
from tiny import ground, make_general_inspector

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
        model = Path(name) / "tiny.fmr"
        inspector = make_general_inspector(1, iterations=(0, 0, 0))
        inspector.add_graphs()
        inspector.save(model)
        server = Process(model, "--device", "cpu", "--engine", "onnxruntime")
        try:
            for thread in os.listdir(f"/proc/{server.process.pid}/task"):
                os.sched_setaffinity(int(thread), {cores[-1]})
            os.sched_setaffinity(0, {cores[0]})
            uplink = Uplink(f"http://{server.address}", "tiny", version_of(model), "A", connections=WORKERS)
            ask(uplink, "warm", given.rate, 2.0)
            times = ask(uplink, "timed", given.rate, given.seconds)
            uplink.close()
        finally:
            server.stop()
        log = {line["id"]: line for line in server.log if "computed" in line}
    due, asked, answered = np.array(list(times.values())).T
    inside, waited, computed = (
        np.array([log[one][name] for one in times]) for name in ("seconds", "waited", "computed")
    )
    found: dict[str, Any] = {
        "rate": given.rate,
        "requests": len(times),
        "load": round(os.getloadavg()[0], 1),
        "real-time priority": os.sched_getscheduler(0) == os.SCHED_RR,
        "beside the computing, ms": percentiles(answered - due - computed),
        "of these, until it is asked": percentiles(asked - due),
        "of these, the way": percentiles(answered - asked - inside),
        "of these, the app": percentiles(inside - waited - computed),
        "of these, the queue": percentiles(waited),
        "computing, ms": percentiles(computed),
        "in all, ms": percentiles(answered - due),
    }
    rows.write(given.out / "loopback.json", record.record() | found)
    print(found)


def ask(uplink: Uplink, name: str, rate: float, seconds: float) -> dict[str, tuple[float, float, float]]:
    """Of each request, by its id: when it was due, was asked and was answered, in seconds."""
    picture = webp(ground(64, 64))
    times: dict[str, tuple[float, float, float]] = {}
    started = time.perf_counter()

    def work(worker: int) -> None:
        for number in range(worker, int(rate * seconds), WORKERS):
            due = started + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            asked = time.perf_counter()
            uplink.ask(f"{name}-{number}", picture, 0.05)
            times[f"{name}-{number}"] = due, asked, time.perf_counter()

    threads = [threading.Thread(target=work, args=(one,)) for one in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def percentiles(seconds: Any) -> dict[str, float]:
    """The median, the 99th of 100 and the greatest, in milliseconds."""
    return {
        name: round(1e3 * float(np.percentile(seconds, q)), 2)
        for name, q in (("p50", 50), ("p99", 99), ("most", 100))
    }


if __name__ == "__main__":
    common.command(main)
