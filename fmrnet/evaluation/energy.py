"""What the processors of this machine have used, where their counters can be read (RAPL, of Linux on x86)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["joules_between", "readings"]

COUNTERS = Path("/sys/class/powercap")
MICRO = 1e-6


def readings(folder: Path = COUNTERS) -> dict[Path, int]:
    """Microjoules so far by processor package; none where the counters are missing or may not be read."""
    found = {}
    for zone in sorted(
        folder.glob("intel-rapl:[0-9]*")
    ):  # of AMD, too; parts of a package have a second colon
        if zone.name.count(":") == 1:
            try:
                found[zone] = int((zone / "energy_uj").read_text())
            except OSError:  # of root alone on most systems
                return {}
    return found


def joules_between(before: dict[Path, int], after: dict[Path, int]) -> float | None:
    """The energy between two readings; a counter that has begun again from 0 in between is added up. None of none."""
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for zone, first in before.items():
        used = after[zone] - first
        total += used if used >= 0 else used + int((zone / "max_energy_range_uj").read_text())
    return total * MICRO
