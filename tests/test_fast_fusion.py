"""The anomaly map of every backend against the oracle, and what must hold of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import device_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import laid_out, layouts, pictures, seeds
from tolerances import assert_close

from fmrnet import fast, reference
from fmrnet.fast import fusion

BACKENDS = ("eager", "numba", "triton")
DTYPES = {
    "eager": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
    "numba": (torch.float64, torch.float32),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
}
EVERY = [(backend, dtype) for backend in BACKENDS for dtype in DTYPES[backend]]
MODALITIES = [
    ("gms", "ssim", "residual"), ("residual", "gms"), ("ssim",), ("gms",), ("residual",), ("ssim", "residual"),
]  # fmt: skip
every = pytest.mark.parametrize(
    ("backend", "dtype"), EVERY, ids=lambda value: str(value).removeprefix("torch.")
)
pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


def oracle(function, x: torch.Tensor, y: torch.Tensor, **options) -> np.ndarray:
    """The reference, picture by picture, on the very numbers that the backend is given."""
    planes = [t.detach().cpu().double().permute(0, 2, 3, 1).numpy() for t in (x, y)]
    return np.stack([function(*pair, **options) for pair in zip(*planes)])


def check(x, y, backend, modalities=fusion.MODALITIES, median=0):
    """Every modality map and the product against the oracle."""
    options = {"modalities": modalities, "median": median}
    fused, maps = fast.anomaly_map(x, y, **options, return_modalities=True, backend=backend)
    assert list(maps) == list(modalities)
    assert all(t.dtype == x.dtype and t.device == x.device for t in (fused, *maps.values()))
    for name in modalities:
        expected = oracle(lambda *pair: reference.fusion.modality_maps(*pair, **options)[name], x, y)  # noqa: B023
        assert_close(maps[name], expected, dtype=x.dtype, scale=None if name == "residual" else 1)
    assert_close(fused, oracle(reference.fusion.anomaly_map, x, y, **options), dtype=x.dtype, scale=1)
    product = np.prod([m.double().cpu().numpy() for m in maps.values()], axis=0)
    least = torch.finfo(x.dtype).tiny
    assert_close(
        fused, product, dtype=x.dtype, scale=max(product.max(initial=0), least)
    )  # however small it is
    alone = fast.anomaly_map(x, y, **options, backend=backend)
    assert torch.equal(alone, fused)


@every
@settings(max_examples=12)
@given(data=st.data())
def test_anomaly_map_is_the_oracle(backend, dtype, data):
    image, reconstruction = data.draw(pictures(side=12 if backend == "triton" else 40))
    modalities, layout = data.draw(st.sampled_from(MODALITIES)), data.draw(layouts)
    median = 0 if backend == "triton" else data.draw(st.sampled_from((0, 1, 3, 5)))
    x, y = (torch.from_numpy(t).to(device_of(backend), dtype) for t in (image, reconstruction))
    check(laid_out(x, layout), laid_out(y, data.draw(layouts)), backend, modalities, median)


@pytest.mark.parametrize(
    "shape", [(1, 3, 70, 150), (2, 1, 64, 128), (1, 2, 129, 66), (2, 3, 1, 300), (1, 3, 200, 1)]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_pictures_of_several_tiles(backend, shape):
    if backend == "triton" and not torch.cuda.is_available():  # the interpreter takes its time
        shape = (1, 1, min(shape[2], 40), min(shape[3], 70))
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(2, *shape, generator=generator).to(device_of(backend))
    check(x, y, backend)


@pytest.mark.parametrize(("window", "shape"), [(3, (1, 1, 9, 7)), (5, (1, 1, 2, 3)), (3, (1, 1, 1, 1))])
@pytest.mark.parametrize("backend", BACKENDS)
def test_median_is_the_oracle(backend, window, shape):
    x, y = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2)).to(device_of(backend))
    check(x, y, backend, ("residual",), window)


@given(seeds, st.sampled_from((1, 3, 5, 7)), st.integers(1, 20), st.integers(1, 150))
def test_median_filter_is_scipy(seed, window, height, width):
    """ndimage.median_filter(m, size=window, mode="reflect"), bit for bit; equal values and all."""
    m = np.random.default_rng(seed).integers(0, 40, (height, width)).astype(np.float32) / 40
    expected = torch.from_numpy(ndimage.median_filter(m, size=window, mode="reflect"))
    assert torch.equal(fusion.median_filter(torch.from_numpy(m), window), expected)
    if window > 1:
        from fmrnet.fast import _fusion_numba

        filtered = torch.full((1, 1, height, width), torch.nan)
        _fusion_numba.median_filter(torch.from_numpy(m)[None, None], window, filtered=filtered)
        assert torch.equal(filtered[0, 0], expected)


@pytest.mark.parametrize("dtype", DTYPES["eager"], ids=str)
@given(pair=pictures())
def test_similarities_are_the_oracle(dtype, pair):
    x, y = (torch.from_numpy(t).to(dtype) for t in pair)
    if dtype not in (torch.float32, torch.float64):
        x, y = x.float(), y.float()
    assert_close(fast.gms(x, y), oracle(reference.fusion.gms, x, y), dtype=x.dtype)
    assert_close(fast.residual(x, y), oracle(reference.fusion.residual, x, y), dtype=x.dtype)
    options = {"sigma": 0.8, "window": 7, "c1": 0.02, "c2": 0.03}
    assert_close(
        fast.ssim(x, y, **options), oracle(reference.fusion.ssim, x, y, **options), dtype=x.dtype, scale=1
    )


@every
@settings(max_examples=4)
@given(pair=pictures(side=10))
def test_what_holds_of_the_maps(backend, dtype, pair):
    x, y = (torch.from_numpy(t).to(device_of(backend), dtype) for t in pair)
    fused, maps = fast.anomaly_map(x, y, return_modalities=True, backend=backend)
    slack = 1 + 8 * torch.finfo(dtype).eps
    for name, highest in (("gms", 1), ("ssim", 2), ("residual", 1)):
        assert maps[name].min() >= 0
        assert maps[name].max() <= highest * slack
    assert fused.min() >= 0
    swapped = fast.anomaly_map(y, x, backend=backend)  # which picture is the restored one does not matter
    assert_close(swapped, fused.double().cpu().numpy(), dtype=dtype, scale=1)
    assert not fast.anomaly_map(x, x, backend=backend).any()  # exactly nothing where they are the same
    flipped = fast.anomaly_map(x.flip(3), y.flip(3), backend=backend).flip(2)
    assert_close(flipped, fused.double().cpu().numpy(), dtype=dtype, scale=1)
    turned = fast.anomaly_map(x.mT, y.mT, backend=backend).mT
    assert_close(turned, fused.double().cpu().numpy(), dtype=dtype, scale=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_beside_a_defect_nothing_is_negative(backend):
    """Where the pictures are the same but the tile's mean is not 0, rounding alone would make variances negative."""
    g = torch.Generator().manual_seed(9)
    x, y = torch.rand(2, 8, 1, 12, 40, generator=g).to(device_of(backend))
    y[..., :20] = x[..., :20]
    ssim = fast.modality_maps(x, y, modalities=("ssim",), backend=backend)["ssim"]
    assert ssim.min() >= 0
    assert ssim[..., :15].max() <= 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_stay_as_they_were_and_runs_agree_bit_for_bit(backend):
    x, y = torch.rand(2, 2, 3, 20, 30, generator=torch.Generator().manual_seed(3)).to(device_of(backend))
    before = x.clone(), y.clone()
    first = fast.anomaly_map(x, y, backend=backend)
    assert torch.equal(first, fast.anomaly_map(x, y, backend=backend))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert torch.equal(first[1:], fast.anomaly_map(x[1:], y[1:], backend=backend))  # pictures do not mix


@pytest.mark.parametrize("scale", [1e-3, 1e-6, 1e-18])
@pytest.mark.parametrize("backend", BACKENDS)
def test_faint_defects_keep_their_digits(backend, scale):
    """1 - SSIM of nearly equal bright pictures, to a relative 1 %: the similarity itself would round to 1."""
    g = torch.Generator().manual_seed(4)
    x = torch.rand(1, 1, 16, 16, generator=g, dtype=torch.float64) * 0.1
    y = x + scale * torch.rand(x.shape, generator=g, dtype=torch.float64)
    x32, y32 = (t.float().to(device_of(backend)) for t in (x, y))
    ssim = fast.modality_maps(x32, y32, modalities=("ssim",), backend=backend)["ssim"].double().cpu()
    exact = fast.modality_maps(x32.cpu().double(), y32.cpu().double(), modalities=("ssim",), backend="eager")[
        "ssim"
    ]
    assert torch.allclose(ssim, exact, rtol=1e-2, atol=1e-13)


@pytest.mark.parametrize(("low", "contrast"), [(0.9, 0.1), (0.95, 0.01)])
@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_bright_pictures_keep_their_digits(backend, low, contrast):
    """Far from 0 the variance is a small difference of large squares, unless the mean is taken off first."""
    g = torch.Generator().manual_seed(5)
    x = low + contrast * torch.rand(1, 1, 48, 48, generator=g)
    y = x + 1e-3 * (torch.rand(x.shape, generator=g) - 0.5)
    ssim = fast.modality_maps(x, y, modalities=("ssim",), backend=backend)["ssim"].double()
    exact = fast.modality_maps(x.double(), y.double(), modalities=("ssim",), backend="eager")["ssim"]
    assert torch.allclose(ssim, exact, rtol=2e-5, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # in Triton's interpreter
@pytest.mark.parametrize("modalities", [("gms", "ssim", "residual"), ("gms",), ("ssim",), ("residual",)])
def test_nan_is_refused(backend, bad, modalities):
    x = torch.rand(1, 1, 6, 5, device=device_of(backend))
    y = x.clone()
    y[0, 0, 3, 2] = bad
    if x.is_cuda:  # where a check would make the host wait, it shows in the map
        assert not fast.anomaly_map(x, y, modalities=modalities, backend=backend).isfinite().all()
        return
    with pytest.raises(ValueError, match="reconstruction holds 1 values that are NaN or infinite"):
        fast.anomaly_map(x, y, modalities=modalities, backend=backend, median=3 if backend == "numba" else 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_pictures_give_no_maps(backend):
    x = torch.rand(0, 3, 6, 5, device=device_of(backend))
    fused, maps = fast.anomaly_map(x, x, return_modalities=True, backend=backend, median=3)
    assert fused.shape == (0, 6, 5)
    assert all(m.shape == (0, 6, 5) for m in maps.values())


def test_errors_name_what_was_given():
    x = torch.rand(1, 3, 6, 5)
    for arguments, options, error, words in [
        ((x, x[:, :, 1:]), {}, ValueError, r"\(1, 3, 5, 5\); expected \(1, 3, 6, 5\)"),
        ((x[0], x[0]), {}, ValueError, r"image has shape \(3, 6, 5\); expected \(B, C, H, W\)"),
        ((x, x.double()), {}, TypeError, "float64"),
        (((x * 255).byte(), x), {}, TypeError, "uint8"),
        ((x[:, :0], x[:, :0]), {}, ValueError, "above 0"),
        ((x, x), {"median": 4}, ValueError, "median is 4; expected an odd number"),
        ((x, x), {"modalities": ("gms", "gms")}, ValueError, "each once"),
        ((x, x), {"modalities": ()}, ValueError, "one or more"),
        ((x, x), {"modalities": ("psnr",)}, ValueError, "psnr"),
        ((x, x), {"backend": "cuda"}, ValueError, "cuda"),
    ]:
        with pytest.raises(error, match=words):
            fast.anomaly_map(*arguments, **options)
    with pytest.raises(fast.BackendUnavailable, match="float32 and float64"):
        fast.anomaly_map(x.half(), x.half(), backend="numba")
    with pytest.raises(ValueError, match="window is 4"):
        fast.ssim(x, x, window=4)
    with pytest.raises(ValueError, match="sigma"):
        fast.ssim(x, x, sigma=0.0)


@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_gradients(backend):
    g = torch.Generator().manual_seed(5)
    x, y = (torch.rand(1, 1, 4, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: fast.anomaly_map(a, b, backend=backend), (x, y))
    everything = lambda a, b: list(fast.modality_maps(a, b, median=3, backend=backend).values())  # noqa: E731
    assert torch.autograd.gradcheck(everything, (x, y))
    flat = torch.full_like(x, 0.5).requires_grad_()  # a root of zero everywhere
    fast.anomaly_map(flat, flat, backend=backend).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_operator_is_registered_in_full():
    x, y = torch.rand(2, 1, 2, 9, 8, dtype=torch.float64)
    arguments = (x.requires_grad_(), y.requires_grad_(), [True, False, True], 3, True, "numba")
    torch.library.opcheck(fusion._anomaly_map, arguments)


@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_compile_takes_it_whole(backend):
    x, y = torch.rand(2, 2, 3, 20, 17, generator=torch.Generator().manual_seed(6))
    compiled = torch.compile(fast.anomaly_map, fullgraph=True, backend="aot_eager")
    assert_close(
        compiled(x, y, backend=backend), oracle(reference.fusion.anomaly_map, x, y), dtype=x.dtype, scale=1
    )


def test_export_needs_nothing_but_aten():
    class Map(torch.nn.Module):
        def forward(self, x, y):
            return fast.anomaly_map(x, y)

    x, y = torch.rand(2, 1, 3, 20, 17, generator=torch.Generator().manual_seed(7))
    program = torch.export.export(Map(), (x, y))
    assert "fmrnet" not in str(program.graph)
    assert torch.allclose(program.module()(x, y), fast.anomaly_map(x, y), rtol=1e-4, atol=1e-7)


def test_autocast_changes_nothing():
    x, y = torch.rand(2, 1, 3, 20, 17, generator=torch.Generator().manual_seed(8))
    plain = fast.anomaly_map(x, y, backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast.anomaly_map(x, y, backend="eager"), plain)


def test_a_panel_takes_no_memory_but_its_map():
    """2560 x 3840 x 3: measured in a process of its own, beyond pictures and map less than two rows of tiles."""
    pytest.importorskip("resource", reason="peak memory is read with the resource module, which Unix has")
    from fmrnet.fast import _fusion_numba as kernels

    script = Path(__file__).parents[1] / "bench" / "memory.py"
    run = [sys.executable, str(script)]
    found = json.loads(subprocess.check_output(run, env=os.environ | {"OMP_NUM_THREADS": "2"}))
    assert found["map"] == 4 * 2560 * 3840
    assert found["beyond"] < 2 * 4 * kernels.ROWS * 3840 * 3
