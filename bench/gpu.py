"""One call on a machine with a GPU: time every Triton kernel that agrees with the oracle, inspect as it is and
compiled, train `edge` and a part of `paper`, write the JSON and the picture, then hold the kernels to every
property and train a little, side by side where pytest-xdist is there.

    python bench/gpu.py [--out bench/results/microbench-gpu.json]
    python bench/gpu.py --dry --out dry.json    every path but the property tests on the CPU, small, for no figures
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rows
import torch
from PIL import Image
from plot import draw
from record import record

from fmrnet.config import Config, preset
from fmrnet.conformance.measure import ceilings, measured, table
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.inspection.calibration import calibrate
from fmrnet.inspection.inspector import Inspector
from fmrnet.learning import training
from fmrnet.network.model import FMRNet

ROOT = Path(__file__).parents[1]
ROUNDS = 20  # of inspections, in turns
SMALL = {"channels": (4, 4, 8, 8, 8), "memory_entries": 16, "batch_size": 8}  # of a dry run
PAPER_STEPS = (600, 300, 0)  # of 200,000 and 100,000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/microbench-gpu.json")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each candidate of a case")
    parser.add_argument(
        "--no-tests", action="store_true", help="skip the property tests; every line is compared still"
    )
    parser.add_argument("--dry", action="store_true", help="on the CPU, small, to see that nothing breaks")
    options = parser.parse_args()
    if not (options.dry or torch.cuda.is_available()):
        sys.exit("bench/gpu.py needs a CUDA device and found none; nothing was measured and nothing written")
    warnings.simplefilter("ignore")
    torch.backends.cuda.matmul.allow_tf32 = False
    device = "cpu" if options.dry else "cuda"
    results, limits = [], ceilings(device)
    for result in measured(device, options.budget, "N = 4" if options.dry else "", limits=limits):
        print(table(result), flush=True)
        results.append(result)
    found = record() | {
        "property_tests_exit_code": None,
        "device": device,
        "ceilings": limits,
        "results": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows.write(options.out, found)
    parts: dict[str, Callable[[bool], Any]] = {"inspection": inspection, "training": trainings}
    for name, part in parts.items():
        found[name] = part(options.dry)
        print(name, found[name], flush=True)
        rows.write(options.out, found)
    draw(found, options.out.with_suffix(".png"))
    if not (options.no_tests or options.dry):
        found["property_tests_exit_code"] = property_tests()
        rows.write(options.out, found)
    print(f"\nwritten to {options.out}")
    wrong = [f"{r['function']}, {r['size']}: {r['failures']}" for r in found["results"] if r["failures"]]
    if found["property_tests_exit_code"] or wrong:
        sys.exit(
            f"property tests: exit code {found['property_tests_exit_code']}; "
            f"not in agreement with the oracle: {wrong}"
        )


def inspection(dry: bool) -> dict[str, Any]:
    """Seconds of an inspection as it is and with compiled networks, on a GPU as CUDA graphs; how the maps differ."""
    device, side, rounds = ("cpu", 128, 2) if dry else ("cuda", 512, ROUNDS)
    config = dataclasses.replace(preset("edge"), image_channels=3, **(SMALL if dry else {}))
    torch.manual_seed(0)
    model = FMRNet(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.memory)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    noise = torch.rand(3, 2 * config.patch_size, 2 * config.patch_size).numpy()
    plain = Inspector(TorchEngine(model), calibrate(TorchEngine(model), [("noise", noise)]), {})
    how: dict[str, Any] = {"backend": "aot_eager"} if dry else {"mode": "reduce-overhead"}
    compiled = Inspector(TorchEngine(_compiled(model, how)), plain.calibration, {})
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    levels: tuple[Any, ...] = ("patch", "pixel")
    times: dict[str, list[float]] = {
        f"{name}, {level}": [] for name in ("eager", "compiled") for level in levels
    }
    for turn in range(rounds + 3):
        for name, inspector in (("eager", plain), ("compiled", compiled)):
            for level in levels:
                since = time.perf_counter()
                inspector.inspect(picture, level=level)  # its result is on the host
                if turn >= 3:  # the first ones compile and capture
                    times[f"{name}, {level}"].append(time.perf_counter() - since)
    maps = [one.inspect(picture, level="pixel").anomaly_map for one in (plain, compiled)]
    assert maps[0] is not None
    assert maps[1] is not None
    return {
        "size": f"{side} x {side}, colour, preset edge, untrained",
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "largest_difference_of_maps": float(np.abs(maps[0] - maps[1]).max()),
    }


def _compiled(model: FMRNet, how: dict[str, Any]) -> FMRNet:
    """A network with the same weights whose encoder, decoder and fusion are compiled."""
    other = FMRNet(model.config).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    other.to(model.mean.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def fresh(call: Callable[..., Any]) -> Callable[..., Any]:
        """What a CUDA graph gives is overwritten by its next run; here it is kept."""

        def copied(*given: Any) -> Any:
            return torch.utils._pytree.tree_map(torch.clone, call(*given))

        return copied

    for name in ("encode", "decode"):
        setattr(other, name, fresh(torch.compile(getattr(other, name), **how)))
    assert other.fusion is not None
    other.fusion.forward = fresh(torch.compile(other.fusion.forward, **how))  # type: ignore[method-assign]
    return other


def trainings(dry: bool) -> dict[str, Any]:
    """Seconds of a step of each phase, of `edge` from the first to the last and of a part of `paper`."""
    small = SMALL | {"iterations": (20, 20, 20)} if dry else {}
    settings = {
        "edge": dataclasses.replace(preset("edge"), **small),
        "paper, a part": dataclasses.replace(
            preset("paper"), **({"iterations": PAPER_STEPS} | (small and small | {"iterations": (20, 10, 0)}))
        ),
    }
    return {name: _training(config, "cpu" if dry else "cuda") for name, config in settings.items()}


def _training(config: Config, device: str) -> dict[str, Any]:
    """One training on a drawn weave; the steps between two reports count, those before a phase's first do not."""
    at: dict[str, list[tuple[int, float]]] = {}

    def told(phase: str, step: int, total: int, loss: float) -> None:
        at.setdefault(phase, []).append(
            (step, time.perf_counter())
        )  # a loss is read here: the steps are done

    waits = 0
    since = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as seen:
        good = Path(folder) / "good"
        good.mkdir()
        y, x = np.mgrid[:256, :256]
        for number in range(10):
            noise = np.random.default_rng(number).normal(0, 8, x.shape)
            weave = 128 + 50 * np.sin(x / 3 + number) * np.sin(y / 4) + noise
            Image.fromarray(weave.clip(0, 255).astype(np.uint8)).save(good / f"{number}.png")
        if device == "cuda":
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        try:
            training.train(good, Path(folder) / "model.fmr", config=config, device=device, progress=told)
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchroniz" in str(one.message) for one in seen)
    return {
        "steps": list(config.steps),
        "seconds": time.perf_counter() - since,
        "host_waits_in_all": waits,
        "step_seconds": {
            phase: (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])
            for phase, marks in at.items()
            if len(marks) > 1
        },
    }


def property_tests() -> int:
    """The exit code of the tests that run on a GPU."""
    workers = ["-n", "6"] if importlib.util.find_spec("xdist") else []
    tests = [
        *map(str, sorted(ROOT.glob("tests/test_fast_*.py"))),
        "tests/test_extremes.py",
        "tests/test_training.py",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "triton or gpu or cuda", *workers, *tests]
    deterministic = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # the tests ask for deterministic algorithms
    return subprocess.run(command, cwd=ROOT, env=os.environ | deterministic).returncode


if __name__ == "__main__":
    main()
