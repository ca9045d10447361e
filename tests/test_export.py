"""Exported graphs: with model.json alone a foreign program gives the same verdicts."""

from __future__ import annotations

import json

import handmade
import numpy as np
import pytest
from commands import only_error, run
from tiny import ground

from fmrnet.artifact import load, save


@pytest.fixture(scope="module")
def inspector():
    return handmade.make_inspector()


@pytest.fixture(scope="module")
def model(inspector, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "a.fmr"
    inspector.save(path)
    return path


def session(folder, about, name):
    """A graph as a function of arrays in another's program."""
    file = folder / about["graphs"][name]["file"]
    names = about["graphs"][name]["inputs"]
    if about["format"] == "onnx":
        import onnxruntime

        run_ = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda *given: run_.run(None, dict(zip(names, given, strict=True)))
    import openvino

    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda *given: list(compiled(dict(zip(names, given, strict=True))).values())


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_foreign_program_gives_the_same_verdicts(inspector, model, tmp_path, to):
    pytest.importorskip({"onnx": "onnxruntime"}.get(to, to))
    folder = tmp_path / "made"
    seen = run("export", model, "--to", to, "--out", folder)
    assert seen.exit_code == 0, seen.output
    about = json.loads((folder / "model.json").read_text())
    files = {"onnx": {"glance.onnx", "fuse.onnx"}}.get(
        to, {f"{n}.{e}" for n in ("glance", "fuse") for e in ("xml", "bin")}
    )
    assert {path.name for path in folder.iterdir()} == files | {"model.json", "usual.json"}
    known = json.loads((folder / "usual.json").read_text())

    def usually(filled):
        """By the words of model.json."""
        row, column = (4 * np.arange(side // 4) + 2 for side in filled)
        nearest = np.minimum(np.minimum(row, 70 - row)[:, None], np.minimum(column, 90 - column))
        found = np.array(known["near"])[:, np.clip(nearest // 4, 0, 8)]
        rows, columns = (np.minimum(np.arange(side // 4), last) for side, last in zip(filled, (17, 22)))
        found += np.array(known["place"])[:, rows][:, :, columns]
        return np.concatenate((np.exp(found[:2]), found[2:])).astype(np.float32)

    assert all(name in seen.stdout for name in files)
    assert about["opset"] == 18
    assert about["picture"]["shape"] == [1, 1, "height", "width"]
    glance, fuse = (session(folder, about, name) for name in ("glance", "fuse"))
    verdict, decided = about["verdict"], set()
    thresholds = {name: np.array(verdict[name])[:, None, None] for name in ("patch", "pixel")}
    for step in range(12):
        picture = ground(70, 90, seed=step)
        picture[20:30, 20:30] = 150 + 8 * step
        picture[40:50, 60:70] = 160  # beyond the threshold of pixels, but not beside a strong defect
        result = inspector.inspect(picture)
        multiple = about["picture"]["multiple"]
        filled = np.pad(
            picture / np.float32(255), [(0, -side % multiple) for side in picture.shape], mode="reflect"
        )
        given = filled.astype(np.float32)[None, None]
        here = usually(filled.shape)
        np.testing.assert_allclose(here, inspector.engine._usual.at(filled.shape, picture.shape), rtol=1e-5)
        readings, _, surprise = glance(given, np.ones(filled.shape, np.float32), here)
        anomaly_map, evidence, _ = fuse(surprise)
        defective = bool((readings > thresholds["pixel"]).any())  # without a generator: those of glance again
        assert (
            defective
            == bool((readings > thresholds["patch"]).any())
            == (result.defective and not result.reasons)
        )
        if defective:
            anomaly_map, evidence = (values[:70, :90] for values in (anomaly_map, evidence))
            mask = (anomaly_map > verdict["anomaly_map"]) & (evidence > verdict["evidence"] * evidence.max())
            assert np.array_equal(mask, result.mask)
        decided.add(defective)
    assert decided == {True, False}


def test_nothing_is_replaced_and_nothing_half_made_stays(model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    for out in ("full", "full/a.txt", "none/made"):
        line = only_error(run("export", model, "--to", "onnx", "--out", tmp_path / out))
        assert "name a folder that is to be made" in line or "create it first" in line
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "a.txt"]
    bare = load(model)
    bare.graphs.clear()
    save(bare, tmp_path / "bare.fmr")
    line = only_error(run("export", tmp_path / "bare.fmr", "--to", "onnx", "--out", tmp_path / "made"))
    assert "run `fmrnet graphs MODEL --out MODEL`" in line


@pytest.mark.parametrize("small_disk", ["8k"], indirect=True)
def test_a_full_disk_is_said_and_leaves_nothing(model, small_disk):
    line = only_error(run("export", model, "--to", "onnx", "--out", small_disk / "made"), 3)
    assert "No space left" in line
    assert not list(small_disk.iterdir())
