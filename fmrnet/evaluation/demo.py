"""The demonstration: learn one half of a photographed surface, find defects drawn on the other half.

Everything it needs comes with installed packages. The test pictures are written in the layout of MVTec AD, so
`fmrnet evaluate` and `fmrnet inspect` can be tried on them afterwards.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.config import preset
from fmrnet.errors import ConfigError
from fmrnet.evaluation.drawn_defects import KINDS, draw_defect
from fmrnet.evaluation.evaluate import evaluate
from fmrnet.evaluation.examples import GOOD, Example
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.files import replacing, write_json
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.sheet import SheetRow, sheet
from fmrnet.learning.training import train
from fmrnet.pictures import as_picture, read_picture, write_picture
from fmrnet.progress import Bar

__all__ = ["FIGURES", "INTRODUCTION", "MODEL", "SHEET", "make_dataset", "run"]

TEXTURE = "brick"  # skimage.data.brick, CC0, 512x512 grey
PIECE = 128  # pixels; width of the bands, and side of the squares that the half under inspection is cut into
ITERATIONS = (450, 300, 600)
MODEL, SHEET, FIGURES, DATASET, ABOUT = "model.fmr", "demo.png", "figures.json", "dataset", "about.txt"

INTRODUCTION = (
    f"FMR-Net learns one half of a photograph ({TEXTURE}, CC0, from scikit-image), every second upright band,\n"
    "then inspects the other half, with and without defects. The defects are drawn, not photographed.\n"
)
OWN = b"`fmrnet demo` made what lies here, and replaces it when it runs again.\n"  # by which it knows its folder


def run(out: str | Path, *, seed: int, iterations: int | None, bar: Bar) -> dict[str, Any]:
    """Make the pictures, train, calibrate, inspect, and write model, figures and picture sheet into `out`.

    Parameters
    ----------
    out : folder; made if it is missing. It must be empty, or of an earlier run, whose files are replaced.
    seed : fixes training and drawn defects.
    iterations : training steps of all phases; None takes ITERATIONS.
    bar : shows how far it is.

    Returns
    -------
    the figures of `fmrnet.evaluation.evaluate.evaluate`

    Raises
    ------
    FmrnetError : scikit-image or matplotlib is not installed.
    ConfigError : the folder holds anything that the demo did not make.
    """
    out = Path(out)
    _surface()  # what is missing is said before anything is written
    _claim(out)
    dataset = make_dataset(out / DATASET, seed)
    config = dataclasses.replace(preset("edge"), iterations=ITERATIONS)
    inspector = train(
        dataset,
        out / MODEL,
        config=config,
        iterations=iterations,
        seed=seed,
        restart=True,
        progress=bar.training(config),
    )
    figures = evaluate(inspector, dataset, progress=bar.counter("inspecting"))
    figures["note"] = "the defects are drawn"
    write_json(out / FIGURES, figures)
    picture = figures["picture"]
    sheet(
        out / SHEET,
        [_row(inspector, example) for example in _choose(load_dataset(dataset).examples)],
        title=f"FMR-Net on {TEXTURE}: learnt from one half of a photograph, inspecting the other half",
        note=f"The defects are drawn. ROC-AUC of pixels {figures['pixel']['roc_auc']:.3f}, "
        f"of pictures {picture['roc_auc']:.3f}; mask at the threshold calibrated on good pictures.",
    )
    return figures


def make_dataset(folder: str | Path, seed: int = 0) -> Path:
    """Write every second band as training picture and pieces of the others as test pictures; gives `folder`.

    The bands are upright, PIECE wide: both halves see the whole width, and its perspective. Every piece
    appears untouched and with a drawn defect, strong and fainter ones in turn.
    """
    folder = Path(folder)
    surface = _surface()
    bands = [surface[:, column : column + PIECE] for column in range(0, surface.shape[1] - PIECE + 1, PIECE)]
    for index, band in enumerate(bands[::2]):
        _write(folder / "train" / "good" / f"band_{index}.png", band)
    pieces = [
        band[row : row + PIECE] for band in bands[1::2] for row in range(0, len(band) - PIECE + 1, PIECE)
    ]
    for index, piece in enumerate(pieces):
        _write(folder / "test" / "good" / f"{index:02}.png", piece)
    for number in range(4 * len(KINDS)):
        kind, index = KINDS[number % len(KINDS)], number % len(pieces)
        strength = (1.0, 0.7)[number // len(KINDS) % 2]
        drawn, mask = draw_defect(pieces[index], kind, strength=strength, seed=1000 * seed + number)
        _write(folder / "test" / kind / f"{number:02}.png", drawn)
        _write(folder / "ground_truth" / kind / f"{number:02}_mask.png", mask)
    return folder


def _claim(out: Path) -> None:
    """Make the folder the demo's own, or raise ConfigError: nobody else's files are written among or replaced."""
    about = out / ABOUT
    if out.exists() and not (about.is_file() and about.read_bytes() == OWN):
        if not out.is_dir():
            raise ConfigError(f"{out} is no folder; name one that is empty or is to be made")
        if any(out.iterdir()):
            raise ConfigError(
                f"{out} is not empty and not of an earlier demo; name a folder that is to be made"
            )
    out.mkdir(parents=True, exist_ok=True)
    with replacing(about) as file:
        file.write(OWN)


def _surface() -> NDArray[np.float32]:
    import matplotlib  # noqa: F401  the sheet needs it: better said now than after the training
    import skimage.data

    return as_picture(getattr(skimage.data, TEXTURE)())


def _write(path: Path, picture: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, picture if picture.dtype == np.bool_ else np.round(picture * 255).astype(np.uint8))


def _choose(examples: list[Example]) -> list[Example]:
    """One picture of each kind, a good one last."""
    first = {example.defect: example for example in reversed(examples)}
    return [first[kind] for kind in (*KINDS, GOOD)]


def _row(inspector: Inspector, example: Example) -> SheetRow:
    picture = read_picture(example.picture)
    result = inspector.inspect(picture, level="pixel")
    assert result.anomaly_map is not None
    assert result.mask is not None
    truth = example.truth(picture.shape[:2])
    assert truth is not None
    return SheetRow(
        title=example.defect.replace("_", " "),
        verdict=f"{'defective' if result.defective else 'good'} {result.score:.2f}",
        picture=picture,
        reconstruction=inspector.reconstruct(picture),
        modalities=inspector.modality_maps(picture),
        anomaly_map=result.anomaly_map,
        mask=result.mask,
        truth=truth,
    )
