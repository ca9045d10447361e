"""Thresholds: what they are by definition, and that good pictures pass them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import with_thresholds

from fmrnet.config import Config
from fmrnet.engines.background import patch_alarms, patch_means
from fmrnet.engines.engine import Found, Seen
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.errors import ArtifactError, ConfigError, DatasetError
from fmrnet.inspection.calibration import Calibration, calibrate
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.inspection.limits import Limits, look
from fmrnet.inspection.suspects import Suspect
from fmrnet.network.model import FMRNet
from fmrnet.reference import scoring

TINY = Config(channels=(4, 4, 4, 4, 4), memory_entries=5, overlap=0.0)


@pytest.fixture(scope="module")
def engine():
    torch.manual_seed(0)
    model = FMRNet(TINY)
    model.memory.copy_(torch.randn(model.memory.shape))
    return TorchEngine(model)


class Alarming:
    """An engine to which a picture is its own alarm map."""

    name = "alarming"
    config = TINY

    def glance(self, picture, inside=None):
        distances = 1 + picture[:, ::64, ::64]
        return Seen(picture, distances, float(np.median(distances)))

    def compare(self, seen):
        (alarms,) = seen.picture
        return Found(alarms / 8, alarms, patch_alarms(torch.from_numpy(alarms), 64).numpy()[None])


class Flat:
    """An engine that finds nothing whatever in any picture."""

    name = "flat"
    config = TINY

    def glance(self, picture, inside=None):
        return Seen(picture, np.zeros((1, 2, 2), np.float32), 0.0)

    def compare(self, seen):
        nothing = np.zeros_like(seen.picture[0])
        return Found(nothing, nothing, np.zeros((1, 3, 1), np.float32))


def pictures(count, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.random((1, 128, 64 + 32 * (i % 3)), np.float32) for i in range(count)]


def maps(engine, images):
    return [engine.compare(engine.glance(image)).anomaly_map for image in images]


def named(images, names=None):
    return zip(names or [f"{number}.png" for number in range(len(images))], images)


def test_pixel_threshold_is_the_oracles_k_sigma(engine):
    images = pictures(4)
    found = calibrate(engine, named(images), k=2.5)
    expected = scoring.k_sigma_threshold(maps(engine, images), k=2.5)
    assert found.pixel_threshold == pytest.approx(expected, rel=1e-6)
    assert found.pictures == 4


def test_scores_are_those_of_the_pictures(engine):
    images = pictures(4)
    found = calibrate(engine, named(images[:3]), learnt=named(images[3:]), k=0)
    seen = [engine.glance(image) for image in images]
    assert found.patch.held_out == tuple((one.readings.max(),) for one in seen[:3])
    compared = [engine.compare(one) for one in seen]
    scores = np.array([scoring.patch_alarms(one.anomaly_map, 64).max() for one in compared])
    assert pytest.approx(scores[None, :3], rel=1e-6) == np.array(found.picture.held_out).T
    assert np.array(found.picture.learnt) == pytest.approx(scores[3:, None], rel=1e-6)
    assert found.loudest[0].picture == f"{int(np.argmax(scores[:3]))}.png"
    assert found.quietest[0].picture == f"{int(np.argmin(scores[:3]))}.png"
    values = np.concatenate([one.anomaly_map.ravel() for one in compared[:3]])
    assert (values > found.pixel_threshold).mean() == pytest.approx(1e-3, rel=0.3)
    assert (found.picture.parts, found.looks) == (1, tuple(look(image) for image in images[:3]))
    whole = calibrate(engine, named(images[:3]), pixels=10 * 128 * 96)
    assert whole.picture.parts == pytest.approx(10), "pictures of 64, 96 and 128 columns"
    assert whole.picture_threshold > found.picture_threshold


def test_a_larger_picture_has_more_parts_that_may_stand_out(engine):
    images = pictures(3)
    parts = calibrate(engine, named(images), pixels=10 * 128 * 96)
    assert parts.of_size(10 * 128 * 96) == parts
    sizes = [64 * 64, 128 * 96, 10 * 128 * 96, 10**7]
    thresholds = [parts.of_size(size).picture_threshold for size in sizes]
    assert np.all(np.diff(thresholds) > 0)
    doubled = calibrate(engine, named(images), pixels=20 * 128 * 96)
    assert parts.of_size(doubled.pixels).picture_threshold == pytest.approx(doubled.picture_threshold)
    whole = calibrate(engine, named(images))
    assert whole.of_size(10**7) is whole, "a promise is for pictures like those it rests on"


def test_another_rate_needs_no_pictures(engine):
    images = pictures(4)
    strict, lax = (calibrate(engine, named(images), false_alarms=rate) for rate in (0.01, 0.3))
    assert replace(strict.at(0.3), limits=lax.limits) == lax
    assert strict.picture_threshold > lax.picture_threshold
    for rate in (0, 1, -1, 2, np.nan):
        with pytest.raises(ConfigError, match="false_alarms"):
            lax.at(rate)


def test_the_promise_in_words():
    many = calibrate(Alarming(), named(list(alarms(40, 1))))
    assert many.promise == "at most 5 % of good pictures are called defective: 40 held-out ones promise it"
    few = many.at(0.01).promise
    assert few.startswith("about 1 % of good pictures are called defective: an estimate")
    assert "promise 2.44 % at best" in few
    assert "calibrate on 99 good pictures" in few
    least = many.at(1e-9).promise
    assert least.endswith("; a promise of so low a rate takes more good pictures than anyone has")
    parts = calibrate(Alarming(), named(list(alarms(8, 1))), pixels=10**6).promise
    assert "8 held-out parts of pictures promise nothing; calibrate on 19 good pictures" in parts
    assert "no picture leave early: 0 synthetic defects found at level pixel are too few" in many.exit_promise
    blind = replace(many, early_exit=EarlyExit((0.01,) * 120, (0.02,) * 119 + (1.0,)))
    assert "it would lose more than 1 % of 120 synthetic defects found at level pixel" in blind.exit_promise
    sure = replace(many, early_exit=EarlyExit((0.01,) * 120, (0.02,) * 119 + (0.5,)))
    assert sure.exit_promise.startswith("level auto lets 50 % of good pictures leave early; at most 1 %")
    assert "the 120 synthetic ones" in sure.exit_promise
    for surprise in sure.patch.surprises:
        assert sure.is_settled(surprise) == (sure.patch.p_value(surprise) > 0.5)
    assert not many.is_settled(0.0), "nothing is known of the exit"
    alike = replace(many, patch=many.picture)
    assert alike.exit_promise == "all levels decide alike: this model has no generator"


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(64, 200),
    width=st.integers(64, 200),
    size=st.sampled_from([64, 96]),
    cell=st.sampled_from([1, 4, 8, 16]),
)
def test_patch_alarms_and_means_are_the_oracles(seed, height, width, size, cell):
    shape = (-(-height // cell), -(-width // cell))
    alarms = np.random.default_rng(seed).exponential(size=shape)
    ours = patch_alarms(torch.from_numpy(alarms), size, cell)
    assert np.allclose(ours, scoring.patch_alarms(alarms, size, cell))
    assert np.allclose(
        patch_means(torch.from_numpy(alarms), size, cell), scoring.patch_means(alarms, size, cell)
    )
    pixels = patch_alarms(torch.zeros(height, width), size)
    assert ours.shape == pixels.shape, "patches of every grid are those of the pixels"
    corner = np.zeros(shape)
    corner[-1:, -1:] = 2.0  # the last cell belongs to a patch too
    found = patch_alarms(torch.from_numpy(corner), size, cell)
    assert found.max() == (2 if cell >= 8 else pytest.approx(2 / (64 // cell**2)))


def test_a_small_defect_outscores_lone_pixels_however_many():
    alarms, lone = torch.zeros(2, 512, 512).unbind()
    alarms[100:108, 200:208] = 5.0
    lone[::32, ::32] = 9.0  # four in each patch
    assert patch_alarms(alarms, 64).max() == 5
    assert patch_alarms(lone, 64).max() < 1


def test_patch_alarms_lie_half_a_patch_apart_over_all_of_the_picture():
    alarms = torch.zeros(150, 64)
    alarms[140:148, 10:18] = 1.0
    found = patch_alarms(alarms, 64)
    assert found.shape == (4, 1)  # rows from 0, 32, 64 and 96
    assert found.flatten().tolist() == pytest.approx([0, 0, 0, 1])


def test_a_flat_surface_gives_thresholds_that_can_be_divided_by():
    found = calibrate(Flat(), named(pictures(2)))
    assert found.patch_threshold > 0
    assert found.picture_threshold > 0
    assert found.pixel_threshold > 0


@given(seed=st.integers(0, 10**6), k=st.sampled_from([0.0, 3.0]), threshold=st.floats(0.01, 0.9))
def test_the_mask_is_beyond_the_threshold_and_near_the_strongest_evidence(seed, k, threshold):
    evidence = np.random.default_rng(seed).normal(0, 4, (20, 30)).astype(np.float32)
    values = 1 / (1 + np.exp(-evidence))
    compared = Found(values, evidence, np.zeros((1, 1, 1), np.float32))
    limits = Limits(((0.0, 1.0),), 0.0, ((0.0, 0.5),) * 4, distance=1.0, share=1.0)
    made = with_thresholds(picture=1.0, patch=1.0, pixel=threshold, limits=limits)
    found = replace(made, k=k).mask(compared)
    expected = values > np.float32(threshold)
    if not k:
        expected &= evidence > np.float32(0.4) * evidence.max()
    assert np.array_equal(found, expected)


def test_no_pictures(engine):
    with pytest.raises(DatasetError, match="no good pictures"):
        calibrate(engine, [])


def alarms(count, seed):
    """Maps of good pictures, of which some are a little louder than others, in [0, 1]."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        loud = generator.lognormal(0, 0.1)
        values = 0.02 * loud * generator.exponential(1, (1, 192, 256))
        yield values.clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("count", [8, 16, 40])
@pytest.mark.parametrize("seed", range(3))
def test_one_defective_picture_is_named_with_its_place_and_hardly_moves_a_threshold(count, seed):
    good = list(alarms(count, seed))
    spoilt = [picture.copy() for picture in good]
    spoilt[3][0, 100:112, 200:216] = 0.9
    names = [f"{number}.png" for number in range(count)]
    clean = calibrate(Alarming(), named(good))
    without = calibrate(Alarming(), named([*good[:3], *good[4:]], [*names[:3], *names[4:]]))
    found = calibrate(Alarming(), named(spoilt))
    kept = calibrate(Alarming(), named(spoilt), keep_suspects=True)
    assert clean.suspects == ()
    assert clean.pictures == count
    (suspect,) = found.suspects
    assert suspect.picture == "3.png"
    assert suspect.row <= 100 < 112 <= suspect.row + suspect.height <= 192
    assert suspect.column <= 200 < 216 <= suspect.column + suspect.width <= 256
    assert replace(found, suspects=()) == without, "nothing of it is left"
    assert (kept.suspects, kept.pictures) == ((), count)
    assert kept.loudest[0].picture == "3.png"
    assert (kept.loudest[0].row, kept.loudest[0].column) == (suspect.row, suspect.column)
    for threshold in ("picture_threshold", "pixel_threshold", "patch_threshold"):
        assert getattr(found, threshold) == pytest.approx(getattr(clean, threshold), rel=0.35)


def test_of_several_that_stand_out_one_is_left_out_and_all_are_named():
    """As on parts whose edge shows in three of the good pictures: only a person can say whether they are good."""
    spoilt = list(alarms(17, 1))
    for number in (3, 11, 12):
        spoilt[number][0, 100:112, 200:216] = 0.7 + number / 100
    names = [f"{number}.png" for number in range(17)]
    found = calibrate(Alarming(), named(spoilt[:9], names[:9]), learnt=named(spoilt[9:], names[9:]))
    assert [one.picture for one in found.suspects] == ["12.png"]
    assert {one.picture for one in found.loudest[:2]} == {"3.png", "11.png"}
    assert len(found.loudest) == 3
    others = [name for name in names if name not in ("3.png", "12.png")]
    assert found.loudest[2].picture in others
    without = replace(found.picture, held_out=found.picture.held_out[:3] + found.picture.held_out[4:])
    relief = found.picture.relief(0.05)
    assert relief == pytest.approx(without.thresholds(0.05)[0] / found.picture.thresholds(0.05)[0])
    assert relief < 0.9


def test_of_four_pictures_none_is_named():
    spoilt = list(alarms(4, 0))
    spoilt[3][0, 100:112, 200:216] = 0.9
    found = calibrate(Alarming(), named(spoilt))
    assert found.suspects == ()
    assert found.pictures == 4


@pytest.mark.parametrize("seed", range(3))
def test_a_defective_picture_that_was_learnt_from_is_named_too(seed):
    good = [picture / 2 for picture in alarms(12, seed)]  # of those the network knows less stands out
    good[3][0, 100:112, 200:216] = 0.9
    held_out = list(alarms(3, seed + 10))
    found = calibrate(Alarming(), named(held_out, ["a", "b", "c"]), learnt=named(good))
    (suspect,) = found.suspects
    assert suspect.picture == "3.png"
    assert len(found.picture.learnt) == 11
    assert len(found.picture.held_out) == 3


def test_the_only_held_out_picture_is_kept_however_odd(engine):
    """As five good pictures give it: without it there would be nothing to go by."""
    seen = [(f"{number}.png", look(image)) for number, image in enumerate(pictures(9))]
    black = np.zeros((1, 128, 96), np.float32)
    found = calibrate(engine, [("black.png", black)], looks=[*seen, ("9.png", look(black))])
    assert found.pictures == 1
    assert found.loudest[0].picture == "black.png", "and it is named all the same"
    found = calibrate(engine, [("black.png", black)], looks=seen)
    assert found.suspects == ()
    assert found.limits.level[0][0] == 0


def test_what_training_has_seen_widens_the_limits_of_light_and_contrast_alone(engine):
    images = pictures(6)
    alone = calibrate(engine, named(images))
    dim = [(f"dim {number}.png", look(image / 2)) for number, image in enumerate(images)]
    found = calibrate(engine, named(images), looks=dim)
    assert found.limits.level[0][0] < alone.limits.level[0][0]
    assert found.limits.deviation < alone.limits.deviation
    assert replace(found, limits=alone.limits, looks=alone.looks) == alone
    assert (found.limits.distance, found.limits.share) == (alone.limits.distance, alone.limits.share)
    black = [("black.png", look(np.zeros((1, 70, 80), np.float32)))]
    found = calibrate(engine, named(images), looks=black)
    assert found.limits == alone.limits
    (suspect,) = found.suspects
    assert (suspect.picture, suspect.height, suspect.width) == ("black.png", 70, 80)
    parts = calibrate(engine, named(images[:3], ["a", "b", "c"]), looks=[("a", look(images[0] / 90))])
    assert parts.suspects == (), "three pictures, in four parts"


def test_the_share_of_a_mask_is_that_beyond_the_final_threshold(engine):
    images = pictures(3)
    found = calibrate(engine, named(images), k=0.1)
    largest = max((m > found.pixel_threshold).mean() for m in maps(engine, images))
    assert found.limits.share == pytest.approx((1 + largest) / 2, abs=1e-3), "of three, half of the rest"


@pytest.mark.parametrize("k", [0.0, 3.0, 100.0])
def test_the_threshold_of_a_learned_map_can_be_passed(k):
    torch.manual_seed(0)
    learned = FMRNet(replace(TINY, iterations=(1, 1, 1)))
    torch.nn.init.normal_(learned.memory)
    found = calibrate(TorchEngine(learned), named(pictures(2)), k=k)
    assert torch.sigmoid(torch.tensor(20.0)) > found.pixel_threshold


BAD = {
    "false_alarms": [0, 1, np.nan, "0.05", None],
    "picture": [None, {}, {"held_out": [1.0]}],
    "patch": [None, {}, 3],
    "pixels": [0, -1, 2.5, None],
    "k": [-5.0, np.nan, np.inf, 10**400, True, "3", None],
    "pixel_threshold": [0, -1, 3.0, 10**400, np.inf],
    "early_exit": [None, {}, {"pixel": [0.5], "patch": []}],
    "limits": [None, [], {}, 3],
    "looks": [None, [1], [{}], 3],
    "suspects": [None, "abc", [1], [{}], 3],
    "loudest": [None, "abc", [1], [{}], 3],
    "quietest": [None, "abc", [1], [{}], 3],
}
NAMED = {
    "early_exit": "exit",
    "suspects": "suspect",
    "loudest": "suspect|loudest",
    "quietest": "suspect|quietest",
    "looks": "look",
}


def test_round_trip_and_bad_values(engine):
    images = pictures(6)
    suspects = (Suspect("a.png", "3.0 times as loud", 0, 32, 64, 64),)
    good = replace(calibrate(engine, named(images)), early_exit=EarlyExit((0.1,), (0.2,)), suspects=suspects)
    stored = json.loads(json.dumps(good.to_dict()))
    assert Calibration.from_dict(stored) == good
    assert BAD.keys() == stored.keys()
    for field, values in BAD.items():
        for value in values:
            named_so = NAMED.get(field, f"{field}|scores" if field in ("picture", "patch") else field)
            with pytest.raises(ArtifactError, match=named_so) as caught:
                Calibration.from_dict({**stored, field: value})
            assert len(str(caught.value)) < 400
    for whole in ({"k": 3.0}, {**stored, "more": 1}, [], None):
        with pytest.raises(ArtifactError, match="expected"):
            Calibration.from_dict(whole)
