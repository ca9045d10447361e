"""`fast.rearrange_textons` in every backend: the oracle, gradients, invariants, torch.compile and export."""

import numpy as np
import pytest
import torch
from conftest import device_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import LAYOUTS, fill, laid_out, layouts, seeds, values
from tolerances import assert_close
from torch import Tensor
from torch.autograd import gradcheck

from fmrnet import fast
from fmrnet.fast import textons
from fmrnet.fast._dispatch import choose
from fmrnet.reference.textons import rearrange_textons as oracle

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")

DTYPES = {
    "eager": [torch.float64, torch.float32, torch.bfloat16, torch.float16],
    "numba": [torch.float64, torch.float32, torch.bfloat16, torch.float16],
    "triton": [torch.float32, torch.bfloat16, torch.float16],
}
MIXINGS = (None, "shared", "dense")


def expected(skip: np.ndarray, memory_features: np.ndarray, **options: object) -> np.ndarray:
    pairs = zip(skip, memory_features)
    return np.stack([oracle(s, m, **options) for s, m in pairs]) if len(skip) else np.zeros_like(skip)


def drawn_mixing(kind: str | None, count: int, seed: int) -> np.ndarray | None:
    shapes = {"shared": (3, 3), "dense": (count, count, 3, 3)}
    return None if kind is None else fill("normal", shapes[kind], seed)


def on(backend: str, data: np.ndarray, dtype: torch.dtype, layout: str = "contiguous") -> Tensor:
    return laid_out(torch.as_tensor(data).to(device_of(backend), dtype), layout)


def rounded(data: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """What is left of the data in this dtype: the oracle gets the same numbers."""
    return torch.as_tensor(data).to(dtype).double().numpy()


@given(data=st.data())
@settings(max_examples=40)
def test_matches_oracle(backend: str, data: st.DataObject) -> None:
    cells = 4 if backend == "triton" else 7
    size = data.draw(st.sampled_from((1, 2, 3)), "size")
    batch, channels = data.draw(st.integers(1, 6), "batch"), data.draw(st.sampled_from((1, 2, 7, 33)), "C")
    h, w, hm, wm = (data.draw(st.integers(1, cells), name) for name in ("h", "w", "h_F", "w_F"))
    dtype = data.draw(st.sampled_from(DTYPES[backend]), "dtype")
    seed = data.draw(seeds, "seed")
    skip = rounded(fill(data.draw(values), (batch, channels, h * size, w * size), seed), dtype)
    memory = rounded(fill(data.draw(values), (batch, channels, hm * size, wm * size), seed + 1), dtype)
    mixing = drawn_mixing(data.draw(st.sampled_from(MIXINGS), "mixing"), hm * wm, seed)
    temperature = data.draw(st.sampled_from((1.0, 0.1, 3.0)), "temperature")
    layout = data.draw(layouts, "layout"), data.draw(layouts, "layout of F")

    G = fast.rearrange_textons(
        on(backend, skip, dtype, layout[0]),
        on(backend, memory, dtype, layout[1]),
        size=size,
        mixing=None
        if mixing is None
        else on(backend, mixing, torch.float64).to(torch.promote_types(dtype, torch.float32)),
        temperature=temperature,
        backend=backend,
    )

    assert G.dtype == dtype
    reach = np.abs(memory).max() * (1 if mixing is None else np.abs(mixing).max() * 9)  # what is summed
    G_oracle = expected(skip, memory, size=size, mixing=mixing, temperature=temperature)
    assume(np.abs(G_oracle).max() < torch.finfo(dtype).max)  # mixing may sum up more than float16 can hold
    assert_close(G, G_oracle, dtype=dtype, scale=reach)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("places", [(4, 4), (8, 8), (12, 10)])
def test_large_pictures_match_oracle(backend: str, mixing: str | None, places: tuple[int, int]) -> None:
    """N = 16, 64 and 120: on chip whole, just so, and tile by tile."""
    h, w = places
    skip, memory = fill("normal", (2, 5, 2 * h, 2 * w), 1), fill("normal", (2, 5, 2 * h, 2 * w), 2)
    kernel = drawn_mixing(mixing, h * w, 3)
    dtype = torch.float32
    tensors = [on(backend, x, dtype, "channels_last").requires_grad_() for x in (skip, memory)]
    taps = None if kernel is None else on(backend, kernel, dtype).requires_grad_()
    if backend == "triton" and mixing == "dense" and h * w > textons.TRITON_SMALL:
        with pytest.raises(fast.BackendUnavailable, match="dense mixing of up to 64"):
            fast.rearrange_textons(*tensors, mixing=taps, backend=backend)
        return
    G = fast.rearrange_textons(*tensors, mixing=taps, backend=backend)
    scale = None if kernel is None else float(np.abs(kernel).max()) * 9
    assert_close(G, expected(skip, memory, mixing=kernel), dtype=dtype, scale=scale)
    check_gradients(backend, G, tensors, taps, dtype)


def check_gradients(
    backend: str,
    G: Tensor,
    tensors: list[Tensor],
    mixing: Tensor | None,
    dtype: torch.dtype,
    **options: object,
) -> None:
    """Against float64 autograd through eager, which `test_matches_oracle` holds to the oracle."""
    upstream = torch.as_tensor(fill("normal", tuple(G.shape), 9)).to(G.device, dtype)
    leaves = [*tensors] + ([] if mixing is None else [mixing])
    found = torch.autograd.grad(G, leaves, laid_out(upstream, "transposed"))
    exact = [x.detach().double().requires_grad_() for x in leaves]
    wide = fast.rearrange_textons(
        *exact[:2], mixing=exact[2] if len(exact) > 2 else None, backend="eager", **options
    )
    right = torch.autograd.grad(wide, exact, upstream.double())
    reach = float(right[1].abs().max())  # with one texton the gradient to the skip is a difference of equals
    for ours, theirs, leaf in zip(found, right, leaves):
        assert ours.dtype == leaf.dtype
        assert_close(ours, theirs.cpu().numpy(), dtype=dtype, scale=max(reach, float(theirs.abs().max())))


@given(
    mixing=st.sampled_from(MIXINGS),
    size=st.sampled_from((1, 2, 3)),
    batch=st.integers(1, 3),
    h=st.integers(1, 4),
    w=st.integers(1, 3),
    layout=layouts,
    dtype=st.sampled_from((torch.float32, torch.bfloat16)),
    seed=seeds,
)
@settings(max_examples=20)
def test_gradients(
    backend: str,
    mixing: str | None,
    size: int,
    batch: int,
    h: int,
    w: int,
    layout: str,
    dtype: torch.dtype,
    seed: int,
) -> None:
    shape = (batch, 5, h * size, w * size)
    tensors = [on(backend, fill("normal", shape, seed + i), dtype, layout).requires_grad_() for i in (0, 1)]
    kernel = drawn_mixing(mixing, h * w, seed)
    taps = None if kernel is None else on(backend, kernel, torch.float32).requires_grad_()
    options = {"size": size, "temperature": 0.5}
    G = fast.rearrange_textons(*tensors, mixing=taps, backend=backend, **options)
    check_gradients(backend, G, tensors, taps, dtype, **options)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_gradcheck(backend: str, mixing: str | None) -> None:
    skip, memory = (torch.as_tensor(fill("normal", (2, 3, 4, 6), i)).requires_grad_() for i in (1, 2))
    kernel = drawn_mixing(mixing, 6, 3)
    taps = None if kernel is None else torch.as_tensor(kernel).requires_grad_()
    assert gradcheck(
        lambda s, m, k: fast.rearrange_textons(s, m, mixing=k, temperature=0.7, backend=backend),
        (skip, memory, taps),
    )


def test_gradient_of_a_block_of_zeros_is_finite(backend: str) -> None:
    """Below EPS the norm is a constant: no division by 0 on the way back."""
    skip = on(backend, fill("one-hot", (2, 3, 4, 4), 1), torch.float32).requires_grad_()
    memory = on(backend, fill("normal", (2, 3, 4, 4), 2), torch.float32).requires_grad_()
    G = fast.rearrange_textons(skip, memory, backend=backend)
    for gradient in torch.autograd.grad(G.square().sum(), (skip, memory)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_batch_and_memory_format(backend: str, layout: str) -> None:
    empty = on(backend, np.zeros((0, 3, 4, 4)), torch.float32, layout).requires_grad_()
    assert fast.rearrange_textons(empty, empty, backend=backend).shape == (0, 3, 4, 4)
    skip = on(backend, fill("normal", (2, 3, 4, 4), 1), torch.float32, layout)
    G = fast.rearrange_textons(skip, skip, backend=backend)
    if layout == "channels_last":
        assert G.is_contiguous(memory_format=torch.channels_last)
    elif layout == "contiguous":
        assert G.is_contiguous()


def test_invariants(backend: str) -> None:
    """A constant memory comes back; the order of textons, and the scale of the skip, change nothing."""
    skip = on(backend, fill("normal", (2, 3, 6, 6), 1), torch.float32)
    constant = on(backend, np.full((2, 3, 6, 6), 0.7), torch.float32)
    assert_close(
        fast.rearrange_textons(skip, constant, backend=backend),
        np.full((2, 3, 6, 6), 0.7),
        dtype=torch.float32,
    )
    memory = on(backend, fill("normal", (2, 3, 6, 6), 2), torch.float32)
    G = fast.rearrange_textons(skip, memory, backend=backend).cpu().numpy()
    rolled = memory.roll((2, 4), (2, 3))  # whole textons
    assert_close(fast.rearrange_textons(skip, rolled, backend=backend), G, dtype=torch.float32)
    assert_close(fast.rearrange_textons(skip * 50, memory, backend=backend), G, dtype=torch.float32)
    assert G.max() <= float(memory.max()) + 1e-6
    assert G.min() >= float(memory.min()) - 1e-6


def test_repeats_to_the_last_bit(backend: str) -> None:
    skip, memory = (
        on(backend, fill("normal", (5, 7, 8, 8), i), torch.float32).requires_grad_() for i in (1, 2)
    )
    taps = on(backend, fill("normal", (16, 16, 3, 3), 3), torch.float32).requires_grad_()
    runs = []
    for _ in range(2):
        G = fast.rearrange_textons(skip, memory, mixing=taps, backend=backend)
        runs.append([G, *torch.autograd.grad(G.square().sum(), (skip, memory, taps))])
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # Triton's interpreter
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_rejected(backend: str, bad: float) -> None:
    """On CUDA nothing waits for the device: there it shows in the result."""
    good = fill("normal", (2, 3, 4, 4), 1)
    poisoned = good.copy()
    poisoned[1, 2, 3, 0] = bad
    for arguments, name in (((poisoned, good), "skip"), ((good, poisoned), "memory_features")):
        tensors = [on(backend, x, torch.float32) for x in arguments]
        if tensors[0].is_cuda:
            assert not torch.isfinite(fast.rearrange_textons(*tensors, backend=backend)).all()
        else:
            with pytest.raises(ValueError, match=f"{name} holds 1 values that are NaN or infinite"):
                fast.rearrange_textons(*tensors, backend=backend)


def test_errors_name_what_was_given() -> None:
    x = torch.zeros(1, 3, 4, 4)
    for call, error, message in (
        (lambda: fast.rearrange_textons(x[0], x), ValueError, r"skip has shape \(3, 4, 4\)"),
        (lambda: fast.rearrange_textons(x.int(), x), TypeError, "skip has dtype torch.int32"),
        (lambda: fast.rearrange_textons(x.numpy(), x), TypeError, "skip is a ndarray"),
        (
            lambda: fast.rearrange_textons(x, x.double()),
            TypeError,
            "memory_features is torch.float64 but skip is",
        ),
        (
            lambda: fast.rearrange_textons(x, x[:, :2]),
            ValueError,
            r"memory_features has shape \(1, 2, 4, 4\)",
        ),
        (lambda: fast.rearrange_textons(x, x, size=3), ValueError, "divisible by the texton size 3"),
        (lambda: fast.rearrange_textons(x, x, size=0), ValueError, "divisible by the texton size 0"),
        (lambda: fast.rearrange_textons(x, x, temperature=0.0), ValueError, "temperature is 0.0"),
        (lambda: fast.rearrange_textons(x, x, mixing=x), ValueError, r"expected \(3, 3\), or \(4, 4, 3, 3\)"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("backend", ["eager", "numba", None])
def test_torch_compile(backend: str | None) -> None:
    skip, memory = (torch.as_tensor(fill("normal", (2, 3, 4, 4), i)).float().requires_grad_() for i in (1, 2))
    taps = torch.as_tensor(fill("normal", (3, 3), 3)).float().requires_grad_()

    def step(s: Tensor, m: Tensor, k: Tensor) -> Tensor:
        return fast.rearrange_textons(2 * s, m, mixing=k, backend=backend).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    leaves = (skip, memory, taps)
    for ours, theirs in zip(
        torch.autograd.grad(compiled(*leaves), leaves), torch.autograd.grad(step(*leaves), leaves)
    ):
        torch.testing.assert_close(ours, theirs)


class Layer(torch.nn.Module):
    def __init__(self, backend: str | None) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, skip: Tensor, memory: Tensor) -> Tensor:
        return fast.rearrange_textons(skip, memory, backend=self.backend)


def test_torch_export() -> None:
    """The automatic choice exports ATen operations alone; a named backend exports as its operator."""
    skip, memory = (torch.as_tensor(fill("normal", (2, 3, 4, 4), i)).float() for i in (1, 2))
    for backend, ours in ((None, False), ("numba", True)):
        program = torch.export.export(Layer(backend), (skip, memory))
        operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert any("fmrnet" in name for name in operators) is ours
        torch.testing.assert_close(program.module()(skip, memory), fast.rearrange_textons(skip, memory))


@pytest.mark.parametrize("mixing", MIXINGS)
def test_operator_is_registered_well(mixing: str | None) -> None:
    """torch's own check of schema, fake implementation, autograd and compilation."""
    skip, memory = (torch.as_tensor(fill("normal", (2, 3, 4, 4), i)).requires_grad_() for i in (1, 2))
    kernel = drawn_mixing(mixing, 4, 3)
    taps = None if kernel is None else torch.as_tensor(kernel).requires_grad_()
    torch.library.opcheck(textons._fused, (skip, memory, 2, taps, 1.0, "numba"))


def test_half_precision_keeps_sums_in_float32(backend: str) -> None:
    """1024 equal textons: weights of 1/1024 summed in bfloat16 would stop growing at 1/4 of the way."""
    if backend == "triton":
        pytest.skip("1024 textons take the interpreter minutes; bench/gpu.py checks this size on a GPU")
    skip = on(backend, fill("normal", (1, 2, 16, 16), 1), torch.bfloat16)
    ones = torch.ones_like(skip)
    assert_close(
        fast.rearrange_textons(skip, ones, size=1, backend=backend), np.ones(skip.shape), dtype=torch.bfloat16
    )


def test_autocast_changes_nothing() -> None:
    skip, memory = (torch.as_tensor(fill("normal", (2, 3, 4, 4), i)).float() for i in (1, 2))
    plain = fast.rearrange_textons(skip, memory, backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast.rearrange_textons(skip, memory, backend="eager"), plain)


@pytest.mark.parametrize(("side", "taken"), [(8, "numba"), (16, "numba"), (18, "eager")])
def test_automatic_choice_on_the_cpu(monkeypatch: pytest.MonkeyPatch, side: int, taken: str) -> None:
    """numba up to 64 places and textons."""
    monkeypatch.delenv("FMRNET_BACKEND", raising=False)
    chosen = []
    monkeypatch.setattr(textons, "choose", lambda *a, **k: chosen.append(choose(*a, **k)) or chosen[0])
    x = torch.zeros(1, 1, side, side)
    fast.rearrange_textons(x, x)
    assert chosen == [taken]


def test_public_name() -> None:
    assert fast.rearrange_textons is textons.rearrange_textons
