"""The figures of an evaluation on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from fmrnet.errors import printable
from fmrnet.terminal import show

__all__ = ["print_figures"]


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
    for note in figures["notes"]:
        show(note)
