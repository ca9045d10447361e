"""One call on a machine with a GPU: check every Triton kernel against the oracle and train a little, then time, then
write the JSON.

python bench/gpu.py [--out bench/results/microbench-gpu.json]
"""

from __future__ import annotations

import argparse
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
    tests = None
    if not options.no_tests:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-k",
            "triton or gpu",
            *map(str, sorted(ROOT.glob("tests/test_fast_*.py"))),
            "tests/test_training.py",
        ]
        tests = subprocess.run(command, cwd=ROOT).returncode
    torch.backends.cuda.matmul.allow_tf32 = False
    results, limits = [], ceilings("cuda")
    for result in measured("cuda", options.budget, limits=limits):
        print(table(result), flush=True)
        results.append(result)
    measures = {"device": "cuda", "ceilings": limits, "results": results}
    found = record() | {"property_tests_exit_code": tests} | measures
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows.write(options.out, found)
    print(f"\nwritten to {options.out}")
    wrong = [f"{r['function']}, {r['size']}: {r['failures']}" for r in found["results"] if r["failures"]]
    if tests or wrong:
        sys.exit(f"property tests: exit code {tests}; not in agreement with the oracle: {wrong}")


if __name__ == "__main__":
    main()
