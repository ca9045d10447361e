"""`fmrnet calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrnet.commands.options import (
    Bits,
    Device,
    Engine,
    FalseAlarms,
    Model,
    PathArgument,
    PathOption,
    RegionOption,
)
from fmrnet.commands.shared import end_with_errors, load, name_errors, print_calibration
from fmrnet.terminal import MISTAKE, fail, show

if TYPE_CHECKING:
    from fmrnet.evaluation.evaluate import Evaluation
    from fmrnet.inspection.inspector import Inspector

__all__ = ["calibrate"]


def calibrate(
    model: Model,
    good: Annotated[list[Path], PathArgument(metavar="GOOD", help="Good pictures, or folders of them.")],
    out: Annotated[Path | None, PathOption(help="The model file to write; default: change MODEL.")] = None,
    false_alarms: FalseAlarms = None,
    k: Annotated[
        float | None,
        typer.Option(
            help="Pixel threshold: so many standard deviations above the mean of good pictures' maps; 0: what one in a "
            "thousand of their pixels passes. Default: as the model was trained."
        ),
    ] = None,
    keep_suspects: Annotated[
        bool, typer.Option("--keep-suspects", help="Count pictures that are unlike the others as good, too.")
    ] = False,
    defective: Annotated[
        Path | None,
        PathOption(
            help="Folder of known defective pictures: says which are found; nothing is learnt from them."
        ),
    ] = None,
    masks: Annotated[
        Path | None, PathOption(help="With --defective: folder of their masks, named as they are.")
    ] = None,
    roi: RegionOption = None,
    bits: Bits = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Learn anew what good pictures score, say those of another camera or lot."""
    from fmrnet.artifact import check_replaceable
    from fmrnet.files import check_writable
    from fmrnet.listing import list_pictures

    if masks is not None and defective is None:
        raise fail("--masks are those of the pictures in --defective; give both", MISTAKE)
    target = model if out is None else out
    inspector = load(model, device, bits, engine=engine, calibrated=False, roi=roi)
    check_writable(target)
    check_replaceable(target)
    pictures = list_pictures(good)
    known = None if defective is None else _known(inspector, defective, masks, pictures)
    inspector.calibrate(pictures, false_alarms=false_alarms, k=k, keep_suspects=keep_suspects)
    inspector.save(target)
    print_calibration(inspector.calibration)
    show(f"wrote {target}")
    if known is not None:
        _print_known(known)


def _known(inspector: Inspector, defective: Path, masks: Path | None, good: list[Path]) -> Evaluation:
    """The known defective pictures, which are not among the good ones and whose masks fit."""
    from fmrnet.evaluation.evaluate import Evaluation
    from fmrnet.evaluation.known import check_not_good
    from fmrnet.evaluation.layouts import load_defective

    examples = load_defective(defective, masks)
    check_not_good(examples, good)
    return Evaluation(inspector, defective, examples=examples)


def _print_known(known: Evaluation) -> None:
    """Inspect the known defective pictures, and say which are found, and what missing none would cost."""
    from fmrnet.evaluation.table import print_known
    from fmrnet.progress import Bar

    with Bar() as bar:
        known.run(bar.counter("inspecting"))
    figures = known.figures()
    name_errors(figures)
    print_known(figures)
    end_with_errors(figures)
