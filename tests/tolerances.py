"""How close is close: one table for every comparison with the oracle, shared with the self-check."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from fmrnet.selfcheck import TOLERANCES, Tolerance

__all__ = ["TOLERANCES", "Tolerance", "assert_close", "tolerance"]


def tolerance(dtype: torch.dtype) -> Tolerance:
    return TOLERANCES[str(dtype).removeprefix("torch.")]


def assert_close(
    actual: torch.Tensor, expected: ArrayLike, *, dtype: torch.dtype, scale: float | None = None
) -> None:
    """|actual - expected| <= rtol * |expected| + atol * scale + half a step, elementwise, nothing non-finite.

    The step is that of the result's type beside zero, where even a correctly rounded result is off by half of it
    (3e-8 in float16).

    `dtype` is the type the function computed on. `scale` is the magnitude at which the rounding happened: the
    largest expected value unless the result is a small difference of larger quantities (then name those).
    """
    expected = np.asarray(expected, dtype=np.float64)
    values = actual.detach().to("cpu", torch.float64).numpy()
    assert values.shape == expected.shape, f"shape {values.shape}, expected {expected.shape}"
    if not expected.size:
        return
    assert np.isfinite(expected).all(), "the oracle's own result is not finite"
    limit = tolerance(dtype)
    magnitude = np.abs(expected).max() if scale is None else scale
    kind = torch.finfo(actual.dtype)
    step = kind.smallest_normal * kind.eps
    excess = np.abs(values - expected) - (limit.rtol * np.abs(expected) + limit.atol * magnitude + step / 2)
    assert np.isfinite(values).all(), f"{np.count_nonzero(~np.isfinite(values))} values are not finite"
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert excess[worst] <= 0, (
        f"at {tuple(map(int, worst))}: {values[worst]!r}, expected {expected[worst]!r} "
        f"(rtol {limit.rtol}, atol {limit.atol} * {magnitude:.3g}; "
        f"{np.count_nonzero(excess > 0)} of {excess.size} are off)"
    )
