"""The anomaly map on the GPU: a program owns a tile, reads each picture once from memory and writes the map.

The formulas stand in `fusion`. Along the rows the Gaussian is a sum of shifted loads (the shifts come from
L1); down the columns it is a product with a banded matrix, which the tensor cores do in three tf32 passes, as
exact as float32. The means of the tile are taken off s and d, so that variances lose no digits far from 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

RADIUS = tl.constexpr(5)  # of the Gaussian
ROWS, COLS = 32, 64  # of a tile, with the halo above and below: the most that stays in registers on Hopper


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
    down, across = triton.cdiv(height, ROWS - 2 * RADIUS.value), triton.cdiv(width, COLS)
    if batch:
        with torch.cuda.device_of(image):
            _tile[(batch * down * across,)](
                image, reconstruction, fused, maps, channels, height, width, down, across,
                *image.stride(), *reconstruction.stride(), centre, falloff, *constants,
                ROWS=ROWS, COLS=COLS, SMALL=min(height, width) < 16, KEEP=maps.shape[1],
                GMS=int(wanted[0]), SSIM=int(wanted[1]), RESIDUAL=int(wanted[2]), num_warps=8, num_stages=1,
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
    a = tl.load(x + rows[:, None] * x_row + cols[None, :] * x_col).to(tl.float32)
    b = tl.load(y + rows[:, None] * y_row + cols[None, :] * y_col).to(tl.float32)
    return a + b, a - b


@triton.jit
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
    col = tile % across * COLS
    r, j = tl.arange(0, ROWS), tl.arange(0, COLS)
    rows = row + r  # the last 2 * RADIUS of them are the next tile's
    cols = col + j
    above = _mirror(rows - RADIUS, height, SMALL)

    offset = (r[None, :] - r[:, None] - RADIUS).to(tl.float32)
    band = tl.where(tl.abs(offset) <= RADIUS, centre * tl.exp(-falloff * offset * offset), 0.0)  # [out, in]

    gms = tl.zeros((ROWS, COLS), tl.float32)
    ssim = tl.zeros((ROWS, COLS), tl.float32)
    residual = tl.zeros((ROWS, COLS), tl.float32)
    x += batch * x_batch
    y += batch * y_batch
    for _ in range(channels):
        if SSIM:
            s, d = _pixels(x, y, above, _mirror(cols, width, SMALL), x_row, x_col, y_row, y_col)
            shift_s, shift_d = tl.sum(s) / (ROWS * COLS), tl.sum(d) / (ROWS * COLS)
            mean_s = tl.zeros((ROWS, COLS), tl.float32)
            mean_d = tl.zeros((ROWS, COLS), tl.float32)
            square_s = tl.zeros((ROWS, COLS), tl.float32)
            square_d = tl.zeros((ROWS, COLS), tl.float32)
            for k in range(-RADIUS, RADIUS + 1):
                weight = centre * tl.exp(-falloff * k * k)
                at = _mirror(cols + k, width, SMALL)
                s, d = _pixels(x, y, above, at, x_row, x_col, y_row, y_col)
                s, d = s - shift_s, d - shift_d
                mean_s += weight * s
                mean_d += weight * d
                square_s += weight * s * s
                square_d += weight * d * d
            mean_s = tl.dot(band, mean_s, input_precision="tf32x3")
            mean_d = tl.dot(band, mean_d, input_precision="tf32x3")
            square_s = tl.dot(band, square_s, input_precision="tf32x3")
            square_d = tl.dot(band, square_d, input_precision="tf32x3")
            var_s = tl.maximum(square_s - mean_s * mean_s, 0.0)
            var_d = tl.maximum(square_d - mean_d * mean_d, 0.0)
            mean_s += shift_s
            mean_d += shift_d
            k = mean_s * mean_s + mean_d * mean_d + 2 * c1
            top = k * var_d + (var_s - var_d + 2 * c2) * mean_d * mean_d
            ssim += 2 * top / (k * (var_s + var_d + 2 * c2))
        if GMS:
            sx, sy, dx, dy = 0.0, 0.0, 0.0, 0.0
            for m in tl.static_range(-1, 2):
                for n in tl.static_range(-1, 2):
                    if m != 0 or n != 0:
                        near, beside = _mirror(rows + m, height, SMALL), _mirror(cols + n, width, SMALL)
                        s, d = _pixels(x, y, near, beside, x_row, x_col, y_row, y_col)
                        sx, sy, dx, dy = sx + n * s, sy + m * s, dx + n * d, dy + m * d
            g_x = (sx + dx) * (sx + dx) + (sy + dy) * (sy + dy)
            g_y = (sx - dx) * (sx - dx) + (sy - dy) * (sy - dy)
            apart = tl.sqrt(g_x) - tl.sqrt(g_y)
            gms += (
                apart * apart / (g_x + g_y + 36 * c0)
            )  # the Prewitt filters are not divided by 3, nor x by 2
        if RESIDUAL:
            here, beside = _mirror(rows, height, SMALL), _mirror(cols, width, SMALL)
            s, d = _pixels(x, y, here, beside, x_row, x_col, y_row, y_col)
            residual += d * d
        x += x_channel
        y += y_channel

    inside = ((r < ROWS - 2 * RADIUS) & (rows < height))[:, None] & (cols < width)[None, :]
    pixel = rows[:, None] * width + cols[None, :]
    product = tl.full((ROWS, COLS), 1.0, tl.float32)
    if GMS:
        gms = gms / channels
        product *= gms
        if KEEP:
            tl.store(maps + batch * KEEP * height * width + pixel, gms, inside)
    if SSIM:
        ssim = ssim / channels
        product *= ssim
        if KEEP:
            tl.store(maps + (batch * KEEP + GMS) * height * width + pixel, ssim, inside)
    if RESIDUAL:
        residual = tl.sqrt(residual / channels)
        product *= residual
        if KEEP:
            tl.store(maps + (batch * KEEP + KEEP - 1) * height * width + pixel, residual, inside)
    tl.store(fused + batch * height * width + pixel, product, inside)


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
