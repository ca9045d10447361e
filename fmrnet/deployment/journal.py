"""What a server tells of itself: structured logs, metrics for Prometheus, and what the page shows."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import OrderedDict, deque
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from fmrnet.deployment.batching import Queue, Room
from fmrnet.deployment.models import Models
from fmrnet.errors import printable

__all__ = ["Journal", "log_in_json"]

RECENT = 50  # verdicts that the page shows
MOST_EDGES = 1000  # that are remembered, those heard last
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class _Json(logging.Formatter):
    """A record as one line of JSON; what `extra` holds as `fields` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": printable(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_in_json() -> None:
    """Write the logs of this program and of uvicorn to standard error, a line of JSON each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    for name in ("fmrnet", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # what is below tells how it starts and ends


class Journal:
    """Metrics, recent verdicts, and when each edge was last heard.

    Parameters
    ----------
    models : Models
    queue : Queue
    room : Room
    """

    def __init__(self, models: Models, queue: Queue, room: Room) -> None:
        self._models, self._queue, self._room = models, queue, room
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._edges: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        named: dict[str, Any] = {"namespace": "fmrnet", "registry": self.registry}
        self._requests = Counter(
            "requests", "Requests, by model and HTTP status", ["model", "status"], **named
        )
        self._verdicts = Counter(
            "verdicts", "Pictures, by model and verdict", ["model", "defective"], **named
        )
        self._bytes = Counter("received_bytes", "Bytes of the bodies of requests", **named)
        self._waited = Histogram("queue_seconds", "Time in the queue", buckets=SECONDS, **named)
        self._computed = Histogram(
            "compute_seconds", "Time of computing", ["model"], buckets=SECONDS, **named
        )
        self._seconds = Histogram("request_seconds", "Time of a request", ["model"], buckets=SECONDS, **named)
        for name, meaning, value in (
            ("queue_waiting", "Requests that wait", lambda: queue.waiting),
            ("queue_capacity", "Requests that may wait", lambda: queue.capacity),
            ("bytes_in_hand", "Bytes of the bodies of requests in hand", lambda: room.taken),
            ("models", "Models that serve", lambda: len(models.all)),
            ("ready", "1 when the models are warm", lambda: int(models.ready)),
            ("refused_models", "Replaced files that could not be taken up", lambda: models.failures),
        ):
            Gauge(name, meaning, **named).set_function(value)

    def metrics(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    def request(self, model: str, status: int, seconds: float, received: int) -> None:
        """Count a request; `model` is one that is served, or empty."""
        self._requests.labels(model, status).inc()
        self._bytes.inc(received)
        if model and status == 200:
            self._seconds.labels(model).observe(seconds)

    def computed(self, model: str, waited: float, seconds: float) -> None:
        """Count what has been computed."""
        self._waited.observe(waited)
        self._computed.labels(model).observe(seconds)

    def verdict(self, model: str, defective: bool, fields: dict[str, Any]) -> None:
        """Count a verdict, and keep it for the page."""
        self._verdicts.labels(model, str(defective).lower()).inc()
        self._recent.appendleft({"at": time.time(), "model": model, "defective": defective, **fields})

    def heard(self, edge: str) -> None:
        """Note that an edge has asked."""
        before = self._edges.pop(edge, {"requests": 0})
        self._edges[edge] = {"at": time.time(), "requests": before["requests"] + 1}
        if len(self._edges) > MOST_EDGES:
            self._edges.popitem(last=False)

    def status(self) -> dict[str, Any]:
        """What the page shows, JSON-ready."""
        return {
            "now": time.time(),
            "ready": self._models.ready,
            "queue": {"waiting": self._queue.waiting, "capacity": self._queue.capacity},
            "models": [
                {
                    "name": model.name,
                    "version": model.version,
                    "endpoints": list(model.endpoints),
                    "engine": model.inspector.engine.name,
                    "false_alarms": model.inspector.false_alarms,
                }
                for model in self._models.all
            ],
            "recent": list(self._recent),
            "edges": [{"name": name, **seen} for name, seen in reversed(self._edges.items())],
        }
