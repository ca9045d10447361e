"""`nearest_distance` on CUDA tensors: products find the two best entries, differences decide.

The memory is shared out: each program holds some latents against its part of the entries and writes the two best of
them. A second kernel takes the two best of all parts and decides between them by their exact differences.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

FEW = 512  # latents, up to which tiles have fewer rows: else there are too few programs for a GPU
FEW_ROWS, ROWS, COLS, DEPTH = 16, 64, 64, 32  # of a tile: latents, entries, numbers taken at a time
PARTS = 32  # most parts of the memory
WARPS = 4
LATENTS, LENGTH = 2, 512  # of a tile of the second kernel


def nearest(z: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (B,) and index (B,) of the nearest of `memory` (L, K) to each of `z` (B, K)."""
    distance = torch.empty(len(z), dtype=z.dtype, device=z.device)
    index = torch.empty(len(z), dtype=torch.int64, device=z.device)
    if len(z):
        centre = memory.mean(0, dtype=torch.float32)  # distances do not change; products round to less
        rows = FEW_ROWS if len(z) <= FEW else ROWS
        parts = min(triton.cdiv(len(memory), COLS), PARTS)
        scores = torch.empty((len(z), 2 * parts), dtype=torch.float32, device=z.device)
        entries = torch.empty((len(z), 2 * parts), dtype=torch.int32, device=z.device)
        shape = (len(z), len(memory), z.shape[1])
        strides = (*z.stride(), *memory.stride())
        _two_best[(triton.cdiv(len(z), rows), parts)](
            z, memory, centre, scores, entries, *shape, *strides, parts,
            ROWS=rows, COLS=COLS, DEPTH=DEPTH, num_warps=WARPS,
        )  # fmt: skip
        _nearest[(triton.cdiv(len(z), LATENTS),)](
            z, memory, centre, scores, entries, distance, index, *shape, *strides, parts,
            LATENTS=LATENTS, LENGTH=LENGTH, FOUND=triton.next_power_of_2(2 * parts),
        )  # fmt: skip
    return distance, index


@triton.jit
def _two_best(
    z, memory, centre, scores, entries, B, L, K, z_b, z_k, m_l, m_k, parts,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Of every `parts`-th tile of entries, for each latent the two with the least |m|^2 - 2 z.m, and that number."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1)
    z_row = z + row.to(tl.int64)[:, None] * z_b
    there = row < B
    infinity = float("inf")
    best = tl.full((ROWS,), infinity, tl.float32)
    second = tl.full((ROWS,), infinity, tl.float32)
    at = tl.zeros((ROWS,), tl.int32)
    at_second = tl.zeros((ROWS,), tl.int32)
    for start in range(part * COLS, L, parts * COLS):
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
    to = (row.to(tl.int64) * parts + part) * 2
    tl.store(scores + to, best, mask=there)
    tl.store(scores + to + 1, second, mask=there)
    tl.store(entries + to, at, mask=there)
    tl.store(entries + to + 1, at_second, mask=there)


@triton.jit
def _nearest(
    z, memory, centre, scores, entries, distance, index, B, L, K, z_b, z_k, m_l, m_k, parts,
    LATENTS: tl.constexpr, LENGTH: tl.constexpr, FOUND: tl.constexpr,
):  # fmt: skip
    """Of the two best of all parts, the nearer by its exact distance."""
    row = tl.program_id(0) * LATENTS + tl.arange(0, LATENTS)
    there = row < B
    one = tl.arange(0, FOUND)[None, :]
    written = there[:, None] & (one < 2 * parts)
    place = row.to(tl.int64)[:, None] * 2 * parts + one
    score = tl.load(scores + place, mask=written, other=float("inf"))
    entry = tl.load(entries + place, mask=written, other=0)
    where = tl.argmin(score, 1)[:, None]
    at = tl.sum(tl.where(one == where, entry, 0), 1)
    where = tl.argmin(tl.where(one == where, float("inf"), score), 1)[:, None]
    at_second = tl.sum(tl.where(one == where, entry, 0), 1)

    z_row = z + row.to(tl.int64)[:, None] * z_b
    m_first = memory + at.to(tl.int64)[:, None] * m_l
    m_second = memory + at_second.to(tl.int64)[:, None] * m_l
    exact = tl.zeros((LATENTS,), tl.float32)
    exact_second = tl.zeros((LATENTS,), tl.float32)
    for depth in range(0, K, LENGTH):
        k = depth + tl.arange(0, LENGTH)
        inside = there[:, None] & (k < K)[None, :]
        across = k.to(tl.int64)[None, :]
        x = tl.load(z_row + across * z_k, mask=inside, other=0.0).to(tl.float32)
        near = x - tl.load(m_first + across * m_k, mask=inside, other=0.0).to(tl.float32)
        far = x - tl.load(m_second + across * m_k, mask=inside, other=0.0).to(tl.float32)
        middle = 0.0 * tl.load(centre + k, mask=k < K, other=0.0)  # an entry that is not finite shows
        exact += tl.sum(near * near + middle[None, :], 1)
        exact_second += tl.sum(far * far + middle[None, :], 1)
    swap = exact_second < exact
    result = tl.sqrt(tl.where(swap, exact_second, exact))
    tl.store(distance + row, result.to(distance.dtype.element_ty), mask=there)
    tl.store(index + row, tl.where(swap, at_second, at).to(tl.int64), mask=there)
