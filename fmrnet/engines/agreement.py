"""How far an engine may differ from PyTorch, and what a model file says of how far each does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["TOLERANCE", "beyond"]

TOLERANCE = 0.01  # of a score, which is a multiple of its threshold; of one above 1, of the score itself


def beyond(provenance: Mapping[str, Any], engine: str) -> float | None:
    """By how much an engine's scores were seen to differ from PyTorch's, if that is more than TOLERANCE.

    None, too, where nothing is known of this engine.
    """
    found: Any = provenance
    for name in ("graphs", "agreement", "engines", engine, "difference"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and found > TOLERANCE else None
