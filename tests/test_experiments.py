"""The experiments' commands run from end to end on a tiny set of surfaces, and what they switch off is off."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys

import ablation
import common
import components
import few
import modalities
import noise
import numpy as np
import pytest
import strips
import surface
import surfaces
import timing
import torch
from tiny import CONFIG, ground

from fmrnet import config
from fmrnet.engines import background
from fmrnet.learning import generator_training, training
from fmrnet.learning.synthesis import synthetic_defects
from fmrnet.pictures import write_picture


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three good pictures to learn from, one to test on, two with a cut."""
    folder = tmp_path_factory.mktemp("tiny")
    for kind in ("train/good", "test/good", "test/cut", "ground_truth/cut"):
        (folder / kind).mkdir(parents=True)
    for number in range(3):
        write_picture(folder / "train" / "good" / f"{number}.png", ground(96, 144, seed=number))
    write_picture(folder / "test" / "good" / "3.png", ground(seed=3))
    for number in (4, 5):
        picture, mask = ground(seed=number), np.zeros((96, 112), bool)
        mask[10 * number : 10 * number + 4, 20:90] = True
        picture[mask] = 255
        write_picture(folder / "test" / "cut" / f"{number}.png", picture)
        write_picture(folder / "ground_truth" / "cut" / f"{number}_mask.png", mask)
    return folder


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run a command as from the shell, with a tiny preset; gives the JSON it wrote."""
    monkeypatch.setitem(config.PRESETS, "edge", CONFIG)

    def run(command, *words, result):
        folders = [
            "--out",
            tmp_path / "out",
            *(["--models", tmp_path / "models"] if command is not timing else []),
        ]
        monkeypatch.setattr(sys, "argv", [f"{command.__name__}.py", *map(str, [*words, *folders])])
        command.main()
        written = tmp_path / "out" / result
        assert written.with_suffix(".png").exists() or command is surface
        text = written.read_text()
        assert str(tmp_path) not in text  # no folder of one machine
        found = json.loads(text)
        assert found["record"]["command"].startswith("python")
        return found

    return run


@pytest.fixture
def no_training(monkeypatch):
    """From now on nothing may be trained."""

    def refuse():
        def train(*words, **named):
            pytest.fail("trained again")

        monkeypatch.setattr(common.fmrnet, "train", train)

    return refuse


def test_surface(call, dataset):
    found = call(
        surface,
        dataset,
        "--name",
        "rough",
        "--set",
        "k=4",
        "mixing=none",
        result="rough-edge-k=4-mixing=none-0.json",
    )
    assert found["config"]["k"] == 4
    assert found["config"]["mixing"] == "none"
    assert set(found["pixel_roc_auc_of_products"]) == {"*".join(names) for names in common.PRODUCTS}
    counts = found["figures"]["pictures"]
    assert (counts["good"], counts["defective"], counts["failed"]) == (1, 2, 0)


def test_surfaces(call, dataset, no_training):
    words = (surfaces, f"rough={dataset}", "--seeds", "0", "1")
    found = call(*words, result="surfaces-edge.json")
    figure = found["summary"]["rough"]["pixel ROC-AUC"]
    assert figure["least"] <= figure["mean"] <= figure["greatest"]
    assert found["summary"]["mean"]["AU-PRO"]["mean"] == found["summary"]["rough"]["AU-PRO"]["mean"]
    no_training()
    assert call(*words, result="surfaces-edge.json")["summary"] == found["summary"]


def test_a_model_with_other_settings_is_not_taken(call, dataset):
    call(modalities, dataset, "--name", "rough", "--iterations", "3", result="rough-edge-0-modalities.json")
    with pytest.raises(common.ConfigError, match="another iterations; delete it"):
        call(modalities, dataset, "--name", "rough", result="rough-edge-0-modalities.json")


def test_ablation(call, dataset, no_training, capsys):
    change, too_large = "mixing=none+batch_size=2", "patch_size=128"
    words = (ablation, dataset, "--name", "rough", "--steps", 2, 1, "--changes", change)
    found = call(*words, too_large, result="rough-edge-0-ablation.json")["parts"]
    assert "patch_size=128 left out" in capsys.readouterr().err
    assert list(found) == [ablation.UNCHANGED, change]
    unchanged, changed = found.values()
    assert changed["parameters"] < unchanged["parameters"]
    no_training()
    assert call(*words, result="rough-edge-0-ablation.json")["parts"] == found


def test_ablation_tells_a_background_that_keeps_defects_from_one_that_loses_them(model, dataset, monkeypatch):
    inspector = common.fmrnet.load(model)
    monkeypatch.setattr(ablation.background, "restore_crops", lambda model, crops: crops)
    kept = ablation.restored(inspector, dataset)
    assert kept["background_error"] == 0
    assert kept["residual_roc_auc"] == 0.5
    good = []

    def the_good_crop(model, crops):
        """Crops come in turns: good, and the same with defects."""
        good.append(crops)
        return good[-1 - (len(good) % 2 == 0)]

    monkeypatch.setattr(ablation.background, "restore_crops", the_good_crop)
    lost = ablation.restored(inspector, dataset)
    assert lost["background_error"] == 0
    assert lost["residual_roc_auc"] > 0.95
    assert lost["eq_23_roc_auc"] > 0.9
    assert lost["patch_roc_auc"] == kept["patch_roc_auc"]


def test_components(call, dataset, no_training):
    words = (components, dataset, "--name", "rough")
    found = call(*words, result="rough-edge-0-components.json")["parts"]
    assert list(found) == ["A", "B", "C", "D", "E"]
    assert all({common.EQ_23, common.LEARNED} < part["scores"].keys() for part in found.values())
    assert len({part["scores"]["residual"]["pixel_roc_auc"] for part in found.values()}) == 5
    no_training()
    assert call(*words, result="rough-edge-0-components.json")["parts"] == found


def test_a_stopped_training_goes_on(call, dataset, monkeypatch, capsys):
    stop = contextlib.nullcontext(lambda: True)
    words = (few, dataset, "--name", "rough", "--counts", "2")
    with monkeypatch.context() as stopping:
        stopping.setattr(training, "_stop_signal", lambda: stop)
        with pytest.raises(SystemExit) as left:
            common.command(lambda: call(*words, result="rough-edge-0-few.json"))
    assert left.value.code == 130
    assert capsys.readouterr().err == "stopped; repeat the command to go on\n"
    resumed = []
    train = common.fmrnet.train
    monkeypatch.setattr(common.fmrnet, "train", lambda *w, **n: resumed.append(n["resume"]) or train(*w, **n))
    assert list(call(*words, result="rough-edge-0-few.json")["parts"]) == ["2"]
    assert resumed == [True]


@pytest.mark.slow
def test_components_switch_off_what_they_say(monkeypatch):
    torch.manual_seed(0)
    seen = []
    monkeypatch.setattr(
        generator_training, "update", lambda networks, optimisers, step, phase: seen.append(step)
    )
    picture = torch.rand(2, 1, 64, 64)
    step = generator_training.Step(picture, picture, torch.rand_like(picture), torch.zeros(2, 64, 64))
    for letter, variant in components.VARIANTS.items():
        with components.built_as(variant):
            config = dataclasses.replace(CONFIG, rearrange=variant.rearrangement)
            network = training.FMRNet(config).eval()
            generator_training.update(None, None, step, 1)
        torch.nn.init.normal_(network.memory)
        z, skips = network.encode(picture)
        assert torch.equal(network.restore(z), z) == (letter in "CE")
        assert torch.equal(network.rearrange(0, skips[0], torch.rand_like(skips[0])), skips[0]) == (
            letter in "DE"
        )
        assert torch.equal(seen.pop().synthetic, picture) == (letter in "BE")
    assert training.FMRNet is components.FMRNet
    assert generator_training.synthetic_defects is synthetic_defects


def test_modalities(call, dataset, model):
    found = call(modalities, dataset, "--name", "rough", "--model", model, result="rough-modalities.json")
    scores = found["parts"]["combinations"]["scores"]
    assert len(scores) == 8
    assert all(0 <= value <= 1 for score in scores.values() for value in score.values())


def test_noise(call, dataset, model, monkeypatch):
    words = (noise, dataset, "--name", "rough", "--model", model, "--levels")
    found = call(*words, "0", "0.3", result="rough-noise.json")["parts"]
    clean = call(modalities, dataset, "--name", "rough", "--model", model, result="rough-modalities.json")
    assert found["0"]["scores"] == clean["parts"]["combinations"]["scores"]
    assert found["0.3"]["scores"] != found["0"]["scores"]
    again = call(*words, "0", "0.1", "0.3", result="rough-noise.json")["parts"]
    assert set(again) == {"0", "0.1", "0.3"}
    assert again["0.3"] == found["0.3"]  # its time too: it was not done again


def test_speckle_replaces_a_share_of_pixels_and_more_at_greater_p():
    picture = torch.full((3, 100, 100), 0.5)
    spoilt = {p: noise.speckle(p, seed=1)(picture, 2) for p in (0.0, 0.1, 0.3, 1.0)}
    hit = {p: (found != picture).any(0) for p, found in spoilt.items()}
    assert torch.equal(spoilt[0.0], picture)
    assert hit[0.1].float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert hit[0.3][hit[0.1]].all()
    assert torch.equal(spoilt[0.3][:, hit[0.1]], spoilt[0.1][:, hit[0.1]])
    assert hit[1.0].all()
    assert spoilt[1.0].mean().item() == pytest.approx(0.5, abs=0.01)
    assert spoilt[1.0].std().item() == pytest.approx(12**-0.5, abs=0.01)
    assert not torch.equal(noise.speckle(0.3, seed=1)(picture, 3), spoilt[0.3])


def test_strips(call, dataset, model):
    found = call(strips, dataset, "--name", "rough", "--model", model, result="rough-strips.json")
    levels = found["parts"]["levels"]
    for level in ("patch", "pixel_by_patches"):  # 2 x 3 patches in each of 3 pictures, filled up to 96 x 128
        assert (
            sum(levels[level][key] for key in levels[level] if key.endswith("itives") or "negatives" in key)
            == 18
        )
    assert (
        levels["strip_at_pixel_level"]["true_positives"] + levels["strip_at_pixel_level"]["false_negatives"]
        == 2
    )
    assert levels["seconds"]["patch"] > 0


def test_timing(call, model):
    found = call(timing, "--model", model, "--sizes", "64x128", "--rounds", "2", result="tiny-timing.json")
    part = found["parts"]["cpu 64x128"]
    assert part["patches"] == 3
    assert set(part["seconds"]) == {*timing.STAGES, "patch level", "pixel level"}
    assert (
        call(timing, "--sizes", "64x64", "--rounds", "1", result="edge-timing.json")["parts"]["cpu 64x64"][
            "patches"
        ]
        == 1
    )


def test_few(call, dataset, no_training):
    words = (few, dataset, "--name", "rough")
    found = call(*words, result="rough-edge-0-few.json")["parts"]
    assert {count: len(part["pictures"]) for count, part in found.items()} == {"1": 1, "2": 2, "3": 3}
    assert found["2"]["pictures"] == ["0.png", "1.png"]
    no_training()
    assert call(*words, "--counts", "2", result="rough-edge-0-few.json")["parts"] == found


def test_maps_are_those_of_inspection(model):
    inspector = common.fmrnet.load(model)
    picture = torch.from_numpy(ground(seed=9)[None].astype(np.float32) / 255)
    found = common.maps(inspector, picture)
    filled = inspector.model.filled(picture[None])
    restored = background.restore(inspector.model, background.encode(inspector.model, filled[0]))
    product = common.fast.anomaly_map(filled, restored[None], median=inspector.config.median)[0]
    np.testing.assert_allclose(found[common.EQ_23].anomaly_map, product[:96, :112], atol=1e-6)
    result = inspector.inspect(ground(seed=9), level="pixel")
    np.testing.assert_allclose(found[common.LEARNED].anomaly_map, result.anomaly_map, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "k"], "--set k: expected FIELD=VALUE"),
        (["--set", "q=1"], "unknown settings 'q'"),
        (["--set", "median=1.5"], "median = 1.5: expected int"),
        (["--preset", "best"], "preset 'best'"),
    ],
)
def test_mistakes_are_one_line(words, message, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["few.py", str(dataset), "--models", str(tmp_path), "--out", str(tmp_path), *words]
    )
    with pytest.raises(SystemExit) as left:
        common.command(few.main)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
