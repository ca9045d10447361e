"""A model file comes back as it was, and a file that is anything else is refused before it is used."""

from __future__ import annotations

import copy
import json
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hostile import assemble, forge, signed
from hypothesis import given
from hypothesis import strategies as st
from tiny import ground, make_inspector
from typer.testing import CliRunner

import fmrnet
from fmrnet import artifact
from fmrnet.artifact import FORMAT_VERSION, read_tensors, write_tensors
from fmrnet.cli import app
from fmrnet.errors import ArtifactError
from fmrnet.network import weights as of_network

DTYPES = [np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    tensor = np.asarray(generator.random(shape) * 9).astype(draw(st.sampled_from(DTYPES)))
    return tensor.T if draw(st.booleans()) else tensor


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
        assert np.array_equal(found[name], tensor)


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path):
    a, b = np.arange(6.0).reshape(2, 3), np.arange(4)
    write_tensors(tmp_path / "1", {"a": a, "b": b, "view": a[1:]}, {"x": 1, "y": [2]})
    write_tensors(tmp_path / "2", {"view": a[1:], "b": b, "a": a}, {"y": [2], "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.fmr"
    write_tensors(path, {"a": np.arange(5.0), "b": np.array([1, 2])}, {"kind": "model", "x": [1, None]})
    return path.read_bytes()


def test_every_cut_is_noticed(tmp_path, small):
    path = tmp_path / "cut.fmr"
    for length in range(len(small)):
        path.write_bytes(small[:length])
        says = "empty" if length == 0 else "cut short"
        with pytest.raises(ArtifactError, match=says):
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
    monkeypatch.setattr(artifact, "FORMAT_VERSION", FORMAT_VERSION + 1)
    write_tensors(path, {"a": np.zeros(1)}, {})
    monkeypatch.undo()
    expected = f"version {FORMAT_VERSION + 1}, this release reads up to {FORMAT_VERSION}; upgrade fmrnet"
    with pytest.raises(ArtifactError, match=expected):
        read_tensors(path)


def test_an_older_format_is_refused_with_the_remedy(tmp_path):
    for version in range(1, FORMAT_VERSION):
        path = forge(tmp_path / "old.fmr", {"a": np.zeros(1)}, {}, version)
        expected = f"version {version}, this release reads {FORMAT_VERSION}; train it again"
        with pytest.raises(ArtifactError, match=expected):
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
        safetensors.numpy.save({"a": np.zeros(2)}),
        safetensors.numpy.save({"a": np.zeros(2)}, {"fmrnet": "7"}),
        safetensors.numpy.save({"a": np.zeros(2)}, {"fmrnet": json.dumps({"version": "1", "metadata": {}})}),
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


@pytest.fixture(scope="module")
def inspector():
    return make_inspector()


@pytest.fixture
def parts(inspector):
    """What the file of a model holds, to be changed: its metadata and its weights."""
    metadata = {
        "kind": "model",
        "config": inspector.config.to_dict(),
        "calibration": inspector.calibration.to_dict(),
        "provenance": copy.deepcopy(inspector.provenance),
        "graphs": {},
    }
    held = of_network.arrays(inspector.model.state_dict())
    return metadata, {name: tensor.copy() for name, tensor in held.items()}


def test_a_model_comes_back_and_inspects_alike(tmp_path, inspector):
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


def test_settings_of_another_release_are_refused_with_the_files_name(tmp_path, parts):
    metadata, weights = parts
    expected = {
        "config": r"a\.fmr holds settings that this release does not take: .*k = 'three'",
        "calibration": r"a\.fmr is not calibrated as this release does it; run `fmrnet calibrate .*k = 'three'",
    }
    for part, message in expected.items():
        forge(tmp_path / "a.fmr", weights, {**metadata, part: {**metadata[part], "k": "three"}})
        with pytest.raises(ArtifactError, match=message):
            fmrnet.load(tmp_path / "a.fmr")


def refused(path, *, limit=400):
    """What `load` says of a file that it does not take: one line, with the file's name and no control characters."""
    with pytest.raises(ArtifactError) as caught:
        fmrnet.load(path, device="cpu")
    message = str(caught.value)
    assert str(path) in message
    assert message.replace(str(path), "").isprintable()
    assert len(message) < limit + len(str(path))
    return message


def test_a_forged_file_is_taken_if_its_content_is_right(tmp_path, parts):
    metadata, weights = parts
    found = fmrnet.load(forge(tmp_path / "a.fmr", weights, metadata), device="cpu")
    assert found.config.to_dict() == metadata["config"]


DEEP = json.loads("[" * 500 + "]" * 500)
HOSTILE = {  # what is put in the place of a part of the metadata, and what is said
    "wide": ("config.channels", [4096] * 5, "weights: expected up to"),
    "wide but legal": ("config.channels", [900] * 5, "numbers: expected more than"),
    "large memory": ("config.memory_entries", 60_000, "numbers: expected more than"),
    "large patches": ("config.patch_size", 1024, "memory is 8x16 of float32: expected 8x4096"),
    "long channels": ("config.channels", [10**30] * 5, "no FMR-Net model"),
    "no channels": ("config.channels", [], "five channel counts"),
    "text of channels": ("config.channels", "x" * 9000, "expected a list of integers"),
    "yes for one": ("config.image_channels", True, "image_channels = True: expected int"),
    "long seed": ("config.seed", 10**400, "no FMR-Net model"),
    "a temperature of 1e400": ("config.temperature", float("inf"), "no FMR-Net model"),
    "NaN": ("config.k", float("nan"), "no FMR-Net model"),
    "escape codes": ("config.mixing", "\x1b[2J\ngood", r"mixing = '\\x1b\[2J\\ngood'"),
    "no settings": ("config", None, "lacks the settings of a model \\(config\\)"),
    "a list of settings": ("config", [["k", 3]], "lacks the settings"),
    "a text for the thresholds": ("calibration", "x", "lacks the settings of a model \\(calibration\\)"),
    "a number for the provenance": ("provenance", 7, "lacks the settings of a model \\(provenance\\)"),
    "NaN in the provenance": ("provenance.seconds", float("nan"), "no FMR-Net model"),
    "deep provenance": ("provenance.good", DEEP, "nested more than 16 deep"),
    "a long text": ("provenance.command", "\x1b" * 20_000, "a text of 20000 characters"),
    "a long name": ("provenance", {"a" * 20_000: 1}, "a text of 20000 characters"),
    "no list of graphs": ("graphs", None, "lacks the settings of a model \\(graphs\\)"),
    "graphs that are not there": (
        "graphs",
        {"fuse": ["memory"]},
        "graphs and the weights they need do not fit",
    ),
    "much": ("provenance.loss_curve", [[1, 2, 3]] * 200_000, "no FMR-Net model"),
    "thresholds of 10^400": ("calibration.pictures", 10**400, "no FMR-Net model"),
    "a threshold of NaN": ("calibration.pixel_threshold", float("nan"), "no FMR-Net model"),
    "another kind": ("kind", "\x1b[31m" * 99, "holds a file of the kind"),
    "no kind": ("kind", None, "holds a file of the kind None"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata_are_refused(tmp_path, parts, case):
    metadata, weights = parts
    place, value, expected = HOSTILE[case]
    *above, name = place.split(".")
    (metadata[above[0]] if above else metadata)[name] = value
    path = forge(tmp_path / "a.fmr", weights, metadata)
    assert re.search(expected, refused(path))


def negate(tensor):
    np.negative(tensor, out=tensor)


BAD_WEIGHTS = {
    "NaN": ("encoder.0.conv.weight", lambda t: t[-1, -1, -1, -1:].fill(np.nan), "go from nan to nan: expected finite"),
    "infinite": ("memory", lambda t: t[0, :1].fill(np.inf), "expected finite numbers"),
    "minus infinite": ("memory", lambda t: t[0, :1].fill(-np.inf), "expected finite numbers"),
    "immense": ("output.bias", lambda t: t.fill(1e30), "expected finite numbers"),
    "no deviation": ("std", lambda t: t.fill(0), "the weights 'std' hold 0: expected more than 0"),
    "negative deviation of the evidence": ("fusion.good_std", negate, "good_std' hold -1: expected more"),
    "negative variance": ("encoder.1.norm.running_var", negate, "running_var' hold -1: expected 0 or more"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_nothing_can_be_computed_with_are_neither_read_nor_written(
    tmp_path, parts, inspector, case
):
    metadata, weights = parts
    name, spoil, expected = BAD_WEIGHTS[case]
    spoil(weights[name])
    assert expected in refused(forge(tmp_path / "a.fmr", weights, metadata))
    before = (tmp_path / "a.fmr").read_bytes()
    spoilt = copy.deepcopy(inspector)
    spoilt.model.load_state_dict(of_network.tensors(weights))
    with pytest.raises(ArtifactError) as caught:
        spoilt.save(tmp_path / "a.fmr")
    assert expected in str(caught.value)
    assert str(tmp_path / "a.fmr") in str(caught.value)
    assert (tmp_path / "a.fmr").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"memory": None}, "1 tensors miss, such as memory"),
        ({"\x1b[2J" * 50: np.zeros(2)}, "1 tensors are too many, such as '\\\\x1b"),
        ({"memory": np.zeros((8, 17), np.float32)}, "memory is 8x17 of float32: expected 8x16 of float32"),
        ({"memory": np.zeros((8, 16))}, "memory is 8x16 of float64: expected"),
        ({"std": np.array(1, np.float32)}, "std is one number of float32: expected 1 of float32"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, parts, change, expected):
    metadata, weights = parts
    weights = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
    message = refused(forge(tmp_path / "a.fmr", weights, metadata))
    assert "the weights do not fit the settings: " + expected.encode().decode("unicode_escape") in message


@pytest.mark.parametrize("needed", [["none"], [1], "memory", None, {"memory": 1}], ids=str)
def test_a_graph_whose_weights_are_not_there_is_refused(tmp_path, parts, needed):
    metadata, weights = parts
    metadata["graphs"] = {"fuse": needed}
    path = forge(tmp_path / "a.fmr", weights | {"graphs/fuse": np.zeros(3, np.uint8)}, metadata)
    assert "the graph 'fuse' needs weights that are not there" in refused(path)


def test_graphs_come_back(tmp_path, inspector):
    held = of_network.arrays(inspector.model.state_dict())
    graphs = {"fuse": artifact.Graph(b"any bytes", ("memory", "std")), "glance": artifact.Graph(b"", ())}
    given = artifact.Artifact(inspector.config, {}, {}, held, graphs)
    artifact.save(given, tmp_path / "a.fmr")
    found = artifact.load(tmp_path / "a.fmr")
    assert found.graphs == graphs
    assert found.weights.keys() == held.keys()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**64 - 1]},
        {"shape": [0, 2**64 - 1], "data_offsets": [0, 0]},
        {"shape": [2**63 - 1, 0], "data_offsets": [0, 0]},
        {"shape": [1] * 1000 + [2]},
        {"shape": [-2]},
        {"shape": [2.0]},
        {"shape": [True, 2]},
        {"shape": None},
        {"shape": "2"},
        {"data_offsets": [0, int("9" * 4300)]},
        {"data_offsets": [0, int("9" * 19)]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [-8, 0]},
        {"data_offsets": [0]},
        {"data_offsets": "ab"},
        {"data_offsets": [0, 4]},
        {"dtype": "F128"},
        {"dtype": "BF16", "shape": [4]},
        {"dtype": ["F32"]},
        {"dtype": None},
    ],
    ids=lambda change: str(change)[:40],
)
def test_hostile_shapes_and_offsets_are_refused(tmp_path, change):
    header = {"__metadata__": {"fmrnet": signed({}, {})}, "a": ENTRY | change}
    with pytest.raises(ArtifactError, match=r"no FMR-Net model|damaged|cut short: \d+ of \d+ bytes miss"):
        read_tensors(assemble(tmp_path / "a.fmr", header, bytes(8)))


@pytest.mark.parametrize(
    "own",
    [
        '{"version":2,"version":2,"metadata":{},"sha256":""}',
        '{"version":2,"metadata":{"a":1,"a":2},"sha256":""}',
        '{"version":2,"metadata":{},"sha256":"","more":1}',
        '{"version":2,"metadata":[],"sha256":""}',
        '{"version":true,"metadata":{},"sha256":""}',
        '{"version":0,"metadata":{},"sha256":""}',
        '{"version":-1,"metadata":{},"sha256":""}',
        '{"version":2,"metadata":{}}',
        '{"version":2,"metadata":{"a":-Infinity},"sha256":""}',
        '{"version":2,"metadata":{"a":1e999},"sha256":""}',
        '{"version":2,"metadata":{"a":' + "[" * 100_000 + "]" * 100_000 + '},"sha256":""}',
        '{"version":2,"metadata":{"a":18446744073709551616},"sha256":""}',
        "[1]",
        "",
        7,
        None,
        {},
    ],
    ids=lambda own: str(own)[:40],
)
def test_hostile_entries_of_ours_are_refused(tmp_path, own):
    with pytest.raises(ArtifactError, match="no FMR-Net model"):
        read_tensors(assemble(tmp_path / "a.fmr", {"__metadata__": {"fmrnet": own}}))


def test_a_name_twice_in_the_outer_header_is_refused(tmp_path):
    own = json.dumps(signed({"a": np.zeros(2, np.float32)}, {}))
    entry = json.dumps(ENTRY)
    header = f'{{"__metadata__":{{"fmrnet":{own}}},"a":{entry}}}'
    read_tensors(assemble(tmp_path / "a.fmr", header, bytes(8)))
    for twice in (f'"a":{entry},"a":{entry}', f'"a":{entry},"__metadata__":{{"fmrnet":{own}}}'):
        with pytest.raises(ArtifactError, match="no FMR-Net model"):
            read_tensors(assemble(tmp_path / "a.fmr", header.replace(f'"a":{entry}', twice), bytes(8)))
    more = header.replace('{"fmrnet"', '{"other":"1","fmrnet"')  # which the hash would not cover
    with pytest.raises(ArtifactError, match="no FMR-Net model"):
        read_tensors(assemble(tmp_path / "a.fmr", more, bytes(8)))


def special_files(folder):
    """One of each kind of file that is none to read from, and what is said of it."""
    os.mkfifo(folder / "pipe")
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    (folder / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(folder / "socket"))
    for name, start in (("zeros", b""), ("sparse", (folder / "model.fmr").read_bytes())):
        (folder / name).write_bytes(start)
        os.truncate(folder / name, 3 * 2**30)
    return {
        folder: "is a folder",
        folder / "none": "does not exist",
        folder / "pipe": "is a named pipe",
        folder / "link": "is a named pipe",
        folder / "one": "cannot be opened (Too many levels of symbolic links)",
        folder / "socket": "is a socket",
        folder / ("x" * 300): "cannot be opened (File name too long)",
        folder / "model.fmr" / "inside": "cannot be opened (Not a directory)",
        folder / "half \ud800": "cannot be opened",
        folder / "with \0": "cannot be opened (embedded null byte)",
        folder / "zeros": "has 3221225472 bytes, and at most",
        folder / "sparse": "has 3221225472 bytes, and at most",
        "/dev/zero": "is a device",
        "/dev/null": "is a device",
        "/proc/self/mem": "is empty",
        "/proc/self/status": "is empty",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="these kinds of file are Linux's")
def test_what_is_no_regular_file_of_a_sane_size_is_refused_and_not_waited_for(tmp_path, parts, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    metadata, weights = parts
    forge(tmp_path / "model.fmr", weights, metadata)
    for path, expected in special_files(Path()).items():
        with pytest.raises(ArtifactError) as caught:
            fmrnet.load(path, device="cpu")
        assert str(caught.value).startswith(f"{path} ")
        assert expected in str(caught.value)
    (tmp_path / "to the model").symlink_to("model.fmr")
    fmrnet.load(tmp_path / "to the model", device="cpu")


FRUGAL = """
import json, resource, sys, time
import fmrnet
from fmrnet.errors import ArtifactError
from fmrnet.network import weights as of_network
fmrnet.load(sys.argv[1], device="cpu")
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 100_000_000,) * 2)
for path in sys.argv[2:]:
    started = time.process_time()
    try:
        fmrnet.load(path, device="cpu")
    except ArtifactError as error:
        print(json.dumps([str(error), time.process_time() - started]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured as Linux does")
def test_hostile_files_are_refused_within_a_second_and_a_hundred_megabytes(tmp_path, parts):
    """All of them in one process, where more memory than that cannot be had."""
    metadata, weights = parts
    paths = [forge(tmp_path / "right.fmr", weights, metadata)]
    for number, (place, value, _) in enumerate(HOSTILE.values()):
        *above, name = place.split(".")
        changed = copy.deepcopy(metadata)
        (changed[above[0]] if above else changed)[name] = value
        paths.append(forge(tmp_path / f"{number}.fmr", weights, changed))
    brackets = '{"__metadata__":{"fmrnet":"{}"},"a":[' + "[]," * 300_000 + "[]]}"
    paths += [assemble(tmp_path / "brackets.fmr", brackets), tmp_path / "zeros.fmr", tmp_path / "sparse.fmr"]
    header = {"__metadata__": {"fmrnet": signed({}, {"kind": "checkpoint"})}}
    assemble(tmp_path / "sparse.fmr", header | {"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}})
    (tmp_path / "zeros.fmr").touch()
    for path in paths[-2:]:
        os.truncate(path, 2**30)  # small enough to be looked into
    run = subprocess.run([sys.executable, "-c", FRUGAL, *paths], capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == len(paths) - 1
    for message, seconds in found:
        assert seconds < 1, message
        assert "no memory" not in message


def test_a_long_command_is_cut_and_does_not_cost_a_training(tmp_path, inspector):
    long = copy.copy(inspector)
    long.provenance = {"command": "fmrnet train " + "x" * 200_000, "good": {"folders": ["y" * 20_000]}}
    long.save(tmp_path / "a.fmr")
    found = fmrnet.load(tmp_path / "a.fmr", device="cpu").provenance
    assert found["command"] == "fmrnet train " + "x" * (artifact.LONGEST_TEXT - 16) + "..."
    assert len(found["good"]["folders"][0]) == artifact.LONGEST_TEXT


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2**64, object(), DEEP])
def test_what_could_not_be_read_is_not_written(tmp_path, inspector, bad):
    path = tmp_path / "a.fmr"
    path.write_bytes(b"old")
    spoilt = copy.copy(inspector)
    spoilt.provenance = {"seconds": bad}
    with pytest.raises(ArtifactError, match=r"a\.fmr: "):
        spoilt.save(path)
    assert path.read_bytes() == b"old"


def test_a_model_larger_than_is_read_is_not_written(tmp_path, inspector, monkeypatch):
    monkeypatch.setattr(artifact, "LARGEST_MODEL", 1000)
    with pytest.raises(ArtifactError, match=r"a\.fmr has \d+ bytes, and at most 1000 are read"):
        inspector.save(tmp_path / "a.fmr")
    assert not list(tmp_path.iterdir())


def test_info_shows_texts_escaped_and_refuses_hostile_files_in_one_line(tmp_path, parts):
    metadata, weights = parts
    metadata["provenance"] = {
        "command": "a\x1b[2J\r\n  k    7",
        "b\x1b\n": "\u202e",
        "long": "x" * 9000,
        "loss_curve": 7,
    }
    shown = CliRunner().invoke(app, ["info", str(forge(tmp_path / "a.fmr", weights, metadata))])
    assert shown.exit_code == 0, shown.output
    assert all(line.isprintable() for line in shown.output.splitlines())
    assert r"a\x1b[2J\r\n  k    7" in shown.output
    assert max(map(len, shown.output.splitlines())) < 600
    as_json = CliRunner().invoke(app, ["info", "--json", str(tmp_path / "a.fmr")]).output
    assert json.loads(as_json)["provenance"] == metadata["provenance"]
    assert "\x1b" not in as_json
    metadata["config"]["mixing"] = "\x1b[2J\n" * 900
    for command in ("info", "inspect"):
        arguments = [command, str(forge(tmp_path / "a.fmr", weights, metadata))]
        refusal = CliRunner().invoke(
            app,
            [*arguments, *([str(tmp_path), "--out", str(tmp_path / "o")] if command == "inspect" else [])],
        )
        assert refusal.exit_code == 2
        (line,) = refusal.stderr.splitlines()
        assert line.isprintable()
        assert len(line) < 400 + len(str(tmp_path))
