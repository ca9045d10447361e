"""Edges in earnest: their requests to a server that runs, by the package's own `Uplink` and `Backoff`."""

from __future__ import annotations

import heapq
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import urllib3
from edges import Found, Site
from numpy.typing import NDArray

from fmrnet.deployment.models import version_of
from fmrnet.deployment.node import WORKERS as CONNECTIONS
from fmrnet.deployment.uplink import Backoff, Unreachable, Uplink

__all__ = ["Running", "Times", "run", "running"]


@dataclass(frozen=True)
class Times:
    """Seconds of requests: of computing, and of all beside queue and computing."""

    service: NDArray[np.float64]
    rest: NDArray[np.float64]


class Running:
    """`fmrnet serve` in a process of its own, and its log."""

    def __init__(self, model: Path, engine: str, log: Path) -> None:
        self.model, self._log = model, log
        command = [sys.executable, "-m", "fmrnet", "serve", str(model), "--engine", engine, "--port", "0"]
        with open(log, "w") as file:
            self.process = subprocess.Popen(command, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while not (found := re.search(r"serving at (http://\S+)", log.read_text())):
            if self.process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        self.url = found[1]
        pool = urllib3.PoolManager(retries=False)
        while pool.request("GET", f"{self.url}/v2/health/ready").status != 200:
            time.sleep(0.2)
        pool.clear()

    def logged(self) -> dict[str, tuple[float, float]]:
        """Seconds in the queue and of computing, by the id of a request that was answered."""
        lines = (json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{"))
        return {line["id"]: (line["waited"], line["computed"]) for line in lines if "computed" in line}

    def uplink(self, line: str) -> Uplink:
        """A way to it."""
        return Uplink(self.url, self.model.stem, version_of(self.model), line, connections=CONNECTIONS)


@contextmanager
def running(model: Path, engine: str) -> Iterator[Running]:
    """A server, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        server = Running(model, engine, Path(folder, "log"))
        try:
            yield server
        finally:
            server.process.terminate()
            server.process.wait()


class _Edge:
    """The pictures of one edge that are open, and the threads that send them, as in `fmrnet.deployment.node`."""

    def __init__(self, name: str, uplink: Uplink, site: Site, picture: bytes) -> None:
        self._name, self._uplink, self._site, self._picture = name, uplink, site, picture
        self._changed, self._backoff = threading.Condition(), Backoff()
        self._open: list[tuple[float, int]] = []
        self._count, self._under_way, self._over = 0, 0, False
        self.latency: dict[str, float] = {}  # by request
        self.took: dict[str, float] = {}  # of the request alone
        self.asked = self.refused = self.overdue = 0
        self._threads = [threading.Thread(target=self._send) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def add(self, born: float) -> None:
        """A picture has come."""
        with self._changed:
            heapq.heappush(self._open, (born, self._count))
            self._count += 1
            self._changed.notify()

    def finish(self) -> None:
        """Wait until every picture is decided."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._uplink.close()

    def _send(self) -> None:
        while True:
            with self._changed:
                while not self._open and not (self._over and not self._under_way):
                    self._changed.wait()
                if not self._open:
                    return
            time.sleep(self._backoff.left())
            with self._changed:
                if not self._open:
                    continue
                born, number = heapq.heappop(self._open)
                self._under_way += 1
                self.asked += 1
            request, began = f"{self._name}-{number}", time.monotonic()
            try:
                if began - born < self._site.deadline:
                    self._uplink.ask(request, self._picture, 0.05)
                self._backoff.succeeded()
                end = time.monotonic()
                self.took[request] = end - began
                if end - born < self._site.deadline:
                    self.latency[request] = end - born
                else:
                    self.overdue += 1
            except Unreachable as error:
                self.refused += " answers 429" in str(error)
                self._backoff.failed(error.pause)
                with self._changed:
                    heapq.heappush(self._open, (born, number))
            finally:
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify_all()


def run(
    server: Running, site: Site, coming: Sequence[tuple[float, int]], picture: bytes, name: str
) -> tuple[Found, Times]:
    """Let pictures come to edges at these times; gives what became of them, and the seconds of their requests."""
    edges = [
        _Edge(f"{name}-{number}", server.uplink(str(number)), site, picture) for number in range(site.edges)
    ]
    began = time.monotonic() + 0.5
    for at, number in coming:
        time.sleep(max(0.0, began + at - time.monotonic()))
        edges[number].add(began + at)
    for edge in edges:
        edge.finish()
    time.sleep(0.2)  # the last line of the log follows the answer
    logged = server.logged()
    by_request = {request: took for edge in edges for request, took in edge.took.items()}
    took = {
        request: by_request[request] for request in logged if request in by_request
    }  # as they were computed
    times = Times(
        np.array([logged[request][1] for request in took]),
        np.array([max(0.0, all_ - sum(logged[request])) for request, all_ in took.items()]),
    )
    found = Found(
        [latency for edge in edges for latency in edge.latency.values()],
        sum(edge.asked for edge in edges),
        sum(edge.refused for edge in edges),
        sum(edge.overdue for edge in edges),
    )
    return found, times
