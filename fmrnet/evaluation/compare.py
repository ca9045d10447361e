"""Two results of `fmrnet evaluate` on the same pictures: what differs, and whether others could say otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fmrnet.errors import DatasetError
from fmrnet.evaluation import resampling
from fmrnet.evaluation.examples import GOOD, few

__all__ = ["compare"]

Result = dict[str, Any]


def compare(first: str | Path, second: str | Path) -> dict[str, Any]:
    """The differences of two results, second less first, each with the interval of a paired bootstrap.

    Both were resampled alike (`fmrnet.evaluation.resampling`), so that the replicates of one stand beside those of the
    other on the same draws of pictures.

    Parameters
    ----------
    first, second : files that `fmrnet evaluate` has written

    Returns
    -------
    `results` (the files), `figures` (by part and name: `first`, `second`, `difference`, `interval`, which is None
    where a figure has none, and `differs`, whether 0 lies outside of it), `verdicts` (pictures whose verdict only one
    of them has right, by name)

    Raises
    ------
    DatasetError : a file is no such result, or the two are of other pictures or other masks.
    """
    paths = Path(first), Path(second)
    one, other = (_read(path) for path in paths)
    _check_same(one, other, paths)
    try:
        drawn = [resampling.replicates(result["resampling"]) for result in (one, other)]
    except (KeyError, AttributeError, ValueError) as error:
        raise DatasetError(
            f"{paths[0]} and {paths[1]} cannot be compared: {error}; evaluate both anew"
        ) from None
    figures = {}
    for part in ("picture", "patch_level", "pixel"):
        for name, value in one[part].items():
            found = other[part].get(name)
            if not isinstance(value, float) or not isinstance(found, float):
                continue
            key = f"{part}.{name}"
            interval = None
            if all(key in replicates for replicates in drawn):
                interval = resampling.interval(drawn[1][key] - drawn[0][key])
            figures[key] = {
                "first": value,
                "second": found,
                "difference": found - value,
                "interval": interval,
                "differs": interval is not None and not interval[0] <= 0 <= interval[1],
            }
    return {
        "fmrnet": one["fmrnet"],
        "results": [str(path) for path in paths],
        "figures": figures,
        "verdicts": _verdicts(one, other),
    }


def _read(path: Path) -> Result:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        content = None
    expected = {"fmrnet", "picture", "patch_level", "pixel", "each", "resampling"}
    if (
        not isinstance(content, dict)
        or not expected <= content.keys()
        or not isinstance(content["each"], list)
    ):
        raise DatasetError(f"{path} is no result of `fmrnet evaluate --out`")
    return content


def _check_same(one: Result, other: Result, paths: tuple[Path, Path]) -> None:
    """Raise DatasetError unless both results are of the same pictures with the same truth."""
    try:
        seen, also = (
            {
                entry["picture"]: (entry["sha256"], entry["class"], entry["truth_sha256"])
                for entry in result["each"]
            }
            for result in (one, other)
        )
    except (KeyError, TypeError):
        raise DatasetError(
            f"{paths[0]} or {paths[1]} does not say which pictures it is of; evaluate anew"
        ) from None
    for names, (has, lacks) in ((seen.keys() - also.keys(), paths), (also.keys() - seen.keys(), paths[::-1])):
        if names:
            raise DatasetError(
                f"{has} holds {len(names)} pictures that {lacks} does not: {few(sorted(names), 3)}; "
                "only results of the same pictures are compared"
            )
    for place, what in enumerate(("other pictures of the same names", "other classes", "other masks")):
        if changed := sorted(name for name in seen if seen[name][place] != also[name][place]):
            raise DatasetError(
                f"{paths[0]} and {paths[1]} are of {what}: {few(changed, 3)}; evaluate both on the same"
            )


def _verdicts(one: Result, other: Result) -> dict[str, list[str]]:
    """Pictures whose verdict one of the two has right alone."""
    also = {entry["picture"]: entry["defective"] for entry in other["each"]}
    changed = [entry for entry in one["each"] if entry["defective"] != also[entry["picture"]]]
    right = {entry["picture"]: entry["defective"] == (entry["class"] != GOOD) for entry in changed}
    return {
        "only_first_right": sorted(name for name, first in right.items() if first),
        "only_second_right": sorted(name for name, first in right.items() if not first),
    }
