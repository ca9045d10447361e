"""The anomaly map on the CPU: a tile of the two pictures at a time, each pixel read once, a tile kept.

The formulas stand in `fusion`. The means of the tile are taken off s and d, so that variances lose no digits
far from 0. The inner loops run along rows of constant stride; LLVM makes vector instructions of them, the
better the longer they are: a tile is wide.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from collections.abc import Sequence

import numpy as np
from torch import Tensor, from_numpy

from ._numba import compiled, inlined
from ._threads import spread

ROWS, COLS = 64, 512  # a tile
RADIUS = 5  # of the Gaussian
LANES = 16  # lines are worked on in whole vectors; what is computed beyond the tile is never read
STRIDE = COLS + 2 * LANES  # a scratch row: the tile's columns and their halo, filled up to whole vectors


def anomaly_map(
    image: Tensor,
    reconstruction: Tensor,
    wanted: Sequence[bool],
    weights: Sequence[float],
    constants: tuple[float, float, float],
    *,
    fused: Tensor,
    maps: Tensor,
) -> Tensor:
    """Fill fused (B, H, W) and, if there are any, maps (B, M, H, W) from pictures (B, C, H, W).

    Returns the sums of the tiles of `fused`: not finite where it is not.
    """
    x, y, out, kept = (t.detach().numpy() for t in (image, reconstruction, fused, maps))
    dtype = x.dtype.type
    taps = tuple(dtype(w) for w in weights[: RADIUS + 1])
    c0, c1, c2 = constants
    scaled = (dtype(9 * 4 * c0), dtype(2 * c1), dtype(2 * c2))
    batch, _, height, width = x.shape
    totals = np.empty(batch * -(-height // ROWS) * -(-width // COLS), x.dtype)
    arguments = x, y, tuple(wanted), taps, scaled, out, kept, totals
    spread(lambda start, stop: _tiles(start, stop, *arguments), len(totals))
    return from_numpy(totals)


def median_filter(maps: Tensor, window: int, *, filtered: Tensor) -> None:
    """Fill filtered with the median of maps, both (B, M, H, W), over window x window pixels, above 1."""
    x, out = maps.flatten(0, 1).numpy(), filtered.flatten(0, 1).numpy()
    spread(lambda start, stop: _medians(start, stop, x, window, out), x.shape[0] * x.shape[1])


@compiled
def _tiles(start, stop, x, y, wanted, taps, constants, fused, maps, totals):
    kind = fused.dtype.type
    _, channels, height, width = x.shape
    down, across = -(-height // ROWS), -(-width // COLS)
    size = (ROWS + 2 * RADIUS) * STRIDE
    s, d = np.empty(size, fused.dtype), np.empty(size, fused.dtype)
    blurred = np.empty(4 * STRIDE, fused.dtype), np.empty(4 * STRIDE, fused.dtype)  # of two rows
    sums = np.empty((3, ROWS, COLS), fused.dtype)
    share = kind(1) / kind(channels)
    for tile in range(start, stop):
        b, row, col = tile // (down * across), tile // across % down * ROWS, tile % across * COLS
        rows, cols = min(ROWS, height - row), min(COLS, width - col)
        n = _whole(cols)
        for m in range(3):
            for r in range(rows):
                sums[m, r, :n] = 0
        for c in range(channels):
            shift_s, shift_d = _shifts(x[b, c], y[b, c], slice(row, row + rows), slice(col, col + cols))
            _load(x[b, c], y[b, c], row, col, rows + rows % 2, cols, shift_s, shift_d, RADIUS, s, d)
            if wanted[0]:
                _add_gms(s.reshape(-1, STRIDE), d.reshape(-1, STRIDE), rows, n, constants[0], sums[0])
            if wanted[1]:
                for r in range(0, rows, 2):
                    _down(s[r * STRIDE :], d[r * STRIDE :], _whole(n + 2 * RADIUS), taps, *blurred)
                    for i in range(min(2, rows - r)):
                        _add_ssim(blurred[i], n, taps, shift_s, shift_d, constants, sums[1, r + i])
            if wanted[2]:
                _add_square(d.reshape(-1, STRIDE), rows, n, shift_d, sums[2])
        total = kind(0)
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
            for j in range(cols):
                total += out[j]
        totals[tile] = total


@inlined
def _whole(n):
    """n columns, filled up to whole vectors."""
    return -(-n // LANES) * LANES


@inlined
def _mirror(i, n):
    """Where pixel i of a line of n lies when the line is mirrored at both ends: c b a | a b c | c b a."""
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


@inlined
def _shifts(x, y, rows, cols):
    """Means of x + y and of x - y over every eighth row of a tile: near enough to those of the whole."""
    s = d = x.dtype.type(0)
    xt, yt = x[rows, cols][::8], y[rows, cols][::8]
    for r in range(len(xt)):
        xr, yr = xt[r], yt[r]
        for j in range(len(xr)):
            s += xr[j] + yr[j]
            d += xr[j] - yr[j]
    count = x.dtype.type(xt.size)
    return s / count, d / count


@inlined
def _load(x, y, row, col, rows, cols, shift_s, shift_d, halo, s, d):
    """s, d = x + y, x - y less their shifts over the tile at (row, col) with its halo, borders mirrored."""
    height, width = x.shape
    n = cols + 2 * halo
    first = min(max(halo - col, 0), n)
    last = max(min(width - col + halo, n), first)  # first..last lies inside the picture
    for r in range(rows + 2 * halo):
        i = _mirror(row - halo + r, height)
        sr, dr = s[r * STRIDE : (r + 1) * STRIDE], d[r * STRIDE : (r + 1) * STRIDE]
        inside = slice(col - halo + first, col - halo + last)
        xi, yi, si, di = x[i, inside], y[i, inside], sr[first:last], dr[first:last]
        for j in range(last - first):
            si[j] = xi[j] + yi[j]
            di[j] = xi[j] - yi[j]
        for j in range(n - last + first):
            at = j if j < first else last + j - first
            k = _mirror(col - halo + at, width)
            sr[at] = x[i, k] + y[i, k]
            dr[at] = x[i, k] - y[i, k]
        # A loop of its own: sums may be reordered, and x - (y + shift) loses a faint defect.
        for j in range(n):
            sr[j] -= shift_s
            dr[j] -= shift_d
        for j in range(n, _whole(_whole(cols) + 2 * halo)):  # denormal numbers left there would be slow
            sr[j] = dr[j] = 0


@inlined
def _add_gms(s, d, rows, n, c0, total):
    """total += 1 - GMS; the Prewitt filters are undivided: c0 comes times 36.

    (g_x - g_y)^2 is (g_x^2 - g_y^2)^2 / (g_x + g_y)^2, which takes one root: that of g_x^2 g_y^2.
    """
    sixteen, least = s.dtype.type(16), s.dtype.type(1e-30)  # for 0 / 0
    for r in range(rows):
        for j in range(n):
            sx, sy = _prewitt(s, r + RADIUS - 1, j + RADIUS - 1)
            dx, dy = _prewitt(d, r + RADIUS - 1, j + RADIUS - 1)
            square_x = (sx + dx) * (sx + dx) + (sy + dy) * (sy + dy)
            square_y = (sx - dx) * (sx - dx) + (sy - dy) * (sy - dy)
            both, quarter, root = square_x + square_y, sx * dx + sy * dy, np.sqrt(square_x * square_y)
            total[r, j] += sixteen * quarter * quarter / ((both + root + root + least) * (both + c0))


@inlined
def _prewitt(a, r, j):
    """Three times the gradients along x and y of the 3 x 3 pixels from (r, j)."""
    h0, h1, h2 = a[r, j], a[r + 1, j], a[r + 2, j]
    k0, k1, k2 = a[r, j + 2], a[r + 1, j + 2], a[r + 2, j + 2]
    return (k0 - h0) + (k1 - h1) + (k2 - h2), (h2 - h0) + (a[r + 2, j + 1] - a[r, j + 1]) + (k2 - k0)


@inlined
def _down(s, d, n, taps, first, second):
    """The Gaussian down the columns of s, its squares, d and its squares: windows from the first row and the second."""
    for j in range(n):
        first[j], first[STRIDE + j] = _gaussian(s, j, taps), _gaussian_of_squares(s, j, taps)
        second[j], second[STRIDE + j] = (
            _gaussian(s, STRIDE + j, taps),
            _gaussian_of_squares(s, STRIDE + j, taps),
        )
    for j in range(n):
        first[2 * STRIDE + j], first[3 * STRIDE + j] = _gaussian(d, j, taps), _gaussian_of_squares(d, j, taps)
        second[2 * STRIDE + j], second[3 * STRIDE + j] = (
            _gaussian(d, STRIDE + j, taps),
            _gaussian_of_squares(d, STRIDE + j, taps),
        )


@inlined
def _gaussian(a, at, taps):
    """Down the column of a[at]."""
    total = taps[RADIUS] * a[at + RADIUS * STRIDE]
    for i in range(RADIUS):
        total += taps[i] * (a[at + i * STRIDE] + a[at + (2 * RADIUS - i) * STRIDE])
    return total


@inlined
def _gaussian_of_squares(a, at, taps):
    total = taps[RADIUS] * (a[at + RADIUS * STRIDE] * a[at + RADIUS * STRIDE])
    for i in range(RADIUS):
        p, q = a[at + i * STRIDE], a[at + (2 * RADIUS - i) * STRIDE]
        total += taps[i] * (p * p + q * q)
    return total


@inlined
def _add_ssim(blurred, n, taps, shift_s, shift_d, constants, total):
    """total += 1 - SSIM, after the Gaussian along the row."""
    _, c1, c2 = constants
    zero = blurred.dtype.type(0)
    for j in range(n):
        ms, qs = _across(blurred, j, taps), _across(blurred, STRIDE + j, taps)
        md, qd = _across(blurred, 2 * STRIDE + j, taps), _across(blurred, 3 * STRIDE + j, taps)
        var_s, var_d = max(qs - ms * ms, zero), max(qd - md * md, zero)
        ms, md = ms + shift_s, md + shift_d
        k = ms * ms + md * md + c1
        top = k * var_d + (var_s - var_d + c2) * (md * md)
        total[j] += (top + top) / (k * (var_s + var_d + c2))


@inlined
def _across(a, at, taps):
    """Along the row from a[at]; written out, so that LLVM sees that no index is negative."""
    total = taps[0] * (a[at] + a[at + 10]) + taps[1] * (a[at + 1] + a[at + 9])
    total += taps[2] * (a[at + 2] + a[at + 8]) + taps[3] * (a[at + 3] + a[at + 7])
    return total + taps[4] * (a[at + 4] + a[at + 6]) + taps[5] * a[at + 5]


@inlined
def _add_square(d, rows, n, shift, total):
    for r in range(rows):
        for j in range(n):
            t = d[r + RADIUS, j + RADIUS] + shift
            total[r, j] += t * t


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


@inlined
def _order(a, b):
    """The lesser of each pair to a, the greater to b."""
    for j in range(len(a)):
        p, q = a[j], b[j]
        a[j], b[j] = min(p, q), max(p, q)
