"""Figures of a model against the oracle's and scikit-learn's, and what a comparison makes of imperfect data sets."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from anomalib_aupimo import AUPIMO, PIXELS, case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
    precision_score,
    roc_auc_score,
)
from tiny import with_thresholds

from fmrnet import pictures
from fmrnet.config import preset
from fmrnet.errors import ConfigError, DatasetError, PictureError
from fmrnet.evaluation import metrics, resampling
from fmrnet.evaluation.evaluate import Evaluation, evaluate
from fmrnet.evaluation.metrics import Confusion, PixelCounts
from fmrnet.files import write_json
from fmrnet.inspection.folder import check_replaceable
from fmrnet.inspection.inspector import Result
from fmrnet.inspection.limits import Limits, Look
from fmrnet.pictures import read_picture
from fmrnet.reference import scoring

CALIBRATION = with_thresholds(
    picture=0.5,
    patch=1.0,
    pixel=0.4,
    limits=Limits(((0.0, 1.0),), 0.0, ((0.0, 0.5),) * 4, distance=1.0, share=1.0),
)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Enough to see what becomes of them."""
    monkeypatch.setattr(resampling, "RESAMPLES", 100)


class Brightness:
    """Stands in for a trained model: the brightness of a pixel is its anomaly."""

    config = preset("edge")
    calibration = CALIBRATION
    bits = None
    engine = SimpleNamespace(name="none")
    provenance: dict[str, object] = {"command": "none", "loss_curve": [1, 2, 3]}  # noqa: RUF012

    def __init__(self):
        self.inspected = []

    def inspect(self, path, level="auto"):
        self.inspected.append(path)
        picture = read_picture(path)
        score = float(picture.max())
        decoded = level != "patch"
        return Result(
            score=score / 0.5,
            defective=score > 0.5,
            p_value=0.01 if score > 0.5 else 0.5,
            level="pixel" if decoded else "patch",
            patch_scores=np.full((1, 1), score, np.float32),
            patch_p_values=np.full((1, 1), 0.5),
            anomaly_map=picture if decoded else None,
            mask=picture > 0.4 if decoded else None,
            seconds=0.01,
            look=Look((0.5,), 0.1, (0.1,) * 4, picture.shape[:2]),
        )


@st.composite
def scored_pictures(draw):
    """Maps whose scores survive the binning exactly (6 bits of mantissa), and masks with both kinds of pixel."""
    maps, masks = [], []
    levels = st.integers(0, draw(st.sampled_from([0, 1, 40]))).map(lambda i: i / 32)
    for _ in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(2, 8)), draw(st.integers(2, 8)))
        maps.append(draw(hnp.arrays(np.float32, shape, elements=levels)))
        alike = st.sampled_from([np.zeros(shape, np.bool_), np.ones(shape, np.bool_)])
        masks.append(draw(hnp.arrays(np.bool_, shape) | alike).copy())
    masks[0].flat[0], masks[0].flat[-1] = True, False
    return maps, masks


@given(pictures=scored_pictures(), limit=st.sampled_from([0.05, 0.3, 1.0]))
def test_counts_give_the_oracles_figures(pictures, limit):
    """Ties, constant maps, regions of one pixel, at borders and over corners, pictures all defective or all good."""
    maps, masks = pictures
    counts = PixelCounts()
    for values, mask in zip(maps, masks, strict=True):
        counts.add(values, values > 0.4, mask)
    scores, truth = (np.concatenate([one.ravel() for one in parts]) for parts in pictures)
    assert counts.roc_auc() == pytest.approx(scoring.roc_auc(scores, truth), abs=1e-9)
    assert counts.roc_auc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert counts.au_pro(limit) == pytest.approx(scoring.au_pro(maps, masks, limit), abs=1e-9)
    figures = counts.figures()
    for name, at in (("au_pro", 0.3), ("au_pro_05", 0.05)):
        assert figures[name] == pytest.approx(scoring.au_pro(maps, masks, at), abs=1e-9)
    assert figures["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    precision, recall, _ = precision_recall_curve(truth, scores)
    assert figures["f1_max"] == pytest.approx(
        np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    )
    found = figures["precision"], figures["recall"], figures["f1"]
    assert found == pytest.approx(scoring.precision_recall_f1(scores > 0.4, truth))
    theirs = precision_recall_fscore_support(truth, scores > 0.4, average="binary", zero_division=0)
    assert found == pytest.approx(theirs[:3])
    names = "true_negatives", "false_positives", "false_negatives", "true_positives"
    assert [figures[name] for name in names] == confusion_matrix(truth, scores > 0.4).ravel().tolist()


@given(
    pictures=scored_pictures(),
    rates=st.sampled_from([(1e-5, 1e-4), (1e-3, 0.03), (0.05, 0.5), (0.25, 1.0)]),
    good=st.booleans(),
)
def test_aupimo_is_the_oracles(pictures, rates, good):
    """Rates of all sizes: below that of one pixel, at those of ties, and at whole pictures."""
    maps, masks = pictures
    if good:
        maps, masks = [*maps, maps[0] * np.float32(0.5)], [*masks, np.zeros_like(masks[0])]
    counts = PixelCounts()
    for values, mask in zip(maps, masks, strict=True):
        counts.add(values, values > 0.4, mask)
    with mock.patch.object(metrics, "AUPIMO_RATES", rates):
        found = counts.aupimo()
    if all(mask.any() for mask in masks):
        assert found is None
        return
    expected = scoring.aupimo(maps, masks, rates)
    assert found.value == pytest.approx(expected[~np.isnan(expected)], abs=1e-9)
    assert (found.least <= found.value + 1e-12).all()
    assert (found.value <= found.greatest + 1e-12).all()


@pytest.mark.parametrize("drawn", AUPIMO)
def test_aupimo_is_anomalibs(drawn):
    seed, pixels = drawn
    maps, masks = case(seed)
    rates = pixels[0] / PIXELS, pixels[1] / PIXELS
    assert scoring.aupimo(maps, masks, rates)[-len(AUPIMO[drawn]) :] == pytest.approx(AUPIMO[drawn], abs=1e-6)
    counts = PixelCounts()
    for values, mask in zip(maps, masks, strict=True):
        counts.add(values, mask, mask)
    with mock.patch.object(metrics, "AUPIMO_RATES", rates):
        found = counts.aupimo()
    assert (abs(found.value - AUPIMO[drawn]) <= found.doubt + 1e-6).all()
    assert found.doubt.max() < 2e-4


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([1e-4, 1e-3, 0.1]))
def test_no_figure_is_further_from_the_scores_than_it_says(seed, spread):
    """Scores so close together that many share a bin."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros((12, 15), bool) for _ in range(3)]
    masks[1][2:5, 3:9] = masks[2][7:9, 1:3] = masks[2][0, 14] = True
    maps = [(1 + spread * (rng.random(mask.shape) + 0.5 * mask)).astype(np.float32) for mask in masks]
    counts = PixelCounts()
    for values, mask in zip(maps, masks, strict=True):
        counts.add(values, mask, mask)
    with mock.patch.object(metrics, "AUPIMO_RATES", (0.01, 0.2)):
        figures = counts.figures()
    scores, truth = (np.concatenate([one.ravel() for one in parts]) for parts in (maps, masks))
    precision, recall, _ = precision_recall_curve(truth, scores)
    exact = {
        "roc_auc": roc_auc_score(truth, scores),
        "average_precision": average_precision_score(truth, scores),
        "au_pro": scoring.au_pro(maps, masks, 0.3),
        "au_pro_05": scoring.au_pro(maps, masks, 0.05),
        "aupimo": np.nanmean(scoring.aupimo(maps, masks, (0.01, 0.2))),
        "f1_max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)),
    }
    for name, value in exact.items():
        assert abs(figures[name] - value) <= figures["doubt"][name] + 1e-12, name


def test_one_good_pixel_above_many_of_one_bin_is_within_the_doubt():
    """Average precision loses more than it could win: the order within the bin is the worst."""
    scores = np.full((1, 201), 1.0, np.float32)
    scores[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    truth = np.arange(201)[None] > 0
    counts = PixelCounts()
    counts.add(scores, truth, truth)
    figures = counts.figures()
    exact = average_precision_score(truth.ravel(), scores.ravel())
    assert exact == pytest.approx(figures["average_precision"])  # the others are equal, and found together
    falling = scores - np.arange(201, dtype=np.float32) * np.float32(2e-7)
    counts = PixelCounts()
    counts.add(falling + np.float32(1e-4), truth, truth)
    figures = counts.figures()
    exact = average_precision_score(truth.ravel(), falling.ravel())
    assert figures["average_precision"] - exact > 0.01
    assert figures["average_precision"] - exact <= figures["doubt"]["average_precision"]


def test_replicates_are_the_oracles_of_pictures_drawn_again():
    """Each resample as a set of its own, pictures as often as they are drawn, scored without any bins."""
    rng = np.random.default_rng(3)
    masks = [np.zeros((9, 11), bool) for _ in range(7)]
    for mask in masks[3:]:
        mask[rng.integers(0, 5) :, rng.integers(0, 8) :][:3, :2] = True
    masks[6][0, 0] = True
    maps = [(rng.integers(0, 20, mask.shape) / 32 + 0.25 * mask).astype(np.float32) for mask in masks]
    histograms = [PixelCounts().add(a, a > 0.4, mask) for a, mask in zip(maps, masks, strict=True)]
    scores = np.array([a.max() for a in maps]) + rng.integers(0, 3, 7) / 32
    truth = np.array([mask.any() for mask in masks])
    with mock.patch.object(resampling, "AUPIMO_RATES", (0.01, 0.2)):
        pixels = resampling.pixels(histograms[:3], histograms[3:])
    pictures = resampling.pictures(scores, scores > 0.5, truth)
    weights = resampling.draws(3, 4)
    assert weights.shape == (resampling.RESAMPLES + 1, 7)
    assert (weights[:, :3].sum(1) == 3).all()
    assert (weights[:, 3:].sum(1) == 4).all()
    assert (weights[-1] == 1).all()
    assert len(np.unique(weights, axis=0)) > 80
    for row in (0, 17, resampling.RESAMPLES):
        again = np.repeat(np.arange(7), weights[row].astype(int))
        a, m = [maps[i] for i in again], [masks[i] for i in again]
        flat, marked = (np.concatenate([one.ravel() for one in parts]) for parts in (a, m))
        expected = {
            "roc_auc": roc_auc_score(marked, flat),
            "average_precision": average_precision_score(marked, flat),
            "au_pro": scoring.au_pro(a, m, 0.3),
            "au_pro_05": scoring.au_pro(a, m, 0.05),
            "aupimo": np.nanmean(scoring.aupimo(a, m, (0.01, 0.2))),
            "recall": (flat > 0.4)[marked].mean(),
            "false_positive_rate": (flat > 0.4)[~marked].mean(),
        }
        for name, value in expected.items():
            assert pixels[name][row] == pytest.approx(value, abs=1e-6), name
        assert pictures["roc_auc"][row] == pytest.approx(roc_auc_score(truth[again], scores[again]))
        assert pictures["average_precision"][row] == pytest.approx(
            average_precision_score(truth[again], scores[again])
        )
        assert pictures["precision"][row] == pytest.approx(
            precision_score(truth[again], scores[again] > 0.5, zero_division=0)
        )


@given(pictures=scored_pictures())
def test_counts_add_up(pictures):
    maps, masks = pictures
    together, apart = PixelCounts(), PixelCounts()
    for values, mask in zip(maps, masks, strict=True):
        together.add(values, values > 0.4, mask)
        one = PixelCounts()
        one.add(values, values > 0.4, mask)
        apart = apart + one
    assert together.figures().pop("doubt") == pytest.approx(apart.figures().pop("doubt"))
    for one in (together, apart):
        one.doubtless = {name: value for name, value in one.figures().items() if name != "doubt"}
    assert together.doubtless == pytest.approx(apart.doubtless)


@given(
    exponent=st.integers(-30, 4), values=hnp.arrays(np.float32, (400,), elements=st.floats(0.5, 1, width=32))
)
def test_bins_tell_scores_apart_at_any_magnitude(exponent, values):
    """Fused maps are products of three small numbers: bins of equal width would lose them in the first one."""
    truth = np.random.default_rng(0).random(400) < values
    truth[:2] = True, False
    counts = PixelCounts()
    maps = (values * np.float32(2.0**exponent)).reshape(20, 20)
    counts.add(maps, maps > 0, truth.reshape(20, 20))
    assert counts.roc_auc() == pytest.approx(roc_auc_score(truth, values), abs=2e-3)


@pytest.mark.parametrize("score", [2.0**-20, 1.0, 1000.0])
def test_scores_one_part_in_2048_apart_are_told_apart(score):
    counts = PixelCounts()
    scores = np.array([[score, score * (1 + 2**-11)]], np.float32)
    counts.add(scores, scores > 0, np.array([[False, True]]))
    assert counts.roc_auc() == 1.0


def test_negative_zero_and_huge_scores_are_counted():
    counts = PixelCounts()
    scores = np.array([[-0.0, 0.0, 1e30, np.finfo(np.float32).max]], np.float32)
    counts.add(scores, scores > 1, np.array([[False, False, True, True]]))
    assert counts.roc_auc() == 1.0
    assert counts.good.sum() == counts.defective.sum() == 2


def test_figures_that_rest_on_nothing_are_none():
    counts = PixelCounts()
    assert (counts.roc_auc(), counts.au_pro()) == (None, None)
    scores = np.arange(6, dtype=np.float32).reshape(2, 3)
    counts.add(scores, scores > 2, np.ones((2, 3), bool))  # no good pixel
    assert (counts.roc_auc(), counts.au_pro()) == (None, None)
    assert counts.figures()["recall"] == 0.5


def test_counts_keep_their_size_over_any_number_of_pictures():
    counts = PixelCounts()
    held = [counts.good.nbytes, counts.defective.nbytes, counts.overlap.nbytes, counts.rates.nbytes]
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.random((30, 40), np.float32)
        counts.add(scores, scores > 0.5, scores > 0.7)
    assert [counts.good.nbytes, counts.defective.nbytes, counts.overlap.nbytes, counts.rates.nbytes] == held
    assert sum(held) < 17e6
    assert counts.good.sum() + counts.defective.sum() == 20 * 30 * 40


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_holds_no_numbers_is_refused_and_changes_nothing(value):
    counts = PixelCounts()
    scores, truth = np.ones((4, 5), np.float32), np.eye(4, 5, dtype=bool)
    counts.add(scores, truth, truth)
    before = counts.figures()
    scores[3, 2] = value
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        counts.add(scores, truth, truth)
    with pytest.raises(ValueError, match=r"shape \(4, 5\), decision \(4, 5\), truth \(5, 4\)"):
        counts.add(np.ones((4, 5), np.float32), truth, truth.T)
    assert counts.figures() == before
    assert counts.good.sum() + counts.defective.sum() == 20


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1, float("nan")])
def test_limits_outside_their_range_are_refused(limit):
    with pytest.raises(ValueError, match="expected a false positive rate"):
        PixelCounts().au_pro(limit)


def test_confusions_add_up():
    one, other = Confusion(1, 2, 3, 4), Confusion(10, 20, 30, 40)
    assert one + other == Confusion(11, 22, 33, 44)


TRUTH = np.zeros((16, 20), bool)
TRUTH[4:8, 5:9] = True


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture * np.uint8(255) if picture.dtype == bool else picture).save(path)


@pytest.fixture
def dataset(tmp_path):
    """Two good pictures, two kinds of defect of one picture each; the second is missed below the threshold."""
    root = tmp_path / "set"
    for defect, brightness in {"good": 0, "bright": 200, "faint": 60}.items():
        picture = (TRUTH * brightness).astype(np.uint8)
        save(root / "test" / defect / "000.png", picture)
        if defect == "good":
            save(root / "test" / "good" / "001.png", picture)
        else:
            save(root / "ground_truth" / defect / "000_mask.png", TRUTH)
    return root


def test_evaluate(dataset):
    calls = []
    figures = evaluate(Brightness(), dataset, progress=lambda *call: calls.append(call))
    json.dumps(figures, allow_nan=False)
    assert calls == [(done, 4) for done in range(5)]
    assert figures["pictures"] == {
        "good": 2,
        "defective": 2,
        "without_mask": 0,
        "unreadable": 0,
        "wrong_size": 0,
        "failed": 0,
        "not_reached": 0,
    }
    assert figures["pixel"]["roc_auc"] == figures["picture"]["roc_auc"] == 1.0
    assert figures["patch_level"]["roc_auc"] == 1.0
    for name in ("average_precision", "au_pro", "au_pro_05", "aupimo"):
        assert figures["pixel"][name] == 1.0
    assert figures["pixel"]["au_pro_limits"] == {"au_pro": 0.3, "au_pro_05": 0.05}
    assert (figures["pixel"]["f1_max"], figures["picture"]["f1_max"]) == (1.0, 1.0)
    assert figures["pixel"]["intervals"]["recall"] == [0.0, 1.0]  # one of two found
    assert [entry["aupimo"] for entry in figures["each"] if "area" in entry] == [1.0, 1.0]
    assert figures["classes"]["bright"]["pixel"]["intervals"] == {}  # of one picture
    assert (figures["pixel"]["precision"], figures["pixel"]["recall"]) == (1.0, 0.5)
    assert figures["pixel"]["true_negatives"] == 4 * 320 - 32
    assert (figures["picture"]["true_positives"], figures["picture"]["false_negatives"]) == (1, 1)
    assert figures["picture"]["true_negatives"] == 2
    assert figures["classes"]["bright"]["pixel"]["recall"] == 1.0
    assert figures["classes"]["faint"]["pixel"]["recall"] == 0.0
    assert figures["classes"]["faint"]["picture"]["f1"] == 0.0
    for part in figures["classes"].values():  # each class against all good pictures and no other class
        assert part["pixel"]["true_negatives"] == 3 * 320 - 16
        assert part["pixel"]["true_positives"] + part["pixel"]["false_negatives"] == 16
        assert part["picture"]["true_negatives"] == 2
        assert part["picture"]["true_positives"] + part["picture"]["false_negatives"] == 1
    assert [entry["picture"] for entry in figures["each"]][:2] == [
        "test/bright/000.png",
        "test/faint/000.png",
    ]
    assert (figures["notes"], figures["errors"]) == ([], [])
    assert figures["model"]["calibration"] == dataclasses.asdict(CALIBRATION)
    assert "loss_curve" not in figures["model"]["provenance"]


class Levels(Brightness):
    """Both levels err, each in its own way."""

    def inspect(self, path, level="auto"):
        result = super().inspect(path, level)
        good = path.parent.name == "good"
        defective = good if level == "patch" else path.parent.name == "bright" or path.name == "001.png"
        score = result.score if level == "pixel" else 1 / (1 + result.score)
        return dataclasses.replace(result, defective=defective, score=score, seconds=1.0 if good else 3.0)


def test_decisions_are_those_of_the_level(dataset):
    figures = evaluate(Levels(), dataset)
    pixel, patch = figures["picture"], figures["patch_level"]
    names = "true_positives", "false_positives", "false_negatives", "true_negatives"
    assert [pixel[name] for name in names] == [1, 1, 1, 1]
    assert [patch[name] for name in names] == [0, 2, 2, 0]
    assert (pixel["roc_auc"], patch["roc_auc"]) == (1.0, 0.0)
    assert [figures["classes"]["bright"]["picture"][name] for name in names] == [1, 1, 0, 1]
    assert figures["seconds"] == {"total": 8.0, "median": 2.0, "patch_level_median": 2.0}


def test_without_good_pictures_what_needs_them_is_none(dataset):
    shutil.rmtree(dataset / "test" / "good")
    figures = evaluate(Brightness(), dataset)
    picture = figures["picture"]
    assert [picture[name] for name in ("roc_auc", "precision", "recall", "f1")] == [None, None, 0.5, None]
    assert (figures["pixel"]["roc_auc"], figures["pixel"]["precision"]) == (1.0, 1.0)
    (note,) = figures["notes"]
    assert note.startswith("without good test pictures (test/good, ok or normal) pictures have no ROC-AUC")


def test_without_defective_pictures_false_alarms_are_counted(dataset):
    shutil.rmtree(dataset / "test" / "bright")
    shutil.rmtree(dataset / "test" / "faint")
    shutil.rmtree(dataset / "ground_truth")
    save(dataset / "test" / "good" / "002.png", np.full((16, 20), 200, np.uint8))
    figures = evaluate(Brightness(), dataset)
    for part in (figures["pixel"], figures["picture"], figures["patch_level"]):
        assert [part[name] for name in ("roc_auc", "precision", "recall", "f1")] == [None] * 4
    assert figures["pixel"]["au_pro"] is None
    assert (figures["picture"]["false_positives"], figures["picture"]["true_negatives"]) == (1, 2)
    assert figures["pixel"]["false_positives"] == 320
    assert figures["classes"] == {}
    (note,) = figures["notes"]
    assert note.startswith("without defective test pictures there are no ROC-AUC, average precision, AU-PRO")


def test_pictures_without_masks_give_figures_of_pictures(dataset):
    save(dataset / "test" / "bright" / "001.png", np.full((16, 20), 255, np.uint8))
    (dataset / "ground_truth" / "faint" / "000_mask.png").unlink()
    figures = evaluate(Brightness(), dataset)
    assert figures["pictures"]["without_mask"] == 2
    assert figures["pixel"]["recall"] == 1.0
    assert figures["pixel"]["true_negatives"] == 3 * 320 - 16
    assert figures["picture"]["recall"] == pytest.approx(2 / 3)
    faint = figures["classes"]["faint"]
    assert [faint["pixel"][name] for name in ("roc_auc", "au_pro", "precision", "recall", "f1")] == [None] * 5
    assert faint["picture"]["roc_auc"] == 1.0
    (note,) = figures["notes"]
    assert note == "2 of 3 defective pictures have no mask: figures of pixels leave them out"
    shutil.rmtree(dataset / "ground_truth")
    figures = evaluate(Brightness(), dataset)
    assert figures["pixel"]["roc_auc"] is figures["pixel"]["recall"] is None
    assert figures["notes"] == ["no defective picture has a mask: there are no figures of pixels"]
    json.dumps(figures, allow_nan=False)


def test_all_masks_are_looked_at_before_the_first_inspection(dataset):
    for number in range(1, 6):
        save(dataset / f"test/faint/{number:03}.png", np.zeros((16, 20), np.uint8))
    masks = dataset / "ground_truth" / "faint"
    save(masks / "001_mask.png", np.ones((16, 16), bool))
    save(masks / "002_mask.png", np.zeros((16, 20), bool))
    (masks / "003_mask.png").write_bytes(b"")
    save(masks / "004_mask.png", np.ones((16, 16), bool))
    inspector = Brightness()
    with pytest.raises(DatasetError) as refused:
        evaluate(inspector, dataset)
    assert re.search(
        r"001_mask.png is 16x16 pixels, its picture 20x16; expected the same size, or its proportions; "
        r".*002_mask.png marks no pixel.*; the mask of .*003.png: .*is empty.*; and 1 more$",
        str(refused.value),
    )
    assert not inspector.inspected


def test_masks_are_held_against_pictures_that_are_not_decoded(dataset, monkeypatch):
    decoded, decode = [], pictures._decode
    monkeypatch.setattr(pictures, "_decode", lambda path: decoded.append(path) or decode(path))
    Evaluation(Brightness(), dataset)
    assert {path.parent.parent.name for path in decoded} == {"ground_truth"}


def test_the_mask_of_a_picture_on_its_side_is_that_of_the_upright_one(dataset):
    """Which is settled when the picture is inspected; until then, the mask may have either size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (("side", {"exif": exif}), ("not", {})):
        Image.fromarray(np.full((20, 16), 255, np.uint8)).save(dataset / f"test/bright/{name}.png", **options)
        save(dataset / f"ground_truth/bright/{name}_mask.png", TRUTH)
    (error,) = evaluate(Brightness(), dataset)["errors"]
    assert "not_mask.png is 20x16 pixels, its picture 16x20" in error["error"]


@pytest.mark.parametrize("error", [ConfigError("level"), ValueError("FMRNET_BACKEND is 'none'")])
def test_a_setting_with_which_no_picture_can_be_inspected_ends_the_comparison(dataset, error):
    class Wrong(Brightness):
        def inspect(self, path, level="auto"):
            raise error

    with pytest.raises(type(error), match=str(error)):
        evaluate(Wrong(), dataset)


@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_0_and_1_and_labels_mark_what_is_above_0(dataset, white):
    """A mask of 0 and 1 counted as empty, its defect as good."""
    expected = evaluate(Brightness(), dataset)
    for kind in ("bright", "faint"):
        labels = TRUTH * np.uint8(white)
        labels[4:6][TRUTH[4:6]] = 3 if kind == "bright" else white
        save(dataset / "ground_truth" / kind / "000_mask.png", labels)
    found = evaluate(Brightness(), dataset)
    assert found["pixel"] == expected["pixel"]
    assert found["pixel"]["roc_auc"] == 1.0


class Fragile(Brightness):
    """Fails for some pictures, as their content demands."""

    def inspect(self, path, level="auto"):
        failures = {
            "read": PictureError(f"{path} is damaged"),
            "memory": MemoryError(),
            "network": RuntimeError("[enforce fail] cannot allocate"),
        }
        if path.stem in failures:
            raise failures[path.stem]
        result = super().inspect(path, level)
        if path.stem == "nan" and result.anomaly_map is not None:
            result.anomaly_map[3, 3] = np.nan
        return result


def test_no_picture_ends_the_comparison(dataset):
    expected = evaluate(Brightness(), dataset)
    for name in ("read", "memory", "network", "nan"):
        save(dataset / "test" / "good" / f"{name}.png", np.full((16, 20), 255, np.uint8))
    (dataset / "test" / "faint" / "broken.png").write_bytes(b"no picture")
    save(dataset / "ground_truth" / "faint" / "broken_mask.png", TRUTH)
    figures = evaluate(Fragile(), dataset)
    good, faint = dataset / "test" / "good", dataset / "test" / "faint"
    assert {re.split("; | of a known", entry["error"])[0]: entry["fault"] for entry in figures["errors"]} == {
        f"{good / 'read.png'} is damaged": "picture",
        f"{faint / 'broken.png'} is no picture": "picture",
        f"{good / 'memory.png'}: not enough memory for a picture of this size": "machine",
        f"{good / 'network.png'}: RuntimeError: [enforce fail] cannot allocate": "machine",
        f"{good / 'nan.png'}: ValueError: the anomaly map holds NaN or infinity": "machine",
    }
    assert [figures["pictures"][kind] for kind in ("unreadable", "failed", "not_reached")] == [2, 3, 0]
    assert figures["notes"] == ["5 pictures could not be inspected and are left out"]
    for part in ("pixel", "picture", "patch_level", "classes"):
        assert figures[part] == expected[part]
    json.dumps(figures, allow_nan=False)


def test_a_mask_that_goes_meanwhile_costs_its_picture_alone(dataset):
    evaluation = Evaluation(Brightness(), dataset)
    (dataset / "ground_truth" / "faint" / "000_mask.png").unlink()
    evaluation.run()
    (error,) = evaluation.figures()["errors"]
    assert (error["picture"], error["fault"]) == ("test/faint/000.png", "picture")
    assert "000_mask.png does not exist" in error["error"]
    assert len(evaluation.each) == 3


def test_figures_of_nothing_are_none(dataset):
    for path in (dataset / "test").rglob("*.png"):
        path.write_bytes(b"")
    figures = evaluate(Brightness(), dataset)
    assert figures["pictures"]["unreadable"] == 4
    assert (
        figures["picture"]["roc_auc"] is figures["pixel"]["roc_auc"] is figures["seconds"]["median"] is None
    )
    json.dumps(figures, allow_nan=False)


def test_classes_are_inspected_in_turn(dataset):
    for number in range(1, 4):
        save(dataset / "test" / "bright" / f"{number:03}.png", np.full((16, 20), 90, np.uint8))
        save(dataset / "ground_truth" / "bright" / f"{number:03}_mask.png", TRUTH)
    inspector = Brightness()
    evaluate(inspector, dataset)
    classes = [path.parent.name for path in inspector.inspected[::2]]  # each at both levels
    assert classes == ["bright", "faint", "good", "bright", "good", "bright", "bright"]


def test_au_pro_is_that_of_its_limit(dataset):
    for number, brightness in enumerate((40, 80), start=2):  # of good pixels above the faint defect, some
        picture = np.zeros((16, 20), np.uint8)
        picture[:4, : 5 * number] = brightness
        save(dataset / "test" / "good" / f"{number:03}.png", picture)
    counts = PixelCounts()
    for path in sorted((dataset / "test").glob("*/*.png")):
        mask = TRUTH if path.parent.name != "good" else np.zeros_like(TRUTH)
        picture = read_picture(path)
        counts.add(picture, picture > 0.4, mask)
    figures = evaluate(Brightness(), dataset)
    assert figures["pixel"]["au_pro"] == pytest.approx(counts.au_pro(0.3))
    assert figures["pixel"]["au_pro_05"] == pytest.approx(counts.au_pro(0.05))
    assert figures["classes"]["faint"]["pixel"]["au_pro"] < 1
    assert counts.au_pro(0.05) != pytest.approx(counts.au_pro(0.3))


def test_an_interrupted_comparison_has_figures_of_every_class(dataset):
    for number in range(2, 8):
        save(dataset / "test" / "good" / f"{number:03}.png", np.zeros((16, 20), np.uint8))
    evaluation = Evaluation(Brightness(), dataset)

    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.run(interrupt)
    figures = evaluation.figures()
    assert {kind: figures["pictures"][kind] for kind in ("good", "defective", "not_reached")} == {
        "good": 2,
        "defective": 2,
        "not_reached": 6,
    }
    assert figures["picture"]["roc_auc"] == 1.0
    assert figures["notes"] == ["stopped: 6 of 10 pictures were not reached and are left out"]


def test_what_belongs_to_no_picture_is_said(dataset):
    save(dataset / "ground_truth" / "bright" / "7_mask.png", TRUTH)
    (note,) = evaluate(Brightness(), dataset)["notes"]
    assert note == "1 files belong to no test picture and are left out: ground_truth/bright/7_mask.png"


def test_good_pictures_by_another_name(dataset):
    expected = evaluate(Brightness(), dataset)
    (dataset / "test" / "good").rename(dataset / "test" / "OK")
    found = evaluate(Brightness(), dataset)
    for part in ("pictures", "pixel", "picture", "patch_level", "classes", "notes"):
        assert found[part] == expected[part]


def test_figures_replace_figures_only(dataset, tmp_path):
    check_replaceable(tmp_path / "new.json")
    write_json(tmp_path / "figures.json", evaluate(Brightness(), dataset))
    check_replaceable(tmp_path / "figures.json")
    (tmp_path / "mine.json").write_text('{"dataset": 1}')
    for other in (tmp_path / "mine.json", tmp_path, dataset / "test" / "good" / "000.png"):
        with pytest.raises(ConfigError, match="was not written by fmrnet, and is not replaced; name another"):
            check_replaceable(other)
