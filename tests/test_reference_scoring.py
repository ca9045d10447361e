"""Scores against scikit-learn, and AU-PRO against a curve counted threshold by threshold."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from skimage.measure import label
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score, roc_curve

from fmrnet.reference import scoring

seeds = st.integers(0, 2**32 - 1)
levels = st.sampled_from([2, 5, 1000])  # few levels make many ties


@given(seeds, st.integers(2, 60), levels)
def test_roc_auc_is_sklearn(seed, n, levels):
    """roc_auc_score(labels, scores)"""
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, levels, n) / levels, rng.permutation(n) < rng.integers(1, n)
    assert scoring.roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def blobs(rng, H, W):
    """A mask with a few rectangles, often touching at corners; may be empty."""
    mask = np.zeros((H, W), bool)
    for _ in range(rng.integers(0, 4)):
        y, x = rng.integers(H), rng.integers(W)
        mask[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = True
    return mask


def brute_force_au_pro(maps, masks, limit):
    """Every threshold in turn, every region in turn; area by 20,000 thin columns."""
    thresholds = sorted({float(v) for A in maps for v in A.ravel()}, reverse=True)
    good = sum(int((~mask).sum()) for mask in masks)
    x, y = [0.0], [0.0]
    for t in thresholds:
        overlaps = []
        for A, mask in zip(maps, masks, strict=True):
            regions = label(mask, connectivity=2)
            overlaps += [(A[regions == r] >= t).mean() for r in range(1, regions.max() + 1)]
        x.append(sum(int((A[~mask] >= t).sum()) for A, mask in zip(maps, masks, strict=True)) / good)
        y.append(np.mean(overlaps))
    x, y, middles = np.array(x), np.array(y), (np.arange(20_000) + 0.5) / 20_000 * limit
    after = np.searchsorted(x, middles, side="right")
    share = (middles - x[after - 1]) / (x[after] - x[after - 1])
    return float(np.mean(y[after - 1] + share * (y[after] - y[after - 1])))


@given(seeds, levels, st.sampled_from([0.05, 0.3, 1.0]))
def test_au_pro_is_the_curve_counted_by_hand(seed, levels, limit):
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(3, 9)), int(rng.integers(3, 9))) for _ in range(3)]
    masks = [blobs(rng, *size) for size in sizes]
    maps = [np.round(rng.random(mask.shape) + 0.5 * mask, 3 if levels == 1000 else 1) for mask in masks]
    assume(any(mask.any() for mask in masks) and not all(mask.all() for mask in masks))
    theirs = brute_force_au_pro(maps, masks, limit)
    assert scoring.au_pro(maps, masks, limit) == pytest.approx(theirs, abs=2e-4)


@given(seeds, levels, st.sampled_from([0.1, 0.3, 1.0]))
def test_au_pro_of_one_region_is_the_partial_area_under_sklearn_roc_curve(seed, levels, limit):
    """np.trapezoid of roc_curve(labels, scores, drop_intermediate=False), cut at the limit"""
    rng = np.random.default_rng(seed)
    mask = np.zeros((9, 9), bool)
    mask[2:5, 3:7] = True
    A = rng.integers(0, levels, (9, 9)) / levels + 0.3 * mask
    x, y, _ = roc_curve(mask.ravel(), A.ravel(), drop_intermediate=False)
    fine = np.unique(np.concatenate([x[x < limit], [limit]]))
    area = 0.0
    for left, right in itertools.pairwise(fine):
        at_left, first_right = y[x <= left].max(), int(np.argmax(x > left))
        slope = (y[first_right] - at_left) / (x[first_right] - left)
        area += (right - left) * (at_left + slope * (right - left) / 2)
    assert scoring.au_pro([A], [mask], limit) == pytest.approx(area / limit, abs=1e-12)


@given(seeds, st.sampled_from([0.01, 0.3, 1.0]))
def test_au_pro_of_perfect_maps_is_one_and_of_reversed_maps_zero(seed, limit):
    rng = np.random.default_rng(seed)
    masks = [np.pad(blobs(rng, 6, 7), 1) for _ in range(3)]
    assume(any(mask.any() for mask in masks))
    perfect = [mask + 0.5 * rng.random(mask.shape) for mask in masks]
    assert scoring.au_pro(perfect, masks, limit) == pytest.approx(1, abs=1e-12)
    assert scoring.au_pro([-A for A in perfect], masks, limit) == pytest.approx(0, abs=1e-12)


def test_au_pro_of_a_constant_map_is_half_the_limit():
    """The curve is the diagonal."""
    mask = np.eye(8, dtype=bool)
    assert scoring.au_pro([np.ones((8, 8))], [mask], 0.3) == pytest.approx(0.15, abs=1e-12)


def test_au_pro_counts_a_small_region_as_much_as_a_large_one():
    mask = np.zeros((10, 10), bool)
    mask[:5, :5] = mask[9, 9] = True
    A = np.zeros((10, 10))
    A[9, 9] = 1.0  # the one-pixel region is found, the large one looks good
    assert scoring.au_pro([A], [mask], 0.3) == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-12)


def test_au_pro_regions_connect_over_corners():
    """Two pixels that touch at a corner are one region of two: the found one is half of it."""
    mask = np.zeros((10, 10), bool)
    mask[3, 3] = mask[4, 4] = mask[8, 8] = True
    A = np.zeros((10, 10))
    A[3, 3] = 1.0
    first = (0.5 + 0) / 2
    assert scoring.au_pro([A], [mask], 1.0) == pytest.approx((first + 1) / 2, abs=1e-12)


@given(seeds)
def test_au_pro_and_roc_auc_depend_on_the_order_of_scores_only(seed):
    rng = np.random.default_rng(seed)
    mask = np.pad(blobs(rng, 6, 6), 1)
    assume(mask.any())
    A = rng.integers(0, 20, mask.shape) / 20
    for score in (lambda A: scoring.au_pro([A], [mask]), lambda A: scoring.roc_auc(A, mask)):
        assert score(A) == pytest.approx(score(np.exp(3 * A) - 7), abs=1e-12)


@given(seeds, st.integers(1, 30))
def test_precision_recall_f1_is_sklearn(seed, n):
    """precision_recall_fscore_support(truth, prediction, average="binary", zero_division=0)"""
    rng = np.random.default_rng(seed)
    prediction, truth = rng.random((2, n)) < rng.random((2, 1))
    theirs = precision_recall_fscore_support(truth, prediction, average="binary", zero_division=0)[:3]
    assert scoring.precision_recall_f1(prediction, truth) == pytest.approx(theirs, abs=1e-12)


@given(seeds, st.floats(0, 6))
def test_k_sigma_threshold_is_of_all_values_together(seed, k):
    rng = np.random.default_rng(seed)
    maps = [rng.random((3, 4)), 2 + rng.random((5, 6))]
    values = np.concatenate([A.ravel() for A in maps])
    assert scoring.k_sigma_threshold(maps, k) == pytest.approx(
        np.mean(values) + k * np.std(values), abs=1e-12
    )
    assert scoring.k_sigma_threshold([np.full((4, 4), 0.25)], k) == pytest.approx(0.25, abs=1e-12)


def test_defaults_are_three_sigma_and_a_rate_of_three_tenths():
    A, mask = np.random.default_rng(0).random((9, 9)), np.eye(9)
    assert scoring.k_sigma_threshold([A]) == scoring.k_sigma_threshold([A], 3)
    assert scoring.au_pro([A], [mask]) == scoring.au_pro([A], [mask], 0.3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: scoring.roc_auc([1, 2], [0, 0]), "0 defective and 2 good"),
        (lambda: scoring.roc_auc([1, 2], [1]), "2 scores for 1 labels"),
        (lambda: scoring.roc_auc([1, np.nan], [0, 1]), "NaN"),
        (lambda: scoring.roc_auc([1, 2], [0, 2]), "other than 0 and 1"),
        (lambda: scoring.au_pro([np.ones((3, 3))], [np.zeros((3, 3))]), "0 defect regions and 9 good"),
        (lambda: scoring.au_pro([np.ones((3, 3))], [np.zeros((3, 4))]), r"masks\[0\] \(3, 4\)"),
        (lambda: scoring.au_pro([np.ones((3, 3))], []), "1 maps for 0 masks"),
        (lambda: scoring.au_pro([np.ones((3, 3))], [np.eye(3)], limit=0), "limit is 0"),
        (lambda: scoring.au_pro([np.ones((3, 3))], [np.eye(3)], limit=1.1), "limit is 1.1"),
        (lambda: scoring.precision_recall_f1([0, 1], [0]), "one shape"),
        (lambda: scoring.precision_recall_f1([0.3], [0]), "compare with a threshold"),
        (lambda: scoring.k_sigma_threshold([]), "at least one defect-free picture"),
    ],
)
def test_errors_say_what_was_given(call, says):
    with pytest.raises(ValueError, match=says):
        call()
