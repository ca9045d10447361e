"""Artificial defects: a random support, anomalous content inside it, and the blend of Eq 1 (section III.B).

I_o  defect-free picture (H, W, C)      I_d  anomalous picture (H, W, C)
I_m  binary mask: 0 occlusion, 1 destructive defect
I_s  artificial defect picture          lambda  transparency, `opacity` here, in (0, 1)
S    support of the defect (H, W) in [0, 1], 0 outside it; x is the column and y the row of a pixel
All pictures lie in [0, 1].
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._checks import Array, fraction, numbers, picture, same_shape

BLOB, LINE, DOTS = 0, 1, 2  # the kinds of support


def support(
    shape: Sequence[int],
    *,
    kind: int,
    grid: npt.ArrayLike,
    line: npt.ArrayLike,
    dots: npt.ArrayLike,
    level: float,
    edge: float,
) -> Array:
    """Where the defect is: S = clip(0.5 + (field - level) / edge, 0, 1), `field` being one of three kinds.

    Parameters
    ----------
    shape : (H, W)
    kind : int
        0, blob: `grid` interpolated bilinearly over the picture, its corner values at the corner pixels.
        1, line: field = -max(|v - amplitude sin(2 pi u / period + phase)|, |u| - half_length) in the frame
        of the line, u = (x-cx) cos a + (y-cy) sin a, v = -(x-cx) sin a + (y-cy) cos a. The level is minus
        half the width.
        2, dots: field = -min_j(hypot(x - x_j, y - y_j) - r_j); at level 0 the discs of radius r_j.
    grid : (g, g)
    line : (7,)
        cx, cy, angle a, half_length, amplitude, period, phase; pixels and radians.
    dots : (J, 3)
        x, y, radius r of each dot, in pixels.
    level : float
        Value of the field at the middle of the edge.
    edge : float
        Width of the soft edge in units of the field, above 0.

    Returns
    -------
    S : (H, W) in [0, 1]

    Raises
    ------
    ValueError
        Unknown kind, an edge or a period of 0, wrong shape, NaN. Only the parameters of `kind` are read.
    """
    H, W = shape
    if H < 1 or W < 1:
        raise ValueError(f"shape is {tuple(shape)}; expected (H, W), each at least 1")
    if not edge > 0:
        raise ValueError(f"edge is {edge!r}; expected a width above 0")
    if kind == BLOB:
        field = _blob(H, W, numbers("grid", grid, "(g, g)"))
    elif kind == LINE:
        field = _line(H, W, numbers("line", line, "(7,)"))
    elif kind == DOTS:
        field = _dots(H, W, numbers("dots", dots, "(J, 3)"))
    else:
        raise ValueError(f"kind is {kind!r}; expected 0 (blob), 1 (line) or 2 (dots)")
    return np.clip(0.5 + (field - level) / edge, 0.0, 1.0)


def anomalous_content(image: npt.ArrayLike, source: npt.ArrayLike, support: npt.ArrayLike) -> Array:
    """I_d = S * source + (1 - S) * I_o: natural texture inside the support, the picture itself outside.

    Parameters
    ----------
    image, source : (H, W, C) in [0, 1]
    support : (H, W) in [0, 1]

    Returns
    -------
    I_d : (H, W, C) in [0, 1]
    """
    I_o, natural = _pair("image", image, "source", source)
    S = numbers("support", support, "(H, W)")
    if S.shape != I_o.shape[:2] or S.min() < 0 or S.max() > 1:
        raise ValueError(f"support has shape {S.shape}, values {S.min():g} to {S.max():g}; expected "
                         f"{I_o.shape[:2]} in [0, 1]")  # fmt: skip
    S = S[:, :, None]
    return S * natural + (1 - S) * I_o


def blend(image: npt.ArrayLike, anomaly: npt.ArrayLike, mask: npt.ArrayLike, opacity: float) -> Array:
    """I_s = lambda [(1 - I_m) I_o + I_m I_d] + (1 - lambda) I_d, Eq 1 as printed.

    Mask 0 lays the anomaly over the picture (an occlusion, lambda I_o + (1 - lambda) I_d); mask 1 puts it in
    the picture's place (a destructive defect, I_d).

    Parameters
    ----------
    image, anomaly : (H, W, C) in [0, 1]
        I_o and I_d.
    mask : (H, W) or scalar, 0 or 1
        I_m.
    opacity : float in [0, 1]
        lambda.

    Returns
    -------
    I_s : (H, W, C) in [0, 1]
    """
    I_o, I_d = _pair("image", image, "anomaly", anomaly)
    I_m = np.asarray(mask, dtype=np.float64)
    if I_m.shape not in ((), I_o.shape[:2]) or not np.isin(I_m, (0, 1)).all():
        raise ValueError(
            f"mask has shape {I_m.shape}; expected a scalar or {I_o.shape[:2]}, every value 0 or 1"
        )
    if I_m.ndim == 2:
        I_m = I_m[:, :, None]
    lam = fraction("opacity", opacity)
    return lam * ((1 - I_m) * I_o + I_m * I_d) + (1 - lam) * I_d


def synthesize(
    image: npt.ArrayLike,
    source: npt.ArrayLike,
    *,
    kind: int,
    grid: npt.ArrayLike,
    line: npt.ArrayLike,
    dots: npt.ArrayLike,
    level: float,
    edge: float,
    destructive: float,
    opacity: float,
) -> tuple[Array, Array]:
    """Draw one artificial defect: the support, the content inside it, and Eq 1.

    Parameters
    ----------
    image, source : (H, W, C) in [0, 1]
        The defect-free picture I_o, and a crop of a natural picture.
    kind, grid, line, dots, level, edge
        As for `support`.
    destructive : 0 or 1
        The mask I_m, the same everywhere.
    opacity : float in [0, 1]
        lambda.

    Returns
    -------
    I_s : (H, W, C) in [0, 1]
    S : (H, W) in [0, 1]
        Outside it, where S is 0, I_s is the picture.
    """
    I_o = picture("image", image)
    S = support(I_o.shape[:2], kind=kind, grid=grid, line=line, dots=dots, level=level, edge=edge)
    I_d = anomalous_content(I_o, source, S)
    return blend(I_o, I_d, destructive, opacity), S


def _blob(H: int, W: int, grid: Array) -> Array:
    if grid.shape[0] != grid.shape[1]:
        raise ValueError(f"grid has shape {grid.shape}; expected a square one, (g, g)")
    y0, y1, fy = _neighbours(H, len(grid))
    x0, x1, fx = _neighbours(W, len(grid))
    rows = (1 - fy)[:, None] * grid[y0] + fy[:, None] * grid[y1]  # (H, g)
    return (1 - fx) * rows[:, x0] + fx * rows[:, x1]  # (H, W)


def _neighbours(length: int, g: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Array]:
    """Return the two grid lines about each pixel and how far the pixel lies from the first of them."""
    at = np.arange(length) * (g - 1) / max(length - 1, 1)
    first = np.floor(at).astype(np.intp)
    return first, np.minimum(first + 1, g - 1), at - first


def _line(H: int, W: int, line: Array) -> Array:
    if line.shape != (7,) or line[5] == 0:
        raise ValueError(
            f"line is {line.tolist()}; expected cx, cy, angle, half_length, amplitude, period (not 0), phase"
        )
    cx, cy, a, half_length, amplitude, period, phase = line
    y, x = np.mgrid[:H, :W].astype(np.float64)
    u = (x - cx) * np.cos(a) + (y - cy) * np.sin(a)
    v = -(x - cx) * np.sin(a) + (y - cy) * np.cos(a)
    across = np.abs(v - amplitude * np.sin(2 * np.pi * u / period + phase))
    return np.asarray(-np.maximum(across, np.abs(u) - half_length))


def _dots(H: int, W: int, dots: Array) -> Array:
    if dots.shape[1] != 3:
        raise ValueError(f"dots has shape {dots.shape}; expected (J, 3): x, y, radius of each")
    y, x = np.mgrid[:H, :W].astype(np.float64)
    field = np.full((H, W), -np.inf)
    for x_j, y_j, r_j in dots:
        field = np.maximum(field, r_j - np.hypot(x - x_j, y - y_j))
    return field


def _pair(name: str, image: npt.ArrayLike, other_name: str, other: npt.ArrayLike) -> tuple[Array, Array]:
    a, b = picture(name, image), picture(other_name, other)
    same_shape(other_name, b, name, a)
    return a, b
