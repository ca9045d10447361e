"""FMR-Net under other libraries' names: what they promise holds, and the findings are the inspector's own."""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator
from tiny import CONFIG, ground, make_inspector, make_sensitive_inspector

import fmrnet
from fmrnet.adapters import anomalib
from fmrnet.adapters.sklearn import FMRNetDetector, _as_folder
from fmrnet.errors import ConfigError
from fmrnet.pictures import as_picture, read_picture, write_picture


@pytest.fixture(scope="module")
def sensitive(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sensitive.fmr"
    make_sensitive_inspector().save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, seed in (("b/1.png", 1), ("0.png", 0)):
        (folder / name).parent.mkdir(exist_ok=True)
        write_picture(folder / name, ground(seed=seed))
    return folder


# anomalib


def parameters(function):
    return {
        name: one.default
        for name, one in inspect.signature(function).parameters.items()
        if name not in ("self", "image")
    }


def test_the_inferencer_is_made_and_called_as_that_of_anomalib():
    """OpenVINOInferencer of anomalib 2.7, and the arguments of Engine.predict that have a meaning here."""
    empty = inspect.Parameter.empty
    assert parameters(anomalib.Inferencer.__init__) == {"path": empty, "device": "AUTO", "config": None}
    assert list(inspect.signature(anomalib.Inferencer.predict).parameters) == ["self", "image"]
    known = {"model", "dataloaders", "datamodule", "dataset", "return_predictions", "ckpt_path", "data_path"}
    assert parameters(anomalib.Engine.predict).keys() <= known


def test_a_prediction_is_a_batch_of_what_the_inspector_finds(sensitive, pictures):
    expected = fmrnet.load(sensitive).inspect(pictures / "0.png")
    inferencer = anomalib.Inferencer(sensitive, device="CPU")
    batch = inferencer.predict(pictures / "0.png")
    assert (len(batch), batch.batch_size, batch.image_path) == (1, 1, [str(pictures / "0.png")])
    assert batch.pred_score.shape == batch.pred_label.shape == (1,)
    assert batch.anomaly_map.shape == batch.pred_mask.shape == batch.image.shape == (1, 96, 112)
    assert batch.pred_mask.any()
    (item,) = batch
    assert item.pred_label == expected.pred_label == expected.defective
    assert item.pred_score == np.float32(expected.pred_score)
    assert np.array_equal(item.pred_mask, expected.mask)
    assert np.array_equal(item.anomaly_map, expected.anomaly_map)
    assert np.array_equal(item.image, read_picture(pictures / "0.png"))
    colour = np.repeat(as_picture(ground())[None], 3, axis=0)
    for form in (
        colour,
        colour[None],
        colour.transpose(1, 2, 0),
        ground(),
    ):  # as tensors are, and as pictures are
        assert np.allclose(inferencer.predict(form).anomaly_map, batch.anomaly_map, atol=1e-6)
    assert inferencer.predict(ground()).image_path is None
    with pytest.raises(ConfigError, match="settings of OpenVINO"):
        anomalib.Inferencer(sensitive, config={"CACHE_DIR": "x"})


def test_a_score_of_anomalib_is_above_a_half_where_the_picture_is_defective():
    result = make_inspector().inspect(ground(), "patch")
    for score in (0.0, 0.25, 0.99, 1.0, 1.01, 7.0, 1e9):
        found = dataclasses.replace(result, score=score, defective=score > 1)
        assert 0 <= found.pred_score <= 1
        assert (found.pred_score > 0.5) == found.pred_label


def test_the_engine_predicts_a_folder(sensitive, pictures):
    found = anomalib.Engine().predict(ckpt_path=sensitive, data_path=pictures)
    assert [batch.image_path for batch in found] == [[str(pictures / name)] for name in ("0.png", "b/1.png")]
    model = anomalib.Inferencer(sensitive)
    assert anomalib.Engine().predict(model, data_path=pictures, return_predictions=False) is None
    for both in ({}, {"model": model, "ckpt_path": sensitive}):
        with pytest.raises(ConfigError, match="one of model and ckpt_path"):
            anomalib.Engine().predict(**both, data_path=pictures)


# scikit-learn


def test_the_detector_keeps_to_the_conventions():
    detector = FMRNetDetector("instant", false_alarms=0.01, roi="0,0,64,64")
    given = detector.get_params()
    assert given.keys() == set(inspect.signature(FMRNetDetector.__init__).parameters) - {"self"}
    assert (given["preset"], given["false_alarms"]) == ("instant", 0.01)
    copy = clone(detector)
    assert copy.get_params() == given
    assert copy.set_params(random_state=3) is copy
    assert copy.random_state == 3
    assert is_outlier_detector(detector)
    assert repr(detector) == "FMRNetDetector(false_alarms=0.01, preset='instant', roi='0,0,64,64')"
    for method in (detector.predict, detector.decision_function, detector.score_samples):
        with pytest.raises(NotFittedError):
            method([ground()])


def test_the_checks_of_scikit_learn_that_fit_no_matrix_pass():
    """By its tags the detector takes no matrix, and so check_estimator makes no check. Forced, it makes them all."""
    with pytest.warns(SkipTestWarning, match="Can't test estimator FMRNetDetector"):
        check_estimator(FMRNetDetector("instant"))

    class Forced(FMRNetDetector):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.two_d_array = True
            return tags

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(Forced("instant"), on_fail=None, on_skip=None)
    text = (Path(__file__).parents[1] / "docs" / "from-elsewhere.md").read_text()
    passed = {one["check_name"] for one in found if one["status"] == "passed"}
    assert passed == set(re.findall(r"`(check_\w+)`", text)) - {"check_estimator"}
    for one in found:
        if one["status"] == "failed":  # what it was given is no picture, or no matrix may be taken for one
            assert re.search(
                "PictureError|expected .H, W.|not iterable|an empty data|NaN and inf|sparse",
                repr(one["exception"]),
            ), one


@pytest.mark.parametrize(("make", "label"), [(make_inspector, 1), (make_sensitive_inspector, -1)])
def test_what_is_defective_is_an_outlier(pictures, make, label):
    detector = FMRNetDetector(level="patch")
    detector.inspector_, detector.offset_ = make(), -1.0
    given = [ground(), pictures / "b/1.png", str(pictures / "0.png")]
    scores = [detector.inspector_.inspect(one, "patch").score for one in given]
    assert np.array_equal(detector.score_samples(given), np.negative(scores))
    assert np.array_equal(detector.decision_function(given), detector.score_samples(given) + 1)
    assert np.array_equal(detector.predict(given), [label] * 3)
    assert np.array_equal(detector.predict(np.stack([ground(), ground(seed=4)])), [label] * 2)
    assert len(detector.predict(pictures)) == 1  # a folder, as everywhere, without those below it


def test_arrays_are_learnt_from_to_the_bit(tmp_path, pictures):
    colour = ground(channels=3)
    deep = ground().astype(np.uint16) * 251
    floats = np.linspace(0, 1, 64 * 70, dtype=np.float32).reshape(64, 70)
    given = [colour, pictures / "0.png", deep, floats]
    files = sorted(_as_folder(given, tmp_path / "good", None).iterdir())
    assert [file.name for file in files] == ["000000.tif", "000001-0.png", "000002.tif", "000003.tif"]
    for file, picture in zip(files, given, strict=True):
        expected = read_picture(picture) if picture is given[1] else as_picture(picture)
        assert np.array_equal(read_picture(file), expected)
    assert _as_folder(str(pictures), tmp_path / "other", None) == pictures


@pytest.mark.slow
def test_fitting_is_training(tmp_path, monkeypatch):
    monkeypatch.setitem(fmrnet.config.PRESETS, "edge", CONFIG)
    good = [ground(seed=n) for n in range(5)]
    detector = FMRNetDetector("edge", false_alarms=0.2)
    assert detector.fit(good) is detector
    for n, picture in enumerate(good):
        write_picture(tmp_path / f"{n}.png", picture)
    assert detector.fit_predict(tmp_path).shape == (5,)
    inspector = fmrnet.train(tmp_path, tmp_path / "a.fmr", config="edge")
    expected = [-inspector.inspect(picture).score for picture in good]
    assert detector.inspector_.false_alarms == 0.2
    detector.inspector_.false_alarms = 0.05
    np.testing.assert_allclose(detector.score_samples(good), expected, rtol=1e-5)
