"""Whether an engine says on this machine what PyTorch said where the graphs were made: pictures of noise with answers.

The answers lie in the model file. On a machine of the kind on which every engine was compared nothing is asked; on
another kind an engine is asked once, and what it was off by is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.artifact import Artifact
from fmrnet.engines.agreement import compared
from fmrnet.engines.engine import Engine
from fmrnet.errors import ArtifactError
from fmrnet.files import cache_folder, write_json

__all__ = ["answers", "difference", "machine", "off_here", "pictures"]

SIZES = ((96, 128), (101, 150))  # pixels of the pictures
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "i8mm", "bf16")
MOST_ANSWERS = 16  # of a picture: more than any model has


def pictures(channels: int, weights: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Noise as bright and as rough as a model's good pictures: (C, H, W) in [0, 1] each, in steps of 8 bits."""
    scale, centre = (weights[name][:, None, None].astype(np.float64) for name in ("std", "mean"))
    found = []
    for number, size in enumerate(SIZES):
        noise = np.random.default_rng(number).normal(0, 1, (channels, *size)) * scale + centre
        found.append((noise.clip(0, 1) * 255).round().astype(np.float32) / np.float32(255))
    return found


def answers(engine: Engine, given: Sequence[NDArray[np.float32]]) -> list[list[float]]:
    """The typical distance and the greatest of each reading of each picture, at both levels; a mask, too, is tried."""
    found = []
    for number, picture in enumerate(given):
        inside = np.tri(*picture.shape[1:], dtype=np.bool_) if number else None
        seen = engine.glance(picture, inside)
        readings = (seen.readings, engine.compare(seen).readings)
        greatest = [one.max() for several in readings for one in several]
        found.append([float(f"{value:.7g}") for value in (seen.typical, *greatest)])
    return found


def difference(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    """By how much answers differ, of greater ones as a share of them; infinity if there are not as many."""
    if [len(one) for one in found] != [len(one) for one in expected]:
        return math.inf
    pairs = zip((value for one in found for value in one), (value for one in expected for value in one))
    return max((abs(mine - right) / max(1.0, right) for mine, right in pairs), default=math.inf)


def off_here(
    content: Artifact, name: str, make: Callable[[], Engine], here: str | None = None
) -> float | None:
    """By how much an engine's answers here differ from the model file's; None if it was compared on such a machine.

    None, too, if the file has no answers. What was found is remembered for this model, machine and release of the
    engine.

    Parameters
    ----------
    content : with graphs.
    name : the engine, one of `fmrnet.engines.choice.ENGINES`.
    make : makes it.
    here : the kind of machine, if it is not what `machine` says, such as a GPU.

    Raises
    ------
    ArtifactError : the answers are none, or as `make`.
    """
    about = content.provenance.get("graphs")
    if not isinstance(about, Mapping) or "answers" not in about:
        return None
    expected, here = _checked(about["answers"]), here or machine(name)
    if compared(content.provenance, name)[1] == here:
        return None
    key = hashlib.sha256(json.dumps([expected, here], sort_keys=True).encode())
    for graph in content.graphs.values():
        key.update(graph.template)
    kept = cache_folder() / f"answers-{key.hexdigest()[:32]}.json"
    if (known := _remembered(kept)) is not None:
        return known
    given = pictures(content.config.image_channels, content.weights)
    off = min(difference(answers(make(), given), expected), 1e9)
    with suppress(OSError, ArtifactError):  # then it is asked again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"engine": here, "difference": off})
    return off


@cache
def machine(runtime: str) -> str:
    """The kind of machine that computes: processor, what of its instruction set matters here, release of the engine."""
    from importlib.metadata import version

    name, flags = platform.processor() or platform.machine(), set()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            field, _, value = (part.strip() for part in line.partition(":"))
            if field == "model name":
                name = value
            elif field in ("flags", "Features"):
                flags = set(value.split())
                break
    features = " ".join(one for one in FEATURES if one in flags)
    return ", ".join(part for part in (name, features, f"{runtime} {version(runtime)}") if part)


def _checked(found: Any) -> list[list[float]]:
    """The answers as they are stored; ArtifactError if they are none."""
    lists = isinstance(found, list) and len(found) == len(SIZES)
    if not lists or not all(
        isinstance(one, list)
        and len(one) <= MOST_ANSWERS
        and all(type(value) in (int, float) and math.isfinite(value) for value in one)
        for one in found
    ):
        raise ArtifactError(
            "the answers for checking engines are damaged; make the graphs anew with `fmrnet graphs`"
        )
    return [[float(value) for value in one] for one in found]


def _remembered(path: Path) -> float | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        off = json.loads(path.read_text())["difference"]
        if type(off) in (int, float) and off >= 0:
            return float(off)
    return None
