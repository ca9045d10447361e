"""`nearest_distance` on CUDA tensors: one pass over the memory finds the two best, differences decide."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLS, DEPTH = 64, 64, 64


def nearest(z: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (B,) and index (B,) of the nearest of `memory` (L, K) to each of `z` (B, K)."""
    distance = torch.empty(len(z), dtype=z.dtype, device=z.device)
    index = torch.empty(len(z), dtype=torch.int64, device=z.device)
    if len(z):
        centre = memory.mean(
            0, dtype=torch.float32
        )  # distances do not change; the rounding of products shrinks
        grid = (triton.cdiv(len(z), ROWS),)
        shape = (len(z), len(memory), z.shape[1])
        strides = (*z.stride(), *memory.stride())
        tiles = {"ROWS": ROWS, "COLS": COLS, "DEPTH": DEPTH}
        _nearest[grid](z, memory, centre, distance, index, *shape, *strides, **tiles)
    return distance, index


@triton.jit
def _nearest(
    z, memory, centre, distance, index, B, L, K, z_b, z_k, m_l, m_k,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    z_row = z + row.to(tl.int64)[:, None] * z_b
    there = row < B
    infinity = float("inf")
    best = tl.full((ROWS,), infinity, tl.float32)
    second = tl.full((ROWS,), infinity, tl.float32)
    at = tl.zeros((ROWS,), tl.int32)
    at_second = tl.zeros((ROWS,), tl.int32)
    for start in range(0, L, COLS):
        entry = start + tl.arange(0, COLS)
        m_row = memory + entry.to(tl.int64)[:, None] * m_l
        inner = tl.zeros((ROWS, COLS), tl.float32)
        square = tl.zeros((COLS,), tl.float32)
        for depth in range(0, K, DEPTH):
            k = depth + tl.arange(0, DEPTH)
            middle = tl.load(centre + k, mask=k < K, other=0.0)[None, :]
            inside = (k < K)[None, :]
            x = tl.load(z_row + k.to(tl.int64)[None, :] * z_k, mask=there[:, None] & inside, other=0.0)
            y = tl.load(m_row + k.to(tl.int64)[None, :] * m_k, mask=(entry < L)[:, None] & inside, other=0.0)
            x, y = x.to(tl.float32) - middle, y.to(tl.float32) - middle
            inner = tl.dot(x, tl.trans(y), inner, input_precision="tf32x3")
            square += tl.sum(y * y, 1)
        score = tl.where((entry < L)[None, :], square[None, :] - 2.0 * inner, infinity)
        for _ in tl.static_range(2):  # the two least of this tile into the two least so far
            least, where = tl.min(score, 1), tl.argmin(score, 1)
            found = start + where
            first, next_best = least < best, least < second
            at_second = tl.where(first, at, tl.where(next_best, found, at_second))
            second = tl.where(first, best, tl.where(next_best, least, second))
            at, best = tl.where(first, found, at), tl.where(first, least, best)
            score = tl.where(tl.arange(0, COLS)[None, :] == where[:, None], infinity, score)
    exact = tl.zeros((ROWS,), tl.float32)
    exact_second = tl.zeros((ROWS,), tl.float32)
    for depth in range(0, K, DEPTH):
        k = depth + tl.arange(0, DEPTH)
        inside = there[:, None] & (k < K)[None, :]
        across = k.to(tl.int64)[None, :] * m_k
        x = tl.load(z_row + k.to(tl.int64)[None, :] * z_k, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(memory + at.to(tl.int64)[:, None] * m_l + across, mask=inside, other=0.0).to(tl.float32)
        exact += tl.sum((x - y) * (x - y), 1)
        y = tl.load(memory + at_second.to(tl.int64)[:, None] * m_l + across, mask=inside, other=0.0)
        exact_second += tl.sum((x - y.to(tl.float32)) * (x - y.to(tl.float32)), 1)
    swap = exact_second < exact
    result = tl.sqrt(tl.where(swap, exact_second, exact))
    tl.store(distance + row, result.to(distance.dtype.element_ty), mask=there)
    tl.store(index + row, tl.where(swap, at_second, at).to(tl.int64), mask=there)
