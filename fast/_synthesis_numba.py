"""Synthetic defects on the CPU: a row of a picture at a time, only the kind of defect that was drawn."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

import math

import numpy as np
from torch import Tensor

from ._numba import compiled, inlined
from ._threads import spread


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
    arrays = [t.numpy() for t in (image, source, kind, grid, line, dots, level, edge, shade, result, s)]
    spread(lambda start, stop: _rows(start, stop, *arrays), len(image) * image.shape[2])


@compiled
def _rows(start, stop, image, source, kind, grid, line, dots, level, edge, shade, result, s):
    _, channels, height, width = image.shape
    for at in range(start, stop):
        b, y = at // height, at % height
        row = s[b, y]
        if kind[b] == 0:
            _blob(grid[b], y, height, row)
        elif kind[b] == 1:
            _line(line[b], y, row)
        else:
            _dots(dots[b], y, row)
        for x in range(width):
            row[x] = min(max((row[x] - level[b]) / edge[b] + image.dtype.type(0.5), 0), 1)
        for c in range(channels):
            inside, outside, blended = source[b, c, y], image[b, c, y], result[b, c, y]
            for x in range(width):
                weight = shade[b] * row[x]
                blended[x] = weight * inside[x] + (1 - weight) * outside[x]


@inlined
def _blob(grid, y, height, row):
    """Bilinear, corner values at the corner pixels."""
    last, width = len(grid) - 1, len(row)
    above = y * last / max(height - 1, 1)
    i = min(int(above), max(last - 1, 0))
    down, below = above - i, min(i + 1, last)
    for x in range(width):
        left = x * last / max(width - 1, 1)
        j = min(int(left), max(last - 1, 0))
        across, beside = left - j, min(j + 1, last)
        upper = grid[i, j] + across * (grid[i, beside] - grid[i, j])
        lower = grid[below, j] + across * (grid[below, beside] - grid[below, j])
        row[x] = upper + down * (lower - upper)


@inlined
def _line(line, y, row):
    cx, cy, angle, half_length, amplitude, period, phase = line
    cos, sin = math.cos(angle), math.sin(angle)
    for x in range(len(row)):
        u = (x - cx) * cos + (y - cy) * sin
        v = (y - cy) * cos - (x - cx) * sin
        across = abs(v - amplitude * math.sin(2 * math.pi * u / period + phase))
        row[x] = -max(across, abs(u) - half_length)


@inlined
def _dots(dots, y, row):
    row[:] = -np.inf
    for cx, cy, r in dots:
        for x in range(len(row)):
            row[x] = max(row[x], r - math.sqrt((x - cx) ** 2 + (y - cy) ** 2))
