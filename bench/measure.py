"""Compare, then time: candidates in turn, round after round, so that a slow moment of the machine meets them all.

Each timed call follows an untimed one of the same candidate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from cases import OURS, Case, cases

from fmrnet import fast

__all__ = ["ceilings", "measure", "table"]


def seconds(call: Callable[[], Any], device: str, launches: int = 1) -> float:
    """One call. On a GPU a block of launches between two events, a share of the block."""
    if device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(launches):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / launches


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


def measure(device: str, budget: float, only: str = "") -> dict[str, Any]:
    """Every case whose function or size contains `only`, about `budget` seconds for each of its candidates."""
    limits = ceilings(device)
    results = [
        _case(case, device, budget, limits)
        for case in cases(device)
        if only in f"{case.function} {case.size}"
    ]
    return {"device": device, "ceilings": limits, "results": results}


def _case(case: Case, device: str, budget: float, limits: dict[str, float]) -> dict[str, Any]:
    times: dict[str, list[float]] = {}
    failures, absent = {}, {}
    first = {}
    for candidate in case.candidates:
        try:
            result = candidate.call()
            if candidate.agrees is not None:
                candidate.agrees(result)
        except fast.BackendUnavailable as reason:
            absent[candidate.name] = str(reason)
            continue
        except Exception as error:  # whatever it is, a candidate that is not right is not timed
            failures[candidate.name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        first[candidate.name] = seconds(candidate.call, device)
        times[candidate.name] = []
    running = [c for c in case.candidates if c.name in times]
    rounds = max(3, min(40, int(budget * len(running) / sum(first.values()) / 2))) if running else 0
    for _ in range(rounds):
        for candidate in running:
            candidate.call()  # untimed: a call is to find its own data in cache, not another one's threads awake
            launches = max(1, min(50, int(0.02 / first[candidate.name])))
            times[candidate.name].append(seconds(candidate.call, device, launches))
    median = {name: statistics.median(values) for name, values in times.items()}
    peers = {c.name: median[c.name] for c in running if c.name not in OURS and c.agrees is not None}
    best = min(peers.values(), default=None)
    floor = max(case.bytes / limits["bytes_per_second"], case.operations / limits["operations_per_second"])
    lines = [
        {
            "candidate": c.name,
            "ours": c.name in OURS,
            "compared": "with the oracle, passed" if c.agrees is not None else "not: a yardstick",
            "seconds": median[c.name],
            "times_faster_than_best_peer": best / median[c.name] if best and c.name in OURS else None,
            "share_of_floor": floor / median[c.name],
            "raw_seconds": times[c.name],
        }
        for c in running
    ]
    found = {
        "function": case.function,
        "size": case.size,
        "floor_seconds": floor,
        "lines": lines,
        "failures": failures,
        "absent": absent,
    }
    print(table(found), flush=True)
    return found


def table(found: dict[str, Any]) -> str:
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
