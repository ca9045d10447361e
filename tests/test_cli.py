"""The commands from the outside: what they print, write and return. Bad input is in test_bad_input.py."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st
from tiny import ground, make_inspector

import fmrnet
from fmrnet import artifact
from fmrnet.cli import app
from fmrnet.config import Config
from fmrnet.conformance.selfcheck import Row
from fmrnet.errors import printable
from fmrnet.learning import training
from fmrnet.pictures import write_picture
from fmrnet.progress import Bar, duration


def program(*arguments, **options):
    command = [sys.executable, "-m", "fmrnet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_help_names_the_commands_and_waits_for_nothing_heavy():
    seen = program("--help")
    assert seen.returncode == 0
    for command in ("demo", "train", "calibrate", "inspect", "evaluate", "info", "selfcheck"):
        assert command in seen.stdout
    heavy = "torch", "numba", "numpy", "scipy", "sklearn", "PIL"
    code = f"import sys, fmrnet.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_version():
    assert run("--version").output.strip() == f"fmrnet {fmrnet.__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bogus"],
        ["train"],
        ["train", "good"],
        ["train", "good", "--out", "a.fmr", "--iterations", "many"],
        ["train", "good", "--out", "a.fmr", "--iterations", "1"],
        ["train", "good", "--out", "a.fmr", "--seed", "-1"],
        ["inspect", "a.fmr", "in"],
        ["inspect", "a.fmr", "in", "--out", "out", "--level", "deep"],
    ],
)
def test_usage_errors_exit_with_2(arguments):
    seen = run(*arguments)
    assert seen.exit_code == 2
    assert "Traceback" not in seen.output


@pytest.mark.parametrize("level", ["auto", "patch", "pixel"])
def test_inspect(model, folder, tmp_path, level):
    seen = run("inspect", model, folder, "--out", tmp_path / "out", "--level", level)
    assert seen.exit_code == 0, seen.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["picture"] for entry in report["pictures"]] == [str(folder / f"{i}.png") for i in range(3)]
    assert report["level"] == level
    for line, entry in zip(seen.stdout.splitlines(), report["pictures"], strict=False):
        assert line.startswith("DEFECTIVE" if entry["defective"] else "good")
        assert line.endswith(entry["picture"])
        assert f"{entry['score']:.2f}" in line
        assert entry["level"] == level or level == "auto"
    summary = report["summary"]
    assert f"{summary['defective']} defective, {summary['good']} good, 0 unreadable" in seen.stdout
    assert run("inspect", model, folder, "--out", tmp_path / "out", "--level", level).exit_code == 0  # again


def test_ctrl_c_reports_what_is_done(model, folder, tmp_path, monkeypatch):
    inspect = fmrnet.Inspector.inspect

    def interrupted(self, picture, level):
        if np.array_equal(np.round(picture * 255), ground(seed=1)):
            raise KeyboardInterrupt
        return inspect(self, picture, level)

    monkeypatch.setattr(fmrnet.Inspector, "inspect", interrupted)
    seen = run("inspect", model, folder, "--out", tmp_path / "out")
    assert seen.exit_code == 130
    line = seen.stderr.splitlines()[-1]
    assert line.startswith("fmrnet: stopped, 2 of 3 pictures left")
    assert line.endswith("the same command with --resume goes on")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["summary"]["not_reached"] == 2
    assert len(report["pictures"]) == 1


def test_calibrate_changes_the_thresholds_and_nothing_else(model, folder, tmp_path):
    seen = run("calibrate", model, folder, "--out", tmp_path / "b.fmr", "--k", "4", "--false-alarms", "0.2")
    assert seen.exit_code == 0, seen.output
    before, after = artifact.load(model), artifact.load(tmp_path / "b.fmr")
    assert tuple(after.calibration[name] for name in ("k", "false_alarms")) == (4, 0.2)
    assert len(after.calibration["picture"]["held_out"]) == 3
    assert "about 20 % of good pictures are called defective: an estimate" in seen.stdout
    assert "3 held-out pictures promise 25 % at best; calibrate on 4 good pictures" in seen.stdout
    assert "the good pictures that score highest" in seen.stdout
    assert before.config == after.config
    assert all((before.weights[name] == after.weights[name]).all() for name in before.weights)
    content = (tmp_path / "b.fmr").read_bytes()
    assert run("calibrate", tmp_path / "b.fmr", folder).exit_code == 0
    assert (tmp_path / "b.fmr").read_bytes() != content


def test_calibrate_takes_a_model_whose_calibration_is_of_another_release(model, folder, tmp_path):
    old = artifact.load(model)
    old.calibration.pop("false_alarms")
    artifact.save(old, tmp_path / "old.fmr")
    for command in ("inspect", "evaluate"):
        more = ("--out", tmp_path / "out") if command == "inspect" else ()
        seen = run(command, tmp_path / "old.fmr", folder, *more)
        assert seen.exit_code == 2
        (line,) = seen.stderr.splitlines()
        assert f"run `fmrnet calibrate {tmp_path / 'old.fmr'} GOOD`" in line
    assert run("calibrate", tmp_path / "old.fmr", folder).exit_code == 0
    assert run("inspect", tmp_path / "old.fmr", folder, "--out", tmp_path / "out").exit_code == 0


def test_inspect_decides_at_another_rate_without_new_pictures(model, folder, tmp_path):
    verdicts = {}
    for rate in (0.001, 0.9):
        seen = run("inspect", model, folder, "--out", tmp_path / "out", "--false-alarms", rate)
        assert seen.exit_code == 0, seen.output
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["thresholds"]["false_alarms"] == rate
        verdicts[rate] = [(line["p_value"], line["defective"]) for line in report["pictures"]]
        assert all(defective == (p <= rate) for p, defective in verdicts[rate])
        assert f"about {100 * rate:.3g} %" in seen.stderr or f"at most {100 * rate:.3g} %" in seen.stderr
    assert [p for p, _ in verdicts[0.001]] == [p for p, _ in verdicts[0.9]]
    for rate in ("0", "1", "nan", "-1", "5"):
        seen = run("inspect", model, folder, "--out", tmp_path / "no", "--false-alarms", rate)
        assert seen.exit_code == 2
        (line,) = seen.stderr.splitlines()
        assert "expected a share between 0 and 1, such as 0.05" in line
        assert not (tmp_path / "no").exists()


def test_evaluate(model, tmp_path):
    mask = np.zeros((96, 112), bool)
    mask[30:50, 40:60] = True
    for kind in ("test/good", "test/hole", "ground_truth/hole"):
        (tmp_path / kind).mkdir(parents=True)
    write_picture(tmp_path / "test/good/0.png", ground())
    write_picture(tmp_path / "test/hole/0.png", np.where(mask, 0, ground()).astype(np.uint8))
    write_picture(tmp_path / "ground_truth/hole/0_mask.png", mask)
    seen = run("evaluate", model, tmp_path, "--out", tmp_path / "figures.json")
    assert seen.exit_code == 0, seen.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["pictures"]["good"], figures["pictures"]["defective"]) == (1, 1)
    for word in ("ROC-AUC", "AU-PRO", "precision", "hole", f"{figures['pixel']['roc_auc']:.3f}"):
        assert word in seen.output


def test_info(model):
    seen = run("info", model)
    assert seen.exit_code == 0
    for word in (
        "patch_size",
        "pixel_threshold",
        "promise",
        "provenance",
        "1 entries, see --json",
        "billion multiply-adds for a picture of 512x512",
        "patch level",
    ):
        assert word in seen.output
    content = json.loads(run("info", model, "--json").output)
    assert content["settings"] == artifact.load(model).config.to_dict()
    assert content["provenance"]["loss_curve"] == [[1, 10, 0.5]]


def test_selfcheck_tells_right_from_wrong(monkeypatch):
    right = Row("gms", "eager", "float32", 1e-7, 1e-5, True)
    absent = Row("gms", "triton", "float32", np.nan, np.nan, None, "there is no GPU")
    wrong = Row("gms", "numba", "float32", 0.5, 1e-5, False)
    monkeypatch.setattr("fmrnet.conformance.selfcheck.run", lambda: [right, absent])
    seen = run("selfcheck")
    assert seen.exit_code == 0
    assert "off by 1.0e-07, 1.0e-05 allowed" in seen.stdout
    assert "there is no GPU" in seen.stdout
    assert "2 comparisons: 1 ok, 0 wrong" in seen.stdout
    monkeypatch.setattr("fmrnet.conformance.selfcheck.run", lambda: [right, wrong])
    seen = run("selfcheck")
    assert seen.exit_code == 1
    assert "WRONG" in seen.stdout
    assert "1 functions do not agree" in seen.stderr


@pytest.fixture
def slow_training(monkeypatch, folder):
    """Training stands still: options reach it, and it reports, or is interrupted."""
    calls = []

    def train(good, out, **options):
        calls.append({"good": good, "out": out, **options})
        options["progress"]("phase 1", 1, 4, 2.5)
        if calls[-1]["resume"]:
            message = f"stopped in phase 1; saved in {out}.checkpoint: repeat with --resume"
            raise training.Interrupted(message, signal.Signals[os.environ["SIGNAL"]])
        options["progress"]("fusion", 4, 4, 1.5)
        options["progress"]("defects", 9, 9, float("nan"))
        inspector = make_inspector()
        inspector.provenance["seconds"] = 75
        inspector.save(out)
        return inspector

    monkeypatch.setattr(training, "train", train)
    return calls


def test_train_hands_on_its_options_and_says_what_next(slow_training, folder, tmp_path):
    seen = run(
        *("train", folder, "--out", tmp_path / "a.fmr", "--preset", "paper", "--iterations", 8, "--seed", 5),
        *("--anomalies", tmp_path, "--overlap", 0.25, "--device", "cpu", "--false-alarms", 0.01),
    )
    assert seen.exit_code == 0, seen.output
    (call,) = slow_training
    assert (call["config"].overlap, call["config"].channels[0]) == (0.25, 64)
    assert call["config"].false_alarms == 0.01
    assert (call["iterations"], call["seed"], call["device"]) == (8, 5, "cpu")
    assert (call["resume"], call["restart"], call["keep_odd"]) == (False, False, False)
    assert call["anomalies"] == tmp_path
    assert "1 min 15 s of training" in seen.stdout
    assert "about 5 % of good pictures are called defective: an estimate, for 1 held-out" in seen.stdout
    assert f"next: fmrnet inspect {tmp_path / 'a.fmr'} PICTURES --out report" in seen.stdout
    assert "training 100/100 defects, 9 of 9" in seen.stderr


def test_train_hands_on_restart_and_keep_odd(slow_training, folder, tmp_path):
    assert run("train", folder, "--out", tmp_path / "a.fmr", "--restart", "--keep-odd").exit_code == 0
    assert (slow_training[0]["restart"], slow_training[0]["keep_odd"]) == (True, True)


@pytest.mark.parametrize("there", [True, False])
def test_train_says_if_there_is_nothing_to_resume(slow_training, folder, tmp_path, there):
    if there:
        (tmp_path / "a.fmr.checkpoint").touch()
    seen = run("train", folder, "--out", tmp_path / "a.fmr", "--resume")
    said = "a.fmr.checkpoint is not there yet; training begins at the first step" in " ".join(
        seen.stderr.split()
    )
    assert said is not there


def test_training_errors_are_one_line(folder, tmp_path):
    for arguments, expected in (
        (("--out", tmp_path), f"fmrnet: {tmp_path} is a folder; expected a file name"),
        (
            ("--out", tmp_path / "a.fmr", "--resume", "--restart"),
            "fmrnet: resume and restart contradict each other",
        ),
    ):
        seen = run("train", folder, *arguments)
        assert (seen.exit_code, seen.stderr.count("\n")) == (2, 1)
        assert seen.stderr.startswith(expected)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_training_says_how_to_go_on(slow_training, folder, tmp_path, monkeypatch, name, code):
    monkeypatch.setenv("SIGNAL", name)
    seen = run("train", folder, "--out", tmp_path / "a.fmr", "--resume")
    assert seen.exit_code == code
    assert re.search(
        r"fmrnet: stopped in phase 1; saved in .*a.fmr.checkpoint: repeat with --resume", seen.stderr
    )


def test_demo_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    seen = run("demo", "--out", tmp_path / "demo")
    assert seen.exit_code == 2
    assert "pip install 'fmrnet[demo]'" in seen.stderr


def test_the_demos_pictures_are_a_data_set_with_every_kind_of_defect(tmp_path):
    pytest.importorskip("skimage")
    from fmrnet.evaluation import demo, drawn_defects
    from fmrnet.evaluation.layouts import load_dataset
    from fmrnet.pictures import read_picture

    examples = load_dataset(demo.make_dataset(tmp_path / "set", seed=1)).examples
    assert {example.defect for example in examples} == {"good", *drawn_defects.KINDS}
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "mine.txt").touch()
    demo.make_dataset(tmp_path / "again", seed=2)
    again = demo.make_dataset(tmp_path / "again", seed=1)
    assert (again / "mine.txt").exists()
    bands = sorted((tmp_path / "set" / "train" / "good").iterdir())
    assert [read_picture(band).shape for band in bands] == [(512, demo.PIECE)] * 2
    for example in examples:
        picture = read_picture(example.picture)
        assert picture.shape == (demo.PIECE, demo.PIECE)
        np.testing.assert_array_equal(
            picture, read_picture(again / example.picture.relative_to(tmp_path / "set"))
        )
        assert example.truth(picture.shape).any() == (not example.good)


def test_the_demo_runs_from_end_to_end(tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    from fmrnet.evaluation import demo
    from fmrnet.pictures import read_picture

    monkeypatch.setattr(demo, "train", lambda good, out, **options: make_inspector())
    seen = run("demo", "--out", tmp_path / "demo")
    assert seen.exit_code == 0, seen.output
    assert "The defects are drawn, not photographed" in seen.output
    assert "ROC-AUC" in seen.output
    figures = json.loads((tmp_path / "demo" / demo.FIGURES).read_text())
    assert figures["note"] == "the defects are drawn"
    assert read_picture(tmp_path / "demo" / demo.SHEET).shape[1] > 1000


def test_a_reader_that_stops_reading_is_told_nothing(model):
    """`fmrnet info MODEL --json | head -1`"""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fmrnet", "info", str(model), "--json"]
    seen = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (seen.returncode, seen.stderr) == (0, "")


@pytest.mark.parametrize(
    "redirection",
    [
        "<&- >&- 2>&-",
        *(pytest.param(one, marks=pytest.mark.slow) for one in (">&-", "2>&-", ">&- 2>&-", "2>/dev/full")),
    ],
)
def test_streams_that_are_closed_are_no_error(model, redirection):
    command = f"{sys.executable} -m fmrnet info '{model}' {redirection}"
    seen = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert (seen.returncode, seen.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["info '{model}'", "--help", "--version"])
def test_standard_output_on_a_full_disk_is_named(model, arguments):
    command = f"{sys.executable} -m fmrnet {arguments.format(model=model)} > /dev/full"
    seen = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert (seen.returncode, seen.stderr) == (3, "fmrnet: standard output: No space left on device\n")


def test_a_tilde_is_the_home_folder_in_every_path(model, folder, tmp_path, monkeypatch):
    """Also after `--out=`, where no shell puts it in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(folder)
    seen = run("inspect", model, "~/in", "--out=~/report")
    assert seen.exit_code == 0, seen.output
    assert (tmp_path / "report" / "report.json").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "1.png", "2.png"]
    for command in app.registered_commands:
        for name, kind in get_type_hints(command.callback, include_extras=True).items():
            if "Path" in str(kind).partition("typer")[0]:
                (given,) = kind.__metadata__
                assert given.parser("~/a") == tmp_path / "a", (command.callback, name)
                assert given.parser("./~") == Path("~")


def test_no_output_replaces_a_file_that_is_no_model(model, folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for command in (("train", folder), ("calibrate", model, folder)):
        seen = run(*command, "--out", tmp_path / "notes.txt")
        assert seen.exit_code == 2
        assert "notes.txt is no model, and is not replaced by one" in seen.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "a.fmr").touch()
    assert run("calibrate", model, folder, "--out", tmp_path / "a.fmr").exit_code == 0
    assert run("calibrate", model, folder, "--out", tmp_path / "a.fmr").exit_code == 0


@given(st.text(st.characters(), max_size=60), st.integers(20, 50))
def test_what_is_printable_is_one_line_and_nothing_else(text, limit):
    shown = printable(text, limit)
    assert len(shown.splitlines()) <= 1
    assert all(character.isprintable() or unicodedata.category(character) == "Zs" for character in shown)
    assert len(shown) <= 10 * limit
    assert printable(shown, 10 * limit) == shown


def test_texts_of_a_model_are_shown_escaped(tmp_path):
    inspector = make_inspector()
    inspector.provenance["command"] = "fmrnet\nthresholds\x1b[2J" + "x" * 5000
    inspector.save(tmp_path / "a.fmr")
    seen = run("info", tmp_path / "a.fmr")
    assert seen.exit_code == 0
    assert "\x1b" not in seen.stdout
    assert r"fmrnet\nthresholds\x1b[2J" in seen.stdout
    assert max(map(len, seen.stdout.splitlines())) < 1100
    seen = run("info", "none\n\x1b" * 100_000)
    assert seen.exit_code in (1, 2)
    assert "\x1b" not in seen.stderr
    assert len(seen.stderr) < 4000


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.26, "0.3 s"), (59.4, "59 s"), (60, "1 min 0 s"), (7300, "2 h 1 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys):
    with Bar(every=0.0) as bar:
        bar.show("inspecting", 1, 3)
        time.sleep(0.01)
        bar.show("inspecting", 2, 3)
        bar.show("inspecting", 3, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "inspecting 1/3"
    assert re.fullmatch(r"inspecting 2/3, 0\.0 s left", lines[1])
    assert lines[2] == "inspecting 3/3"


def test_progress_of_a_second_job_knows_nothing_of_the_first(capsys, monkeypatch):
    now = iter([0, 0, 100, 1000, 1010])  # of the bar, then of two jobs
    monkeypatch.setattr("fmrnet.progress.time.monotonic", lambda: next(now))
    with Bar(every=0.0) as bar:
        for done in (0, 10, 0, 2):
            bar.show("training", done, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training 0/10", "training 10/10", "training 0/10", "training 2/10, 40 s left"]


def test_progress_of_a_training_is_of_its_time_and_goes_on_while_the_crops_are_restored(capsys):
    with Bar(every=0.0) as bar:
        tell = bar.training(Config(iterations=(20, 10, 40)))
        for call in (
            ("phase 1", 0, 2, 7.0),
            ("phase 1", 2, 2, 1.0),
            ("phase 2", 5, 10, 0.5),
            ("crops", 4, 10, float("nan")),
            ("fusion", 0, 10, 0.3),
            ("fusion", 10, 10, 0.25),
            ("defects", 384, 384, float("nan")),
        ):
            time.sleep(0.01)
            tell(*call)
    lines = [re.sub(", [^,]* left", "", line) for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "training 0/100 phase 1, 0 of 2, loss 7",
        "training 14/100 phase 1, 2 of 2, loss 1",
        "training 16/100 phase 2, 5 of 10, loss 0.5",
        "training 18/100 crops, 4 of 10",
        "training 19/100 fusion, 0 of 10, loss 0.3",
        "training 31/100 fusion, 10 of 10, loss 0.25",
        "training 100/100 defects, 384 of 384",
    ]
