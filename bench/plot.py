"""Draw bench/results/microbench-*.json: one bar a candidate, one panel a case. The README shows these pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
OURS, PEERS, FLOOR = "#1f6f5c", "#b9c2c9", "#c0392b"


def draw(found: dict[str, Any], target: Path) -> None:
    shown = [r for r in found["results"] if r["lines"]]
    columns = 2
    rows = -(-len(shown) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(13, 2.3 * rows + 0.8), squeeze=False)
    for panel in panels.flat[len(shown) :]:
        panel.axis("off")
    for panel, result in zip(panels.flat, shown):
        lines = sorted(result["lines"], key=lambda line: -line["seconds"])
        times = [line["seconds"] * 1e3 for line in lines]
        panel.barh(
            [line["candidate"] for line in lines], times, color=[OURS if x["ours"] else PEERS for x in lines]
        )
        panel.axvline(result["floor_seconds"] * 1e3, color=FLOOR, linewidth=1.2, linestyle=":")
        panel.set_xscale("log")
        panel.set_xlim(right=max(times) * 4)
        for height, time in enumerate(times):
            panel.text(time * 1.08, height, f"{time:.3g} ms", va="center", fontsize=8)
        panel.set_title(f"{result['function']}, {result['size']}", fontsize=10, loc="left")
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    machine = found["machine"]
    name = (
        machine.get("gpu") if found["device"] == "cuda" else f"{machine['cpu']}, {machine['threads']} threads"
    )
    figure.suptitle(
        f"Milliseconds, less is better. Green: this package; dotted: the machine's floor.\n"
        f"{name}; torch {found['versions']['torch']}; commit {found['commit'][:12]}; {found['time'][:10]}",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(target, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    for path in sorted(RESULTS.glob("microbench-*.json")):
        draw(json.loads(path.read_text()), path.with_suffix(".png"))
        print(f"written to {path.with_suffix('.png')}")
