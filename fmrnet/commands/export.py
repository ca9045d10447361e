"""`fmrnet export`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.options import Model, PathOption
from fmrnet.terminal import show

__all__ = ["export"]


class Format(enum.StrEnum):
    """What the graphs are written as."""

    onnx = "onnx"
    openvino = "openvino"


def export(
    model: Model,
    to: Annotated[Format, typer.Option(help="onnx, or openvino: its own format, which needs that extra.")],
    out: Annotated[Path, PathOption(help="Folder for the graphs and model.json; it is made.")],
) -> None:
    """Write a model's graphs for other programs, with weights, and thresholds and their use in model.json beside them.

    The model file needs graphs: `fmrnet train` writes them, `fmrnet graphs` puts them into an older file.
    """
    from rich.filesize import decimal

    import fmrnet
    from fmrnet.deployment import export as exporting

    inspector = fmrnet.load(model, "cpu", engine="onnxruntime")
    for path in exporting.export(inspector, to.value, out):
        show(f"{decimal(path.stat().st_size):>11}  {path}")
