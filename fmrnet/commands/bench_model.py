"""`fmrnet bench MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fmrnet.terminal import MISTAKE, fail, note, show

__all__ = ["bench_model"]

BUDGET = 5.0  # seconds of inspecting, of each engine at each level


def bench_model(model: Path, given: list[Path], budget: float | None, device: str, out: Path | None) -> None:
    """Time a model with every engine that can run here, print a table, write JSON."""
    from fmrnet.conformance.record import record
    from fmrnet.engines.choice import installed
    from fmrnet.evaluation.speed import apart
    from fmrnet.files import check_writable, write_json
    from fmrnet.listing import list_pictures
    from fmrnet.progress import Bar

    if out is not None:
        check_writable(out)
    pictures = [str(path) for path in list_pictures(given)] if given else []
    engines = [name for name in installed() if name == "torch" or device in ("auto", "cpu")]
    found: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    with Bar() as bar:
        for done, engine in enumerate(engines):
            bar.show("timing", done, len(engines), engine)
            told = apart(
                model=str(model), engine=engine, device=device, pictures=pictures, budget=budget or BUDGET
            )
            (errors if "error" in told else found)[engine] = told
        bar.show("timing", len(engines), len(engines))
    for engine, told in errors.items():
        note(f"{engine} is left out: {told['error']}")
    if not found:
        raise fail("no engine can inspect with this model here; each says why above", MISTAKE)
    changed = _changed(found)
    _print(found, changed, len(pictures))
    if out is not None:
        about = {"model": model.name, "pictures": len(pictures), "device": device}
        write_json(out, record(Path.cwd()) | about | {"engines": found, "errors": errors, "changed": changed})
        show(f"wrote {out}")


def _changed(found: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Of each engine but the last, and of each level, how many verdicts are not those of the last."""
    *others, last = found
    return {
        engine: {
            level: sum(
                (one > 1) != (other > 1)
                for one, other in zip(told["scores"], found[last]["levels"][level]["scores"], strict=False)
            )
            for level, told in found[engine]["levels"].items()
        }
        for engine in others
    }


def _about_auto(engine: str, levels: dict[str, Any]) -> None:
    """Say what level auto took beside level patch, and how much of the pictures it held against a background."""
    patch, auto = levels["patch"], levels["auto"]
    stayed, times = 1 - auto["left_early"], patch["pictures_per_second"] / auto["pictures_per_second"]
    show(f"{engine}: level auto takes {times:.2f} times patch; {100 * stayed:.0f} % of pictures stay")
    if auto["suspect"] is not None:
        show(f"  of whose patches {100 * auto['suspect']:.1f} % are suspect")


def _print(found: dict[str, Any], changed: dict[str, dict[str, int]], pictures: int) -> None:
    from rich.console import Console
    from rich.table import Table

    told_watts = any(one["watts"] is not None for told in found.values() for one in told["levels"].values())
    titles = ["engine", "level", "p50 ms", "p99 ms", "pictures/s", "Mpixels/s", "early", "MB"]
    named = f"{pictures} pictures" if pictures else "drawn textures of 512x512 pixels"
    table = Table(title=named, title_justify="left")
    for title in [*titles, "watts"] if told_watts else titles:
        table.add_column(title, justify="left" if title in titles[:2] else "right", no_wrap=True)
    for engine, told in found.items():
        for level, one in told["levels"].items():
            cells = [
                engine,
                level,
                f"{1000 * one['p50_seconds']:.1f}",
                f"{1000 * one['p99_seconds']:.1f}",
                f"{one['pictures_per_second']:.3g}",
                f"{one['megapixels_per_second']:.3g}",
                f"{100 * one['left_early']:.0f} %" if level == "auto" else "",
                str(one["resident_megabytes"]),
            ]
            watts = [f"{one['watts']:.0f}"] if told_watts else []
            table.add_row(*cells, *watts, end_section=level == list(told["levels"])[-1])
    Console(markup=False, emoji=False).print(table)
    for engine, told in found.items():
        show(
            f"{engine}: first verdict {told['first_verdict_seconds']:.2f} s after the start of its process; "
            f"{told['threads']} thread{'s' * (told['threads'] != 1)}"
        )
        _about_auto(engine, told["levels"])
    if not told_watts:
        print("no watts: /sys/class/powercap does not tell them here")
    differing = [
        f"{engine} at level {level}: {differ} verdicts are not those of {list(found)[-1]}"
        for engine, levels in changed.items()
        for level, differ in levels.items()
        if differ
    ]
    for line in differing:
        show(line)
    if changed and not differing:
        print("all engines give the same verdicts")
