"""Known defects in `fmrnet calibrate --defective` and `fmrnet evaluate`, and drawn ones in `evaluate --drawn`."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import errors_of, only_error, run
from hypothesis import given
from hypothesis import strategies as st
from tiny import ground, with_thresholds

import fmrnet
from fmrnet.evaluation import drawn
from fmrnet.evaluation.known import _rounded_up, known_defects
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.limits import Limits
from fmrnet.pictures import write_picture

MASK = np.zeros((96, 112), bool)
MASK[30:60, 40:80] = True
SMALL = np.zeros((96, 112), bool)
SMALL[30:60, 40:60] = True

CALIBRATION = with_thresholds(
    picture=0.5,
    patch=1.0,
    pixel=0.4,
    limits=Limits(((0.0, 1.0),), 0.0, ((0.0, 0.5),) * 4, distance=1.0, share=1.0),
)


@pytest.fixture
def line(tmp_path, model, monkeypatch):
    """Six good pictures, three defective ones in two folders, of which one looks good, and the masks of these."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "m.fmr")
    for number in range(6):
        save(f"good/{number}.png", ground(seed=number))
    for name, picture, mask in (
        ("hole/0", np.full((96, 112), 255, np.uint8), MASK),
        ("hole/1", np.full((96, 112), 254, np.uint8), MASK),
        ("stain/0", ground(seed=300), MASK & SMALL),
    ):
        save(f"bad/{name}.png", picture)
        save(f"masks/{name}_mask.png", mask)
    return tmp_path


def save(path, picture):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, picture)


CALIBRATE = ("calibrate", "m.fmr", "good", "--out", "new.fmr", "--defective", "bad")


def test_what_is_found_and_missed_is_said(line):
    save("bad/good/9.png", ground(seed=9))  # the layout of MVTec's `test`
    seen = run(*CALIBRATE, "--masks", "masks")
    assert seen.exit_code == 0, seen.output
    p_value = fmrnet.load("new.fmr", "cpu").inspect("bad/stain/0.png").p_value
    assert "2 of 3 known defective pictures are found: 67% (95 % interval 9% to 99%)" in seen.stdout
    assert f"missed:\n  stain/0.png: p-value {p_value:.3g}\n" in seen.stdout
    few = "3 are too few: 29 found of 29 are the least that show it"
    assert f"{few}; 2 of 3 found, 600 pixels (28 across) to 1200 pixels (39 across)" in seen.stdout


def test_nothing_of_the_calibration_rests_on_them(line):
    assert run(*CALIBRATE).exit_code == 0
    assert run(*CALIBRATE[:3], "--out", "plain.fmr").exit_code == 0
    assert fmrnet.load("new.fmr").calibration == fmrnet.load("plain.fmr").calibration


@given(
    held_out=st.lists(st.floats(0.1, 10), min_size=2, max_size=30),
    parts=st.sampled_from([1.0, 4.0]),
    surprises=st.lists(st.floats(-0.3, 40), min_size=1, max_size=9),
)
def test_the_rate_that_misses_none_misses_none_and_no_lower_one_does(held_out, parts, surprises):
    good = GoodScores(tuple((reading,) for reading in held_out), parts=parts)
    calibration = dataclasses.replace(CALIBRATION, picture=good)

    def known(rate):
        each = [
            {
                "class": "hole",
                "picture": str(number),
                "defective": surprise > good.threshold(rate),
                "p_value": good.p_value(surprise),
            }
            for number, surprise in enumerate(surprises)
        ]
        return known_defects(each, calibration.at(rate))

    found = known(0.05)
    assert found.found + len(found.missed) == found.pictures == len(surprises)
    low, high = found.interval
    assert low <= found.found / found.pictures <= high
    if found.rate is None:
        assert known(0.99).missed
        assert "no rate of false alarms misses none of them" in found.sentences()[-1]
        return
    assert known(found.rate).missed == ()
    assert known(found.rate * 0.98).missed
    assert found.promise == calibration.at(found.rate).promise
    assert f"--false-alarms {found.rate:g} would " in found.sentences()[-1]


@given(st.floats(1e-300, 1))
def test_a_rate_is_rounded_up_to_three_digits(rate):
    rounded = _rounded_up(rate)
    assert rounded is None if rate > 0.999 else rate <= rounded <= rate * 1.0101
    assert rounded is None or float(f"{rounded:g}") == rounded


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (
            lambda: shutil.copy("good/3.png", "bad/hole/copy.png"),
            (),
            "bad/hole/copy.png (as good: good/3.png)",
        ),
        (
            lambda: save("masks/stain/0_mask.png", MASK[1:]),
            ("--masks", "masks"),
            "is 112x95 pixels, its picture 112x96",
        ),
        (lambda: save("masks/stain/7_mask.png", MASK), ("--masks", "masks"), "masks/stain/7_mask.png"),
        (lambda: save("masks/stain/0_mask.png", MASK & False), ("--masks", "masks"), "marks no pixel"),
        (
            lambda: shutil.rmtree("bad/hole") or shutil.rmtree("bad/stain"),
            (),
            "bad holds no pictures of defects",
        ),
        (lambda: shutil.rmtree("bad"), (), "bad is no folder"),
        (lambda: Path("empty").mkdir(), ("--masks", "empty"), "empty holds no masks"),
        (lambda: None, ("--masks", "nowhere"), "nowhere is no folder"),
    ],
)
def test_what_cannot_be_known_defects_is_said_before_anything(line, monkeypatch, change, options, said):
    change()
    monkeypatch.setattr(Inspector, "calibrate", None)
    before = Path("m.fmr").read_bytes()
    assert said in only_error(run("calibrate", "m.fmr", "good", "--defective", "bad", *options))
    assert Path("m.fmr").read_bytes() == before


def test_masks_of_nothing_are_refused(line):
    assert "--defective" in only_error(run("calibrate", "m.fmr", "good", "--masks", "masks"))


def test_a_defective_picture_that_cannot_be_read_costs_nothing_else(line):
    Path("bad/hole/0.png").write_bytes(b"no picture")
    seen = run(*CALIBRATE)
    assert seen.exit_code == 2
    (error,) = errors_of(seen)
    assert "bad/hole/0.png" in error
    assert "of 2 known defective pictures are found" in seen.stdout
    assert fmrnet.load("new.fmr").calibration.pictures == 6


def test_an_evaluation_says_what_is_found_by_size(line):
    shutil.copytree("bad", "set/test")
    shutil.copytree("good", "set/test/good")
    shutil.copytree("masks", "set/ground_truth")
    seen = run("evaluate", "m.fmr", "set", "--out", "f.json", "--false-alarms", "0.2")
    assert seen.exit_code == 0, seen.output
    figures = json.loads(Path("f.json").read_text())
    assert figures["false_alarms"] == figures["known"]["false_alarms"] == 0.2
    assert figures["known"]["pictures"] == figures["detection"]["area"]["defects"] == 3
    assert figures["known"]["found"] == figures["picture"]["true_positives"]
    assert all((entry["p_value"] <= 0.2) == entry["defective"] for entry in figures["each"])
    assert sorted(entry["area"] for entry in figures["each"] if "area" in entry) == [600, 1200, 1200]
    for line in ("of 3 known defective pictures are found", "area: ", "contrast: "):
        assert line in seen.stdout


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(drawn, "DRAWS", 3)
    monkeypatch.setattr(drawn, "KINDS", ("hole", "scratch"))


def test_drawn_defects_are_counted_by_kind_size_and_contrast(line, few_draws):
    assert run("calibrate", "m.fmr", "good").exit_code == 0
    seen = run("evaluate", "m.fmr", "good", "--drawn", "--out", "f.json")
    assert seen.exit_code == 0, seen.output
    figures = json.loads(Path("f.json").read_text())
    assert figures["drawn"]
    assert len(figures["each"]) == 3 * 2 * 3
    for kind in ("hole", "scratch"):
        strengths = figures["kinds"][kind]["strengths"]
        assert [one["strength"] for one in strengths] == [1, 0.5, 0.25]
        assert [one["area"]["defects"] for one in strengths] == [3, 3, 3]
        contrasts = [one["contrast"] for one in strengths]
        assert contrasts == sorted(contrasts, reverse=True)
        assert figures["kinds"][kind]["contrast"]["defects"] == 9
    assert "Drawn defects" in seen.stdout
    assert "real ones may be easier or harder" in seen.stdout


def test_good_pictures_that_are_called_defective_take_no_part(line, few_draws):
    assert run("calibrate", "m.fmr", "good").exit_code == 0
    Path("held").mkdir()
    shutil.copy("good/1.png", "held")
    save("held/white.png", np.full((96, 112), 255, np.uint8))
    Path("held/text.png").write_bytes(b"no picture")
    seen = run("evaluate", "m.fmr", "held", "--drawn", "--out", "f.json")
    assert seen.exit_code == 2
    figures = json.loads(Path("f.json").read_text())
    assert figures["flagged"] == ["held/white.png"]
    assert {entry["picture"] for entry in figures["each"]} == {"held/1.png"}
    assert figures["pictures"] == {"good": 1, "flagged": 1, "unreadable": 1, "wrong_size": 0, "failed": 0}
    Path("held/1.png").unlink()
    Path("held/text.png").unlink()
    assert "called defective as they are" in only_error(run("evaluate", "m.fmr", "held", "--drawn"))
    Path("held/white.png").unlink()
    assert "held holds no pictures" in only_error(run("evaluate", "m.fmr", "held", "--drawn"))


def test_ctrl_c_gives_what_is_drawn_so_far(line, few_draws, monkeypatch):
    assert run("calibrate", "m.fmr", "good").exit_code == 0
    inspect, count = Inspector.inspect, iter(range(1000))

    def interrupted(self, picture, level):
        if next(count) == 10:
            raise KeyboardInterrupt
        return inspect(self, picture, level)

    monkeypatch.setattr(Inspector, "inspect", interrupted)
    seen = run("evaluate", "m.fmr", "good", "--drawn", "--out", "f.json")
    assert seen.exit_code == 130
    assert 0 < len(json.loads(Path("f.json").read_text())["each"]) < 18


def test_sizes_of_drawings_are_graded_and_their_contrast_fades():
    picture = ground(400, 600, seed=0).astype(np.float32) / 255
    areas = [drawn._drawn(picture, "stain", 1.0, number)[1].sum() for number in range(30)]
    assert max(areas) > 20 * min(areas)
    assert len({round(2 * math.log(area)) for area in areas}) > 5
    full, truth = drawn._drawn(picture, "stain", 1.0, 7)
    half, same = drawn._drawn(picture, "stain", 0.5, 7)
    np.testing.assert_array_equal(truth, same)
    np.testing.assert_allclose(half - picture, (full - picture) / 2, atol=1e-6)
