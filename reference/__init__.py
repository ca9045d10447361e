"""The oracle: every equation of the paper in plain NumPy and SciPy, float64."""

from . import fusion, memory, patches, synthesis, textons

__all__ = ["fusion", "memory", "patches", "synthesis", "textons"]
