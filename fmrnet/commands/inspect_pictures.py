"""`fmrnet inspect`."""

from __future__ import annotations

import enum
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmrnet.commands.options import Bits, Device, Engine, FalseAlarms, Model, PathArgument, PathOption
from fmrnet.commands.shared import load
from fmrnet.pages.form import Form
from fmrnet.terminal import exit_code, fail, note, say, show

if TYPE_CHECKING:
    from fmrnet.inspection.report import Report

__all__ = ["Level", "inspect"]


class Level(enum.StrEnum):
    """How far an inspection goes."""

    auto = "auto"
    patch = "patch"
    pixel = "pixel"


def inspect(
    model: Model,
    pictures: Annotated[
        list[Path], PathArgument(metavar="PICTURES", help="Picture files, or folders of them.")
    ],
    out: Annotated[Path, PathOption(help="Folder for overlays, masks, maps and report.json.")],
    level: Annotated[
        Level,
        typer.Option(
            help="pixel: where; patch: whether, faster; auto: where, unless the picture is surely good."
        ),
    ] = Level.pixel,
    false_alarms: FalseAlarms = None,
    bits: Bits = None,
    device: Device = "auto",
    engine: Engine = "auto",
    report: Annotated[
        Form,
        typer.Option(
            help="The page to look at, report.html: single file, folder of pictures beside it, none; auto: by its size."
        ),
    ] = Form.auto,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the report in --out; pictures that changed are done again."
        ),
    ] = False,
) -> None:
    """Find the defects of pictures. Unreadable ones are named and passed over (exit code 2 at the end).

    An earlier report in --out is replaced, and its overlays, masks and maps, unless --resume is given.
    """
    from fmrnet.inspection.batch import gather, inspect_each
    from fmrnet.inspection.names import PAGE, REPORT
    from fmrnet.inspection.report import open_report
    from fmrnet.pages.report import write_report
    from fmrnet.progress import Bar

    inspector = load(model, device, bits, engine=engine)
    if false_alarms is not None:
        inspector.false_alarms = false_alarms
    paths, unusable = gather(pictures, out)
    page = None if report == Form.none else functools.partial(write_report, model=model, form=report)
    with (
        open_report(out, inspector, model, level.value, paths, resume=resume, page=page) as written,
        Bar() as bar,
    ):
        _note_earlier(written, len(paths), resume)
        for given, reason in unusable.items():
            _print_line(written.add_error(given, reason))
        try:
            for done, line in enumerate(inspect_each(inspector, written, paths), start=1 + len(written.kept)):
                _print_line(line)
                bar.show("inspecting", done, len(paths))
        except KeyboardInterrupt as error:
            left = written.content()["summary"]["not_reached"]
            so_far = f"stopped, {left} of {len(paths)} pictures left; {out} holds the report of the others"
            raise fail(f"{so_far}, and the same command with --resume goes on", exit_code(error)) from None
    summary = written.content()["summary"]
    counts = [f"{summary[kind]} {kind}" for kind in ("defective", "good", "unreadable", "failed")]
    note(inspector.calibration.promise)
    if level == Level.auto:
        note(
            f"{summary['left_early']} of {summary['defective'] + summary['good']} pictures left at the early exit"
        )
    for text in written.drift().lines(model):
        note(text)
    show(f"{', '.join(counts)}: {out / (REPORT if report == Form.none else PAGE)}")
    if summary["failed"]:
        raise typer.Exit(1)
    if summary["unreadable"]:
        raise typer.Exit(2)


def _note_earlier(report: Report, pictures: int, resume: bool) -> None:
    """Say what becomes of an earlier report in the folder."""
    if report.replaced:
        note(f"replacing the report of {report.replaced} pictures in {report.folder}")
    elif resume and report.kept:
        note(f"{len(report.kept)} of {pictures} pictures are in the report already")
    elif resume:
        note(f"there is nothing to go on from in {report.folder}: starting from the beginning")


def _print_line(line: dict[str, Any]) -> None:
    """One line of a report, as its picture is done."""
    if "error" in line:
        say(line["error"])
    else:
        verdict = "DEFECTIVE" if line["defective"] else "good"
        figures = f"score {line['score']:6.2f}  p {line['p_value']:<7.2g} {line['level']:5} {line['seconds']:6.2f} s"
        reasons = "".join(f"; {reason}" for reason in line["reasons"])
        show(f"{verdict:9} {figures}  {line['picture']}{reasons}")
