"""`fmrnet info`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmrnet.commands.options import Model, PathOption
from fmrnet.errors import printable
from fmrnet.terminal import note, show

if TYPE_CHECKING:
    from fmrnet.inspection.calibration import Calibration
    from fmrnet.inspection.inspector import Inspector

__all__ = ["info"]

LONGEST = 1000  # characters of a value, and of a line where there is no terminal
WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}  # paths are to be copied


def info(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    html: Annotated[Path | None, PathOption(help="HTML file for a page to look at.")] = None,
) -> None:
    """Show what a model file holds: settings, thresholds, where it comes from, which engines agree on it."""
    import fmrnet
    from fmrnet import files
    from fmrnet.files import check_writable
    from fmrnet.inspection.folder import check_replaceable

    if html is not None:
        check_writable(html)
        check_replaceable(html, "name another file")
    inspector = fmrnet.load(model, "cpu")
    weights, operations = inspector.content.weights.values(), _operations(inspector)
    if html is not None:
        from fmrnet.pages.info import write_info

        count = sum(tensor.size for tensor in weights)
        graphs = bool(inspector.content.graphs)
        write_info(html, model, inspector, graphs=graphs, weights=count, operations=operations)
        note(f"wrote {html}")
    sections: dict[str, dict[str, Any]] = {
        "settings": inspector.config.to_dict(),
        "verdicts": _verdicts(inspector.calibration),
        "calibration": inspector.calibration.to_dict(),
        "engines": _engines(inspector),
        "provenance": inspector.provenance,
        "weights": {
            "tensors": len(weights),
            "values": sum(tensor.size for tensor in weights),
            "megabytes": round(model.stat().st_size / 1e6, 2),
        },
        "billion multiply-adds for a picture of 512x512": operations,
    }
    if as_json:
        print(files.as_json(sections, indent=2))
        return
    sections |= {"calibration": _evidence(inspector.calibration), "provenance": dict(inspector.provenance)}
    if isinstance(curve := inspector.provenance.get("loss_curve"), list):
        sections["provenance"] |= {"loss_curve": f"{len(curve)} entries, see --json or --html"}
    if inspector.region is not None:
        sections["provenance"] |= {"region": str(inspector.region)}
    for title, fields in sections.items():
        show(title)
        _show(fields, 2)


def _show(fields: Mapping[str, Any], indent: int) -> None:
    """Names and values as people read them: aligned, within the terminal, what is nested below its name."""
    plain = [_name(name) for name, value in fields.items() if not isinstance(value, Mapping)]
    width = min(max(map(len, plain), default=0), 24)
    for name, value in fields.items():  # provenance is whatever the file's author wrote
        if isinstance(value, Mapping) and value:
            show(" " * indent + _name(name))
            _show(value, indent + 2)
            continue
        lead = " " * indent + _name(name).ljust(width) + "  "
        for line in _said(value) or ["none"]:
            for part in textwrap.wrap(line, max(_columns() - len(lead), 24), **WHOLE) or [""]:
                show(lead + part)
                lead = " " * len(lead)


def _said(value: object) -> list[str]:
    """A value, or each of several texts on a line of its own."""
    if isinstance(value, list | tuple):
        if any(isinstance(one, str) for one in value):
            return [printable(one, LONGEST) for one in value]
        return [", ".join(printable(one, LONGEST) for one in value)] if value else []
    if value is None or value == {}:
        return []
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [f"{value:.6g}" if isinstance(value, float) else printable(value, LONGEST)]


def _name(name: object) -> str:
    return printable(name, 40)


def _columns() -> int:
    """Of the terminal; what is no terminal takes whole lines."""
    return max(shutil.get_terminal_size().columns, 40) if sys.stdout.isatty() else LONGEST


def _engines(inspector: Inspector) -> dict[str, Any]:
    """How far each engine on the graphs is off: where they were made, and here."""
    from fmrnet.engines.agreement import TOLERANCE, compared
    from fmrnet.engines.choice import has_cuda, installed
    from fmrnet.engines.graph_engine import GraphEngine
    from fmrnet.engines.probes import off_here

    about, content = inspector.provenance.get("graphs"), inspector.content
    if not content.graphs or not isinstance(about, dict):
        return {"graphs": "none; this model needs torch"}

    def told(off: float) -> str:
        return f"off by {off:.2g}" + (", refused" if off > TOLERANCE else "")

    found: dict[str, Any] = {}
    for name in [one for one in installed() if one != "torch"]:
        difference, machine = compared(inspector.provenance, name)
        known = "not compared" if difference is None else f"off by {difference:.2g} on {machine}"
        off = off_here(content, name, partial(GraphEngine, content, name))
        found[name] = known if off is None else f"{known}; {told(off)} here"
    if has_cuda():
        from fmrnet.engines.torch_engine import of_content

        engine = of_content(content, "cuda")
        off = off_here(content, "torch", lambda: engine, engine.machine)
        found[engine.name] = "not compared" if off is None else f"{told(off)} on {engine.machine}"
    return found


def _operations(inspector: Inspector) -> dict[str, Any]:
    """Billions of multiply-adds by level, counted if PyTorch computes, else as noted where the graphs were made."""
    from fmrnet.engines.engine import OfNetwork

    if isinstance(inspector.engine, OfNetwork):
        from fmrnet.engines.operations import operations

        counted: object = operations(inspector.engine.model, 512, 512)
    else:
        noted = inspector.provenance.get("graphs")
        counted = noted.get("operations") if isinstance(noted, dict) else None
    if not isinstance(counted, dict):
        return {"not counted": "this needs torch, and is not noted in the file"}
    return {
        f"{level} level": round(count / 1e9, 3)
        for level, count in counted.items()
        if isinstance(count, int | float)
    }


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
        "limits": calibration.limits.in_words(),
        "suspects": list(map(str, calibration.suspects)),
        "loudest": list(map(str, calibration.loudest)),
    }
