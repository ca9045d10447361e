"""Every fast function, in every backend that can run here, against the oracle.

The only module outside the tests and the benchmarks that imports `fmrnet.reference`.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["TOLERANCES", "Row", "Tolerance", "run"]

Array = npt.NDArray[np.float64]


class Tolerance(NamedTuple):
    """|fast - oracle| <= rtol * |oracle| + atol * scale, scale being the largest magnitude in play."""

    rtol: float
    atol: float
    reason: str


TOLERANCES = {
    "float64": Tolerance(1e-9, 1e-11, "same arithmetic in another order: thousands of roundings of 1e-16"),
    "float32": Tolerance(
        1e-4, 1e-5, "sums of thousands of terms rounded at 6e-8; SSIM divides a difference by C2 = 9e-4"
    ),
    "float16": Tolerance(4e-3, 2e-3, "inputs and results rounded at 5e-4, sums kept in float32"),
    "bfloat16": Tolerance(2e-2, 1e-2, "inputs and results rounded at 4e-3, sums kept in float32"),
}


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
    """A function, its arguments in float64, and what the oracle makes of them; pictures as (B, C, H, W)."""

    name: str
    tensors: dict[str, npt.NDArray[Any]]
    options: dict[str, Any]
    expected: list[Array]
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

    from . import fast

    kind = getattr(torch, dtype)
    device = "cuda" if backend != "numba" and torch.cuda.is_available() else "cpu"
    tensors = {
        name: torch.as_tensor(value).to(device, kind if value.dtype == np.float64 else torch.int64)
        for name, value in case.tensors.items()
    }
    chosen = {"backend": backend} if len(case.backends) > 1 else {}
    try:
        results = getattr(fast, case.name.partition(" ")[0])(**tensors, **case.options, **chosen)
    except fast.BackendUnavailable as reason:
        return Row(case.name, backend, dtype, np.nan, np.nan, None, str(reason))
    except Exception as fault:  # a broken compiler or driver is a finding, not the end of the check
        return Row(case.name, backend, dtype, np.nan, np.nan, False, f"{type(fault).__name__}: {fault}")
    error, allowed, ok = 0.0, 0.0, True
    for result, expected in zip(results if isinstance(results, tuple) else (results,), case.expected):
        off, limit = _difference(result, expected, TOLERANCES[dtype], case.scale)
        ok &= bool((off <= limit).all())  # False for NaN too
        worst = np.unravel_index(np.argmax(off), off.shape)  # the first NaN, if there is one
        if not off[worst] < error:
            error, allowed = float(off[worst]), float(limit[worst])
    return Row(case.name, backend, dtype, error, allowed, ok)


def _difference(
    result: "torch.Tensor", expected: Array, limit: Tolerance, scale: float
) -> tuple[Array, Array]:
    import torch

    off = np.abs(result.detach().to("cpu", torch.float64).numpy() - expected)
    return off, limit.rtol * np.abs(expected) + limit.atol * scale


def _cases(rng: np.random.Generator) -> Iterator[_Case]:
    from .reference import fusion, memory, patches, synthesis, textons

    # the values are exact in bfloat16, so that every dtype computes on the same numbers
    def coarse(values: Array) -> Array:
        return np.round(values * 64) / 64

    skip, features = coarse(rng.normal(size=(2, 3, 5, 8, 8)).clip(-2, 2))
    for kind, mixing in (
        ("", None),
        ("shared mixing", coarse(rng.uniform(-1, 1, (3, 3)))),
        ("dense mixing", coarse(rng.uniform(-1, 1, (16, 16, 3, 3)))),
    ):
        rearranged = _each(lambda s, f, k=mixing: textons.rearrange_textons(s, f, mixing=k), skip, features)
        tensors = {"skip": skip, "memory_features": features} | ({} if mixing is None else {"mixing": mixing})
        yield _Case(f"rearrange_textons {kind}".strip(), tensors, {}, [rearranged], scale=8.0)

    z, bank = coarse(rng.uniform(-2, 2, (6, 32))), coarse(rng.uniform(-2, 2, (10, 32)))
    nearest = [memory.nearest_distance(row, bank) for row in z]
    right = [np.array([d for d, _ in nearest]), np.array([float(i) for _, i in nearest])]
    yield _Case("nearest_distance", {"z": z, "memory": bank}, {}, right, scale=10.0)

    weights = {
        name: coarse(rng.uniform(-1, 1, shape))
        for name, shape in (("w1", (8, 32)), ("b1", (8,)), ("w2", (10, 8)), ("b2", (10,)))
    }
    query = _each(lambda row: memory.address(row, **weights), z)
    yield _Case("address", {"z": z} | weights, {}, [query], ("eager",))
    weighted = coarse(query)
    recalled = _each(lambda row: memory.recall(row, bank), weighted)
    yield _Case("recall", {"query": weighted, "memory": bank}, {}, [recalled], ("eager",), 2.0)

    image, other = coarse(rng.random((2, 2, 3, 23, 31)))
    cut, origins = patches.slice_patches(_last(image[0]), 8, 5)
    first = np.ascontiguousarray(cut.transpose(0, 3, 1, 2))
    options: dict[str, Any] = {"size": 8, "stride": 5}
    yield _Case("slice_patches", {"image": image[0]}, options, [first, origins.astype(float)], ("eager",))
    put = {"patches": first, "origins": origins}
    yield _Case("stitch_patches", put, {"shape": (23, 31)}, [image[0]], ("eager",))

    pair = {"image": image, "reconstruction": other}
    for name in ("gms", "ssim", "residual"):
        oracle: Callable[..., Array] = getattr(fusion, name)
        maps = _each(lambda x, y, f=oracle: f(_last(x), _last(y)), image, other)
        yield _Case(name, pair, {}, [maps], ("eager",))
    for median in (0, 3):
        fused = _each(lambda x, y, m=median: fusion.anomaly_map(_last(x), _last(y), median=m), image, other)
        yield _Case(f"anomaly_map median {median}", pair, {"median": median}, [fused])

    drawn = {
        "grid": coarse(rng.random((3, 4, 4))),
        "line": np.array([[12.0, 10, 0.5, 9, 2, 16, 1]] * 3),
        "dots": np.array([[[8.0, 9, 4], [20, 12, 3]]] * 3),
        "level": np.array([0.5, -2, 0]),
        "edge": np.array([0.25, 1, 1]),
        "destructive": np.array([1.0, 0, 1]),
        "opacity": np.array([0.5, 0.25, 0.75]),
    }
    image, source = coarse(rng.random((2, 3, 2, 20, 26)))
    kinds = np.arange(3)
    made = []
    for i in range(3):
        one = {key: value[i] if value[i].ndim else float(value[i]) for key, value in drawn.items()}
        made.append(synthesis.synthesize(_last(image[i]), _last(source[i]), kind=i, **one))
    right = [np.stack([picture.transpose(2, 0, 1) for picture, _ in made]), np.stack([s for _, s in made])]
    yield _Case("synthesize", {"image": image, "source": source, "kind": kinds} | drawn, {}, right, scale=8.0)


def _each(oracle: Callable[..., Any], *batches: Array) -> Array:
    return np.stack([oracle(*items) for items in zip(*batches)])


def _last(picture: Array) -> Array:
    """(C, H, W) -> (H, W, C), as the oracle takes pictures."""
    return picture.transpose(1, 2, 0)
