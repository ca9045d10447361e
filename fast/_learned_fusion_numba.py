"""What the learned fusion sees, on the CPU: a tile of the two pictures at a time, from one look at each pixel.

s, d = x + y, x - y less their means over the tile, with a halo for the broader Gaussian. Both are blurred; the blurs
of the pictures and of the residual are sums of the two. 1 - GMS and 1 - SSIM are those of `_fusion_numba`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from collections.abc import Sequence

import numpy as np
from torch import Tensor, from_numpy

from . import _fusion_numba as maps
from ._fusion_numba import _add_gms, _add_ssim, _down, _load, _mirror, _shifts, _whole
from ._numba import compiled, inlined
from ._threads import spread
from .blurs import CELL

ROWS, COLS = 32, 512  # a tile
RADIUS = 9  # of the Gaussian
STRIDE = maps.STRIDE
INSET = (RADIUS - maps.RADIUS) * (STRIDE + 1)  # where the halo of the narrower Gaussian begins


def fusion_inputs(
    image: Tensor,
    background: Tensor,
    mean: Tensor,
    std: Tensor,
    weights: tuple[Sequence[float], Sequence[float]],
    constants: tuple[float, float, float, float],
    *,
    inputs: Tensor,
    energy: Tensor,
) -> Tensor:
    """Fill inputs (B, 4 C + 3, H, W) and energy (B, H, W) from pictures (B, C, H, W), mean and std (C,).

    Returns the sums of the residuals of the tiles: not finite where a picture is not.
    """
    x, y, m, s, out, blurred = map(_array, (image, background, mean, std, inputs, energy))
    dtype = x.dtype.type
    broad, narrow = (tuple(dtype(w) for w in side[: len(side) // 2 + 1]) for side in weights)
    c0, c1, c2, floor = constants
    scaled = (dtype(9 * 4 * c0), dtype(2 * c1), dtype(2 * c2))
    batch, _, height, width = x.shape
    totals = np.empty(batch * -(-height // ROWS) * -(-width // COLS), x.dtype)
    arguments = x, y, m, s, broad, narrow, scaled, out, blurred, totals
    spread(lambda start, stop: _tiles(start, stop, *arguments), len(totals))
    lines = blurred.reshape(-1, width)
    spread(lambda start, stop: _half_log(lines[start:stop], dtype(floor)), len(lines))
    return from_numpy(totals)


def _array(x: Tensor) -> np.ndarray:
    """Its memory, or a contiguous copy: a kernel compiled for each layout would take minutes."""
    return x.detach().contiguous().numpy()


def _half_log(lines, floor):
    """By NumPy, which takes the logarithms of several numbers at once; numba would take one after another."""
    lines += floor
    np.log(lines, out=lines)
    lines *= lines.dtype.type(0.5)


@compiled
def _tiles(start, stop, x, y, mean, std, broad, narrow, constants, inputs, energy, totals):
    kind = inputs.dtype.type
    _, channels, height, width = x.shape
    down, across = -(-height // ROWS), -(-width // COLS)
    size = (ROWS + 2 * RADIUS) * STRIDE
    s, d, square = np.empty(size, kind), np.empty(size, kind), np.empty(size, kind)
    blurred = np.empty(4 * STRIDE, kind), np.empty(4 * STRIDE, kind)  # of two rows
    soft = np.empty(2 * STRIDE, kind)
    sums = np.empty((2, ROWS, COLS), kind)
    half, one = kind(0.5), kind(1)
    unit = kind(0)
    for c in range(channels):
        unit += std[c] / kind(channels)
    for tile in range(start, stop):
        b, row, col = tile // (down * across), tile // across % down * ROWS, tile % across * COLS
        rows, cols = min(ROWS, height - row), min(COLS, width - col)
        n = _whole(cols)
        wide = _whole(n + 2 * RADIUS)
        even = rows + rows % 2
        for r in range(rows):
            for j in range(n):
                sums[0, r, j] = sums[1, r, j] = 0
        for i in range((even + 2 * RADIUS) * STRIDE):
            square[i] = 0
        total = kind(0)
        for c in range(channels):
            shift_s, shift_d = _shifts(x[b, c], y[b, c], slice(row, row + rows), slice(col, col + cols))
            _load(x[b, c], y[b, c], row, col, even, cols, shift_s, shift_d, RADIUS, s, d)
            for r in range(even + 2 * RADIUS):
                dr, qr = d[r * STRIDE : r * STRIDE + wide], square[r * STRIDE : r * STRIDE + wide]
                for j in range(wide):
                    qr[j] += (dr[j] + shift_d) * (dr[j] + shift_d)
            sn, dn = s[INSET:], d[INSET:]  # as if the halo were the narrower Gaussian's
            end = (rows + 2 * maps.RADIUS) * STRIDE
            _add_gms(
                sn[:end].reshape(-1, STRIDE), dn[:end].reshape(-1, STRIDE), rows, n, constants[0], sums[0]
            )
            for r in range(0, rows, 2):
                _down(sn[r * STRIDE :], dn[r * STRIDE :], _whole(n + 2 * maps.RADIUS), narrow, *blurred)
                for i in range(min(2, rows - r)):
                    _add_ssim(blurred[i], n, narrow, shift_s, shift_d, constants, sums[1, r + i])
                _down_broadly(s[r * STRIDE :], wide, broad, *blurred)
                _down_broadly(d[r * STRIDE :], wide, broad, blurred[0][STRIDE:], blurred[1][STRIDE:])
                for i in range(min(2, rows - r)):
                    _across_broadly(blurred[i], n, broad, soft)
                    _across_broadly(blurred[i][STRIDE:], n, broad, soft[STRIDE:])
                    at = row + r + i
                    xr, yr = x[b, c, at, col : col + cols], y[b, c, at, col : col + cols]
                    scale = one / std[c]
                    behind, centre = half * (shift_s - shift_d), half * (shift_s + shift_d) - mean[c]
                    detail = inputs[b, c, at, col : col + cols]
                    level = inputs[b, channels + c, at, col : col + cols]
                    residual = inputs[b, 2 * channels + c, at, col : col + cols]
                    rest = inputs[b, 3 * channels + c, at, col : col + cols]
                    for j in range(cols):
                        detail[j] = (xr[j] - half * (soft[j] - soft[STRIDE + j]) - behind) * scale
                    for j in range(cols):
                        level[j] = (half * (soft[j] + soft[STRIDE + j]) + centre) * scale
                    for j in range(cols):
                        residual[j] = (xr[j] - yr[j]) * scale
                    for j in range(cols):
                        rest[j] = (soft[STRIDE + j] + shift_d) * scale
        share = one / kind(channels)
        for r in range(rows):
            gms = inputs[b, 4 * channels, row + r, col : col + cols]
            ssim = inputs[b, 4 * channels + 1, row + r, col : col + cols]
            size = inputs[b, 4 * channels + 2, row + r, col : col + cols]
            for j in range(cols):
                gms[j] = sums[0, r, j] * share
            for j in range(cols):
                ssim[j] = sums[1, r, j] * share
            own = square[(r + RADIUS) * STRIDE + RADIUS : (r + RADIUS) * STRIDE + RADIUS + cols]
            for j in range(cols):
                size[j] = np.sqrt(own[j] * share) / unit
                total += size[j]
        totals[tile] = total
        share /= unit * unit
        for i in range((even + 2 * RADIUS) * STRIDE):
            square[i] = min(square[i] * share, one)
        for r in range(0, rows, 2):
            _down_broadly(square[r * STRIDE :], wide, broad, *blurred)
            for i in range(min(2, rows - r)):
                _across_broadly(blurred[i], n, broad, soft)
                out = energy[b, row + r + i, col : col + cols]
                for j in range(cols):
                    out[j] = soft[j]


@inlined
def _down_broadly(a, n, taps, first, second):
    """The Gaussian down the columns: windows from the first row and from the second."""
    for j in range(n):
        first[j], second[j] = _gaussian(a, j, taps), _gaussian(a, STRIDE + j, taps)


@inlined
def _gaussian(a, at, taps):
    """Down the column of a[at]."""
    total = taps[RADIUS] * a[at + RADIUS * STRIDE]
    for i in range(RADIUS):
        total += taps[i] * (a[at + i * STRIDE] + a[at + (2 * RADIUS - i) * STRIDE])
    return total


@inlined
def _across_broadly(a, n, taps, out):
    """The Gaussian along the row; written out, so that LLVM sees that no index is negative."""
    for j in range(n):
        total = taps[0] * (a[j] + a[j + 18]) + taps[1] * (a[j + 1] + a[j + 17])
        total += taps[2] * (a[j + 2] + a[j + 16]) + taps[3] * (a[j + 3] + a[j + 15])
        total += taps[4] * (a[j + 4] + a[j + 14]) + taps[5] * (a[j + 5] + a[j + 13])
        total += taps[6] * (a[j + 6] + a[j + 12]) + taps[7] * (a[j + 7] + a[j + 11])
        out[j] = total + taps[8] * (a[j + 8] + a[j + 10]) + taps[9] * a[j + 9]


def without_light(
    image: Tensor, background: Tensor, std: Tensor, weights: Sequence[float], least: float, *, unlit: Tensor
) -> Tensor:
    """Fill unlit (B, C, H, W) from pictures of that shape and std (C,).

    Returns the residual's means over cells: not finite where a picture is not.
    """
    x, y, s, out = map(_array, (image, background, std, unlit))
    dtype = x.dtype.type
    batch, channels, height, width = x.shape
    down, across = -(-height // CELL), -(-width // CELL)
    cells = np.empty((batch, channels, down, across), x.dtype)
    slow = np.empty_like(cells)
    taps = np.array(weights, x.dtype)
    spread(lambda start, stop: _cells(start, stop, x, y, s, cells), batch * channels * down)
    spread(lambda start, stop: _blur(start, stop, cells, taps, slow), batch * channels)
    spread(lambda start, stop: _darken(start, stop, x, s, slow, dtype(least), out), batch * channels * down)
    return from_numpy(cells)


@compiled
def _cells(start, stop, x, y, std, cells):
    """Means of (x - y) / std; what the last cells lack is filled up with the edge."""
    kind = cells.dtype.type
    _, channels, height, width = x.shape
    down, across = cells.shape[2:]
    sums = np.empty(across * CELL, kind)
    for line in range(start, stop):
        b, c, i = line // (channels * down), line // down % channels, line % down
        share = kind(1) / (kind(CELL * CELL) * std[c])
        sums[:] = 0
        for r in range(i * CELL, (i + 1) * CELL):
            xr, yr = x[b, c, min(r, height - 1)], y[b, c, min(r, height - 1)]
            for j in range(width):
                sums[j] += xr[j] - yr[j]
        sums[width:] = sums[width - 1]
        for k in range(across):
            total = kind(0)
            for j in range(CELL):
                total += sums[k * CELL + j]
            cells[b, c, i, k] = total * share


@compiled
def _blur(start, stop, cells, taps, slow):
    """The Gaussian down the columns and along the rows of a plane of cells, borders mirrored."""
    _, channels, down, across = cells.shape
    radius = len(taps) // 2
    line = np.empty(across + 2 * radius, cells.dtype)
    for plane in range(start, stop):
        source, target = cells[plane // channels, plane % channels], slow[plane // channels, plane % channels]
        for i in range(down):
            middle = line[radius : radius + across]
            middle[:] = 0
            for t in range(len(taps)):
                row, weight = source[_mirror(i + t - radius, down)], taps[t]
                for k in range(across):
                    middle[k] += weight * row[k]
            for k in range(radius):
                line[radius - 1 - k] = middle[_mirror(-1 - k, across)]
                line[radius + across + k] = middle[_mirror(across + k, across)]
            out = target[i]
            out[:] = 0
            for t in range(len(taps)):
                near, weight = line[t : t + across], taps[t]
                for k in range(across):
                    out[k] += weight * near[k]


@compiled
def _darken(start, stop, x, std, slow, least, unlit):
    """Take what is beyond `least` of the cells, drawn on straight lines between their centres, off a line of cells."""
    kind = unlit.dtype.type
    _, channels, height, width = x.shape
    down, across = slow.shape[2:]
    knots = np.empty(across + 2, kind)  # the cells at this height, the outermost repeated
    drawn = np.empty((across + 1) * CELL, kind)  # from half a cell before the picture to half a cell behind
    for line in range(start, stop):
        b, c, i = line // (channels * down), line // down % channels, line % down
        for r in range(i * CELL, min((i + 1) * CELL, height)):
            place = (kind(r % CELL) + kind(0.5)) / kind(CELL) - kind(
                0.5
            )  # from the centre of this line of cells
            other = slow[b, c, max(i - 1, 0)] if place < 0 else slow[b, c, min(i + 1, down - 1)]
            own, weight = slow[b, c, i], abs(place)
            for k in range(across):
                knots[k + 1] = own[k] + weight * (other[k] - own[k])
            knots[0], knots[across + 1] = knots[1], knots[across]
            for k in range(across + 1):
                first, step = knots[k], (knots[k + 1] - knots[k]) / kind(CELL)
                for t in range(CELL):
                    drawn[k * CELL + t] = first + step * (kind(t) + kind(0.5))
            xr, out, light = x[b, c, r], unlit[b, c, r], drawn[CELL // 2 :]
            for j in range(width):
                excess = light[j] - min(max(light[j], -least), least)
                out[j] = min(max(xr[j] - excess * std[c], kind(0)), kind(1))
