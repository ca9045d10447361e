"""`fmrnet calibrate`: settings out of range, pictures that cannot be used, and pictures unlike the others."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run
from tiny import ground

import fmrnet
from fmrnet.pictures import write_picture


@pytest.fixture
def model(model, tmp_path):
    """One that may be changed."""
    return Path(shutil.copy(model, tmp_path))


def good(folder, count):
    folder.mkdir()
    for number in range(count):
        write_picture(folder / f"{number}.png", ground(seed=number))
    return folder


@pytest.mark.parametrize(
    "setting",
    [f"--k={k}" for k in ("nan", "inf", "-inf", "-5", "1e9")]
    + [f"--false-alarms={share}" for share in ("nan", "2", "0", "1", "-1")],
)
def test_a_setting_out_of_range_leaves_the_old_file(model, tmp_path, setting):
    before = model.read_bytes()
    seen = run("calibrate", model, good(tmp_path / "good", 2), setting)
    assert seen.exit_code == 2
    (line,) = seen.stderr.splitlines()
    assert setting[2:].split("=")[0].replace("-", "_") in line
    assert model.read_bytes() == before


def test_unreadable_pictures_are_all_named_and_leave_the_old_file(model, tmp_path):
    before = model.read_bytes()
    folder = good(tmp_path / "good", 3)
    (folder / "text.png").write_text("no picture")
    write_picture(folder / "small.png", np.zeros((9, 9), np.uint8))
    seen = run("calibrate", model, folder)
    assert seen.exit_code == 2
    (line,) = seen.stderr.splitlines()
    assert "text.png" in line
    assert "small.png" in line
    assert model.read_bytes() == before


def test_a_picture_unlike_the_others_is_named_with_its_place(model, tmp_path):
    folder = good(tmp_path / "good", 8)
    assert "look at these" not in run("calibrate", model, folder, "--out", tmp_path / "clean.fmr").stdout
    write_picture(folder / "5.png", ground(seed=5) // 40)
    seen = run("calibrate", model, folder, "--out", tmp_path / "spoilt.fmr")
    assert seen.exit_code == 0
    lines = seen.stdout.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("look at these")]
    assert lines[place + 1].startswith(f"  {folder / '5.png'}: ")
    assert lines[place + 1].endswith("rows 0 to 95, columns 0 to 111")
    clean, found = (fmrnet.load(tmp_path / f"{name}.fmr", "cpu").calibration for name in ("clean", "spoilt"))
    assert found.picture_threshold == pytest.approx(clean.picture_threshold, rel=0.2)
    assert found.pictures == 7


def test_of_few_pictures_it_is_said_that_none_can_be_told(model, tmp_path):
    seen = run("calibrate", model, good(tmp_path / "good", 4))
    assert "a defective one among them would go unseen" in seen.stdout
