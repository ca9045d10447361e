"""`fmrnet archive`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.inspect_pictures import Level
from fmrnet.commands.options import Device, Engine, FalseAlarms, Model, PathOption
from fmrnet.terminal import MACHINE, MISTAKE, exit_code, fail, note, say, show

__all__ = ["archive"]


def archive(
    model: Model,
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES", help="Picture files, folders of them, or patterns such as '*/cam?.png'."
        ),
    ],
    out: Annotated[Path, PathOption(help="Folder for verdicts.jsonl, a JSON object a picture.")],
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="Ray cluster that inspects, HOST:PORT or auto; default: this machine alone.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Pictures at once; default: as many as the cluster has cores.")
    ] = None,
    gpus: Annotated[
        float, typer.Option(min=0, help="Of a GPU that each takes up; 0.25: four share one.")
    ] = 0.0,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take the pictures of folders in folders, too.")
    ] = False,
    level: Annotated[
        Level, typer.Option(help="pixel, patch or auto: the pixel level where the early exit is not sure.")
    ] = Level.pixel,
    false_alarms: FalseAlarms = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Give the verdicts on many pictures, on the machines of a Ray cluster.

    Model and pictures lie at the same place on all of them. A run that was stopped or killed goes on with the same
    command: pictures that have their verdict and have not changed keep it.
    """
    from fmrnet.deployment.archive import VERDICTS, open_archive
    from fmrnet.inspection.gathering import gather
    from fmrnet.progress import Bar

    found = gather([os.path.expanduser(one) for one in pictures], out, out, recursive=recursive)
    for reason in found.unusable.values():
        say(str(reason))
    settings = {"level": level.value, "false_alarms": false_alarms, "device": device, "engine": engine}
    verdicts: Counter[str] = Counter()
    with open_archive(out, model, found.paths, **settings) as opened, Bar() as bar:  # type: ignore[arg-type]
        done = len(opened.done)
        if done:
            note(f"{done} of {len(found.paths)} pictures are done already")
        verdicts.update(map(_word, opened.done))
        try:
            for line in opened.inspect(address=address, workers=workers, gpus=gpus):
                verdicts[_word(line)] += 1
                done += 1
                bar.show("inspecting", done, len(found.paths))
                if "error" in line:
                    say(line["error"])
        except KeyboardInterrupt as error:
            left = len(found.paths) - done
            told = f"stopped, {left} of {len(found.paths)} pictures left; the same command goes on"
            raise fail(told, exit_code(error)) from None
    counts = [f"{verdicts[word]} {word}" for word in ("defective", "good", "unreadable", "failed")]
    show(f"{', '.join(counts)}: {out / VERDICTS}")
    if verdicts["failed"]:
        raise typer.Exit(MACHINE)
    if verdicts["unreadable"] or found.unusable:
        raise typer.Exit(MISTAKE)


def _word(line: dict[str, object]) -> str:
    if "error" in line:
        return "failed" if line["fault"] == "machine" else "unreadable"
    return "defective" if line["defective"] else "good"
