"""Compiled loops give the same bits in the process that compiles them and in one that loads them from disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, json
import torch
from fmrnet import fast

torch.manual_seed(0)

image, other = torch.rand(2, 3, 70, 90), torch.rand(2, 3, 70, 90)
shapes = dict(grid=torch.rand(2, 5, 5), line=40 * torch.rand(2, 7), dots=40 * torch.rand(2, 3, 3))
scalars = dict(level=torch.rand(2), edge=0.1 + torch.rand(2), destructive=torch.zeros(2), opacity=torch.rand(2))
results = {
    f"synthesis {kind}": fast.synthesize(
        image, other, kind=torch.full((2,), kind), **shapes, **scalars, backend="numba"
    )
    for kind in range(3)
}
for median in (0, 3):
    fused, maps = fast.anomaly_map(image, other, median=median, return_modalities=True, backend="numba")
    results[f"anomaly map, median {median}"] = (fused, *maps.values())
for layout in (torch.contiguous_format, torch.channels_last):
    for mixing in (None, torch.randn(3, 3), torch.randn(16, 16, 3, 3)):
        skip, memory = (torch.randn(2, 24, 8, 8).to(memory_format=layout).requires_grad_() for _ in range(2))
        out = fast.rearrange_textons(skip, memory, mixing=mixing, temperature=0.1, backend="numba")
        gradients = torch.autograd.grad(out.square().sum(), (skip, memory))
        results[f"textons {layout}, {None if mixing is None else mixing.ndim}"] = (out, *gradients)
results["memory"] = fast.nearest_distance(torch.randn(300, 128), torch.randn(512, 128), backend="numba")

def digest(tensors): return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors))

print(json.dumps({name: digest(tensors).hexdigest() for name, tensors in results.items()}))
"""


def _digests(cache: Path) -> dict[str, str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    digests: dict[str, str] = json.loads(run.stdout)
    return digests


@pytest.mark.slow
def test_compiling_and_loading_processes_agree(tmp_path: Path) -> None:
    compiling = _digests(tmp_path)
    assert any(tmp_path.rglob("*.nbi")), "nothing was kept on disk"
    assert compiling == _digests(tmp_path)
