"""Every fast function, in every backend that can run here, against the oracle.

The only module outside the tests and the benchmarks that imports `fmrnet.reference`.
"""

from typing import NamedTuple

__all__ = ["TOLERANCES", "Tolerance"]


class Tolerance(NamedTuple):
    """|fast - oracle| <= rtol * |oracle| + atol * scale, scale being the largest magnitude in play."""

    rtol: float
    atol: float
    reason: str


TOLERANCES = {
    "float64": Tolerance(1e-9, 1e-11, "same arithmetic in another order: thousands of roundings of 1e-16"),
    "float32": Tolerance(
        1e-4, 1e-5, "sums of thousands of terms rounded at 6e-8; SSIM divides a difference by C2 = 9e-4"
    ),
    "float16": Tolerance(4e-3, 2e-3, "inputs and results rounded at 5e-4, sums kept in float32"),
    "bfloat16": Tolerance(2e-2, 1e-2, "inputs and results rounded at 4e-3, sums kept in float32"),
}
