"""`fmrnet inspect`."""

from __future__ import annotations

import enum
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmrnet.commands.options import Bits, Device, Engine, FalseAlarms, Model, PathOption, RegionOption
from fmrnet.commands.shared import load
from fmrnet.pages.form import Form
from fmrnet.terminal import MACHINE, MISTAKE, WRONG, exit_code, fail, note, say, show

if TYPE_CHECKING:
    from fmrnet.inspection.gathering import Gathered
    from fmrnet.inspection.inspector import Inspector
    from fmrnet.inspection.report import Report
    from fmrnet.inspection.verdicts import Verdicts

__all__ = ["Level", "inspect"]


class Level(enum.StrEnum):
    """How far an inspection goes."""

    auto = "auto"
    patch = "patch"
    pixel = "pixel"


def inspect(
    model: Model,
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURES",
            help="Picture files, folders of them, patterns such as '*/cam?.png', or - for one picture on "
            "standard input.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        PathOption(
            help="Folder for report.html, report.json, overlays, masks and maps. Default: nothing is written, verdicts "
            "are printed."
        ),
    ] = None,
    from_list: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Inspect what this file names, too, one a line; - for standard input."
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take the pictures of folders in folders, too.")
    ] = False,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch pictures that are given as http or https URLs.")
    ] = False,
    level: Annotated[
        Level,
        typer.Option(
            help="pixel: where; patch: whether, faster; auto: where, unless the picture is surely good."
        ),
    ] = Level.pixel,
    roi: RegionOption = None,
    false_alarms: FalseAlarms = None,
    bits: Bits = None,
    device: Device = "auto",
    engine: Engine = "auto",
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Pictures that are inspected at once.")] = 1,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Write the defects as coco, labelme, cvat and csv, too: some of them."
        ),
    ] = "",
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
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="A JSON object a picture on standard output, as it is done; nothing else."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what is wrong.")] = False,
    fail_on_defect: Annotated[
        bool, typer.Option("--fail-on-defect", help="End with exit code 1 if a picture is defective.")
    ] = False,
) -> None:
    """Find the defects of pictures. Unreadable ones are named and passed over (exit code 2 at the end).

    An earlier report in --out is replaced, and its overlays, masks and maps, unless --resume is given.
    """
    from fmrnet.inspection.annotations.write import annotate, clear, formats
    from fmrnet.inspection.batch import inspect_each
    from fmrnet.inspection.gathering import gather
    from fmrnet.inspection.names import PAGE, RECEIVED, REPORT
    from fmrnet.inspection.verdicts import Verdicts
    from fmrnet.progress import Bar

    kinds = formats(format)
    if out is None and (named := _needs_folder(kinds, report, resume)):
        raise fail(f"{named} needs a folder for it; name one with --out", MISTAKE)
    given = _given(pictures or [], from_list)
    inspector = load(model, device, bits, engine=engine)
    if roi is not None:
        _set_region(inspector, roi, model, quiet)
    if false_alarms is not None:
        inspector.false_alarms = false_alarms
    with ExitStack() as stack:
        bar = None if quiet else stack.enter_context(Bar())
        received = Path(stack.enter_context(TemporaryDirectory())) if out is None else out / RECEIVED
        found = gather(
            given,
            out,
            received,
            recursive=recursive,
            allow_urls=allow_urls,
            standard_input=sys.stdin.buffer,
            progress=bar.counter("fetching") if bar else lambda done, total: None,
        )
        paths = found.paths

        def page(closed: Report) -> None:
            from fmrnet.pages.report import write_report

            if write_report(closed, model, report) == Form.folder and report == Form.single:
                name = closed.folder / PAGE
                note(f"{name} would be larger than browsers open; its pictures stay in files beside it")

        written = Verdicts(inspector, level.value, paths, found.sources)
        if not paths:  # an earlier report stays
            _add_unusable(written, found, as_json, quiet)
            raise typer.Exit(MISTAKE)
        if out is not None:
            from fmrnet.inspection.report import open_report  # drawing takes long to import

            opened = open_report(
                out,
                inspector,
                model,
                level.value,
                paths,
                sources=found.sources,
                resume=resume,
                page=None if report == Form.none else page,
            )
            written = in_folder = stack.enter_context(opened)
            clear(out, kinds)
            if not quiet:
                _note_earlier(in_folder, len(paths), resume)
        _add_unusable(written, found, as_json, quiet)
        done = len(written.kept)
        try:
            for line in inspect_each(inspector, written, paths, jobs):
                _print_line(line, as_json, quiet)
                done += 1
                if bar:
                    bar.show("inspecting", done, len(paths))
        except KeyboardInterrupt as error:
            left = f"stopped, {written.summary()['not_reached']} of {len(paths)} pictures left"
            rest = "; the same command starts again"
            if out is not None:
                rest = f"; {out} holds the report of the others, and the same command with --resume goes on"
            raise fail(left + rest, exit_code(error)) from None
        if out is not None:
            annotate(out, kinds, [line for line in written.lines if "error" not in line])
    summary = written.summary()
    if not quiet:
        _note_summary(written, model, level, summary)
        place = "" if out is None else f": {out / (REPORT if report == Form.none else PAGE)}"
        (note if as_json else show)(f"{_counts(summary)}{place}")
    if summary["failed"]:
        raise typer.Exit(MACHINE)
    if summary["unreadable"] or summary["wrong_size"] or summary["without_pictures"]:
        raise typer.Exit(MISTAKE)
    if fail_on_defect and summary["defective"]:
        raise typer.Exit(WRONG)


def _add_unusable(written: Verdicts, found: Gathered, as_json: bool, quiet: bool) -> None:
    """Note what was given and is of no use, a line each."""
    from fmrnet.errors import DatasetError, fault_of

    for one, reason in found.unusable.items():
        fault = "given" if isinstance(reason, DatasetError) else fault_of(reason)
        _print_line(written.add_error(one, reason, fault), as_json, quiet)


def _needs_folder(kinds: list[str], report: Form, resume: bool) -> str:
    """The option, if one is given, that is for a report in a folder."""
    given = {
        "--format": bool(kinds),
        f"--report {report}": report not in (Form.auto, Form.none),
        "--resume": resume,
    }
    return next((name for name, there in given.items() if there), "")


def _counts(summary: dict[str, Any]) -> str:
    counts = [f"{summary[kind]} {kind}" for kind in ("defective", "good", "unreadable", "failed")]
    if summary["wrong_size"]:
        counts.insert(3, f"{summary['wrong_size']} of the wrong size")
    if summary["without_pictures"]:
        counts.append(f"{summary['without_pictures']} given without pictures")
    return ", ".join(counts)


def _set_region(inspector: Inspector, roi: str, model: Path, quiet: bool) -> None:
    """Inspect another region than the calibrated one, and say so."""
    from fmrnet.inspection.region import Region

    calibrated, inspector.region = inspector.region, Region.parse(roi)
    if inspector.region != calibrated and not quiet:
        note(
            f"the thresholds are those of {calibrated or 'whole pictures'}; those of this region are learnt by "
            f"fmrnet calibrate {model} GOOD --roi {roi}"
        )


def _given(pictures: list[str], from_list: str | None) -> list[str]:
    """What is to be inspected, from arguments and list."""
    from fmrnet.inspection.gathering import STANDARD_INPUT, read_list

    given = [os.path.expanduser(text) for text in pictures]
    if from_list == STANDARD_INPUT:
        if STANDARD_INPUT in given:
            raise fail("standard input is a picture or a list; give - once", MISTAKE)
        given += read_list(sys.stdin.buffer.read())
    elif from_list is not None:
        try:
            given += read_list(Path(os.path.expanduser(from_list)).read_bytes())
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            reason = getattr(error, "strerror", None) or error
            raise fail(f"--from-list {from_list}: {reason}; name a file of a path a line", MISTAKE) from None
    if given.count(STANDARD_INPUT) > 1:
        raise fail("standard input holds one picture; give - once", MISTAKE)
    if not given:
        raise fail("no pictures: give files, folders, patterns, or a list of them with --from-list", MISTAKE)
    return given


def _note_earlier(report: Report, pictures: int, resume: bool) -> None:
    """Say what becomes of an earlier report in the folder."""
    from fmrnet.inspection.record import path_of

    if report.replaced:
        note(f"replacing the report of {report.replaced} pictures in {report.folder}")
    elif resume and report.lines:
        note(f"{len(report.kept)} of {pictures} pictures are in the report already")
        if gone := sum(not os.path.exists(path_of(line)) for line in report.lines):
            note(
                f"no longer there, but in the report: {gone}; a run without --resume leaves such pictures out"
            )
    elif resume:
        note(f"there is nothing to go on from in {report.folder}: starting from the beginning")


def _note_summary(report: Verdicts, model: Path, level: Level, summary: dict[str, Any]) -> None:
    """Say what the verdicts promise, how many pictures left early, and whether the line has drifted."""
    note(report.inspector.calibration.promise)
    if level == Level.auto:
        inspected = summary["defective"] + summary["good"]
        note(f"{summary['left_early']} of {inspected} pictures left at the early exit")
    for text in report.drift().lines(model):
        note(text)


def _print_line(line: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """One line of a report, as its picture is done; what is wrong with one goes to standard error in any case."""
    from fmrnet import files

    if as_json:
        print(files.as_json(line), flush=True)
    if "error" in line:
        say(line["error"])
    elif not (as_json or quiet):
        verdict = "DEFECTIVE" if line["defective"] else "good"
        figures = f"score {line['score']:6.2f}  p {line['p_value']:<7.2g} {line['level']:5} {line['seconds']:6.2f} s"
        reasons = "".join(f"; {reason}" for reason in line["reasons"])
        show(f"{verdict:9} {figures}  {line['picture']}{reasons}")
