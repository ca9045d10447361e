"""Time a function beside ours and the peers, after it has passed the check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fmrnet.devices import choose_device
from fmrnet.errors import ConfigError

from .cases import FUNCTIONS
from .checking import check
from .kernel import check_name
from .measure import ceilings, measured, table

__all__ = ["time"]


def time(
    name: str,
    function: Callable[..., Any],
    *,
    device: str = "cpu",
    budget: float = 1.0,
    only: str = "",
    label: str = "yours",
    show: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Check a function in float32, then time it at every size beside ours and what one would use instead.

    Parameters
    ----------
    name
        Of "anomaly_map", "fusion_inputs", "nearest_distance", "rearrange_textons", "synthesize" and "without_light".
    function
        As for `check`.
    device
        "cpu" or "cuda".
    budget
        Seconds for each candidate of a case.
    only
        Only sizes whose name contains this, such as "512 x 512".
    label
        What it is called in the tables.
    show
        Is given the table of each case when it is done.

    Returns
    -------
    dict
        ``device``, ``ceilings`` of the machine, and ``results``: a dict for each case.

    Raises
    ------
    NotConforming
        The function does not pass the check; nothing was timed.
    ConfigError
        There is no case of this name and size.
    """
    check_name(name)
    if name not in FUNCTIONS:
        raise ConfigError(f"{name} has no cases to time; known: {', '.join(FUNCTIONS)}")
    kind = choose_device(device).type
    check(name, function, device=device)
    limits = ceilings(kind)
    results = []
    for found in measured(kind, budget, only, name, limits=limits, kernel=(label, function)):
        results.append(found)
        show(table(found))
    if not results:
        raise ConfigError(f"{name} has no case like {only!r}")
    return {"device": kind, "ceilings": limits, "results": results}
