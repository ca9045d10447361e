"""Figs 13 and 15: how long an inspection takes, at patch level and at pixel level, stage by stage.

    python bench/experiments/timing.py [--model FILE | --preset paper] [--sizes 256x256 512x512 1024x1024 64x1024]
        [--devices cpu cuda] [--rounds 7] [--name NAME]

The paper reports 19.1 ms for a picture of 512 x 512 at pixel level, and 1-2 ms at patch level and 7-8 ms at pixel level
for a rail of 64 x 1024, on a GPU. Sizes are HEIGHTxWIDTH, of pictures in memory; times are medians over rounds in which
all take turns. Without --model, an untrained network of the preset: what it computes is the same.

    encode    cutting into patches, encoder                     }  patch level
    distance  nearest memory entry                              }
    address   addressing network, recall from memory (Eq 4, 5)
    decode    decoder with texton rearrangement, stitching
    fusion    modality maps and their fusion

Writes NAME-timing.json and .png; NAME is the preset or the model's name by default. A size that is done on a device is
not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

import fmrnet
from fmrnet.config import preset
from fmrnet.engines import background
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.inspection.calibration import calibrate
from fmrnet.inspection.inspector import Inspector
from fmrnet.network.model import FMRNet
from fmrnet.progress import Bar

SIZES = ("256x256", "512x512", "1024x1024", "64x1024")
STAGES = {
    "encode": "#1f6f5c",
    "distance": "#e0a526",
    "address": "#c0562f",
    "decode": "#4a6fa5",
    "fusion": "#8d6a9f",
}


def main() -> None:
    """Read the command line, time every size on every device, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--preset", default="edge", help="of an untrained network, without --model")
    parser.add_argument("--name", help="in file names; default: the model's or preset's")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="HEIGHTxWIDTH")
    parser.add_argument(
        "--devices", nargs="+", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="where results are written")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    name = given.name or (given.model.stem if given.model else given.preset)
    about: dict[str, Any] = {"name": name, "rounds": given.rounds, "threads": torch.get_num_threads()}
    about["model_sha256"] = hashlib.sha256(given.model.read_bytes()).hexdigest() if given.model else None
    results = common.Results(given.out / f"{name}-timing.json", about)
    found = {}
    with Bar() as bar:
        for device in given.devices:
            if given.model:
                inspector = fmrnet.load(given.model, device, engine="torch")
            else:
                inspector = untrained(given.preset, device)
            for done, size in enumerate(given.sizes):
                bar.show(f"timing on {device}", done, len(given.sizes))
                found[f"{device} {size}"] = results.part(
                    f"{device} {size}",
                    lambda inspector=inspector, size=size: measure(inspector, size, given.rounds),
                )
            bar.show(f"timing on {device}", len(given.sizes), len(given.sizes))
    for key, part in found.items():
        print(
            f"{key:20}", {name: f"{1e3 * value['median']:.2f} ms" for name, value in part["seconds"].items()}
        )
    plot(found, name, results.path.with_suffix(".png"))


def untrained(name: str, device: str) -> Inspector:
    """A network of a preset with random weights and memory, calibrated on noise."""
    config = dataclasses.replace(preset(name), image_channels=3)
    torch.manual_seed(0)
    model = FMRNet(config)
    torch.nn.init.normal_(model.memory)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    noise = np.random.default_rng(0).random((3, 2 * config.patch_size, 2 * config.patch_size), np.float32)
    engine = TorchEngine(model)
    return Inspector(engine, calibrate(engine, [("noise", noise)]), {})


def measure(inspector: Inspector, size: str, rounds: int) -> dict[str, Any]:
    """Median and least seconds of each stage and of whole inspections of a picture of this size."""
    height, width = common.size_of(size)
    model, channels = inspector.model, inspector.config.image_channels
    array = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    device = model.mean.device
    picture = torch.from_numpy(array.transpose(2, 0, 1).astype(np.float32) / 255).to(device)
    picture = model.filled(picture[None])[0]
    encoded = background.encode(model, picture)
    restored = background.restore(model, encoded)

    def address() -> None:
        with torch.no_grad():
            for features in encoded.features:
                model.restore(features.z)

    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: background.encode(model, picture),
        "distance": lambda: background.patch_distances(model, encoded),
        "address": address,
        "restore": lambda: background.restore(model, encoded),
        "fusion": lambda: background.map_and_alarm(model, picture, restored),
        "patch level": lambda: inspector.inspect(array, level="patch"),
        "pixel level": lambda: inspector.inspect(array, level="pixel"),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            taken = seconds(call, device)
            if turn:  # the first warms up
                times[name].append(taken)
    times["decode"] = [whole - part for whole, part in zip(times.pop("restore"), times["address"])]
    return {
        "patches": sum(len(batch.z) for batch in encoded.features),
        "seconds": {
            name: {"median": statistics.median(values), "least": min(values)}
            for name, values in times.items()
        },
    }


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """How long one call takes; on a GPU until it has finished there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def plot(found: dict[str, Any], title: str, path: Path) -> None:
    """For each device and size, the stages end to end, and the whole inspection at either level as marks."""
    made, axes = common.figure(width=9, height=1.6 + 0.5 * len(found))
    axis = axes[0, 0]
    for row, part in enumerate(found.values()):
        start = 0.0
        for stage, colour in STAGES.items():
            length = 1e3 * part["seconds"][stage]["median"]
            axis.barh(row, length, left=start, color=colour, label=stage if row == 0 else None)
            start += length
        for level, mark in (("patch level", "|"), ("pixel level", "D")):
            whole = 1e3 * part["seconds"][level]["median"]
            axis.plot(whole, row, mark, color="black", markersize=10 if mark == "|" else 4,
                      label=f"inspection at {level}" if row == 0 else None)  # fmt: skip
    labels = []
    for name, part in found.items():
        patch, pixel = (1e3 * part["seconds"][level]["median"] for level in ("patch level", "pixel level"))
        labels.append(f"{name}\npatch {patch:.1f}, pixel {pixel:.1f} ms")
    axis.set_yticks(range(len(found)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set(title=title, xlabel="milliseconds")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    common.save(made, path)


if __name__ == "__main__":
    common.command(main)
