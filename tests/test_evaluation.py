"""Figures of a model against the oracle's and scikit-learn's, and what is said of folders that are no data set."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from fmrnet.config import preset
from fmrnet.errors import DatasetError
from fmrnet.evaluation.evaluate import evaluate, load_dataset
from fmrnet.evaluation.metrics import PixelCounts
from fmrnet.inspection.calibration import Calibration
from fmrnet.inspection.inspector import Result
from fmrnet.inspection.limits import Limits
from fmrnet.pictures import read_picture, write_picture
from fmrnet.reference import scoring

CALIBRATION = Calibration(
    k=3.0,
    pixel_mean=0.1,
    pixel_std=0.1,
    pixel_threshold=0.4,
    patch_quantile=0.999,
    patch_threshold=1.0,
    picture_threshold=0.5,
    limits=Limits(level=((0.0, 1.0),), deviation=0.0, spread=0.5, distance=1.0, share=1.0),
    pictures=4,
)


class Brightness:
    """Stands in for a trained model: the brightness of a pixel is its anomaly."""

    config = preset("edge")
    calibration = CALIBRATION
    provenance: dict[str, object] = {"command": "none", "loss_curve": [1, 2, 3]}  # noqa: RUF012

    def inspect(self, path, level="auto"):
        picture = read_picture(path)
        score = float(picture.max())
        decoded = level != "patch"
        return Result(
            score=score / 0.5,
            defective=score > 0.5,
            level="pixel" if decoded else "patch",
            patch_scores=np.full((1, 1), score, np.float32),
            anomaly_map=picture if decoded else None,
            mask=picture > 0.4 if decoded else None,
            seconds=0.01,
        )


@st.composite
def scored_pictures(draw):
    """Maps whose scores survive the binning exactly (6 bits of mantissa), and masks with both kinds of pixel."""
    count = draw(st.integers(1, 3))
    shape = (draw(st.integers(2, 8)), draw(st.integers(2, 8)))
    levels = st.integers(0, 40).map(lambda i: i / 32)
    maps = [draw(hnp.arrays(np.float32, shape, elements=levels)) for _ in range(count)]
    masks = [draw(hnp.arrays(np.bool_, shape)) for _ in range(count)]
    masks[0].flat[0], masks[0].flat[-1] = True, False
    return maps, masks


@given(pictures=scored_pictures(), limit=st.sampled_from([0.05, 0.3, 1.0]))
def test_counts_give_the_oracles_figures(pictures, limit):
    maps, masks = pictures
    counts = PixelCounts()
    for values, mask in zip(maps, masks, strict=True):
        counts.add(values, values > 0.4, mask)
    scores, truth = np.concatenate(maps).ravel(), np.concatenate(masks).ravel()
    assert counts.roc_auc() == pytest.approx(scoring.roc_auc(scores, truth), abs=1e-9)
    assert counts.roc_auc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert counts.au_pro(limit) == pytest.approx(scoring.au_pro(maps, masks, limit), abs=1e-9)
    figures = counts.figures(limit)
    found = figures["precision"], figures["recall"], figures["f1"]
    assert found == pytest.approx(scoring.precision_recall_f1(scores > 0.4, truth))


@given(pictures=scored_pictures())
def test_counts_add_up(pictures):
    maps, masks = pictures
    together, apart = PixelCounts(), PixelCounts()
    for values, mask in zip(maps, masks, strict=True):
        together.add(values, values > 0.4, mask)
        one = PixelCounts()
        one.add(values, values > 0.4, mask)
        apart = apart + one
    assert together.figures() == pytest.approx(apart.figures())


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


def test_negative_zero_and_huge_scores_are_counted():
    counts = PixelCounts()
    scores = np.array([[-0.0, 0.0, 1e30, np.finfo(np.float32).max]], np.float32)
    counts.add(scores, scores > 1, np.array([[False, False, True, True]]))
    assert counts.roc_auc() == 1.0
    assert counts.good.sum() == counts.defective.sum() == 2


@pytest.fixture
def dataset(tmp_path):
    """Two good pictures, two kinds of defect of one picture each; the second is missed below the threshold."""
    root = tmp_path / "set"
    truth = np.zeros((16, 20), bool)
    truth[4:8, 5:9] = True
    for defect, brightness in {"good": 0, "bright": 200, "faint": 60}.items():
        (root / "test" / defect).mkdir(parents=True)
        (root / "ground_truth" / defect).mkdir(parents=True)
        picture = (truth * brightness).astype(np.uint8)
        write_picture(root / "test" / defect / "000.png", picture)
        if defect == "good":
            write_picture(root / "test" / "good" / "001.png", picture)
        else:
            write_picture(root / "ground_truth" / defect / "000_mask.png", truth)
    return root


def test_evaluate(dataset):
    calls = []
    figures = evaluate(Brightness(), dataset, progress=lambda *call: calls.append(call))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert calls == [(done, 4) for done in range(5)]
    assert figures["pictures"] == {"good": 2, "defective": 2}
    assert (
        figures["pixel"]["roc_auc"]
        == figures["picture"]["roc_auc"]
        == figures["patch_level"]["roc_auc"]
        == 1.0
    )
    assert figures["pixel"]["au_pro"] == 1.0
    assert (figures["pixel"]["precision"], figures["pixel"]["recall"]) == (1.0, 0.5)
    assert (figures["picture"]["true_positives"], figures["picture"]["false_negatives"]) == (1, 1)
    assert figures["picture"]["true_negatives"] == 2
    assert figures["classes"]["bright"]["pixel"]["recall"] == 1.0
    assert figures["classes"]["faint"]["pixel"]["recall"] == 0.0
    assert figures["classes"]["faint"]["picture"]["f1"] == 0.0
    assert [entry["picture"] for entry in figures["each"]][:2] == [
        "test/bright/000.png",
        "test/faint/000.png",
    ]
    assert figures["model"]["calibration"] == dataclasses.asdict(CALIBRATION)
    assert "loss_curve" not in figures["model"]["provenance"]


def test_without_good_pictures_what_needs_them_is_none(dataset):
    for path in (dataset / "test" / "good").iterdir():
        path.unlink()
    (dataset / "test" / "good").rmdir()
    figures = evaluate(Brightness(), dataset)
    assert figures["picture"]["roc_auc"] is None
    assert figures["pixel"]["roc_auc"] == 1.0


def test_data_sets_that_are_none(dataset, tmp_path):
    with pytest.raises(DatasetError, match="no folder test"):
        load_dataset(tmp_path)
    mask = dataset / "ground_truth" / "bright" / "000_mask.png"
    write_picture(mask, np.zeros((16, 20), bool))
    with pytest.raises(DatasetError, match="marks no pixel"):
        evaluate(Brightness(), dataset)
    write_picture(mask, np.ones((16, 16), bool))
    with pytest.raises(DatasetError, match="is 16x16 pixels, its picture 20x16"):
        evaluate(Brightness(), dataset)
    mask.write_bytes(b"")
    with pytest.raises(DatasetError, match="is empty"):
        evaluate(Brightness(), dataset)
    mask.unlink()
    with pytest.raises(DatasetError, match=r"has no mask; expected .*bright/000_mask.png"):
        load_dataset(dataset)
    (dataset / "test" / "bright").rename(tmp_path / "bright")
    (dataset / "test" / "faint").rename(tmp_path / "faint")
    with pytest.raises(DatasetError, match="no defective pictures"):
        load_dataset(dataset)
    (dataset / "test" / "good" / "000.png").unlink()
    (dataset / "test" / "good" / "001.png").unlink()
    with pytest.raises(DatasetError, match="holds no pictures"):
        load_dataset(dataset)
