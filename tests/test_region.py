"""The region of interest: a rectangle is a picture of its own, and outside of a mask nothing counts."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil

import handmade
import numpy as np
import pytest
import torch
from commands import only_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tiny import CONFIG, ground, make_inspector

import fmrnet
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.errors import ArtifactError, ConfigError, PictureError
from fmrnet.inspection.limits import look
from fmrnet.inspection.region import Region, largest_rectangle
from fmrnet.learning.data import load_good_pictures
from fmrnet.network.model import FMRNet
from fmrnet.pictures import read_mask, write_picture

masks = st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any)


@pytest.fixture(scope="module")
def inspector():
    return make_inspector()


@pytest.fixture
def of_region(inspector):
    """Inspects within a region, and forgets it."""

    def inspect(picture, region, level="pixel"):
        inspector.region = region
        return inspector.inspect(picture, level)

    yield inspect
    inspector.region = None


def ellipse(height=160, width=192):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - 80) / 70) ** 2 + ((columns - 90) / 80) ** 2 < 1


# what it is


@given(masks)
def test_a_region_is_read_as_it_is_written(mask):
    region = Region.around(mask)
    again = Region.from_dict(json.loads(json.dumps(region.to_dict())))
    assert again == region
    assert np.array_equal(again.spread(np.ones((again.height, again.width)), *mask.shape) > 0, mask)
    assert again.pixels == mask.sum()
    assert np.array_equal(region.spread(region.cut(mask), *mask.shape), mask)


@given(masks)
def test_the_largest_rectangle_is_that_of_all(mask):
    height, width = mask.shape
    best = max(
        (min(h, w), h * w)
        for y, x in itertools.product(range(height), range(width))
        for h, w in itertools.product(range(1, height - y + 1), range(1, width - x + 1))
        if mask[y : y + h, x : x + w].all()
    )
    x, y, w, h = largest_rectangle(mask)
    assert mask[y : y + h, x : x + w].all()
    assert (min(h, w), h * w) == best


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"width": 0}, "width"),
        ({"x": -1}, "x"),
        ({"x": 2**25}, "width"),
        ({"inside": [1, 2]}, "runs of 3 values"),
        ({"inside": [9, 4, 3, -4]}, "inside"),
        ({"inside": [0, 12], "size": [3, 3]}, "does not hold the mask"),
        ({"inside": [0, 2**40]}, "inside"),
        ({"extra": 1}, "fields"),
    ],
)
def test_a_stored_region_is_checked(values, match):
    whole = {"x": 1, "y": 2, "width": 4, "height": 3, "inside": [0, 12], "size": [9, 9]}
    assert Region.from_dict(whole).pixels == 12
    with pytest.raises(ArtifactError, match=match):
        Region.from_dict(whole | values)


def test_a_region_that_no_picture_or_patch_fits_is_refused(inspector, tmp_path, of_region):
    for text in ("1,2,0,4", "1,2,99999999,4"):
        with pytest.raises(ConfigError, match="of a rectangle with pixels"):
            Region.parse(text)
    write_picture(tmp_path / "none.png", np.zeros((9, 9), np.bool_))
    with pytest.raises(ConfigError, match=r"none.png marks nothing"):
        Region.parse(str(tmp_path / "none.png"))
    for text in ("1,2,3", "-5,0,200,200", "0.5,0,64,64", "999999999,0,64,64"):
        with pytest.raises(
            ConfigError, match="expected x,y,width,height in whole pixels, or the file of a mask"
        ):
            Region.parse(text)
    with pytest.raises(PictureError, match="does not exist"):
        Region.parse("none_there.png")
    with pytest.raises(ConfigError, match="holds no square of 64x64, a patch"):
        inspector.region = Region.parse("0,0,63,100")
    checkers = np.indices((200, 200)).sum(0) % 2 > 0
    with pytest.raises(ConfigError, match="holds no square"):
        inspector.region = Region.around(checkers)
    with pytest.raises(
        PictureError, match="112x96 pixels do not hold the region of interest, 64x64 pixels at x = 60"
    ):
        of_region(ground(), Region.parse("60,0,64,64"))
    with pytest.raises(PictureError, match="the mask of the region of interest is 192x160"):
        of_region(ground(), Region.around(ellipse()))


# a rectangle


@settings(max_examples=3)
@given(x=st.integers(0, 60), y=st.integers(0, 40), width=st.integers(64, 130), height=st.integers(64, 110))
def test_a_rectangle_is_inspected_as_a_picture_of_it_alone(inspector, x, y, width, height):
    picture = ground(160, 192, seed=3)
    alone = inspector.inspect(picture[y : y + height, x : x + width])
    inspector.region = Region(x, y, width, height)
    found = inspector.inspect(picture)
    restored = inspector.reconstruct(picture)
    inspector.region = None
    assert (found.score, found.p_value, found.reasons) == (alone.score, alone.p_value, alone.reasons)
    assert found.look == alone.look
    assert np.array_equal(found.patch_scores, alone.patch_scores)
    inside = np.s_[y : y + height, x : x + width]
    outside = np.ones(picture.shape, bool)
    outside[inside] = False
    for whole, part in ((found.anomaly_map, alone.anomaly_map), (found.mask, alone.mask)):
        assert np.array_equal(whole[inside], part)
        assert not whole[outside].any()
    assert np.array_equal(restored[outside, 0], (picture / np.float32(255))[outside])


# a mask


def test_a_mask_of_everything_is_no_mask(of_region, inspector):
    picture = ground(160, 192, seed=3)
    plain = inspector.inspect(picture)
    found = of_region(picture, Region.around(np.ones(picture.shape, np.bool_)))
    assert found.look == plain.look
    assert found.score == pytest.approx(plain.score)
    np.testing.assert_allclose(found.patch_scores, plain.patch_scores, rtol=1e-6)
    np.testing.assert_allclose(found.anomaly_map, plain.anomaly_map, rtol=1e-6)


def test_outside_of_a_mask_nothing_is_marked_and_nothing_counts(of_region, inspector):
    """However loud it is, where the network does not see it beside what is inside."""
    picture, mask = ground(160, 448, seed=3), np.zeros((160, 448), np.bool_)
    mask[:, :150] = ellipse()[:, :150]
    mask[10:20, 430:440] = True  # the rectangle around it is nearly the whole picture
    loud = picture.copy()
    loud[30:90, 300:360] = 255
    quiet, found = (of_region(one, Region.around(mask)) for one in (picture, loud))
    assert inspector.engine.glance(loud[None] / np.float32(255)).readings.max() > 0
    assert not found.anomaly_map[~mask].any()
    assert found.anomaly_map[mask].all()
    assert not found.mask[~mask].any()
    assert found.look.level == pytest.approx(quiet.look.level)
    assert found.look == quiet.look
    assert found.score == pytest.approx(quiet.score)
    np.testing.assert_allclose(found.patch_scores, quiet.patch_scores, rtol=1e-5)
    assert found.patch_scores.any()


def test_by_graphs_nothing_counts_outside_of_a_mask():
    """As by the network, nor does what a picture is filled up with; that real graphs do so is for test_graphs."""
    engine = handmade.make_inspector().engine
    picture, mask = ground(70, 90)[None] / np.float32(255), np.zeros((70, 90), np.bool_)
    mask[:66, :80] = True
    loud = picture.copy()
    loud[:, 66:] = 1
    quiet, seen = (engine.glance(one, mask) for one in (picture, loud))
    assert engine.glance(loud).readings.max() > 2 * quiet.readings.max()
    assert np.array_equal(seen.readings, quiet.readings)
    assert seen.typical == quiet.typical
    found = engine.compare(seen)
    assert found.anomaly_map.shape == mask.shape
    assert not found.anomaly_map[~mask].any()
    assert found.anomaly_map[mask].all()
    assert not found.evidence[~mask].any()


def test_outside_of_a_mask_no_alarm_is_read():
    """By Eq 23, whose alarms an untrained network gives, too."""
    torch.manual_seed(0)
    model = FMRNet(dataclasses.replace(CONFIG, iterations=(2, 2, 0))).eval()
    model.mean.fill_(0.5)
    model.std.fill_(0.1)
    torch.nn.init.normal_(model.memory)
    engine = TorchEngine(model)
    picture, mask = ground(160, 448, seed=3)[None] / np.float32(255), np.zeros((160, 448), np.bool_)
    mask[:, :150] = ellipse()[:, :150]
    found = engine.compare(engine.glance(picture, mask))
    whole = engine.compare(engine.glance(picture))
    rows, columns = (starts * 32 for starts in np.indices(found.readings.shape[1:]))
    for reading, free, row, column in zip(*map(np.ravel, (found.readings, whole.readings, rows, columns))):
        counts = mask[row : row + 64, column : column + 64]
        assert (reading > 0) == counts.any()
        assert reading <= free
        if counts.all():
            assert reading == free
    assert np.array_equal(found.evidence, whole.evidence * mask)


@settings(max_examples=6)
@given(st.integers(0, 9), st.integers(32, 50).map(lambda half: 2 * half))
def test_the_look_inside_a_square_is_that_of_the_square(seed, side):
    """What lies in blocks that the border cuts counts for the mean alone. Even sides: every second pixel is seen."""
    picture = ground(160, 192, seed=seed)[None] / np.float32(255)
    mask = np.zeros((160, 192), np.bool_)
    mask[32 : 32 + side, 64 : 64 + side] = True
    found, alone = look(picture, mask), look(picture[:, 32 : 32 + side, 64 : 64 + side].copy())
    assert found.level == pytest.approx(alone.level)
    assert found.deviation == pytest.approx(alone.deviation)
    assert found.contrasts == pytest.approx(alone.contrasts, rel=1e-3)


# training, calibration, the commands


@pytest.fixture(scope="module")
def framed(tmp_path_factory):
    """Good pictures in a white frame, and the mask of what is within."""
    folder = tmp_path_factory.mktemp("framed")
    (folder / "good").mkdir()
    mask = np.zeros((180, 216), np.bool_)
    mask[10:170, 12:204] = ellipse()
    for n in range(3):
        picture = np.full((180, 216), 255, np.uint8)
        picture[mask] = ground(180, 216, seed=n)[mask]
        write_picture(folder / "good" / f"{n}.png", picture)
    write_picture(folder / "mask.png", mask)
    return folder


def test_training_sees_nothing_from_outside(framed):
    for text in (str(framed / "mask.png"), "52,40,100,90"):
        region = Region.parse(text)
        x, y, width, height = region.rectangle
        pictures, _ = load_good_pictures(framed / "good", 64, region=region)
        assert [picture.shape for picture in pictures] == [(height, width, 1)] * 3
        assert max(picture.max() for picture in pictures) < 150 / 255 + 1e-6
        for n, picture in enumerate(pictures):
            expected = ground(180, 216, seed=n)[y : y + height, x : x + width] / np.float32(255)
            assert np.array_equal(picture[:, :, 0], expected)


def test_the_region_travels_with_the_model_and_calibration_is_of_it(framed, tmp_path):
    inspector = make_inspector()
    inspector.region = Region.parse(str(framed / "mask.png"))
    good = sorted((framed / "good").iterdir())
    calibration = inspector.calibrate(good)
    assert all(one.level[0] < 150 / 255 for one in calibration.looks)  # of the frame nothing
    assert all(suspect.row >= 10 and suspect.column >= 12 for suspect in calibration.loudest)
    inspector.save(tmp_path / "a.fmr")
    again = fmrnet.load(tmp_path / "a.fmr")
    assert again.region == inspector.region
    result = again.inspect(good[0])
    assert not result.reasons
    again.region = None
    assert any("brightness" in reason for reason in again.inspect(good[0]).reasons)


@pytest.mark.slow
def test_train_takes_a_region(framed, tmp_path, monkeypatch):
    """Trained on the frame, too, its white would be what good pictures look like."""
    monkeypatch.setitem(fmrnet.config.PRESETS, "edge", CONFIG)
    model = tmp_path / "a.fmr"
    good = tmp_path / "good"
    good.mkdir()
    for n in range(6):
        shutil.copy(framed / "good" / f"{n % 3}.png", good / f"{n}.png")
    for roi, parts in (("52,40,100,90", False), (framed / "mask.png", True)):
        seen = run("train", good, "--out", model, "--preset", "edge", "--roi", roi)
        assert seen.exit_code == 0, seen.output
        inspector = fmrnet.load(model)
        assert inspector.region == Region.parse(str(roi))
        assert all(one.level[0] < 150 / 255 for one in inspector.calibration.looks)
        assert (inspector.calibration.picture.parts > 1) == parts
    assert str(inspector.region) in run("info", model).stdout


def test_calibrate_and_inspect_take_a_region(model, framed, tmp_path):
    own, out = tmp_path / "a.fmr", tmp_path / "out"
    seen = run("calibrate", model, framed / "good", "--roi", framed / "mask.png", "--out", own)
    assert seen.exit_code == 0, seen.output
    seen = run("inspect", own, framed / "good" / "[0].png", "--out", out)
    assert seen.exit_code == 0, seen.output
    report = json.loads((out / "report.json").read_text())
    assert report["region"]["size"] == [180, 216]
    mask = read_mask(framed / "mask.png")
    for line in report["pictures"]:
        assert not read_mask(out / line["files"]["mask"])[~mask].any()
    seen = run(
        "inspect", own, framed / "good" / "0.png", "--out", out, "--roi", "52,40,100,90", "--level", "patch"
    )
    assert "the thresholds are those of a mask of" in seen.stderr
    seen = run("inspect", own, framed / "good" / "0.png", "--out", out)
    assert "the thresholds are those of" not in seen.stderr
    assert "holds a report of another region; leave out" in only_error(
        run("inspect", own, framed / "good", "--out", out, "--resume", "--roi", "52,40,100,90")
    )
