"""`nearest_distance` on CPU tensors: a matrix product finds the candidates, exact differences settle them.

Where the CPU has bf16 matrix units the product runs on bfloat16. Its error is bounded, not guessed: with d
the measured rounding of z and m, |z.m - bf16 product| <= |dz| |m| + |z + dz| |dm| + 2^-8 |product|, so that
every entry that could be nearest becomes a candidate, and the result is that of the exact distances.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ._numba import compiled
from ._threads import spread

CHUNK = 1 << 23  # most numbers in a temporary


def nearest(z: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (B,) and index (B,) of the nearest of `memory` (L, K) to each of `z` (B, K)."""
    z, memory = z.detach().contiguous(), memory.detach().contiguous()
    distance, index = z.new_empty(len(z)), torch.empty(len(z), dtype=torch.int64)
    # Distances do not change; the products shrink, and their rounding with them. Any point in the middle will do.
    centre = memory[:: max(1, len(memory) // 64)].mean(0)
    multiply = _bfloat16 if z.dtype == torch.float32 and _matrix_units() else _full
    entries = multiply(memory, centre)
    rows = max(1, CHUNK // max(memory.shape))
    for first in range(0, len(z), rows):
        here = slice(first, first + rows)
        points = multiply(z[here], centre)
        product = points.values @ entries.values.mT
        arrays = (
            z[here].numpy(),
            memory.numpy(),
            product.to(z.dtype).numpy(),
            *points.bounds,
            *entries.bounds,
            points.unit,
            distance[here].numpy(),
            index[here].numpy(),
        )
        spread(partial(_settle_rows, arrays), len(product))
    return distance + 0 * entries.bounds[
        0
    ].sum(), index  # an entry that is not finite shows in every distance


def _settle_rows(arrays: tuple[object, ...], start: int, stop: int) -> None:
    _settle(start, stop, *arrays)


def _matrix_units() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_tile"))


class _Rounded:
    """Rows less their centre, rounded for the product, with norms and norms of the rounding."""

    def __init__(self, values: Tensor, norm: np.ndarray, error: np.ndarray, unit: float) -> None:
        self.values, self.bounds, self.unit = values, (norm, error), unit


def _full(x: Tensor, centre: Tensor) -> _Rounded:
    values = x - centre
    norm = torch.linalg.vector_norm(values, dim=1)
    unit = 2 * torch.finfo(x.dtype).eps * x.shape[1] ** 0.5  # sums of K terms in any order
    return _Rounded(values, norm.numpy(), (unit * norm).numpy(), 0.0)


def _bfloat16(x: Tensor, centre: Tensor) -> _Rounded:
    values = torch.empty(x.shape, dtype=torch.bfloat16)
    norm, error = torch.empty(len(x)), torch.empty(len(x))
    arrays = (x.numpy(), centre.numpy(), values.view(torch.uint16).numpy(), norm.numpy(), error.numpy())
    spread(lambda start, stop: _round(start, stop, *arrays), len(x))
    return _Rounded(values, norm.numpy(), error.numpy(), 2**-8)


@compiled
def _round(start, stop, x, centre, bits, norm, error):
    """Round x - centre to bfloat16, nearest even; norms of the rows and of their rounding."""
    exact, rounded = np.empty(x.shape[1], np.float32), np.empty(x.shape[1], np.float32)
    exact_bits, rounded_bits = exact.view(np.uint32), rounded.view(np.uint32)
    for i in range(start, stop):
        square = lost = np.float32(0)
        for k in range(x.shape[1]):
            exact[k] = x[i, k] - centre[k]
        for k in range(x.shape[1]):
            kept = (
                exact_bits[k] + np.uint32(0x7FFF) + ((exact_bits[k] >> np.uint32(16)) & np.uint32(1))
            ) >> np.uint32(16)
            bits[i, k] = kept
            rounded_bits[k] = kept << np.uint32(16)
        for k in range(x.shape[1]):
            square += exact[k] * exact[k]
            lost += (exact[k] - rounded[k]) * (exact[k] - rounded[k])
        norm[i], error[i] = np.sqrt(square), np.sqrt(lost)


@compiled
def _settle(start, stop, z, memory, product, z_norm, z_error, m_norm, m_error, unit, distance, index):
    """Scores |m|^2 - 2 z.m are known to within a bound; take the exact distance of all that may be least."""
    two, infinity = product.dtype.type(2), product.dtype.type(np.inf)
    slack = np.empty(len(memory), product.dtype)
    score = np.empty(len(memory), product.dtype)
    for i in range(start, stop):
        whole, lost, relative = z_norm[i], z_error[i], product.dtype.type(1.01 * unit)
        least = infinity
        for j in range(len(memory)):
            inner = product[i, j]
            slack[j] = two * (lost * m_norm[j] + (whole + lost) * m_error[j] + relative * abs(inner))
            score[j] = m_norm[j] * m_norm[j] - two * inner
            least = min(least, score[j] + slack[j])
        best, at = infinity, -1
        for j in range(len(memory)):
            if score[j] - slack[j] <= least:
                square = product.dtype.type(0)
                for k in range(z.shape[1]):
                    square += (z[i, k] - memory[j, k]) * (z[i, k] - memory[j, k])
                if square < best:
                    best, at = square, j
        distance[i] = np.sqrt(best) if at >= 0 else product.dtype.type(np.nan)
        index[i] = max(at, 0)
