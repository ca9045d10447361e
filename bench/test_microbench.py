"""The same registry through pytest-benchmark: `pytest bench/test_microbench.py --benchmark-enable -k anomaly`."""

from __future__ import annotations

import warnings

import pytest

from fmrnet.conformance.cases import Candidate, Case, cases

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    EVERY = [(case, candidate) for case in cases("cpu") for candidate in case.candidates("cpu")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("case", "candidate"), EVERY, ids=[f"{c.title}-{c.size}-{k.name}" for c, k in EVERY])
def test_microbench(benchmark, case: Case, candidate: Candidate) -> None:
    """Compared with the oracle, then timed."""
    if candidate.agrees is not None:
        candidate.agrees(candidate.call())
    benchmark.group = f"{case.title}, {case.size}"
    benchmark(candidate.call)
