"""Graphs in model files: they say what the network says, in every runtime, and wrong ones are refused."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import CONFIG, ground, make_general_inspector

import fmrnet
from fmrnet import artifact
from fmrnet.config import PRESETS, preset
from fmrnet.engines import choice, graph_engine, probes, torch_engine
from fmrnet.engines.graph_engine import GraphEngine, why_no_graphs
from fmrnet.engines.onnx_bytes import with_weights
from fmrnet.engines.torch_engine import TorchEngine, content_of, with_graphs
from fmrnet.errors import ArtifactError, ConfigError
from fmrnet.inspection.region import Region
from fmrnet.network import weights
from fmrnet.network.model import FMRNet

for module in ("onnx", "onnx_ir", "onnxruntime"):
    pytest.importorskip(module, reason="graphs need pip install 'fmrnet[train]'")


def test_weights_are_appended_to_a_template():
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    node = helper.make_node("Add", ["x", "model.w"], ["y"])
    opset = helper.make_opsetid("", 18)
    template = helper.make_model(
        helper.make_graph([node], "sum", [given], [found]), opset_imports=[opset], ir_version=10
    )
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    whole = with_weights(template.SerializeToString(), ["w"], {"w": w[::-1]})
    onnx.checker.check_model(onnx.load_from_string(whole))
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    (total,) = session.run(None, {"x": w})
    assert np.array_equal(total, w + w[::-1])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"general": False}, "without tile = patch"),
        ({"tile": "patch"}, "tile = picture"),
        ({"mixing": "dense", "rearrange": True}, "mixing = shared"),
        ({"texton_size": 4, "rearrange": True}, "textons of 4"),
        ({"iterations": (1, 1, 0)}, "learned fusion"),
    ],
)
def test_why_a_model_cannot_be_written_as_graphs(settings, reason):
    general = preset("general")
    if not settings.get("general", True):
        settings = settings | {"head_iterations": 0}
    config = dataclasses.replace(general, **settings)
    assert reason in str(why_no_graphs(config))
    with pytest.raises(ConfigError, match="this model cannot be written as graphs: it "):
        with_graphs(artifact.Artifact(config, {}, {}, {}))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_written_as_graphs(name):
    assert why_no_graphs(preset(name)) is None


@pytest.mark.parametrize(
    ("channels", "settings"),
    [
        (1, {}),
        (3, {"iterations": (2, 2, 0), "patch_size": 96, "overlap": 0.5}),
        (1, {"rearrange": False}),
    ],
    ids=["edge", "paper", "plain skips"],
)
def test_models_of_patches_are_cut_and_laid_back_alike(monkeypatch, channels, settings):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, image_channels=channels, **settings)
    model = FMRNet(config).eval()
    model.mean.fill_(0.5)
    model.std.fill_(0.1)
    torch.nn.init.normal_(model.memory)
    for kernel in model.mixing_parameters():
        torch.nn.init.normal_(kernel)
    if model.fusion is not None:
        model.fusion.good_mean.fill_(-4.6)  # what it answers untrained
        model.fusion.good_std.fill_(0.05)
    own = TorchEngine(model)
    made, about = with_graphs(content_of(own))
    assert about["answers"][0][2] > 0  # at pixel level
    asked = GraphEngine(made, "onnxruntime")
    picture = ground(150, 201, channels=channels, seed=3).astype(np.float32).reshape(150, 201, channels) / 255
    expected, found = (engine.compare(engine.glance(picture.transpose(2, 0, 1))) for engine in (own, asked))
    assert expected.background is not None
    for name in ("anomaly_map", "evidence", "readings", "background"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4)
    seen = asked.glance(picture.transpose(2, 0, 1))
    run, ran = asked._run, []
    monkeypatch.setattr(asked, "_run", lambda name, known: ran.append(name) or run(name, known))
    asked.compare(seen)
    assert ran == ["restore", "fuse"]  # the encoder has seen the patches
    monkeypatch.setattr(graph_engine, "BATCH", 3)  # of more patches than are kept, nothing is
    again = asked.compare(asked.glance(picture.transpose(2, 0, 1)))
    assert ran[2:].count("glance") == 2 * ran[2:].count("restore") > 2
    np.testing.assert_allclose(again.background, found.background, atol=1e-5)
    np.testing.assert_allclose(asked.restore(picture.transpose(2, 0, 1)), found.background, atol=1e-5)


def test_runtimes_join_each_layer_with_its_bias_and_its_norm(tmp_path):
    import onnx
    import onnxruntime

    from fmrnet.engines import graphs

    small = {"channels": (8, 8, 8, 8, 8), "memory_entries": 16, "addressing_width": 16}
    config = dataclasses.replace(preset("general"), **small)
    held = weights.arrays(FMRNet(config).state_dict())
    for name, graph in graphs.graphs(config).items():
        whole = with_weights(graph.template, graph.weights, held)
        convolutions = [one for one in onnx.load_from_string(whole).graph.node if one.op_type == "Conv"]
        assert all(all(one.input) for one in convolutions)
        biases = [one.input[2] for one in convolutions if len(one.input) > 2]
        assert len(biases) == len(set(biases))  # OpenVINO joins none that two of them share
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
        left = [one.op_type for one in onnx.load(tmp_path / f"{name}.onnx").graph.node]
        assert left.count("BatchNormalization") == (
            name == "glance"
        )  # the head's first has no layer before it


def test_an_engine_is_asked_again_on_another_kind_of_machine(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FMRNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "_has", lambda name: name == "onnxruntime")
    own = make_general_inspector(1, iterations=(0, 0, 0))
    own.add_graphs()
    own.save(tmp_path / "a.fmr")
    content = artifact.load(tmp_path / "a.fmr")
    assert choice.choose(content).name == "onnxruntime cpu"
    (kept,) = (tmp_path / "cache").iterdir()
    assert json.loads(kept.read_text())["difference"] < 1e-3
    asked = []
    monkeypatch.setattr(probes, "answers", lambda *given: asked.append(given))
    assert choice.choose(content).name == "onnxruntime cpu"  # it is remembered
    about = content.provenance["graphs"]
    about["agreement"] = {
        "engines": {"onnxruntime": {"difference": 0.0, "machine": probes.machine("onnxruntime")}}
    }
    kept.unlink()
    assert choice.choose(content).name == "onnxruntime cpu"  # it was compared on such a machine
    assert not asked
    monkeypatch.undo()

    monkeypatch.setenv("FMRNET_CACHE", str(tmp_path / "cache"))
    about["agreement"]["engines"]["onnxruntime"]["machine"] = "another"
    wrong = dict(content.weights)
    wrong["general.fine.mean"] = wrong["general.fine.mean"] + np.float32(0.5)  # as if the runtime erred
    planted = dataclasses.replace(content, weights=wrong)
    with pytest.raises(
        ConfigError, match=r"onnxruntime gave other scores than torch on this machine, by .*: expected"
    ):
        choice.choose(planted, "cpu", "onnxruntime")
    monkeypatch.setattr(choice, "_has", lambda name: name != "torch")
    seen = {"onnxruntime": 0.5, "openvino": 0.0}
    monkeypatch.setattr(choice, "off_here", lambda content, name, make: seen[name])
    monkeypatch.setattr(choice, "GraphEngine", lambda content, name: name)
    with caplog.at_level("WARNING"):
        assert choice.choose(content) == "openvino"
    (said,) = caplog.messages
    assert "onnxruntime gave other scores than torch on this machine, by 0.5" in said
    assert said.endswith("openvino is taken")
    seen["openvino"] = 2.0
    with pytest.raises(ConfigError, match="make it anew"):
        choice.choose(content)
    caplog.clear()
    monkeypatch.setattr(choice, "_has", lambda name: True)
    with caplog.at_level("WARNING"):
        assert choice.choose(content).name == "torch cpu"
    assert [said.rpartition("; ")[2] for said in caplog.messages] == ["torch is taken"] * 2


def test_a_cuda_device_is_held_against_the_answers_of_a_cpu(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FMRNET_CACHE", str(tmp_path / "cache"))
    made = make_general_inspector(1, iterations=(0, 0, 0))
    made.add_graphs()
    made.save(tmp_path / "a.fmr")
    content = artifact.load(tmp_path / "a.fmr")
    wrong = dict(content.weights)
    wrong["general.fine.mean"] = wrong["general.fine.mean"] + np.float32(0.5)  # as if the device erred
    own, weights = torch_engine.of_content, {"device": content.weights}

    def of_content(given, device):
        """PyTorch on a CPU under another name."""
        engine = own(dataclasses.replace(given, weights=weights["device"]), "cpu")
        told = {"device": torch.device("cuda"), "machine": "a GPU", "name": "torch cuda"}
        return (
            SimpleNamespace(glance=engine.glance, compare=engine.compare, **told)
            if device != "cpu"
            else engine
        )

    monkeypatch.setattr(torch_engine, "of_content", of_content)
    monkeypatch.setattr(choice, "has_cuda", lambda: True)
    assert choice.choose(content, "cuda").machine == "a GPU"
    with monkeypatch.context() as again:
        again.setattr(probes, "answers", lambda *given: pytest.fail("this GPU was asked before"))
        choice.choose(content, "cuda:0")
    monkeypatch.setenv("FMRNET_CACHE", str(tmp_path / "another"))
    weights["device"] = wrong
    with pytest.raises(
        ConfigError, match=r"torch on a GPU gave other scores than on a CPU, by .*; use device cpu"
    ):
        choice.choose(content, "cuda", "torch")
    with caplog.at_level("WARNING"):
        assert choice.choose(content, "auto").name == "onnxruntime cpu"
    (said,) = caplog.messages
    assert "on a GPU gave other scores" in said
    assert said.endswith("onnxruntime is taken")
    about = {"graphs": {name: of for name, of in content.provenance["graphs"].items() if name != "answers"}}
    choice.choose(dataclasses.replace(content, provenance=about), "cuda")  # nothing to hold it against


@pytest.mark.parametrize("answers", [None, [], [[1.0], ["2"]], [[1.0] * 99, [1.0]], [[1.0], [float("nan")]]])
def test_damaged_answers_are_told(tmp_path, monkeypatch, answers):
    monkeypatch.setenv("FMRNET_CACHE", str(tmp_path))
    own = make_general_inspector(1, iterations=(0, 0, 0))
    content = dataclasses.replace(own.content, provenance={"graphs": {"answers": answers}})
    with pytest.raises(ArtifactError, match="answers for checking engines are damaged"):
        probes.off_here(content, "onnxruntime", lambda: own.engine)


@pytest.mark.parametrize(
    ("channels", "settings"),
    [
        (1, {"iterations": (0, 0, 0)}),
        (3, {"head_iterations": 1}),
        (1, {"head_iterations": 1, "rearrange": False}),
    ],
    ids=["instant", "general", "plain skips"],
)
def test_a_runtime_says_what_the_network_says(tmp_path, channels, settings):
    own = make_general_inspector(channels, **settings)
    own.add_graphs()
    own.save(tmp_path / "a.fmr")
    asked = fmrnet.load(tmp_path / "a.fmr", "cpu", engine="onnxruntime")
    assert asked.engine.name == "onnxruntime cpu"
    for size in ((64, 64), (97, 160), (256, 130)):
        picture = ground(*size, channels=channels, seed=3)
        for level in ("patch", "pixel"):
            found, expected = (one.inspect(picture, level) for one in (asked, own))
            assert found.score == pytest.approx(expected.score, rel=1e-3)
            np.testing.assert_allclose(found.patch_scores, expected.patch_scores, rtol=1e-3, atol=1e-4)
            if level == "pixel":
                np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=1e-3, atol=1e-4)
    asked.save(tmp_path / "b.fmr")
    assert (tmp_path / "a.fmr").read_bytes() == (tmp_path / "b.fmr").read_bytes()
    mask = np.hypot(*np.ogrid[-128:128, -65:65]) < 120  # the last picture's, but for its corners
    for one in (asked, own):
        one.region = Region.around(mask)
    found, expected = (one.inspect(picture) for one in (asked, own))
    assert found.score == pytest.approx(expected.score, rel=1e-3)
    assert found.reasons == expected.reasons
    np.testing.assert_allclose(found.pixel_p_values, expected.pixel_p_values, rtol=1e-3)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=1e-3, atol=1e-4)
    assert not found.anomaly_map[~mask].any()
    for one in (asked, own):
        one.region = None
    if settings.get("head_iterations"):
        np.testing.assert_allclose(asked.reconstruct(picture), own.reconstruct(picture), atol=1e-4)

    content = artifact.load(tmp_path / "a.fmr")
    spoilt = dict(content.graphs)
    spoilt["glance"] = dataclasses.replace(spoilt["glance"], template=b"\xff" * 100)
    artifact.save(dataclasses.replace(content, graphs=spoilt), tmp_path / "c.fmr")
    with pytest.raises(ArtifactError, match=r"c\.fmr: a graph cannot be read"):
        fmrnet.load(tmp_path / "c.fmr", "cpu", engine="onnxruntime")
    swapped = content.graphs | {"glance": content.graphs["fuse"], "fuse": content.graphs["glance"]}
    artifact.save(dataclasses.replace(content, graphs=swapped), tmp_path / "d.fmr")
    with pytest.raises(ArtifactError, match=r"d\.fmr: a graph"):
        fmrnet.load(tmp_path / "d.fmr", "cpu", engine="onnxruntime")
    late = content.graphs | {"fuse": content.graphs["glance"]}  # which is read when it is needed
    artifact.save(dataclasses.replace(content, graphs=late), tmp_path / "e.fmr")
    with pytest.raises(ArtifactError, match="a graph "):
        fmrnet.load(tmp_path / "e.fmr", "cpu", engine="onnxruntime").inspect(picture)


@pytest.mark.slow
def test_ctrl_c_after_openvino_has_been_used(tmp_path):
    """It gives the system a stack for signals, which must outlive its models."""
    own = make_general_inspector(1, iterations=(0, 0, 0))
    own.add_graphs()
    own.save(tmp_path / "a.fmr")
    program = """
import gc, signal, sys
import numpy as np
import fmrnet
for _ in range(2):
    inspector = fmrnet.load(sys.argv[1], "cpu", engine="openvino")
    inspector.inspect(np.zeros((96, 96), np.uint8))
    del inspector
    gc.collect()
signal.signal(signal.SIGINT, lambda *given: print("handled"))
signal.raise_signal(signal.SIGINT)
"""
    words = [sys.executable, "-c", program, tmp_path / "a.fmr"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
