"""`fmrnet bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.bench_model import bench_model
from fmrnet.commands.options import Kernels, PathArgument, PathOption
from fmrnet.terminal import MISTAKE, WRONG, fail, show

__all__ = ["bench"]


def bench(
    model: Annotated[
        Path | None, PathArgument(metavar="[MODEL]", help="Model file to time with every engine.")
    ] = None,
    pictures: Annotated[
        list[Path] | None,
        PathArgument(
            metavar="[PICTURES]...", help="Pictures to inspect with it, or folders; default: drawn textures."
        ),
    ] = None,
    kernel: Kernels = None,
    only: Annotated[str, typer.Option(help='Cases whose name contains this, such as "512 x 512".')] = "",
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Seconds for each engine at each level, 5, or for each candidate of a case, 1."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    out: Annotated[Path | None, PathOption(help="JSON file for all figures.")] = None,
) -> None:
    """Time a model on this machine with every engine and level: speed, memory, watts.

    Without MODEL: time the fast functions, or a kernel of yours that passes the check, beside what one would use
    instead.
    """
    import warnings

    if model is not None:
        if kernel or only:
            raise fail("--kernel and --only are of the fast functions; leave them out, or MODEL", MISTAKE)
        bench_model(model, pictures or [], budget, device, out)
        return
    budget = 1.0 if budget is None else budget

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
                raise fail(f"{spec} does not pass the check; nothing is timed without it", WRONG) from None
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
        raise fail(f"not timed, for they do not agree with the oracle: {'; '.join(wrong)}", WRONG)
