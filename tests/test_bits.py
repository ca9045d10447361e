"""Pictures of 12 bits in 16: training, calibration, inspection and evaluation take them as the same light in floats."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny import CONFIG, ground, without_names
from typer.testing import CliRunner

import fmrnet
from fmrnet.cli import app
from fmrnet.pictures import write_picture


def run(*arguments):
    seen = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert seen.exit_code == 0, seen.output
    return seen


@pytest.fixture
def folders(tmp_path):
    """The same pictures twice: as 12 bits in 16-bit PNG that do not say so, and as floats."""
    for name in ("twelve", "floats"):
        for part in ("test/good", "test/cut", "ground_truth/cut"):
            (tmp_path / name / part).mkdir(parents=True)
        write_picture(tmp_path / name / "ground_truth/cut/0_mask.png", np.eye(96, 112) > 0)
        for number in range(5):
            twelve = ground(seed=number).astype(np.uint16) * 16
            for part in ("test/good", "test/cut") if number == 0 else ("test/good",):
                if name == "twelve":
                    Image.fromarray(twelve).save(tmp_path / name / part / f"{number}.png")
                else:
                    tifffile.imwrite(
                        tmp_path / name / part / f"{number}.tif", twelve.astype(np.float32) / np.float32(4095)
                    )
    return tmp_path / "twelve", tmp_path / "floats"


def scores(model, pictures, out, *options):
    run("inspect", model, pictures, "--out", out, *options)
    return [entry["score"] for entry in json.loads((out / "report.json").read_text())["pictures"]]


def test_a_model_inspects_with_the_bits_that_it_was_trained_with(tmp_path, folders):
    twelve, floats = (folder / "test/good" for folder in folders)
    trained = fmrnet.train(twelve, tmp_path / "twelve.fmr", config=CONFIG, bits=12)
    same = fmrnet.train(floats, tmp_path / "floats.fmr", config=CONFIG)
    assert without_names(trained.calibration) == without_names(same.calibration)
    assert (trained.bits, same.bits) == (12, None)
    as_trained = scores(tmp_path / "twelve.fmr", twelve, tmp_path / "a")
    assert as_trained == scores(tmp_path / "floats.fmr", floats, tmp_path / "b")
    assert as_trained != scores(tmp_path / "twelve.fmr", twelve, tmp_path / "c", "--bits", "16")


def test_every_command_takes_them(model, tmp_path, folders):
    twelve, floats = folders
    found = scores(model, twelve / "test/good", tmp_path / "a", "--bits", "12")
    assert found == scores(model, floats / "test/good", tmp_path / "b")

    run("evaluate", model, twelve, "--bits", "12", "--out", tmp_path / "twelve.json")
    run("evaluate", model, floats, "--out", tmp_path / "floats.json")
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("twelve", "floats"))
    assert first["pixel"] == second["pixel"]

    run(
        "calibrate",
        model,
        twelve / "test/good",
        "--bits",
        "12",
        "--out",
        tmp_path / "twelve.fmr",
    )
    run("calibrate", model, floats / "test/good", "--out", tmp_path / "floats.fmr")
    calibrated, other = fmrnet.load(tmp_path / "twelve.fmr"), fmrnet.load(tmp_path / "floats.fmr")
    assert without_names(calibrated.calibration) == without_names(other.calibration)
    assert calibrated.bits == 12


def test_more_bits_than_those_are_named(model, tmp_path, folders):
    seen = CliRunner().invoke(
        app,
        [
            "inspect",
            str(model),
            str(folders[0] / "test/good"),
            "--out",
            str(tmp_path / "out"),
            "--bits",
            "10",
        ],
    )
    assert seen.exit_code == 2
    assert "values up to 23" in seen.stderr
    assert "10 bits end at 1023" in seen.stderr
