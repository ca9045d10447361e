"""`fmrnet bench MODEL`: every engine in a process of its own, figures that fit each other, power counters."""

from __future__ import annotations

import json

import handmade
import pytest
from commands import only_error, run

from fmrnet.engines import choice
from fmrnet.evaluation import energy, speed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "a.fmr"
    handmade.make_inspector().save(path)
    return path


def test_engines_are_timed_at_every_level_and_one_that_cannot_run_is_named(
    model, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(choice, "installed", lambda: ("onnxruntime", "tflite"))
    out = tmp_path / "found.json"
    seen = run("bench", model, folder, "--budget", "0.05", "--out", out)
    assert seen.exit_code == 0, seen.output
    assert "tflite is left out: engine 'tflite': expected auto, onnxruntime" in seen.stderr
    found = json.loads(out.read_text())
    assert found["pictures"] == 3
    assert found["errors"].keys() == {"tflite"}
    told = found["engines"]["onnxruntime"]
    assert told["engine"] == "onnxruntime cpu"
    assert 0 < told["first_verdict_seconds"] < 60
    assert list(told["levels"]) == ["patch", "auto", "pixel"]
    for level, one in told["levels"].items():
        assert one["inspections"] >= speed.LEAST
        assert 0 < one["p50_seconds"] <= one["p99_seconds"]
        assert one["megapixels_per_second"] == pytest.approx(
            one["pictures_per_second"] * 96 * 112 / 1e6, rel=1e-3
        )
        assert 30 < one["resident_megabytes"] < 2000
        assert len(one["scores"]) == 3
        assert one["left_early"] == {"patch": 1, "pixel": 0}.get(level, one["left_early"])
        assert f"{1000 * one['p50_seconds']:.1f}" in seen.stdout
    auto = told["levels"]["auto"]
    assert (auto["suspect"] is None) == (auto["left_early"] == 1)
    assert f"{100 - 100 * auto['left_early']:.0f} % of pictures stay" in seen.stdout
    table = [line for line in seen.stdout.splitlines() if not line.startswith("wrote ")]
    assert len(max(table, key=len)) <= 80


def test_what_cannot_be_timed_ends_with_2_and_writes_nothing(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "installed", lambda: ("onnxruntime",))
    out = tmp_path / "found.json"
    assert "leave them out, or MODEL" in only_error(run("bench", model, "--only", "64"))
    seen = run("bench", folder / "0.png", folder, "--out", out)
    assert "onnxruntime is left out: " in seen.stderr
    assert "no engine can inspect with this model here" in only_error(seen)
    assert not out.exists()


def zone(folder, name, used, most=1000):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{used}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")


def test_energy_is_that_of_all_packages_and_counters_begin_again(tmp_path):
    assert energy.readings(tmp_path / "none") == {}
    zone(tmp_path, "intel-rapl:0", 100)
    zone(tmp_path, "intel-rapl:0:0", 7)  # a part of the package above
    zone(tmp_path, "intel-rapl:1", 990)
    before = energy.readings(tmp_path)
    zone(tmp_path, "intel-rapl:0", 150)
    zone(tmp_path, "intel-rapl:0:0", 9)
    zone(tmp_path, "intel-rapl:1", 20)
    assert energy.joules_between(before, energy.readings(tmp_path)) == pytest.approx((50 + 30) * 1e-6)
    assert energy.joules_between({}, {}) is None
    assert energy.joules_between(before, {}) is None
