"""How much memory this process may still take."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["headroom"]

_CGROUP = Path("/sys/fs/cgroup")  # as a container sees its own


def headroom() -> int:
    """Bytes that this process may still allocate: the least that machine, container and `ulimit -v` leave it."""
    left: list[int] = [psutil.virtual_memory().available]
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            left.append(limit - psutil.Process().memory_info().vms)
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        used = int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        cached = int(statistics["inactive_file"])  # given back when it is needed
        left.append(int((_CGROUP / "memory.max").read_text()) - used + cached)
    return max(0, min(left))
