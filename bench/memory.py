"""How far the anomaly map of a panel grows the memory of a process: `python bench/memory.py`, bytes as JSON."""

from __future__ import annotations

import json
import resource
import sys

import torch

from fmrnet import fast

PANEL = (1, 3, 2560, 3840)


def growth() -> dict[str, int]:
    """Peak resident memory of one call above pictures and map, after a first call on a small picture."""
    small = torch.rand(1, 3, 256, 256)
    fast.anomaly_map(small, small, backend="numba")  # compiles, starts the threads
    image, reconstruction = torch.rand(2, *PANEL)
    before = _peak()
    result = fast.anomaly_map(image, reconstruction, backend="numba")
    return {
        "pictures": image.nbytes + reconstruction.nbytes,
        "map": result.nbytes,
        "beyond": max(_peak() - before - result.nbytes, 0),
        "threads": torch.get_num_threads(),
    }


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    print(json.dumps(growth()))
