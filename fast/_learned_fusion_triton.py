"""What the learned fusion sees, on the GPU: a program owns a tile and reads each picture once from memory.

As in `_fusion_triton`, Gaussians are products with banded matrices on either side of the tile, the mirrored borders
folded into them. s and d are blurred; the blurs of the pictures and of the residual are sums of the two. Light is
drawn by two such products from the means of cells: the blur of the cells and the lines between them are both linear.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import blurs
from ._fusion_triton import ANY, _band, _blur, _gms_map, _owned, _pixels, _ssim_map
from ._fusion_triton import RADIUS as NARROW

RADIUS = tl.constexpr(9)  # of the broader Gaussian
ROWS, COLS, WARPS = 32, 64, 8  # of a tile, powers of 2, and its program: tiles of 64 x 64 spill registers
CELL = tl.constexpr(blurs.CELL)  # pixels
REACH = tl.constexpr(8)  # of the Gaussian of the light, cells
NEAR = tl.constexpr(32)  # cells, a power of 2: all that a tile's light is made of, (64 / CELL + 2) + 2 REACH


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

    Returns `inputs`, which is not finite where a picture is not.
    """
    batch, channels, height, width = image.shape
    down, across = (
        max(1, triton.cdiv(length - 2 * RADIUS.value, side - 2 * RADIUS.value))
        for length, side in ((height, ROWS), (width, COLS))
    )
    if batch:
        with torch.cuda.device_of(image):
            _inputs[(batch * down * across,)](
                image, background, mean.contiguous(), std.contiguous(), inputs, energy,
                channels, height, width, down, across, *image.stride(), *background.stride(),
                *_shape(weights[0]), *_shape(weights[1]), *constants,
                ROWS=ROWS, COLS=COLS, SMALL=min(height, width) < RADIUS.value, num_warps=WARPS, num_stages=1,
            )  # fmt: skip
    return inputs


def without_light(
    image: Tensor, background: Tensor, std: Tensor, weights: Sequence[float], least: float, *, unlit: Tensor
) -> Tensor:
    """Fill unlit (B, C, H, W) from pictures of that shape and std (C,).

    Returns the residual's means over cells: not finite where a picture is not.
    """
    batch, channels, height, width = image.shape
    down, across = triton.cdiv(height, CELL.value), triton.cdiv(width, CELL.value)
    cells = image.new_empty(batch, channels, down, across, dtype=torch.float32)
    std = std.contiguous()
    if batch:
        with torch.cuda.device_of(image):
            _cells[(triton.cdiv(cells.numel(), 128),)](
                image, background, std, cells, cells.numel(), channels, height, width, down, across,
                *image.stride(), *background.stride(), BLOCK=128,
            )  # fmt: skip
            tiles = triton.cdiv(height, ROWS), triton.cdiv(width, COLS)
            _darken[(batch * channels * tiles[0] * tiles[1],)](
                image, std, cells, unlit, channels, height, width, *tiles, down, across, *image.stride(),
                *_shape(weights), least, ROWS=ROWS, COLS=COLS, SMALL=min(down, across) < REACH.value,
                num_warps=WARPS,
            )  # fmt: skip
    return cells


def _shape(weights: Sequence[float]) -> tuple[float, float]:
    """A Gaussian's weight at its centre, and how it falls off."""
    middle = len(weights) // 2
    return weights[middle], math.log(weights[middle] / weights[middle - 1])


@triton.jit(do_not_specialize=ANY)
def _inputs(
    x, y, mean, std, inputs, energy, channels, height, width, down, across,
    x_batch, x_channel, x_row, x_col, y_batch, y_channel, y_row, y_col,
    broad_centre, broad_falloff, centre, falloff, c0, c1, c2, floor,
    ROWS: tl.constexpr, COLS: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0).to(tl.int64)
    batch = tile // (down * across)
    row = tile // across % down * (ROWS - 2 * RADIUS)
    col = tile % across * (COLS - 2 * RADIUS)
    rows, cols = row + tl.arange(0, ROWS), col + tl.arange(0, COLS)
    inside = (rows < height)[:, None] & (cols < width)[None, :]
    pixels = tl.minimum(height - row, ROWS) * tl.minimum(width - col, COLS)
    owned = _owned(rows, row, height, ROWS, RADIUS)[:, None] & _owned(cols, col, width, COLS, RADIUS)[None, :]
    pixel = rows[:, None] * width + cols[None, :]
    plane = height.to(tl.int64) * width
    into = inputs + batch * (4 * channels + 3) * plane + pixel

    i, j = rows.to(tl.int32), cols.to(tl.int32)
    narrow_down = _band(i[None, :], i[:, None], height, centre, falloff, NARROW, SMALL)  # [in, out]
    narrow_across = _band(j[None, :], j[:, None], width, centre, falloff, NARROW, SMALL)
    broad_down = _band(i[None, :], i[:, None], height, broad_centre, broad_falloff, RADIUS, SMALL)
    broad_across = _band(j[None, :], j[:, None], width, broad_centre, broad_falloff, RADIUS, SMALL)
    near, beside = tl.minimum(rows, height - 1), tl.minimum(cols, width - 1)
    gms = tl.zeros((ROWS, COLS), tl.float32)
    ssim = tl.zeros((COLS, ROWS), tl.float32)
    square = tl.zeros((ROWS, COLS), tl.float32)
    unit = 0.0
    x += batch * x_batch
    y += batch * y_batch
    for c in range(channels):
        deviation = tl.load(std + c).to(tl.float32)
        unit += deviation
        gms += _gms_map(x, y, rows, cols, height, width, x_row, x_col, y_row, y_col, c0, ROWS, COLS)
        s, d = _pixels(x, y, near, beside, x_row, x_col, y_row, y_col)
        square += d * d
        shift_s = tl.sum(tl.where(inside, s, 0.0)) / pixels
        shift_d = tl.sum(tl.where(inside, d, 0.0)) / pixels
        ssim += _ssim_map(s, d, shift_s, shift_d, narrow_down, narrow_across, c1, c2)
        soft_s = tl.trans(_blur(s - shift_s, broad_down, broad_across)) + shift_s
        soft_d = tl.trans(_blur(d - shift_d, broad_down, broad_across)) + shift_d
        at = into + c * plane
        tl.store(at, ((s + d) - (soft_s - soft_d)) / 2 / deviation, owned)
        tl.store(
            at + channels * plane,
            ((soft_s + soft_d) / 2 - tl.load(mean + c).to(tl.float32)) / deviation,
            owned,
        )
        tl.store(at + 2 * channels * plane, d / deviation, owned)
        tl.store(at + 3 * channels * plane, soft_d / deviation, owned)
        x += x_channel
        y += y_channel
    square = square / channels / (unit / channels) / (unit / channels)
    at = into + 4 * channels * plane
    tl.store(at, gms / channels, owned)
    tl.store(at + plane, tl.trans(ssim) / channels, owned)
    tl.store(at + 2 * plane, tl.sqrt(square), owned)
    soft = tl.trans(_blur(tl.minimum(square, 1.0), broad_down, broad_across))
    tl.store(energy + batch * plane + pixel, tl.log(tl.maximum(soft, 0.0) + floor) / 2, owned)


@triton.jit(do_not_specialize=[*ANY, "count"])
def _cells(
    x, y, std, cells, count, channels, height, width, down, across,
    x_batch, x_channel, x_row, x_col, y_batch, y_channel, y_row, y_col, BLOCK: tl.constexpr,
):  # fmt: skip
    """Means of (x - y) / std; what the last cells lack is filled up with the edge."""
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = cell < count
    row, col = cell // across % down * CELL, cell % across * CELL
    c, batch = cell // across // down % channels, cell // across // down // channels
    x += batch * x_batch + c * x_channel
    y += batch * y_batch + c * y_channel
    total = tl.zeros((BLOCK,), tl.float32)
    for m in range(CELL):
        i = tl.minimum(row + m, height - 1)
        for n in range(CELL):
            j = tl.minimum(col + n, width - 1)
            a = tl.load(x + i * x_row + j * x_col, valid, 0.0).to(tl.float32)
            total += a - tl.load(y + i * y_row + j * y_col, valid, 0.0).to(tl.float32)
    scale = tl.load(std + c, valid, 1.0).to(tl.float32)
    tl.store(cells + cell, total / (CELL * CELL) / scale, valid)


@triton.jit
def _lines(at, of, n, centre, falloff, SMALL: tl.constexpr):
    """What cell `of` of a line of n adds to pixel `at`, blurred and on a straight line between two centres."""
    first = (at + CELL // 2) // CELL - 1
    share = (((at + CELL // 2) % CELL).to(tl.float32) + 0.5) / CELL
    before, behind = tl.minimum(tl.maximum(first, 0), n - 1), tl.minimum(first + 1, n - 1)
    left = _band(before, of, n, centre, falloff, REACH, SMALL)
    return left + share * (_band(behind, of, n, centre, falloff, REACH, SMALL) - left)


@triton.jit(do_not_specialize=[*ANY, "cells_down", "cells_across"])
def _darken(
    x, std, cells, unlit, channels, height, width, down, across, cells_down, cells_across,
    x_batch, x_channel, x_row, x_col, centre, falloff, least,
    ROWS: tl.constexpr, COLS: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """Take what is beyond `least` of the slow residual off a tile of one channel."""
    tile = tl.program_id(0).to(tl.int64)
    plane = tile // (down * across)
    row, col = tile // across % down * ROWS, tile % across * COLS
    rows, cols = row + tl.arange(0, ROWS), col + tl.arange(0, COLS)
    above = (row // CELL).to(tl.int32) - 1 - REACH + tl.arange(0, NEAR)
    left = (col // CELL).to(tl.int32) - 1 - REACH + tl.arange(0, NEAR)
    within = ((above >= 0) & (above < cells_down))[:, None] & ((left >= 0) & (left < cells_across))[None, :]
    place = plane * cells_down * cells_across + above[:, None] * cells_across + left[None, :]
    near = tl.load(cells + place, within, 0.0)
    i, j = rows.to(tl.int32), cols.to(tl.int32)
    by_row = _lines(i[:, None], above[None, :], cells_down, centre, falloff, SMALL)
    by_col = _lines(j[None, :], left[:, None], cells_across, centre, falloff, SMALL)
    slow = tl.dot(by_row, near, input_precision="tf32x3")
    slow = tl.dot(slow, by_col, input_precision="tf32x3")
    c, batch = plane % channels, plane // channels
    excess = slow - tl.minimum(tl.maximum(slow, -least), least)
    inside = (rows < height)[:, None] & (cols < width)[None, :]
    at = x + batch * x_batch + c * x_channel + rows[:, None] * x_row + cols[None, :] * x_col
    here = tl.load(at, inside, 0.0).to(tl.float32) - excess * tl.load(std + c).to(tl.float32)
    pixel = plane * height * width + rows[:, None] * width + cols[None, :]
    tl.store(unlit + pixel, tl.minimum(tl.maximum(here, 0.0), 1.0), inside)
