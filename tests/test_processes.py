"""Processes that train together: what one would learn, one voice, and an end of all when one ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from together import EXACT, SHARED, learn_exactly
from weave import TINY, learn, make_pictures, weights_of

import fmrnet
from fmrnet.errors import ConfigError
from fmrnet.learning import data, processes, training
from fmrnet.learning.checkpoint import checkpoint_path

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without torch.distributed"
)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def torchrun(*words):
    """What two processes print and return."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, *map(str, words)], capture_output=True, text=True, timeout=250, env=environment
    )


def told(ended):
    """The lines that the processes, not torchrun, wrote to standard error."""
    return [line for line in ended.stderr.splitlines() if "fmrnet: " in line]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of two processes that did what stands in together.py, and what they printed."""
    folder = tmp_path_factory.mktemp("together")
    make_pictures(folder)
    return folder, torchrun(Path(__file__).parent / "together.py", folder)


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_learn_what_one_does(together, tmp_path, name):
    """The loss of every step of all phases, in 64 bits; and every weight, norm's moment and memory entry at the end."""
    folder, ended = together
    learn_exactly(make_pictures(tmp_path), name)
    alone, first, second = (
        json.loads(path.read_text())
        for path in (tmp_path / f"{name}.alone.json", folder / f"{name}.0.json", folder / f"{name}.1.json")
    )
    assert [entry[:2] for entry in first] == [entry[:2] for entry in alone], ended.stderr
    assert len(first) == sum(EXACT[name].steps)
    assert first == second
    np.testing.assert_allclose([loss for *_, loss in first], [loss for *_, loss in alone], rtol=1e-11)
    expected, found, again = (
        weights_of(path) for path in (tmp_path / f"{name}.alone", folder / f"{name}.0", folder / f"{name}.1")
    )
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-8, atol=1e-9)
        assert np.array_equal(found[key], again[key]), key


def test_the_model_of_two_processes_is_the_model_of_one(together, tmp_path):
    """They were stopped on the way by a signal to the second, and went on."""
    folder, ended = together
    model = learn(make_pictures(tmp_path), tmp_path / "model", config=SHARED)
    found, expected = weights_of(folder / "model"), weights_of(tmp_path / "model")
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0.01, atol=0.01)
    loaded = fmrnet.load(folder / "model")
    assert loaded.provenance["processes"] == 2, ended.stderr
    assert model.provenance["processes"] == 1
    assert not checkpoint_path(folder / "model").exists()


def test_one_that_is_killed_ends_all_with_one_line(together):
    folder, ended = together
    assert ended.returncode == 1
    assert len(told(ended)) == 1, ended.stderr
    (line,) = told(ended)
    assert "another process of this training has ended; repeat the command with --resume" in line
    assert not (folder / "killed").exists()
    assert checkpoint_path(folder / "killed").exists()
    one = learn(folder / "good", folder / "killed", config=SHARED, resume=True)  # a single process goes on
    assert one.provenance["processes"] == 1
    found = weights_of(folder / "killed")
    for key, value in weights_of(folder / "model").items():
        np.testing.assert_allclose(found[key], value, rtol=0.01, atol=0.01)


@pytest.mark.slow
def test_a_mistake_is_told_once_and_keeps_its_exit_code(tmp_path):
    ended = torchrun("-m", "fmrnet", "train", tmp_path / "missing", "--out", tmp_path / "a.fmr")
    (line,) = told(ended)
    assert line == f"fmrnet: {tmp_path / 'missing'}: no such folder; expected a folder of good pictures"
    assert "exitcode  : 2" in ended.stderr
    assert ended.stdout == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_the_first_process_alone_prints_the_results(tmp_path):
    good = make_pictures(tmp_path)
    ended = torchrun("-m", "fmrnet", "train", good, "--out", tmp_path / "a.fmr", "--preset", "instant")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("wrote ")] == lines[:1]
    assert len(set(lines)) == len(lines)
    assert fmrnet.load(tmp_path / "a.fmr").provenance["processes"] == 2


@pytest.mark.parametrize(
    ("count", "batch", "message"),
    [
        (
            3,
            32,
            "3 processes cannot share evenly the 32 crops of a step of phase 1; start as many as one of 1, 2, 4",
        ),
        (2, 4, "2 processes cannot share evenly the 1 crops of a step of fusion; start as many as one of 1"),
        (
            8,
            32,
            "8 processes cannot share evenly the 12 crops of a step of head; start as many as one of 1, 2, 4",
        ),
    ],
)
def test_a_batch_that_cannot_be_shared_is_named(monkeypatch, count, batch, message):
    monkeypatch.setattr(processes, "count", lambda: count)
    pool = data.PicturePool([np.zeros((128, 128, 1), np.float32)])
    config = training.dataclasses.replace(TINY, batch_size=batch, general=True, head_iterations=3)
    with pytest.raises(ConfigError) as caught:
        training._check_shares(config, pool, pool)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "WORLD_SIZE is 2 and RANK, MASTER_ADDR, MASTER_PORT missing: start processes .* with torchrun"),
        (
            {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "none"},
            "do not meet .RANK 0, WORLD_SIZE 2, .*; start them with torchrun",
        ),
        (
            {"RANK": "9", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "do not meet .RANK 9, WORLD_SIZE 2, .*",
        ),
    ],
)
def test_processes_that_cannot_meet_say_so(tmp_path, monkeypatch, given, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "MEETING", training.processes.timedelta(seconds=1))
    with pytest.raises(ConfigError, match=message):
        learn(make_pictures(tmp_path), tmp_path / "a")
    assert not torch.distributed.is_initialized()


def test_a_gpu_of_its_own_for_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"process 2 of this machine has no CUDA device, .* 1: start 1"):
        processes._own_device("auto")
    with pytest.raises(ConfigError, match="'cuda:0' of several processes: expected cuda"):
        processes._own_device("cuda:0")
    assert processes._own_device("cpu") == torch.device("cpu")
