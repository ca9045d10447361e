"""The anomaly map on the GPU: a program owns a tile, reads each picture once from memory and writes the map.

The formulas stand in `fusion`. The Gaussian is a product with a banded matrix on either side of the tile, which the
tensor cores do in three tf32 passes, as exact as float32; the matrix is on the right both times, and the tile turned
in between, because what is on the right need not be held in registers. The mirrored borders are folded into the
matrices: a tile lies within the picture, gives all but a border of RADIUS pixels, and at the picture's own border
that, too. The means of the tile are taken off s and d, so that variances lose no digits far from 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

RADIUS = tl.constexpr(5)  # of the Gaussian
ROWS, COLS, WARPS = 32, 64, 8  # of a tile, powers of 2 from 16, and its program: what the registers hold


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

    Returns `fused`, which is not finite where a picture is not.
    """
    batch, channels, height, width = image.shape
    centre, falloff = weights[5], math.log(weights[5] / weights[4])
    down, across = (
        max(1, triton.cdiv(length - 2 * RADIUS.value, side - 2 * RADIUS.value))
        for length, side in ((height, ROWS), (width, COLS))
    )
    if batch:
        with torch.cuda.device_of(image):
            _tile[(batch * down * across,)](
                image, reconstruction, fused, maps, channels, height, width, down, across,
                *image.stride(), *reconstruction.stride(), centre, falloff, *constants,
                ROWS=ROWS, COLS=COLS, SMALL=min(height, width) < RADIUS.value, KEEP=maps.shape[1],
                GMS=int(wanted[0]), SSIM=int(wanted[1]), RESIDUAL=int(wanted[2]), num_warps=WARPS, num_stages=1,
            )  # fmt: skip
    return fused


def median_filter(maps: Tensor, window: int, *, filtered: Tensor) -> None:
    """Fill filtered with the median of maps, both (B, M, H, W), over window x window pixels, above 1."""
    batch, modalities, height, width = maps.shape
    down, across = triton.cdiv(height, 16), triton.cdiv(width, 64)
    if batch:
        with torch.cuda.device_of(maps):
            _median[(batch * modalities * down * across,)](
                maps, filtered, height, width, down, across, WINDOW=window, ROWS=16, COLS=64
            )


@triton.jit
def _mirror(i, n, SMALL: tl.constexpr):
    """Where pixel i of a line of n lies when the line is mirrored at both ends: c b a | a b c | c b a."""
    if SMALL:  # perhaps over and over; what is left of a division has the sign of i
        i = (i % (2 * n) + 2 * n) % (2 * n)
        return tl.minimum(i, 2 * n - 1 - i)
    return tl.maximum(tl.minimum(tl.maximum(i, -1 - i), 2 * n - 1 - i), 0)


@triton.jit
def _pixels(x, y, rows, cols, x_row, x_col, y_row, y_col):
    """s and d at the pixels rows x cols of two planes."""
    a = tl.load((x + rows * x_row)[:, None] + (cols * x_col)[None, :]).to(tl.float32)
    b = tl.load((y + rows * y_row)[:, None] + (cols * y_col)[None, :]).to(tl.float32)
    return a + b, a - b


@triton.jit
def _weight(offset, centre, falloff, REACH: tl.constexpr):
    """The Gaussian so many pixels from its centre, cut off beyond REACH."""
    offset = offset.to(tl.float32)
    return tl.where(tl.abs(offset) <= REACH, centre * tl.exp(-falloff * offset * offset), 0.0)


@triton.jit
def _band(to, of, n, centre, falloff, REACH: tl.constexpr, SMALL: tl.constexpr):
    """What pixel `of` of a line of n adds to the blurred pixel `to`, itself and through its mirror images."""
    band = _weight(of - to, centre, falloff, REACH) + _weight(-1 - of - to, centre, falloff, REACH)
    if SMALL:  # the images of a line shorter than the window go on, there and back; of one pixel the farthest
        for period in tl.static_range(1, REACH // 2 + 2):
            for way in tl.static_range(-1, 2, 2):
                image = 2 * n * period * way - to
                band += _weight(of + image, centre, falloff, REACH)
                band += _weight(-1 - of + image, centre, falloff, REACH)
    else:
        band += _weight(2 * n - 1 - of - to, centre, falloff, REACH)
    return tl.where((of >= 0) & (of < n), band, 0.0)


@triton.jit
def _blur(t, down, across):
    """The Gaussian on a tile, turned: [cols, rows]."""
    t = tl.dot(t, across, input_precision="tf32x3")
    return tl.dot(tl.trans(t), down, input_precision="tf32x3")


@triton.jit
def _moments(t, down, across):
    """Mean and variance about each pixel of a tile, turned: [cols, rows]."""
    mean, square = _blur(t, down, across), _blur(t * t, down, across)
    return mean, tl.maximum(square - mean * mean, 0.0)


@triton.jit
def _owned(at, start, n, side, REACH: tl.constexpr):
    """Which pixels of a line of n are for this tile: all that it blurs whole."""
    first = tl.where(start == 0, 0, start + REACH)
    end = tl.where(start + side >= n, n, start + side - REACH)
    return (at >= first) & (at < end)


@triton.jit
def _gms_map(
    x, y, rows, cols, height, width, x_row, x_col, y_row, y_col, c0, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """1 - GMS of a channel; the Prewitt filters are not divided by 3, nor the pictures by 2: c0 counts 36 times."""
    sx, sy = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
    dx, dy = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
    for m in range(-1, 2):  # a loop: unrolled, it is more than the registers hold
        near = _mirror(rows + m, height, False)
        for n in tl.static_range(-1, 2):
            s, d = _pixels(x, y, near, _mirror(cols + n, width, False), x_row, x_col, y_row, y_col)
            sx, sy, dx, dy = sx + n * s, sy + m * s, dx + n * d, dy + m * d
    g_x = (sx + dx) * (sx + dx) + (sy + dy) * (sy + dy)
    g_y = (sx - dx) * (sx - dx) + (sy - dy) * (sy - dy)
    apart = tl.sqrt(g_x) - tl.sqrt(g_y)
    return apart * apart / (g_x + g_y + 36 * c0)


@triton.jit
def _ssim_map(s, d, shift_s, shift_d, down, across, c1, c2):
    """1 - SSIM of a channel, turned: [cols, rows]."""
    mean_d, var_d = _moments(d - shift_d, down, across)
    mean_s, var_s = _moments(s - shift_s, down, across)
    mean_s += shift_s
    mean_d += shift_d
    k = mean_s * mean_s + mean_d * mean_d + 2 * c1
    top = k * var_d + (var_s - var_d + 2 * c2) * mean_d * mean_d
    return 2 * top / (k * (var_s + var_d + 2 * c2))


# Numbers of which a kernel compiled for them gains nothing:
ANY = ["channels", "height", "width", "down", "across"]
ANY += ["x_batch", "x_channel", "x_row", "y_batch", "y_channel", "y_row"]


@triton.jit(do_not_specialize=ANY)
def _tile(
    x, y, fused, maps, channels, height, width, down, across,
    x_batch, x_channel, x_row, x_col, y_batch, y_channel, y_row, y_col,
    centre, falloff, c0, c1, c2,
    ROWS: tl.constexpr, COLS: tl.constexpr, SMALL: tl.constexpr, KEEP: tl.constexpr,
    GMS: tl.constexpr, SSIM: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0).to(tl.int64)
    batch = tile // (down * across)
    row = tile // across % down * (ROWS - 2 * RADIUS)
    col = tile % across * (COLS - 2 * RADIUS)
    rows, cols = row + tl.arange(0, ROWS), col + tl.arange(0, COLS)
    inside = (rows < height)[:, None] & (cols < width)[None, :]
    pixels = tl.minimum(height - row, ROWS) * tl.minimum(width - col, COLS)

    if SSIM:
        i, j = rows.to(tl.int32), cols.to(tl.int32)
        down_band = _band(i[None, :], i[:, None], height, centre, falloff, RADIUS, SMALL)  # [in, out]
        across_band = _band(j[None, :], j[:, None], width, centre, falloff, RADIUS, SMALL)
    gms = tl.zeros((ROWS, COLS), tl.float32)
    ssim = tl.zeros((COLS, ROWS), tl.float32)
    residual = tl.zeros((ROWS, COLS), tl.float32)
    x += batch * x_batch
    y += batch * y_batch
    for _ in range(channels):
        if GMS:
            gms += _gms_map(x, y, rows, cols, height, width, x_row, x_col, y_row, y_col, c0, ROWS, COLS)
        near, beside = tl.minimum(rows, height - 1), tl.minimum(cols, width - 1)
        s, d = _pixels(x, y, near, beside, x_row, x_col, y_row, y_col)
        if RESIDUAL:
            residual += d * d
        if SSIM:
            shift_s = tl.sum(tl.where(inside, s, 0.0)) / pixels
            shift_d = tl.sum(tl.where(inside, d, 0.0)) / pixels
            ssim += _ssim_map(s, d, shift_s, shift_d, down_band, across_band, c1, c2)
        x += x_channel
        y += y_channel

    owned = _owned(rows, row, height, ROWS, RADIUS)[:, None] & _owned(cols, col, width, COLS, RADIUS)[None, :]
    pixel = rows[:, None] * width + cols[None, :]
    product = tl.full((ROWS, COLS), 1.0, tl.float32)
    if GMS:
        gms = gms / channels
        product *= gms
        if KEEP:
            tl.store(maps + batch * KEEP * height * width + pixel, gms, owned)
    if SSIM:
        ssim = tl.trans(ssim) / channels
        product *= ssim
        if KEEP:
            tl.store(maps + (batch * KEEP + GMS) * height * width + pixel, ssim, owned)
    if RESIDUAL:
        residual = tl.sqrt(residual / channels)
        product *= residual
        if KEEP:
            tl.store(maps + (batch * KEEP + KEEP - 1) * height * width + pixel, residual, owned)
    tl.store(fused + batch * height * width + pixel, product, owned)


@triton.jit
def _median(
    maps, filtered, height, width, down, across, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """Of the values in the window, the one with at most half of them below it and more than half up to it."""
    tile = tl.program_id(0).to(tl.int64)
    plane = maps + tile // (down * across) * height * width
    rows = tile // across % down * ROWS + tl.arange(0, ROWS)
    cols = tile % across * COLS + tl.arange(0, COLS)
    median = tl.zeros((ROWS, COLS), tl.float32)
    for i in range(WINDOW * WINDOW):
        value = _near(plane, rows, cols, i, height, width, WINDOW)
        below = tl.zeros((ROWS, COLS), tl.int32)
        up_to = tl.zeros((ROWS, COLS), tl.int32)
        for k in range(WINDOW * WINDOW):
            other = _near(plane, rows, cols, k, height, width, WINDOW)
            below += (other < value).to(tl.int32)
            up_to += (other <= value).to(tl.int32)
        middle = WINDOW * WINDOW // 2
        median = tl.where((below <= middle) & (middle < up_to), value, median)
    inside = (rows < height)[:, None] & (cols < width)[None, :]
    pixel = tile // (down * across) * height * width + rows[:, None] * width + cols[None, :]
    tl.store(filtered + pixel, median, inside)


@triton.jit
def _near(plane, rows, cols, i, height, width, WINDOW: tl.constexpr):
    """The values at place i of the window about each pixel."""
    row = _mirror(rows + i // WINDOW - WINDOW // 2, height, True)
    col = _mirror(cols + i % WINDOW - WINDOW // 2, width, True)
    return tl.load(plane + row[:, None] * width + col[None, :]).to(tl.float32)
