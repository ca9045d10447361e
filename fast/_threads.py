"""Run a compiled loop on several threads, with no OpenMP: safe to call from any thread and after a fork."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

__all__ = ["spread"]


def spread(work: Callable[[int, int], object], count: int) -> None:
    """Call work(start, stop) on parts of range(count), one part to each of torch's threads.

    `work` must release the GIL (numba: ``nogil=True``) and touch nothing that another part writes.
    """
    parts = max(1, min(torch.get_num_threads(), count))
    bounds = [count * i // parts for i in range(parts + 1)]
    others = [_pool(os.getpid()).submit(work, *bounds[i : i + 2]) for i in range(1, parts)]
    try:
        work(*bounds[:2])
    finally:
        for other in others:
            other.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """The pool of this process: a forked child, which has none of its parent's threads, makes its own."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fmrnet")
