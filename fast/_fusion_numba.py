"""The anomaly map on the CPU: a tile of the two pictures at a time, each pixel read once, a tile kept.

The formulas stand in `fusion`. The means of the tile are taken off s and d, so that variances lose no digits
far from 0. The inner loops run along rows of constant stride; LLVM makes vector instructions of them.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ._numba import compiled
from ._threads import spread

ROWS, COLS = 64, 128  # a tile
RADIUS = 5  # of the Gaussian
STRIDE = COLS + 2 * RADIUS  # a scratch row: the tile's columns and their halo


def anomaly_map(
    image: Tensor,
    reconstruction: Tensor,
    wanted: Sequence[bool],
    weights: Sequence[float],
    constants: tuple[float, float, float],
    *,
    fused: Tensor,
    maps: Tensor,
) -> None:
    """Fill fused (B, H, W) and, if there are any, maps (B, M, H, W) from pictures (B, C, H, W)."""
    x, y, out, kept = (t.detach().numpy() for t in (image, reconstruction, fused, maps))
    dtype = x.dtype.type
    taps = tuple(dtype(w) for w in weights[: RADIUS + 1])
    c0, c1, c2 = constants
    scaled = (dtype(9 * 4 * c0), dtype(2 * c1), dtype(2 * c2))
    batch, _, height, width = x.shape
    tiles = batch * -(-height // ROWS) * -(-width // COLS)
    spread(lambda start, stop: _tiles(start, stop, x, y, tuple(wanted), taps, scaled, out, kept), tiles)


def median_filter(maps: Tensor, window: int, *, filtered: Tensor) -> None:
    """Fill filtered with the median of maps, both (B, M, H, W), over window x window pixels, above 1."""
    x, out = maps.flatten(0, 1).numpy(), filtered.flatten(0, 1).numpy()
    spread(lambda start, stop: _medians(start, stop, x, window, out), x.shape[0] * x.shape[1])


@compiled
def _tiles(start, stop, x, y, wanted, taps, constants, fused, maps):
    kind = fused.dtype.type
    _, channels, height, width = x.shape
    down, across = -(-height // ROWS), -(-width // COLS)
    scratch = np.empty((ROWS + 2 * RADIUS) * STRIDE * 2, fused.dtype)
    s, d = scratch[: len(scratch) // 2], scratch[len(scratch) // 2 :]
    lines = np.empty((4, STRIDE), fused.dtype)
    mean_s, square_s, mean_d, square_d = lines[0], lines[1], lines[2], lines[3]
    sums = np.empty((3, ROWS, COLS), fused.dtype)
    share = kind(1) / kind(channels)
    for tile in range(start, stop):
        b, row, col = tile // (down * across), tile // across % down * ROWS, tile % across * COLS
        rows, cols = min(ROWS, height - row), min(COLS, width - col)
        n = cols + 2 * RADIUS
        sums[:] = 0
        for c in range(channels):
            _load(x[b, c], y[b, c], row, col, rows + 2 * RADIUS, n, s, d)
            shift_s, shift_d = _centre(s, rows + 2 * RADIUS, n), _centre(d, rows + 2 * RADIUS, n)
            for r in range(rows):
                if wanted[0]:
                    near = slice((r + RADIUS - 1) * STRIDE, (r + RADIUS + 2) * STRIDE)
                    _add_gms(s[near], d[near], cols, constants[0], sums[0, r])
                if wanted[1]:
                    window = slice(r * STRIDE, (r + 2 * RADIUS + 1) * STRIDE)
                    _down(s[window], n, taps, mean_s, square_s)
                    _down(d[window], n, taps, mean_d, square_d)
                    _add_ssim(
                        mean_s,
                        square_s,
                        mean_d,
                        square_d,
                        cols,
                        taps,
                        shift_s,
                        shift_d,
                        constants,
                        sums[1, r],
                    )
                if wanted[2]:
                    _add_square(d[(r + RADIUS) * STRIDE + RADIUS :], cols, shift_d, sums[2, r])
        for r in range(rows):
            out = fused[b, row + r, col : col + cols]
            out[:] = 1
            at = 0
            for m in range(3):
                if wanted[m]:
                    values = sums[m, r, :cols]
                    for j in range(cols):
                        values[j] *= share
                    if m == 2:
                        for j in range(cols):
                            values[j] = np.sqrt(values[j])
                    for j in range(cols):
                        out[j] *= values[j]
                    if maps.shape[1]:
                        maps[b, at, row + r, col : col + cols] = values
                    at += 1


@compiled
def _mirror(i, n):
    """Where pixel i of a line of n lies when the line is mirrored at both ends: c b a | a b c | c b a."""
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


@compiled
def _load(x, y, row, col, rows, n, s, d):
    """s, d = x + y, x - y over the tile at (row, col) of two planes with its halo, borders mirrored."""
    height, width = x.shape
    first = min(max(RADIUS - col, 0), n)
    last = max(min(width - col + RADIUS, n), first)  # first..last lies inside the picture
    for r in range(rows):
        i = _mirror(row - RADIUS + r, height)
        xr, yr = x[i], y[i]
        sr, dr = s[r * STRIDE : r * STRIDE + n], d[r * STRIDE : r * STRIDE + n]
        xi, yi = (
            xr[col - RADIUS + first : col - RADIUS + last],
            yr[col - RADIUS + first : col - RADIUS + last],
        )
        si, di = sr[first:last], dr[first:last]
        for j in range(last - first):
            si[j] = xi[j] + yi[j]
            di[j] = xi[j] - yi[j]
        for j in range(n - last + first):
            at = j if j < first else last + j - first
            k = _mirror(col - RADIUS + at, width)
            sr[at] = xr[k] + yr[k]
            dr[at] = xr[k] - yr[k]


@compiled
def _centre(a, rows, n):
    """Take the mean off the tile, and return it."""
    total = a.dtype.type(0)
    for r in range(rows):
        line = a[r * STRIDE : r * STRIDE + n]
        for j in range(n):
            total += line[j]
    total /= a.dtype.type(rows * n)
    for r in range(rows):
        line = a[r * STRIDE : r * STRIDE + n]
        for j in range(n):
            line[j] -= total
    return total


@compiled
def _down(window, n, taps, mean, square):
    """The Gaussian down each column of the rows in `window`, and of their squares."""
    for j in range(n):
        t = window[RADIUS * STRIDE + j]
        m = taps[RADIUS] * t
        q = taps[RADIUS] * (t * t)
        for k in range(RADIUS):
            a, b = window[k * STRIDE + j], window[(2 * RADIUS - k) * STRIDE + j]
            m += taps[k] * (a + b)
            q += taps[k] * (a * a + b * b)
        mean[j] = m
        square[j] = q


@compiled
def _add_ssim(mean_s, square_s, mean_d, square_d, n, taps, shift_s, shift_d, constants, total):
    """total += 1 - SSIM, after the Gaussian along the row."""
    _, c1, c2 = constants
    zero = mean_s.dtype.type(0)
    for j in range(n):
        ms, qs = taps[RADIUS] * mean_s[j + RADIUS], taps[RADIUS] * square_s[j + RADIUS]
        md, qd = taps[RADIUS] * mean_d[j + RADIUS], taps[RADIUS] * square_d[j + RADIUS]
        for i in range(RADIUS):
            ms += taps[i] * (mean_s[j + i] + mean_s[j + 2 * RADIUS - i])
            qs += taps[i] * (square_s[j + i] + square_s[j + 2 * RADIUS - i])
            md += taps[i] * (mean_d[j + i] + mean_d[j + 2 * RADIUS - i])
            qd += taps[i] * (square_d[j + i] + square_d[j + 2 * RADIUS - i])
        var_s, var_d = max(qs - ms * ms, zero), max(qd - md * md, zero)
        ms, md = ms + shift_s, md + shift_d
        k = ms * ms + md * md + c1
        top = k * var_d + (var_s - var_d + c2) * (md * md)
        total[j] += (top + top) / (k * (var_s + var_d + c2))


@compiled
def _add_gms(s, d, n, c0, total):
    """total += 1 - GMS, from three rows of s and d; the Prewitt filters are undivided: c0 comes times 36."""
    for j in range(n):
        o = j + RADIUS
        h0, h1, h2 = s[o - 1], s[STRIDE + o - 1], s[2 * STRIDE + o - 1]
        k0, k1, k2 = s[o + 1], s[STRIDE + o + 1], s[2 * STRIDE + o + 1]
        sx = (k0 - h0) + (k1 - h1) + (k2 - h2)
        sy = (h2 - h0) + (s[2 * STRIDE + o] - s[o]) + (k2 - k0)
        h0, h1, h2 = d[o - 1], d[STRIDE + o - 1], d[2 * STRIDE + o - 1]
        k0, k1, k2 = d[o + 1], d[STRIDE + o + 1], d[2 * STRIDE + o + 1]
        dx = (k0 - h0) + (k1 - h1) + (k2 - h2)
        dy = (h2 - h0) + (d[2 * STRIDE + o] - d[o]) + (k2 - k0)
        g_x = (sx + dx) * (sx + dx) + (sy + dy) * (sy + dy)
        g_y = (sx - dx) * (sx - dx) + (sy - dy) * (sy - dy)
        apart = np.sqrt(g_x) - np.sqrt(g_y)
        total[j] += apart * apart / (g_x + g_y + c0)


@compiled
def _add_square(d, n, shift, total):
    for j in range(n):
        t = d[j] + shift
        total[j] += t * t


@compiled
def _medians(start, stop, maps, window, filtered):
    """Of a growing set drop the least and the greatest until one is left, for a row of windows at once."""
    _, height, width = maps.shape
    radius, total = window // 2, window * window
    near = np.empty((window, COLS + 2 * radius), maps.dtype)  # the rows about the present one, mirrored
    held = np.empty((total // 2 + 2, COLS), maps.dtype)
    for line in range(start, stop):
        plane, row = maps[line // height], line % height
        for col in range(0, width, COLS):
            n = min(COLS, width - col)
            for i in range(window):
                source = plane[_mirror(row + i - radius, height)]
                for j in range(n + 2 * radius):
                    near[i, j] = source[_mirror(col + j - radius, width)]
            for i in range(len(held)):
                held[i, :n] = near[i // window, i % window : i % window + n]
            taken = len(held)
            for last in range(len(held) - 1, 1, -1):  # held[: last + 1] is in play
                for i in range(1, last + 1):
                    _order(held[0, :n], held[i, :n])
                for i in range(1, last):
                    _order(held[i, :n], held[last, :n])
                if taken < total:
                    held[0, :n] = near[taken // window, taken % window : taken % window + n]
                    taken += 1
            filtered[line // height, row, col : col + n] = held[1, :n]


@compiled
def _order(a, b):
    """The lesser of each pair to a, the greater to b."""
    for j in range(len(a)):
        p, q = a[j], b[j]
        a[j], b[j] = min(p, q), max(p, q)
