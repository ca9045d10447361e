"""What several commands do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fmrnet.terminal import MACHINE, MISTAKE, note, say, show

if TYPE_CHECKING:
    from fmrnet.inspection.calibration import Calibration
    from fmrnet.inspection.inspector import Inspector

__all__ = ["end_with_errors", "load", "name_errors", "print_agreement", "print_calibration"]


def print_agreement(found: dict[str, Any]) -> None:
    """How far engines are off, as `fmrnet.evaluation.agreement.agreement` found it."""
    from fmrnet.engines.agreement import TOLERANCE

    note(f"compared on {found['pictures']} pictures: {found['of']}")
    for name, one in found["engines"].items():
        changed = ", ".join(
            f"{100 * share:.3g} % at level {level}" for level, share in one["changed"].items()
        )
        ending = f"; more than {TOLERANCE}: it is refused" if one["difference"] > TOLERANCE else ""
        off = f"scores differ from torch's by up to {one['difference']:.2g}"
        note(f"{name}: {off}, verdicts changed: {changed}{ending}")


WORTH = 0.9  # of a threshold; what lowers it less is not told


def load(
    model: Path,
    device: str,
    bits: int | None,
    *,
    engine: str = "auto",
    calibrated: bool = True,
    roi: str | None = None,
) -> Inspector:
    """The inspector in a model file, for pictures of so many bits and of a region of interest if these are given."""
    import fmrnet

    inspector = fmrnet.load(model, device, engine=engine, calibrated=calibrated)
    if bits is not None:
        inspector.bits = bits
    if roi is not None:
        from fmrnet.inspection.region import Region

        inspector.region = Region.parse(roi)
    return inspector


def print_calibration(calibration: Calibration) -> None:
    """What a verdict promises, which pictures it rests on most, and which were left out; and where to look."""
    from fmrnet.inspection.suspects import FEWEST

    print(calibration.promise)
    print(calibration.exit_promise)
    show(
        "the good pictures that score highest; take out what is not as a good picture should be, and begin again:"
    )
    for loudest in calibration.loudest:
        show(f"  {loudest}")
    if (relief := calibration.picture.relief(calibration.false_alarms)) < WORTH:
        show(f"  without the highest held-out one of them the threshold would be {1 - relief:.0%} lower")
    if calibration.suspects:
        show(
            "look at these, which are unlike the others and were left out (--keep-suspects counts them as good):"
        )
        for suspect in calibration.suspects:
            show(f"  {suspect}")
    elif calibration.pictures < FEWEST:
        print(f"with fewer than {FEWEST} pictures to compare, a defective one among them would go unseen")


def name_errors(figures: dict[str, Any]) -> None:
    """Name the pictures that could not be inspected, and why."""
    for failure in figures["errors"]:
        say(failure["error"])


def end_with_errors(figures: dict[str, Any]) -> None:
    """End with the exit code of the graver fault, if pictures could not be inspected."""
    if figures["pictures"]["failed"]:
        raise typer.Exit(MACHINE)
    if figures["pictures"]["unreadable"] or figures["pictures"]["wrong_size"]:
        raise typer.Exit(MISTAKE)
