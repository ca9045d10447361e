"""How numba compiles here. Loops are single-threaded and release the GIL; `_threads.spread` divides them."""

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["compiled"]

# Sums may be reordered and contracted, which vectorises them. Not "nnan" or "ninf": NaN must pass through.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call; kept on disk where a cache folder can be written, else once a process."""
    options: Any = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}
    try:
        kept: Callable[..., Any] = numba.njit(cache=True, **options)(function)
        return kept
    except RuntimeError:  # no folder to keep it in
        fresh: Callable[..., Any] = numba.njit(**options)(function)
        return fresh
