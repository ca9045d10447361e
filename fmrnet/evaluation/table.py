"""The figures of an evaluation on a terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from fmrnet.errors import printable
from fmrnet.evaluation.known import Known
from fmrnet.evaluation.examples import few
from fmrnet.terminal import show

__all__ = ["print_drawn", "print_figures", "print_known"]


def print_figures(figures: dict[str, Any]) -> None:
    """The figures of an evaluation as a small table."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    count = figures["pictures"]
    table = Table(
        title=f"{count['defective']} defective and {count['good']} good pictures", title_justify="left"
    )
    table.add_column("")
    for name in ("ROC-AUC", "AU-PRO", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    kinds = ("roc_auc", "au_pro", "precision", "recall", "f1")
    rows = [("pixels", figures["pixel"]), ("pictures", figures["picture"])]
    rows += [("pictures, patch level", figures["patch_level"])]
    rows += [(printable(f"pixels of {name}"), part["pixel"]) for name, part in figures["classes"].items()]
    for name, part in rows:
        table.add_row(name, *(number(part.get(kind)) for kind in kinds), end_section=name == rows[2][0])
    Console(markup=False, emoji=False).print(table)  # the names of folders are not markup
    seconds = figures["seconds"]
    if seconds["median"] is not None:
        print(
            "precision, recall and F1 at the calibrated thresholds; "
            f"{seconds['median']:.2f} s per picture, {seconds['patch_level_median']:.2f} s at patch level"
        )
    _print_detection(figures)
    for note in figures["notes"]:
        show(note)


def print_known(figures: dict[str, Any]) -> None:
    """What an evaluation's figures say of known defects alone: which are found and missed, and by which size."""
    _print_detection(figures)
    if missed := figures["known"]["missed"]:
        print("missed:")
    for name, p_value in missed:
        show(f"  {name}: p-value {p_value:.3g}")


def _print_detection(figures: dict[str, Any]) -> None:
    """How many known defects are found, what missing none would cost, and by which size and contrast they are found."""
    for line in Known(**figures["known"]).sentences():
        show(line)
    for measure, found in figures["detection"].items():
        if found["defects"]:
            show(_sentence(measure, found))


def print_drawn(figures: dict[str, Any]) -> None:
    """The figures of drawn defects as a small table."""
    kinds, pictures = figures["kinds"], figures["pictures"]
    table = Table(
        title=f"Drawn defects on {pictures['good']} good pictures, found of all", title_justify="left"
    )
    table.add_column("")
    strengths = [one["strength"] for one in next(iter(kinds.values()))["strengths"]] if kinds else []
    for strength in strengths:
        table.add_column(f"strength {strength:g}", justify="right")
    table.add_column("contrast", justify="right")
    for kind, found in kinds.items():
        cells = [
            f"{one['area']['found']} of {one['area']['defects']}, {_least(one['area'], 'area')}"
            for one in found["strengths"]
        ]
        table.add_row(kind.replace("_", " "), *cells, _least(found["contrast"], "contrast"))
    Console(markup=False, emoji=False).print(table)
    print(
        "after the comma, the area in pixels from which nine in ten are found with 95 % confidence; in the last\n"
        "column the contrast from which they are, over all sizes, in standard deviations of the surface around;\n"
        "- where none can be named. The defects are drawn: real ones may be easier or harder to find."
    )
    if figures["flagged"]:
        show(
            f"{pictures['flagged']} good pictures are called defective as they are, and left out: "
            + few(figures["flagged"])
        )


def _sentence(measure: str, found: dict[str, Any]) -> str:
    """From where on defects are found nine times in ten."""

    def at(value: float) -> str:
        return f"{_shown(value, measure)}{' or less' if value == found['least'] else ''}"

    said = []
    if found["a90"] is not None:
        said.append(f"about nine in ten are found from {at(found['a90'])} on (a90)")
    if found["a90_95"] is not None:
        said.append(f"with 95 % confidence from {at(found['a90_95'])} on (a90/95)")
    else:
        said.append(f"from where on with 95 % confidence (a90/95) cannot be said: {found['remark']}")
    tried = f"{_shown(found['least'], measure)} to {_shown(found['greatest'], measure)}"
    return f"{measure}: {', '.join(said)}; {found['found']} of {found['defects']} found, {tried}"


def _shown(value: float, measure: str) -> str:
    """An area with the diameter of a disk of it, both in pixels; a contrast in standard deviations of the surface."""
    if measure == "area":
        return f"{math.ceil(value)} pixels ({2 * math.sqrt(value / math.pi):.0f} across)"
    return f"{value:.2g} standard deviations"


def _least(found: dict[str, Any], measure: str) -> str:
    value = found["a90_95"]
    return "-" if value is None else str(math.ceil(value)) if measure == "area" else f"{value:.2g}"
