"""How long the fuzzers work: seconds, or as long as it takes with `FUZZ=long` in the environment (`make fuzz`)."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
usual = settings(deadline=None, suppress_health_check=UNHURRIED)  # in CI the same examples each time
settings.register_profile("quick", usual, max_examples=60)
settings.register_profile("long", usual, max_examples=50_000, derandomize=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The profile is for the tests of this folder alone, which take it as if decorated with it."""
    profile = settings.get_profile(os.environ.get("FUZZ", "quick"))
    own = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in own:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            profile(item.obj)
