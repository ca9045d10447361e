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

SCORES = st.floats(0, 1e6, allow_subnormal=False)
GOOD = st.builds(
    GoodScores,
    st.lists(SCORES, min_size=1, max_size=40).map(tuple),
    st.lists(SCORES, max_size=40).map(tuple),
    st.sampled_from([1.0, 1.0, 1.5, 40.0]),
)


@given(good=GOOD, score=SCORES)
def test_p_values_are_the_oracles(good, score):
    expected = oracle.p_value(score, good.held_out, good.learnt, good.parts)
    assert good.p_value(score) == pytest.approx(expected, rel=1e-9)
    assert 0 < expected <= 1


@given(good=GOOD, rate=st.floats(1e-4, 0.999), score=SCORES, nearby=st.floats(-1e-6, 1e-6))
def test_a_score_passes_the_threshold_where_its_p_value_is_at_most_the_rate(good, rate, score, nearby):
    threshold = good.threshold(rate)
    assert 0 < threshold <= 1e9
    if threshold > 0.999e9:  # as high as a threshold goes
        return
    for given_score in (score, threshold * (1 + nearby)):
        if (
            abs(given_score / threshold - 1) > 1e-9 and given_score > 1e-9
        ):  # rounding, and what has no logarithm
            assert (given_score > threshold) == (good.p_value(given_score) <= rate)


@given(good=GOOD, scores=st.lists(SCORES, min_size=2, max_size=20).map(sorted))
def test_a_higher_score_never_has_a_higher_p_value(good, scores):
    values = good.p_values(np.array(scores))
    assert (np.diff(values) <= 1e-15).all()
    assert values.tolist() == [good.p_value(score) for score in scores]


@pytest.mark.parametrize("law", ["normal", "heavy", "ties"])
@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (50, 0.05), (9, 0.2), (200, 0.01)])
def test_the_promise_is_kept_whatever_the_law(law, count, rate):
    """Over many calibrations: the share of further good pictures that are called defective is at most the rate."""
    generator = np.random.default_rng(count)
    draw = {
        "normal": lambda size: np.exp(generator.normal(0, 0.2, size)),
        "heavy": lambda size: 1 + generator.pareto(0.5, size),
        "ties": lambda size: generator.integers(1, 6, size).astype(float),
    }[law]
    shares = []
    for _ in range(1000):
        good = GoodScores(tuple(draw(count)))
        assert good.promised <= rate
        shares.append((draw(100) > good.threshold(rate)).mean())
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) <= rate + 3 * error
    if law != "ties":
        assert np.mean(shares) >= rate - 1 / (count + 1) - 3 * error, "and nothing is given away"


@pytest.mark.parametrize("count", [2, 4, 8, 15])
@pytest.mark.parametrize("spread", [0.2, 0.3])
@pytest.mark.parametrize("learnt", [0, 15])
def test_the_estimate_is_near_the_rate_for_normal_logarithms(count, spread, learnt):
    generator = np.random.default_rng(count)
    shares = []
    for _ in range(500):
        held_out, seen = (np.exp(generator.normal(0, spread, size)) for size in (count, learnt))
        good = GoodScores(tuple(held_out), tuple(seen * 0.7))
        shares.append((np.exp(generator.normal(0, spread, 100)) > good.threshold(0.05)).mean())
    assert 0.01 < np.mean(shares) < 0.1


def test_what_training_has_seen_scores_lower_and_moves_nothing_but_the_spread():
    held_out, seen = (1.0, 1.2, 1.1), (0.6, 0.7, 0.65, 0.62)
    assert GoodScores(held_out, seen).threshold(0.01) == pytest.approx(
        GoodScores(held_out, tuple(1e-3 * score for score in seen)).threshold(0.01)
    )
    wide = tuple(score**4 for score in seen)
    assert GoodScores(held_out, wide).threshold(0.01) > GoodScores(held_out, seen).threshold(0.01)


def test_by_hand():
    good = GoodScores(tuple(range(19, 0, -1)))
    assert good.promised == 0.05
    assert [good.p_value(score) for score in (0, 1, 1.5, 19)] == [1, 1, 0.95, 0.1]
    assert good.p_value(19.5) == 0.05
    assert good.p_value(1e6) < 1e-6
    assert (good.threshold(0.05), good.threshold(0.1)) == (19, 18)
    assert good.threshold(0.01) > 19
    assert good.threshold(0.999) == 0 or good.threshold(0.999) <= 1


BAD = {
    "held_out": [[], None, [-1.0], ["a"], [float("nan")], 3.0],
    "learnt": [None, [True], [1e30]],
    "parts": [0.5, None, "1", float("inf")],
}


@given(good=GOOD)
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
