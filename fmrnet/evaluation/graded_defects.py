"""Defects of a given size and contrast, drawn onto good pictures: how small and how faint a defect may be to be found.

Drawn with SciPy from distances to an outline. Nothing here is shared with the synthesis that training uses. The kinds
are of surfaces in general: what is darker or brighter, worn, grown wrong, broken off at the border, or cracked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["GRADED_KINDS", "draw_graded", "texture_deviation"]

SLOW = 16.0  # pixels of a Gaussian; what changes more slowly is light rather than texture
CLEAR = 0.5  # coverage from which a pixel counts as defective

Layer = NDArray[np.float64]  # (H, W)


def draw_graded(
    picture: NDArray[np.float32], kind: str, *, size: float, contrast: float, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw one defect at a random place.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) float32 in [0, 1], at least 64 pixels on each side.
    kind : one of GRADED_KINDS.
    size : the defect's longer extent in pixels, about; 4 or more.
    contrast : how far it departs from the good surface, 0 or more: in `texture_deviation`s where its tone differs;
        where it is the texture that does, the share of the difference that is drawn, at most 1.
    seed : fixes place and shape.

    Returns
    -------
    picture : the same shape, with the defect
    mask : (H, W) bool, True where at least half of it is there

    Raises
    ------
    ValueError : unknown kind, or a picture, size or contrast outside its range.
    """
    if kind not in _CHANGE:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(GRADED_KINDS)}")
    if min(picture.shape[:2]) < 64:
        raise ValueError(f"picture of shape {picture.shape}: expected 64 pixels or more on each side")
    if not size >= 4:
        raise ValueError(f"size {size}: expected 4 pixels or more")
    if not 0 <= contrast < np.inf:
        raise ValueError(f"contrast {contrast}: expected 0 or more")
    rng = np.random.default_rng([GRADED_KINDS.index(kind), seed])
    planes = picture.astype(np.float64).reshape(*picture.shape[:2], -1)
    coverage = _coverage(planes.shape[:2], kind, size, rng)
    change = _CHANGE[kind](planes, contrast, rng)
    drawn = np.clip(planes + coverage[:, :, None] * change, 0, 1).astype(np.float32)
    return drawn.reshape(picture.shape), coverage >= CLEAR


def texture_deviation(planes: NDArray[np.float64]) -> float:
    """Standard deviation of a picture (H, W, C) about its slow changes, at least one grey level of 255."""
    slow = ndimage.gaussian_filter(planes, (SLOW, SLOW, 0), mode="nearest")
    return max(float((planes - slow).std()), 1 / 255)


def _coverage(shape: tuple[int, ...], kind: str, size: float, rng: np.random.Generator) -> Layer:
    """How much of the defect is at each pixel, (H, W) in [0, 1]: its outline is ragged, and sharp or soft."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    ragged = ndimage.gaussian_filter(rng.normal(size=shape), max(size / 10, 1.0), mode="nearest")
    ragged *= 0.12 * size / max(ragged.std(), 1e-9)
    centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
    angle = rng.uniform(0, np.pi)
    if kind == "chip":  # a notch: its middle lies on the picture's border
        centre_y, centre_x = [(0, centre_x), (height, centre_x), (centre_y, 0), (centre_y, width)][
            rng.integers(4)
        ]
    along = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
    across = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
    if kind == "crack":
        half_width = max(0.7, size / 60)
        wander = ndimage.gaussian_filter1d(rng.normal(size=4 * (height + width)), max(size / 8, 1.0))
        wander *= 0.06 * size / max(wander.std(), 1e-9)
        offset = wander[np.round(along).astype(int) % len(wander)]
        inside = np.minimum(half_width - np.abs(across - offset), size / 2 - np.abs(along))
        return _step(inside, 0.5)
    inside = (size / 2) * (1 - np.hypot(along * 2 / size, across * 2 / size / rng.uniform(0.5, 1.0))) + ragged
    softness = size / 8 if kind in ("stain", "wear") and rng.random() < 0.5 else 0.7
    return _step(inside, softness)


def _step(inside: Layer, softness: float) -> Layer:
    return np.clip(0.5 + inside / (2 * softness), 0, 1)


def _stain(planes: Layer, contrast: float, rng: np.random.Generator) -> Layer:
    """Darker or brighter, the texture as it is."""
    return np.full_like(planes, rng.choice([-1.0, 1.0]) * contrast * texture_deviation(planes))


def _wear(planes: Layer, contrast: float, rng: np.random.Generator) -> Layer:
    """The texture's grain is gone."""
    grain = rng.uniform(2, 6)
    return min(contrast, 1.0) * (ndimage.gaussian_filter(planes, (grain, grain, 0), mode="nearest") - planes)


def _growth(planes: Layer, contrast: float, rng: np.random.Generator) -> Layer:
    """The surface's own texture, in another direction or another size, with the tone that is there."""
    zoom = rng.choice([0.6, 1.0, 1.6])
    turned = ndimage.rotate(planes, rng.uniform(30, 150), reshape=False, order=1, mode="reflect")
    height, width = planes.shape[:2]
    rows = (np.arange(height) * zoom).astype(int) % height
    columns = (np.arange(width) * zoom).astype(int) % width
    other = turned[rows][:, columns]
    slow = ndimage.gaussian_filter(planes, (SLOW, SLOW, 0), mode="nearest")
    return min(contrast, 1.0) * (
        other - ndimage.gaussian_filter(other, (SLOW, SLOW, 0), mode="nearest") + slow - planes
    )


def _crack(planes: Layer, contrast: float, rng: np.random.Generator) -> Layer:
    """A thin line, darker or brighter."""
    return _stain(planes, contrast, rng)


def _chip(planes: Layer, contrast: float, rng: np.random.Generator) -> Layer:
    """Broken off at the border: one tone, without texture."""
    tone = planes.mean((0, 1)) + rng.choice([-1.0, 1.0]) * contrast * texture_deviation(planes)
    return tone + rng.normal(scale=0.005, size=planes.shape) - planes


_CHANGE: dict[str, Callable[[Layer, float, np.random.Generator], Layer]] = {
    "stain": _stain,
    "wear": _wear,
    "growth": _growth,
    "crack": _crack,
    "chip": _chip,
}
GRADED_KINDS = tuple(_CHANGE)
