"""The command line. How a command ends, and with which exit code, stands in `fmrnet.terminal`."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fmrnet import streams
from fmrnet.commands.archive import archive
from fmrnet.commands.bench import bench
from fmrnet.commands.calibrate import calibrate
from fmrnet.commands.demo import demo
from fmrnet.commands.edge import edge
from fmrnet.commands.evaluate import evaluate
from fmrnet.commands.export import export
from fmrnet.commands.graphs import graphs
from fmrnet.commands.info import info
from fmrnet.commands.inspect_pictures import inspect
from fmrnet.commands.plan import plan
from fmrnet.commands.selfcheck import selfcheck
from fmrnet.commands.serve import serve
from fmrnet.commands.train import train
from fmrnet.terminal import MACHINE, errors_in_one_line, fail, signals_as_errors

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """All commands, with errors told in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with errors_in_one_line(), signals_as_errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    help="Find the defects of textured surfaces after learning from good pictures alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the program `fmrnet`."""
    streams.settle()
    try:
        app()
    except OSError as error:  # help and version cannot be shown; a command tells its own errors
        sys.exit(fail(f"{error.filename}: {error.strerror}", MACHINE).exit_code)
    except Exception:  # of the program's own; Python would end with 1, which says that something is defective
        traceback.print_exc()
        sys.exit(MACHINE)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    """Find the defects of textured surfaces after learning from good pictures alone."""
    if show:
        import fmrnet

        print(f"fmrnet {fmrnet.__version__}")
        raise typer.Exit


for verb in (
    *(demo, train, calibrate, inspect, evaluate, graphs, export, info),
    *(archive, serve, edge, plan, selfcheck, bench),
):
    app.command()(verb)
