"""`fast.nearest_distance` in every backend, addressing, recall and patches, against the oracle."""

import numpy as np
import pytest
import torch
from conforming import EAGER, conforming, hold, kernel_of, one
from conftest import device_of
from torch import Tensor
from torch.autograd import gradcheck

from fmrnet import fast
from fmrnet.conformance.strategies import fill
from fmrnet.fast import memory as fast_memory
from fmrnet.fast import patches as fast_patches

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


@conforming("nearest_distance")
def test_nearest_distance_conforms(backend: str, dtype: str, prop) -> None:
    hold(prop, kernel_of("nearest_distance", backend, dtype))


@conforming("address", EAGER)
def test_address_conforms(backend: str, dtype: str, prop) -> None:
    hold(prop, kernel_of("address", backend, dtype))


@conforming("recall", EAGER)
def test_recall_conforms(backend: str, dtype: str, prop) -> None:
    hold(prop, kernel_of("recall", backend, dtype))


@conforming("slice_patches", EAGER)
def test_slice_patches_conforms(backend: str, dtype: str, prop) -> None:
    hold(prop, kernel_of("slice_patches", backend, dtype))


@conforming("stitch_patches", EAGER)
def test_stitch_patches_conforms(backend: str, dtype: str, prop) -> None:
    hold(prop, kernel_of("stitch_patches", backend, dtype))


def test_nearest_in_chunks(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmrnet.fast import _memory_numba

    for module in (fast_memory, _memory_numba):
        monkeypatch.setattr(module, "CHUNK", 60)
    hold(one("nearest_distance", "matches_the_oracle"), kernel_of("nearest_distance", backend, "float32"))


def on(backend: str, data: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(data).to(device_of(backend), dtype)


def test_nearest_gradients(backend: str) -> None:
    dtype = torch.float32 if backend == "triton" else torch.float64
    z = on(backend, fill("normal", (5, 4), 1), dtype).requires_grad_()
    memory = on(backend, fill("normal", (3, 4), 2), dtype).requires_grad_()
    if backend != "triton":
        assert gradcheck(lambda z, m: fast.nearest_distance(z, m, backend=backend)[0], (z, memory))
    distance = fast.nearest_distance(z, memory, backend=backend)[0]
    found = torch.autograd.grad(distance.square().sum(), (z, memory))
    leaves = [x.detach().cpu().requires_grad_() for x in (z, memory)]
    right = torch.autograd.grad(torch.cdist(*leaves).min(1)[0].square().sum(), leaves)
    for ours, theirs in zip(found, right):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)
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
        if tensors[0].is_cuda:  # where nothing waits for the device it shows in the distance
            distance = fast.nearest_distance(*tensors, backend=backend)[0]
            assert not torch.isfinite(distance[entries // 2])
            assert name == "z" or not torch.isfinite(distance).any()
            continue
        with pytest.raises(ValueError, match=f"{name} holds 1 values that are NaN or infinite"):
            fast.nearest_distance(*tensors, backend=backend)


def test_the_parts_of_a_memory_are_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer parts than tiles of entries a program goes through several; the last one may be short."""
    kernels = pytest.importorskip("fmrnet.fast._memory_triton")
    z, memory = (on("triton", fill("normal", (n, 20), n), torch.float32) for n in (9, 150))
    right = torch.cdist(z.cpu().double(), memory.cpu().double()).min(1)
    for few, parts in ((16, 1), (16, 2), (4, 32)):
        monkeypatch.setattr(kernels, "FEW", few)
        monkeypatch.setattr(kernels, "PARTS", parts)
        distance, index = fast.nearest_distance(z, memory, backend="triton")
        assert index.tolist() == right.indices.tolist()
        torch.testing.assert_close(distance.cpu().double(), right.values, rtol=1e-5, atol=1e-6)


def test_nearest_is_registered_well() -> None:
    z, memory = (torch.as_tensor(fill("normal", (4, 3), i)).requires_grad_() for i in (1, 2))
    torch.library.opcheck(fast_memory._fused, (z, memory, "numba"))


@pytest.mark.parametrize("backend", ["eager", "numba", None])
def test_nearest_compiles(backend: str | None) -> None:
    z, memory = (torch.as_tensor(fill("normal", (4, 3), i)).float() for i in (1, 2))
    compiled = torch.compile(fast.nearest_distance, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(z, memory, backend=backend), fast.nearest_distance(z, memory)):
        torch.testing.assert_close(ours, theirs)


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


def test_stitching_gives_the_picture_back_to_the_bit() -> None:
    for size, stride, seed in ((8, 5, 1), (7, 3, 2), (9, 9, 3), (4, 1, 4)):
        image = torch.as_tensor(fill("normal", (3, 23, 31), seed)).float()
        patches, origins = fast.slice_patches(image, size, stride)
        assert torch.equal(fast.stitch_patches(patches, origins, (23, 31)), image)


@pytest.mark.parametrize(("size", "stride"), [(8, 5), (8, 4), (7, 3), (9, 9), (4, 1)])
def test_what_cuda_takes_is_what_the_cpu_takes(size: int, stride: int) -> None:
    """Patches cut at once, and laid back many at once; one of them lies there twice."""
    image = torch.as_tensor(fill("normal", (3, 23, 31), size))
    patches, origins = fast.slice_patches(image, size, stride)
    windows = image.unfold(1, size, 1).unfold(2, size, 1)
    assert torch.equal(fast_patches._cut_together(windows, origins), patches)
    patches = torch.as_tensor(fill("normal", (len(origins) + 1, 3, size, size), stride))
    origins = torch.cat((origins, origins[-1:]))
    right = fast.stitch_patches(patches, origins, (23, 31))
    near = torch.minimum(torch.arange(size) + 1, size - torch.arange(size)).double()
    mean, total = image.new_zeros(3, 23, 31), image.new_zeros(23, 31)
    corners = [(r, c) for r, c in origins.tolist()]
    fast_patches._lay_together(patches, corners, torch.outer(near, near), mean, total)
    torch.testing.assert_close(mean, right, rtol=1e-12, atol=1e-12)
    layers = fast_patches._layers(corners, size)
    assert sorted(n for layer in layers for n in layer) == list(range(len(corners)))


def test_a_grid_of_patches_has_few_layers() -> None:
    """However large the picture: 64 pixels in steps of 32 overlap two and two, and at the border once more."""
    for side, most in ((1024, 4), (1000, 9)):
        _, origins = fast.slice_patches(torch.zeros(1, side, side), 64, 32)
        layers = fast_patches._layers([(r, c) for r, c in origins.tolist()], 64)
        assert len(layers) <= most
        for layer in layers:
            covered = torch.zeros(side, side)
            for r, c in origins[layer].tolist():
                covered[r : r + 64, c : c + 64] += 1
            assert covered.max() == 1


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
