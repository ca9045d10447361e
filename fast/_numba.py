"""How numba compiles here. Loops are single-threaded and release the GIL; `_threads.spread` divides them."""

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["compiled", "inlined"]

# Sums may be reordered and contracted, which vectorises them. Not "nnan" or "ninf": NaN must pass through.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
OPTIONS: Any = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call; kept on disk where a cache folder can be written, else once a process."""
    try:
        kept: Callable[..., Any] = numba.njit(cache=True, **OPTIONS)(function)
        return kept
    except RuntimeError:  # no folder to keep it in
        fresh: Callable[..., Any] = numba.njit(**OPTIONS)(function)
        return fresh


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile into each compiled function that calls it.

    What numba keeps on disk is compiled anew when the caller's own file changes: after changing a function that is
    inlined into another file, touch that file.

    Left to itself, LLVM keeps some of these as functions of their own. The process that compiles then runs the copy
    compiled alone, one that loads from disk the copy compiled with its caller; sums are reordered in one and not in
    the other, and the same seed gives other bits.
    """
    part: Callable[..., Any] = numba.njit(forceinline=True, **OPTIONS)(function)
    return part
