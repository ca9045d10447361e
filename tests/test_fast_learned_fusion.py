"""What the learned fusion sees, of every backend against the oracle, and what must hold of it."""

import pytest
import torch
from conforming import ALL, EVERY, conforming, hold, kernel_of
from conftest import device_of

from fmrnet import fast
from fmrnet.fast import learned_fusion

BACKENDS = ("eager", "numba", "triton")
FUSED = EVERY | {"numba": ALL[:2]}
pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


@conforming("without_light", FUSED)
def test_without_light_conforms(backend, dtype, prop):
    hold(prop, kernel_of("without_light", backend, dtype))


@conforming("fusion_inputs", FUSED)
def test_fusion_inputs_conform(backend, dtype, prop):
    hold(prop, kernel_of("fusion_inputs", backend, dtype))


def drawn(*shape, dtype=torch.float32):
    """Two pictures, and a mean and a deviation a channel."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, *shape, generator=g, dtype=dtype)
    return x, y, torch.full((shape[1],), 0.4, dtype=dtype), torch.full((shape[1],), 0.1, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # in Triton's interpreter
def test_nan_and_infinity_are_refused(backend, bad):
    """Even where the light would be clamped: every pixel but one would be 0 or 1."""
    x, y, mean, std = (t.to(device_of(backend)) for t in drawn(1, 1, 20, 18))
    if x.is_cuda:
        pytest.skip("a check would make the host wait: it shows in the result")
    y[0, 0, 3, 2] = bad
    for call in (
        lambda: fast.without_light(x, y, std, backend=backend),
        lambda: fast.fusion_inputs(x, y, mean, std, backend=backend),
    ):
        with pytest.raises(ValueError, match="background holds 1 values that are NaN or infinite"):
            call()


def test_errors_name_what_was_given():
    x, y, mean, std = drawn(1, 3, 6, 5)
    for arguments, error, words in [
        (
            (x, y[:, :, 1:], mean, std),
            ValueError,
            r"background has shape \(1, 3, 5, 5\); expected \(1, 3, 6, 5\)",
        ),
        ((x[0], y[0], mean, std), ValueError, r"image has shape \(3, 6, 5\); expected \(B, C, H, W\)"),
        ((x[..., :0], y[..., :0], mean, std), ValueError, "above 0"),
        ((x, y.double(), mean, std), TypeError, "float64"),
        ((x, y, mean, std.double()), TypeError, "std is torch.float64"),
        ((x, y, mean[:2], std), ValueError, r"mean has shape \(2,\); expected \(3\)"),
        ((x, y, mean, std - 0.1), ValueError, r"std is \[0.0, 0.0, 0.0\]; expected deviations above 0"),
        ((x, y, mean * torch.nan, std), ValueError, "mean holds 3 values that are NaN"),
    ]:
        with pytest.raises(error, match=words):
            fast.fusion_inputs(*arguments)
    with pytest.raises(ValueError, match="deviations above 0"):
        fast.without_light(x, y, -std)
    with pytest.raises(fast.BackendUnavailable, match="float32 and float64"):
        fast.without_light(x.half(), y.half(), std.half(), backend="numba")


@pytest.mark.slow
def test_the_operators_are_registered_in_full():
    x, y, mean, std = (t.requires_grad_() for t in drawn(1, 2, 9, 8, dtype=torch.float64))
    torch.library.opcheck(learned_fusion._without_light, (x, y, std, "numba"))
    torch.library.opcheck(learned_fusion._fusion_inputs, (x, y, mean, std, "numba"))


class Seen(torch.nn.Module):
    """Both functions, one after the other."""

    def __init__(self, backend=None):
        super().__init__()
        self.backend = backend

    def forward(self, x, y, mean, std):
        unlit = fast.without_light(x, y, std, backend=self.backend)
        return fast.fusion_inputs(unlit, y, mean, std, backend=self.backend)


@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_compile_takes_them_whole(backend):
    arguments = drawn(2, 3, 20, 17)
    compiled = torch.compile(Seen(backend), fullgraph=True, backend="aot_eager")
    for found, right in zip(compiled(*arguments), Seen("eager")(*arguments)):
        assert (found - right).abs().max() < 1e-5


def test_export_needs_nothing_but_aten():
    arguments = drawn(1, 3, 20, 17)
    program = torch.export.export(Seen(), arguments)
    assert "fmrnet" not in str(program.graph)
    for found, right in zip(program.module()(*arguments), Seen()(*arguments)):
        assert (found - right).abs().max() < 1e-5


def test_a_training_step_differentiates_nothing_of_them():
    """Their weights are the texture's: buffers. What the convolutions learn does not reach back to here."""
    inputs, energy = fast.fusion_inputs(*drawn(2, 3, 20, 17))
    assert not inputs.requires_grad
    assert not energy.requires_grad
