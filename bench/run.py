"""`make bench`: the microbenchmarks on this machine's CPU, written to bench/results/microbench-cpu.json."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path

import rows
from record import record

from fmrnet.conformance.measure import ceilings, measured, table

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], help='cases whose name contains one of these, such as "512 x 512"'
    )
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each candidate of a case")
    parser.add_argument("--out", type=Path, default=RESULTS / "microbench-cpu.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results, limits = [], ceilings("cpu")
    for only in options.only:
        for result in measured("cpu", options.budget, only, limits=limits):
            print(table(result), flush=True)
            results.append(result)
    measures = {"device": "cpu", "ceilings": limits, "results": results}
    found = record() | {"panel_memory": _panel_memory()} | measures
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows.write(options.out, found)
    print(f"\nwritten to {options.out}")
    wrong = [f"{r['function']}, {r['size']}: {name}" for r in found["results"] for name in r["failures"] if name in
             ("eager", "numba")]  # fmt: skip
    if wrong:
        sys.exit(f"these do not agree with the oracle: {wrong}")


def _panel_memory() -> dict[str, int]:
    """From a process of its own: the peak is of a process's whole life."""
    script = str(Path(__file__).with_name("memory.py"))
    found: dict[str, int] = json.loads(subprocess.check_output([sys.executable, script]))
    return found


if __name__ == "__main__":
    main()
