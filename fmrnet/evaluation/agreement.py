"""Whether every engine gives the verdicts of PyTorch: the same pictures, good and with drawn defects, through each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmrnet.engines import choice
from fmrnet.engines.agreement import TOLERANCE
from fmrnet.engines.probes import machine
from fmrnet.evaluation.drawn_defects import KINDS, draw_defect
from fmrnet.pictures import read_picture, to_channels

if TYPE_CHECKING:
    from fmrnet.engines.engine import Engine
    from fmrnet.inspection.calibration import Calibration
    from fmrnet.inspection.inspector import Inspector

__all__ = ["agree", "agreement", "probes", "texture"]

PICTURES = 2  # good ones; each is seen as it is and once with each kind of defect
SIDE = 256  # pixels of a picture that are looked at
GRAIN = 1.5  # pixels, of a texture that is drawn where no picture is there


def agree(
    inspector: Inspector,
    good: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """`agreement` of every engine that is installed, noted in the inspector's provenance, which `save` writes."""
    engines = [name for name in choice.installed() if name != "torch"]
    found = agreement(inspector, engines, good, progress)
    inspector.provenance["graphs"]["agreement"] = found
    return found


def agreement(
    inspector: Inspector,
    engines: Sequence[str],
    good: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compare each engine's scores and verdicts with PyTorch's.

    Parameters
    ----------
    inspector : a calibrated model with graphs, whose engine is PyTorch's.
    engines : names of `fmrnet.engines.choice.ENGINES` that can run here.
    good : good pictures. Default: textures drawn from a seed.
    progress : called with the number of pictures done and of all.

    Returns
    -------
    `pictures` (how many), `of` (what they are), `tolerance`, and `engines`: of each the largest `difference` of a
    score, as a share of it or of the threshold if that is more, `changed`, by level the share of other verdicts, and
    the `machine` that this holds for.
    """
    pictures = list(probes(inspector, good))
    everyone = {"torch": inspector.engine} | {name: inspector.on(name).engine for name in engines}
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in everyone}
    for done, picture in enumerate(pictures):
        if progress is not None:
            progress(done, len(pictures))
        for name, engine in everyone.items():
            scores[name].append(_scores(engine, inspector.calibration, picture))
    if progress is not None:
        progress(len(pictures), len(pictures))
    return {
        "pictures": len(pictures),
        "of": "good pictures, as they are and with drawn defects" if good else "drawn textures and defects",
        "tolerance": TOLERANCE,
        "engines": {
            name: _compared(scores[name], scores["torch"]) | {"machine": machine(name)} for name in engines
        },
    }


def _scores(engine: Engine, calibration: Calibration, picture: NDArray[np.float32]) -> dict[str, float]:
    """By level, what a picture's readings surprise, as a multiple of the threshold.

    Limits of the picture as a whole are left out: they are no engine's, and a part of a picture may pass them.
    """
    calibration = calibration.of_size(picture[:, :, 0].size)
    seen = engine.glance(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    readings = {"patch": seen.readings, "pixel": engine.compare(seen).readings}
    good = {"patch": calibration.patch, "pixel": calibration.picture}
    return {
        level: float(good[level].surprise(readings[level]).max())
        / good[level].threshold(calibration.false_alarms)
        for level in readings
    }


def _compared(found: list[dict[str, float]], expected: list[dict[str, float]]) -> dict[str, Any]:
    pairs = [
        (mine[level], right[level]) for mine, right in zip(found, expected, strict=True) for level in right
    ]
    differences = [abs(mine - right) / max(1.0, right) for mine, right in pairs]
    changed = {
        level: float(
            np.mean([(mine[level] > 1) != (right[level] > 1) for mine, right in zip(found, expected)])
        )
        for level in expected[0]
    }
    return {"difference": float(f"{max(differences):.3g}"), "changed": changed}


def probes(inspector: Inspector, good: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
    """The pictures of the comparison, (H, W, C) in [0, 1], up to SIDE pixels a side."""
    channels, bits = inspector.config.image_channels, inspector.bits
    grounds = [read_picture(path, bits) for path in good[:PICTURES]] or [
        texture(channels, seed) for seed in range(PICTURES)
    ]
    for seed, ground in enumerate(grounds):
        top, left = (max(0, (side - SIDE) // 2) for side in ground.shape[:2])
        picture = to_channels(ground[top : top + SIDE, left : left + SIDE], channels)
        yield picture
        for kind in KINDS:
            drawn, _ = draw_defect(picture if channels == 3 else picture[:, :, 0], kind, seed=seed)
            yield to_channels(drawn, channels)


def texture(channels: int, seed: int, side: int = SIDE) -> NDArray[np.float32]:
    """A rough surface, (side, side, C) in [0, 1]."""
    noise = np.random.default_rng(seed).normal(0, 1, (side, side, channels))
    rough = ndimage.gaussian_filter(noise, (GRAIN, GRAIN, 0), mode="wrap")
    surface: NDArray[np.float32] = (0.5 + 0.1 * rough / rough.std()).clip(0, 1).astype(np.float32)
    return surface
