"""`fmrnet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrnet.commands.options import Bits, Device, Engine, FalseAlarms, PathArgument, PathOption, path
from fmrnet.commands.shared import end_with_errors, load, name_errors
from fmrnet.terminal import exit_code, fail, note, show

if TYPE_CHECKING:
    from fmrnet.evaluation.drawn import DrawnEvaluation
    from fmrnet.evaluation.evaluate import Evaluation

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[
        Path | None, PathArgument(metavar="MODEL", help="Model file written by `fmrnet train`.")
    ] = None,
    dataset: Annotated[
        Path | None,
        PathArgument(metavar="DATASET", help="Folder of a data set; with --drawn, of good pictures."),
    ] = None,
    out: Annotated[
        Path | None, PathOption(help="JSON file for all figures; a page is written beside it.")
    ] = None,
    html: Annotated[Path | None, PathOption(help="HTML file for a page to look at.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="How DATASET is laid out: mvtec, mvtec2, loco, btad, kolektor, visa, mtd, dagm, rsdds, folder, coco "
            "or labelme; default: as it looks."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            parser=path,
            metavar="A.json B.json",
            help="In place of MODEL and DATASET: what differs between two results on the same pictures.",
        ),
    ] = None,
    drawn: Annotated[
        bool,
        typer.Option(
            "--drawn",
            help="Draw defects of graded size and contrast on good pictures that training has not seen.",
        ),
    ] = False,
    false_alarms: FalseAlarms = None,
    bits: Bits = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Compare a model's findings with known defects, each figure with its interval; or two results with each other.

    Pictures that cannot be inspected are named and left out (exit code 2 at the end). Ctrl-C gives the figures of
    the pictures inspected until then.
    """
    from fmrnet.evaluation.drawn import DrawnEvaluation
    from fmrnet.evaluation.evaluate import Evaluation
    from fmrnet.evaluation.page import write_evaluation
    from fmrnet.evaluation.table import print_drawn, print_figures
    from fmrnet.files import write_json

    if compare is not None:
        if model or dataset or html or drawn or layout:
            raise fail("--compare takes two results and nothing but --out beside them", 2)
        _compare(*compare, out)
        return
    if model is None or dataset is None:
        raise fail("expected MODEL and DATASET, or --compare A.json B.json", 2)
    if drawn and (html or layout):
        raise fail("--drawn takes a folder of good pictures, and has no --layout and no --html", 2)
    if html is None and out is not None and not drawn:
        html = out.with_suffix(".html")
    targets = [target for target in (out, html) if target is not None]
    if len(set(targets)) < len(targets):
        raise fail(f"--out {out} is for JSON and cannot be the page, too; name it otherwise", 2)
    inspector = load(model, device, bits, engine=engine)
    if false_alarms is not None:
        inspector.false_alarms = false_alarms
    for target in targets:
        _check_target(target)
    evaluation = (
        DrawnEvaluation(inspector, dataset)
        if drawn
        else Evaluation(inspector, dataset, layout=layout, gallery=html is not None)
    )
    if isinstance(evaluation, Evaluation):
        note(f"{dataset} is read as {evaluation.found.layout}; --layout takes another layout")
    stopped = _run(evaluation)
    figures = evaluation.figures()
    name_errors(figures)
    (print_drawn if drawn else print_figures)(figures)
    if not (stopped and any(map(Path.exists, targets))):  # figures of some pictures replace none of all
        if out is not None:
            write_json(out, figures)
            show(f"wrote {out}")
        if html is not None and isinstance(evaluation, Evaluation):
            write_evaluation(html, figures, evaluation.gallery)
            show(f"wrote {html}")
    if stopped:
        raise fail("stopped; the same command starts again from the beginning", exit_code(stopped))
    end_with_errors(figures)


def _run(evaluation: Evaluation | DrawnEvaluation) -> KeyboardInterrupt | None:
    """Inspect; what stopped it on the way, if something did."""
    from fmrnet.progress import Bar

    with Bar() as bar:
        try:
            evaluation.run(bar.counter("inspecting"))
        except KeyboardInterrupt as error:
            if not evaluation.each:
                raise
            return error
    return None


def _compare(first: Path, second: Path, out: Path | None) -> None:
    from fmrnet.evaluation.compare import compare
    from fmrnet.evaluation.table import print_comparison
    from fmrnet.files import write_json

    if out is not None:
        _check_target(out)
    found = compare(first, second)
    print_comparison(found)
    if out is not None:
        write_json(out, found)
        show(f"wrote {out}")


def _check_target(target: Path) -> None:
    from fmrnet.files import check_writable
    from fmrnet.inspection.folder import check_replaceable

    check_writable(target)
    check_replaceable(target, "name another file")
