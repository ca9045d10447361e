"""What an inspection leaves: overlay, mask and raw map of each picture, and report.json of the batch.

Each file is written under a temporary name and renamed, so a full disk or a pulled plug leaves whole files
only. Inspecting into the same folder again replaces the files of the pictures inspected.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmrnet.files import replacing, write_json
from fmrnet.pictures import to_channels, write_map, write_picture

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector, Result

__all__ = ["Report", "SheetRow", "output_names", "overlay", "sheet"]

RED = np.array([1.0, 0.23, 0.19], dtype=np.float32)


class Report:
    """The report of one batch, written picture by picture.

    Parameters
    ----------
    folder : where the files go; made if it is missing.
    inspector : the model in use, for its thresholds and provenance.
    model : the file it came from.
    level : the level that was asked for.
    paths : the pictures of the batch, to choose names that do not collide.

    Raises
    ------
    OSError : the folder cannot be made or written, or the disk is full.
    """

    def __init__(
        self, folder: str | Path, inspector: Inspector, model: str | Path, level: str, paths: Sequence[Path]
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.inspector = inspector
        self.model = str(model)
        self.level = level
        self.names = output_names(paths)
        self.entries: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []
        self._reached: set[Path] = set()

    def add(self, path: Path, picture: NDArray[np.float32], result: Result) -> None:
        """Write the files of one inspected picture, given as (H, W) or (H, W, 3) in [0, 1]."""
        name = self.names[path]
        files = {kind: self.folder / f"{name}.{kind}" for kind in ("overlay.png", "mask.png", "map.tiff")}
        files["overlay.png"].parent.mkdir(parents=True, exist_ok=True)
        boxes = self._boxes(picture, result) if result.mask is None else None
        write_picture(files["overlay.png"], overlay(picture, result.mask, boxes))
        if result.mask is not None and result.anomaly_map is not None:
            write_picture(files["mask.png"], result.mask)
            write_map(files["map.tiff"], result.anomaly_map)
        else:  # what an earlier run left would belong to another result
            for kind in ("mask.png", "map.tiff"):
                files.pop(kind).unlink(missing_ok=True)
        self._reached.add(path)
        self.entries.append(
            {
                "picture": str(path),
                "score": float(result.score),
                "defective": bool(result.defective),
                "reasons": list(result.reasons),
                "level": result.level,
                "defective_pixels": None if result.mask is None else int(result.mask.sum()),
                "largest_patch_distance": float(result.patch_scores.max()),
                "width": picture.shape[1],
                "height": picture.shape[0],
                "seconds": round(float(result.seconds), 4),
                "files": {
                    kind.split(".")[0]: file.relative_to(self.folder).as_posix()
                    for kind, file in files.items()
                },
            }
        )

    def add_error(self, path: Path, error: str) -> None:
        """Note a picture (or a folder of them) that could not be inspected, and why."""
        self._reached.add(path)
        self.errors.append({"picture": str(path), "error": error})

    def content(self) -> dict[str, Any]:
        """The content of report.json."""
        calibration = self.inspector.calibration
        defective = sum(entry["defective"] for entry in self.entries)
        return {
            "pictures": self.entries,
            "errors": self.errors,
            "summary": {
                "defective": defective,
                "good": len(self.entries) - defective,
                "unreadable": len(self.errors),
                "not_reached": len(self.names.keys() - self._reached),
                "seconds": round(sum(entry["seconds"] for entry in self.entries), 3),
            },
            "level": self.level,
            "thresholds": {
                "score": 1.0,  # a score is a multiple of the threshold of its level
                "pixel": calibration.pixel_threshold,
                "patch": calibration.patch_threshold,
                "picture": calibration.picture_threshold,
            },
            "model": {
                "file": self.model,
                "config": self.inspector.config.to_dict(),
                "calibration": calibration.to_dict(),
                "provenance": {k: v for k, v in self.inspector.provenance.items() if k != "loss_curve"},
            },
        }

    def write(self) -> Path:
        """Write report.json and give its path."""
        path = self.folder / "report.json"
        write_json(path, self.content())
        return path

    def _boxes(self, picture: NDArray[np.float32], result: Result) -> list[tuple[int, int, int]]:
        """Row, column and side of the patches beyond the patch threshold, in pixels."""
        config = self.inspector.config

        def starts(length: int, count: int) -> NDArray[np.int64]:
            return np.minimum(np.arange(count) * config.stride, length - config.patch_size)

        rows, columns = result.patch_scores.shape
        top, left = starts(picture.shape[0], rows), starts(picture.shape[1], columns)
        beyond = np.argwhere(result.patch_scores > self.inspector.calibration.patch_threshold)
        return [(int(top[i]), int(left[j]), config.patch_size) for i, j in beyond]


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for the files of each picture: its path below the folder they share.

    The suffix is left out unless two names would then be the same.

    >>> list(output_names([Path("in/cut/0.png"), Path("in/hole/0.png")]).values())
    ['cut/0', 'hole/0']
    >>> list(output_names([Path("in/0.png"), Path("in/0.jpg")]).values())
    ['0.png', '0.jpg']
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    root = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
    below = [path.relative_to(root) for path in whole]
    if len({path.with_suffix("") for path in below}) == len(set(below)):
        below = [path.with_suffix("") for path in below]
    return {path: name.as_posix() for path, name in zip(paths, below, strict=True)}


def overlay(
    picture: NDArray[np.float32],
    mask: NDArray[np.bool_] | None = None,
    boxes: Sequence[tuple[int, int, int]] | None = None,
) -> NDArray[np.uint8]:
    """The picture with its defects outlined in red: (H, W, 3) uint8.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) in [0, 1]
    mask : (H, W) bool, defective pixels
    boxes : row, column and side of defective patches, in pixels
    """
    painted = to_channels(picture, 3).copy()
    marked = np.zeros(picture.shape[:2], np.bool_) if mask is None else mask
    for row, column, side in boxes or ():
        marked = marked.copy()
        marked[row : row + side, column : column + side] = True
    reach = max(1, round(min(picture.shape[:2]) / 256))  # the outline stays visible on a large picture
    near = ndimage.binary_dilation(marked, structure=np.ones((3, 3), np.bool_), iterations=reach)
    outline = ndimage.binary_dilation(near, structure=np.ones((3, 3), np.bool_), iterations=reach) & ~near
    painted[marked] = 0.7 * painted[marked] + 0.3 * RED
    painted[outline] = RED
    return np.round(painted * 255).astype(np.uint8)


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
