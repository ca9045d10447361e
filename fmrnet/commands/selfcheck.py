"""`fmrnet selfcheck`."""

from __future__ import annotations

from typing import Annotated

import typer

from fmrnet.commands.options import Kernels
from fmrnet.terminal import WRONG, fail, show

__all__ = ["selfcheck"]


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
        raise fail(f"{wrong} functions do not agree with the oracle; do not trust this installation", WRONG)


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
        raise fail(f"{failed} properties do not hold", WRONG)
