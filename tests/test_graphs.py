"""Graphs in model files: they say what the network says, in every runtime, and wrong ones are refused."""

import dataclasses

import numpy as np
import pytest
from tiny import ground, make_general_inspector

import fmrnet
from fmrnet import artifact
from fmrnet.engines.onnx_bytes import with_weights
from fmrnet.engines.torch_engine import with_graphs
from fmrnet.errors import ArtifactError, ConfigError
from fmrnet.inspection.region import Region

for module in ("onnx", "onnxscript", "onnxruntime"):
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


def test_models_of_patches_have_none(model):
    with pytest.raises(ConfigError, match="tile"):
        with_graphs(artifact.load(model))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("channels", "settings"),
    [(1, {"iterations": (0, 0, 0)}), (3, {"head_iterations": 1})],
    ids=["instant", "general"],
)
def test_a_runtime_says_what_the_network_says(tmp_path, monkeypatch, channels, settings):
    monkeypatch.setenv("FMRNET_CACHE", str(tmp_path / "cache"))
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
    asked.save(tmp_path / "b.fmr")
    assert (tmp_path / "a.fmr").read_bytes() == (tmp_path / "b.fmr").read_bytes()

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
