"""The oracle: every equation of the paper in plain NumPy and SciPy, float64."""

from . import (
    blurs,
    fusion,
    fusion_labels,
    fusion_network,
    learned_fusion,
    losses,
    memory,
    network,
    patches,
    scoring,
    synthesis,
    textons,
)

__all__ = [
    "blurs",
    "fusion",
    "fusion_labels",
    "fusion_network",
    "learned_fusion",
    "losses",
    "memory",
    "network",
    "patches",
    "scoring",
    "synthesis",
    "textons",
]
