"""Every fast function, in every backend that can run here, against the oracle, on a few drawn inputs: seconds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .tolerances import TOLERANCES

if TYPE_CHECKING:
    import torch

__all__ = ["Row", "run"]

Array = npt.NDArray[np.float64]


class Row(NamedTuple):
    """One comparison. `ok` is None where the backend cannot run; `note` then says why."""

    function: str
    backend: str
    dtype: str
    error: float  # largest difference from the oracle, NaN where nothing ran
    tolerance: float  # what is allowed there
    ok: bool | None
    note: str = ""


class _Case(NamedTuple):
    """A function and its arguments, arrays in float64 or int64; pictures as (B, C, H, W)."""

    title: str
    arguments: dict[str, Any]
    backends: tuple[str, ...] = ("eager", "numba", "triton")
    scale: float = 1.0


def run(seed: int = 0) -> list[Row]:
    """Compare every function, backend and dtype with the oracle on drawn data; a few seconds.

    Parameters
    ----------
    seed
        Of the data.

    Returns
    -------
    list of Row
        The installation is sound if no row has ``ok`` False.
    """
    return [
        _compare(case, backend, dtype)
        for case in _cases(np.random.default_rng(seed))
        for backend in case.backends
        for dtype in ("float32", "bfloat16" if backend == "triton" else "float64")
    ]


def _compare(case: _Case, backend: str, dtype: str) -> Row:
    import torch

    from fmrnet import fast

    from .kernel import named_results
    from .oracles import ORACLES

    name = case.title.partition(" ")[0]
    right = ORACLES[name](**_tensors(case.arguments, torch.float64))
    kind = getattr(torch, dtype)
    device = "cuda" if backend != "numba" and torch.cuda.is_available() else "cpu"
    arguments = _tensors(case.arguments, kind, device) | (
        {"backend": backend} if len(case.backends) > 1 else {}
    )
    try:
        results = named_results(name, getattr(fast, name)(**arguments))
    except fast.BackendUnavailable as reason:
        return Row(case.title, backend, dtype, np.nan, np.nan, None, str(reason))
    except Exception as fault:  # a broken compiler or driver is a finding, not the end of the check
        return Row(case.title, backend, dtype, np.nan, np.nan, False, f"{type(fault).__name__}: {fault}")
    limit = TOLERANCES[dtype]
    error, allowed, ok = 0.0, 0.0, True
    for result, expected in zip(results.values(), right.values()):
        off = np.abs(result.detach().to("cpu", torch.float64).numpy() - expected)
        limits = limit.rtol * np.abs(expected) + limit.atol * case.scale
        ok &= bool((off <= limits).all())  # False for NaN too
        worst = np.unravel_index(np.argmax(off), off.shape)  # the first NaN, if there is one
        if not off[worst] < error:
            error, allowed = float(off[worst]), float(limits[worst])
    return Row(case.title, backend, dtype, error, allowed, ok)


def _tensors(arguments: dict[str, Any], dtype: "torch.dtype", device: str = "cpu") -> dict[str, Any]:
    import torch

    return {
        name: torch.as_tensor(value).to(device, dtype if value.dtype == np.float64 else torch.int64)
        if isinstance(value, np.ndarray)
        else value
        for name, value in arguments.items()
    }


def _cases(rng: np.random.Generator) -> Iterator[_Case]:
    # the values are exact in bfloat16, so that every dtype computes on the same numbers
    def coarse(values: Array) -> Array:
        return np.round(values * 64) / 64

    skip, features = coarse(rng.normal(size=(2, 3, 5, 8, 8)).clip(-2, 2))
    textons = {"skip": skip, "memory_features": features}
    shared, dense = coarse(rng.uniform(-1, 1, (3, 3))), coarse(rng.uniform(-1, 1, (16, 16, 3, 3)))
    yield _Case("rearrange_textons", textons, scale=8.0)
    yield _Case("rearrange_textons shared mixing", textons | {"mixing": shared}, scale=8.0)
    yield _Case("rearrange_textons dense mixing", textons | {"mixing": dense}, scale=8.0)

    z, bank = coarse(rng.uniform(-2, 2, (6, 32))), coarse(rng.uniform(-2, 2, (10, 32)))
    yield _Case("nearest_distance", {"z": z, "memory": bank}, scale=10.0)
    shapes = {"w1": (8, 32), "b1": (8,), "w2": (10, 8), "b2": (10,)}
    weights = {name: coarse(rng.uniform(-1, 1, shape)) for name, shape in shapes.items()}
    yield _Case("address", {"z": z} | weights, ("eager",))
    yield _Case("recall", {"query": coarse(rng.dirichlet(np.ones(10), 6)), "memory": bank}, ("eager",), 2.0)

    image, other = coarse(rng.random((2, 2, 3, 23, 31)))
    origins = np.array([[r, c] for r in (0, 5, 10, 15) for c in (0, 5, 10, 15, 20, 23)])
    yield _Case("slice_patches", {"image": image[0], "size": 8, "stride": 5}, ("eager",))
    patches = coarse(rng.random((24, 3, 8, 8)))
    yield _Case("stitch_patches", {"patches": patches, "origins": origins, "shape": (23, 31)}, ("eager",))

    pair = {"image": image, "reconstruction": other}
    for name in ("gms", "ssim", "residual"):
        yield _Case(name, pair, ("eager",))
    for median in (0, 3):
        yield _Case(f"anomaly_map median {median}", pair | {"median": median})
    yield _Case("modality_maps", pair)

    seen = {"image": image, "background": other, "std": np.array([0.125, 0.25, 0.5])}
    yield _Case("without_light", seen)
    yield _Case("fusion_inputs", seen | {"mean": np.array([0.25, 0.5, 0.75])}, scale=8.0)

    shape = {
        "kind": np.arange(3),
        "grid": coarse(rng.random((3, 4, 4))),
        "line": np.array([[12.0, 10, 0.5, 9, 2, 16, 1]] * 3),
        "dots": np.array([[[8.0, 9, 4], [20, 12, 3]]] * 3),
        "level": np.array([0.5, -2, 0]),
        "edge": np.array([0.25, 1, 1]),
    }
    destructive, opacity = np.array([1.0, 0, 1]), np.array([0.5, 0.25, 0.75])
    image, source = coarse(rng.random((2, 3, 2, 20, 26)))
    yield _Case("support", {"shape": (20, 26)} | shape, ("eager",), 8.0)
    drawn = shape | {"destructive": destructive, "opacity": opacity}
    yield _Case("synthesize", {"image": image, "source": source} | drawn, scale=8.0)
    each = {"mask": destructive[:, None, None, None], "opacity": opacity[:, None, None, None]}
    yield _Case("blend", {"image": image, "anomaly": source} | each, ("eager",))
