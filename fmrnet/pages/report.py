"""The page of a report: report.html beside report.json, in one file or with its pictures beside it."""

from __future__ import annotations

import base64
import datetime
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from fmrnet.errors import printable
from fmrnet.inspection.calibration import Calibration
from fmrnet.inspection.early_exit import LOST
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.names import PAGE, PAGE_FILES, PAGE_KINDS
from fmrnet.inspection.record import Line, path_of
from fmrnet.inspection.report import Report
from fmrnet.inspection.verdicts import LOOSEST
from fmrnet.pages.form import Form
from fmrnet.pages.model import model_facts, settings_facts
from fmrnet.pages.render import fill, plural, strings, write_page

__all__ = ["write_report"]

LARGEST_SINGLE = 30e6  # bytes of a page that mail takes and every browser opens at once
LARGEST_FORCED = 400e6  # bytes of a page that browsers open at all
RATES = np.geomspace(1e-4, LOOSEST, 121)  # among which the page's sliders move
SCRIPTS = ("vendor/panzoom-4.6.2.min.js", "static/viewer.js", "static/report.js")


def write_report(report: Report, model: str | Path, form: Form = Form.auto) -> Form:
    """Write the page of a report that is closed; gives the form that it has.

    Parameters
    ----------
    report : with the pictures for the page, see `fmrnet.inspection.report.open_report`.
    model : the model's file, as the user knows it.
    form : single: one file, unless it would be larger than browsers open; folder: the pictures stay in files beside it;
        auto: single up to LARGEST_SINGLE.

    Raises
    ------
    OSError : the disk is full, or a picture of the page has gone.
    """
    content = report.content()
    lines: list[Line] = content["pictures"]
    files = [_files(line) for line in lines]
    paths = [report.folder / name for found in files for name in found.values()]
    size = sum(path.stat().st_size for path in paths) * 4 / 3 + 1000 * len(lines)
    largest = {Form.auto: LARGEST_SINGLE, Form.single: LARGEST_FORCED, Form.folder: 0}[form]
    single = size <= largest
    calibration = report.inspector.calibration
    rates = _rates(calibration)
    names = _shortest([str(line.get("source", line["picture"])) for line in lines])
    rows = [
        _row(line, name, list(found), single) for line, name, found in zip(lines, names, files, strict=True)
    ]
    region = report.inspector.region
    provenance = report.inspector.provenance | ({} if region is None else {"region": str(region)})
    drift, summary, text = report.drift(), content["summary"], strings()["report"]
    inspected = summary["defective"] + summary["good"]
    write_page(
        report.folder / PAGE,
        "report.html.j2",
        data={
            "rate": calibration.false_alarms,
            "level": content["level"],
            "rows": rows,
            "good": {
                "pixel": _good(calibration.picture, calibration.false_alarms, rates),
                "patch": _good(calibration.patch, calibration.false_alarms, rates),
            },
            "exit": {
                "pixel": calibration.early_exit.pixel,
                "patch": calibration.early_exit.patch,
                "lost": LOST,
            },
            "rates": rates,
        },
        scripts=SCRIPTS,
        embedded=_embedded(report.folder, files) if single else (),
        when=datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        name=printable(report.folder.resolve().name),
        sentence=fill(text["single"], n=inspected)
        if summary["defective"] == 1 < inspected
        else plural(text["summary"], inspected, defective=summary["defective"]),
        promise=calibration.promise,
        drifted=drift.drifted,
        drift=list(drift.lines(model)),
        errors=[(printable(line["picture"]), line["error"]) for line in content["errors"]],
        not_reached=summary["not_reached"],
        facts=model_facts(provenance, content["model"]["file"], content["model"]["sha256"])
        + _facts(content, text),
        settings=settings_facts(report.inspector.config),
    )
    return Form.single if single else Form.folder


def _row(line: Line, name: str, kinds: list[str], single: bool) -> dict[str, Any]:
    """What the page's scripts know of a picture."""
    stem = line["files"]["overlay"].removesuffix(".overlay.png")
    return {
        "name": printable(name),
        "path": printable(line["picture"]),
        "score": line["score"],
        "p": line["p_value"],
        "early": line["patch_p_value"],
        "level": line["level"],
        "reasons": [printable(reason) for reason in line["reasons"]],
        "gone": not os.path.exists(path_of(line)),
        "defects": line["defects"],
        "count": line["defect_count"],
        "wouldBe": line["would_be"],
        "width": line["width"],
        "height": line["height"],
        "shown": line.get("shown", 1),
        "seconds": line["seconds"],
        "stem": None if single else quote(os.fsencode(f"{PAGE_FILES}/{stem}")),
        "kinds": kinds,
    }


def _files(line: Line) -> dict[str, str]:
    """The files of a line that the page shows, by kind."""
    return {kind: line["files"][name] for kind in PAGE_KINDS if (name := kind.split(".")[0]) in line["files"]}


def _embedded(folder: Path, files: Iterable[dict[str, str]]) -> Iterator[tuple[str, Markup]]:
    """Where a script finds a file, and its bytes in base64; each is read as it is written."""
    for number, found in enumerate(files):
        for kind, name in found.items():
            yield f"file-{number}-{kind}", Markup(base64.b64encode((folder / name).read_bytes()).decode())


def _rates(calibration: Calibration) -> list[float]:
    """Rates of false alarms at which the page knows the thresholds: RATES, and both sides of where these jump."""
    ends = {good.promised for good in (calibration.picture, calibration.patch)}
    rates = {*RATES.tolist(), calibration.false_alarms, *ends, *(end * (1 - 1e-6) for end in ends)}
    return sorted(rate for rate in rates if rate <= max(RATES[-1], calibration.false_alarms))


def _good(good: GoodScores, rate: float, rates: list[float]) -> dict[str, Any]:
    """What the good pictures of the calibration say at one level, and its thresholds, as scores are given."""
    threshold = good.threshold(rate)
    return {
        "scores": (good.surprises / threshold).tolist(),
        "p": good.p_values(good.surprises).tolist(),
        "thresholds": [good.threshold(one) / threshold for one in rates],
        "promised": good.promised,
        "parts": good.parts != 1,
    }


def _facts(content: dict[str, Any], text: dict[str, Any]) -> list[tuple[str, str]]:
    """How the pictures were inspected."""
    thresholds = content["thresholds"]
    return [
        (text["level"], text["levels"][content["level"]]),
        (
            text["rate_in_force"],
            fill(strings()["common"]["percent"], n=f"{100 * thresholds['false_alarms']:g}"),
        ),
        (text["pixel_threshold"], f"{thresholds['pixel']:.3g}"),
        (text["seconds"], f"{content['summary']['seconds']:g}"),
        (text["written_by"], f"fmrnet {content['fmrnet']}"),
    ]


def _shortest(paths: list[str]) -> list[str]:
    """The paths below the folder that they share."""
    parents = [PurePath(path).parent for path in paths]
    for shared in (parents[0], *parents[0].parents) if paths else ():
        if all(parent.is_relative_to(shared) for parent in parents):
            return [str(PurePath(path).relative_to(shared)) for path in paths]
    return paths
