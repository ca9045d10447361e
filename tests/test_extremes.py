"""Extreme and legal inputs: every backend beside the oracle, from one end of each range to the other.

What the oracle finds finite, a kernel must find finite, and alike.
"""

import numpy as np
import pytest
import torch
from conftest import device_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet import config, errors, fast, reference
from fmrnet.conformance.tolerances import assert_close

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")

seeds = st.integers(0, 2**32 - 1)
temperatures = st.one_of(st.sampled_from((0.01, 0.019, 0.1, 1.0, 100.0)), st.floats(0.01, 100))
DTYPES = {
    "eager": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
    "numba": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
}
KINDS = ("opposite", "one direction", "ones and zeros", "sizes far apart", "subnormal", "huge", "one-hot")


def blocks(kind: str, shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Skip and memory features (B, C, H, W) that a softmax over cosines finds hard, as they are in this type."""
    rng = np.random.default_rng(seed)
    skip, memory = rng.normal(size=(2, *shape))
    if kind == "opposite":  # every cosine is near -1
        skip = np.abs(skip) + 5
        memory = -skip * rng.uniform(0.5, 2)
    elif kind == "one direction":  # every cosine is 1
        skip, memory = np.ones(shape), np.full(shape, 2.0)
    elif kind == "ones and zeros":
        skip, memory = np.round(rng.random((2, *shape)))
    elif kind == "sizes far apart":
        skip, memory = (x * 10.0 ** rng.integers(-7, 5, shape[2:]) for x in (skip, memory))
    elif kind == "subnormal":
        skip = skip * 10.0 ** -rng.integers(6, 45)
    elif kind == "huge":
        skip, memory = skip * 1e14, memory * 10.0 ** rng.integers(0, 14)
    elif kind == "one-hot":
        skip, memory = (np.where(x == x.max(), 1.0, 0.0) for x in (skip, memory))
    most = min(float(torch.finfo(dtype).max), 1e15)
    tensors = (torch.as_tensor(np.clip(x, -most, most)).to(dtype) for x in (skip, memory))
    skip, memory = (x.double().numpy() for x in tensors)
    return skip, memory


@pytest.mark.slow  # numba compiles the kernels for each of these
@given(data=st.data(), temperature=temperatures, kind=st.sampled_from(KINDS), seed=seeds)
@settings(max_examples=15)
def test_textons_at_every_temperature(backend, data, temperature, kind, seed):
    dtype = data.draw(st.sampled_from(DTYPES[backend]), "dtype")
    skip, memory = blocks(kind, (2, 3, 4, 6), seed, dtype)
    tensors = [torch.as_tensor(x).to(device_of(backend), dtype) for x in (skip, memory)]
    found = fast.rearrange_textons(*tensors, temperature=temperature, backend=backend)
    expected = np.stack(
        [reference.textons.rearrange_textons(*pair, temperature=temperature) for pair in zip(skip, memory)]
    )
    # A cosine's rounding is divided by the temperature before it reaches a weight.
    assert_close(found, expected, dtype=dtype, scale=np.abs(memory).max() * max(1, 0.1 / temperature))


@pytest.mark.slow  # numba compiles the kernels for each of these
@pytest.mark.parametrize("temperature", [0.01, 100])
@pytest.mark.parametrize("kind", ["opposite", "ones and zeros"])
@pytest.mark.parametrize("places", [(2, 3), (9, 8)])
def test_gradients_of_textons_at_every_temperature(backend, temperature, kind, places):
    """9 x 8 textons go tile by tile in the Triton kernels, 2 x 3 stay on chip."""
    h, w = places
    arrays = blocks(kind, (1, 3, 2 * h, 2 * w), 1, torch.float32)
    upstream = np.random.default_rng(2).normal(size=arrays[0].shape)

    def gradients(dtype, backend, device):
        leaves = [torch.as_tensor(x).to(device, dtype).requires_grad_() for x in arrays]
        G = fast.rearrange_textons(*leaves, temperature=temperature, backend=backend)
        return G, torch.autograd.grad(G, leaves, torch.as_tensor(upstream).to(device, dtype))

    G, found = gradients(torch.float32, backend, device_of(backend))
    exact, right = gradients(torch.float64, "eager", "cpu")
    assert_close(G, exact.detach().numpy(), dtype=torch.float32, scale=10 * max(1, 0.1 / temperature))
    reach = max(float(gradient.abs().max()) for gradient in right)
    steep = float(np.abs(upstream).max()) * max(1, 1 / temperature) / 5  # before what cancels is taken off
    for ours, theirs in zip(found, right):
        assert_close(
            ours, theirs.numpy(), dtype=torch.float32, scale=max(reach, steep) * max(1, 0.1 / temperature)
        )


def test_opposite_blocks_at_a_low_temperature(backend):
    """exp((-1 - 1) / 0.019) is 0 in float32, for every texton of the picture."""
    q = torch.ones(1, 2, 4, 4, device=device_of(backend))
    assert_close(
        fast.rearrange_textons(q, -q, temperature=0.019, backend=backend),
        -np.ones((1, 2, 4, 4)),
        dtype=q.dtype,
    )


@pytest.mark.parametrize("temperature", [0.0099, 100.1, 0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_that_settings_refuse_are_refused(backend, temperature):
    with pytest.raises(errors.ConfigError, match="temperature"):
        config.Config(temperature=temperature)
    q = torch.ones(1, 2, 4, 4, device=device_of(backend))
    with pytest.raises(ValueError, match=r"temperature is .*; expected a number from 0\.01 to 100"):
        fast.rearrange_textons(q, q, temperature=temperature, backend=backend)


@pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value) encountered:RuntimeWarning"
)  # Triton's interpreter
def test_magnitudes_that_cannot_be_squared_are_named(backend):
    """They gave NaN, or the mean of all textons, in silence."""
    fine, huge = torch.ones(1, 2, 4, 4), torch.full((1, 2, 4, 4), 1e30)
    for arguments, name in (((huge, fine), "skip"), ((fine, huge), "memory_features")):
        tensors = [x.to(device_of(backend)) for x in arguments]
        if tensors[0].is_cuda:  # where nothing waits for the device it shows in the result
            assert not torch.isfinite(fast.rearrange_textons(*tensors, backend=backend)).any()
            continue
        with pytest.raises(ValueError, match=rf"{name} holds magnitudes up to 1e\+30; expected up to 1e\+15"):
            fast.rearrange_textons(*tensors, backend=backend)
    if backend != "triton":
        points = torch.eye(3)
        for z, memory, name in ((points * 1e30, points, "z"), (points, points * 1e30, "memory")):
            with pytest.raises(ValueError, match=rf"{name} holds magnitudes up to 1e\+30"):
                fast.nearest_distance(z, memory, backend=backend)


@given(seed=seeds, exponent=st.integers(-44, 14), spread=st.integers(0, 6), data=st.data())
@settings(max_examples=15)
def test_nearest_distance_over_the_whole_range(backend, seed, exponent, spread, data):
    dtype = data.draw(st.sampled_from(DTYPES[backend]), "dtype")
    rng = np.random.default_rng(seed)
    most = min(float(torch.finfo(dtype).max) / 100, 1e15)  # the distance itself must fit
    z, memory = (
        np.clip(
            rng.normal(size=(count, 5)) * 10.0 ** (exponent + rng.integers(0, spread + 1, (count, 1))),
            -most,
            most,
        )
        for count in (4, 9)
    )
    memory[3] = memory[5]
    tensors = [torch.as_tensor(x).to(dtype) for x in (z, memory)]
    z, memory = (x.double().numpy() for x in tensors)
    distance, index = fast.nearest_distance(*(x.to(device_of(backend)) for x in tensors), backend=backend)
    expected = [reference.memory.nearest_distance(one, memory)[0] for one in z]
    # squares below float32's least are lost
    assert_close(distance, expected, dtype=dtype, scale=max(np.abs(memory).max(), np.abs(z).max(), 1e-17))
    named = np.linalg.norm(z - memory[index.cpu().numpy()], axis=1)
    assert (named <= np.array(expected) + 1e-2 * max(np.abs(memory).max(), np.abs(z).max()) + 1e-17).all()


FLAT = ("black", "white", "white on black", "grey", "subnormal", "one pixel", "next to equal")


def flat_pictures(kind, shape, rng):
    image, other = np.zeros(shape), np.zeros(shape)
    if kind == "white":
        image, other = np.ones(shape), np.ones(shape)
    elif kind == "white on black":
        image = np.ones(shape)
    elif kind == "grey":
        image, other = np.full(shape, rng.random()), np.full(shape, rng.random())
    elif kind == "subnormal":
        image, other = rng.random((2, *shape)) * 10.0 ** -rng.integers(20, 44)
    elif kind == "one pixel":
        image[..., rng.integers(shape[2]), rng.integers(shape[3])] = 1
    elif kind == "next to equal":
        image = np.full(shape, rng.random())
        other = np.nextafter(image.astype(np.float32), np.float32(2)).astype(np.float64).clip(0, 1)
    return image, other


@pytest.mark.slow  # numba compiles the kernels for each of these
@given(
    seed=seeds,
    kind=st.sampled_from(FLAT),
    batch=st.integers(0, 2),
    height=st.sampled_from((1, 2, 3, 17)),
    width=st.sampled_from((1, 2, 5, 70)),
    median=st.sampled_from((0, 3, 31)),
    data=st.data(),
)
@settings(max_examples=15)
def test_maps_of_flat_and_tiny_pictures(backend, seed, kind, batch, height, width, median, data):
    """Constant pictures, single pixels, windows wider than the picture."""
    median = (
        0 if backend == "triton" else median
    )  # the interpreter takes minutes; test_fast_fusion has small windows
    dtype = data.draw(st.sampled_from([d for d in DTYPES[backend] if backend != "numba" or d.itemsize >= 4]))
    image, other = flat_pictures(kind, (batch, 2, height, width), np.random.default_rng(seed))
    tensors = [torch.as_tensor(x).to(dtype) for x in (image, other)]
    fused, maps = fast.anomaly_map(
        *(x.to(device_of(backend)) for x in tensors), median=median, return_modalities=True, backend=backend
    )
    pairs = list(zip(*(x.double().numpy().transpose(0, 2, 3, 1) for x in tensors)))
    right = [reference.fusion.anomaly_map(*pair, median=median, return_modalities=True) for pair in pairs]
    if not right:
        assert fused.shape == (0, height, width)
        return
    assert_close(fused, np.stack([one for one, _ in right]), dtype=dtype, scale=1)
    for name, values in maps.items():
        assert_close(values, np.stack([each[name] for _, each in right]), dtype=dtype, scale=1)


@given(
    seed=seeds,
    kind=st.sampled_from(FLAT),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
)
@settings(max_examples=30)
def test_similarities_in_half_precision_keep_their_sums_in_float32(seed, kind, dtype):
    image, other = flat_pictures(kind, (1, 3, 9, 12), np.random.default_rng(seed))
    tensors = [torch.as_tensor(x).to(dtype) for x in (image, other)]
    pair = [x[0].double().numpy().transpose(1, 2, 0) for x in tensors]
    for name in ("gms", "ssim", "residual"):
        expected = getattr(reference.fusion, name)(*pair)
        assert_close(getattr(fast, name)(*tensors)[0], expected, dtype=dtype, scale=1)


def test_constants_that_would_leave_0_over_0_are_refused():
    grey = np.full((4, 4, 1), 0.5)
    tensor = torch.full((1, 1, 4, 4), 0.5)
    for name, options in (
        ("gms", {"c0": 0.0}),
        ("ssim", {"c1": 0.0}),
        ("ssim", {"c2": 0.0}),
        ("ssim", {"sigma": 0}),
    ):
        (given_name,) = options
        for function, picture in ((getattr(fast, name), tensor), (getattr(reference.fusion, name), grey)):
            with pytest.raises(ValueError, match=f"{given_name} is 0"):
                function(picture, picture, **options)
    for sigma in (1e-300, 1e300):  # a lone pixel, and a plain mean
        narrow = fast.ssim(tensor.double(), tensor.double() / 2, sigma=sigma)[0]
        assert np.allclose(narrow, reference.fusion.ssim(grey, grey / 2, sigma=sigma))


def defects(**changed):
    shape = {
        "kind": torch.zeros(1, dtype=torch.int64),
        "grid": torch.tensor([[[0.2, 0.8], [0.5, 0.5]]]),
        "line": torch.tensor([[3.0, 3.0, 0.0, 4.0, 1.0, 5.0, 0.0]]),
        "dots": torch.tensor([[[3.0, 2.0, 1.5]]]),
        "level": torch.tensor([0.5]),
        "edge": torch.tensor([0.1]),
        "destructive": torch.zeros(1),
        "opacity": torch.tensor([0.4]),
    }
    return shape | changed


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("edge", [1e-44, 1e-38, 1e38])
@pytest.mark.parametrize("side", [1, 6])
def test_defects_with_the_sharpest_and_the_softest_edge(backend, kind, edge, side):
    """A field that meets its level on a pixel is half way up the edge there, however sharp that is."""
    chosen = defects(kind=torch.tensor([kind]), edge=torch.tensor([edge]))
    if kind == 2:
        chosen |= {"level": torch.zeros(1), "dots": torch.tensor([[[3.0, 2.0, 1.0]]])}
    image, source = torch.rand(2, 1, 2, side, side, generator=torch.Generator().manual_seed(1))
    moved = {name: value.to(device_of(backend)) for name, value in chosen.items()}
    result, support = fast.synthesize(
        image.to(device_of(backend)), source.to(device_of(backend)), **moved, backend=backend
    )
    one = {name: value[0].numpy() for name, value in chosen.items()}
    one = {name: value if value.ndim else value.item() for name, value in one.items()}
    right, expected = reference.synthesis.synthesize(
        *(x[0].double().numpy().transpose(1, 2, 0) for x in (image, source)), **one
    )
    field = expected[(expected > 0) & (expected < 1)]
    if (
        edge > 1 or not field.size or kind == 2
    ):  # else rounding decides on which side of so sharp an edge a pixel is
        assert_close(support[0], expected, dtype=torch.float32, scale=1)
        assert_close(result[0], right.transpose(2, 0, 1), dtype=torch.float32, scale=1)
    assert torch.isfinite(support).all()
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"grid": torch.ones(1, 3, 2)}, r"grid has shape \(1, 3, 2\); expected \(1, g, g\)"),
        ({"kind": torch.ones(1, dtype=torch.int64), "line": torch.zeros(1, 7)}, "line has periods"),
        ({"opacity": torch.tensor([1.5])}, r"opacity is \[1\.5\]; expected values in \[0, 1\]"),
        ({"destructive": torch.tensor([-1.0])}, r"destructive is \[-1\.0\]"),
        ({"level": torch.tensor([torch.nan])}, "level holds 1 values that are NaN"),
        ({"grid": torch.full((1, 2, 2), torch.inf)}, "grid holds 4 values that are NaN or infinite"),
    ],
)
def test_defects_that_the_oracle_refuses_are_refused(backend, changed, says):
    if device_of(backend).type == "cuda":
        pytest.skip("on a GPU only shapes are looked at: nothing waits for the device")
    with pytest.raises(ValueError, match=says):
        fast.synthesize(torch.rand(1, 1, 6, 6), torch.rand(1, 1, 6, 6), **defects(**changed), backend=backend)


def test_origins_must_be_integers():
    with pytest.raises(ValueError, match=r"origins is torch\.float32.*integers"):
        fast.stitch_patches(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2), (4, 4))


def test_a_standard_score_far_below_good_gives_a_map_of_0():
    assert reference.learned_fusion.learned_map([[-1e4, 0.0, 1e4]])[0, [0, 2]].tolist() == [0, 1]
