"""The anomaly map of every backend against the oracle, and what must hold of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conforming import ALL, EAGER, EVERY, conforming, hold, kernel_of
from conftest import device_of
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from fmrnet import fast, reference
from fmrnet.conformance.strategies import seeds
from fmrnet.conformance.tolerances import assert_close
from fmrnet.fast import fusion

BACKENDS = ("eager", "numba", "triton")
FUSED = EVERY | {"numba": ALL[:2]}
pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


@conforming("anomaly_map", FUSED)
def test_anomaly_map_conforms(backend, dtype, prop):
    hold(prop, kernel_of("anomaly_map", backend, dtype))


@conforming("modality_maps", FUSED)
def test_modality_maps_conform(backend, dtype, prop):
    hold(prop, kernel_of("modality_maps", backend, dtype))


@conforming("gms", EAGER)
def test_gms_conforms(backend, dtype, prop):
    hold(prop, kernel_of("gms", backend, dtype))


@conforming("ssim", EAGER)
def test_ssim_conforms(backend, dtype, prop):
    hold(prop, kernel_of("ssim", backend, dtype))


@conforming("residual", EAGER)
def test_residual_conforms(backend, dtype, prop):
    hold(prop, kernel_of("residual", backend, dtype))


def oracle(function, x: torch.Tensor, y: torch.Tensor, **options) -> np.ndarray:
    """The reference, picture by picture, on the very numbers that the backend is given."""
    planes = [t.detach().cpu().double().permute(0, 2, 3, 1).numpy() for t in (x, y)]
    return np.stack([function(*pair, **options) for pair in zip(*planes)])


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


def test_what_cuda_takes_is_what_the_cpu_takes():
    """Sums of slices for convolutions, which cuDNN would round to TF32, and a sort for the median."""
    x = torch.rand(2, 3, 14, 17, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for down, across in ((fusion.gaussian(1.5, 11),) * 2, ([-1.0, 0.0, 1.0], [1 / 3] * 3)):
        found = fusion._correlated(fusion._correlated(x, down, 2), across, 3)
        torch.testing.assert_close(found, fusion._separable(x, down, across), rtol=1e-12, atol=1e-14)
    values = x.flatten(2)[..., :-1]
    assert torch.equal(fusion._middle(values), values.median(-1).values)
    values[0, 1, 2] = torch.nan
    assert fusion._middle(values).isnan().nonzero().tolist() == [[0, 1]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("compiled", [False, True])
def test_eager_maps_are_exact_on_a_gpu(monkeypatch, compiled):
    """cuDNN's TF32, which is its default, was off by 1e-4."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    x, y = torch.rand(2, 1, 3, 96, 130, generator=torch.Generator().manual_seed(10))
    maps = lambda x, y: list(fast.modality_maps(x, y, backend="eager").values())  # noqa: E731
    call = torch.compile(maps, fullgraph=True, backend="aot_eager") if compiled else maps
    for found, right in zip(call(x.cuda(), y.cuda()), maps(x.double(), y.double())):
        assert (found.cpu() - right).abs().max() <= 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_pictures_do_not_mix(backend):
    x, y = torch.rand(2, 2, 3, 20, 30, generator=torch.Generator().manual_seed(3)).to(device_of(backend))
    both = fast.anomaly_map(x, y, backend=backend)
    assert torch.equal(both[1:], fast.anomaly_map(x[1:], y[1:], backend=backend))


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
