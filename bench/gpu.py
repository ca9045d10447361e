"""One call on a machine with a GPU: time every Triton kernel that agrees with the oracle, write the JSON, then hold
the kernels to every property and train a little, side by side where pytest-xdist is there.

python bench/gpu.py [--out bench/results/microbench-gpu.json]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import rows
import torch
from record import record

from fmrnet.conformance.measure import ceilings, measured, table

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/microbench-gpu.json")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each candidate of a case")
    parser.add_argument(
        "--no-tests", action="store_true", help="skip the property tests; every line is compared still"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench/gpu.py needs a CUDA device and found none; nothing was measured and nothing written")
    warnings.simplefilter("ignore")
    torch.backends.cuda.matmul.allow_tf32 = False
    results, limits = [], ceilings("cuda")
    for result in measured("cuda", options.budget, limits=limits):
        print(table(result), flush=True)
        results.append(result)
    measures = {"device": "cuda", "ceilings": limits, "results": results}
    found = record() | {"property_tests_exit_code": None} | measures
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows.write(options.out, found)
    if not options.no_tests:
        found["property_tests_exit_code"] = property_tests()
        rows.write(options.out, found)
    print(f"\nwritten to {options.out}")
    wrong = [f"{r['function']}, {r['size']}: {r['failures']}" for r in found["results"] if r["failures"]]
    if found["property_tests_exit_code"] or wrong:
        sys.exit(
            f"property tests: exit code {found['property_tests_exit_code']}; "
            f"not in agreement with the oracle: {wrong}"
        )


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
