"""How far a long job is and how long it will take: a live bar on a terminal, else a line now and then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fmrnet.config import Config

__all__ = ["Bar", "duration"]

STEP_TIMES = {  # seconds of a step on one core of an Intel Xeon: how the parts of a training compare
    "phase 1": 0.40,
    "phase 2": 0.19,
    "crops": 0.02,
    "fusion": 0.17,
    "cells": 0.05,
    "head": 0.04,
    "features": 0.30,
    "defects": 0.10,
}
PICTURES = 40  # whose features are taken; how many there are is not known from the settings
DEFECTS = 384  # crops with synthetic defects that both levels look at


class Bar:
    """Shows progress on standard error while the `with` block lasts.

    Parameters
    ----------
    every : seconds between two lines where standard error is no terminal.
    """

    def __init__(self, every: float = 30.0) -> None:
        console = Console(stderr=True)
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # `fmrnet inspect ... | grep` must get its lines
        )
        self._tasks: dict[str, TaskID] = {}
        self._every = every
        self._started: dict[str, tuple[float, int]] = {}  # time and count of a job's first call
        self._done: dict[str, int] = {}
        self._spoke = time.monotonic()

    def __enter__(self) -> Bar:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, label: str, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` steps of the job `label` are done; fewer than before are those of a new job."""
        now = time.monotonic()
        if label not in self._tasks:
            self._tasks[label] = self._live.add_task(label, total=total, note=note)
        if done < self._done.get(label, math.inf):
            self._live.reset(self._tasks[label])
            self._started[label] = now, done
        self._done[label] = done
        self._live.update(self._tasks[label], completed=done, total=total, note=note)
        if self._live.disable and (now - self._spoke >= self._every or done == total):
            began, first = self._started[label]
            left = (now - began) * (total - done) / (done - first) if done > first else None
            ending = "" if left is None or done == total else f", {duration(left)} left"
            line = f"{label} {done}/{total} {note}".rstrip() + ending
            print(line, file=sys.stderr, flush=True)
            self._spoke = now

    def counter(self, label: str) -> Callable[[int, int], None]:
        """A callback (done, total)."""
        return lambda done, total: self.show(label, done, total)

    def training(self, config: Config) -> Callable[[str, int, int, float], None]:
        """A callback (phase, step, steps of the phase, loss) for a training with these settings, or with others whose
        steps are in the same proportions; the bar shows hundredths of its time."""
        first, second, third, fourth = config.steps
        pictures = PICTURES if config.general else 0
        defects = DEFECTS if config.generator else 0
        steps_of = (first, second, third, third, fourth, fourth, pictures, defects)
        counts = dict(zip(STEP_TIMES, steps_of, strict=True))
        times = {phase: counts[phase] * STEP_TIMES[phase] for phase in STEP_TIMES}
        order = list(STEP_TIMES)

        def callback(phase: str, step: int, steps: int, loss: float) -> None:
            before = sum(times[earlier] for earlier in order[: order.index(phase)])
            share = (before + times[phase] * step / steps) / sum(times.values())
            ending = "" if math.isnan(loss) else f", loss {loss:.4g}"
            self.show("training", math.floor(100 * share + 1e-6), 100, f"{phase}, {step} of {steps}{ending}")

        return callback


def duration(seconds: float) -> str:
    """
    >>> duration(75), duration(4000), duration(8.25)
    ('1 min 15 s', '1 h 6 min', '8.2 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"
