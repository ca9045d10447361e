"""`fmrnet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.options import Bits, Device, FalseAlarms, Model, PathArgument, PathOption
from fmrnet.commands.shared import end_with_errors, load, name_errors
from fmrnet.terminal import exit_code, fail, show

__all__ = ["evaluate"]


def evaluate(
    model: Model,
    dataset: Annotated[
        Path,
        PathArgument(
            metavar="DATASET",
            help="Folder in the layout of MVTec AD, MVTec LOCO or BTAD; with --drawn, of good pictures.",
        ),
    ],
    out: Annotated[Path | None, PathOption(help="JSON file for all figures.")] = None,
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
) -> None:
    """Compare a model's findings with known defects: ROC-AUC, AU-PRO, precision, recall, F1, size and contrast found.

    Pictures that cannot be inspected are named and left out (exit code 2 at the end). Ctrl-C gives the figures of
    the pictures inspected until then.
    """
    from fmrnet.evaluation.drawn import DrawnEvaluation
    from fmrnet.evaluation.evaluate import Evaluation
    from fmrnet.evaluation.table import print_drawn, print_figures
    from fmrnet.files import check_writable, write_json
    from fmrnet.inspection.folder import check_replaceable
    from fmrnet.progress import Bar

    inspector = load(model, device, bits)
    if false_alarms is not None:
        inspector.false_alarms = false_alarms
    if out is not None:
        check_writable(out)
        check_replaceable(out, "name another file")
    evaluation = DrawnEvaluation(inspector, dataset) if drawn else Evaluation(inspector, dataset)
    stopped: KeyboardInterrupt | None = None
    with Bar() as bar:
        try:
            evaluation.run(bar.counter("inspecting"))
        except KeyboardInterrupt as error:
            if not evaluation.each:
                raise
            stopped = error
    figures = evaluation.figures()
    name_errors(figures)
    (print_drawn if drawn else print_figures)(figures)
    if out is not None and not (stopped and out.exists()):  # figures of some pictures replace none of all
        write_json(out, figures)
        show(f"wrote {out}")
    if stopped:
        raise fail("stopped; the same command starts again from the beginning", exit_code(stopped))
    end_with_errors(figures)
