"""The probability of detection: its bound holds as often as it says, and few defects show nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from fmrnet.evaluation.defect import LEAST_CONTRAST, largest_area, largest_contrast
from fmrnet.evaluation.detection import FEWEST, detection


def test_29_found_of_29_are_the_least_that_show_it():
    assert FEWEST == 29
    assert (
        binomtest(29, 29).proportion_ci(0.9, "exact").low
        > 0.9
        > binomtest(28, 28).proportion_ci(0.9, "exact").low
    )
    assert detection([5.0] * 29, [True] * 29).a90_95 == 5
    few = detection([5.0] * 28, [True] * 28)
    assert few.a90_95 is None
    assert few.remark == "all are found, but 28 are too few: 29 found of 29 are the least that show it"


def test_where_all_are_found_the_29th_smallest_is_shown():
    found = detection([float(size) for size in range(40, 0, -1)], [True] * 40)
    assert (found.a90, found.a90_95, found.least, found.greatest) == (1, 29, 1, 40)


@pytest.mark.parametrize("slope", [1.0, 2.0, 6.0, 30.0])
@pytest.mark.parametrize("count", [40, 80])
def test_the_bound_lies_above_the_true_size_in_95_of_100_simulations(slope, count):
    """From shallow laws to steep ones, of which most samples are found above a size and missed below."""
    rng = np.random.default_rng(count)
    logs = np.linspace(0, 5, count)
    true = 2 + math.log(9) / slope
    samples = [rng.random(count) < expit(slope * (logs - 2)) for _ in range(120)]
    bounds = [detection(np.exp(logs).tolist(), hits.tolist()).a90_95 for hits in samples]
    held = sum(bound is None or math.log(bound) >= true for bound in bounds)
    assert held >= 108  # 114 of 120 are expected; fewer than 108 come once in 250 times
    if slope > 1:
        assert np.median([math.inf if bound is None else math.log(bound) for bound in bounds]) < true + 2


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_many_defects_give_the_curve_of_scikit_learn_in_any_unit(unit):
    rng = np.random.default_rng(0)
    logs = rng.uniform(0, 5, 4000)
    hits = rng.random(4000) < expit(2 * logs - 4)
    found = detection((unit * np.exp(logs)).tolist(), hits.tolist())
    theirs = LogisticRegression(C=np.inf, tol=1e-9).fit(logs[:, None], hits)
    assert found.slope == pytest.approx(theirs.coef_.item(), rel=0.01)
    expected = math.exp((math.log(9) - theirs.intercept_.item()) / theirs.coef_.item())
    assert found.a90 == pytest.approx(unit * expected, rel=0.01)
    assert found.a90 < found.a90_95 < 1.2 * found.a90


def test_separated_defects_have_a_finite_curve_and_a_bound_beyond_the_gap():
    sizes = [float(size) for size in range(1, 61)]
    found = detection(sizes, [size > 20 for size in sizes])
    assert 20 < found.a90 < found.a90_95 < 40
    assert math.isfinite(found.slope)
    few = detection(sizes[10:35], [size > 20 for size in sizes[10:35]])
    assert few.a90 is not None
    assert few.a90_95 is None
    assert few.remark.startswith("25 are too few")


def test_what_does_not_depend_on_size_names_no_size():
    sizes = [float(size) for size in range(1, 61)]
    fewer = detection(sizes, [size < 30 for size in sizes])
    assert (fewer.a90_95, fewer.remark) == (None, "larger ones are not found more often")
    assert fewer.slope < 0
    assert detection(sizes, [False] * 60).remark == "none is found"
    assert detection([5.0] * 60, [True] * 59 + [False]).remark == "all are of one size"
    alike = detection(sizes, [number % 2 == 0 for number in range(60)])
    assert alike.a90_95 is None
    assert detection([], []).defects == 0


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e9), st.booleans()), max_size=45),
)
def test_any_hits_and_misses_are_answered(trials):
    found = detection([size for size, _ in trials], [hit for _, hit in trials])
    assert (found.a90_95 is None) <= bool(found.remark)
    assert found.a90_95 is None or len(trials) >= FEWEST
    for size in (found.a90, found.a90_95):
        assert size is None or found.least * 0.999 <= size <= found.greatest * 1.001
    if found.a90_95 is not None:
        assert found.a90 <= found.a90_95 * 1.001


def test_sizes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        detection([0.0], [True])
    with pytest.raises(ValueError, match="above 0"):
        detection([1.0], [])


def test_the_largest_region_is_measured():
    rng = np.random.default_rng(0)
    picture = rng.normal(0.5, 0.05, (80, 90)).astype(np.float32)
    truth = np.zeros((80, 90), bool)
    truth[3:5, 3:5] = True
    truth[40:50, 40:60] = truth[50, 60] = True  # the last pixel touches by its corner
    picture[40:50, 40:60] += 0.15
    assert largest_area(truth) == 201
    assert largest_contrast(picture, truth) == pytest.approx(3, rel=0.15)
    assert largest_contrast(1 - picture, truth) == pytest.approx(largest_contrast(picture, truth), rel=1e-3)
    colour = np.dstack([np.full_like(picture, 0.5), picture, np.full_like(picture, 0.5)])
    assert largest_contrast(colour, truth) == pytest.approx(largest_contrast(picture, truth))
    assert largest_contrast(np.full_like(picture, 0.5), truth) == LEAST_CONTRAST
    assert largest_contrast(picture, np.ones_like(truth)) == LEAST_CONTRAST
