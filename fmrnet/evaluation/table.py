"""The figures of an evaluation on a terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from fmrnet.errors import printable
from fmrnet.evaluation.examples import few
from fmrnet.evaluation.known import Known
from fmrnet.terminal import show

__all__ = ["FIGURES", "PARTS", "print_comparison", "print_drawn", "print_figures", "print_known"]


FIGURES = {
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "au_pro": "AU-PRO to 0.3",
    "au_pro_05": "AU-PRO to 0.05",
    "aupimo": "AUPIMO",
    "f1_max": "F1, greatest",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "false_positive_rate": "false positives",
}
PARTS = {"pixel": "pixels", "picture": "pictures", "patch_level": "patch level"}


def print_figures(figures: dict[str, Any]) -> None:
    """The figures of an evaluation as small tables, with the sentences that belong to them."""
    count = figures["pictures"]
    table = Table(
        title=f"{count['defective']} defective and {count['good']} good pictures",
        title_justify="left",
    )
    table.add_column("")
    for title in PARTS.values():
        table.add_column(title, justify="right")
    for name, title in FIGURES.items():
        cells = [_with_interval(figures[part], name) if name in figures[part] else "" for part in PARTS]
        table.add_row(title, *cells, end_section=name == "f1_max")
    console = Console(markup=False, emoji=False)  # the names of folders are not markup
    console.print(table)
    if figures["classes"]:
        console.print(_classes(figures["classes"]))
    seconds = figures["seconds"]
    if seconds["median"] is not None:
        print(
            "beside each figure its 95 % interval; below the line at the calibrated thresholds; "
            f"{seconds['median']:.2f} s per picture, {seconds['patch_level_median']:.2f} s at patch level"
        )
    _print_detection(figures)
    for line in (*figures["notes"], *figures["cautions"]):
        show(line)


def print_comparison(found: dict[str, Any]) -> None:
    """What differs between two results."""
    for name, path in zip(("first", "second"), found["results"], strict=True):
        show(f"{name}: {path}")
    table = Table()
    for title in ("", "first", "second", "difference", "95 % interval", ""):
        table.add_column(title, justify="right" if title else "left")
    for part, title in PARTS.items():
        table.add_row(f"{title}:")
        for name, label in FIGURES.items():
            if (one := found["figures"].get(f"{part}.{name}")) is None:
                continue
            span = "-" if one["interval"] is None else "{:+.3f} to {:+.3f}".format(*one["interval"])
            table.add_row(
                f"  {label}",
                _number(one["first"]),
                _number(one["second"]),
                f"{one['difference']:+.3f}",
                span,
                "differs" if one["differs"] else "",
            )
        table.add_section()
    Console(markup=False, emoji=False).print(table)
    print(
        "a difference whose interval holds 0 may be chance; of many figures one in twenty differs by chance alone"
    )
    for key, whose in (("only_first_right", "first"), ("only_second_right", "second")):
        if names := found["verdicts"][key]:
            pictures = "picture" if len(names) == 1 else "pictures"
            show(f"{len(names)} {pictures} of which the {whose} alone is right: {few(names)}")


def _classes(classes: dict[str, Any]) -> Table:
    """A row for each kind of defect."""
    table = Table()
    table.add_column("")
    shown = [("pixel", name) for name in ("roc_auc", "au_pro", "aupimo")]
    shown += [("picture", name) for name in ("roc_auc", "recall")]
    for part, name in shown:
        table.add_column(f"{FIGURES[name]}, {PARTS[part]}", justify="right")
    for kind, found in classes.items():
        table.add_row(printable(kind), *(_number(found[part][name]) for part, name in shown))
    return table


def _with_interval(part: dict[str, Any], name: str) -> str:
    span = part["intervals"].get(name)
    return _number(part[name]) + ("" if span is None else f" {_short(span[0])}–{_short(span[1])}")


def _short(share: float) -> str:
    """
    >>> _short(0.9532), _short(1.0)
    ('.953', '1.0')
    """
    return "1.0" if share == 1 else f"{share:.3f}".removeprefix("0")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


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
