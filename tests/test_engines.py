"""Engines: that they agree on how a picture is seen, which one is taken, and what each says of what it cannot do."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import CONFIG, ground, make_inspector

import fmrnet
from fmrnet.artifact import Artifact, Graph
from fmrnet.config import preset
from fmrnet.engines import choice, graph_engine, runtimes, torch_engine
from fmrnet.engines.engine import Found, Seen, all_readings
from fmrnet.engines.graph_engine import GraphEngine, inputs_of
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.errors import ArtifactError, ConfigError
from fmrnet.network.weights import arrays
from fmrnet.usual import BANDS

INSTANT = dataclasses.replace(preset("instant"), image_channels=1)
DENSE = dataclasses.replace(CONFIG, mixing="dense")  # which no graphs do


def picture(height: int = 70, width: int = 90) -> np.ndarray:
    """(1, H, W), of sides that are no multiples of 32."""
    return ground(height, width)[None].astype(np.float32) / 255


@pytest.fixture(scope="module")
def engine():
    return make_inspector().engine


@pytest.fixture
def content(engine):
    return torch_engine.content_of(engine)


def of_instant(content: Artifact) -> Artifact:
    """The same as a model of other settings, which knows what is usual."""
    known = {
        "general.near": np.zeros((2, BANDS), np.float32),
        "general.place": np.zeros((2, 0, 0), np.float32),
    }
    return dataclasses.replace(content, config=INSTANT, weights={**content.weights, **known})


def with_graphs(content: Artifact, *names: str) -> Artifact:
    """The same with graphs of these names that no runtime can read."""
    return dataclasses.replace(content, graphs={name: Graph(b"no graph", ()) for name in names})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_taken_for_a_good_picture(bad):
    fine, spoilt = np.zeros((1, 2, 2), np.float32), np.full((1, 2, 2), bad, np.float32)
    Seen(picture(), fine, 0.0)
    Found(fine[0], fine[0], fine)
    for make in (
        lambda: Seen(picture(), spoilt, 0.0),
        lambda: Seen(picture(), fine, bad),
        lambda: Found(fine[0], spoilt[0], fine),
        lambda: Found(fine[0], fine[0], spoilt),
    ):
        with pytest.raises(ArtifactError, match="train it again"):
            make()


def test_readings_at_pixel_level_are_of_all_then_of_the_exit_then_of_the_network():
    seen, own = (np.arange(count, dtype=np.float32)[:, None, None] for count in (5, 2))
    seen = seen + 10
    general = dataclasses.replace(INSTANT, iterations=(1, 1, 1))
    assert all_readings(INSTANT, seen, own[:0]) is seen
    assert all_readings(CONFIG, seen, own) is own
    assert all_readings(general, seen, own).ravel().tolist() == [0, 11, 12, 13, 14, 1]


def test_torch_gives_arrays_as_large_as_the_picture(engine):
    given = picture()
    seen = engine.glance(given)
    found = engine.compare(seen)
    assert seen.picture is given
    assert isinstance(seen.typical, float)
    assert found.anomaly_map.shape == found.evidence.shape == (70, 90)
    assert engine.restore(given).shape == (1, 70, 90)
    for values in (seen.readings, found.readings, found.anomaly_map, found.evidence, engine.restore(given)):
        assert values.dtype == np.float32
    assert engine.name == "torch cpu"
    assert not engine.model.training
    assert not any(parameter.requires_grad for parameter in engine.model.parameters())


def test_a_picture_is_seen_as_the_same_filled_up_and_cut(engine):
    given = picture()
    filled = np.pad(given, ((0, 0), (0, 26), (0, 6)), mode="reflect")
    small, large = (engine.compare(engine.glance(one)) for one in (given, filled))
    assert np.array_equal(small.readings, large.readings)
    assert np.array_equal(small.anomaly_map, large.anomaly_map[:70, :90])
    assert np.array_equal(engine.restore(given), engine.restore(filled)[:, :70, :90])


def test_torch_takes_pictures_in_any_memory_order(engine):
    given = picture()
    for one in (given[:, ::-1, ::-1], np.asfortranarray(given)):
        assert np.array_equal(engine.glance(one).readings, engine.glance(one.copy("C")).readings)


def test_a_file_of_a_network_is_taken_again(engine, content):
    again = torch_engine.of_content(content, "cpu")
    assert again.config == engine.config
    np.testing.assert_allclose(again.glance(picture()).readings, engine.glance(picture()).readings, rtol=1e-5)
    assert torch_engine.model_of(again) is again.model


def test_weights_that_no_engine_takes_do_not_leave_it(content):
    model = torch_engine.of_content(content, "cpu").model
    model.std.zero_()
    with pytest.raises(ArtifactError, match="'std' hold 0"):
        torch_engine.content_of(TorchEngine(model))
    with pytest.raises(ArtifactError, match="the weights do not fit the settings: the weights 'std' hold 0"):
        torch_engine.of_content(dataclasses.replace(content, weights=arrays(model.state_dict())), "cpu")


class Other:
    """An engine that is not PyTorch's."""

    name = "other cpu"
    config = CONFIG

    def glance(self, picture, inside=None):
        raise NotImplementedError

    compare = restore = glance


def test_only_pytorch_has_a_network(tmp_path):
    for ask in (torch_engine.model_of, torch_engine.content_of):
        with pytest.raises(ConfigError, match="the engine is other cpu; load it with engine torch"):
            ask(Other())
    inspector = make_inspector()
    other = fmrnet.Inspector(Other(), inspector.calibration, {})
    with pytest.raises(ConfigError, match="load it with engine torch"):
        _ = other.model
    with pytest.raises(ConfigError, match="load it with engine torch"):
        other.save(tmp_path / "a.fmr")
    assert not list(tmp_path.iterdir())


def test_a_program_that_asks_for_the_network_gets_it_and_what_it_changes_counts(tmp_path, content):
    given = with_graphs(content, "glance")
    inspector = fmrnet.Inspector(Other(), make_inspector().calibration, {}, given)
    model = inspector.model
    assert inspector.model is model
    assert inspector.engine.name == "torch cpu"
    before = inspector.inspect(picture()[0]).patch_scores
    model.memory *= 2
    assert not np.allclose(inspector.inspect(picture()[0]).patch_scores, before)
    inspector.save(tmp_path / "a.fmr")
    again = fmrnet.artifact.load(tmp_path / "a.fmr")
    np.testing.assert_array_equal(again.weights["memory"], 2 * content.weights["memory"])
    assert again.graphs == given.graphs


def test_a_loaded_model_is_saved_as_it_came_whatever_engine_computes(tmp_path, content):
    inspector = make_inspector()
    given = with_graphs(content, "glance")
    fmrnet.Inspector(Other(), inspector.calibration, {"seed": 7}, given).save(tmp_path / "a.fmr")
    again = fmrnet.artifact.load(tmp_path / "a.fmr")
    assert again.graphs == given.graphs
    assert again.provenance == {"seed": 7}
    assert again.weights.keys() == content.weights.keys()


def test_weights_that_were_changed_are_saved_with_the_graphs_that_there_were(tmp_path, content):
    given = with_graphs(content, "glance")
    inspector = fmrnet.Inspector(
        torch_engine.of_content(given, "cpu"), make_inspector().calibration, {}, given
    )
    inspector.model.std.fill_(0.25)
    inspector.save(tmp_path / "a.fmr")
    again = fmrnet.artifact.load(tmp_path / "a.fmr")
    assert again.graphs == given.graphs
    assert again.weights["std"] == 0.25


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if these were not installed."""
    monkeypatch.setattr(choice, "_has", lambda name: name not in modules)


@pytest.fixture
def made(monkeypatch):
    """Runtimes of graphs are named, not made."""
    monkeypatch.setattr(choice, "GraphEngine", lambda content, runtime: runtime)


def test_auto_takes_the_first_runtime_where_there_are_graphs_or_else_pytorch(content, monkeypatch, made):
    graphs = with_graphs(content, *inputs_of(CONFIG))
    without(monkeypatch)
    monkeypatch.setattr(choice, "has_cuda", lambda: False)
    for name in runtimes.RUNTIMES:
        assert choice.choose(graphs, engine=name) == name
    assert choice.choose(graphs) == choice.choose(graphs, "cpu") == choice.ENGINES[0]
    assert isinstance(choice.choose(content), TorchEngine)
    without(monkeypatch, choice.ENGINES[0])
    assert choice.choose(graphs) == choice.ENGINES[1]
    without(monkeypatch, *runtimes.RUNTIMES)
    assert isinstance(choice.choose(graphs), TorchEngine)
    without(monkeypatch, "torch")
    assert choice.choose(graphs) == choice.ENGINES[0]
    with pytest.raises(ConfigError, match="needs torch"):
        choice.choose(graphs, "cuda")


def test_auto_takes_pytorch_where_no_runtime_reads_the_graphs(content, caplog):
    pytest.importorskip(choice.ENGINES[0])
    with caplog.at_level("WARNING"):
        assert isinstance(choice.choose(with_graphs(content, *inputs_of(CONFIG))), TorchEngine)
    assert "a graph cannot be read" in caplog.messages[0]
    assert all(said.endswith("`fmrnet graphs`; torch is taken") for said in caplog.messages)


def test_auto_takes_a_cuda_device_where_pytorch_finds_one(content, monkeypatch, made):
    graphs = with_graphs(content, *inputs_of(CONFIG))
    asked = []
    there = SimpleNamespace(device=torch.device("cuda"), machine="a GPU")
    monkeypatch.setattr(torch_engine, "of_content", lambda content, device: asked.append(device) or there)
    monkeypatch.setattr(choice, "has_cuda", lambda: True)
    assert choice.choose(graphs) is choice.choose(graphs, "cuda:1") is there
    assert asked == ["auto", "cuda:1"]
    assert choice.choose(graphs, "cpu") == choice.ENGINES[0]


def test_pytorch_is_asked_for_a_cuda_device_only_where_there_is_a_driver(monkeypatch):
    loaded = []
    monkeypatch.setattr(choice.ctypes, "CDLL", loaded.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(loaded))
    assert choice.has_cuda()
    assert len(loaded) == 1
    without(monkeypatch, "torch")
    assert not choice.has_cuda()
    without(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("there is no driver"))
    monkeypatch.setattr(choice.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert not choice.has_cuda()


@pytest.mark.parametrize("name", runtimes.RUNTIMES)
def test_what_cannot_be_chosen_is_said_with_the_remedy(content, monkeypatch, made, name):
    graphs = with_graphs(content, *inputs_of(CONFIG))
    without(monkeypatch)
    alone = dataclasses.replace(content, config=DENSE)
    cases = [
        (graphs, "cuda", name, f"device 'cuda' with engine {name}: expected cpu, or engine torch"),
        (graphs, "tpu", name, "device 'tpu' with engine"),
        (
            dataclasses.replace(content, config=INSTANT),
            "cpu",
            name,
            f"engine {name} needs graphs, and this model file has no graphs; run `fmrnet graphs MODEL --out MODEL`, or",
        ),
        (graphs, "cpu", "tflite\n", r"engine 'tflite\n': expected auto, onnxruntime, openvino, torch"),
        (
            alone,
            "cpu",
            name,
            "this model runs in torch alone, for it mixes textons densely; graphs need mixing = shared or none; use",
        ),
        (content, "tpu", "auto", "tpu"),
    ]
    for given, device, engine, expected in cases:
        with pytest.raises(ConfigError) as caught:
            choice.choose(given, device, engine)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    without(monkeypatch, name)
    with pytest.raises(ConfigError, match=f"{name} is not installed; run pip install .*{name}"):
        choice.choose(graphs, "cpu", name)


def test_without_pytorch_it_is_said_what_to_install_or_where_to_make_graphs(content, monkeypatch):
    graphs = with_graphs(content, *inputs_of(CONFIG))
    without(monkeypatch, "torch", *runtimes.RUNTIMES)
    install = "run pip install 'fmrnet[train]'"
    alone = dataclasses.replace(content, config=DENSE)
    cases = [
        (alone, "auto", "auto", "this model runs in torch alone", install),
        (content, "cuda", "auto", "device 'cuda' needs torch", install),
        (alone, "cpu", "torch", "torch is not installed, and this model runs in torch alone", install),
        (graphs, "cpu", "auto", "neither onnxruntime nor torch", "run pip install onnxruntime"),
        *(
            (
                dataclasses.replace(content, config=INSTANT),
                "cpu",
                engine,
                "run `fmrnet graphs MODEL --out MODEL` where 'fmrnet[train]' is installed",
                "or pip install 'fmrnet[train]' here",
            )
            for engine in ("auto", *choice.ENGINES)
        ),
    ]
    for given, device, engine, *expected in cases:
        with pytest.raises(ConfigError) as caught:
            choice.choose(given, device, engine)
        assert all(part in str(caught.value) for part in expected)
    without(monkeypatch, "torch")
    with pytest.raises(ConfigError, match="use engine onnxruntime, for this model has graphs"):
        choice.choose(graphs, "cpu", "torch")


def test_load_takes_an_engine_and_names_the_file(tmp_path, content):
    inspector = make_inspector()
    inspector.save(tmp_path / "a.fmr")
    assert fmrnet.load(tmp_path / "a.fmr", "cpu", engine="torch").engine.name == "torch cpu"
    with pytest.raises(ConfigError, match="needs graphs, and this model file has no graphs"):
        fmrnet.load(tmp_path / "a.fmr", engine=choice.ENGINES[0])
    broken = dataclasses.replace(
        with_graphs(content, "glance", "more"), calibration=inspector.calibration.to_dict()
    )
    fmrnet.artifact.save(broken, tmp_path / "b.fmr")
    pytest.importorskip(choice.ENGINES[0])
    with pytest.raises(
        ArtifactError, match=r"b\.fmr: the model has the graphs .*; make it anew with `fmrnet graphs`"
    ):
        fmrnet.load(tmp_path / "b.fmr", engine=choice.ENGINES[0])


def test_inputs_of_graphs_are_what_the_settings_need():
    general = dataclasses.replace(INSTANT, iterations=(1, 1, 1))
    assert inputs_of(INSTANT) == {"glance": ("picture", "inside", "usual"), "fuse": ("surprise",)}
    assert inputs_of(general)["fuse"] == ("picture", "background", "surprise", "inside", "usual")
    assert inputs_of(general)["restore"] == ("picture",)


@pytest.mark.parametrize("names", [(), ("glance",), ("glance", "fuse", "restore", "\x1b[2J")])
def test_graphs_that_the_settings_do_not_ask_for_are_refused(content, names):
    with pytest.raises(ArtifactError, match=r"expected glance, .*; make it anew") as caught:
        GraphEngine(with_graphs(content, *names), "onnxruntime")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", runtimes.RUNTIMES)
def test_a_graph_that_cannot_be_read_is_refused_in_one_line(content, name):
    pytest.importorskip(name)
    with pytest.raises(ArtifactError, match="a graph cannot be read") as caught:
        GraphEngine(with_graphs(content, *inputs_of(CONFIG)), name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", runtimes.RUNTIMES)
def test_a_graph_of_other_inputs_is_refused_and_one_of_these_runs(name):
    pytest.importorskip(name)
    onnx = pytest.importorskip("onnx")
    ends = [
        onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, ["rows", 2]) for end in ("in", "out")
    ]
    nodes = [onnx.helper.make_node("Neg", ["in"], ["out"])]
    graph = onnx.helper.make_graph(nodes, "negative", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 18)
    stored = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    run = runtimes.RUNTIMES[name](stored, ("in",))
    for rows in (1, 3):
        values = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        (found,) = run({"in": values})
        assert np.array_equal(found, -values)
    with pytest.raises(ArtifactError, match="a graph cannot be run"):
        run({"other": values})
    with pytest.raises(ArtifactError, match="a graph takes in: expected picture; make it anew"):
        runtimes.RUNTIMES[name](stored, ("picture",))


def double(graphs):
    """Graphs made of functions instead: what `GraphEngine` does with them, without a runtime."""
    return lambda stored, inputs: graphs[inputs]


def test_an_engine_on_graphs_fills_passes_on_what_it_keeps_and_cuts(content, monkeypatch):
    """With the network's own parts in the place of its graphs, it finds what PyTorch finds."""
    instant = of_instant(content)
    calls = []

    def glance(arrays_):
        calls.append(("glance", {name: values.shape for name, values in arrays_.items()}))
        (filled,) = arrays_["picture"]
        return [np.ones((5, 2, 2), np.float32), np.float32(3), filled[0]]

    def fuse(arrays_):
        calls.append(("fuse", {name: values.shape for name, values in arrays_.items()}))
        return [arrays_["surprise"] / 2, arrays_["surprise"], np.zeros((0,), np.float32)]

    monkeypatch.setattr(graph_engine, "with_weights", lambda template, names, weights: template)
    monkeypatch.setitem(
        runtimes.RUNTIMES,
        "onnxruntime",
        double({("picture", "inside", "usual"): glance, ("surprise",): fuse}),
    )
    engine = GraphEngine(with_graphs(instant, *inputs_of(INSTANT)), "onnxruntime")
    given = picture()
    seen = engine.glance(given)
    found = engine.compare(seen)
    assert calls == [
        ("glance", {"picture": (1, 1, 96, 96), "inside": (96, 96), "usual": (2, 24, 24)}),
        ("fuse", {"surprise": (96, 96)}),
    ]
    assert seen.typical == 3.0
    assert np.array_equal(found.evidence, given[0])
    assert np.array_equal(found.anomaly_map, given[0] / 2)
    assert found.readings is seen.readings
    assert engine.name == "onnxruntime cpu"


def test_a_graph_that_gives_something_else_is_refused(content, monkeypatch):
    monkeypatch.setattr(graph_engine, "with_weights", lambda template, names, weights: template)
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", lambda stored, inputs: lambda arrays_: [])
    instant = with_graphs(of_instant(content), *inputs_of(INSTANT))
    with pytest.raises(ArtifactError, match="the graph glance gives 0 arrays: expected 3"):
        GraphEngine(instant, "onnxruntime").glance(picture())


def test_a_graph_is_made_when_it_is_first_needed(content, monkeypatch):
    """The early exit does not wait for what only the pixel level needs."""
    made = []

    def make(stored, inputs):
        made.append(inputs)
        return lambda arrays_: [np.zeros((1, 2, 2), np.float32), np.float32(0), *arrays_["picture"][0]]

    monkeypatch.setattr(graph_engine, "with_weights", lambda template, names, weights: template)
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", make)
    engine = GraphEngine(with_graphs(of_instant(content), *inputs_of(INSTANT)), "onnxruntime")
    engine.glance(picture())
    engine.glance(picture())
    assert made == [("picture", "inside", "usual")]


@pytest.mark.parametrize(
    ("said", "expected"), [("1", 1), ("2,1", 2), ("", None), ("all", None), ("100000", None), ("0", None)]
)
def test_threads_are_as_many_as_the_process_may_use(monkeypatch, said, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(runtimes.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert runtimes.threads() == (expected or 3)


def test_modality_maps_have_the_pictures_size(engine):
    given = picture()
    found = torch_engine.modality_maps(given[:, ::-1], engine.restore(given), 5)
    assert {values.shape for values in found.values()} == {(70, 90)}
    assert set(found) == {"gms", "ssim", "residual"}
