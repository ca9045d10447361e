"""The oracle for kernels that are written elsewhere: all that `fmrnet.fast` must pass, for a function of yours.

>>> from fmrnet import conformance
>>> conformance.check("rearrange_textons", my_function)  # doctest: +SKIP
>>> conformance.time("rearrange_textons", my_function)  # doctest: +SKIP

As a pytest plugin: ``pytest -p fmrnet.conformance --fmrnet-kernel mypackage.kernels:rearrange_textons``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fmrnet.extras import explained

if TYPE_CHECKING:
    from .checking import NotConforming, Outcome, check, outcomes, properties_of
    from .kernel import find
    from .timing import time
    from .tolerances import TOLERANCES

__all__ = ["TOLERANCES", "NotConforming", "Outcome", "check", "find", "outcomes", "properties_of", "time"]

pytest_plugins = ["fmrnet.conformance.plugin"]  # what `-p fmrnet.conformance` loads, too

_HOMES = {  # imported on first use: hypothesis is an extra, and torch takes its time
    "NotConforming": "checking",
    "Outcome": "checking",
    "check": "checking",
    "outcomes": "checking",
    "properties_of": "checking",
    "find": "kernel",
    "time": "timing",
    "TOLERANCES": "tolerances",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        raise explained(error) from None
