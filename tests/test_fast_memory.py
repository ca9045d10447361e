"""`fast.nearest_distance` in every backend, addressing, recall and patches, against the oracle."""

import numpy as np
import pytest
import torch
from conftest import device_of
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import fill, seeds, values
from tolerances import assert_close
from torch import Tensor
from torch.autograd import gradcheck

from fmrnet import fast
from fmrnet.fast import memory as fast_memory
from fmrnet.reference import memory as oracle
from fmrnet.reference import patches as patch_oracle

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")

DTYPES = {
    "eager": [torch.float64, torch.float32, torch.bfloat16, torch.float16],
    "numba": [torch.float64, torch.float32, torch.bfloat16, torch.float16],
    "triton": [torch.float32, torch.bfloat16, torch.float16],
}


def on(backend: str, data: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(data).to(device_of(backend), dtype)


def rounded(data: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.as_tensor(data).to(dtype).double().numpy()


def check(z: np.ndarray, memory: np.ndarray, distance: Tensor, index: Tensor, dtype: torch.dtype) -> None:
    """The distance is the oracle's; the entry named lies at that distance (of equal ones any will do)."""
    right = np.array([oracle.nearest_distance(row, memory)[0] for row in z]).reshape(len(z))
    scale = 1e-2 * max(np.abs(z).max(initial=0), np.abs(memory).max())
    assert_close(distance, right, dtype=dtype, scale=max(scale, right.max(initial=0)))
    named = np.linalg.norm(z - memory[index.cpu().numpy()], axis=1)
    assert index.dtype == torch.int64
    assert_close(torch.as_tensor(named), right, dtype=torch.float32, scale=max(scale, right.max(initial=0)))


@given(data=st.data())
def test_nearest_matches_oracle(backend: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES[backend]), "dtype")
    count, entries = data.draw(st.integers(0, 70), "B"), data.draw(st.integers(1, 70), "L")
    length = data.draw(st.sampled_from((1, 2, 17, 130)), "K")
    seed = data.draw(seeds, "seed")
    z = fill(data.draw(values), (count, length), seed)
    memory = fill(data.draw(values), (entries, length), seed + 1)
    if count and data.draw(st.booleans(), "latents on and beside entries"):
        near = np.random.default_rng(seed).integers(entries, size=count)
        z = memory[near] + 1e-3 * (np.arange(count) % 2)[:, None] * z
    z, memory = rounded(z, dtype), rounded(memory, dtype)
    distance, index = fast.nearest_distance(
        on(backend, z, dtype), on(backend, memory, dtype), backend=backend
    )
    assert distance.dtype == dtype
    check(z, memory, distance, index, dtype)


def test_nearest_where_rounding_cannot_tell(backend: str) -> None:
    """Entries far from 0 and close together: |z|^2 - 2 z.m + |m|^2 in float32 is all rounding."""
    memory = rounded(100 + 1e-3 * fill("normal", (40, 64), 1), torch.float32)
    memory[7] = memory[3]
    z = rounded(memory[[3, 20, 39]] + 1e-4 * fill("normal", (3, 64), 2), torch.float32)
    distance, index = fast.nearest_distance(
        on(backend, z, torch.float32), on(backend, memory, torch.float32), backend=backend
    )
    right = [oracle.nearest_distance(row, memory) for row in z]
    assert_close(distance, [d for d, _ in right], dtype=torch.float32)
    assert index.tolist()[1:] == [i for _, i in right[1:]]
    assert index.tolist()[0] in (3, 7)


def test_nearest_of_pairs_far_apart_and_close_together(backend: str) -> None:
    """Two entries differ by less than the products' rounding in float32: only exact differences tell them apart."""
    bases = 10 * fill("normal", (40, 64), 1)
    memory = rounded(np.concatenate([bases, bases + 1e-4 * fill("normal", (40, 64), 2)]), torch.float32)
    z = rounded(memory + 2e-5 * fill("normal", (80, 64), 3), torch.float32)
    distance, index = fast.nearest_distance(
        on(backend, z, torch.float32), on(backend, memory, torch.float32), backend=backend
    )
    assert index.tolist() == list(range(80))
    assert_close(distance, np.linalg.norm(z - memory, axis=1), dtype=torch.float32)


def test_nearest_of_many_is_never_swapped(backend: str) -> None:
    """Among 300 entries the two nearest are often closer than the rounding of bfloat16 products."""
    z = rounded(fill("normal", (600, 64), 1), torch.float32)
    memory = rounded(fill("normal", (300, 64), 2), torch.float32)
    distance, index = fast.nearest_distance(
        on(backend, z, torch.float32), on(backend, memory, torch.float32), backend=backend
    )
    right, nearest = zip(*(oracle.nearest_distance(row, memory) for row in z))
    assert index.tolist() == list(nearest)
    assert_close(distance, right, dtype=torch.float32)


def test_nearest_in_chunks(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmrnet.fast import _memory_numba

    for module in (fast_memory, _memory_numba):
        monkeypatch.setattr(module, "CHUNK", 60)
    z, memory = fill("normal", (31, 6), 1), fill("normal", (20, 6), 2)
    distance, index = fast.nearest_distance(
        on(backend, z, torch.float32), on(backend, memory, torch.float32), backend=backend
    )
    check(rounded(z, torch.float32), rounded(memory, torch.float32), distance, index, torch.float32)


def test_nearest_strided(backend: str) -> None:
    z, memory = fill("normal", (9, 20), 1), fill("normal", (6, 20), 2)
    tensors = [on(backend, np.asfortranarray(x), torch.float32).T.contiguous().T for x in (z, memory)]
    distance, index = fast.nearest_distance(tensors[0][::2, ::3], tensors[1][:, ::3], backend=backend)
    check(
        rounded(z[::2, ::3], torch.float32),
        rounded(memory[:, ::3], torch.float32),
        distance,
        index,
        torch.float32,
    )


def test_nearest_gradients(backend: str) -> None:
    dtype = torch.float32 if backend == "triton" else torch.float64
    z = on(backend, fill("normal", (5, 4), 1), dtype).requires_grad_()
    memory = on(backend, fill("normal", (3, 4), 2), dtype).requires_grad_()
    if backend != "triton":
        assert gradcheck(lambda z, m: fast.nearest_distance(z, m, backend=backend)[0], (z, memory))
    distance = fast.nearest_distance(z, memory, backend=backend)[0]
    found = torch.autograd.grad(distance.square().sum(), (z, memory))
    right = torch.autograd.grad(torch.cdist(z, memory).min(1)[0].square().sum(), (z, memory))
    for ours, theirs in zip(found, right):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    at_zero = memory.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        fast.nearest_distance(at_zero, memory, backend=backend)[0].sum(), at_zero
    )
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # Triton's interpreter
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nearest_rejects_what_is_not_finite(backend: str, bad: float) -> None:
    entries = 200 if backend == "numba" else 8  # its centre is that of every third of so many
    good = fill("normal", (entries, 5), 1)
    poisoned = good.copy()
    poisoned[entries // 2, 2] = bad
    for arguments, name in (((poisoned, good), "z"), ((good, poisoned), "memory")):
        tensors = [on(backend, x, torch.float32) for x in arguments]
        if not tensors[0].is_cuda:
            with pytest.raises(ValueError, match=f"{name} holds 1 values that are NaN or infinite"):
                fast.nearest_distance(*tensors, backend=backend)


def test_nearest_is_registered_well() -> None:
    z, memory = (torch.as_tensor(fill("normal", (4, 3), i)).requires_grad_() for i in (1, 2))
    torch.library.opcheck(fast_memory._fused, (z, memory, "numba"))


@pytest.mark.parametrize("backend", ["eager", "numba", None])
def test_nearest_compiles(backend: str | None) -> None:
    z, memory = (torch.as_tensor(fill("normal", (4, 3), i)).float() for i in (1, 2))
    compiled = torch.compile(fast.nearest_distance, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(z, memory, backend=backend), fast.nearest_distance(z, memory)):
        torch.testing.assert_close(ours, theirs)


@given(
    seed=seeds, batch=st.integers(0, 4), kind=values, dtype=st.sampled_from((torch.float64, torch.float32))
)
def test_address_and_recall(seed: int, batch: int, kind: str, dtype: torch.dtype) -> None:
    shapes = ((batch, 6), (5, 6), (5,), (7, 5), (7,))
    z, w1, b1, w2, b2 = (rounded(fill("normal", shape, seed + i), dtype) for i, shape in enumerate(shapes))
    memory = rounded(fill(kind, (7, 6), seed), dtype)
    tensors = [torch.as_tensor(x).to(dtype) for x in (z, w1, b1, w2, b2)]
    query = fast.address(*tensors)
    right = [oracle.address(row, w1, b1, w2, b2) for row in z]
    assert_close(query, np.reshape(right, (batch, 7)), dtype=dtype, scale=1)
    assert_close(query.sum(1), np.ones(batch), dtype=dtype)
    recalled = fast.recall(query, torch.as_tensor(memory).to(dtype))
    expected = np.reshape([oracle.recall(row, memory) for row in right], (batch, 6))
    assert_close(recalled, expected, dtype=dtype, scale=np.abs(memory).max())


def test_memory_errors() -> None:
    z = torch.zeros(2, 3)
    for call, error, message in (
        (lambda: fast.nearest_distance(z[0], z), ValueError, r"z has shape \(3,\); expected \(B, K\)"),
        (
            lambda: fast.nearest_distance(z, z[:, :2]),
            ValueError,
            r"memory has shape \(2, 2\); expected \(L, 3\)",
        ),
        (lambda: fast.nearest_distance(z, z[:0]), ValueError, "at least one entry"),
        (
            lambda: fast.nearest_distance(z, z.double()),
            TypeError,
            "memory is torch.float64 but z is torch.float32",
        ),
        (lambda: fast.recall(z, z), ValueError, r"memory has shape \(2, 3\); expected \(3, K\)"),
        (lambda: fast.address(z, z, z[0], z, z[0]), ValueError, "b1 has shape"),
        (
            lambda: fast.recall(torch.full((1, 2), torch.nan), z),
            ValueError,
            "query holds 2 values that are NaN",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


@given(
    size=st.integers(1, 9),
    stride=st.integers(1, 9),
    extra=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    channels=st.integers(1, 3),
    dtype=st.sampled_from((torch.float64, torch.float32)),
    seed=seeds,
)
@settings(max_examples=60)
def test_patches(
    size: int, stride: int, extra: tuple[int, int], channels: int, dtype: torch.dtype, seed: int
) -> None:
    stride = min(size, stride)
    image = rounded(fill("normal", (channels, size + extra[0], size + extra[1]), seed), dtype)
    patches, origins = fast.slice_patches(torch.as_tensor(image).to(dtype), size, stride)
    right, corners = patch_oracle.slice_patches(image.transpose(1, 2, 0), size, stride)
    assert np.array_equal(patches.double().numpy(), right.transpose(0, 3, 1, 2))
    assert np.array_equal(origins.numpy(), corners)
    assert np.array_equal(fast.stitch_patches(patches, origins, image.shape[1:]).double().numpy(), image)
    altered = fill("normal", right.shape, seed + 1)
    stitched = fast.stitch_patches(
        torch.as_tensor(altered.transpose(0, 3, 1, 2)).to(dtype), origins, image.shape[1:]
    )
    expected = patch_oracle.stitch_patches(rounded(altered, dtype), corners, image.shape[1:])
    assert_close(stitched, expected.transpose(2, 0, 1), dtype=dtype)


def test_patch_errors() -> None:
    image = torch.zeros(3, 8, 8)
    patches, origins = fast.slice_patches(image, 4, 4)
    for call, message in (
        (lambda: fast.slice_patches(image, 9, 9), "smaller than a patch of 9 x 9"),
        (lambda: fast.slice_patches(image, 4, 5), "stride 1 to size"),
        (lambda: fast.stitch_patches(patches[..., :3], origins, (8, 8)), "expected square ones"),
        (lambda: fast.stitch_patches(patches, origins[:2], (8, 8)), r"expected \(4, 2\)"),
        (lambda: fast.stitch_patches(patches, origins + 1, (8, 8)), "lies outside the picture"),
        (lambda: fast.stitch_patches(patches[:3], origins[:3], (8, 8)), "16 of 64 pixels lie in no patch"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
