"""`rearrange_textons` on CPU tensors: one picture at a time, its blocks and similarities in cache.

q  blocks of the skip [P, D]     b  textons [N, D]     both padded with zeros: rows to a multiple of 4, D by PAD
s  similarity [P, N]             s* after mixing       a, c  inverse norms of q and b
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math

import numpy as np
import torch
from torch import Tensor

from . import _checks
from ._numba import compiled, inlined
from ._threads import spread

EPS = 1e-12
PAD = 16  # zeros behind every block: with rows a power of two apart, a few cache lines would serve them all


def forward(
    skip: Tensor, memory_features: Tensor, size: int, mixing: Tensor | None, temperature: float
) -> Tensor:
    out = torch.empty_like(skip)
    kernel, kind = _mixing(mixing, skip)
    seen = np.empty(len(skip), kernel.dtype)
    arguments = (*_map(skip), *_map(memory_features), size, kernel, kind, 1 / temperature, *_map(out), seen)
    spread(lambda start, stop: _forward(start, stop, *arguments), len(skip))
    _checks.finite(torch.from_numpy(seen), _checks.MOST, skip=skip, memory_features=memory_features)
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
    kernel, kind = _mixing(mixing, skip)
    d_kernel = torch.zeros((len(skip) if kind else 0, *kernel.shape), dtype=skip.dtype)
    maps = (*_map(gradient), *_map(skip), *_map(memory_features))
    arguments = (size, kernel, kind, 1 / temperature, *_map(d_skip), *_map(d_memory), d_kernel.numpy())
    spread(lambda start, stop: _backward(start, stop, *maps, *arguments), len(skip))
    d_mixing = skip.new_empty(0) if mixing is None else d_kernel.sum(0).reshape(mixing.shape)
    return d_skip, d_memory, d_mixing


def _map(x: Tensor) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]:
    """(B, C, H, W) in any layout as its memory, flat from the first element, its shape and its strides."""
    span = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride())) if x.numel() else 0
    return x.detach().as_strided((span,), (1,)).numpy(), tuple(x.shape), x.stride()


def _mixing(mixing: Tensor | None, like: Tensor) -> tuple[np.ndarray, int]:
    """The mixing as [out, in, 3, 3], and which: 0 none, 1 shared (out = in = 1), 2 dense."""
    if mixing is None:
        return np.empty((1, 1, 3, 3), str(like.dtype).removeprefix("torch.")), 0
    kernel = mixing.detach().to(like.dtype).contiguous().numpy()
    return (kernel[None, None], 1) if kernel.ndim == 2 else (kernel, 2)


@compiled
def _forward(
    start, stop, skip, q_shape, q_strides, memory, b_shape, b_strides, size, kernel, kind, rate,
    out, out_shape, out_strides, seen,
):  # fmt: skip
    """`seen` gets the sum of each picture's similarities: a block that is not finite shows in all of its own."""
    h, w, D = q_shape[2] // size, q_shape[3] // size, size * size * q_shape[1] + PAD
    P, N = h * w, (b_shape[2] // size) * (b_shape[3] // size)
    planar = size == 2 and q_strides[3] == 1
    q = np.zeros((_up(P), D), skip.dtype)
    b = np.zeros((_up(N), D), skip.dtype)
    G = np.empty((_up(P), D), skip.dtype)
    s = np.empty((_up(P), _up(N)), skip.dtype)
    mixed = np.zeros((_up(P), _up(N)), skip.dtype)
    for i in range(start, stop):
        _pack(skip, i, q_shape, q_strides, size, planar, q)
        _pack(memory, i, b_shape, b_strides, size, planar, b)
        a, c = _inverse_norms(q), _inverse_norms(b)
        _inner(q, b, s)
        _softmax(s, a, c, P, N, rate)
        seen[i] = s.sum()
        if kind > 0:
            _mix(s, kernel, kind, h, w, N, mixed)
            _combine(mixed, b, G)
        else:
            _combine(s, b, G)
        _unpack(G, size, planar, out, i, out_shape, out_strides)


@compiled
def _backward(
    start, stop, gradient, g_shape, g_strides, skip, q_shape, q_strides, memory, b_shape, b_strides,
    size, kernel, kind, rate, d_skip, dq_shape, dq_strides, d_memory, db_shape, db_strides, d_kernel,
):  # fmt: skip
    """With dG the gradient: ds* = dG b^T, ds = mix^T(ds*), and through softmax and cosine E = d cosine * a c:
    dq = E b - (rows of E * cosine / (a c)) a^2 q;   db = s*^T dG + E^T q - (columns of the same) c^2 b.
    """
    h, w, D = q_shape[2] // size, q_shape[3] // size, size * size * q_shape[1] + PAD
    P, N = h * w, (b_shape[2] // size) * (b_shape[3] // size)
    planar = size == 2 and q_strides[3] == 1
    q = np.zeros((_up(P), D), skip.dtype)
    b = np.zeros((_up(N), D), skip.dtype)
    dG = np.zeros((_up(P), D), skip.dtype)
    dq = np.empty((_up(P), D), skip.dtype)
    db = np.empty((_up(N), D), skip.dtype)
    product = np.empty((_up(P), _up(N)), skip.dtype)
    s = np.empty((_up(P), _up(N)), skip.dtype)
    ds = np.empty((_up(P), _up(N)), skip.dtype)
    mixed = np.zeros((_up(P), _up(N)), skip.dtype)
    E = np.zeros((_up(P), _up(N)), skip.dtype)
    for i in range(start, stop):
        _pack(skip, i, q_shape, q_strides, size, planar, q)
        _pack(memory, i, b_shape, b_strides, size, planar, b)
        _pack(gradient, i, g_shape, g_strides, size, planar, dG)
        a, c = _inverse_norms(q), _inverse_norms(b)
        _inner(q, b, product)
        _copy(product, s)
        _softmax(s, a, c, P, N, rate)
        _inner(dG, b, ds)
        if kind > 0:
            _mix(s, kernel, kind, h, w, N, mixed)
            _mix_backward(s, ds, kernel, kind, h, w, N, d_kernel[i], E)
            _copy(E, ds)
        else:
            _copy(s, mixed)

        # through the softmax and the cosine
        along_p = np.zeros(_up(P), skip.dtype)
        along_n = np.zeros(_up(N), skip.dtype)
        E.fill(0)
        for p in range(P):
            mean = skip.dtype.type(0)
            for n in range(N):
                mean += s[p, n] * ds[p, n]
            for n in range(N):
                E[p, n] = s[p, n] * (ds[p, n] - mean) * (skip.dtype.type(rate) * a[p] * c[n])
                along_p[p] += E[p, n] * product[p, n]
                along_n[n] += E[p, n] * product[p, n]

        _combine(E, b, dq)
        for p in range(P):  # a norm below EPS is a constant, with no gradient
            if a[p] * skip.dtype.type(EPS) < 1:
                _subtract(along_p[p] * a[p] * a[p], q[p], dq[p])
        _combine(_turned(mixed), dG, db)
        _add_combine(_turned(E), q, db)
        for n in range(N):
            if c[n] * skip.dtype.type(EPS) < 1:
                _subtract(along_n[n] * c[n] * c[n], b[n], db[n])
        _unpack(dq, size, planar, d_skip, i, dq_shape, dq_strides)
        _unpack(db, size, planar, d_memory, i, db_shape, db_strides)


@inlined
def _up(rows):
    return (rows + 3) // 4 * 4


@inlined
def _pack(x, image, shape, strides, size, planar, rows):
    """A picture's blocks from the memory of (B, C, H, W), one a row.

    The order within a block is (row, column, channel), or with `planar`, where K = 2, (channel, row, column):
    as in memory, which is read from end to end. An index into a slice that counts up from 0 needs no check
    for a negative one, and only without it are such loops vectorised.
    """
    _, C, H, W = shape
    w, step = W // size, strides[1]
    if planar and strides[3] == 1:
        for c in range(C):
            for y in range(H // 2):
                at = image * strides[0] + c * step + 2 * y * strides[2]
                upper, lower = x[at : at + W], x[at + strides[2] : at + strides[2] + W]
                for z in range(w):
                    row = rows[y * w + z]
                    row[4 * c], row[4 * c + 1] = upper[2 * z], upper[2 * z + 1]
                    row[4 * c + 2], row[4 * c + 3] = lower[2 * z], lower[2 * z + 1]
        return
    for y in range(H):
        for z in range(W):
            row = rows[(y // size) * w + z // size]
            k, at = (y % size) * size + z % size, image * strides[0] + y * strides[2] + z * strides[3]
            if planar:
                for c in range(C):
                    row[4 * c + k] = x[at + c * step]
            elif step == 1:
                source, target = x[at : at + C], row[k * C : k * C + C]
                for c in range(C):
                    target[c] = source[c]
            else:
                for c in range(C):
                    row[k * C + c] = x[at + c * step]


@inlined
def _unpack(rows, size, planar, x, image, shape, strides):
    """The reverse of `_pack`."""
    _, C, H, W = shape
    w, step = W // size, strides[1]
    if planar and strides[3] == 1:
        flat, D = rows.reshape(-1), rows.shape[1]
        for c in range(C):
            for y in range(H // 2):
                at = image * strides[0] + c * step + 2 * y * strides[2]
                upper, lower = x[at : at + W], x[at + strides[2] : at + strides[2] + W]
                for z in range(w):
                    to = (y * w + z) * D + 4 * c
                    block = flat[to : to + 4]
                    upper[2 * z], upper[2 * z + 1] = block[0], block[1]
                    lower[2 * z], lower[2 * z + 1] = block[2], block[3]
        return
    for y in range(H):
        for z in range(W):
            row = rows[(y // size) * w + z // size]
            k, at = (y % size) * size + z % size, image * strides[0] + y * strides[2] + z * strides[3]
            if planar:
                for c in range(C):
                    x[at + c * step] = row[4 * c + k]
            elif step == 1:
                source, target = row[k * C : k * C + C], x[at : at + C]
                for c in range(C):
                    target[c] = source[c]
            else:
                for c in range(C):
                    x[at + c * step] = row[k * C + c]


@inlined
def _inverse_norms(rows):
    inverse = np.empty(len(rows), rows.dtype)
    for p in range(len(rows)):
        row = rows[p]
        square = rows.dtype.type(0)
        for d in range(len(row)):
            square += row[d] * row[d]
        norm = math.sqrt(square)
        inverse[p] = 1 / (rows.dtype.type(EPS) if norm < rows.dtype.type(EPS) else norm)
        if norm == np.inf:  # too large: it must show, as NaN does
            inverse[p] = np.nan
    return inverse


@inlined
def _inner(x, y, out):
    """out = x y^T, in tiles of 4 x 4: 8 loads to 16 multiply-adds."""
    for i in range(0, len(x), 4):
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(0, len(y), 4):
            y0, y1, y2, y3 = y[j], y[j + 1], y[j + 2], y[j + 3]
            o = x.dtype.type(0)
            a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = o
            a20 = a21 = a22 = a23 = a30 = a31 = a32 = a33 = o
            for d in range(x.shape[1]):
                u0, u1, u2, u3 = x0[d], x1[d], x2[d], x3[d]
                v0, v1, v2, v3 = y0[d], y1[d], y2[d], y3[d]
                a00 += u0 * v0
                a01 += u0 * v1
                a02 += u0 * v2
                a03 += u0 * v3
                a10 += u1 * v0
                a11 += u1 * v1
                a12 += u1 * v2
                a13 += u1 * v3
                a20 += u2 * v0
                a21 += u2 * v1
                a22 += u2 * v2
                a23 += u2 * v3
                a30 += u3 * v0
                a31 += u3 * v1
                a32 += u3 * v2
                a33 += u3 * v3
            out[i, j], out[i, j + 1], out[i, j + 2], out[i, j + 3] = a00, a01, a02, a03
            out[i + 1, j], out[i + 1, j + 1], out[i + 1, j + 2], out[i + 1, j + 3] = a10, a11, a12, a13
            out[i + 2, j], out[i + 2, j + 1], out[i + 2, j + 2], out[i + 2, j + 3] = a20, a21, a22, a23
            out[i + 3, j], out[i + 3, j + 1], out[i + 3, j + 2], out[i + 3, j + 3] = a30, a31, a32, a33


@inlined
def _combine(weights, rows, out):
    """out = weights @ rows"""
    out.fill(0)
    _add_combine(weights, rows, out)


@inlined
def _add_combine(weights, rows, out):
    """out += weights @ rows, in tiles of 4 x 4."""
    for i in range(0, len(out), 4):
        o0, o1, o2, o3 = out[i], out[i + 1], out[i + 2], out[i + 3]
        for j in range(0, len(rows), 4):
            r0, r1, r2, r3 = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
            w00, w01, w02, w03 = weights[i, j], weights[i, j + 1], weights[i, j + 2], weights[i, j + 3]
            w10, w11, w12, w13 = (
                weights[i + 1, j],
                weights[i + 1, j + 1],
                weights[i + 1, j + 2],
                weights[i + 1, j + 3],
            )
            w20, w21, w22, w23 = (
                weights[i + 2, j],
                weights[i + 2, j + 1],
                weights[i + 2, j + 2],
                weights[i + 2, j + 3],
            )
            w30, w31, w32, w33 = (
                weights[i + 3, j],
                weights[i + 3, j + 1],
                weights[i + 3, j + 2],
                weights[i + 3, j + 3],
            )
            for d in range(out.shape[1]):
                v0, v1, v2, v3 = r0[d], r1[d], r2[d], r3[d]
                o0[d] += w00 * v0 + w01 * v1 + w02 * v2 + w03 * v3
                o1[d] += w10 * v0 + w11 * v1 + w12 * v2 + w13 * v3
                o2[d] += w20 * v0 + w21 * v1 + w22 * v2 + w23 * v3
                o3[d] += w30 * v0 + w31 * v1 + w32 * v2 + w33 * v3


@inlined
def _copy(x, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j]


@inlined
def _turned(x):
    out = np.empty((x.shape[1], x.shape[0]), x.dtype)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j, i] = x[i, j]
    return out


@inlined
def _subtract(factor, row, out):
    for d in range(len(row)):
        out[d] -= factor * row[d]


@inlined
def _softmax(s, a, c, P, N, rate):
    """Inner products -> similarities, in place; 0 in the padding.

    The greatest cosine is taken off first: at a low temperature exp((d - 1) / t) is 0 for every d far below 1.
    """
    per = s.dtype.type(rate)
    for p in range(len(s)):
        total = s.dtype.type(0)
        for n in range(N):
            s[p, n] = s[p, n] * a[p] * c[n]
        most = s[p, 0]
        for n in range(1, N):
            most = max(most, s[p, n])
        for n in range(N):
            s[p, n] = math.exp((s[p, n] - most) * per)
            total += s[p, n]
        for n in range(s.shape[1]):
            s[p, n] = s[p, n] / total if p < P and n < N else s.dtype.type(0)


@inlined
def _mix(s, kernel, kind, h, w, N, out):
    """s* = s convolved over the places (3 x 3, zero padding)."""
    out.fill(0)
    for y in range(h):
        for x in range(w):
            for m in range(max(0, 1 - y), min(3, h + 1 - y)):
                for n in range(max(0, 1 - x), min(3, w + 1 - x)):
                    source, target = s[(y + m - 1) * w + x + n - 1], out[y * w + x]
                    if kind == 1:
                        for j in range(N):
                            target[j] += kernel[0, 0, m, n] * source[j]
                    else:
                        for i in range(N):
                            for j in range(N):
                                target[i] += kernel[i, j, m, n] * source[j]


@inlined
def _mix_backward(s, d_mixed, kernel, kind, h, w, N, d_kernel, ds):
    """Gradients of `_mix` to s (written) and to the kernel (added)."""
    ds.fill(0)
    for y in range(h):
        for x in range(w):
            for m in range(max(0, 1 - y), min(3, h + 1 - y)):
                for n in range(max(0, 1 - x), min(3, w + 1 - x)):
                    place = (y + m - 1) * w + x + n - 1
                    source, d_source, d_target = s[place], ds[place], d_mixed[y * w + x]
                    if kind == 1:
                        for j in range(N):
                            d_source[j] += kernel[0, 0, m, n] * d_target[j]
                            d_kernel[0, 0, m, n] += d_target[j] * source[j]
                    else:
                        for i in range(N):
                            for j in range(N):
                                d_source[j] += kernel[i, j, m, n] * d_target[i]
                                d_kernel[i, j, m, n] += d_target[i] * source[j]
