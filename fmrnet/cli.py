"""The command line. A user's mistake gives one line and exit code 2, never a traceback.

Exit codes: 0 done; 1 the machine could not (disk full, no permission, no memory); 2 the user's mistake, such
as a picture that cannot be read; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fmrnet.errors import ConfigError, DatasetError, FmrnetError, PictureError

if TYPE_CHECKING:
    from fmrnet.inspection.calibration import Calibration

__all__ = ["app", "main"]


class Level(enum.StrEnum):
    """How far an inspection goes."""

    auto = "auto"
    patch = "patch"
    pixel = "pixel"


class Commands(TyperGroup):
    """All commands, with errors told in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _errors_in_one_line():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    help="Find the defects of textured surfaces after learning from good pictures alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file written by `fmrnet train`.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Iterations = Annotated[int | None, typer.Option(min=2, help="Training steps of all phases together.")]


def main() -> None:
    """Entry point of the program `fmrnet`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    app()


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    """Find the defects of textured surfaces after learning from good pictures alone."""
    if show:
        import fmrnet

        print(f"fmrnet {fmrnet.__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Fixes the training and the drawn defects.")] = 0,
    iterations: Iterations = None,
) -> None:
    """Learn one half of a texture, find defects drawn on the other half: about three minutes on two cores."""
    from fmrnet.evaluation import demo as demonstration
    from fmrnet.learning.training import Interrupted
    from fmrnet.progress import Bar

    print(demonstration.INTRODUCTION)
    try:
        with Bar() as bar:
            figures = demonstration.run(out, seed=seed, iterations=iterations, bar=bar)
    except Interrupted:
        raise _fail("stopped; `fmrnet demo` starts again from the beginning", 130) from None
    _print_figures(figures)
    print(f"\nlook at {out / demonstration.SHEET}; the model is {out / demonstration.MODEL}")


@app.command()
def train(
    good: Annotated[Path, typer.Argument(metavar="GOOD_DIR", help="Folder of defect-free pictures.")],
    out: Annotated[Path, typer.Option(help="The model file to write, such as carpet.fmr.")],
    preset: Annotated[
        str, typer.Option(help="edge (minutes on two cores) or paper (as published).")
    ] = "edge",
    iterations: Iterations = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes weights, data order and synthesis.")] = 0,
    anomalies: Annotated[
        Path | None, typer.Option(help="Folder of natural pictures; default: those that packages ship.")
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Share by which patches overlap at inspection, 0 to 0.9.")
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside --out.")] = False,
) -> None:
    """Learn a texture from good pictures and write one model file."""
    import fmrnet
    from fmrnet.learning.training import Interrupted
    from fmrnet.progress import Bar, duration

    config = fmrnet.preset(preset)
    if overlap is not None:
        config = dataclasses.replace(config, overlap=overlap)
    try:
        with Bar() as bar:
            inspector = fmrnet.train(
                good,
                out,
                config=config,
                iterations=iterations,
                seed=seed,
                anomalies=anomalies,
                device=device,
                resume=resume,
                progress=bar.training(config.iterations),
            )
    except Interrupted as stopped:
        raise _fail(stopped, 130) from None
    seconds, size = inspector.provenance["seconds"], out.stat().st_size
    print(f"wrote {out} ({size / 1e6:.1f} MB) after {duration(seconds)} of training")
    print(_thresholds(inspector.calibration))
    print(f"next: fmrnet inspect {out} PICTURES --out report")


@app.command()
def calibrate(
    model: Model,
    good: Annotated[list[Path], typer.Argument(metavar="GOOD", help="Good pictures, or folders of them.")],
    out: Annotated[Path | None, typer.Option(help="The model file to write; default: change MODEL.")] = None,
    k: Annotated[
        float | None, typer.Option(help="Standard deviations of the pixel threshold; default: as trained.")
    ] = None,
    patch_quantile: Annotated[
        float | None, typer.Option(help="Share of good patches that pass; default: as trained.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Set the thresholds of a model anew from good pictures, say of another camera or lot."""
    import fmrnet
    from fmrnet.artifact import check_writable
    from fmrnet.pictures import list_pictures

    target = model if out is None else out
    inspector = fmrnet.load(model, device)
    check_writable(target)
    pictures = list_pictures(good)
    print(f"before: {_thresholds(inspector.calibration)}")
    inspector.calibrate(pictures, k=k, patch_quantile=patch_quantile)
    inspector.save(target)
    print(f"after:  {_thresholds(inspector.calibration)}")
    print(f"wrote {target}")


@app.command()
def inspect(
    model: Model,
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Picture files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for overlays, masks, maps and report.json.")],
    level: Annotated[
        Level,
        typer.Option(help="pixel: where; patch: whether, faster; auto: where, if a patch looks defective."),
    ] = Level.pixel,
    device: Device = "auto",
) -> None:
    """Find the defects of pictures. Unreadable ones are named and passed over (exit code 2 at the end)."""
    import fmrnet
    from fmrnet.inspection.report import Report
    from fmrnet.pictures import list_pictures, read_picture
    from fmrnet.progress import Bar

    inspector = fmrnet.load(model, device)
    found: dict[Path, None] = {}
    unusable: dict[Path, str] = {}
    for given in pictures:
        try:
            found.update(dict.fromkeys(list_pictures(given)))
        except DatasetError as error:
            unusable[given] = str(error)
    paths = list(found)
    if any(path.parent.resolve() == out.resolve() for path in paths):
        raise ConfigError(f"--out {out} is a folder of the pictures to inspect; name another")
    report = Report(out, inspector, model, level.value, paths)
    for given, reason in unusable.items():
        report.add_error(given, reason)
        _say(reason)
    with Bar() as bar:
        try:
            for done, path in enumerate(paths, start=1):
                try:
                    picture = read_picture(path)
                    result = inspector.inspect(picture, level.value)
                except PictureError as error:
                    named = str(error) if str(path) in str(error) else f"{path}: {error}"
                    report.add_error(path, named)
                    _say(named)
                else:
                    report.add(path, picture, result)
                    verdict = "DEFECTIVE" if result.defective else "good"
                    figures = f"score {result.score:6.2f}  {result.level:5} {result.seconds:6.2f} s"
                    print(f"{verdict:9} {figures}  {path}")
                bar.show("inspecting", done, len(paths))
        except KeyboardInterrupt:
            report.write()
            raise
    written = report.write()
    summary = report.content()["summary"]
    print(
        ", ".join(f"{summary[kind]} {kind}" for kind in ("defective", "good", "unreadable")) + f": {written}"
    )
    if summary["unreadable"]:
        raise typer.Exit(2)


@app.command()
def evaluate(
    model: Model,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder in the MVTec AD layout.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for all figures.")] = None,
    device: Device = "auto",
) -> None:
    """Compare a model's findings with known defects: ROC-AUC, AU-PRO, precision, recall, F1."""
    import fmrnet
    from fmrnet.artifact import check_writable
    from fmrnet.evaluation.evaluate import evaluate as compare
    from fmrnet.files import write_json
    from fmrnet.progress import Bar

    inspector = fmrnet.load(model, device)
    if out is not None:
        check_writable(out)
    with Bar() as bar:
        figures = compare(inspector, dataset, progress=bar.counter("inspecting"))
    _print_figures(figures)
    if out is not None:
        write_json(out, figures)
        print(f"wrote {out}")


@app.command()
def info(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show what a model file holds: settings, thresholds, where it comes from."""
    from fmrnet import artifact

    content = artifact.load(model)
    sections: dict[str, dict[str, Any]] = {
        "settings": content.config.to_dict(),
        "thresholds": content.calibration,
        "provenance": content.provenance,
        "weights": {
            "tensors": len(content.weights),
            "values": sum(tensor.numel() for tensor in content.weights.values()),
            "megabytes": round(model.stat().st_size / 1e6, 2),
        },
    }
    if as_json:
        print(json.dumps(sections, indent=2))
        return
    for title, fields in sections.items():
        print(title)
        for name, value in fields.items():
            print(f"  {name:18} {f'{len(value)} entries, see --json' if name == 'loss_curve' else value}")


Kernels = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        metavar="[NAME=]MODULE:FUNCTION",
        help="A function that stands in for fmrnet.fast.NAME; NAME is its own name unless given. May be repeated.",
    ),
]


@app.command()
def selfcheck(
    kernel: Kernels = None,
    dtypes: Annotated[
        str, typer.Option(help="With --kernel: of float64, float32, bfloat16, float16, with commas between.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="With --kernel: cpu, cuda or cuda:N.")] = "cpu",
    small: Annotated[
        bool, typer.Option("--small", help="With --kernel: small inputs only, for interpreted kernels.")
    ] = False,
) -> None:
    """Compare every fast function that runs here, or a kernel of yours, with the NumPy oracle."""
    if kernel:
        _check_kernels(kernel, [dtype.strip() for dtype in dtypes.split(",")], device, small)
        return
    from fmrnet.conformance.selfcheck import run

    rows = run()
    for row in rows:
        verdict = {True: "ok", False: "WRONG", None: "not here"}[row.ok]
        figures = "" if row.note else f"off by {row.error:.1e}, {row.tolerance:.1e} allowed"
        print(f"{verdict:8} {row.function:24} {row.backend:7} {row.dtype:8} {figures}{row.note}")
    wrong = sum(row.ok is False for row in rows)
    print(
        f"{len(rows)} comparisons: {sum(row.ok is True for row in rows)} ok, {wrong} wrong, the rest cannot run here"
    )
    if wrong:
        raise _fail(f"{wrong} functions do not agree with the oracle; do not trust this installation", 1)


def _check_kernels(specs: list[str], dtypes: list[str], device: str, small: bool) -> None:
    """Every property of every kernel; what fails first of each is shown in full."""
    from fmrnet.conformance import find, outcomes

    found, failed = [(spec, *find(spec)) for spec in specs], 0
    for spec, name, function in found:
        print(f"{spec}, held to fmrnet.fast.{name}")
        shown = ""
        for outcome in outcomes(name, function, dtypes=dtypes, device=device, small=small):
            verdict = {True: "ok", False: "WRONG", None: "none"}[outcome.ok]
            title = outcome.property.name.replace("_", " ")
            note = "" if outcome.ok is False else outcome.note
            print(
                f"  {verdict:5} {title:44} {outcome.dtype:8} {outcome.seconds:5.1f} s  {note}".rstrip(),
                flush=True,
            )
            if outcome.ok is False:
                failed += 1
                shown = shown or outcome.message
        print(f"\n{shown}" if shown else "  it does what the oracle does")
    if failed:
        raise _fail(f"{failed} properties do not hold", 1)


@app.command()
def bench(
    kernel: Kernels = None,
    only: Annotated[str, typer.Option(help='Cases whose name contains this, such as "512 x 512".')] = "",
    budget: Annotated[float, typer.Option(min=0.01, help="Seconds for each candidate of a case.")] = 1.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="JSON file for all figures.")] = None,
) -> None:
    """Time the fast functions, or a kernel of yours that passes the check, beside what one would use instead."""
    import warnings

    from fmrnet.artifact import check_writable
    from fmrnet.conformance.measure import ceilings, measured, table
    from fmrnet.conformance.record import record
    from fmrnet.devices import choose_device
    from fmrnet.files import write_json

    if out is not None:
        check_writable(out)
    kind, results = choose_device(device).type, []
    warnings.simplefilter("ignore")  # of the peers
    if kernel:
        from fmrnet.conformance import NotConforming, find, time

        for spec, (name, function) in [(spec, find(spec)) for spec in kernel]:
            try:
                found = time(name, function, device=device, budget=budget, only=only, label=spec)
            except NotConforming as failure:
                print(failure)
                raise _fail(f"{spec} does not pass the check; nothing is timed without it", 1) from None
            results += found["results"]
            limits = found["ceilings"]
    else:
        limits = ceilings(kind)
        for result in measured(kind, budget, only, limits=limits):
            print(table(result), flush=True)
            results.append(result)
    if out is not None:
        write_json(out, record(Path.cwd()) | {"device": kind, "ceilings": limits, "results": results})
        print(f"\nwrote {out}")
    wrong = [f"{r['function']}, {r['size']}: {name}" for r in results for name in r["failures"]]
    if wrong:
        raise _fail(f"not timed, for they do not agree with the oracle: {'; '.join(wrong)}", 1)


def _thresholds(calibration: Calibration) -> str:
    return (
        f"thresholds from {calibration.pictures} good pictures: pixel {calibration.pixel_threshold:.4g} "
        f"(mean + {calibration.k:g} sigma), patch {calibration.patch_threshold:.4g}, "
        f"picture {calibration.picture_threshold:.4g}"
    )


def _print_figures(figures: dict[str, Any]) -> None:
    """The figures of an evaluation as a small table."""
    from rich.console import Console
    from rich.table import Table

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    count = figures["pictures"]
    table = Table(
        title=f"{count['defective']} defective and {count['good']} good pictures", title_justify="left"
    )
    table.add_column("")
    for name in ("ROC-AUC", "AU-PRO", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    kinds = ("roc_auc", "au_pro", "precision", "recall", "f1")
    rows = [("pixels", figures["pixel"]), ("pictures", figures["picture"])]
    rows += [("pictures, patch level", figures["patch_level"])]
    rows += [(f"pixels of {name}", part["pixel"]) for name, part in figures["classes"].items()]
    for name, part in rows:
        table.add_row(name, *(number(part.get(kind)) for kind in kinds), end_section=name == rows[2][0])
    console = Console()
    console.print(table)
    seconds = figures["seconds"]
    print(
        "precision, recall and F1 at the calibrated thresholds; "
        f"{seconds['median']:.2f} s per picture, {seconds['patch_level_median']:.2f} s at patch level"
    )


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except FmrnetError as error:
        raise _fail(error, 2) from None
    except KeyboardInterrupt:
        raise _fail("stopped; what is written is whole, and the same command starts again", 130) from None
    except ValueError as error:
        if not str(error).startswith(
            "FMRNET_BACKEND"
        ):  # the one setting that is checked only where it is used
            raise
        raise _fail(error, 2) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # torch's
            raise
        raise _fail("not enough memory for a picture of this size; cut it into pieces", 1) from None
    except BrokenPipeError:  # whoever read the output, `head` say, has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise _fail(f"{named}{error.strerror or error}", 1) from None


def _fail(message: object, code: int) -> typer.Exit:
    _say(message)
    return typer.Exit(code)


def _say(message: object) -> None:
    print("fmrnet:", " ".join(str(message).split()), file=sys.stderr)
