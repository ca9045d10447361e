"""`fmrnet train`."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmrnet.commands.options import (
    Device,
    Iterations,
    PathArgument,
    PathOption,
    bits_option,
    false_alarms_option,
    region_option,
)
from fmrnet.commands.shared import print_agreement, print_calibration
from fmrnet.terminal import fail, note, say, show

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector

__all__ = ["train"]


def train(
    good: Annotated[Path, PathArgument(metavar="GOOD_DIR", help="Folder of defect-free pictures.")],
    out: Annotated[Path, PathOption(help="The model file to write, such as carpet.fmr.")],
    preset: Annotated[
        str,
        typer.Option(
            help="general; instant (about a minute, no generator), edge (no outside weights) or paper (as published)."
        ),
    ] = "general",
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="What general and instant see with: efficientnet-lite0 to -lite2, or a safetensors file of timm's "
            "tf_efficientnet_lite0 to 4.",
        ),
    ] = None,
    iterations: Iterations = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes weights, data order and synthesis.")] = 0,
    anomalies: Annotated[
        Path | None, PathOption(help="Folder of natural pictures; default: those that packages ship.")
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Share by which patches overlap at inspection, 0 to 0.9; 0 or 0.5 where pictures pass at once, as "
            "with general."
        ),
    ] = None,
    false_alarms: Annotated[float | None, false_alarms_option("0.05")] = None,
    roi: Annotated[str | None, region_option("all of the picture")] = None,
    bits: Annotated[int | None, bits_option("as the file says")] = None,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint beside --out, if there is one.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Give up the checkpoint beside --out.")] = False,
    keep_odd: Annotated[
        bool, typer.Option("--keep-odd", help="Learn from pictures, too, that look like masks or are flat.")
    ] = False,
) -> None:
    """Learn a texture from good pictures and write one model file."""
    from rich.filesize import decimal

    import fmrnet
    from fmrnet.learning import processes
    from fmrnet.learning.checkpoint import checkpoint_path
    from fmrnet.learning.training import Interrupted
    from fmrnet.progress import Bar, duration

    first = processes.is_first()
    try:
        with processes.joined(device) as where, Bar() if first else nullcontext() as bar:
            config = fmrnet.preset(preset)
            if overlap is not None:
                config = dataclasses.replace(config, overlap=overlap)
            if false_alarms is not None:
                config = dataclasses.replace(config, false_alarms=false_alarms)
            if first and resume and not restart and not (checkpoint := checkpoint_path(out)).exists():
                say(f"{checkpoint} is not there yet; training begins at the first step")
            inspector = fmrnet.train(
                good,
                out,
                config=config,
                backbone=backbone,
                iterations=iterations,
                seed=seed,
                anomalies=anomalies,
                device=str(where),
                bits=bits,
                roi=roi,
                resume=resume,
                restart=restart,
                keep_odd=keep_odd,
                progress=bar.training(config) if bar else None,
            )
    except Interrupted as stopped:
        raise fail(stopped, 128 + stopped.number) from None
    if not first:
        return
    _compare_engines(inspector, out)
    seconds, size = inspector.provenance["seconds"], out.stat().st_size
    show(f"wrote {out} ({decimal(size)}) after {duration(seconds)} of training")
    print_calibration(inspector.calibration)
    show(f"next: fmrnet inspect {out} PICTURES --out report")


def _compare_engines(inspector: Inspector, out: Path) -> None:
    """Hold the engines on the model's graphs against PyTorch, and say it; or say why there are none."""
    from rich.filesize import decimal

    from fmrnet.engines.torch_engine import graphs_missing
    from fmrnet.evaluation.agreement import agree
    from fmrnet.progress import Bar

    graphs = inspector.content.graphs
    if not graphs:
        reason = graphs_missing(inspector.config)
        refused = inspector.provenance.get("graphs", {}).get("refused", "")
        why = f": this model {reason}" if reason is not None else f": {refused}" if refused else ""
        note(f"it holds no graphs, and needs torch to inspect{why}")
        return
    pictures = [Path(one.picture) for one in inspector.calibration.loudest]
    with Bar() as bar:
        found = agree(inspector, [path for path in pictures if path.is_file()], bar.counter("comparing"))
    inspector.save(out)
    size = sum(len(one.template) for one in graphs.values())
    note(f"it inspects without torch, too, by graphs of {decimal(size)}")
    print_agreement(found)
