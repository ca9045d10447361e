"""`fmrnet evaluate` and the demo's folder from the outside: what is said, written, kept and returned."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from commands import only_error, run
from PIL import Image
from tiny import ground, make_inspector

from fmrnet.evaluation import demo
from fmrnet.inspection.inspector import Inspector

MASK = np.zeros((96, 112), np.uint8)
MASK[30:50, 40:60] = 255


@pytest.fixture
def dataset(tmp_path):
    """In the layout of BTAD: two good pictures, two with a hole."""
    for number in range(4):
        kind = "ok" if number < 2 else "ko"
        picture = ground(seed=number)
        save(tmp_path / f"set/test/{kind}/{number}.bmp", np.where(MASK & (kind == "ko"), 0, picture))
        if kind == "ko":
            save(tmp_path / f"set/ground_truth/ko/{number}.png", MASK)
    return tmp_path / "set"


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.astype(np.uint8)).save(path)


def test_a_bad_picture_is_named_and_the_figures_are_written(model, dataset, tmp_path):
    out = tmp_path / "figures.json"
    assert run("evaluate", model, dataset, "--out", out).exit_code == 0
    (dataset / "test/ok/1.bmp").write_bytes(b"BM")
    seen = run("evaluate", model, dataset, "--out", out)
    assert seen.exit_code == 2
    assert f"fmrnet: {dataset / 'test/ok/1.bmp'}" in seen.stderr
    assert "1 pictures could not be inspected and are left out" in seen.stdout
    figures = json.loads(out.read_text())
    assert (figures["pictures"]["good"], figures["pictures"]["defective"]) == (1, 2)
    assert [error["picture"] for error in figures["errors"]] == ["test/ok/1.bmp"]
    assert f"{figures['pixel']['roc_auc']:.3f}" in seen.stdout


def test_the_engine_that_is_named_computes(model, dataset, tmp_path):
    out = tmp_path / "figures.json"
    assert run("evaluate", model, dataset, "--out", out, "--engine", "torch").exit_code == 0
    assert json.loads(out.read_text())["engine"] == "torch cpu"
    good = sorted((dataset / "test/ok").iterdir())
    for command in (["evaluate", model, dataset], ["calibrate", model, *good]):
        seen = run(*command, "--engine", "tflite")
        assert "engine 'tflite': expected auto, onnxruntime" in only_error(seen)


def test_the_machines_failure_exits_with_1(model, dataset, monkeypatch):
    inspect = Inspector.inspect

    def exhausted(self, picture, level):
        if picture.name == "0.bmp":
            raise MemoryError
        return inspect(self, picture, level)

    monkeypatch.setattr(Inspector, "inspect", exhausted)
    seen = run("evaluate", model, dataset)
    assert seen.exit_code == 3
    assert "0.bmp: not enough memory" in seen.stderr
    assert "2 defective and 1 good pictures" in seen.stdout


def test_bad_masks_and_bad_places_are_told_before_the_first_inspection(model, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Inspector, "inspect", None)
    content = model.read_bytes()
    for out, message in (
        (model, "was not written by fmrnet, and is not replaced; name another file"),
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "a.json", "there is no folder"),
    ):
        seen = run("evaluate", model, dataset, "--out", out)
        assert (seen.exit_code, seen.stderr.count("\n")) == (2, 1)
        assert message in seen.stderr
    assert model.read_bytes() == content
    save(dataset / "ground_truth/ko/3.png", MASK[:, 1:])
    seen = run("evaluate", model, dataset)
    assert (seen.exit_code, seen.stderr.count("\n")) == (2, 1)
    assert "ko/3.png is 111x96 pixels, its picture 112x96" in seen.stderr


@pytest.mark.parametrize("earlier", [False, True])
def test_ctrl_c_gives_the_figures_of_what_is_done_and_keeps_earlier_ones(
    model, dataset, tmp_path, monkeypatch, earlier
):
    out = tmp_path / "figures.json"
    if earlier:
        assert run("evaluate", model, dataset, "--out", out).exit_code == 0
    inspect = Inspector.inspect

    def interrupted(self, picture, level):
        if picture.name == "1.bmp":
            raise KeyboardInterrupt
        return inspect(self, picture, level)

    monkeypatch.setattr(Inspector, "inspect", interrupted)
    seen = run("evaluate", model, dataset, "--out", out)
    assert seen.exit_code == 130
    assert "2 defective and 1 good pictures" in seen.stdout
    assert "stopped: 1 of 4 pictures were not reached and are left out" in seen.stdout
    assert "ROC-AUC" in seen.stdout
    assert json.loads(out.read_text())["pictures"]["not_reached"] == (0 if earlier else 1)
    assert (f"wrote {out}" in seen.stdout) == (not earlier)


@pytest.mark.slow
def test_termination_is_as_ctrl_c(model, dataset, tmp_path):
    for number in range(4, 60):
        save(dataset / f"test/ok/{number}.bmp", ground(seed=number))
    out = tmp_path / "figures.json"
    every_picture = (
        "from fmrnet import cli, progress; progress.Bar.__init__.__defaults__ = (0.0,); cli.main()"
    )
    command = [sys.executable, "-c", every_picture, "evaluate", str(model), str(dataset), "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as program:
        for line in program.stderr:
            if line.startswith("inspecting 5/60"):
                program.send_signal(signal.SIGTERM)
                break
        printed, told = program.communicate(timeout=120)
    assert program.returncode == 143, told
    assert "were not reached and are left out" in printed
    assert "Traceback" not in told
    figures = json.loads(out.read_text())
    assert 5 <= len(figures["each"]) == 60 - figures["pictures"]["not_reached"] < 60


def test_names_of_folders_are_neither_markup_nor_commands(model, dataset):
    (dataset / "test" / "ko").rename(dataset / "test" / "[b]\x1b[2J")
    (dataset / "ground_truth" / "ko").rename(dataset / "ground_truth" / "[b]\x1b[2J")
    seen = run("evaluate", model, dataset)
    assert seen.exit_code == 0, seen.output
    assert r"│ [b]\x1b[2J │" in seen.stdout
    assert "\x1b" not in seen.stdout


def test_missing_figures_are_explained(model, dataset):
    for path in (dataset / "test" / "ok").iterdir():
        path.unlink()
    seen = run("evaluate", model, dataset)
    assert seen.exit_code == 0, seen.output
    assert "without good test pictures" in seen.stdout


@pytest.fixture
def quick_demo(monkeypatch):
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(demo, "train", lambda good, out, **options: make_inspector())
    monkeypatch.setattr(demo, "KINDS", demo.KINDS[:1])
    return demo


@pytest.mark.parametrize("name", ["dataset/test/good/00.png", "figures.json", "about.txt", "mine.txt"])
def test_the_demo_leaves_other_peoples_folders_alone(tmp_path, quick_demo, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    seen = run("demo", "--out", tmp_path)
    assert (seen.exit_code, seen.stderr.count("\n")) == (2, 1)
    assert "is not empty and not of an earlier demo" in seen.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.slow
def test_the_demo_takes_its_own_folder_again(tmp_path, quick_demo):
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        seen = run("demo", "--out", tmp_path / "empty")
        assert seen.exit_code == 0, seen.output
    assert (tmp_path / "empty" / demo.FIGURES).exists()
    (tmp_path / "file").touch()
    seen = run("demo", "--out", tmp_path / "file")
    assert seen.exit_code == 2
    assert "is no folder" in seen.stderr
