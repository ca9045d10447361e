"""The figures of an evaluation on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from fmrnet.errors import printable
from fmrnet.terminal import show

__all__ = ["detected", "print_drawn", "print_figures"]


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
    for line in (*figures["known"], *detected(figures["detection"])):
        show(line)
    for note in figures["notes"]:
        show(note)


def detected(detection: dict[str, dict[str, Any]]) -> list[str]:
    """In a sentence for each measure, from where on known defects are found nine times in ten; none without masks."""
    return [_sentence(measure, found) for measure, found in detection.items() if found["defects"]]


def print_drawn(figures: dict[str, Any]) -> None:
    """The figures of drawn defects as a small table."""
    kinds, pictures = figures["kinds"], figures["pictures"]
    table = Table(title=f"Drawn defects on {pictures['good']} good pictures, found of all", title_justify="left")
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
        "after the comma, the area in pixels from which nine in ten are found with 95 % confidence; in the last column the\n"
        "contrast from which they are, whatever the size, in standard deviations of the surface around; - where none of\n"
        "those tried is. The defects are drawn: they show what is missed for its size or contrast, real ones may differ."
    )
    if figures["flagged"]:
        show(
            f"{pictures['flagged']} good pictures are called defective as they are, and left out: "
            + _few(figures["flagged"])
        )


def _sentence(measure: str, found: dict[str, Any]) -> str:
    tried = f"{found['found']} of {found['defects']} found, of {measure} {_shown(found['least'], measure)} to {_shown(found['greatest'], measure)}"
    def at(value: float) -> str:
        return f"{_shown(value, measure)}{' or less' if value == found['least'] else ''}"
    said = []
    if found["a90"] is not None:
        said.append(f"about nine in ten are found from {at(found['a90'])} (a90)")
    if found["a90_95"] is not None:
        said.append(f"with 95 % confidence from {at(found['a90_95'])} (a90/95)")
    else:
        said.append(f"no {measure} can be named from which they are with 95 % confidence: {found['remark']}")
    return f"{measure}: {', '.join(said)}; {tried}"


def _shown(value: float, measure: str) -> str:
    """An area with the diameter of a disk of it, both in pixels; a contrast in standard deviations of the surface."""
    if measure == "area":
        return f"{math.ceil(value)} pixels ({2 * math.sqrt(value / math.pi):.0f} across)"
    return f"{value:.2g} standard deviations"


def _least(found: dict[str, Any], measure: str) -> str:
    value = found["a90_95"]
    return "-" if value is None else str(math.ceil(value)) if measure == "area" else f"{value:.2g}"
