"""`fmrnet graphs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fmrnet.commands.options import Model, PathOption
from fmrnet.terminal import show

__all__ = ["graphs"]


def graphs(
    model: Model,
    out: Annotated[Path, PathOption(help="The model file to write; it may be the same.")],
    good: Annotated[
        list[Path] | None,
        PathOption(
            help="Good pictures, or a folder of them, to compare the engines on. May be repeated. Default: those that "
            "`fmrnet info` names as loudest, if they are still there, else textures drawn from a seed."
        ),
    ] = None,
) -> None:
    """Write a model file that holds its network as graphs, too: inspection then needs no PyTorch.

    Training does so by itself; this is for older files, and for comparing the engines of another machine. The graphs
    are held against the network first: scores and verdicts of every engine that is installed are compared with
    PyTorch's, and one that differs is refused.
    """
    import fmrnet
    from fmrnet.artifact import check_replaceable
    from fmrnet.commands.shared import print_agreement
    from fmrnet.engines.agreement import beyond
    from fmrnet.errors import ArtifactError
    from fmrnet.evaluation.agreement import agree
    from fmrnet.files import check_writable
    from fmrnet.listing import list_pictures
    from fmrnet.progress import Bar

    check_writable(out)
    check_replaceable(out)
    inspector = fmrnet.load(model, "cpu", engine="torch")
    loudest = (Path(one.picture) for one in inspector.calibration.loudest)
    pictures = list_pictures(good) if good else [path for path in loudest if path.is_file()]
    inspector.add_graphs()
    with Bar() as bar:
        found = agree(inspector, pictures, bar.counter("comparing"))
    print_agreement(found)
    if all(beyond(inspector.provenance, name) is not None for name in found["engines"]):
        raise ArtifactError(f"{out} is not written: no engine gives the scores of torch")
    inspector.save(out)
    show(f"wrote {out}; inspect with it as before; --engine takes another engine than auto does")
