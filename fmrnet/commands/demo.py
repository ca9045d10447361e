"""`fmrnet demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.options import Iterations, PathOption
from fmrnet.terminal import fail, show

__all__ = ["demo"]


def demo(
    out: Annotated[Path, PathOption(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Fixes the training and the drawn defects.")] = 0,
    iterations: Iterations = None,
) -> None:
    """Learn one half of a texture, find defects drawn on the other half: three to eight minutes on two cores."""
    from fmrnet.evaluation import demo as demonstration
    from fmrnet.evaluation.table import print_figures
    from fmrnet.learning.training import Interrupted
    from fmrnet.progress import Bar

    print(demonstration.INTRODUCTION)
    try:
        with Bar() as bar:
            figures = demonstration.run(out, seed=seed, iterations=iterations, bar=bar)
    except Interrupted as stopped:
        raise fail("stopped; `fmrnet demo` starts again from the beginning", 128 + stopped.number) from None
    print_figures(figures)
    print()
    show(f"look at {out / demonstration.SHEET}; the model is {out / demonstration.MODEL}")
