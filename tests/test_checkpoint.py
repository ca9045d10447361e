"""Checkpoints: whole, or refused in one line, whatever they hold; and room for them is asked for first."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from weave import TINY

from fmrnet.artifact import read_tensors, write_tensors
from fmrnet.errors import ArtifactError, FmrnetError
from fmrnet.learning import generator_training
from fmrnet.learning.checkpoint import Checkpoint, Position, unfinished
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.learning.generator_training import Networks, Step
from fmrnet.network.model import FMRNet

CONFIG = replace(TINY, image_channels=1, schedule="constant")


def networks(seed=0):
    torch.manual_seed(seed)
    return Networks(FMRNet(CONFIG), Discriminator(CONFIG), AuxiliaryClassifier(CONFIG))


@pytest.fixture(scope="module")
def begun():
    """Networks and optimisers after two steps of phase 1."""
    made = networks()
    optimisers = made.begin(1)
    for _ in range(2):
        crops = [torch.rand(2, 1, 64, 64) for _ in range(3)]
        generator_training.update(made, optimisers, Step(*crops, torch.zeros(2, 64, 64)), 1)
    return made, optimisers


def checkpoint_in(folder):
    return Checkpoint(folder / "a.fmr", CONFIG.to_dict(), "good", "natural")


@pytest.fixture(scope="module")
def written(begun, tmp_path_factory):
    checkpoint = checkpoint_in(tmp_path_factory.mktemp("checkpoint"))
    checkpoint.save(*begun, Position(1, 2, 3.5, [(1, 1, 0.25)], [0.1, 0.2]))
    return checkpoint.path


@pytest.fixture
def saved(written, tmp_path):
    """A checkpoint to change."""
    checkpoint = checkpoint_in(tmp_path)
    shutil.copy(written, checkpoint.path)
    return checkpoint


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) or a[key].isnan().all() for key in a)


def test_everything_comes_back(saved, begun):
    other = networks(seed=1)
    position, optimisers = saved.load(other)
    assert position == Position(1, 2, 3.5, [(1, 1, 0.25)], [0.1, 0.2])
    for name, module in begun[0].modules.items():
        assert same(module.state_dict(), other.modules[name].state_dict())
    for name, optimiser in begun[1].items():
        for before, after in zip(
            optimiser.state_dict()["state"].values(),
            optimisers[name].state_dict()["state"].values(),
            strict=True,
        ):
            assert same(before, after)
    assert "phase 1 at step 2 of 6, 3.5 s long" in unfinished(saved.path)


def refused(checkpoint, tensors, metadata):
    """Loading what was changed gives one line with the file's name, and leaves the networks as they were."""
    write_tensors(checkpoint.path, tensors, metadata)
    with pytest.raises(ArtifactError) as caught:
        checkpoint.load(networks())
    assert "\n" not in str(caught.value)
    assert str(checkpoint.path) in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


POSITIONS = [
    {"phase": 0}, {"phase": 5}, {"phase": 2.0}, {"phase": True}, {"phase": "1"}, {"phase": None}, {"phase": 2**62},
    {"step": -1}, {"step": 7}, {"step": 1.0}, {"step": [2]}, {"phase": 4, "step": 1}, {"phase": 3, "step": 5},
    {"seconds": -1}, {"seconds": "1"}, {"seconds": 1e300}, {"seconds": None},
    {"history": None}, {"history": [1]}, {"history": [[1, 2]]}, {"history": [[1, 2, "x"]]}, {"history": [[1, -2, 3]]},
    {"history": {}}, {"recent": 1}, {"recent": ["x"]}, {"recent": [1e300]}, {"recent": [[0.1]]}, {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", POSITIONS, ids=str)
def test_a_position_that_no_training_has(saved, change):
    tensors, metadata = read_tensors(saved.path)
    metadata["position"] |= change
    refused(saved, tensors, metadata)


@pytest.mark.parametrize("position", [None, [], 3, "1", {}, {"phase": 1, "step": 2}], ids=str)
def test_no_position(saved, position):
    tensors, metadata = read_tensors(saved.path)
    refused(saved, tensors, {**metadata, "position": position})
    assert unfinished(saved.path) == "a checkpoint that cannot be read"
    del metadata["position"]
    refused(saved, tensors, metadata)


@pytest.mark.parametrize("config", [None, [], {}, {"iterations": 3}, {"iterations": [1, "2", 3]}], ids=str)
def test_no_settings(saved, config):
    tensors, metadata = read_tensors(saved.path)
    assert "differs" in refused(saved, tensors, {**metadata, "config": config})
    assert unfinished(saved.path) == "a checkpoint that cannot be read"


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip
FIELDS = ("phase", "step", "seconds", "history", "recent")


@settings(max_examples=300, deadline=None)
@given(content=json | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json)))
def test_any_position_is_one_or_a_value_error(content):
    try:
        position = Position.from_json(content, (6, 5, 4))
    except ValueError:
        return
    assert 0 <= position.step <= (6, 5, 4, 0)[position.phase - 1]


MEMORY = "model.memory"
WEIGHT = "model.encoder.0.conv.weight"
MEAN, SQUARE, COUNT = (f"moments.generator.0.{name}" for name in ("exp_avg", "exp_avg_sq", "step"))


@pytest.mark.parametrize("key", [WEIGHT, MEMORY, "classifier.layers.0.bias", MEAN, SQUARE, COUNT])
@pytest.mark.parametrize("change", ["missing", "shape", "empty", "double", "half", "integer", "boolean"])
def test_tensors_that_do_not_fit(saved, key, change):
    tensors, metadata = read_tensors(saved.path)
    value = tensors.pop(key)
    changes = {
        "shape": np.zeros((3, *value.shape), np.float32),
        "empty": np.zeros(0, np.float32),
        "double": value.astype(np.float64),
        "half": value.astype(np.float16),
        "integer": np.zeros(value.shape, np.int32),
        "boolean": np.zeros(value.shape, np.bool_),
    }
    refused(saved, tensors | ({key: changes[change]} if change in changes else {}), metadata)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (WEIGHT, float("nan")),
        (WEIGHT, float("inf")),
        ("classifier.layers.0.bias", float("-inf")),
        ("discriminator.blocks.0.norm.running_var", -1.0),
        (MEAN, float("nan")),
        (SQUARE, float("inf")),
        (SQUARE, -1e-9),
        (COUNT, 3.0),
        (COUNT, 0.0),
        (COUNT, float("nan")),
    ],
)
def test_values_that_no_training_gives(saved, key, value):
    tensors, metadata = read_tensors(saved.path)
    tensors[key] = tensors[key].copy()
    tensors[key].reshape(-1)[-1] = value
    refused(saved, tensors, metadata)


def test_a_bank_of_nan_after_phase_1(saved):
    tensors, metadata = read_tensors(saved.path)
    metadata["position"] |= {"phase": 2, "step": 0}
    assert "memory is not finite" in refused(saved, tensors, metadata)


def test_what_else_the_file_holds(saved):
    tensors, metadata = read_tensors(saved.path)
    assert "what the file holds differs" in refused(saved, tensors, {**metadata, "kind": "model"})
    assert "good pictures differs" in refused(saved, tensors, {**metadata, "good_sha256": ["\x1b[31m"]})
    odd = {**metadata["config"], "\x1b[31m" * 1000: 1}
    assert "list of settings differs" in refused(saved, tensors, {**metadata, "config": odd})
    assert "model does not fit" in refused(saved, tensors | {"model.\x1b": np.zeros(1)}, metadata)


def test_divergence_is_not_kept(saved, begun):
    from fmrnet.learning.training import Run

    before = saved.path.read_bytes()
    run = Run(begun[0], saved, lambda: True, None, Position(1, 2), begun[1], [torch.tensor(float("nan"))])
    with pytest.raises(FmrnetError, match="diverged in phase 1 at step 2 of 6"):
        run.stop_if_asked()
    assert saved.path.read_bytes() == before
