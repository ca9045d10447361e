"""Synthetic defects on the GPU: a program owns a run of pixels of one picture and all its channels."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


def synthesize(
    image: Tensor,
    source: Tensor,
    kind: Tensor,
    grid: Tensor,
    line: Tensor,
    dots: Tensor,
    level: Tensor,
    edge: Tensor,
    shade: Tensor,
    *,
    result: Tensor,
    s: Tensor,
) -> None:
    """Fill result (B, C, H, W) and s (B, H, W); everything contiguous."""
    batch, channels, height, width = image.shape
    runs = triton.cdiv(height * width, BLOCK)
    if batch * runs:
        with torch.cuda.device_of(image):
            _pixels[(batch * runs,)](
                image, source, kind, grid, line, dots, level, edge, shade, result, s,
                channels, height, width, grid.shape[1], dots.shape[1], runs, BLOCK=BLOCK,
            )  # fmt: skip


@triton.jit
def _pixels(
    image, source, kind, grid, line, dots, level, edge, shade, result, s,
    channels, height, width, g, count, runs, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    b = program // runs
    pixel = program % runs * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    x, y = (pixel % width).to(tl.float32), (pixel // width).to(tl.float32)
    kind_b = tl.load(kind + b)
    field = tl.full((BLOCK,), -float("inf"), tl.float32)
    if kind_b == 0:  # bilinear, corner values at the corner pixels
        above, left = y * (g - 1) / tl.maximum(height - 1, 1), x * (g - 1) / tl.maximum(width - 1, 1)
        i = tl.minimum(above.to(tl.int32), tl.maximum(g - 2, 0))
        j = tl.minimum(left.to(tl.int32), tl.maximum(g - 2, 0))
        down, across = above - i, left - j
        below, beside = tl.minimum(i + 1, g - 1), tl.minimum(j + 1, g - 1)
        nodes = grid + b * g * g
        a, c = tl.load(nodes + i * g + j, inside), tl.load(nodes + i * g + beside, inside)
        upper = a + across * (c - a)
        a, c = tl.load(nodes + below * g + j, inside), tl.load(nodes + below * g + beside, inside)
        lower = a + across * (c - a)
        field = upper + down * (lower - upper)
    elif kind_b == 1:
        cx, cy, angle = tl.load(line + b * 7), tl.load(line + b * 7 + 1), tl.load(line + b * 7 + 2)
        half_length, amplitude = tl.load(line + b * 7 + 3), tl.load(line + b * 7 + 4)
        period, phase = tl.load(line + b * 7 + 5), tl.load(line + b * 7 + 6)
        u = (x - cx) * tl.cos(angle) + (y - cy) * tl.sin(angle)
        v = (y - cy) * tl.cos(angle) - (x - cx) * tl.sin(angle)
        turns = u / period + phase / 6.283185307179586
        turns -= tl.floor(turns + 0.5)  # a GPU's sine is exact near 0 alone
        off_axis = tl.abs(v - amplitude * tl.sin(6.283185307179586 * turns))
        field = -tl.maximum(off_axis, tl.abs(u) - half_length)
    else:
        for n in range(count):
            dot = dots + (b * count + n) * 3
            dx, dy = x - tl.load(dot), y - tl.load(dot + 1)
            field = tl.maximum(field, tl.load(dot + 2) - tl.sqrt(dx * dx + dy * dy))
    support = (field - tl.load(level + b)) / tl.load(edge + b) + 0.5
    support = tl.minimum(tl.maximum(support, 0.0), 1.0)
    tl.store(s + b * height * width + pixel, support, inside)
    weight = tl.load(shade + b) * support
    at = b * channels * height * width + pixel
    for _ in range(channels):
        natural, texture = (
            tl.load(source + at, inside).to(tl.float32),
            tl.load(image + at, inside).to(tl.float32),
        )
        tl.store(result + at, weight * natural + (1 - weight) * texture, inside)
        at += height * width
