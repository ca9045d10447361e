"""The benchmark scripts: what they say where they cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it does where there is no GPU")
def test_gpu_script_without_a_gpu_says_so_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    ended = subprocess.run(
        [sys.executable, ROOT / "bench/gpu.py", "--out", out],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "bench/gpu.py needs a CUDA device and found none; nothing was measured and nothing written"
    ]
    assert not out.exists()
