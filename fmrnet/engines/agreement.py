"""How far an engine may differ from PyTorch, and what a model file says of how far each does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["TOLERANCE", "beyond", "compared"]

TOLERANCE = 0.01  # of a score, which is a multiple of its threshold; of one above 1, of the score itself


def beyond(provenance: Mapping[str, Any], engine: str) -> float | None:
    """By how much an engine's scores were seen to differ from PyTorch's, if that is more than TOLERANCE.

    None, too, where nothing is known of this engine.
    """
    found, _ = compared(provenance, engine)
    return found if found is not None and found > TOLERANCE else None


def compared(provenance: Mapping[str, Any], engine: str) -> tuple[float | None, str]:
    """By how much an engine's scores differed from PyTorch's, None if nothing is known of it, and on which machine."""
    found: Any = provenance
    for name in ("graphs", "agreement", "engines", engine):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None, ""
    difference, machine = found.get("difference"), found.get("machine")
    known = float(difference) if isinstance(difference, int | float) else None
    return known, machine if isinstance(machine, str) else "an unknown machine"
