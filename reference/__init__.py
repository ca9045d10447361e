"""The oracle: every equation of the paper in plain NumPy and SciPy, float64."""

from . import (
    backbone,
    blurs,
    fusion,
    fusion_labels,
    fusion_network,
    general,
    good_scores,
    learned_fusion,
    losses,
    memory,
    network,
    patches,
    scoring,
    synthesis,
    textons,
    usual,
)

__all__ = [
    "backbone",
    "blurs",
    "fusion",
    "fusion_labels",
    "fusion_network",
    "general",
    "good_scores",
    "learned_fusion",
    "losses",
    "memory",
    "network",
    "patches",
    "scoring",
    "synthesis",
    "textons",
    "usual",
]
