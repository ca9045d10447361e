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
    good: Annotated[
        list[Path] | None,
        PathOption(
            help="Good pictures, or a folder of them, to compare the engines on. May be repeated. Default: those that "
            "`fmrnet info` names as loudest, if they are still there, else textures drawn from a seed."
        ),
    ] = None,
) -> None:
    """Write a model file that holds its network as graphs, too: inspection then needs no PyTorch.

    They are held against the network first: scores and verdicts of every engine that is installed are compared with
    PyTorch's, and one that differs is refused. For models of the presets general and instant.
    """
    import fmrnet
    from fmrnet.artifact import check_replaceable
    from fmrnet.engines.agreement import TOLERANCE, beyond
    from fmrnet.engines.choice import installed
    from fmrnet.errors import ArtifactError
    from fmrnet.evaluation.agreement import agreement
    from fmrnet.files import check_writable
    from fmrnet.listing import list_pictures
    from fmrnet.progress import Bar

    check_writable(out)
    check_replaceable(out)
    inspector = fmrnet.load(model, "cpu", engine="torch")
    loudest = (Path(one.picture) for one in inspector.calibration.loudest)
    pictures = list_pictures(good) if good else [path for path in loudest if path.is_file()]
    note("making the graphs; the first time with these settings it takes minutes")
    inspector.add_graphs()
    engines = [name for name in installed() if name != "torch"]
    with Bar() as bar:
        found = agreement(inspector, engines, pictures, bar.counter("comparing"))
    inspector.provenance["graphs"]["agreement"] = found
    note(f"compared on {found['pictures']} pictures: {found['of']}")
    refused = [name for name in engines if beyond(inspector.provenance, name) is not None]
    for name, one in found["engines"].items():
        changed = ", ".join(
            f"{100 * share:.3g} % at level {level}" for level, share in one["changed"].items()
        )
        ending = f"; more than {TOLERANCE}: it is refused" if name in refused else ""
        off = f"scores differ from torch's by up to {one['difference']:.2g}"
        note(f"{name}: {off}, verdicts changed: {changed}{ending}")
    if refused == engines:
        raise ArtifactError(f"{out} is not written: no engine gives the scores of torch")
    inspector.save(out)
    show(f"wrote {out}; inspect with it as before, or with --engine onnxruntime, openvino or torch")
