"""ONNX: what `torch.onnx.export` makes of the functions and of the generator, run by onnxruntime."""

import io
import warnings
from collections.abc import Callable

import pytest
import torch
from tiny import make_inspector
from torch import Tensor, nn

from fmrnet import fast
from fmrnet.conformance.tolerances import assert_close

for module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module, reason="ONNX export needs pip install 'fmrnet[train]'")


class Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.function(*tensors)


def run_as_onnx(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(module.eval(), inputs, dynamo=True, verbose=False)
    assert program is not None
    stored = io.BytesIO()
    program.save(stored)
    session = onnxruntime.InferenceSession(stored.getvalue(), providers=["CPUExecutionProvider"])
    feed = {given.name: tensor.numpy() for given, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(result) for result in session.run(None, feed)]


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def maps(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    filtered = fast.anomaly_map(x, y, modalities=("residual", "gms"), median=3)
    return fast.anomaly_map(x, y), filtered, fast.gms(x, y), fast.ssim(x, y), fast.residual(x, y)


def textons(skip: Tensor, memory: Tensor, shared: Tensor, dense: Tensor) -> tuple[Tensor, ...]:
    return tuple(fast.rearrange_textons(skip, memory, mixing=mixing) for mixing in (None, shared, dense))


def memory(z: Tensor, memory: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, ...]:
    return *fast.nearest_distance(z, memory), fast.recall(fast.address(z, w1, b1, w2, b2), memory)


SHAPES: dict[Callable[..., tuple[Tensor, ...]], list[tuple[int, ...]]] = {
    maps: [(2, 3, 20, 17), (2, 3, 20, 17)],
    textons: [(2, 3, 4, 6), (2, 3, 4, 4), (3, 3), (4, 4, 3, 3)],
    memory: [(5, 16), (9, 16), (4, 16), (4,), (9, 4), (9,)],
}


@pytest.mark.parametrize("function", [pytest.param(maps, marks=pytest.mark.slow), textons, memory])
def test_functions(function: Callable[..., tuple[Tensor, ...]]) -> None:
    inputs = [uniform(*shape, seed=seed) for seed, shape in enumerate(SHAPES[function])]
    for found, expected in zip(run_as_onnx(Call(function), *inputs), function(*inputs), strict=True):
        assert found.dtype == expected.dtype
        assert_close(found.double(), expected.numpy(), dtype=torch.float32, scale=1)


def test_generator() -> None:
    model = make_inspector(3).model.eval()
    patches = uniform(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(patches)
    (restored,) = run_as_onnx(model, patches)
    assert_close(restored, expected.numpy(), dtype=torch.float32, scale=1)
