"""Run a compiled loop on several threads, with no OpenMP: safe to call from any thread and after a fork."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

__all__ = ["spread"]

PARTS = 4  # for each thread


def spread(work: Callable[[int, int], object], count: int) -> None:
    """Call work(start, stop) on parts of range(count), on as many threads as torch uses, this one among them.

    There are more parts than threads, and a thread that is done with one takes the next: after an operation of
    torch its OpenMP threads keep a core each busy for some milliseconds, waiting for another, and whichever
    of ours shares that core is slow. `work` must release the GIL (numba: ``nogil=True``) and touch nothing
    that another part writes.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    parts = 1 if threads == 1 else min(PARTS * threads, count)
    left = iter([(count * i // parts, count * (i + 1) // parts) for i in range(parts)])
    others = [_pool(os.getpid()).submit(_take, work, left) for _ in range(threads - 1)]
    try:
        _take(work, left)
    finally:
        for other in others:
            if not other.cancel():
                other.result()


def _take(work: Callable[[int, int], object], left: Iterator[tuple[int, int]]) -> None:
    for start, stop in left:  # a list's iterator gives each item to one thread
        work(start, stop)


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """The pool of this process: a forked child, which has none of its parent's threads, makes its own."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fmrnet")
