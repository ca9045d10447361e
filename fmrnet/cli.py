"""The command line, a function a verb. How a command ends, and with which exit code, stands in `fmrnet.terminal`."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fmrnet import streams
from fmrnet.terminal import errors_in_one_line, exit_code, fail, note, say, show, signals_as_errors

if TYPE_CHECKING:
    from fmrnet.evaluation.evaluate import Evaluation
    from fmrnet.inspection.calibration import Calibration
    from fmrnet.inspection.inspector import Inspector
    from fmrnet.inspection.report import Report

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


def path(text: str) -> Path:
    """A path as it was given; `~` is the home folder, after `--out=`, too, where a shell leaves it standing."""
    return Path(os.path.expanduser(text))


PathArgument = functools.partial(typer.Argument, parser=path)
PathOption = functools.partial(typer.Option, parser=path)
Model = Annotated[Path, PathArgument(metavar="MODEL", help="Model file written by `fmrnet train`.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
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


def main() -> None:
    """Entry point of the program `fmrnet`."""
    streams.settle()
    try:
        app()
    except OSError as error:  # help and version cannot be shown; a command tells its own errors
        sys.exit(fail(f"{error.filename}: {error.strerror}", 1).exit_code)


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
    out: Annotated[Path, PathOption(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Fixes the training and the drawn defects.")] = 0,
    iterations: Iterations = None,
) -> None:
    """Learn one half of a texture, find defects drawn on the other half: about three minutes on two cores."""
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


@app.command()
def train(
    good: Annotated[Path, PathArgument(metavar="GOOD_DIR", help="Folder of defect-free pictures.")],
    out: Annotated[Path, PathOption(help="The model file to write, such as carpet.fmr.")],
    preset: Annotated[
        str,
        typer.Option(
            help="general; instant (seconds, no generator), edge (no outside weights) or paper (as published)."
        ),
    ] = "general",
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
    false_alarms: FalseAlarms = None,
    bits: Bits = None,
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
                iterations=iterations,
                seed=seed,
                anomalies=anomalies,
                device=str(where),
                bits=bits,
                resume=resume,
                restart=restart,
                keep_odd=keep_odd,
                progress=bar.training(config) if bar else None,
            )
    except Interrupted as stopped:
        raise fail(stopped, 128 + stopped.number) from None
    if not first:
        return
    seconds, size = inspector.provenance["seconds"], out.stat().st_size
    show(f"wrote {out} ({size / 1e6:.1f} MB) after {duration(seconds)} of training")
    _print_calibration(inspector.calibration)
    show(f"next: fmrnet inspect {out} PICTURES --out report")


@app.command()
def calibrate(
    model: Model,
    good: Annotated[list[Path], PathArgument(metavar="GOOD", help="Good pictures, or folders of them.")],
    out: Annotated[Path | None, PathOption(help="The model file to write; default: change MODEL.")] = None,
    false_alarms: FalseAlarms = None,
    k: Annotated[
        float | None,
        typer.Option(help="Standard deviations of the pixel threshold, 0 for none; default: as trained."),
    ] = None,
    keep_suspects: Annotated[
        bool, typer.Option("--keep-suspects", help="Count pictures that are unlike the others as good, too.")
    ] = False,
    defective: Annotated[
        Path | None,
        PathOption(
            help="Folder of known defective pictures: says which are found; nothing is learnt from them."
        ),
    ] = None,
    masks: Annotated[
        Path | None, PathOption(help="With --defective: folder of their masks, named as they are.")
    ] = None,
    bits: Bits = None,
    device: Device = "auto",
) -> None:
    """Learn anew what good pictures score, say those of another camera or lot."""
    from fmrnet.artifact import check_replaceable
    from fmrnet.files import check_writable
    from fmrnet.listing import list_pictures

    if masks is not None and defective is None:
        raise fail("--masks are those of the pictures in --defective; give both", 2)
    target = model if out is None else out
    inspector = _load(model, device, bits, calibrated=False)
    check_writable(target)
    check_replaceable(target)
    pictures = list_pictures(good)
    known = None if defective is None else _known(inspector, defective, masks, pictures)
    inspector.calibrate(pictures, false_alarms=false_alarms, k=k, keep_suspects=keep_suspects)
    inspector.save(target)
    _print_calibration(inspector.calibration)
    show(f"wrote {target}")
    if known is not None:
        _print_known(known)


def _known(inspector: Inspector, defective: Path, masks: Path | None, good: list[Path]) -> Evaluation:
    """The known defective pictures, which are not among the good ones and whose masks fit."""
    from fmrnet.evaluation.evaluate import Evaluation
    from fmrnet.evaluation.known import check_not_good
    from fmrnet.evaluation.layouts import load_defective

    examples = load_defective(defective, masks)
    check_not_good(examples, good)
    return Evaluation(inspector, defective, examples=examples)


def _print_known(known: Evaluation) -> None:
    """Inspect the known defective pictures, and say which are found, and what missing none would cost."""
    from fmrnet.evaluation.table import print_known
    from fmrnet.progress import Bar

    with Bar() as bar:
        known.run(bar.counter("inspecting"))
    figures = known.figures()
    _name_errors(figures)
    print_known(figures)
    _end_with_errors(figures)


def _name_errors(figures: dict[str, Any]) -> None:
    """Name the pictures that could not be inspected, and why."""
    for failure in figures["errors"]:
        say(failure["error"])


def _end_with_errors(figures: dict[str, Any]) -> None:
    """End with the exit code of the graver fault, if pictures could not be inspected."""
    if figures["pictures"]["failed"]:
        raise typer.Exit(1)
    if figures["pictures"]["unreadable"]:
        raise typer.Exit(2)


@app.command()
def inspect(
    model: Model,
    pictures: Annotated[
        list[Path], PathArgument(metavar="PICTURES", help="Picture files, or folders of them.")
    ],
    out: Annotated[Path, PathOption(help="Folder for overlays, masks, maps and report.json.")],
    level: Annotated[
        Level,
        typer.Option(
            help="pixel: where; patch: whether, faster; auto: where, unless the picture is surely good."
        ),
    ] = Level.pixel,
    false_alarms: FalseAlarms = None,
    bits: Bits = None,
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option(help="auto, onnxruntime, openvino (both on graphs, see `fmrnet graphs`) or torch.")
    ] = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the report in --out; pictures that changed are done again."
        ),
    ] = False,
) -> None:
    """Find the defects of pictures. Unreadable ones are named and passed over (exit code 2 at the end).

    An earlier report in --out is replaced, and its overlays, masks and maps, unless --resume is given.
    """
    from fmrnet.inspection.batch import gather, inspect_each
    from fmrnet.inspection.report import open_report
    from fmrnet.progress import Bar

    inspector = _load(model, device, bits, engine=engine)
    if false_alarms is not None:
        inspector.false_alarms = false_alarms
    paths, unusable = gather(pictures, out)
    with open_report(out, inspector, model, level.value, paths, resume=resume) as report, Bar() as bar:
        _note_earlier(report, len(paths), resume)
        for given, reason in unusable.items():
            _print_line(report.add_error(given, reason))
        try:
            for done, line in enumerate(inspect_each(inspector, report, paths), start=1 + len(report.kept)):
                _print_line(line)
                bar.show("inspecting", done, len(paths))
        except KeyboardInterrupt as error:
            left = report.content()["summary"]["not_reached"]
            so_far = f"stopped, {left} of {len(paths)} pictures left; {out} holds the report of the others"
            raise fail(f"{so_far}, and the same command with --resume goes on", exit_code(error)) from None
    summary = report.content()["summary"]
    counts = [f"{summary[kind]} {kind}" for kind in ("defective", "good", "unreadable", "failed")]
    note(inspector.calibration.promise)
    if level == Level.auto:
        note(
            f"{summary['left_early']} of {summary['defective'] + summary['good']} pictures left at the early exit"
        )
    for text in report.drift().lines(model):
        note(text)
    show(f"{', '.join(counts)}: {out / 'report.json'}")
    if summary["failed"]:
        raise typer.Exit(1)
    if summary["unreadable"]:
        raise typer.Exit(2)


@app.command()
def evaluate(
    model: Model,
    dataset: Annotated[
        Path,
        PathArgument(
            metavar="DATASET",
            help="Folder in the layout of MVTec AD, MVTec LOCO or BTAD; with --drawn, of good pictures.",
        ),
    ],
    out: Annotated[Path | None, PathOption(help="JSON file for all figures.")] = None,
    drawn: Annotated[
        bool,
        typer.Option(
            "--drawn",
            help="Draw defects of graded size and contrast on good pictures that training has not seen.",
        ),
    ] = False,
    false_alarms: FalseAlarms = None,
    bits: Bits = None,
    device: Device = "auto",
) -> None:
    """Compare a model's findings with known defects: ROC-AUC, AU-PRO, precision, recall, F1, size and contrast found.

    Pictures that cannot be inspected are named and left out (exit code 2 at the end). Ctrl-C gives the figures of
    the pictures inspected until then.
    """
    from fmrnet.evaluation.drawn import DrawnEvaluation
    from fmrnet.evaluation.evaluate import Evaluation
    from fmrnet.evaluation.table import print_drawn, print_figures
    from fmrnet.files import check_writable, write_json
    from fmrnet.inspection.folder import check_replaceable
    from fmrnet.progress import Bar

    inspector = _load(model, device, bits)
    if false_alarms is not None:
        inspector.false_alarms = false_alarms
    if out is not None:
        check_writable(out)
        check_replaceable(out, "name another file")
    evaluation = DrawnEvaluation(inspector, dataset) if drawn else Evaluation(inspector, dataset)
    stopped: KeyboardInterrupt | None = None
    with Bar() as bar:
        try:
            evaluation.run(bar.counter("inspecting"))
        except KeyboardInterrupt as error:
            if not evaluation.each:
                raise
            stopped = error
    figures = evaluation.figures()
    _name_errors(figures)
    (print_drawn if drawn else print_figures)(figures)
    if out is not None and not (stopped and out.exists()):  # figures of some pictures replace none of all
        write_json(out, figures)
        show(f"wrote {out}")
    if stopped:
        raise fail("stopped; the same command starts again from the beginning", exit_code(stopped))
    _end_with_errors(figures)


@app.command()
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


@app.command()
def info(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show what a model file holds: settings, thresholds, where it comes from."""
    import fmrnet
    from fmrnet.engines.operations import operations
    from fmrnet.errors import shown

    inspector = fmrnet.load(model, "cpu", engine="torch")
    counted = operations(inspector.model, 512, 512)
    weights = inspector.model.state_dict().values()
    sections: dict[str, dict[str, Any]] = {
        "settings": inspector.config.to_dict(),
        "verdicts": _verdicts(inspector.calibration),
        "calibration": inspector.calibration.to_dict(),
        "provenance": inspector.provenance,
        "weights": {
            "tensors": len(weights),
            "values": sum(tensor.numel() for tensor in weights),
            "megabytes": round(model.stat().st_size / 1e6, 2),
        },
        "billion multiply-adds for a picture of 512x512": {
            f"{level} level": round(count / 1e9, 3) for level, count in counted.items()
        },
    }
    if as_json:
        print(json.dumps(sections, indent=2))
        return
    sections["calibration"] = _evidence(inspector.calibration)
    for title, fields in sections.items():
        print(title)
        for name, value in fields.items():  # provenance is whatever the file's author wrote
            short = name == "loss_curve" and isinstance(value, list)
            text = f"{len(value)} entries, see --json" if short else shown(value, 500)
            show(f"  {shown(name)[1:-1]:18} {text}")


def _verdicts(calibration: Calibration) -> dict[str, Any]:
    """The thresholds in force and what they promise."""
    return {
        "false_alarms": calibration.false_alarms,
        "promise": calibration.promise,
        "early_exit": calibration.exit_promise,
        "picture_threshold": calibration.picture_threshold,
        "patch_threshold": calibration.patch_threshold,
        "pixel_threshold": calibration.pixel_threshold,
    }


def _evidence(calibration: Calibration) -> dict[str, Any]:
    """What the verdicts rest on, shortly."""
    return {
        "held_out": len(calibration.picture.held_out),
        "learnt": len(calibration.picture.learnt),
        "parts": round(calibration.picture.parts, 3),
        "synthetic_defects": len(calibration.early_exit.pixel),
        "k": calibration.k,
        "limits": dataclasses.asdict(calibration.limits),
        "suspects": list(map(str, calibration.suspects)),
        "loudest": list(map(str, calibration.loudest)),
    }


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
        raise fail(f"{wrong} functions do not agree with the oracle; do not trust this installation", 1)


def _check_kernels(specs: list[str], dtypes: list[str], device: str, small: bool) -> None:
    """Every property of every kernel; what fails first of each is shown in full."""
    from fmrnet.conformance import find, outcomes

    found, failed = [(spec, *find(spec)) for spec in specs], 0
    for spec, name, function in found:
        show(f"{spec}, held to fmrnet.fast.{name}")
        shown = ""
        for outcome in outcomes(name, function, dtypes=dtypes, device=device, small=small):
            verdict = {True: "ok", False: "WRONG", None: "none"}[outcome.ok]
            title = outcome.property.name.replace("_", " ")
            remark = "" if outcome.ok is False else outcome.note
            print(
                f"  {verdict:5} {title:44} {outcome.dtype:8} {outcome.seconds:5.1f} s  {remark}".rstrip(),
                flush=True,
            )
            if outcome.ok is False:
                failed += 1
                shown = shown or outcome.message
        print(f"\n{shown}" if shown else "  it does what the oracle does")
    if failed:
        raise fail(f"{failed} properties do not hold", 1)


@app.command()
def bench(
    kernel: Kernels = None,
    only: Annotated[str, typer.Option(help='Cases whose name contains this, such as "512 x 512".')] = "",
    budget: Annotated[float, typer.Option(min=0.01, help="Seconds for each candidate of a case.")] = 1.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    out: Annotated[Path | None, PathOption(help="JSON file for all figures.")] = None,
) -> None:
    """Time the fast functions, or a kernel of yours that passes the check, beside what one would use instead."""
    import warnings

    from fmrnet.conformance.measure import ceilings, measured, table
    from fmrnet.conformance.record import record
    from fmrnet.devices import choose_device
    from fmrnet.files import check_writable, write_json

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
                raise fail(f"{spec} does not pass the check; nothing is timed without it", 1) from None
            results += found["results"]
            limits = found["ceilings"]
    else:
        limits = ceilings(kind)
        for result in measured(kind, budget, only, limits=limits):
            print(table(result), flush=True)
            results.append(result)
    if out is not None:
        write_json(out, record(Path.cwd()) | {"device": kind, "ceilings": limits, "results": results})
        show(f"wrote {out}")
    wrong = [f"{r['function']}, {r['size']}: {name}" for r in results for name in r["failures"]]
    if wrong:
        raise fail(f"not timed, for they do not agree with the oracle: {'; '.join(wrong)}", 1)


def _load(
    model: Path, device: str, bits: int | None, *, engine: str = "auto", calibrated: bool = True
) -> Inspector:
    """The inspector in a model file, for pictures of so many bits if a number is given."""
    import fmrnet

    inspector = fmrnet.load(model, device, engine=engine, calibrated=calibrated)
    if bits is not None:
        inspector.bits = bits
    return inspector


def _print_calibration(calibration: Calibration) -> None:
    """What a verdict promises, which pictures it rests on most, and which were left out; and where to look."""
    from fmrnet.inspection.suspects import FEWEST

    print(calibration.promise)
    print(calibration.exit_promise)
    show("the good pictures that score highest; is one defective, take it out and calibrate again:")
    for loudest in calibration.loudest:
        show(f"  {loudest}")
    if calibration.suspects:
        show(
            "look at these, which are unlike the others and were left out (--keep-suspects counts them as good):"
        )
        for suspect in calibration.suspects:
            show(f"  {suspect}")
    elif calibration.pictures < FEWEST:
        print(f"with fewer than {FEWEST} pictures to compare, a defective one among them would go unseen")


def _note_earlier(report: Report, pictures: int, resume: bool) -> None:
    """Say what becomes of an earlier report in the folder."""
    if report.replaced:
        note(f"replacing the report of {report.replaced} pictures in {report.folder}")
    elif resume and report.kept:
        note(f"{len(report.kept)} of {pictures} pictures are in the report already")
    elif resume:
        note(f"there is nothing to go on from in {report.folder}: starting from the beginning")


def _print_line(line: dict[str, Any]) -> None:
    """One line of a report, as its picture is done."""
    if "error" in line:
        say(line["error"])
    else:
        verdict = "DEFECTIVE" if line["defective"] else "good"
        figures = f"score {line['score']:6.2f}  p {line['p_value']:<7.2g} {line['level']:5} {line['seconds']:6.2f} s"
        reasons = "".join(f"; {reason}" for reason in line["reasons"])
        show(f"{verdict:9} {figures}  {line['picture']}{reasons}")
