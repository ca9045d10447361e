"""Arguments and options that several commands take."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Bits",
    "Device",
    "Engine",
    "FalseAlarms",
    "Iterations",
    "Kernels",
    "Model",
    "PathArgument",
    "PathOption",
    "RegionOption",
]


def path(text: str) -> Path:
    """A path as it was given; `~` is the home folder, after `--out=`, too, where a shell leaves it standing."""
    return Path(os.path.expanduser(text))


PathArgument = functools.partial(typer.Argument, parser=path)


PathOption = functools.partial(typer.Option, parser=path)


Model = Annotated[Path, PathArgument(metavar="MODEL", help="Model file written by `fmrnet train`.")]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


Engine = Annotated[
    str, typer.Option(help="auto, onnxruntime, openvino (both on graphs, see `fmrnet graphs`) or torch.")
]


Bits = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=16,
        help="Bits in use of a 16-bit picture's values, such as 12; default: as trained or as the file says.",
    ),
]


FalseAlarms = Annotated[
    float | None,
    typer.Option(
        metavar="RATE", help="Share of good pictures that may be called defective; default: as before, 0.05."
    ),
]


Iterations = Annotated[int | None, typer.Option(min=2, help="Training steps of all phases together.")]


Kernels = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        metavar="[NAME=]MODULE:FUNCTION",
        help="A function that stands in for fmrnet.fast.NAME; NAME is its own name unless given. May be repeated.",
    ),
]


RegionOption = Annotated[
    str | None,
    typer.Option(
        "--roi",
        metavar="MASK|X,Y,W,H",
        help="Region of interest: a picture that is above 0 where pictures count, or a rectangle in pixels; default: "
        "as trained or calibrated.",
    ),
]
