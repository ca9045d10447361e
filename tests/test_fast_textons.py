"""`fast.rearrange_textons` in every backend: the oracle, gradients, invariants, torch.compile and export."""

import numpy as np
import pytest
import torch
from conforming import conforming, hold, kernel_of
from conftest import device_of
from torch import Tensor
from torch.autograd import gradcheck

from fmrnet import fast
from fmrnet.conformance.strategies import LAYOUTS, fill, laid_out
from fmrnet.conformance.textons import MIXINGS
from fmrnet.fast import textons
from fmrnet.fast._dispatch import choose

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


@conforming("rearrange_textons")
def test_conforms(backend: str, dtype: str, prop) -> None:
    hold(prop, kernel_of("rearrange_textons", backend, dtype))


def test_triton_says_which_dense_mixing_it_takes() -> None:
    skip = on("triton", fill("normal", (1, 1, 24, 20), 1), torch.float32)
    with pytest.raises(fast.BackendUnavailable, match="dense mixing of up to 64"):
        fast.rearrange_textons(skip, skip, mixing=skip.new_zeros(120, 120, 3, 3), backend="triton")


def drawn_mixing(kind: str | None, count: int, seed: int) -> np.ndarray | None:
    shapes = {"shared": (3, 3), "dense": (count, count, 3, 3)}
    return None if kind is None else fill("normal", shapes[kind], seed)


def on(backend: str, data: np.ndarray, dtype: torch.dtype, layout: str = "contiguous") -> Tensor:
    return laid_out(torch.as_tensor(data).to(device_of(backend), dtype), layout)


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


def test_autocast_changes_nothing() -> None:
    skip, memory = (torch.as_tensor(fill("normal", (2, 3, 4, 4), i)).float() for i in (1, 2))
    plain = fast.rearrange_textons(skip, memory, backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast.rearrange_textons(skip, memory, backend="eager"), plain)


@pytest.mark.parametrize(
    ("side", "cpu", "cuda"), [(8, "numba", "triton"), (16, "numba", "triton"), (18, "eager", "eager")]
)
def test_automatic_choice(monkeypatch: pytest.MonkeyPatch, side: int, cpu: str, cuda: str) -> None:
    """A kernel up to 64 places and textons."""
    monkeypatch.delenv("FMRNET_BACKEND", raising=False)
    chosen, asked = [], []

    def watched(*arguments, **options) -> str:
        asked.append(options["cuda"])
        chosen.append(choose(*arguments, **options))
        return chosen[0]

    monkeypatch.setattr(textons, "choose", watched)
    x = torch.zeros(1, 1, side, side)
    fast.rearrange_textons(x, x)
    assert (chosen, asked) == ([cpu], [cuda])


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("mixing", ["shared", "dense"])
def test_mixing_by_taps_is_the_convolution(mixing: str, step: int) -> None:
    """What CUDA tensors take instead of conv2d, which would round to TF32 there."""
    maps = torch.as_tensor(fill("normal", (2, 6, 5, 4), 1))
    kernel = torch.as_tensor(drawn_mixing(mixing, 6, 2))
    torch.testing.assert_close(
        textons._by_taps(maps, kernel, step), textons._convolve(maps, kernel, step), rtol=1e-12, atol=1e-12
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mixing", ["shared", "dense"])
def test_mixing_is_exact_on_a_gpu(monkeypatch: pytest.MonkeyPatch, mixing: str, compiled: bool) -> None:
    """cuDNN's TF32, which is its default, would be off by 1e-3."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setenv(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # for deterministic algorithms, which are asked for here
    skip, memory = (torch.as_tensor(fill("normal", (2, 16, 8, 8), i)) for i in (1, 2))
    kernel = torch.as_tensor(drawn_mixing(mixing, 16, 3))

    def mixed(s: Tensor, m: Tensor, k: Tensor) -> Tensor:
        return fast.rearrange_textons(s, m, mixing=k, backend="eager")

    call = torch.compile(mixed, fullgraph=True, backend="aot_eager") if compiled else mixed
    found = call(*(x.float().cuda() for x in (skip, memory, kernel)))
    torch.testing.assert_close(found.cpu().double(), mixed(skip, memory, kernel), rtol=1e-5, atol=2e-5)


def test_public_name() -> None:
    assert fast.rearrange_textons is textons.rearrange_textons
