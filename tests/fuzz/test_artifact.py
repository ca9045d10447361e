"""Model files that are cut, flipped, or made up by a stranger: a model, or one line that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import assemble, forge, signed
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import CONFIG

from fmrnet import artifact
from fmrnet.artifact import read_tensors
from fmrnet.errors import ArtifactError
from fmrnet.network.model import FMRNet
from fmrnet.network.weights import arrays, restore

numbers = st.integers() | st.floats() | st.sampled_from([2**31, 2**53, 2**63, 2**64, 10**400, -1, 0, True])
hostile_json = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
counts = st.integers(-2, 9) | numbers
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F64", "I64", "BOOL", "F8_E4M3", "C64", "F4"]) | hostile_json,
        "shape": st.lists(counts, max_size=4) | hostile_json,
        "data_offsets": st.lists(counts, min_size=1, max_size=3) | hostile_json,
        "more": hostile_json,
    },
)


def reason(read: Callable[[], object], path: Path) -> str | None:
    """Why a file is not read, which must be told in one short line; None if it is read."""
    try:
        read()
    except ArtifactError as error:
        message = str(error).replace(str(path), "")
    else:
        return None
    assert message.isprintable()
    assert len(message) < 500
    return message


def read_model(path: Path) -> FMRNet:
    """All of `fmrnet.load` but the thresholds."""
    found = artifact.load(path)
    return restore(found.config, found.weights)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.fmr"


@pytest.fixture(scope="module")
def weights() -> dict[str, NDArray[Any]]:
    torch.manual_seed(0)
    model = FMRNet(CONFIG)
    torch.nn.init.normal_(model.memory)
    return arrays(model.state_dict())


@pytest.fixture(scope="module")
def whole(path: Path, weights: dict[str, NDArray[Any]]) -> bytes:
    """A file that is right, but for thresholds, of which there are none."""
    metadata = {
        "kind": "model",
        "config": CONFIG.to_dict(),
        "calibration": {},
        "provenance": {"seed": 1},
        "graphs": {},
    }
    content = forge(path, weights, metadata).read_bytes()
    read_model(path)
    return content


@given(st.integers(0, 20) | st.integers(0, 10**9))
def test_cut_files_are_refused(path, whole, length):
    path.write_bytes(whole[: length % len(whole)])
    with pytest.raises(ArtifactError, match=r"empty|cut short"):
        read_tensors(path)


@given(st.data())
def test_altered_files_are_refused(path, whole, data):
    places = st.integers(0, len(whole) - 1) | st.integers(0, 4000)  # the header is at the front
    altered = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4)):
        altered[place] ^= value
    if bytes(altered) == whole:
        return
    path.write_bytes(altered)
    with pytest.raises(ArtifactError):
        read_tensors(path)


@given(st.dictionaries(st.text(max_size=8), entries, max_size=3), hostile_json, st.binary(max_size=64))
def test_made_up_headers_are_refused_or_read(path, tensors, metadata, data):
    header = {"__metadata__": {"fmrnet": signed({}, metadata)}, **tensors}
    assemble(path, header, data)
    reason(lambda: read_tensors(path), path)


@given(st.text(max_size=200) | hostile_json.map(json.dumps), st.binary(max_size=64))
def test_made_up_text_is_refused(path, text, data):
    assemble(path, text, data)
    assert reason(lambda: read_tensors(path), path)


@given(st.binary(max_size=200))
def test_made_up_bytes_are_refused(path, content):
    path.write_bytes(content)
    assert reason(lambda: read_tensors(path), path)


@given(st.data())
def test_made_up_settings_are_refused_or_make_the_same_network(path, weights, data):
    """One place of the metadata of a right model holds anything."""
    metadata = {
        "kind": "model",
        "config": CONFIG.to_dict(),
        "calibration": {},
        "provenance": {"seed": 1},
        "graphs": {},
    }
    part = data.draw(st.sampled_from(list(metadata)))
    if part == "config" and data.draw(st.booleans()):
        metadata["config"][data.draw(st.sampled_from(list(metadata["config"])))] = data.draw(hostile_json)
    else:
        metadata[part] = data.draw(hostile_json)
    forge(path, weights, metadata)
    if reason(lambda: read_model(path), path) is None:
        shapes = {name: tensor.shape for name, tensor in read_model(path).state_dict().items()}
        assert shapes == {name: tensor.shape for name, tensor in weights.items()}


@given(st.data())
def test_made_up_weights_are_refused_or_finite(path, weights, data):
    names = data.draw(st.lists(st.sampled_from(list(weights)), min_size=1, max_size=3))
    changed = dict(weights)
    for name in names:
        dtype = data.draw(st.sampled_from([np.float32, np.float32, np.float64, np.int64, np.bool_]))
        shape = data.draw(st.sampled_from([tuple(weights[name].shape)] * 3 + [(), (0,), (3, 5)]))
        value = data.draw(st.floats(width=32))
        changed[name] = np.full(shape, value if issubclass(dtype, np.floating) else 1, dtype)
    metadata = {
        "kind": "model",
        "config": CONFIG.to_dict(),
        "calibration": {},
        "provenance": {"seed": 1},
        "graphs": {},
    }
    forge(path, changed, metadata)
    if reason(lambda: read_model(path), path) is None:
        assert all(tensor.isfinite().all() for tensor in read_model(path).state_dict().values())
