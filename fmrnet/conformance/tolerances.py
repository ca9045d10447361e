"""How close is close: one table for every comparison with the oracle, each entry with its reason."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import torch

__all__ = ["TOLERANCES", "Mismatch", "Tolerance", "assert_close"]


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


class Mismatch(AssertionError):
    """A result that is not what it must be; the message says where, by how much and what was allowed.

    Attributes
    ----------
    actual, expected
        The arrays that were compared, where two were.
    """

    def __init__(self, message: str, actual: Any = None, expected: Any = None) -> None:
        super().__init__(message)
        self.actual, self.expected = actual, expected


def assert_close(
    actual: "torch.Tensor",
    expected: ArrayLike,
    *,
    dtype: "torch.dtype",
    scale: float | None = None,
    name: str = "",
) -> None:
    """|actual - expected| <= rtol * |expected| + atol * scale + half a step, elementwise, nothing non-finite.

    The step is that of the result's type beside zero, where even a correctly rounded result is off by half of it
    (3e-8 in float16).

    Parameters
    ----------
    actual, expected
        Of one shape.
    dtype
        The type the function computed on.
    scale
        The magnitude at which the rounding happened: the largest expected value unless the result is a small
        difference of larger quantities (then name those).
    name
        What is compared, for the message.

    Raises
    ------
    Mismatch
        With the place of the largest excess.
    """
    import torch

    expected = np.asarray(expected, dtype=np.float64)
    values = actual.detach().to("cpu", torch.float64).numpy()
    if values.shape != expected.shape:
        raise Mismatch(f"{name or 'the result'} has shape {values.shape}, right is {expected.shape}")
    if not expected.size:
        return
    if not np.isfinite(expected).all():
        raise Mismatch("the oracle's own result is not finite", values, expected)
    limit = TOLERANCES[str(dtype).removeprefix("torch.")]
    magnitude = float(np.abs(expected).max()) if scale is None else scale
    kind = torch.finfo(actual.dtype)
    step = kind.smallest_normal * kind.eps
    allowed = limit.rtol * np.abs(expected) + limit.atol * magnitude + step / 2
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        at = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
        raise Mismatch(
            f"{bad} of {values.size} values of {name or 'the result'} are not finite; "
            f"the first, at {list(at)}, is {values[at]}, right is {expected[at]:.9g}",
            values,
            expected,
        )
    excess = np.abs(values - expected) - allowed
    worst = tuple(map(int, np.unravel_index(excess.argmax(), excess.shape)))
    if not excess[worst] <= 0:
        raise Mismatch(
            f"{name or 'the result'}{list(worst)} is {values[worst]:.9g}, right is {expected[worst]:.9g}: "
            f"off by {abs(values[worst] - expected[worst]):.3g}, allowed {allowed[worst]:.3g} "
            f"({limit.rtol:g} of the value + {limit.atol:g} of {magnitude:.3g}); "
            f"{np.count_nonzero(excess > 0)} of {excess.size} values are off",
            values,
            expected,
        )
