"""Defects drawn onto a good picture for the demonstration: scratch, stain, hole, thread, print error.

Drawn with pen and brush (Pillow) as a retoucher would. Nothing here is shared with the synthesis that
training uses, so a model that finds these defects has not seen their like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

__all__ = ["KINDS", "draw_defect"]

FINE = 4  # drawn this many times larger, then shrunk: smooth edges
VISIBLE = 0.25  # coverage from which a pixel counts as defective

Layer = NDArray[np.float64]  # (H, W) in [0, 1]
Point = tuple[float, float]  # x, y


def draw_defect(
    picture: NDArray[np.float32], kind: str, *, strength: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw one defect at a random place.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) float32 in [0, 1], at least 64 pixels on each side.
    kind : one of KINDS.
    strength : from 0 (invisible) to 1 (plain to see); scales the contrast, not the size.
    seed : fixes place, size and shape.

    Returns
    -------
    picture : the same shape, with the defect; unchanged where its coverage is 0
    mask : (H, W) bool, True where the defect covers at least a quarter of the pixel

    Raises
    ------
    ValueError : unknown kind, or a picture or strength outside its range.
    """
    if kind not in _DRAW:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    if min(picture.shape[:2]) < 64:
        raise ValueError(f"picture of shape {picture.shape}: expected 64 pixels or more on each side")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength}: expected 0 to 1")
    rng = np.random.default_rng([KINDS.index(kind), seed])
    grey = picture.astype(np.float64) if picture.ndim == 2 else picture.astype(np.float64).mean(axis=2)
    target, coverage = _DRAW[kind](grey, rng)
    opacity = strength * coverage
    if picture.ndim == 3:
        target, opacity = target[:, :, None], opacity[:, :, None]
    drawn = np.clip(picture + opacity * (target - picture), 0, 1).astype(np.float32)
    return drawn, coverage >= VISIBLE


def _scratch(grey: Layer, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """A bright groove that fades out at both ends, with a dark burr on one side."""
    path = _curve(grey.shape, rng, length=rng.uniform(0.35, 0.6), bend=0.08)
    widths = rng.uniform(1.8, 2.6) * np.sin(np.linspace(0.15, np.pi - 0.15, len(path))) ** 0.4
    groove = _stroke(grey.shape, path, widths)
    burr = _stroke(grey.shape, [(x + 1.4, y + 1.4) for x, y in path], widths * 0.8) * (1 - groove)
    low, high = _extremes(grey)
    return np.where(groove > 0.3, high, low), np.maximum(groove, 0.7 * burr)


def _stain(grey: Layer, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """A dried drop: darkens what lies under it, most at its rim."""
    radius = rng.uniform(0.07, 0.11) * min(grey.shape)
    x, y = _place(grey.shape, rng, margin=1.6 * radius)
    drops = [(x, y, radius)]
    for _ in range(5):
        angle, size = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.35, 0.7)
        drops.append((x + radius * 0.8 * np.cos(angle), y + radius * 0.8 * np.sin(angle), size))

    def drip(pen: ImageDraw.ImageDraw) -> None:
        for drop in drops:
            pen.ellipse(_box(*drop), fill=255)

    blob = _paint(grey.shape, drip)
    body = ndimage.gaussian_filter(blob, 1.5)
    rim = np.clip(ndimage.gaussian_filter(blob, 1.2) - ndimage.gaussian_filter(blob, 5.0), 0, None)
    return 0.45 * grey * (1 - 0.6 * rim / max(rim.max(), 1e-9)), body


def _hole(grey: Layer, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """A torn opening: dark inside, with a frayed bright edge."""
    radius = rng.uniform(0.035, 0.06) * min(grey.shape)
    x, y = _place(grey.shape, rng, margin=2 * radius)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radii = radius * (1 + 0.22 * ndimage.gaussian_filter1d(rng.normal(size=24), 1, mode="wrap") / 0.5)
    edge = [(x + r * np.cos(a), y + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]
    opening = _paint(grey.shape, lambda pen: pen.polygon(_fine(edge), fill=255))
    around = np.clip(ndimage.gaussian_filter(ndimage.maximum_filter(opening, size=3), 0.6) - opening, 0, 1)
    low, high = _extremes(grey)
    depth = np.clip(low - 0.25, 0.02, None) + 0.08 * ndimage.gaussian_filter(rng.random(grey.shape), 2)
    return np.where(opening > 0.5, depth, high), np.maximum(opening, 0.8 * around)


def _thread(grey: Layer, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """A loose fibre lying on the surface, lit along its middle, with its shadow."""
    path = _curve(grey.shape, rng, length=rng.uniform(0.4, 0.7), bend=0.45)
    width = rng.uniform(3.0, 4.2)
    fibre = _stroke(grey.shape, path, np.full(len(path), width))
    light = ndimage.gaussian_filter(_stroke(grey.shape, path, np.full(len(path), width / 3)), 0.5)
    shadow = _stroke(grey.shape, [(x + 2.5, y + 2.5) for x, y in path], np.full(len(path), width))
    shadow = ndimage.gaussian_filter(shadow, 1.0) * (1 - fibre)
    low, high = _extremes(grey)
    return np.where(fibre > 0.3, low + (high - low) * (0.35 + 0.65 * light), 0.5 * grey), np.maximum(
        fibre, 0.8 * shadow
    )


def _print_error(grey: Layer, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """A row of printed bars that does not belong there, double where the plate slipped."""
    height = rng.uniform(0.09, 0.13) * min(grey.shape)
    bars, left = [], 0.0
    for _ in range(rng.integers(5, 9)):
        width = rng.choice([2.0, 3.0, 5.0])
        bars.append((left, width))
        left += width + rng.choice([3.0, 4.0, 6.0])
    x, y = _place(grey.shape, rng, margin=max(left, height) / 2 + 6)
    angle = rng.uniform(-0.2, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def print_at(shift: Point) -> Callable[[ImageDraw.ImageDraw], None]:
        def press(pen: ImageDraw.ImageDraw) -> None:
            for start, width in bars:
                right = start + width
                corners = np.array([(start, 0), (right, 0), (right, height), (start, height)]) - (
                    left / 2,
                    height / 2,
                )
                pen.polygon(
                    _fine([(x + shift[0] + u, y + shift[1] + v) for u, v in corners @ turn.T]), fill=255
                )

        return press

    ink = _paint(grey.shape, print_at((0.0, 0.0)))
    ghost = _paint(grey.shape, print_at((2.0, -3.0)))
    worn = 0.75 + 0.25 * (ndimage.gaussian_filter(rng.random(grey.shape), 1.5) > 0.5)
    low, _ = _extremes(grey)
    return np.full(grey.shape, max(low - 0.05, 0.03)), np.maximum(0.9 * ink * worn, 0.45 * ghost)


_DRAW: dict[str, Callable[[Layer, np.random.Generator], tuple[Layer, Layer]]] = {
    "scratch": _scratch,
    "stain": _stain,
    "hole": _hole,
    "thread": _thread,
    "print_error": _print_error,
}
KINDS = tuple(_DRAW)


def _extremes(grey: Layer) -> tuple[float, float]:
    """A dark and a bright grey that stand out from this surface: its 2nd and 98th percentile, moved out."""
    low, high = np.percentile(grey, [2, 98])
    return float(max(low - 0.1, 0.0)), float(min(high + 0.15, 1.0))


def _place(shape: tuple[int, ...], rng: np.random.Generator, margin: float) -> Point:
    height, width = shape
    margin = min(margin, 0.45 * min(shape))
    return rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)


def _curve(shape: tuple[int, ...], rng: np.random.Generator, length: float, bend: float) -> list[Point]:
    """A cubic Bezier curve through the middle region; length and bend as shares of the shorter side."""
    side = min(shape)
    x, y = _place(shape, rng, margin=0.5 * length * side)
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    offsets = rng.uniform(-bend, bend, size=4) * side
    steps = np.array([-0.5, -0.2, 0.2, 0.5]) * length * side
    a, b, c, d = np.array([x, y]) + steps[:, None] * along + offsets[:, None] * across
    t = np.linspace(0, 1, 80)[:, None]
    points = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    return [(float(u), float(v)) for u, v in points]


def _stroke(shape: tuple[int, ...], path: Sequence[Point], widths: NDArray[np.float64]) -> Layer:
    """Coverage of a pen that follows the path with a round tip of changing width in pixels."""

    def move(pen: ImageDraw.ImageDraw) -> None:
        for (x, y), width in zip(path, widths, strict=True):
            pen.ellipse(_box(x, y, width / 2), fill=255)
        for start, end, width in zip(path[:-1], path[1:], widths[1:], strict=True):
            pen.line(_fine([start, end]), fill=255, width=max(1, round(float(width) * FINE)))

    return _paint(shape, move)


def _paint(shape: tuple[int, ...], draw: Callable[[ImageDraw.ImageDraw], None]) -> Layer:
    """Coverage in [0, 1] of what `draw` paints, in coordinates FINE times as large."""
    height, width = shape
    canvas = Image.new("L", (width * FINE, height * FINE))
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255


def _box(x: float, y: float, radius: float) -> list[float]:
    return [(x - radius) * FINE, (y - radius) * FINE, (x + radius) * FINE, (y + radius) * FINE]


def _fine(points: Sequence[Point]) -> list[Point]:
    return [(float(x) * FINE, float(y) * FINE) for x, y in points]
