"""Our own backends through the conformance kit: the same properties that kernels from elsewhere are held to."""

from __future__ import annotations

import os
import random
from functools import partial

import pytest
import torch
from conftest import device_of

from fmrnet import fast
from fmrnet.conformance.checking import properties_of, run
from fmrnet.conformance.kernel import Kernel
from fmrnet.conformance.properties import Property

__all__ = ["EAGER", "EVERY", "conforming", "hold", "kernel_of", "one"]

ALL = ("float64", "float32", "bfloat16", "float16")
EVERY = {"eager": ALL, "numba": ALL, "triton": ALL[1:]}
EAGER = {"eager": ALL[:2]}  # of functions that have no other backend
LONG = {  # with a kernel that is interpreted, and has a quicker one beside it
    "symmetric_and_in_range",
    "median_matches_the_oracle",
    "matches_the_oracle_on_large_pictures",
    "gradients_agree_on_large_pictures",
    "nearest_of_many_is_never_swapped",
    "repeats_to_the_last_bit",  # and an interpreter has no threads that could come in another order
}
COMPILED = ("anomaly_map", "modality_maps", "without_light", "fusion_inputs")  # at length
SEED = 0 if os.environ.get("CI") else random.randrange(2**16)  # other inputs each time; a failure shows which


def conforming(name: str, backends: dict[str, tuple[str, ...]] = EVERY) -> pytest.MarkDecorator:
    """A test for each backend, dtype and property of a function: ids like ``eager-float32-matches_the_oracle``."""
    every = [
        pytest.param(
            backend, dtype, prop, id=f"{backend}-{dtype}-{prop.name}", marks=_slow(name, backend, dtype, prop)
        )
        for backend, dtypes in backends.items()
        for prop, dtype in properties_of(name, dtypes)
    ]
    return pytest.mark.parametrize(("backend", "dtype", "prop"), every)


def _slow(name: str, backend: str, dtype: str, prop: Property) -> list[pytest.MarkDecorator]:
    """What takes long: kernels that numba compiles once more for float64, and Triton's interpreter without a GPU.

    The interpreter computes in float32 whatever the dtype; the modality maps are those of the anomaly map's kernel, and
    strong light is a harder case than any for what takes the light away.
    """
    interpreted = backend == "triton" and not torch.cuda.is_available()
    long = dtype != "float32" or name == "modality_maps" or prop.name in LONG
    long = long or (name, prop.name) == ("without_light", "matches_the_oracle")
    compiled = backend == "numba" and dtype == "float64" and name in COMPILED
    return [pytest.mark.slow] if (interpreted and long) or compiled else []


def kernel_of(name: str, backend: str, dtype: str, *, gradients: bool | None = True) -> Kernel:
    """One of our backends; without a GPU Triton's interpreter runs it, and draws are small."""
    function = getattr(fast, name)
    chosen = partial(function, backend=backend) if "backend" in function.__code__.co_varnames else function
    small = backend == "triton" and not torch.cuda.is_available()
    return Kernel(name, chosen, device=device_of(backend), dtype=dtype, gradients=gradients, small=small)


def one(name: str, prop: str) -> Property:
    """A property by its name."""
    return next(p for p, _ in properties_of(name, ("float32",)) if p.name == prop)


def hold(prop: Property, kernel: Kernel, *, may_refuse: bool = False) -> None:
    """Fail unless the property holds, and unless the kernel takes the calls that it needs.

    Kernels of numba divide their loops among as many threads as torch has, and get two: one has nothing to divide.
    """
    examples = (0.5 if kernel.small else 1.0) * (1.0 if kernel.dtype is torch.float32 else 0.5)
    threads = torch.get_num_threads()
    if getattr(kernel.function, "keywords", {}).get("backend") == "numba":
        torch.set_num_threads(max(threads, 2))
    try:
        outcome = run(prop, kernel, seed=SEED, examples=max(examples, 0.4))
    finally:
        torch.set_num_threads(threads)
    if outcome.ok is None and may_refuse:
        pytest.skip(outcome.note)
    assert outcome.ok, outcome.message or outcome.note
