"""A forked child inspects: the threads that torch and onnxruntime compute with do not come along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PARENT = """
import multiprocessing, os, sys
import torch
import tiny
from fmrnet import fast

torch.set_num_threads(2)
inspector, picture = tiny.make_inspector(), tiny.ground(300, 300)
score = inspector.inspect(picture).score
batch = torch.rand(2, 1, 256, 256)
fast.anomaly_map(batch, batch, backend="eager")  # inspect takes numba

def inspects_alone(_=None):
    fast.anomaly_map(batch, batch, backend="eager")
    return inspector.inspect(picture).score == score and torch.get_num_threads() == 1


if sys.argv[1] == "fork":
    child = os.fork()
    if not child:
        grandchild = os.fork()
        if not grandchild:
            os._exit(0 if inspects_alone() else 1)
        os._exit(0 if inspects_alone() and os.waitpid(grandchild, 0)[1] == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
else:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(inspects_alone, range(4)) == [True] * 4
assert torch.get_num_threads() == 2
assert inspector.inspect(picture).score == score
"""

GRAPHS = """
import os
import handmade, tiny
from fmrnet.engines import runtimes

runtimes.threads = lambda: 2
inspector, picture = handmade.make_inspector(), tiny.ground(600, 600)
score = inspector.inspect(picture).score
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if inspector.inspect(picture).score == score else 1)
    assert inspector.inspect(picture).score == score
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_child_inspects_by_graphs():
    pytest.importorskip("onnx")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", GRAPHS], env=environment, timeout=300, check=True)


@pytest.mark.parametrize("way", ["fork", "pool"])
def test_inspect_fork_inspect(way):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "OMP_WAIT_POLICY": "passive"}
    subprocess.run([sys.executable, "-c", PARENT, way], env=environment, timeout=300, check=True)
