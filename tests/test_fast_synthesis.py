"""Synthetic defects of every backend against the oracle, and what must hold of them."""

import numpy as np
import pytest
import torch
from conftest import device_of
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import laid_out, layouts, seeds
from tolerances import assert_close

from fmrnet import fast, reference
from fmrnet.fast import synthesis

BACKENDS = ("eager", "numba", "triton")
EVERY = [
    *(("eager", dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)),
    *(("numba", dtype) for dtype in (torch.float64, torch.float32)),
    *(("triton", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
]
every = pytest.mark.parametrize(
    ("backend", "dtype"), EVERY, ids=lambda value: str(value).removeprefix("torch.")
)
pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


def drawn(
    seed: int, batch: int, channels: int, height: int, width: int, **chosen: np.ndarray
) -> dict[str, torch.Tensor]:
    """Pictures and the parameters of their defects, float64; `kind` may be given."""
    rng = np.random.default_rng(seed)
    size = max(height, width)
    line = np.column_stack([
        rng.uniform(0, width, batch), rng.uniform(0, height, batch), rng.uniform(0, np.pi, batch),
        rng.uniform(0, size, batch), rng.uniform(0, 4, batch), rng.uniform(4, 40, batch), rng.uniform(0, 6, batch),
    ])  # fmt: skip
    dots = rng.uniform((0, 0, 0), (width, height, 5), (batch, rng.integers(1, 4), 3))
    kind = rng.integers(0, 3, batch)
    drawn = {
        "image": rng.random((batch, channels, height, width)),
        "source": rng.random((batch, channels, height, width)),
        "kind": kind,
        "grid": rng.random((batch, *[rng.integers(1, 7)] * 2)),
        "line": line,
        "dots": dots,
        "level": np.choose(
            kind, [rng.uniform(0.3, 0.7, batch), -rng.uniform(0.5, 4, batch), np.zeros(batch)]
        ),
        "edge": np.where(kind == 0, rng.uniform(0.05, 0.5, batch), rng.uniform(0.5, 3, batch)),
        "destructive": rng.integers(0, 2, batch),
        "opacity": rng.uniform(0.1, 0.9, batch),
    }
    return {name: torch.from_numpy(np.asarray(value)) for name, value in (drawn | chosen).items()}


def placed(parameters: dict[str, torch.Tensor], backend: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Pictures in the dtype, parameters in float32 or float64 (a cast to bfloat16 would move the defect)."""
    fine = torch.promote_types(dtype, torch.float32)
    kinds = {"image": dtype, "source": dtype, "kind": torch.int64, "destructive": fine}
    return {name: t.to(device_of(backend), kinds.get(name, fine)) for name, t in parameters.items()}


def oracle(parameters: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    results, supports = [], []
    for b in range(len(parameters["image"])):
        one = {name: t[b].cpu().double().numpy() for name, t in parameters.items()}
        image, source = (one.pop(name).transpose(1, 2, 0) for name in ("image", "source"))
        one = {name: value if value.ndim else value.item() for name, value in one.items()}
        result, support = reference.synthesis.synthesize(image, source, **one)
        results.append(result.transpose(2, 0, 1))
        supports.append(support)
    return np.stack(results), np.stack(supports)


def run(parameters, backend):
    rest = dict(parameters)
    return fast.synthesize(rest.pop("image"), rest.pop("source"), **rest, backend=backend)


@every
@settings(max_examples=12)
@given(seeds, st.integers(1, 4), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), layouts, layouts)
def test_synthesize_is_the_oracle(backend, dtype, seed, batch, channels, height, width, layout, other):
    parameters = placed(drawn(seed, batch, channels, height, width), backend, dtype)
    parameters["image"] = laid_out(parameters["image"], layout)
    parameters["source"] = laid_out(parameters["source"], other)
    result, support = run(parameters, backend)
    assert result.dtype == support.dtype == dtype
    expected, expected_support = oracle(parameters)
    # distances of up to a picture's side are rounded, then divided by the edge
    scale = 1 + max(height, width) / float(parameters["edge"].min())
    assert_close(support, expected_support, dtype=dtype, scale=scale)
    assert_close(result, expected, dtype=dtype, scale=scale)


@pytest.mark.parametrize("kind", [0, 1, 2])
@every
def test_outside_the_support_the_picture_is_untouched(backend, dtype, kind):
    parameters = placed(drawn(1, 3, 2, 30, 25, kind=np.full(3, kind)), backend, dtype)
    before = {name: t.clone() for name, t in parameters.items()}
    result, support = run(parameters, backend)
    assert ((support >= 0) & (support <= 1)).all()
    outside = (support == 0)[:, None].expand_as(result)
    assert torch.equal(result[outside], parameters["image"][outside])
    inside = (support == 1) & (parameters["destructive"] == 1)[:, None, None]
    inside = inside[:, None].expand_as(result)
    assert torch.equal(result[inside], parameters["source"][inside])
    assert all(torch.equal(t, before[name]) for name, t in parameters.items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_eq_1_as_printed(backend):
    """lambda [(1 - I_m) I_o + I_m I_d] + (1 - lambda) I_d with I_d = S source + (1 - S) I_o."""
    parameters = placed(drawn(2, 6, 3, 20, 22), backend, torch.float32)
    result, s = run(parameters, backend)
    s, image = s[:, None], parameters["image"]
    mask, opacity = (parameters[name][:, None, None, None] for name in ("destructive", "opacity"))
    printed = fast.blend(image, s * parameters["source"] + (1 - s) * image, mask, opacity)
    assert torch.allclose(result, printed, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_dots_no_defect_and_no_pictures_no_result(backend):
    parameters = placed(drawn(3, 2, 1, 8, 9, kind=np.full(2, 2)), backend, torch.float32)
    parameters["dots"] = parameters["dots"][:, :0]
    result, support = run(parameters, backend)
    assert not support.any()
    assert torch.equal(result, parameters["image"])
    result, support = run({name: t[:0] for name, t in parameters.items()}, backend)
    assert result.shape == (0, 1, 8, 9)
    assert support.shape == (0, 8, 9)


def test_errors_name_what_was_given():
    good = placed(drawn(4, 2, 3, 8, 9), "eager", torch.float32)
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
    p = placed(drawn(5, 2, 3, 8, 9), "numba", torch.float32)
    names = ("image", "source", "kind", "grid", "line", "dots", "level", "edge", "opacity")
    torch.library.opcheck(synthesis._synthesize, (*(p[name] for name in names), "numba"))


@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_compile_takes_it_whole(backend):
    parameters = placed(drawn(6, 2, 3, 8, 9), backend, torch.float32)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(compiled(parameters, backend), run(parameters, backend)):
        assert torch.allclose(ours, plain, rtol=0, atol=1e-5)
