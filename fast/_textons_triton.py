"""`rearrange_textons` on CUDA tensors.

q  blocks of the skip [P, D]     b  textons [N, D]     a, c  inverse norms of q and b     s  similarity
Blocks are index arithmetic on the feature maps, in either memory format. The softmax takes off the greatest
cosine: at a low temperature exp((d - 1) / t) is 0 for every d far below 1. Sums are float32; offsets into a
tensor int64.

A picture of up to `SMALL` places and textons stays on chip whole, several pictures to a program where they
are tiny (a matrix product has at least 16 rows). Larger ones go tile by tile, the cosines computed again for
each part of D: the similarities are never in memory, at the price of speed. Mixing is part of the small kernels;
for large pictures the shared kernel is applied to the result, where it commutes with the deconvolution (see
`textons`).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._dispatch import TRITON_SMALL

EPS = tl.constexpr(1e-12)
SMALL = TRITON_SMALL
NO_TEXTON = tl.constexpr(-2.0)  # below every cosine, rounding included
ROWS, COLS = 64, 64  # places and textons in a tile of the large kernels
DEPTH = 64  # numbers of a block taken at a time
PART = 256  # numbers of a block that a program of the large kernels writes
WARPS = 4  # of a program of the large kernels


def forward(
    skip: Tensor, memory_features: Tensor, size: int, mixing: Tensor | None, temperature: float
) -> Tensor:
    out = torch.empty_like(skip)
    call = _Call(skip, memory_features, size, temperature)
    if not call.batch:
        return out
    if call.small:
        kernel = skip if mixing is None else mixing.contiguous()
        _small_forward[(call.programs,)](
            skip,
            memory_features,
            out,
            kernel,
            *call.geometry,
            *out.stride(),
            MIXING=_kind(mixing),
            **call.shape,
        )
    else:
        grid = (call.batch, triton.cdiv(call.places, ROWS), triton.cdiv(call.length, PART))
        _large_forward[grid](skip, memory_features, out, *call.geometry, *out.stride(), **call.tiles)
    return out


def backward(
    gradient: Tensor,
    skip: Tensor,
    memory_features: Tensor,
    size: int,
    mixing: Tensor | None,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to skip, memory_features and mixing (empty without mixing)."""
    d_skip, d_memory = torch.empty_like(skip), torch.empty_like(memory_features)
    d_mixing = skip.new_empty(0) if mixing is None else torch.zeros_like(mixing)
    call = _Call(skip, memory_features, size, temperature)
    if not call.batch:
        return d_skip, d_memory, d_mixing
    strides = (*gradient.stride(), *d_skip.stride(), *d_memory.stride())
    if call.small:
        kind = _kind(mixing)
        kernel = skip if mixing is None else mixing.contiguous()
        taps = (0, 1, call.textons**2)[kind]
        parts = torch.empty((call.batch, 9 * taps), dtype=torch.float32, device=skip.device)  # one a picture
        _small_backward[(call.programs,)](
            gradient,
            skip,
            memory_features,
            d_skip,
            d_memory,
            kernel,
            parts,
            *call.geometry,
            *strides,
            MIXING=kind,
            **call.shape,
        )
        if mixing is not None:
            total = parts.sum(0).reshape(9, -1)
            d_mixing = total.T.reshape(mixing.shape).to(mixing.dtype)
        return d_skip, d_memory, d_mixing
    sums = torch.empty((3, call.batch, call.places), dtype=torch.float32, device=skip.device)
    places, textons, parts_of_d = (
        triton.cdiv(n, t) for n, t in ((call.places, ROWS), (call.textons, COLS), (call.length, PART))
    )
    common = (gradient, skip, memory_features, d_skip, d_memory, sums, *call.geometry, *strides)
    _large_sums[(call.batch, places)](*common, **call.tiles)
    _large_to_skip[(call.batch, places, parts_of_d)](*common, **call.tiles)
    _large_to_memory[(call.batch, textons, parts_of_d)](*common, **call.tiles)
    return d_skip, d_memory, d_mixing


def _kind(mixing: Tensor | None) -> int:
    """0 none, 1 shared, 2 dense."""
    return 0 if mixing is None else 1 if mixing.ndim == 2 else 2


class _Call:
    """The geometry of one call, as the kernels take it."""

    def __init__(self, skip: Tensor, memory_features: Tensor, size: int, temperature: float) -> None:
        self.batch, channels, height, width = skip.shape
        memory_height, memory_width = memory_features.shape[2:]
        self.places = (height // size) * (width // size)
        self.textons = (memory_height // size) * (memory_width // size)
        self.length = size * size * channels
        self.small = max(self.places, self.textons) <= SMALL
        together = max(1, 16 // max(self.places, self.textons))  # pictures to a program
        self.programs = triton.cdiv(self.batch, together)
        self.geometry = (
            self.batch,
            channels,
            height // size,
            width // size,
            memory_height // size,
            memory_width // size,
            1 / temperature,
            *skip.stride(),
            *memory_features.stride(),
        )
        common = {
            "K": size,
            "CHANNELS_LAST": skip.stride(1) == 1,
            "DEPTH": DEPTH,
            "PRECISION": "tf32x3" if skip.dtype == torch.float32 else "tf32",  # tf32 holds half types exactly
        }
        self.shape = common | {
            "TOGETHER": together,
            "ROWS": max(16, triton.next_power_of_2(together * self.places)),
            "COLS": max(16, triton.next_power_of_2(together * self.textons)),
        }
        self.tiles = common | {"ROWS": ROWS, "COLS": COLS, "PART": PART, "num_warps": WARPS}


@triton.jit
def _element(d, C, stride_c, stride_h, stride_w, K: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Offset of number d of a block, in the order in which it lies in memory."""
    if CHANNELS_LAST:
        c, at = d % C, d // C
    else:
        c, at = d // (K * K), d % (K * K)
    return c.to(tl.int64) * stride_c + (at // K).to(tl.int64) * stride_h + (at % K).to(tl.int64) * stride_w


@triton.jit
def _corner(image, block, w, stride_b, stride_h, stride_w, K: tl.constexpr):
    """Offset of the first number of a block."""
    row, col = K * (block // w), K * (block % w)
    return image.to(tl.int64) * stride_b + row.to(tl.int64) * stride_h + col.to(tl.int64) * stride_w


@triton.jit
def _load(pointer, corners, elements, valid, inside):
    mask = valid[:, None] & inside[None, :]
    return tl.load(pointer + corners[:, None] + elements[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store(pointer, corners, elements, valid, inside, value):
    mask = valid[:, None] & inside[None, :]
    tl.store(pointer + corners[:, None] + elements[None, :], value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _products(
    x, x_corner, x_valid, x_c, x_h, x_w, y, y_corner, y_valid, y_c, y_h, y_w, C,
    K: tl.constexpr, CHANNELS_LAST: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """x y^T of blocks [ROWS, D] and [COLS, D], and their squared norms."""
    inner = tl.zeros((ROWS, COLS), tl.float32)
    xx = tl.zeros((ROWS,), tl.float32)
    yy = tl.zeros((COLS,), tl.float32)
    for start in range(0, K * K * C, DEPTH):
        d = start + tl.arange(0, DEPTH)
        inside = d < K * K * C
        tx = _load(x, x_corner, _element(d, C, x_c, x_h, x_w, K, CHANNELS_LAST), x_valid, inside)
        ty = _load(y, y_corner, _element(d, C, y_c, y_h, y_w, K, CHANNELS_LAST), y_valid, inside)
        inner = tl.dot(tx, tl.trans(ty), inner, input_precision=PRECISION)
        xx += tl.sum(tx * tx, 1)
        yy += tl.sum(ty * ty, 1)
    return inner, xx, yy


@triton.jit
def _inverse(square):
    """1 / norm, the norm no smaller than EPS; NaN where the square was too large for float32: it must show."""
    inverse = 1.0 / tl.maximum(tl.sqrt(square), EPS)
    return tl.where(square == float("inf"), float("nan"), inverse)


@triton.jit
def _neighbours(row, image, place, valid, h, w, m, n):
    """[ROWS, ROWS], 1 where the column is the place (m - 1, n - 1) from the row's, in the same picture."""
    y, x = place // w + m - 1, place % w + n - 1
    there = (y >= 0) & (y < h) & (x >= 0) & (x < w) & valid
    source = image * h * w + y * w + x
    return ((source[:, None] == row[None, :]) & there[:, None]).to(tl.float32)


@triton.jit
def _taps(kernel, tap, col, N, within, MIXING: tl.constexpr):
    """The mixing weights of one offset: a number, or [in, out] between the textons of the same picture."""
    if MIXING == 1:
        return tl.load(kernel + tap).to(tl.float32)
    else:
        at = ((col % N)[None, :] * N + (col % N)[:, None]) * 9 + tap
        return tl.load(kernel + at, mask=within, other=0.0).to(tl.float32)


@triton.jit
def _small_similarity(inner, xx, yy, rate, same):
    cosine = tl.where(same, inner * _inverse(xx)[:, None] * _inverse(yy)[None, :], NO_TEXTON)
    e = tl.where(same, tl.exp((cosine - tl.max(cosine, 1)[:, None]) * rate), 0.0)
    total = tl.sum(e, 1)
    return e / tl.where(total == 0.0, 1.0, total)[:, None]


@triton.jit
def _small_forward(
    q, b, out, kernel, B, C, h, w, hm, wm, rate, q_b, q_c, q_h, q_w, b_b, b_c, b_h, b_w, o_b, o_c, o_h, o_w,
    MIXING: tl.constexpr, K: tl.constexpr, CHANNELS_LAST: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, TOGETHER: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    P, N = h * w, hm * wm
    row, col = tl.arange(0, ROWS), tl.arange(0, COLS)
    first = tl.program_id(0) * TOGETHER
    q_image, b_image = row // P, col // N
    q_valid = (q_image < TOGETHER) & (first + q_image < B)
    b_valid = (b_image < TOGETHER) & (first + b_image < B)
    same = (q_image[:, None] == b_image[None, :]) & q_valid[:, None] & b_valid[None, :]
    q_corner = _corner(first + q_image, row % P, w, q_b, q_h, q_w, K)
    b_corner = _corner(first + b_image, col % N, wm, b_b, b_h, b_w, K)
    o_corner = _corner(first + q_image, row % P, w, o_b, o_h, o_w, K)

    inner, xx, yy = _products(
        q, q_corner, q_valid, q_c, q_h, q_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
        K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
    )  # fmt: skip
    s = _small_similarity(inner, xx, yy, rate, same)
    if MIXING > 0:
        within = (b_image[:, None] == b_image[None, :]) & b_valid[:, None] & b_valid[None, :]
        mixed = tl.zeros((ROWS, COLS), tl.float32)
        for tap in range(9):
            near = _neighbours(row, q_image, row % P, q_valid, h, w, tap // 3, tap % 3)
            shifted = tl.dot(near, s, input_precision="ieee")
            weight = _taps(kernel, tap, col, N, within, MIXING)
            if MIXING == 1:
                mixed += shifted * weight
            else:
                mixed = tl.dot(shifted, weight, mixed, input_precision="ieee")
        s = mixed
    for start in range(0, K * K * C, DEPTH):
        d = start + tl.arange(0, DEPTH)
        inside = d < K * K * C
        tb = _load(b, b_corner, _element(d, C, b_c, b_h, b_w, K, CHANNELS_LAST), b_valid, inside)
        G = tl.dot(s, tb, input_precision=PRECISION)
        _store(out, o_corner, _element(d, C, o_c, o_h, o_w, K, CHANNELS_LAST), q_valid, inside, G)


@triton.jit
def _small_backward(
    g, q, b, dq, db, kernel, parts, B, C, h, w, hm, wm, rate,
    q_b, q_c, q_h, q_w, b_b, b_c, b_h, b_w, g_b, g_c, g_h, g_w,
    dq_b, dq_c, dq_h, dq_w, db_b, db_c, db_h, db_w,
    MIXING: tl.constexpr, K: tl.constexpr, CHANNELS_LAST: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, TOGETHER: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    P, N = h * w, hm * wm
    row, col = tl.arange(0, ROWS), tl.arange(0, COLS)
    first = tl.program_id(0) * TOGETHER
    q_image, b_image = row // P, col // N
    q_valid = (q_image < TOGETHER) & (first + q_image < B)
    b_valid = (b_image < TOGETHER) & (first + b_image < B)
    same = (q_image[:, None] == b_image[None, :]) & q_valid[:, None] & b_valid[None, :]
    q_corner = _corner(first + q_image, row % P, w, q_b, q_h, q_w, K)
    b_corner = _corner(first + b_image, col % N, wm, b_b, b_h, b_w, K)
    g_corner = _corner(first + q_image, row % P, w, g_b, g_h, g_w, K)

    inner, xx, yy = _products(
        q, q_corner, q_valid, q_c, q_h, q_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
        K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
    )  # fmt: skip
    ds, _, _ = _products(
        g, g_corner, q_valid, g_c, g_h, g_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
        K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
    )  # fmt: skip
    s = _small_similarity(inner, xx, yy, rate, same)
    ds = tl.where(same, ds, 0.0)
    mixed = s
    if MIXING > 0:
        within = (b_image[:, None] == b_image[None, :]) & b_valid[:, None] & b_valid[None, :]
        mixed = tl.zeros((ROWS, COLS), tl.float32)
        through = tl.zeros((ROWS, COLS), tl.float32)
        for tap in range(9):
            near = _neighbours(row, q_image, row % P, q_valid, h, w, tap // 3, tap % 3)
            shifted = tl.dot(near, s, input_precision="ieee")
            back = tl.dot(tl.trans(near), ds, input_precision="ieee")
            weight = _taps(kernel, tap, col, N, within, MIXING)
            if MIXING == 1:
                mixed += shifted * weight
                through += back * weight
                per_place = tl.sum(shifted * ds, 1)  # [ROWS]; a picture's part is the sum over its places
                own = tl.arange(0, 16)  # at most 16 pictures together
                part = tl.sum(tl.where(own[:, None] == q_image[None, :], per_place[None, :], 0.0), 1)
                tl.store(parts + (first + own) * 9 + tap, part, mask=(own < TOGETHER) & (first + own < B))
            else:
                mixed = tl.dot(shifted, weight, mixed, input_precision="ieee")
                through = tl.dot(back, tl.trans(weight), through, input_precision="ieee")
                part = tl.dot(tl.trans(ds), shifted, input_precision="ieee")  # [out, in]
                at = ((first + b_image).to(tl.int64) * 9 + tap) * N * N + (col % N) * N
                tl.store(parts + at[:, None] + (col % N)[None, :], part, mask=within)
        ds = tl.where(same, through, 0.0)

    a, c = _inverse(xx), _inverse(yy)
    E = s * (ds - tl.sum(s * ds, 1)[:, None]) * rate * a[:, None] * c[None, :]
    # a norm at its least value EPS is a constant, with no gradient
    along_q = tl.where(xx > EPS * EPS, tl.sum(E * inner, 1) * a * a, 0.0)
    along_b = tl.where(yy > EPS * EPS, tl.sum(E * inner, 0) * c * c, 0.0)
    dq_corner = _corner(first + q_image, row % P, w, dq_b, dq_h, dq_w, K)
    db_corner = _corner(first + b_image, col % N, wm, db_b, db_h, db_w, K)
    for start in range(0, K * K * C, DEPTH):
        d = start + tl.arange(0, DEPTH)
        inside = d < K * K * C
        tq = _load(q, q_corner, _element(d, C, q_c, q_h, q_w, K, CHANNELS_LAST), q_valid, inside)
        tb = _load(b, b_corner, _element(d, C, b_c, b_h, b_w, K, CHANNELS_LAST), b_valid, inside)
        tg = _load(g, g_corner, _element(d, C, g_c, g_h, g_w, K, CHANNELS_LAST), q_valid, inside)
        to_q = tl.dot(E, tb, input_precision=PRECISION) - along_q[:, None] * tq
        to_b = tl.dot(tl.trans(mixed), tg, input_precision=PRECISION)
        to_b = tl.dot(tl.trans(E), tq, to_b, input_precision=PRECISION) - along_b[:, None] * tb
        _store(dq, dq_corner, _element(d, C, dq_c, dq_h, dq_w, K, CHANNELS_LAST), q_valid, inside, to_q)
        _store(db, db_corner, _element(d, C, db_c, db_h, db_w, K, CHANNELS_LAST), b_valid, inside, to_b)


@triton.jit
def _large_exponentials(inner, xx, yy, b_valid, most, rate):
    """exp((cosine - greatest) / temperature) of one tile, 0 where there is no texton.

    The greatest of this and the tiles before is returned, too, and what sums from the tiles before are now worth.
    """
    cosine = tl.where(b_valid[None, :], inner * _inverse(xx)[:, None] * _inverse(yy)[None, :], NO_TEXTON)
    greatest = tl.maximum(most, tl.max(cosine, 1))
    e = tl.where(b_valid[None, :], tl.exp((cosine - greatest[:, None]) * rate), 0.0)
    return e, greatest, tl.exp((most - greatest) * rate)


@triton.jit
def _large_forward(
    q, b, out, B, C, h, w, hm, wm, rate, q_b, q_c, q_h, q_w, b_b, b_c, b_h, b_w, o_b, o_c, o_h, o_w,
    K: tl.constexpr, CHANNELS_LAST: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    P, N = h * w, hm * wm
    image = tl.program_id(0)
    place = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    q_valid = place < P
    q_corner = _corner(image, place, w, q_b, q_h, q_w, K)
    part = tl.program_id(2) * PART + tl.arange(0, PART)
    inside = part < K * K * C
    b_part = _element(part, C, b_c, b_h, b_w, K, CHANNELS_LAST)
    G = tl.zeros((ROWS, PART), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    most = tl.full((ROWS,), NO_TEXTON, tl.float32)
    for start in range(0, N, COLS):
        texton = start + tl.arange(0, COLS)
        b_valid = texton < N
        b_corner = _corner(image, texton, wm, b_b, b_h, b_w, K)
        inner, xx, yy = _products(
            q, q_corner, q_valid, q_c, q_h, q_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
            K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
        )  # fmt: skip
        e, most, left = _large_exponentials(inner, xx, yy, b_valid, most, rate)
        total = total * left + tl.sum(e, 1)
        tb = _load(b, b_corner, b_part, b_valid, inside)
        G = tl.dot(e, tb, G * left[:, None], input_precision=PRECISION)
    o_corner = _corner(image, place, w, o_b, o_h, o_w, K)
    _store(
        out, o_corner, _element(part, C, o_c, o_h, o_w, K, CHANNELS_LAST), q_valid, inside, G / total[:, None]
    )


@triton.jit
def _large_sums(
    g, q, b, dq, db, sums, B, C, h, w, hm, wm, rate,
    q_b, q_c, q_h, q_w, b_b, b_c, b_h, b_w, g_b, g_c, g_h, g_w,
    dq_b, dq_c, dq_h, dq_w, db_b, db_c, db_h, db_w,
    K: tl.constexpr, CHANNELS_LAST: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Per place: the greatest cosine, the softmax's denominator, and the mean of ds under s."""
    P, N = h * w, hm * wm
    image = tl.program_id(0)
    place = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    q_valid = place < P
    q_corner = _corner(image, place, w, q_b, q_h, q_w, K)
    g_corner = _corner(image, place, w, g_b, g_h, g_w, K)
    total = tl.zeros((ROWS,), tl.float32)
    mean = tl.zeros((ROWS,), tl.float32)
    most = tl.full((ROWS,), NO_TEXTON, tl.float32)
    for start in range(0, N, COLS):
        texton = start + tl.arange(0, COLS)
        b_valid = texton < N
        b_corner = _corner(image, texton, wm, b_b, b_h, b_w, K)
        inner, xx, yy = _products(
            q, q_corner, q_valid, q_c, q_h, q_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
            K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
        )  # fmt: skip
        ds, _, _ = _products(
            g, g_corner, q_valid, g_c, g_h, g_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
            K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
        )  # fmt: skip
        e, most, left = _large_exponentials(inner, xx, yy, b_valid, most, rate)
        total = total * left + tl.sum(e, 1)
        mean = mean * left + tl.sum(e * ds, 1)
    at = sums + image.to(tl.int64) * P + place
    tl.store(at, total, mask=q_valid)
    tl.store(at + B * P, mean / total, mask=q_valid)
    tl.store(at + 2 * B * P, most, mask=q_valid)


@triton.jit
def _large_gradient(inner, xx, yy, ds, total, mean, most, rate, valid):
    """s and E, d cosine times a c, of one tile."""
    a, c = _inverse(xx), _inverse(yy)
    cosine = tl.where(valid, inner * a[:, None] * c[None, :], NO_TEXTON)
    s = tl.where(valid, tl.exp((cosine - most[:, None]) * rate) / total[:, None], 0.0)
    return s, s * (ds - mean[:, None]) * rate * a[:, None] * c[None, :]


@triton.jit
def _large_to_skip(
    g, q, b, dq, db, sums, B, C, h, w, hm, wm, rate,
    q_b, q_c, q_h, q_w, b_b, b_c, b_h, b_w, g_b, g_c, g_h, g_w,
    dq_b, dq_c, dq_h, dq_w, db_b, db_c, db_h, db_w,
    K: tl.constexpr, CHANNELS_LAST: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    P, N = h * w, hm * wm
    image = tl.program_id(0)
    place = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    q_valid = place < P
    q_corner = _corner(image, place, w, q_b, q_h, q_w, K)
    g_corner = _corner(image, place, w, g_b, g_h, g_w, K)
    part = tl.program_id(2) * PART + tl.arange(0, PART)
    inside = part < K * K * C
    at = sums + image.to(tl.int64) * P + place
    total = tl.load(at, mask=q_valid, other=1.0)
    mean = tl.load(at + B * P, mask=q_valid, other=0.0)
    most = tl.load(at + 2 * B * P, mask=q_valid, other=0.0)
    b_part = _element(part, C, b_c, b_h, b_w, K, CHANNELS_LAST)
    to_q = tl.zeros((ROWS, PART), tl.float32)
    along = tl.zeros((ROWS,), tl.float32)
    square = tl.zeros((ROWS,), tl.float32)
    for start in range(0, N, COLS):
        texton = start + tl.arange(0, COLS)
        b_valid = texton < N
        b_corner = _corner(image, texton, wm, b_b, b_h, b_w, K)
        inner, xx, yy = _products(
            q, q_corner, q_valid, q_c, q_h, q_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
            K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
        )  # fmt: skip
        ds, _, _ = _products(
            g, g_corner, q_valid, g_c, g_h, g_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
            K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
        )  # fmt: skip
        valid = q_valid[:, None] & b_valid[None, :]
        _, E = _large_gradient(inner, xx, yy, ds, total, mean, most, rate, valid)
        to_q = tl.dot(E, _load(b, b_corner, b_part, b_valid, inside), to_q, input_precision=PRECISION)
        along += tl.sum(E * inner, 1)
        square = xx
    a = _inverse(square)
    along = tl.where(square > EPS * EPS, along * a * a, 0.0)
    to_q -= along[:, None] * _load(
        q, q_corner, _element(part, C, q_c, q_h, q_w, K, CHANNELS_LAST), q_valid, inside
    )
    dq_corner = _corner(image, place, w, dq_b, dq_h, dq_w, K)
    _store(dq, dq_corner, _element(part, C, dq_c, dq_h, dq_w, K, CHANNELS_LAST), q_valid, inside, to_q)


@triton.jit
def _large_to_memory(
    g, q, b, dq, db, sums, B, C, h, w, hm, wm, rate,
    q_b, q_c, q_h, q_w, b_b, b_c, b_h, b_w, g_b, g_c, g_h, g_w,
    dq_b, dq_c, dq_h, dq_w, db_b, db_c, db_h, db_w,
    K: tl.constexpr, CHANNELS_LAST: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    P, N = h * w, hm * wm
    image = tl.program_id(0)
    texton = tl.program_id(1) * COLS + tl.arange(0, COLS)
    b_valid = texton < N
    b_corner = _corner(image, texton, wm, b_b, b_h, b_w, K)
    part = tl.program_id(2) * PART + tl.arange(0, PART)
    inside = part < K * K * C
    q_part = _element(part, C, q_c, q_h, q_w, K, CHANNELS_LAST)
    g_part = _element(part, C, g_c, g_h, g_w, K, CHANNELS_LAST)
    to_b = tl.zeros((COLS, PART), tl.float32)
    along = tl.zeros((COLS,), tl.float32)
    square = tl.zeros((COLS,), tl.float32)
    for start in range(0, P, ROWS):
        place = start + tl.arange(0, ROWS)
        q_valid = place < P
        q_corner = _corner(image, place, w, q_b, q_h, q_w, K)
        g_corner = _corner(image, place, w, g_b, g_h, g_w, K)
        at = sums + image.to(tl.int64) * P + place
        total = tl.load(at, mask=q_valid, other=1.0)
        mean = tl.load(at + B * P, mask=q_valid, other=0.0)
        most = tl.load(at + 2 * B * P, mask=q_valid, other=0.0)
        inner, xx, yy = _products(
            q, q_corner, q_valid, q_c, q_h, q_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
            K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
        )  # fmt: skip
        ds, _, _ = _products(
            g, g_corner, q_valid, g_c, g_h, g_w, b, b_corner, b_valid, b_c, b_h, b_w, C,
            K, CHANNELS_LAST, DEPTH, PRECISION, ROWS, COLS,
        )  # fmt: skip
        valid = q_valid[:, None] & b_valid[None, :]
        s, E = _large_gradient(inner, xx, yy, ds, total, mean, most, rate, valid)
        to_b = tl.dot(
            tl.trans(s), _load(g, g_corner, g_part, q_valid, inside), to_b, input_precision=PRECISION
        )
        to_b = tl.dot(
            tl.trans(E), _load(q, q_corner, q_part, q_valid, inside), to_b, input_precision=PRECISION
        )
        along += tl.sum(E * inner, 0)
        square = yy
    c = _inverse(square)
    along = tl.where(square > EPS * EPS, along * c * c, 0.0)
    to_b -= along[:, None] * _load(
        b, b_corner, _element(part, C, b_c, b_h, b_w, K, CHANNELS_LAST), b_valid, inside
    )
    db_corner = _corner(image, texton, wm, db_b, db_h, db_w, K)
    _store(db, db_corner, _element(part, C, db_c, db_h, db_w, K, CHANNELS_LAST), b_valid, inside, to_b)
