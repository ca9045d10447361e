"""`fmrnet graphs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fmrnet.commands.options import Model, PathOption
from fmrnet.terminal import note, show

__all__ = ["graphs"]


def graphs(
    model: Model,
    out: Annotated[Path, PathOption(help="The model file to write; it may be the same.")],
) -> None:
    """Write a model file that holds its network as graphs, too: onnxruntime or OpenVINO inspects with them.

    They are held against the network first. For models of the presets general and instant.
    """
    import fmrnet
    from fmrnet.artifact import check_replaceable
    from fmrnet.files import check_writable

    check_writable(out)
    check_replaceable(out)
    inspector = fmrnet.load(model, "cpu", engine="torch")
    note("making the graphs; the first time with these settings it takes minutes")
    inspector.add_graphs()
    inspector.save(out)
    show(f"wrote {out}; inspect with it as before, or with --engine onnxruntime, openvino or torch")
