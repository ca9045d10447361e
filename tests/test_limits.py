"""Limits of good pictures as a whole: what passes them, what does not, and what is said of it."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fmrnet.errors import ArtifactError
from fmrnet.inspection.limits import Limits, few_bits, look

shares = st.floats(0, 1)


@st.composite
def surfaces(draw, least=1, most=6):
    """Good pictures of one surface (C, H, W): a texture of some brightness, roughness and grain, under varied light."""
    channels, count = draw(st.sampled_from([1, 3])), draw(st.integers(least, most))
    level, rough = draw(st.floats(0.1, 0.9)), draw(st.floats(0.02, 0.1))
    grain, light = draw(st.integers(1, 4)), draw(st.floats(0, 0.05))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    made = []
    for _ in range(count):
        texture = (
            generator.normal(0, rough, (channels, 96, 128)).repeat(grain, 1).repeat(grain, 2)[:, :96, :128]
        )
        picture = level + texture + generator.normal(0, light)
        made.append(picture.clip(0, 1).astype(np.float32))
    return made


def grey(value):
    """A picture of one value."""
    return np.full((1, 64, 64), value, np.float32)


def noise(seed, channels=1, side=64):
    """A picture of uniform noise."""
    return np.random.default_rng(seed).random((channels, side, side), np.float32)


def around(pictures, distances=(1.0,), masked=(0.0,)):
    return Limits.around([look(picture) for picture in pictures], distances, masked)


@given(good=surfaces())
def test_good_pictures_and_others_like_them_pass_no_limit(good):
    limits = around(good)
    for picture in good:
        assert limits.passed_by(look(picture), 1.0, 0.5) == []
        for other in (picture[:, :, ::-1], picture.swapaxes(1, 2)[:, ::-1], picture[:, :64, :64]):
            assert limits.passed_by(look(other)) == []


@given(good=surfaces(), value=st.floats(0, 1))
def test_a_picture_of_one_value_passes_one(good, value):
    assume(around(good).deviation > 0)  # else the good ones are nearly as flat
    passed = around(good).passed_by(look(np.full((len(good[0]), 256, 256), value, np.float32)))
    assert any("deviation" in limit.reason for limit in passed)


@given(good=surfaces(), seed=st.integers(0, 10**6))
def test_uniform_noise_passes_one_where_the_surface_is_not_as_rough(good, seed):
    assume(max(look(picture).contrasts[0] for picture in good) < 0.02)
    assert around(good).passed_by(look(noise(seed, len(good[0]), 256)))


@given(good=surfaces(), seed=st.integers(0, 10**6))
def test_lone_pixels_pass_no_limit(good, seed):
    generator = np.random.default_rng(seed)
    for picture in good:
        hit = generator.random(picture.shape[1:]) < 0.01
        seen = look(np.where(hit, generator.random(picture.shape, np.float32), picture))
        assert around(good).passed_by(seen) == []


@pytest.mark.parametrize("factor", [1 / 16, 1 / 64])
@given(good=surfaces())
def test_the_values_of_fewer_bits_read_as_sixteen_pass_the_limit_of_brightness(good, factor):
    reasons = [limit.reason for limit in around(good).passed_by(look(good[0] * factor))]
    assert any("below" in reason for reason in reasons)


def test_limits_of_one_picture_by_hand():
    """From one picture a limit lies two margins off: four times the light that there is to that missing."""
    striped = grey(0.5)
    striped[:, ::4] = 0.48
    striped[:, 2::4] = 0.52
    limits = around([striped], distances=[2.0], masked=[0.1])
    (low, high) = limits.level[0]
    assert (high + 0.02) / (1.02 - high) == pytest.approx(4)
    assert (low + 0.02) / (1.02 - low) == pytest.approx(1 / 4)
    assert limits.deviation + 1 / 510 == pytest.approx((0.02 + 1 / 510) / 4, rel=1e-5)
    assert look(striped).contrasts == pytest.approx((0.01, 0.01, 0, 0), abs=1e-6)
    low, high = limits.contrasts[1]
    assert (low + 1 / 510, high + 1 / 510) == pytest.approx(
        [(0.01 + 1 / 510) * by for by in (1 / 4, 4)], rel=1e-4
    )
    assert limits.distance == pytest.approx(8)
    assert limits.share == pytest.approx(0.55)


def test_more_pictures_of_the_same_range_bring_the_limits_nearer():
    few = [grey(0.4), grey(0.6)]
    wide, narrow = around(few, [1.0, 2.0]), around(few * 20, [1.0, 2.0] * 20)
    assert wide.level[0][0] < narrow.level[0][0] < 0.4
    assert wide.level[0][1] > narrow.level[0][1] > 0.6
    assert wide.distance > narrow.distance > 4  # twice the greatest, and a little


@given(times=st.floats(0.1, 10), masked=shares)
def test_distance_and_mask_pass_as_many_times_as_they_are_the_limit(times, masked):
    good = [noise(0)]
    limits = around(good, distances=[3.0], masked=[masked])
    assert limits.share == (1 + masked) / 2
    passed = limits.passed_by(look(good[0]), times * limits.distance, 0.0)
    assert [limit.times for limit in passed] == (
        [pytest.approx(times)] if times * limits.distance / limits.distance > 1 else []
    )
    everything = limits.passed_by(look(good[0]), 0.0, 1.0)
    assert [limit.reason for limit in everything] == (
        [f"mask of 100% of the picture, above {limits.share:.0%}"] if limits.share < 1 else []
    )


def test_each_channel_has_its_own_light():
    good = noise(0, channels=3) * np.float32(0.1)
    good += np.array([0.7, 0.4, 0.1], np.float32)[:, None, None]
    passed = around([good] * 9).passed_by(look(good[::-1]))  # BGR for RGB
    assert [limit.reason.split()[0] for limit in passed] == ["red", "blue"]
    assert all(limit.times > 1 for limit in passed)


@given(seed=st.integers(0, 10**6), bits=st.sampled_from([10, 12, 14]))
def test_few_bits_are_told_by_how_far_the_values_reach(seed, bits):
    values = np.random.default_rng(seed).integers(2 ** (bits - 1), 2**bits, (1, 70, 70))
    said = few_bits((values / 65535).astype(np.float32))
    assert said is not None
    assert f"{bits} bits in a 16-bit file? use --bits {bits}" in said
    assert few_bits((values / (2**bits - 1)).astype(np.float32)) is None, "it fills the range"


@pytest.mark.parametrize("top", [0, 3, 15])
def test_a_dark_picture_of_eight_bits_is_not_taken_for_few_of_sixteen(top):
    values = np.random.default_rng(0).integers(0, top + 1, (1, 70, 70))
    assert few_bits((values / 255).astype(np.float32)) is None


def test_round_trip_and_bad_values():
    limits = around([noise(0, channels=3)])
    values = dataclasses.asdict(limits)
    assert Limits.from_dict(values) == limits
    bad = [
        ("level", [[0.2, 0.4]] * 2),
        ("level", []),
        ("level", [[0.4, 0.2]] * 3),
        ("level", [[0.2, math.nan]] * 3),
        ("level", [[0.2]] * 3),
        ("level", "abc"),
        ("level", [["0.2", "0.4"]] * 3),
        ("deviation", -0.1),
        ("deviation", True),
        ("contrasts", [[0.0, 10**400]] * 4),
        ("contrasts", [[0.0, 0.1]] * 3),
        ("contrasts", None),
        ("distance", 0.0),
        ("distance", math.inf),
        ("share", 0.01),
        ("share", 1.5),
    ]
    for field, value in bad:
        with pytest.raises(ArtifactError, match=field):
            Limits.from_dict({**values, field: value})
    for whole in ([], None, {"level": 1}, {**values, "more": 1}):
        with pytest.raises(ArtifactError, match="limits has the fields"):
            Limits.from_dict(whole)


@given(masked=shares, seed=st.integers(0, 10**6))
def test_the_more_pictures_the_nearer_is_the_masks_limit(masked, seed):
    good = [noise(seed)]
    found = [around(good, masked=[masked] * count).share for count in (1, 4, 16, 64, 256)]
    assert found == sorted(found, reverse=True)
    assert found[-1] > masked or masked > 0.9
    assert around(good, masked=[0.0] * 256).share < 0.07
    assert around(good, masked=[0.1] * 48).share == pytest.approx(0.263, abs=0.001)


@pytest.mark.parametrize("name", ["brick", "grass", "gravel"])
def test_one_photographed_texture_is_not_another(name):
    data = pytest.importorskip("skimage.data")
    textures = {n: (getattr(data, n)()[None] / 255).astype(np.float32) for n in ("brick", "grass", "gravel")}
    quarters = [quarter for half in np.split(textures[name], 2, 1) for quarter in np.split(half, 2, 2)]
    limits = around(quarters)
    for quarter in quarters:
        assert limits.passed_by(look(quarter)) == []
        assert around(quarters[:1]).passed_by(look(quarter)) == [], "one of them speaks for the others"
    if name == "brick":
        assert limits.passed_by(look(textures["grass"]))
        assert limits.passed_by(look(textures["gravel"]))
    else:
        assert limits.passed_by(look(textures["brick"]))
