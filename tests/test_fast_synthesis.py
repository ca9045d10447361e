"""Synthetic defects of every backend against the oracle, and what must hold of them."""

import pytest
import torch
from conforming import ALL, EAGER, EVERY, conforming, hold, kernel_of

from fmrnet import fast
from fmrnet.conformance.synthesis import drawn
from fmrnet.fast import synthesis

DRAWN = EVERY | {"eager": ALL[:3], "numba": ALL[:2]}
pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


@conforming("synthesize", DRAWN)
def test_synthesize_conforms(backend, dtype, prop):
    learns = backend == "eager"  # the other backends say that they have no gradients
    kernel = kernel_of("synthesize", backend, dtype, gradients=learns or None)
    hold(prop, kernel, may_refuse=prop.gradients and not learns)


@conforming("support", EAGER)
def test_support_conforms(backend, dtype, prop):
    hold(prop, kernel_of("support", backend, dtype))


@conforming("blend", EAGER)
def test_blend_conforms(backend, dtype, prop):
    hold(prop, kernel_of("blend", backend, dtype))


def pictures(seed):
    """Drawn pictures of 8 x 9 pixels and their defects."""
    return drawn(kernel_of("synthesize", "eager", "float32"), seed, (2, 3, 8, 9))


def run(parameters, backend):
    rest = dict(parameters)
    return fast.synthesize(rest.pop("image"), rest.pop("source"), **rest, backend=backend)


def test_errors_name_what_was_given():
    good = pictures(4)
    for change, error, words in [
        (
            {"source": good["source"][:, :1]},
            ValueError,
            r"source has shape \(2, 1, 8, 9\); expected \(2, 3, 8, 9\)",
        ),
        ({"source": good["source"].double()}, TypeError, "float64"),
        ({"kind": torch.tensor([0, 3])}, ValueError, r"kind is \[0, 3\]"),
        ({"kind": torch.zeros(2)}, ValueError, "expected integers"),
        ({"edge": torch.tensor([1.0, 0.0])}, ValueError, "above 0"),
        ({"line": good["line"][:, :6]}, ValueError, "line has shape"),
        ({"dots": good["dots"][0]}, ValueError, "dots has shape"),
        ({"grid": good["grid"][:1]}, ValueError, "grid has shape"),
        ({"opacity": good["opacity"][:1]}, ValueError, "opacity"),
        (
            {"image": torch.full_like(good["image"], torch.nan)},
            ValueError,
            "image holds 432 values that are NaN",
        ),
    ]:
        with pytest.raises(error, match=words):
            run(good | change, "eager")
    with pytest.raises(fast.BackendUnavailable, match="only eager has gradients"):
        run(good | {"image": good["image"].clone().requires_grad_()}, "numba")
    run(good | {"image": good["image"].clone().requires_grad_()}, None)[0].sum().backward()


def test_the_operator_is_registered_in_full():
    p = pictures(5)
    names = ("image", "source", "kind", "grid", "line", "dots", "level", "edge", "opacity")
    torch.library.opcheck(synthesis._synthesize, (*(p[name] for name in names), "numba"))


@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_compile_takes_it_whole(backend):
    parameters = pictures(6)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(compiled(parameters, backend), run(parameters, backend)):
        assert torch.allclose(ours, plain, rtol=0, atol=1e-5)
