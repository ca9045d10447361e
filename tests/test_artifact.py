"""A model file comes back as it was, and a file that is anything else is refused before it is used."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import ground, make_inspector

import fmrnet
from fmrnet import artifact
from fmrnet.artifact import check_writable, read_tensors, write_tensors
from fmrnet.errors import ArtifactError

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    tensor = (torch.rand(shape, generator=generator) * 9).to(draw(st.sampled_from(DTYPES)))
    return tensor.mT if tensor.ndim >= 2 and draw(st.booleans()) else tensor


@given(
    content=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda t: t != "__metadata__"), tensors(), max_size=4
    ),
    metadata=st.dictionaries(st.text(), json_values, max_size=4),
)
def test_tensors_and_metadata_come_back(tmp_path_factory, content, metadata):
    path = tmp_path_factory.mktemp("models") / "a.fmr"
    write_tensors(path, content, metadata)
    found, about = read_tensors(path)
    assert about == metadata
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path):
    a, b = torch.arange(6.0).view(2, 3), torch.arange(4)
    write_tensors(tmp_path / "1", {"a": a, "b": b, "view": a[1:]}, {"x": 1, "y": [2]})
    write_tensors(tmp_path / "2", {"view": a[1:], "b": b, "a": a}, {"y": [2], "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.fmr"
    write_tensors(
        path, {"a": torch.arange(5.0), "b": torch.tensor([1, 2])}, {"kind": "model", "x": [1, None]}
    )
    return path.read_bytes()


def test_every_cut_is_noticed(tmp_path, small):
    path = tmp_path / "cut.fmr"
    for length in range(len(small)):
        path.write_bytes(small[:length])
        with pytest.raises(ArtifactError, match="empty" if length == 0 else "cut short"):
            read_tensors(path)


def test_every_flipped_bit_is_noticed(tmp_path, small):
    path = tmp_path / "flipped.fmr"
    for place in range(len(small)):
        for bit in (1, 8, 128):
            altered = bytearray(small)
            altered[place] ^= bit
            path.write_bytes(altered)
            with pytest.raises(ArtifactError):
                read_tensors(path)


def test_appended_bytes_are_noticed(tmp_path, small):
    (tmp_path / "a.fmr").write_bytes(small + b"\0")
    with pytest.raises(ArtifactError, match="damaged"):
        read_tensors(tmp_path / "a.fmr")


def test_an_altered_weight_and_an_altered_threshold_are_named_so(tmp_path, small):
    path = tmp_path / "a.fmr"
    path.write_bytes(small[:-1] + bytes([small[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="altered since it was written"):
        read_tensors(path)
    path.write_bytes(small.replace(b'\\"x\\":[1', b'\\"x\\":[2'))
    with pytest.raises(ArtifactError, match="altered since it was written"):
        read_tensors(path)


def test_a_newer_format_is_refused_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "new.fmr"
    monkeypatch.setattr(artifact, "FORMAT_VERSION", 2)
    write_tensors(path, {"a": torch.zeros(1)}, {})
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="format version 2, this release reads up to 1; upgrade fmrnet"):
        read_tensors(path)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 not a model" * 9,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2**24 + 1) + bytes(100),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 8) + b'{"a": 1}',
        safetensors.torch.save({"a": torch.zeros(2)}),
        safetensors.torch.save({"a": torch.zeros(2)}, {"fmrnet": "7"}),
        safetensors.torch.save(
            {"a": torch.zeros(2)}, {"fmrnet": json.dumps({"version": "1", "metadata": {}})}
        ),
        b"[" * 100_000,
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "foreign.fmr"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="no FMR-Net model"):
        read_tensors(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist; expected a model"):
        read_tensors(tmp_path / "none.fmr")
    with pytest.raises(ArtifactError, match="is a folder"):
        read_tensors(tmp_path)


def test_a_model_comes_back_and_inspects_alike(tmp_path):
    inspector = make_inspector()
    inspector.save(tmp_path / "a.fmr")
    again = fmrnet.load(tmp_path / "a.fmr", device="cpu")
    assert again.config == inspector.config
    assert again.calibration == inspector.calibration
    assert again.provenance == inspector.provenance
    here, there = inspector.inspect(ground(), "pixel"), again.inspect(ground(), "pixel")
    assert here.score == pytest.approx(there.score, rel=1e-5)
    # Weights come back in another memory order, so convolutions sum in another order.
    np.testing.assert_allclose(here.anomaly_map, there.anomaly_map, atol=1e-6)


def test_a_checkpoint_is_no_model(tmp_path):
    write_tensors(tmp_path / "a.fmr.checkpoint", {}, {"kind": "checkpoint"})
    with pytest.raises(ArtifactError, match=r"holds a checkpoint of FMR-Net, not a model; .* --resume"):
        artifact.load(tmp_path / "a.fmr.checkpoint")


def test_a_model_without_its_settings_is_refused(tmp_path):
    write_tensors(tmp_path / "a.fmr", {}, {"kind": "model"})
    with pytest.raises(ArtifactError, match="lacks the settings"):
        artifact.load(tmp_path / "a.fmr")


def test_settings_of_another_release_are_refused_with_the_files_name(tmp_path):
    inspector = make_inspector()
    parts = {
        "kind": "model",
        "config": inspector.config.to_dict(),
        "calibration": inspector.calibration.to_dict(),
        "provenance": {},
    }
    for part in ("config", "calibration"):
        write_tensors(tmp_path / "a.fmr", {}, {**parts, part: {**parts[part], "k": "three"}})
        with pytest.raises(
            ArtifactError, match=r"a\.fmr holds settings that this release does not take: .*k = 'three'"
        ):
            fmrnet.load(tmp_path / "a.fmr")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    inspector = make_inspector()
    weights = dict(inspector.model.state_dict())
    weights.pop("memory")
    artifact.save(
        artifact.Artifact(inspector.config, inspector.calibration.to_dict(), {}, weights), tmp_path / "a.fmr"
    )
    with pytest.raises(ArtifactError, match="do not fit"):
        fmrnet.load(tmp_path / "a.fmr")


def test_no_model_can_be_written_into_a_missing_folder_or_over_a_folder(tmp_path):
    check_writable(tmp_path / "a.fmr")
    with pytest.raises(ArtifactError, match="is a folder; expected a file name"):
        check_writable(tmp_path)
    with pytest.raises(ArtifactError, match="there is no folder"):
        check_writable(tmp_path / "none" / "a.fmr")
    if os.geteuid() != 0:  # root may write everywhere
        tmp_path.chmod(0o500)
        with pytest.raises(ArtifactError, match="no permission"):
            check_writable(tmp_path / "a.fmr")
