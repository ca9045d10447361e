"""Run the properties of a function against a kernel, and shrink what fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from fmrnet.devices import choose_device
from fmrnet.errors import ConfigError

from . import fusion, learned_fusion, memory, patches, synthesis, textons
from .kernel import Kernel, Unsupported, check_name
from .message import explained
from .properties import EVERY, Property
from .tolerances import Mismatch

__all__ = ["NotConforming", "Outcome", "check", "outcomes", "properties_of", "run"]

ALL = [
    *textons.PROPERTIES,
    *fusion.PROPERTIES,
    *learned_fusion.PROPERTIES,
    *memory.PROPERTIES,
    *patches.PROPERTIES,
    *synthesis.PROPERTIES,
]
SHRINKING = 20.0  # seconds for making a failing input smaller


class NotConforming(AssertionError):
    """A function that does not do what `fmrnet.fast`'s does; the message shows the smallest failing input."""


@dataclass(frozen=True)
class Outcome:
    """What became of one property in one dtype. `ok` is None where the kernel refuses; `note` then says why."""

    property: Property
    dtype: str
    ok: bool | None
    note: str = ""  # of a failure: one line
    message: str = ""  # of a failure: everything
    seconds: float = 0.0


class _Enough(BaseException):
    """Shrinking has taken long enough. Not an Exception: hypothesis would take it for another failure."""


def properties_of(
    name: str, dtypes: Sequence[str] = ("float32",), only: str = "", gradients: bool | None = None
) -> list[tuple[Property, str]]:
    """What is asked of ``fmrnet.fast.<name>`` in these dtypes, those whose name contains `only`."""
    check_name(name)
    unknown = [dtype for dtype in dtypes if dtype not in EVERY]
    if unknown or not dtypes:
        raise ConfigError(f"dtypes {', '.join(dtypes) or 'none'}: expected one or more of {', '.join(EVERY)}")
    return [
        (prop, dtype)
        for dtype in dtypes
        for prop in ALL
        if prop.function == name
        and dtype in prop.dtypes
        and only.replace(" ", "_") in prop.name
        and (gradients is not False or not prop.gradients)
    ]


def check(
    name: str,
    function: Callable[..., Any],
    *,
    device: str = "cpu",
    dtypes: Sequence[str] = ("float32",),
    options: Mapping[str, Sequence[Any]] | None = None,
    gradients: bool | None = None,
    only: str = "",
    small: bool = False,
    examples: float = 1.0,
    seed: int = 0,
) -> list[Outcome]:
    """Hold a function to all that `fmrnet.fast.<name>` must pass.

    Parameters
    ----------
    name
        The function of `fmrnet.fast` that it stands in for.
    function
        Takes the same tensors in the same order. Options that it does not have stay at their defaults. Calls that
        it does not support it refuses with NotImplementedError; at least one must be left.
    device
        "cpu", "cuda" or "cuda:N".
    dtypes
        Of "float64", "float32", "bfloat16", "float16"; tolerances are those of `TOLERANCES`.
    options
        The values to try of an option instead of all known, such as ``{"size": (2,), "mixing": (None, "shared")}``.
    gradients
        True: it must have them. False: they are not looked at. None: they are checked if it has any.
    only
        Only properties whose name contains this.
    small
        Draw small inputs only, for kernels that run in an interpreter.
    examples
        A factor on the number of drawn inputs.
    seed
        Of the drawn inputs: the same seed draws the same.

    Returns
    -------
    list of Outcome
        One a property and dtype, none with ``ok`` False.

    Raises
    ------
    NotConforming
        A property does not hold; the message shows the smallest failing input that was found. All are tried.
    ConfigError
        A name, device, dtype or option that is not known.
    """
    options_ = dict(options or {})
    found = list(
        outcomes(
            name,
            function,
            device=device,
            dtypes=dtypes,
            options=options_,
            gradients=gradients,
            only=only,
            small=small,
            examples=examples,
            seed=seed,
        )
    )
    failed = [outcome for outcome in found if outcome.ok is False]
    if failed:
        others = [f"  {o.property.name} [{o.dtype}]: {o.note}" for o in failed[1:]]
        raise NotConforming("\n".join([failed[0].message, *(["also:", *others] if others else [])]))
    return found


def outcomes(
    name: str,
    function: Callable[..., Any],
    *,
    device: str = "cpu",
    dtypes: Sequence[str] = ("float32",),
    options: Mapping[str, Sequence[Any]] | None = None,
    gradients: bool | None = None,
    only: str = "",
    small: bool = False,
    examples: float = 1.0,
    seed: int = 0,
) -> Iterator[Outcome]:
    """As `check`, but one outcome after the other, failures among them."""
    asked = properties_of(name, dtypes, only, gradients)
    if not asked:
        raise ConfigError(f"{name} has no property like {only!r} in {', '.join(dtypes)}")
    place = choose_device(device)
    kernels = {
        dtype: Kernel(
            name, function, device=place, dtype=dtype, options=options, gradients=gradients, small=small
        )
        for dtype in dtypes
    }
    compared = set()
    for prop, dtype in asked:
        outcome = run(prop, kernels[dtype], examples=examples, seed=seed)
        compared |= {dtype} if outcome.ok is not None else set()
        yield outcome
    for dtype in set(dtypes) - compared:
        note = "it refused every call: nothing was compared"
        prop = next(prop for prop, other in asked if other == dtype)
        yield Outcome(prop, dtype, False, note, f"{name} in {dtype}: {note}")


def run(
    prop: Property,
    kernel: Kernel,
    *,
    examples: float = 1.0,
    seed: int = 0,
) -> Outcome:
    """Try one property on drawn inputs, and make an input that fails as small as 20 seconds allow."""
    start = time.perf_counter()
    dtype = str(kernel.dtype).removeprefix("torch.")
    tried, refusals = 0, list[str]()
    smallest: list[tuple[int, Mismatch, dict[str, Any]]] = []
    first_failure = 0.0

    @hypothesis.seed(seed)
    @settings(
        max_examples=max(1, round(prop.examples * examples)),
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(st.data())
    def holds(data: DataObject) -> None:
        nonlocal tried, first_failure
        if smallest and time.perf_counter() - first_failure > SHRINKING:
            raise _Enough
        tried += 1
        try:
            prop.holds(kernel, data)
        except Unsupported as reason:
            refusals.append(str(reason))
        except Mismatch as mismatch:
            first_failure = first_failure or time.perf_counter()
            size = _numbers(kernel.arguments)
            if not smallest or size <= smallest[0][0]:
                smallest[:] = [(size, mismatch, kernel.arguments)]
            raise

    try:
        holds()
    except (Mismatch, _Enough):
        _, mismatch, arguments = smallest[0]
        message = explained(prop, kernel, mismatch, arguments, seed)
        seconds = time.perf_counter() - start
        return Outcome(prop, dtype, False, str(mismatch), message, seconds)
    seconds = time.perf_counter() - start
    if tried and len(refusals) == tried:
        return Outcome(prop, dtype, None, f"refused: {refusals[0]}", seconds=seconds)
    note = f"{len(refusals)} of {tried} refused: {refusals[0]}" if refusals else ""
    return Outcome(prop, dtype, True, note, seconds=seconds)


def _numbers(arguments: Mapping[str, Any]) -> int:
    return sum(value.numel() for value in arguments.values() if isinstance(value, torch.Tensor))
