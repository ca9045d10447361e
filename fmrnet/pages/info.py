"""The page of a model: what it is, what its verdicts promise, how it was trained, which good pictures it doubts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmrnet.engines.runtimes import RUNTIMES
from fmrnet.errors import PictureError, printable
from fmrnet.files import digest
from fmrnet.inspection.defects import Defect
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.layers import as_data, thumb
from fmrnet.inspection.suspects import Suspect
from fmrnet.pages.model import model_facts, settings_facts
from fmrnet.pages.render import fill, plural, strings, write_page
from fmrnet.pictures import read_picture

__all__ = ["write_info"]

MOST_POINTS = 2000  # of the loss curve that are drawn


def write_info(
    path: str | Path,
    model: Path,
    inspector: Inspector,
    *,
    graphs: bool,
    weights: int,
    operations: Mapping[str, Any],
) -> int:
    """Write the page of a model; gives its size in bytes.

    Parameters
    ----------
    path : the HTML file.
    model : the file of the model.
    inspector : what is in it.
    graphs : whether it holds its network as graphs, too.
    weights : how many numbers it has learnt.
    operations : billions of multiply-adds for a picture of 512 x 512, by what they are for.

    Raises
    ------
    OSError, ArtifactError : as `fmrnet.pages.render.write_page`.
    """
    text, calibration = strings()["info"], inspector.calibration
    good, percent = calibration.picture, strings()["common"]["percent"]
    held_out = text["held_out" if good.parts == 1 else "held_out_parts"]
    return write_page(
        path,
        "info.html.j2",
        scripts=["static/info.js"],
        data={
            "losses": _losses(inspector.provenance.get("loss_curve")),
            "scores": (good.surprises / calibration.picture_threshold).tolist(),
            "held_out": held_out,
        },
        name=printable(model.name),
        sentence=plural(text["summary"], len(calibration.whole_looks), by=text["by"][_kind(inspector)]),
        promise=calibration.promise,
        exit_promise=calibration.exit_promise,
        thresholds=[
            (text["false_alarms"], fill(percent, n=f"{100 * calibration.false_alarms:g}")),
            (held_out, str(len(good.held_out))),
            (text["picture"], f"{calibration.picture_threshold:.4g}"),
            (text["patch"], f"{calibration.patch_threshold:.4g}"),
            (text["pixel"], f"{calibration.pixel_threshold:.4g}"),
        ],
        cost=[
            (text["engines"], ", ".join(["torch", *(RUNTIMES if graphs else ())])),
            (text["weights"], f"{weights:,}"),
            (text["size"], f"{model.stat().st_size / 1e6:.1f}"),
            *((fill(text["operations"], what=what), str(count)) for what, count in operations.items()),
            *_agreement(inspector.provenance.get("graphs"), text),
        ],
        least_sure=_shown(calibration.loudest, inspector.bits),
        surest=_shown(
            [one for one in calibration.quietest if one not in calibration.loudest], inspector.bits
        ),
        suspects=_shown(calibration.suspects, inspector.bits),
        facts=model_facts(inspector.provenance | _region(inspector), str(model), digest(model)),
        settings=settings_facts(inspector.config),
    )


def _agreement(graphs: object, text: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """How far each engine was off PyTorch when the graphs were made, as far as the file's author has noted it."""
    found: object = graphs
    for name in ("agreement", "engines"):
        found = found.get(name) if isinstance(found, Mapping) else None
    for engine, one in found.items() if isinstance(found, Mapping) else ():
        difference = one.get("difference") if isinstance(one, Mapping) else None
        if isinstance(difference, int | float):
            yield fill(text["off"], engine=printable(engine, 40)), f"{difference:.2g}"


def _region(inspector: Inspector) -> dict[str, str]:
    return {} if inspector.region is None else {"region": str(inspector.region)}


def _kind(inspector: Inspector) -> str:
    """Which of the texts says what computes."""
    if not inspector.config.generator:
        return "instant"
    return "general" if inspector.config.general else "own"


def _shown(named: Sequence[Suspect], bits: int | None) -> list[dict[str, str]]:
    """Pictures by name, and as small pictures with their place outlined where they still are what they were."""
    found = []
    for one in named:
        image = ""
        try:
            picture = read_picture(one.picture, bits)
        except PictureError:  # it is elsewhere by now, and its name is all there is
            picture = np.zeros((0, 0), np.float32)
        if one.row + one.height <= picture.shape[0] and one.column + one.width <= picture.shape[1]:
            mask = np.zeros(picture.shape[:2], np.bool_)
            mask[one.row : one.row + one.height, one.column : one.column + one.width] = True
            place = Defect(one.row, one.column, one.height, one.width, one.height * one.width, 1.0)
            image = as_data(thumb(picture, mask, place))
        name = Path(one.picture).name
        says = printable(dataclasses.replace(one, picture=name))
        found.append({"name": printable(name), "says": says, "path": printable(one.picture), "image": image})
    return found


def _losses(curve: object) -> dict[str, Any]:
    """Steps, and the losses of each phase at these; nothing if the curve is none, for anybody may have written it."""
    points = [point for point in curve if _is_point(point)] if isinstance(curve, list) else []
    points = points[:: math.ceil(len(points) / MOST_POINTS) or 1]
    phases = list(dict.fromkeys(phase for phase, _, _ in points))
    steps: list[int] = []
    before, last = 0, None
    for phase, step, _ in points:
        if phase != last:
            before, last = (steps[-1] if steps else 0), phase
        steps.append(before + step)
    losses = [[loss if phase == one else None for phase, _, loss in points] for one in phases]
    return {"steps": steps, "phases": phases, "losses": losses}


def _is_point(point: object) -> bool:
    """Whether this is phase, step and loss."""
    if not (isinstance(point, list | tuple) and len(point) == 3):
        return False
    phase, step, loss = point
    counts = all(type(value) is int and 0 <= value < 2**40 for value in (phase, step))
    return counts and type(loss) in (int, float) and 0 < loss < math.inf
