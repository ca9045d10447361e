"""Engines are compared when graphs are made, and one that gives other scores is refused from then on."""

from __future__ import annotations

import dataclasses
import json

import handmade
import numpy as np
import pytest
from commands import only_error, run
from tiny import ground

import fmrnet
from fmrnet.artifact import load
from fmrnet.engines import choice
from fmrnet.engines.agreement import TOLERANCE, beyond
from fmrnet.engines.engine import Seen
from fmrnet.engines.probes import machine
from fmrnet.errors import ConfigError
from fmrnet.evaluation.agreement import PICTURES, SIDE, agreement, probes
from fmrnet.evaluation.drawn_defects import KINDS
from fmrnet.inspection.inspector import Inspector
from fmrnet.pictures import write_picture


@pytest.fixture(scope="module")
def inspector():
    return handmade.make_inspector()


class Louder:
    """An engine whose readings are so many times as large."""

    def __init__(self, engine, times):
        self.engine, self.times, self.config, self.name = engine, times, engine.config, "louder"

    def glance(self, picture):
        seen = self.engine.glance(picture)
        return Seen(seen.picture, seen.readings * np.float32(self.times), seen.typical, seen.kept)

    def compare(self, seen):
        found = self.engine.compare(seen)
        return dataclasses.replace(found, readings=seen.readings)


def on(monkeypatch, inspector, **times):
    """Engines by name that are so many times as loud."""

    def made(self, engine):
        return Inspector(Louder(inspector.engine, times[engine]), inspector.calibration, {})

    monkeypatch.setattr(Inspector, "on", made)


def test_an_engine_that_says_the_same_does_not_differ(inspector):
    found = agreement(inspector, ["onnxruntime"])
    assert found["pictures"] == PICTURES * (1 + len(KINDS))
    assert found["of"] == "drawn textures and defects"
    (seen,) = found["engines"].values()
    assert seen.pop("machine") == machine("onnxruntime")
    assert seen == {"difference": 0.0, "changed": {"patch": 0.0, "pixel": 0.0}}


def test_differences_and_changed_verdicts_are_seen(inspector, monkeypatch):
    on(monkeypatch, inspector, onnxruntime=1.000001, openvino=0.05)
    seen = []
    found = agreement(inspector, ["onnxruntime", "openvino"], progress=lambda *one: seen.append(one))
    assert seen == [(done, found["pictures"]) for done in range(found["pictures"] + 1)]
    near, far = found["engines"]["onnxruntime"], found["engines"]["openvino"]
    assert 0 < near["difference"] < 1e-3
    assert near["changed"] == {"patch": 0.0, "pixel": 0.0}
    assert far["difference"] > 0.1
    assert 0 < far["changed"]["patch"] <= 1
    provenance = {"graphs": {"agreement": found}}
    assert beyond(provenance, "onnxruntime") is None
    assert beyond(provenance, "openvino") == far["difference"]


def test_probes_are_parts_of_good_pictures_and_the_same_with_each_kind_of_defect(inspector, tmp_path):
    for seed in range(PICTURES + 1):
        write_picture(tmp_path / f"{seed}.png", ground(300, 400, channels=3, seed=seed))
    found = list(probes(inspector, sorted(tmp_path.iterdir())))
    assert len(found) == PICTURES * (1 + len(KINDS))
    assert {one.shape for one in found} == {(SIDE, SIDE, 1)}
    for start in range(0, len(found), 1 + len(KINDS)):
        assert all(np.any(one != found[start]) for one in found[start + 1 : start + 1 + len(KINDS)])


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"graphs": None},
        {"graphs": {"agreement": ["onnxruntime"]}},
        {"graphs": {"agreement": {"engines": {"onnxruntime": {"difference": "1"}}}}},
        {"graphs": {"agreement": {"engines": {"onnxruntime": {"difference": TOLERANCE}}}}},
        {"graphs": {"agreement": {"engines": {"openvino": {"difference": 1.0}}}}},
    ],
)
def test_what_is_not_known_to_differ_is_not_refused(provenance):
    assert beyond(provenance, "onnxruntime") is None


def test_an_engine_that_differed_is_refused_by_name_and_passed_over_by_auto(inspector, monkeypatch):
    told = {"graphs": {"agreement": {"engines": {"onnxruntime": {"difference": 0.25}}}}}
    content = dataclasses.replace(inspector.content, provenance=told)
    with pytest.raises(
        ConfigError, match=r"onnxruntime gave other scores than torch .* by 0\.25: expected up to 0\.01"
    ):
        choice.choose(content, "cpu", "onnxruntime")
    monkeypatch.setattr(choice, "_has", lambda name: name != "torch")
    monkeypatch.setattr(choice, "GraphEngine", lambda content, runtime: runtime)
    assert choice.choose(content) == "openvino"


def test_making_graphs_says_how_far_each_engine_is_off_and_writes_none_that_no_engine_can_use(
    inspector, tmp_path, monkeypatch
):
    inspector.save(tmp_path / "a.fmr")
    monkeypatch.setattr(fmrnet, "load", lambda *_, **__: handmade.make_inspector(), raising=False)
    monkeypatch.setattr(Inspector, "add_graphs", lambda self: None)  # handmade ones are in it
    monkeypatch.setattr(choice, "installed", lambda: ("onnxruntime", "openvino", "torch"))
    on(monkeypatch, inspector, onnxruntime=1, openvino=0.5)
    seen = run("graphs", tmp_path / "a.fmr", "--out", tmp_path / "b.fmr")
    assert seen.exit_code == 0, seen.output
    assert (
        "onnxruntime: scores differ from torch's by up to 0, verdicts changed: 0 % at level patch"
        in seen.stderr
    )
    assert "more than 0.01: it is refused" in seen.stderr
    stored = load(tmp_path / "b.fmr").provenance["graphs"]["agreement"]
    assert json.dumps(stored["engines"]["onnxruntime"]["difference"]) == "0.0"
    on(monkeypatch, inspector, onnxruntime=2, openvino=0.5)
    seen = run("graphs", tmp_path / "a.fmr", "--out", tmp_path / "c.fmr")
    assert "no engine gives the scores of torch" in only_error(seen)
    assert not (tmp_path / "c.fmr").exists()
