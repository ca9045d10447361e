"""The oracle: every equation of the paper in plain NumPy and SciPy, float64."""

from . import fusion, learned_fusion, losses, memory, network, patches, scoring, synthesis, textons

__all__ = [
    "fusion",
    "learned_fusion",
    "losses",
    "memory",
    "network",
    "patches",
    "scoring",
    "synthesis",
    "textons",
]
