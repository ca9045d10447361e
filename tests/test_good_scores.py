"""The p-value of a score: the oracle's, in step with its threshold, and a promise that is kept."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrnet.errors import ArtifactError
from fmrnet.inspection.early_exit import LOST, EarlyExit
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.reference import good_scores as oracle

READING = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def good_scores(draw):
    rows = st.tuples(*[READING] * draw(st.integers(1, 6)))
    held_out, learnt = draw(st.lists(rows, min_size=1, max_size=30)), draw(st.lists(rows, max_size=30))
    return GoodScores(tuple(held_out), tuple(learnt), draw(st.sampled_from([1.0, 1.0, 1.5, 40.0])))


@given(good=good_scores(), seed=st.integers(0, 10**6), spread=st.sampled_from([0.1, 1.0, 10.0]))
def test_surprises_and_p_values_are_the_oracles(good, seed, spread):
    generator = np.random.default_rng(seed)
    readings = np.exp(generator.normal(0, spread, (len(good.held_out[0]), 3, 2))) * np.mean(good.held_out)
    surprises = good.surprise(readings)
    p_values = good.p_values(surprises)
    assert np.allclose(
        good.held_out_surprises, oracle.held_out_surprises(good.held_out, good.learnt), atol=1e-6
    )
    for place in np.ndindex(3, 2):
        one = readings[(slice(None), *place)]
        assert surprises[place] == pytest.approx(oracle.surprise(one, good.held_out, good.learnt), abs=1e-6)
        if np.abs(surprises[place] - good.surprises).min() > 1e-5:  # else rounding decides the rank
            expected = oracle.p_value(surprises[place], good.held_out, good.learnt, good.parts)
            assert p_values[place] == pytest.approx(expected, rel=1e-3)
            assert 0 < expected <= 1


@given(good=good_scores(), seed=st.integers(0, 10**6))
def test_a_picture_is_as_surprising_as_its_worst_patch(good, seed):
    patches = np.random.default_rng(seed).exponential(1, (len(good.held_out[0]), 4, 5)) * np.max(
        good.held_out
    )
    assert good.surprise(patches.max((1, 2))) == pytest.approx(good.surprise(patches).max())


SURPRISE = st.floats(0, 300)


@given(good=good_scores(), rate=st.floats(1e-4, 0.999), surprise=SURPRISE, nearby=st.floats(-1e-6, 1e-6))
def test_a_surprise_passes_the_threshold_where_its_p_value_is_at_most_the_rate(good, rate, surprise, nearby):
    threshold = good.threshold(rate)
    assert threshold > 0
    for one in (surprise, threshold * (1 + nearby)):
        if abs(one / threshold - 1) > 1e-9 and one > 1e-9:  # rounding
            assert (one > threshold) == (good.p_value(one) <= rate)


@given(good=good_scores(), rate=st.floats(1e-4, 0.999), seed=st.integers(0, 10**6))
def test_readings_pass_their_own_thresholds_where_their_surprise_passes_the_one(good, rate, seed):
    generator = np.random.default_rng(seed)
    thresholds = np.array(good.thresholds(rate))
    assert (thresholds > 0).all()
    for factors in generator.choice([0.1, 0.999, 1.001, 10.0], (20, len(thresholds))):
        readings = thresholds * factors
        if readings.min() > 1e-11 and readings.max() < 1e30:
            assert (good.surprise(readings) > good.threshold(rate)) == (factors > 1).any()


@given(good=good_scores(), surprises=st.lists(SURPRISE, min_size=2, max_size=20).map(sorted))
def test_more_surprise_never_has_a_higher_p_value(good, surprises):
    values = good.p_values(np.array(surprises))
    assert (np.diff(values) <= 1e-15).all()
    assert values.tolist() == [good.p_value(one) for one in surprises]


def picture_readings(generator, law, count):
    """Readings (count, 6) of good pictures: what all have in common, and what each has of its own."""
    shape = (count, 6)
    if law == "normal":
        return np.exp(generator.normal(0, 0.2, (count, 1)) + generator.normal(0, 0.1, shape))
    if law == "heavy":
        return (1 + generator.pareto(1.0, (count, 1))) * (1 + generator.pareto(2.0, shape))
    return generator.integers(1, 6, shape).astype(float)


@pytest.mark.parametrize("law", ["normal", "heavy", "ties"])
@pytest.mark.parametrize("readings", [1, 6])
@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (32, 0.05), (50, 0.05), (9, 0.2), (200, 0.01)])
def test_the_promise_is_kept_whatever_the_law(law, readings, count, rate):
    """Over many calibrations: the share of further good pictures that are called defective is at most the rate."""
    generator = np.random.default_rng(count)
    shares = []
    for _ in range(400):
        rows = picture_readings(generator, law, count + 100)[:, :readings]
        good = GoodScores(tuple(map(tuple, rows[:count].tolist())))
        assert good.promised <= rate
        shares.append((good.surprise(rows[count:].T) > good.threshold(rate)).mean())
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) <= rate + 3 * error
    if law != "ties":
        assert np.mean(shares) >= rate / 2 - 1 / (count + 1) - 3 * error, "and little is given away"


@pytest.mark.parametrize("count", [2, 4, 8, 15])
@pytest.mark.parametrize("spread", [0.2, 0.3])
@pytest.mark.parametrize("learnt", [0, 15])
def test_the_estimate_errs_on_the_safe_side_for_normal_logarithms(count, spread, learnt):
    generator = np.random.default_rng(count)
    shares = []
    for _ in range(300):
        rows = np.exp(generator.normal(0, spread, (count + learnt + 100, 1)))
        held_out, seen = rows[:count], 0.7 * rows[count : count + learnt]
        good = GoodScores(*(tuple(map(tuple, part.tolist())) for part in (held_out, seen)))
        shares.append((good.surprise(rows[count + learnt :].T) > good.threshold(0.05)).mean())
    assert 0.003 < np.mean(shares) < 0.06


def test_what_training_has_seen_is_lower_and_moves_nothing_but_the_spread():
    held_out, seen = ((1.0,), (1.2,), (1.1,)), [0.6, 0.7, 0.65, 0.62]
    found = [
        GoodScores(held_out, tuple((factor * reading**power,) for reading in seen)).surprise(np.array([2.0]))
        for factor, power in ((1, 1), (1e-3, 1), (1, 4))
    ]
    assert found[0] == pytest.approx(found[1])
    assert found[2] < found[0], "they differ more, and so may the next one"


def test_one_reading_that_is_sure_is_enough_and_many_that_are_not_are_no_more():
    generator = np.random.default_rng(0)
    good = GoodScores(tuple(map(tuple, picture_readings(generator, "normal", 30).tolist())))
    nothing = np.ones(6)
    first, last = nothing.copy(), nothing.copy()
    first[0] = last[-1] = 4.0
    assert good.surprise(nothing) < 0.5
    assert good.surprise(first) == pytest.approx(good.surprise(last) + 1, abs=1.0)
    assert good.p_value(float(good.surprise(last))) < 0.001


def test_by_hand():
    good = GoodScores(tuple((float(reading),) for reading in range(19, 0, -1)))
    p_values = [good.p_value(float(good.surprise(np.array([reading])))) for reading in (1e-9, 25.0, 1e9)]
    assert good.promised == 0.05
    assert p_values[0] == 1
    assert p_values[1] == 0.05, "more than all 19"
    assert p_values[2] < 1e-6
    assert good.threshold(0.05) == pytest.approx(good.surprises[-1])
    assert good.surprises[-1] == max(good.held_out_surprises)
    assert good.threshold(0.1) == pytest.approx(good.surprises[-2])
    assert good.threshold(0.075) == pytest.approx(good.surprises[-2:].mean())
    assert good.p_value(good.surprises[-2:].mean()) == pytest.approx(0.075)
    assert good.threshold(0.01) > good.surprises[-1]
    assert good.held_out_surprises.argmax() == 0


BAD = {
    "held_out": [
        [],
        None,
        [-1.0],
        [[-1.0]],
        [["a"]],
        [[float("nan")]],
        3.0,
        [[]],
        [[1.0], [1.0, 2.0]],
        [[1.0] * 17],
    ],
    "learnt": [None, [True], [[1e30]], [[1.0] * 9]],
    "parts": [0.5, None, "1", float("inf")],
}


@given(good=good_scores())
def test_round_trip_and_bad_values(good):
    stored = json.loads(json.dumps(dataclasses.asdict(good)))
    assert GoodScores.from_dict(stored) == good
    for field, values in BAD.items():
        for value in values:
            with pytest.raises(ArtifactError, match=field):
                GoodScores.from_dict({**stored, field: value})


PAIRS = st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)), max_size=400)


@given(pairs=PAIRS, rate=st.floats(0.01, 0.5))
def test_hardly_any_of_what_the_pixel_level_flags_leaves_early(pairs, rate):
    exit_ = EarlyExit(*(tuple(part) for part in zip(*pairs, strict=True))) if pairs else EarlyExit()
    level = exit_.level(rate)
    flagged = [patch for pixel, patch in pairs if pixel <= rate]
    assert exit_.flagged(rate) == len(flagged)
    assert sum(patch > level for patch in flagged) <= LOST * (len(flagged) + 1)
    if len(flagged) < 1 / LOST - 1:
        assert level == 1


def test_what_is_lost_early_is_what_is_promised():
    generator = np.random.default_rng(0)
    lost = []
    for _ in range(500):
        patch = generator.beta(0.3, 3, 250)
        level = EarlyExit((0.01,) * 250, tuple(patch)).level(0.05)
        lost.append((generator.beta(0.3, 3, 1000) > level).mean())
    assert LOST / 2 < np.mean(lost) <= LOST


def test_an_exit_of_other_lengths_is_refused():
    stored = {"pixel": [0.1, 0.2], "patch": [0.1, 0.2]}
    assert EarlyExit.from_dict(stored) == EarlyExit((0.1, 0.2), (0.1, 0.2))
    for wrong in ({"pixel": [0.1]}, {"patch": [0.1, 2.0]}, {"patch": None}, {"more": 1}):
        with pytest.raises(ArtifactError):
            EarlyExit.from_dict({**stored, **wrong})
