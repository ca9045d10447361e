"""The provenance of this repository's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fmrnet.conformance import record as provenance

__all__ = ["record"]


def record() -> dict[str, Any]:
    """What `fmrnet.conformance.record` says, with the commit of this repository."""
    return provenance.record(Path(__file__).parents[1])
