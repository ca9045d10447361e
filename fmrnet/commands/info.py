"""`fmrnet info`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmrnet.commands.options import Model, PathOption
from fmrnet.terminal import note, show

if TYPE_CHECKING:
    from fmrnet.inspection.calibration import Calibration
    from fmrnet.inspection.inspector import Inspector

__all__ = ["info"]


def info(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    html: Annotated[Path | None, PathOption(help="HTML file for a page to look at.")] = None,
) -> None:
    """Show what a model file holds: settings, thresholds, where it comes from, which engines agree on it."""
    import fmrnet
    from fmrnet.errors import shown
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
        "provenance": inspector.provenance,
        "weights": {
            "tensors": len(weights),
            "values": sum(tensor.size for tensor in weights),
            "megabytes": round(model.stat().st_size / 1e6, 2),
        },
        "billion multiply-adds for a picture of 512x512": operations,
    }
    if as_json:
        print(json.dumps(sections, indent=2))
        return
    sections["calibration"] = _evidence(inspector.calibration)
    for title, fields in sections.items():
        print(title)
        for name, value in fields.items():  # provenance is whatever the file's author wrote
            if name == "loss_curve" and isinstance(value, list):
                text = f"{len(value)} entries, see --json"
            elif name == "region" and inspector.region is not None:
                text = str(inspector.region)
            else:
                text = shown(value, 500)
            show(f"  {shown(name)[1:-1]:18} {text}")


def _operations(inspector: Inspector) -> dict[str, Any]:
    """Billions of multiply-adds by level, counted here, or, without PyTorch, as noted where the graphs were made."""
    try:
        from fmrnet.engines.operations import operations
    except ModuleNotFoundError:
        noted = inspector.provenance.get("graphs")
        counted = noted.get("operations") if isinstance(noted, dict) else None
    else:
        counted = operations(inspector.model, 512, 512)
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
        "limits": dataclasses.asdict(calibration.limits),
        "suspects": list(map(str, calibration.suspects)),
        "loudest": list(map(str, calibration.loudest)),
    }
