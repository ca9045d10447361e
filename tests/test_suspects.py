"""Pictures unlike the others among those given as good: who is found, and that good ones are left alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrnet.errors import ArtifactError
from fmrnet.inspection.limits import Look
from fmrnet.inspection.suspects import Suspect, loud, most, odd


@given(seed=st.integers(0, 10**6), count=st.sampled_from([8, 16, 40, 200]), times=st.floats(10, 100))
def test_one_loud_picture_is_found_whatever_the_others_are(seed, count, times):
    generator = np.random.default_rng(seed)
    alarms = generator.lognormal(0, 0.15, count)
    place = int(generator.integers(count))
    alarms[place] = times * np.median(alarms)
    found = loud(list(alarms))
    assert found[place] == pytest.approx(times, rel=0.2)
    assert next(iter(found)) == place, "the loudest comes first"
    assert loud(list(alarms * 1e-3)).keys() == found.keys(), "the scale is no matter"


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("count", [8, 16, 60])
def test_good_pictures_are_seldom_taken_for_suspects(count, spread):
    """The spread of the logarithm of good pictures' scores is 0.05 to 0.2 on the surfaces measured."""
    generator = np.random.default_rng(0)
    named = [bool(loud(list(generator.lognormal(0, spread, count)))) for _ in range(300)]
    assert np.mean(named) < (0.12 if count == 8 else 0.03)


@given(count=st.integers(0, 4))
def test_of_four_pictures_nothing_can_be_said(count):
    assert loud([1.0, 1.0, 1.0, 100.0][:count]) == {}
    assert odd([seen(0.5), seen(0.5), seen(0.5), seen(0.0)][:count]) == {}


@pytest.mark.parametrize("count", [5, 9, 10, 23, 45])
def test_many_loud_ones_are_a_kind_of_good_ones(count):
    alarms = [1.0] * (count // 2 + 1) + [9.0] * (count - count // 2 - 1)
    assert list(loud(alarms)) == [number for number in range(count) if alarms[number] == 9], "all are named"
    assert most(count) == (2 if count >= 40 else 1), "and no more than one in twenty is left out"
    assert loud([0.0] * count) == {}
    assert loud([2.0] * count) == {}


def seen(level, deviation=0.1, contrast=0.1):
    return Look((level,), deviation, (0.1, 0.1, contrast, 0.1), (64, 64))


def test_a_black_picture_among_others_is_odd_and_two_exposures_are_not():
    others = [seen(level) for level in np.linspace(0.4, 0.6, 9)]
    assert list(odd([*others[:4], seen(0.0), *others[4:]])) == [4]
    assert "brightness 0.000, below 0.2" in odd([*others, seen(0.0)])[9]
    assert list(odd([*others, seen(0.5, deviation=0.0)])) == [9]
    assert list(odd([*others, seen(0.5, contrast=0.45)])) == [9]
    assert odd(others) == {}
    assert odd([*others, seen(0.1), seen(0.1)]) == {}, "two of a kind"
    assert odd([seen(0.3)] * 40 + [seen(0.6)] * 3) == {}


def test_of_five_pictures_one_may_be_odd_and_of_thirty_nine_no_two():
    """Two as far off at either end are each odd beside the others, and too many of thirty-nine."""
    assert list(odd([seen(0.5)] * 4 + [seen(0.0)])) == [4]
    assert list(odd([seen(0.5)] * 38 + [seen(0.0), seen(1.0)])) == [38, 39]
    assert odd([seen(0.5)] * 37 + [seen(0.0), seen(1.0)]) == {}


def test_the_limit_that_is_passed_furthest_is_named():
    others = [seen(0.5)] * 9
    assert "brightness" in odd([*others, seen(0.0, contrast=0.0499)])[9]
    assert "contrast" in odd([*others, seen(0.249, contrast=0.0)])[9]


def test_what_is_said_of_a_suspect_and_bad_values():
    suspect = Suspect("good/7.png", "3.1 times as loud as the typical picture", 32, 64, 64, 60)
    assert str(suspect).endswith("typical picture, rows 32 to 95, columns 64 to 123")
    values = {**vars(suspect)}
    assert Suspect.from_dict(values) == suspect
    assert Suspect.from_dict({**values, "row": 0, "column": 0}).row == 0
    for field, value in (
        ("picture", 3),
        ("reason", "x" * 10_000),
        ("row", -1),
        ("width", 2.5),
        ("height", True),
    ):
        with pytest.raises(ArtifactError, match=field):
            Suspect.from_dict({**values, field: value})
    with pytest.raises(ArtifactError, match="suspect has the fields"):
        Suspect.from_dict([])
