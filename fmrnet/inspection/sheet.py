"""A sheet of pictures beside what the model makes of them, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrnet.files import replacing

__all__ = ["SheetRow", "sheet"]


@dataclass(frozen=True)
class SheetRow:
    """One picture of a sheet; maps and pictures (H, W) or (H, W, C), all of one size."""

    title: str
    verdict: str
    picture: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    modalities: dict[str, NDArray[np.float32]]
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]
    truth: NDArray[np.bool_]


def sheet(path: str | Path, rows: Sequence[SheetRow], *, title: str, note: str) -> None:
    """Write a PNG that shows pictures beside what the model makes of them, one row each.

    Columns: picture, reconstruction, the modality maps, the fused map, the mask, the truth. A column of maps
    has one brightness scale for all rows, so a good picture stays dark. Needs matplotlib (the `demo` extra).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(rows[0].modalities)
    headings = {"gms": "gradients (GMS)", "ssim": "structure (SSIM)"}
    maps = [headings.get(name, name) for name in names]
    columns = ["picture", "reconstruction", *maps, "fused map", "mask", "truth"]
    tops = {
        heading: _brightest([row.modalities[name] for row in rows])
        for heading, name in zip(maps, names, strict=True)
    }
    tops["fused map"] = _brightest([row.anomaly_map for row in rows])

    side, gap, left, head, foot = 1.55, 0.06, 1.45, 0.95, 0.45  # inches
    width = left + len(columns) * (side + gap) + 0.15
    height = head + len(rows) * (side + gap) + foot
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    ink, faint = "#1d2433", "#5b6577"
    figure.text(0.16 / width, 1 - 0.3 / height, title, size=15, weight="bold", color=ink, va="center")
    figure.text(0.16 / width, 0.5 * foot / height, note, size=9.5, color=faint, va="center")
    for r, row in enumerate(rows):
        bottom = height - head - (r + 1) * (side + gap) + gap
        middle = (bottom + side / 2) / height
        figure.text(
            0.16 / width, middle + 0.1 / height, row.title, size=11, weight="bold", color=ink, va="center"
        )
        figure.text(0.16 / width, middle - 0.12 / height, row.verdict, size=9, color=faint, va="center")
        panels = [
            row.picture,
            row.reconstruction,
            *row.modalities.values(),
            row.anomaly_map,
            row.mask,
            row.truth,
        ]
        for c, (column, panel) in enumerate(zip(columns, panels, strict=True)):
            x = left + c * (side + gap)
            axes = figure.add_axes((x / width, bottom / height, side / width, side / height))
            axes.set_axis_off()
            if r == 0:
                axes.set_title(column, size=10.5, color=ink, pad=5)
            if column in tops:
                axes.imshow(panel, cmap="inferno", vmin=0, vmax=tops[column], interpolation="lanczos")
            else:
                shown = np.squeeze(np.asarray(panel, dtype=np.float32))
                axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="none" if c > 1 else "lanczos")
    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]


def _brightest(maps: Sequence[NDArray[np.float32]]) -> float:
    """A value that few pixels pass: the scale of a map column."""
    return max(float(np.quantile(np.stack([m.ravel() for m in maps]), 0.997)), 1e-9)
