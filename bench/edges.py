"""Many edges and one server, event by event: what `fmrnet edge` and `fmrnet serve` do with unsettled pictures.

An edge sends up to four pictures at a time, oldest first, and after a failure waits as `Backoff` does
(`fmrnet.deployment.uplink`). The server takes a request if its queue has room, else says 429 and when to come again
(`fmrnet.deployment.batching.Queue`); its workers serve in order. At the deadline the patch level stands. The times of
computing and the rest of a request are drawn from measured ones. A heap of events is all it takes: SimPy would give
each of thousands of edges a generator, and nothing here waits for two things at once.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.deployment.batching import LONGEST_WAIT, REMEMBERED, USUAL_SECONDS
from fmrnet.deployment.node import WORKERS as CONNECTIONS
from fmrnet.deployment.uplink import FIRST, LONGEST, READ

__all__ = ["Found", "Server", "Site", "arrivals", "simulate"]


@dataclass(frozen=True)
class Server:
    """One machine.

    Attributes
    ----------
    service : array of float
        Seconds of computing, of which each request draws one.
    rest : array of float
        Seconds that a request takes beside queue and computing: client, protocol, loopback.
    workers, waiting : int
        Requests that are computed at once, and that may wait.
    in_order : bool
        Take the times of computing one after the other, as they were measured.
    """

    service: NDArray[np.float64]
    rest: NDArray[np.float64]
    workers: int = 1
    waiting: int = 64
    in_order: bool = False


@dataclass(frozen=True)
class Site:
    """The edges.

    Attributes
    ----------
    edges : int
    rate : float
        Pictures that are not settled, a second and edge.
    link : float
        Seconds that a picture is on its way up, beside `Server.rest`.
    deadline : float
        Seconds after which the patch level stands.
    """

    edges: int
    rate: float
    link: float = 0.0
    deadline: float = 60.0


@dataclass
class Found:
    """What became of the pictures.

    Attributes
    ----------
    latency : list of float
        Seconds from picture to pixel level, of those that had it in time.
    asked, refused, overdue : int
        Requests, those that were told to come again, and pictures that the deadline decided.
    """

    latency: list[float] = field(default_factory=list)
    asked: int = 0
    refused: int = 0
    overdue: int = 0

    def figures(self) -> dict[str, float]:
        """In numbers."""
        pictures = len(self.latency) + self.overdue
        quantiles = np.quantile(self.latency, (0.5, 0.95, 0.99)) if self.latency else [np.inf] * 3
        return {
            "pictures": pictures,
            "p50": float(quantiles[0]),
            "p95": float(quantiles[1]),
            "p99": float(quantiles[2]),
            "mean": float(np.mean(self.latency)) if self.latency else np.inf,
            "refused": self.refused / max(1, self.asked),
            "overdue": self.overdue / max(1, pictures),
        }


@dataclass(eq=False)
class _Edge:
    open: deque[float] = field(default_factory=deque)  # when its pictures came
    idle: int = CONNECTIONS  # threads that neither wait for an answer nor sleep
    failures: int = 0
    until: float = 0.0


@dataclass(eq=False)
class _Request:
    edge: _Edge
    born: float
    state: str = "sent"  # then waiting, computed, over


def arrivals(site: Site, seconds: float, seed: int = 0) -> list[tuple[float, int]]:
    """When pictures come that are not settled, and to which edge: at random, as what is suspect on a line does."""
    generator = np.random.default_rng(seed)
    count = generator.poisson(site.edges * site.rate * seconds)
    times = np.sort(generator.uniform(0, seconds, count))
    return list(zip(times.tolist(), generator.integers(0, site.edges, count).tolist()))


def simulate(server: Server, site: Site, coming: list[tuple[float, int]], seed: int = 0) -> Found:
    """Let pictures come, and wait until each is decided."""
    return _Simulation(server, site, seed).run(coming)


class _Simulation:
    def __init__(self, server: Server, site: Site, seed: int) -> None:
        self.server, self.site, self.found = server, site, Found()
        self._random = np.random.default_rng(seed)
        self._edges = [_Edge() for _ in range(site.edges)]
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()
        self._waiting: deque[_Request] = deque()
        self._free = server.workers
        self._usual, self._timed = USUAL_SECONDS, False
        self._computed_so_far = 0
        self.now = 0.0

    def run(self, coming: list[tuple[float, int]]) -> Found:
        for time, edge in coming:
            self._at(time, self._picture, self._edges[edge])
        while self._events:
            self.now, _, happen, what = heapq.heappop(self._events)
            happen(what)
        return self.found

    def _at(self, time: float, happen: Callable[[Any], None], what: Any) -> None:
        heapq.heappush(self._events, (time, next(self._order), happen, what))

    def _service(self) -> float:
        measured = self.server.service
        self._computed_so_far += 1
        if self.server.in_order:
            return float(measured[min(self._computed_so_far, len(measured)) - 1])
        return float(measured[self._random.integers(len(measured))])

    def _rest(self) -> float:
        return float(self.server.rest[self._random.integers(len(self.server.rest))])

    def _picture(self, edge: _Edge) -> None:
        edge.open.append(self.now)
        self._send(edge)

    def _send(self, edge: _Edge, pause: bool = True) -> None:
        """What idle threads send now; while a pause lasts they sleep, whatever happens to the others meanwhile."""
        while edge.open and edge.open[0] + self.site.deadline <= self.now:
            edge.open.popleft()
            self.found.overdue += 1
        while edge.open and edge.idle:
            edge.idle -= 1
            if pause and self.now < edge.until:
                self._at(edge.until, self._wake, edge)
                continue
            request = _Request(edge, edge.open.popleft())
            self.found.asked += 1
            self._at(self.now + self.site.link + self._rest() / 2, self._arrive, request)
            self._at(self.now + READ, self._time_out, request)

    def _wake(self, edge: _Edge) -> None:
        edge.idle += 1
        self._send(edge, pause=False)

    def _arrive(self, request: _Request) -> None:
        if request.state == "over":
            return
        too_long = self._timed and len(self._waiting) * self._usual / self.server.workers > LONGEST_WAIT
        if len(self._waiting) >= self.server.waiting or too_long:
            after = max(1, ceil(self._usual * (1 + len(self._waiting)) / self.server.workers))
            self.found.refused += 1
            self._failed(request, after)
            return
        request.state = "waiting"
        self._waiting.append(request)
        self._work()

    def _work(self) -> None:
        while self._free and self._waiting:
            request = self._waiting.popleft()
            if request.state == "over":  # its client is gone
                continue
            request.state, seconds = "computed", self._service()
            self._free -= 1
            remembered = REMEMBERED if self._timed else 0.0
            self._usual, self._timed = remembered * self._usual + (1 - remembered) * seconds, True
            self._at(self.now + seconds, self._computed, request)

    def _computed(self, request: _Request) -> None:
        self._free += 1
        self._at(self.now + self._rest() / 2, self._answered, request)
        self._work()

    def _answered(self, request: _Request) -> None:
        if request.state == "over":
            return
        edge, latency = request.edge, self.now - request.born
        request.state = "over"
        edge.idle, edge.failures, edge.until = edge.idle + 1, 0, 0.0
        if latency < self.site.deadline:
            self.found.latency.append(latency)
        else:
            self.found.overdue += 1
        self._send(edge)

    def _time_out(self, request: _Request) -> None:
        if request.state != "over":
            self._failed(request, 0.0)

    def _failed(self, request: _Request, pause: float) -> None:
        """As `Backoff.failed`; the picture is open again."""
        edge = request.edge
        request.state = "over"
        bound = min(LONGEST, FIRST * 2 ** min(edge.failures, 20))
        edge.failures += 1
        edge.until = self.now + min(pause, LONGEST) + self._random.uniform(0, bound)
        edge.idle += 1
        edge.open.append(request.born)
        edge.open = deque(sorted(edge.open))
        self._send(edge)
