"""How long the fuzzers work: seconds, or as long as it takes with `FUZZ=long` in the environment (`make fuzz`)."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("quick", deadline=None, suppress_health_check=UNHURRIED, max_examples=100)
settings.register_profile(
    "long",
    deadline=None,
    suppress_health_check=UNHURRIED,
    max_examples=50_000,
    phases=set(Phase) - {Phase.explain},
)


@pytest.fixture(scope="module", autouse=True)
def how_long() -> Iterator[None]:
    """The profile of every fuzzer in this folder; the tests elsewhere keep theirs."""
    before = settings.get_current_profile_name()
    settings.load_profile(os.environ.get("FUZZ", "quick"))
    yield
    settings.load_profile(before)
