"""The oracle: every equation of the paper in plain NumPy and SciPy, float64."""
