"""What the Triton kernels of the anomaly map are built of, where windows are too large to try them whole."""

import numpy as np
import pytest
import torch
from conftest import device_of

triton = pytest.importorskip("triton")
tl = triton.language

from fmrnet.fast._fusion_triton import _mirror  # noqa: E402


@triton.jit
def _mirrored(out, n):
    i = tl.arange(0, 128)
    tl.store(out + i, _mirror(i - 64, n, True))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_mirrored_however_far_outside(n):
    """What is left of a division has there the sign of what is divided, as in C."""
    out = torch.empty(128, dtype=torch.int32, device=device_of("triton"))
    _mirrored[(1,)](out, n)
    assert out.tolist() == np.pad(np.arange(n), 64, mode="symmetric")[:128].tolist()
