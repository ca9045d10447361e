"""Drift: told where there is one, by name; not told of good pictures, of defects, or of too few."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from commands import only_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tiny import ground, make_inspector, with_thresholds

from fmrnet.errors import ArtifactError, ConfigError
from fmrnet.inspection.calibration import Calibration
from fmrnet.inspection.drift import FALSE_RATE, _greater, _p_values, drift
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.limits import Limits, Look, look
from fmrnet.pictures import write_picture

LAWS = {
    "normal": lambda draw, shape: draw.normal(0, 1, shape),
    "heavy tails": lambda draw, shape: draw.standard_cauchy(shape).clip(-40, 40),
    "skewed": lambda draw, shape: draw.lognormal(0, 1, shape).clip(0, 40),
    "ties": lambda draw, shape: draw.integers(0, 3, shape).astype(float),
    "constant": lambda draw, shape: np.zeros(shape),
}


def looks_of(values):
    """Looks whose level, deviation and contrasts are these numbers (pictures, 6), one of them 0.001."""
    made = 0.5 + 0.01 * np.asarray(values, dtype=float)
    return tuple(
        Look((float(row[0]),), float(row[1] / 4), tuple(map(float, row[2:] / 4)), (99, 99)) for row in made
    )


def calibration_of(looks, scores=(1.0,), parts=1.0):
    """A calibration with these looks and scores of good pictures."""
    made = with_thresholds(picture=1.0, patch=1.0, pixel=0.5, limits=Limits.around(looks, [1.0], [0.0]))
    return dataclasses.replace(
        made, looks=tuple(looks), patch=GoodScores(tuple((score,) for score in scores), parts=parts)
    )


def known(values, scores=(1.0,), parts=1.0):
    return calibration_of(looks_of(values), scores, parts)


def told(law, good, seen, draw, *, defective=0, high=100.0):
    """Drift of a batch drawn by the same law as the good pictures, but for the defective ones."""
    values, scores = LAWS[law](draw, (seen, 6)), draw.gamma(9, size=seen)
    values[:defective] = high / 10
    scores[:defective] += high
    calibration = known(LAWS[law](draw, (good, 6)), draw.gamma(9, size=good))
    return drift(calibration, looks_of(values), scores.tolist())


@given(values=st.lists(st.integers(0, 5), min_size=5, max_size=8), good=st.integers(1, 4))
@settings(deadline=None)
def test_of_all_ways_to_draw_the_good_ones_a_share_of_p_at_most_gives_p(values, good):
    """Which is what a p-value is, with ties or without."""
    chosen = np.array(list(itertools.combinations(range(len(values)), good)))
    others = np.array([np.setdiff1d(range(len(values)), row) for row in chosen])
    seen, known_good = (np.array(values, dtype=float)[rows] for rows in (others, chosen))
    for each in (_greater(seen, known_good), _p_values(seen, known_good, 0.25)):
        for p in each:
            assert np.mean(each <= p + 1e-12) <= p + 1e-9


@pytest.mark.parametrize("sizes", [(30, 40), (200, 80)])  # exact, and by the normal law
def test_p_values_of_batches_without_a_drift_are_kept(sizes):
    draw = np.random.default_rng(0)
    found = _p_values(draw.random((2000, sizes[1])), draw.random((2000, sizes[0])), 0.0)
    for rate in (0.01, 0.05, 0.2):
        assert np.mean(found <= rate) == pytest.approx(rate, abs=4 * (rate / 2000) ** 0.5)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("good", [4, 8, 40])
def test_good_pictures_are_told_as_drift_hardly_ever(law, good):
    draw = np.random.default_rng(1)
    found = [told(law, good, 40, draw) for _ in range(20)]
    assert all(one.measures for one in found)
    assert not any(one.drifted for one in found)


@pytest.mark.parametrize("law", ["normal", "ties", "constant"])
@pytest.mark.parametrize("high", [-9.0, 100.0])
def test_a_quarter_of_defective_pictures_is_no_drift_whatever_they_look_like(law, high):
    draw = np.random.default_rng(2)
    found = [told(law, 200, 200, draw, defective=50, high=high) for _ in range(10)]
    assert not any(one.drifted for one in found)


def test_half_of_the_pictures_may_score_high():
    draw = np.random.default_rng(3)
    good, values = LAWS["normal"](draw, (200, 6)), LAWS["normal"](draw, (200, 6))
    scores = draw.gamma(9, size=400)
    for defective, is_told in ((100, False), (200, True)):
        scores[:defective] += 50
        found = drift(known(good, scores[200:]), looks_of(values), scores[:200].tolist())
        assert [change.measure for change in found.changes] == ["score"] * is_told


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.sampled_from([-4.0, 4.0]), good=st.integers(8, 60))
def test_a_shift_is_told_by_name_and_the_order_says_nothing(seed, shift, good):
    draw = np.random.default_rng(seed)
    values = draw.normal(0, 1, (30, 6))
    values[:, 0] += shift
    calibration = known(draw.normal(0, 1, (good, 6)), draw.gamma(9, size=good))
    looks, scores = looks_of(values), draw.gamma(9, size=30)
    found = drift(calibration, looks, scores.tolist())
    (change,) = (change for change in found.changes if change.measure == "brightness")
    assert found.p_value <= change.p_value <= FALSE_RATE
    assert f"brightness is {'higher' if shift > 0 else 'lower'} than in the good pictures" in str(change)
    order = draw.permutation(30)
    assert found == drift(calibration, [looks[i] for i in order], scores[order].tolist())
    assert found == drift(
        dataclasses.replace(calibration, looks=calibration.looks[::-1]), looks, scores.tolist()
    )


@pytest.mark.parametrize("good", [2, 3, 5, 8])
def test_what_few_good_pictures_can_tell_is_said(good):
    """So many pictures as are said to be needed tell a drift as plain as can be; one fewer tell nothing, and say so."""
    calibration = known(np.zeros((good, 6)))

    def of(count):
        values = np.zeros((count, 6))
        values[:, 0] = 9
        return drift(calibration, looks_of(values), [1.0] * count)

    needed = of(1).needed
    assert needed is not None
    assert of(needed).drifted
    assert not of(needed - 1).measures
    (line,) = of(needed - 1).lines()
    assert line.endswith(f"{needed} pictures would do")
    (line,) = of(1).lines()
    assert line.startswith("a drift cannot be told by 1 picture beside ")
    assert list(of(0).lines()) == []


def test_beside_one_good_picture_nothing_is_told():
    found = drift(known(np.zeros((1, 6))), looks_of(np.full((500, 6), 9.0)), [9.0] * 500)
    assert (found.drifted, found.needed, found.p_value) == (False, None, 1.0)
    assert list(found.lines()) == ["no drift can be told by so few good pictures (1); calibrate on more"]


def test_a_very_large_batch_is_told_as_well_and_takes_no_time():
    values = np.random.default_rng(0).normal(0, 1, (5_000, 6))
    calibration = known(values[:8])
    assert not drift(calibration, looks_of(values), [1.0] * len(values)).drifted
    assert drift(calibration, looks_of(values + 9), [1.0] * len(values)).drifted


def test_parts_of_one_picture_count_once_and_their_scores_not_at_all():
    """Held-out parts first: the greater parts alone are compared."""
    values = np.array([-9.0] * 4 + [9.0] * 4)[:, None] * np.ones(6)
    calibration = known(values, [1.0] * 4, parts=5.0)
    found = drift(calibration, looks_of(np.zeros((40, 6))), [9.0] * 40)
    assert found.good == 4
    assert "score" not in found.measures
    assert {change.good for change in found.changes if change.measure == "brightness"} == {0.5 + 0.01 * 9}


def surfaces(count, seed, spoil=lambda picture: picture, channels=1):
    """Pictures (C, H, W) of a rough surface under changing light."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        texture = ndimage.gaussian_filter(draw.normal(0, 1, (channels, 96, 96)), (0, 0.7, 0.7)) * 0.1
        picture = spoil((0.5 + texture) * draw.normal(1, 0.02))
        made.append(picture.clip(0, 1).astype(np.float32))
    return made


@pytest.mark.parametrize(
    ("spoil", "expected", "says"),
    [
        (lambda p: p * 0.8, {"brightness"}, "brightness is lower"),
        (lambda p: (p - p.mean()) * 0.7 + p.mean(), {"contrast"}, "clean the lens"),
        (lambda p: ndimage.gaussian_filter(p, (0, 1, 1)), {"contrast", "sharpness", "grain"}, "focus"),
        (lambda p: p * np.array([1.2, 1, 1]).reshape(3, 1, 1), {"red against green"}, "white balance"),
    ],
)
def test_each_cause_is_named(spoil, expected, says):
    good = [look(picture) for picture in surfaces(16, 0, channels=3)]
    seen = [look(picture) for picture in surfaces(20, 1, spoil, channels=3)]
    calibration = calibration_of(good)
    found = drift(calibration, seen, [1.0] * len(seen))
    assert expected <= {change.measure for change in found.changes} <= expected | {"brightness"}
    text = "\n".join(found.lines("a.fmr"))
    assert says in text
    assert text.endswith("fmrnet calibrate a.fmr GOOD")
    assert json.loads(json.dumps(found.to_dict()))["drifted"]


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ConfigError, match="1 scores of 2 pictures"):
        drift(known(np.zeros((5, 6))), looks_of(np.zeros((2, 6))), [1.0])
    with pytest.raises(ConfigError, match="1 channels: expected 3"):
        drift(
            calibration_of([Look((0.5,) * 3, 0.1, (0.1,) * 4, (99, 99))]),
            looks_of(np.zeros((2, 6))),
            [1.0, 1.0],
        )
    values = json.loads(json.dumps(known(np.zeros((5, 6))).to_dict()))
    values["looks"][0]["level"] = [0.5, 0.5, 0.5]
    with pytest.raises(ArtifactError, match="another number of channels"):
        Calibration.from_dict(values)


@pytest.fixture
def model(tmp_path):
    """A model calibrated on ten pictures."""
    inspector = make_inspector()
    inspector.calibrate([ground(seed=n) + np.uint8(n) for n in range(10)])
    inspector.save(tmp_path / "a.fmr")
    return tmp_path / "a.fmr"


def batch(folder, brighter, count=16):
    folder.mkdir()
    for number in range(count):
        write_picture(folder / f"{number}.png", ground(seed=100 + number) + np.uint8(number % 10 + brighter))
    return folder


def test_inspect_says_so_at_the_end_and_ends_as_ever(model, tmp_path):
    patch = ("--out", tmp_path / "out", "--level", "patch")
    seen = run("inspect", model, batch(tmp_path / "in", 60), *patch)
    assert seen.exit_code == 0
    assert "the line has drifted, by 16 pictures beside 10 good ones:\n  brightness is higher" in seen.stderr
    assert f"fmrnet calibrate {model} GOOD" in seen.stderr
    found = json.loads((tmp_path / "out" / "report.json").read_text())["drift"]
    assert found["drifted"]
    assert (found["pictures"], found["good"], found["changes"][0]["measure"]) == (16, 10, "brightness")
    seen = run("inspect", model, batch(tmp_path / "as before", 0), *patch)
    assert "no drift of brightness" in seen.stderr
    assert not json.loads((tmp_path / "out" / "report.json").read_text())["drift"]["drifted"]


def test_a_resumed_run_tells_the_same_drift(model, tmp_path):
    given, out = batch(tmp_path / "in", 60), tmp_path / "out"
    run("inspect", model, given, "--out", out, "--level", "patch")
    whole = json.loads((out / "report.json").read_text())["drift"]
    lines = (out / "report.jsonl").read_text().splitlines(keepends=True)
    (out / "report.jsonl").write_text("".join(lines[:9]))
    seen = run("inspect", model, given, "--out", out, "--level", "patch", "--resume")
    assert "8 of 16 pictures are in the report already" in seen.stderr
    assert json.loads((out / "report.json").read_text())["drift"] == whole


@pytest.mark.parametrize(
    "change", [{"look": None}, {"look": {"level": [0.5]}}, {"largest_patch_distance": "1"}]
)
def test_a_report_whose_looks_are_damaged_is_not_gone_on_from(model, tmp_path, change):
    given, out = batch(tmp_path / "in", 0, 2), tmp_path / "out"
    run("inspect", model, given, "--out", out, "--level", "patch")
    head, first, *rest = (out / "report.jsonl").read_text().splitlines(keepends=True)
    first = json.dumps(json.loads(first) | change) + "\n"
    (out / "report.jsonl").write_text("".join([head, first, *rest]))
    seen = run("inspect", model, given, "--out", out, "--level", "patch", "--resume")
    assert "damaged" in only_error(seen)
