"""Arguments and options that several commands take."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated, Any

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
    "bits_option",
    "false_alarms_option",
    "region_option",
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


def bits_option(default: str) -> Any:
    """`--bits`; what it is without, in words."""
    text = f"Bits in use of a 16-bit picture's values, such as 12; default: {default}."
    return typer.Option(min=1, max=16, help=text)


Bits = Annotated[int | None, bits_option("as the model was trained, or as the file says")]


def false_alarms_option(default: str) -> Any:
    """`--false-alarms`; what it is without, in words."""
    text = f"Share of good pictures that may be called defective; default: {default}."
    return typer.Option(metavar="RATE", help=text)


FalseAlarms = Annotated[float | None, false_alarms_option("the model's, 0.05 unless it was given another")]


Iterations = Annotated[int | None, typer.Option(min=2, help="Training steps of all phases together.")]


Kernels = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        metavar="[NAME=]MODULE:FUNCTION",
        help="A function that stands in for fmrnet.fast.NAME; NAME is its own name unless given. May be repeated.",
    ),
]


def region_option(default: str) -> Any:
    """`--roi`; what it is without, in words."""
    text = "Region of interest: a picture that is above 0 where pictures count, or a rectangle in pixels"
    return typer.Option("--roi", metavar="MASK|X,Y,W,H", help=f"{text}; default: {default}.")


RegionOption = Annotated[str | None, region_option("the model's, or all of the picture")]
