"""`fmrnet plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.options import Device, Engine, FalseAlarms, Model, PathArgument, PathOption
from fmrnet.commands.shared import load
from fmrnet.terminal import fail, note, show

__all__ = ["plan"]


def plan(
    model: Model,
    pictures: Annotated[
        list[Path],
        PathArgument(metavar="PICTURES", help="Pictures of the line, or folders of them; good ones, too."),
    ],
    link: Annotated[
        float, typer.Option(metavar="MBIT", help="Megabits per second of the link to the cloud.")
    ],
    cloud: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="`fmrnet serve` with the same model; default: the pixel level is timed here."
        ),
    ] = None,
    token_file: Annotated[Path | None, PathOption(help="File that holds the token for the cloud.")] = None,
    ca: Annotated[
        Path | None,
        PathOption(
            help="Certificate, PEM, that signs that of the cloud; default: those that the system trusts."
        ),
    ] = None,
    false_alarms: FalseAlarms = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Measure what should go up of pictures that the early exit leaves open: bytes, time, verdicts that change."""
    from fmrnet.deployment import plan as planning
    from fmrnet.deployment.models import version_of
    from fmrnet.deployment.uplink import Uplink, read_token
    from fmrnet.listing import list_pictures
    from fmrnet.progress import Bar

    inspector = load(model, device, None, engine=engine)
    if false_alarms is not None:
        inspector.false_alarms = false_alarms
    token = None if token_file is None else read_token(token_file)
    uplink = (
        None
        if cloud is None
        else Uplink(cloud, model.stem, version_of(model), "plan", token=token, authority=ca)
    )
    with Bar() as bar:
        count = bar.counter("measuring")
        made = planning.plan(inspector, list_pictures(pictures), link, uplink=uplink, done=count)
    for text in made.unreadable:
        note(f"left out: {text}")
    show(
        f"{made.open} of {made.pictures} pictures stay open at the early exit; nothing goes up of the others"
        + (f"; {len(made.unreadable)} files cannot be read" if made.unreadable else "")
    )
    if not made.open:
        raise fail("there is nothing to measure; give pictures that stay open, such as defective ones", 2)
    where = f"at {cloud}" if cloud else "here, in place of the cloud"
    show(f"of an open picture, in the mean, on {link:g} Mbit/s, the pixel level {where}:")
    show(
        f"{'what goes up':36} {'kB up':>8} {'kB down':>8} {'encode':>8} {'link':>8} {'serve':>8} {'ms':>8}  changed"
    )
    for row in made.rows:
        kilobytes = [sum(each) / len(each) / 1e3 for each in (row.up, row.down)]
        parts = [1e3 * sum(each) / len(each) for each in (row.encode, row.serve)]
        show(
            f"{row.name:36} {kilobytes[0]:8.1f} {kilobytes[1]:8.1f} {parts[0]:8.1f} {1e3 * row.link(link):8.1f} "
            f"{parts[1]:8.1f} {1e3 * row.seconds(link):8.1f}  {row.changed} of {made.open}"
        )
    for text in made.notes:
        note(text)
    best = made.best
    show(f"use fmrnet edge --send {best.send}: {best.name}, the quickest without a changed verdict")
