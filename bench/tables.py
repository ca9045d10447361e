"""Write the tables of the README from bench/results/*.json, between their markers. A test holds the README to it."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"


def accuracy() -> str:
    """One line for each set of photographed defects: figures of the learned fusion and of Eq 23's product.

    Of several seeds the mean and the deviation; of the time, which other work on the machine may stretch, the median.
    """
    lines = [
        "| set | seeds | good pictures | training | pixel ROC-AUC | AU-PRO | picture ROC-AUC | patch level "
        "| pixel ROC-AUC by Eq 23 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*-edge-*[0-9].json")):
        name, seed = path.stem.split("-edge-")
        if not seed.isdigit():  # of other settings than the defaults
            continue
        found.setdefault(name, {})[seed] = json.loads(path.read_text())
    for name, seeds in found.items():
        results = list(seeds.values())
        links = " ".join(f"[{seed}](bench/results/{name}-edge-{seed}.json)" for seed in seeds)
        minutes = statistics.median(result["training"]["seconds"] for result in results) / 60
        figures = [
            [result["figures"]["pixel"]["roc_auc"] for result in results],
            [result["figures"]["pixel"]["au_pro"] for result in results],
            [result["figures"]["picture"]["roc_auc"] for result in results],
            [result["figures"]["patch_level"]["roc_auc"] for result in results],
            [result["pixel_roc_auc_of_products"]["gms*ssim*residual"] for result in results],
        ]
        lines.append(
            f"| {name} | {links} | {results[0]['training']['good']['pictures']} | {minutes:.0f} min "
            f"| {' | '.join(map(_spread, figures))} |"
        )
    lines += peers()
    places = {machine(result) for results in found.values() for result in results.values()}
    return "\n".join([*lines, "", *sorted(places)])


def presets() -> str:
    """One line for each set of photographed defects, with the figures of each preset beside each other."""
    found = json.loads((RESULTS / "presets.json").read_text())
    of_sets: dict[str, dict[str, Any]] = {}
    for key, part in found["parts"].items():
        name, preset = key.rsplit(" ", 1)
        of_sets.setdefault(name, {})[preset] = part
    names = ("instant", "edge", "general")
    lines = [f"| set | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (1 + len(names)) + "|"]
    for name, parts in sorted(of_sets.items()):
        lines.append(f"| {name} | {' | '.join(_figures(parts.get(preset)) for preset in names)} |")
    return "\n".join([*lines, "", machine(found)])


def verdicts() -> str:
    """One line for each set: what verdicts at one false alarm in twenty flag, let go early, and mark."""
    found = json.loads((RESULTS / "verdicts.json").read_text())
    rate = str(found["rate"])
    lines = [
        "| set | held-out good pictures | flagged at `pixel`: defective, good | at `patch` | good ones that leave "
        "early; lost so | mask: precision, recall, F1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in found["parts"].items():
        if name.startswith("drawn"):
            continue
        flagged = [_shares(part["flagged"][level][rate]) for level in ("pixel", "patch")]
        early, mask = part["early_exit"], part["mask"]
        marked = [mask[key] for key in ("precision", "recall", "f1")]
        lines.append(
            f"| {name} | {part['pictures']['held_out']} | {flagged[0]} of {part['pictures']['defective']}, "
            f"{part['pictures']['good']} | {flagged[1]} | {early['left']['good']:.0%}; {early['lost_of_flagged']:.1%} "
            f"| {', '.join('-' if value is None else f'{value:.2f}' for value in marked)} |"
        )
    return "\n".join([*lines, "", machine(found)])


def _shares(shares: dict[str, float | None]) -> str:
    return ", ".join(
        "-" if value is None else f"{value:.0%}" for value in (shares["defective"], shares["good"])
    )


def _figures(part: dict[str, Any] | None) -> str:
    """Pixel ROC-AUC, AU-PRO, picture ROC-AUC; patch level."""
    if part is None:
        return "not measured"
    pixel = part["pixel"] or {}
    figures = (pixel.get("roc_auc"), pixel.get("au_pro"), part["picture"]["roc_auc"])
    shown = ["-" if value is None else f"{value:.3f}" for value in (*figures, part["patch_level"]["roc_auc"])]
    return f"{', '.join(shown[:3])}; {shown[3]}"


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def peers() -> list[str]:
    """A line like those above for each peer of bench/experiments/peers.py on each set."""
    lines = []
    for path in sorted(RESULTS.glob("*-peers.json")):
        found = json.loads(path.read_text())
        for peer, part in found["parts"].items():
            figures = [part[key] for key in ("pixel_roc_auc", "au_pro", "picture_roc_auc")]
            lines.append(
                f"| [{found['name']}](bench/results/{path.name}), {peer} of anomalib {found['anomalib']} | - "
                f"| {part['good_pictures']} | {part['training_seconds'] / 60:.0f} min "
                f"| {' | '.join('-' if value is None else f'{value:.3f}' for value in figures)} | - | - |"
            )
    return lines


def speed() -> str:
    """One line for each microbenchmark: our fastest, the best peer, and their ratio."""
    found = json.loads((RESULTS / "microbench-cpu.json").read_text())
    lines = ["| function | size | this package | best peer | ratio |", "|---|---|---|---|---|"]
    for result in found["results"]:
        ours = [line for line in result["lines"] if line["ours"]]
        peers = [line for line in result["lines"] if not line["ours"]]
        if not ours or not peers:
            continue
        best, peer = (min(group, key=lambda line: line["seconds"]) for group in (ours, peers))
        lines.append(
            f"| `{result['function']}` | {result['size']} | {_time(best)}, {best['candidate']} "
            f"| {_time(peer)}, {peer['candidate']} "
            f"| {peer['seconds'] / best['seconds']:.1f}x |"
        )
    return "\n".join([*lines, "", machine(found)])


def machine(found: dict[str, Any]) -> str:
    """Where a result was measured."""
    place = found.get("record", found)
    cpu = place["machine"]
    return (
        f"Measured on {cpu['cpu']}, {cpu['threads']} thread{'s' * (cpu['threads'] > 1)}"
        f"{' (bf16 matrix units)' * cpu['amx']}, torch {place['versions']['torch']}, {place['time'][:10]}."
    )


def _time(line: dict[str, Any]) -> str:
    seconds = line["seconds"]
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


TABLES = {"accuracy": accuracy, "presets": presets, "verdicts": verdicts, "speed": speed}


def filled(text: str) -> str:
    """The README with its tables as the results have them."""
    for name, table in TABLES.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda m, table=table: m[1] + table() + "\n" + m[2], text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
