"""The benchmark scripts: what they say where they cannot run, and what their results say of where they come from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fmrnet.conformance.record import record

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


@pytest.mark.slow
def test_gpu_script_runs_dry_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ["--dry", "--budget", "0.01", "--out", out]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, ROOT / "bench/gpu.py", *words], check=True, env=environment)
    found = json.loads(out.read_text())
    assert found["inspection"]["largest_difference_of_maps"] < 1e-5
    assert set(found["training"]["edge"]["step_seconds"]) == {
        "phase 1",
        "phase 2",
        "crops",
        "fusion",
        "defects",
    }
    assert "phase 1" in found["training"]["paper, a part"]["step_seconds"]
    assert out.with_suffix(".png").exists()


def test_a_record_tells_no_folders_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = [
        "x.py",
        f"{tmp_path}/sets/tile",
        f"name={tmp_path}/sets/cloth",
        f"--out={tmp_path}/a",
        "--set",
        "k=3",
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert record(ROOT)["command"].split()[1:] == ["x.py", "tile", "name=cloth", "--out=a", "--set", "k=3"]
