"""A training that is killed, at random moments and again and again, and resumed, ends with the same weights.

Each child is forked from a server that has loaded everything, so that a life costs no more than its steps.
"""

import math
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from weave import learn_and_save_often, make_pictures, weights_of

KILLS = {"quick": 6, "long": 2000}[os.environ.get("FUZZ", "quick")]
LOADED = ["fmrnet.learning.training", "torch._dynamo", "sklearn.cluster", "sklearn.datasets", "scipy.ndimage"]
LIVES = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("weave"))


def live(good, out, seconds=math.inf, how=signal.SIGKILL):
    """A training in a process of its own, killed after so many seconds; gives its exit code."""
    child = LIVES.Process(target=learn_and_save_often, args=(good, out))
    child.start()
    child.join(None if seconds == math.inf else seconds)
    if child.is_alive():
        os.kill(child.pid, how)
    child.join()
    return child.exitcode


@pytest.mark.skipif(LIVES is None, reason="no fork on this system")
@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGTERM])
def test_killed_and_resumed(good, tmp_path, monkeypatch, how):
    LIVES.set_forkserver_preload(LOADED)
    monkeypatch.setenv(
        "FMRNET_BACKEND", "eager"
    )  # a kernel that is compiled anew in each life would take its time
    assert live(good, tmp_path / "first") == 0  # starts the server
    began = time.monotonic()
    assert live(good, tmp_path / "whole") == 0
    whole, usual = weights_of(tmp_path / "whole"), time.monotonic() - began
    moments, kills, number = random.Random(0), 0, 0
    while kills < KILLS // 2:
        number += 1
        out = tmp_path / f"{number}"
        while (code := live(good, out, moments.uniform(0, usual), how)) != 0:
            assert code in (-how, 1) if how == signal.SIGTERM else code == -how
            kills += 1
        found = weights_of(out)
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], whole[name]) for name in whole)
        assert not out.with_name(f"{out.name}.checkpoint").exists()
