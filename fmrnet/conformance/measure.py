"""Compare, then time: candidates in turn, round after round, so that a slow moment of the machine meets them all.

Each timed call follows an untimed one of the same candidate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fmrnet import fast

from .cases import OURS, Candidate, Case, cases

__all__ = ["ceilings", "measured", "table"]


def seconds(call: Callable[[], Any], device: str, launches: int = 1) -> float:
    """One call. On a GPU a block of launches between two events, a share of the block."""
    if device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(launches):
        call()
    end.record()
    torch.cuda.synchronize()
    elapsed: float = begin.elapsed_time(end)  # milliseconds
    return elapsed / 1e3 / launches


def ceilings(device: str) -> dict[str, float]:
    """What this machine can do at best: bytes copied a second (read and written), float32 operations a second."""
    source = torch.rand(2**26 if device == "cpu" else 2**30, device=device)
    target = torch.empty_like(source)
    a = torch.rand(2048 if device == "cpu" else 8192, 2048 if device == "cpu" else 8192, device=device)
    copy = min(seconds(lambda: target.copy_(source), device) for _ in range(7))
    product = min(seconds(lambda: a @ a, device) for _ in range(7))
    return {
        "bytes_per_second": 2 * 4 * source.numel() / copy,
        "operations_per_second": 2 * len(a) ** 3 / product,
    }


def measured(
    device: str,
    budget: float,
    only: str = "",
    function: str = "",
    *,
    limits: dict[str, float],
    kernel: tuple[str, Callable[..., Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Every case whose title and size contain `only`, of one function if it is named, timed.

    Parameters
    ----------
    device
        "cpu" or "cuda".
    budget
        About so many seconds for each candidate of a case.
    limits
        The `ceilings` of this machine.
    kernel
        A name and a function of someone else's, timed beside ours in each case.
    """
    for case in cases(device, only, function):
        yield _case(case, case.candidates(device, kernel), device, budget, limits)


def _case(
    case: Case, candidates: list[Candidate], device: str, budget: float, limits: dict[str, float]
) -> dict[str, Any]:
    times: dict[str, list[float]] = {}
    failures, absent = {}, {}
    first = {}
    for candidate in candidates:
        try:
            result = candidate.call()
            if candidate.agrees is not None:
                candidate.agrees(result)
        except (fast.BackendUnavailable, NotImplementedError) as reason:
            absent[candidate.name] = str(reason)
            continue
        except ModuleNotFoundError as missing:
            absent[candidate.name] = f"{missing.name} is not installed"
            continue
        except Exception as error:  # whatever it is, a candidate that is not right is not timed
            failures[candidate.name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        first[candidate.name] = seconds(candidate.call, device)
        times[candidate.name] = []
    running = [c for c in candidates if c.name in times]
    rounds = max(3, min(40, int(budget * len(running) / sum(first.values()) / 2))) if running else 0
    for _ in range(rounds):
        for candidate in running:
            candidate.call()  # untimed: a call is to find its own data in cache, not another one's threads awake
            launches = max(1, min(50, int(0.02 / first[candidate.name])))
            times[candidate.name].append(seconds(candidate.call, device, launches))
    median = {name: statistics.median(values) for name, values in times.items()}
    measured_against = {candidate.name for candidate in case.peers}
    peers = {c.name: median[c.name] for c in running if c.name in measured_against and c.agrees is not None}
    best = min(peers.values(), default=None)
    floor = max(case.bytes / limits["bytes_per_second"], case.operations / limits["operations_per_second"])
    lines = [
        {
            "candidate": c.name,
            "ours": c.name in OURS,
            "compared": "with the oracle, passed" if c.agrees is not None else "not: a yardstick",
            "seconds": median[c.name],
            "times_faster_than_best_peer": best / median[c.name]
            if best and c.name not in measured_against
            else None,
            "share_of_floor": floor / median[c.name],
            "raw_seconds": times[c.name],
        }
        for c in running
    ]
    return {
        "function": case.title,
        "size": case.size,
        "floor_seconds": floor,
        "lines": lines,
        "failures": failures,
        "absent": absent,
    }


def table(found: dict[str, Any]) -> str:
    """The figures of a case, fastest first."""
    rows = [f"\n{found['function']}, {found['size']}"]
    for line in sorted(found["lines"], key=lambda line: line["seconds"]):
        ratio = line["times_faster_than_best_peer"]
        rows.append(
            f"  {line['candidate']:34}{line['seconds'] * 1e3:10.3f} ms"
            f"{'' if ratio is None else f'{ratio:8.2f} x best peer':>22}{line['share_of_floor']:8.1%} of the floor"
        )
    rows += [f"  {name:34} {reason}" for name, reason in found["absent"].items()]
    rows += [f"  {name:34} NOT TIMED: {reason}" for name, reason in found["failures"].items()]
    return "\n".join(rows)
