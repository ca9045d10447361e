"""A bounded queue before the threads that compute: who finds it full is told when to come again."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from fmrnet.errors import FmrnetError

__all__ = ["Busy", "Queue", "Room", "Timed"]

USUAL_SECONDS = 0.5  # of a job, before any was timed
LONGEST_WAIT = (
    10.0  # seconds; a client that waits much longer gives up, and what is computed for it then is in vain
)
REMEMBERED = 0.9  # how much of the mean time of a job stays with each new one


class Busy(FmrnetError):
    """No room for more; `seconds` is when to come again."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class Timed:
    """What a job gave, and its seconds in the queue and in computing."""

    value: Any
    waited: float
    computed: float


@dataclass(eq=False)
class _Job:
    work: Callable[[], Any]
    future: Future[Timed] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Queue:
    """Jobs, done in their order by threads of its own.

    Parameters
    ----------
    capacity : int
        Jobs that may wait; fewer where they would wait for more than LONGEST_WAIT.
    workers : int
        Jobs that are done at once.
    """

    def __init__(self, capacity: int, workers: int = 1) -> None:
        self.capacity = capacity
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._usual = USUAL_SECONDS
        self._timed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"inspection {number}", daemon=True)
            for number in range(workers)
        ]

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._jobs)

    @property
    def retry_after(self) -> int:
        """Whole seconds until what waits now may be done."""
        return max(1, ceil(self._usual * (1 + self.waiting) / len(self._threads)))

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Do what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise Busy if there is no room for another job."""
        too_long = self._timed and self.waiting * self._usual / len(self._threads) > LONGEST_WAIT
        if self.waiting >= self.capacity or too_long:
            raise Busy(f"{self.waiting} requests wait, and no more may; come again later", self.retry_after)

    def submit(self, work: Callable[[], Any]) -> Future[Timed]:
        """Put a job into the queue; one whose future is cancelled leaves it. Raises Busy."""
        with self._changed:
            self.check()
            job = _Job(work)
            self._jobs.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._drop(job) if future.cancelled() else None)
        return job.future

    def _drop(self, job: _Job) -> None:
        """Take a job that nobody waits for out of the queue, unless its turn has come."""
        with self._changed, suppress(ValueError):
            self._jobs.remove(job)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            began = time.perf_counter()
            try:
                value = job.work()
            except BaseException as error:
                job.future.set_exception(error)
                continue
            seconds = time.perf_counter() - began
            remembered = REMEMBERED if self._timed else 0.0
            self._usual, self._timed = remembered * self._usual + (1 - remembered) * seconds, True
            job.future.set_result(Timed(value, began - job.since, seconds))

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._jobs:
                if self._closed:
                    return None
                self._changed.wait()
            return self._jobs.popleft()


class Room:
    """Bytes of requests that a server holds at once.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0

    def take(self, count: int, retry_after: int) -> None:
        """Take up so many bytes; Busy if there is no room for them."""
        if self.taken + count > self.size:
            raise Busy(
                f"requests of {self.taken} bytes are in hand, and no more may be; come again later",
                retry_after,
            )
        self.taken += count

    def give(self, count: int) -> None:
        """Give bytes back."""
        self.taken -= count
