"""Small trees as MVTec AD and its kind, DAGM 2007 and RSDDs lay them out become sets to learn from and to test on."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import common
import convert
import numpy as np
import peers
import pytest
import surface
import tables
from PIL import Image
from tiny import CONFIG, ground, make_inspector

from fmrnet import config
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.files import write_json
from fmrnet.learning.data import load_good_pictures
from fmrnet.pictures import read_mask, read_picture


def save(path, values):
    """Write a picture or mask as whatever the name says, JPEG at its best."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8) * (255 if values.dtype == bool else 1)).save(path, quality=100)


def square(shape, row, column, side=8):
    """A mask with one white square."""
    mask = np.zeros(shape, bool)
    mask[row : row + side, column : column + side] = True
    return mask


ROOT = Path(__file__).parent.parent
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "bench" / "README.md").read_text(), re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def call(monkeypatch):
    """Run the command as from the shell."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, words)])
        convert.main()

    return run


def test_mvtec(tmp_path, call):
    source, target = tmp_path / "carpet", tmp_path / "sets" / "carpet"
    for number in range(3):
        save(source / f"train/good/{number:03}.png", ground(160, 160, channels=3, seed=number))
    save(source / "test/good/000.png", ground(160, 160, channels=3, seed=3))
    save(source / "test/cut/000.png", ground(160, 160, channels=3, seed=4))
    save(source / "ground_truth/cut/000_mask.png", square((160, 160), 40, 80, side=10))
    call("mvtec", source, target, "--size", "80x80", "--train", "2")
    pictures, channels = load_good_pictures(target, 64)
    assert [picture.shape for picture in pictures] == [(80, 80, 3)] * 2
    assert channels == 3
    assert [(e.defect, len(e.masks)) for e in load_dataset(target).examples] == [("cut", 1), ("good", 0)]
    mask = read_mask(target / "ground_truth/cut/000_mask.png")
    assert np.array_equal(mask, square((80, 80), 20, 40, side=5))


def test_layouts_of_the_same_kind(tmp_path, call):
    """BTAD's names and MVTec LOCO's several masks of a picture."""
    source, target = tmp_path / "01", tmp_path / "sets" / "01"
    save(source / "train/ok/0.bmp", ground(80, 80, seed=1))
    save(source / "test/ok/0.bmp", ground(80, 80, seed=2))
    save(source / "test/ko/1.bmp", ground(80, 80, seed=3))
    for number in range(2):
        save(source / f"ground_truth/ko/1/{number}.png", square((80, 80), 20 + 20 * number, 40))
    save(source / "test/ko/2.bmp", ground(80, 80, seed=4))  # without a mask
    call("mvtec", source, target, "--size", "80x80", "--train", "1")
    assert [path.name for path in (target / "train" / "good").iterdir()] == ["0_0.png"]
    found = {example.picture.name: example for example in load_dataset(target).examples}
    assert {name: example.defect for name, example in found.items()} == {
        "0.png": "good",
        "1.png": "ko",
        "2.png": "ko",
    }
    both = square((80, 80), 20, 40) | square((80, 80), 40, 40)
    assert np.array_equal(found["1.png"].truth((80, 80)), both)
    assert found["2.png"].masks == ()


def test_pictures_that_would_become_one_are_refused(tmp_path, call):
    save(tmp_path / "train/good/0.png", ground())
    save(tmp_path / "test/good/0.png", ground())
    save(tmp_path / "test/normal/0.jpg", ground())
    with pytest.raises(common.FmrnetError, match=r"0.jpg and another would both become 0.png; rename one"):
        call("mvtec", tmp_path, tmp_path / "out", "--train", "1")
    assert not (tmp_path / "out").exists()


def test_dagm(tmp_path, call):
    source, target = tmp_path / "Class1", tmp_path / "dagm1"
    for number in (576, 577, 578, 579):
        save(source / f"Train/{number:04}.PNG", ground(128, 128, seed=number))
    for number in (1, 2, 3):
        save(source / f"Test/{number:04}.PNG", ground(128, 128, seed=number))
    save(source / "Train/Label/0577_label.PNG", square((128, 128), 30, 60))
    save(source / "Test/Label/0002_label.PNG", square((128, 128), 70, 20))
    (source / "Train/Label/Labels.txt").write_text(
        "1\n576\t0\t0576.PNG\t0\t0\n577\t1\t0577.PNG\t0\t0577_label.PNG\n"
    )
    call("dagm", source, target, "--size", "128x128", "--train", "2", "--test", "1")
    assert sorted(p.name for p in (target / "train/good").iterdir()) == ["0576_0.png", "0578_0.png"]
    found = {e.picture.name: e for e in load_dataset(target).examples}
    assert {name: e.defect for name, e in found.items()} == {
        "0001.png": "good",
        "0002.png": "defect",
        "0577.png": "defect",
    }
    assert np.array_equal(found["0577.png"].truth((128, 128)), square((128, 128), 30, 60))
    assert np.array_equal(read_picture(found["0001.png"].picture) * 255, ground(128, 128, seed=1))


@pytest.mark.parametrize("kind", ["Type-I RSDDs dataset", "Type-II RSDDs dataset"])
def test_rsdds(tmp_path, call, kind):
    source, target = tmp_path / kind, tmp_path / "rails"
    for number in (1, 2, 10):
        save(source / f"Rail surface images/rail_{number}.jpg", ground(400, 80, seed=number))
        save(source / f"GroundTruth/rail_{number}.jpg", square((400, 80), 120, 30, side=20))
    call("rsdds", source, target, "--size", "320x64", "--train", "2")
    pictures, _ = load_good_pictures(target, 64)
    assert sorted(p.name for p in (target / "train/good").iterdir()) == [
        "rail_1_0.png", "rail_1_1.png", "rail_2_0.png", "rail_2_1.png"
    ]  # fmt: skip
    # 20 of 400 rows are defective: 96 to 112 of 320
    assert [picture.shape for picture in pictures] == [(96, 64, 1), (208, 64, 1)] * 2
    (shown,) = load_dataset(target).examples
    assert shown.picture.name == "rail_10.png"
    assert np.array_equal(np.flatnonzero(shown.truth((320, 64)).any(1)), np.arange(96, 112))


def test_paper_numbers():
    assert {name: entry[1:] for name, entry in convert.SETS.items()} == {
        "mvtec": ("512x512", 70, None),
        "dagm": ("512x512", 70, 30),
        "rsdds": ("1024x64", 50, 17),
    }


def test_a_mask_that_would_vanish_stays():
    mask = square((512, 512), 100, 200, side=1)
    assert convert.resized_mask(mask, (128, 128)).sum() == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "Train: no such folder; see convert.py --help"),
        (lambda folder: save(folder / "Train/0001.PNG", ground()), "Test: no such folder"),
    ],
)
def test_another_layout_is_an_error(tmp_path, call, make, message):
    make(tmp_path)
    with pytest.raises(common.FmrnetError, match=message):
        call("dagm", tmp_path, tmp_path / "out", "--train", "1")


def test_a_folder_that_is_there_is_not_written_into(tmp_path, call):
    for part in ("Train", "Test"):
        save(tmp_path / f"{part}/0001.PNG", ground())
    save(tmp_path / "Test/0002.PNG", ground())
    save(tmp_path / "Test/Label/0002_label.PNG", square((96, 112), 3, 3))
    (tmp_path / "out").mkdir()
    with pytest.raises(common.FmrnetError, match="out exists; give a folder that is to be made"):
        call("dagm", tmp_path, tmp_path / "out", "--train", "1")
    with pytest.raises(common.FmrnetError, match="has 1 pictures to learn from; expected 70"):
        call("dagm", tmp_path, tmp_path / "other")


def test_peers_say_that_anomalib_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "anomalib", None)
    monkeypatch.setattr(sys, "argv", ["peers.py", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        peers.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tiles_of_peers_come_together_again():
    picture = np.random.default_rng(0).random((100, 140, 3), np.float32)

    class Copy:
        def parameters(self):
            return iter([common.torch.zeros(1)])

        def __call__(self, tiles):
            score = tiles.amax((1, 2, 3))
            return type("Prediction", (), {"anomaly_map": tiles.mean(1, keepdim=True), "pred_score": score})

    found, score = peers.inspect(Copy(), picture, tile=64)
    assert np.allclose(found, picture.mean(2), atol=1e-6)
    assert score == picture.max()


@pytest.mark.slow
def test_documented_commands_run_unchanged(tmp_path, monkeypatch):
    """From the sets' own layouts to the last table, on tiny pictures and without training."""
    monkeypatch.chdir(tmp_path)
    for name in ("carpet", "grid", "leather", "tile", "wood"):
        save(tmp_path / f"MVTEC/{name}/train/good/000.png", ground())
        save(tmp_path / f"MVTEC/{name}/test/good/000.png", ground())
        save(tmp_path / f"MVTEC/{name}/test/hole/000.png", ground())
        save(tmp_path / f"MVTEC/{name}/ground_truth/hole/000_mask.png", square((96, 112), 40, 40))
    for part, number in (("Train", 576), ("Test", 1), ("Test", 2)):
        save(tmp_path / f"DAGM/Class1/{part}/{number:04}.PNG", ground())
    save(tmp_path / "DAGM/Class1/Test/Label/0002_label.PNG", square((96, 112), 40, 40))
    for number in (1, 2):
        save(tmp_path / f"RSDDS/Type-I RSDDs dataset/Rail surface images/rail_{number}.jpg", ground())
        save(
            tmp_path / f"RSDDS/Type-I RSDDs dataset/GroundTruth/rail_{number}.jpg", square((96, 112), 80, 40)
        )
    small = {
        "mvtec": (convert.mvtec, "64x96", 1, None),
        "dagm": (convert.dagm, "64x96", 1, 1),
        "rsdds": (convert.rsdds, "96x64", 1, 1),
    }
    monkeypatch.setattr(convert, "SETS", small)
    monkeypatch.setattr(common, "RESULTS", tmp_path)

    monkeypatch.setitem(config.PRESETS, "paper", CONFIG)

    def train(run, bar, path, good, wanted):
        assert run.preset == "paper"
        assert (good / "train" / "good").is_dir()
        inspector = make_inspector()
        inspector.provenance["seconds"] = 0
        inspector.save(path)
        return inspector

    measure, measured = surface.measure, []

    def measure_once(run, inspector, bar):
        measured[:] = measured or [measure(run, inspector, bar)]
        return measured[0]

    monkeypatch.setattr(surface, "measure", measure_once)
    monkeypatch.setattr(common, "train", train)
    for script, *words in COMMANDS:
        monkeypatch.setattr(sys, "argv", [script, *words])
        importlib.import_module(Path(script).stem).main()
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "carpet-paper-0.json",
        "surfaces-paper.json",
        "dagm-paper.json",
        "wood-paper-0-components.json",
        "tile-paper-0-modalities.json",
        "carpet-paper-0-noise.json",
        "rails-paper-0-strips.json",
        "paper-timing.json",
    }


def test_peers_stand_in_the_table_of_results(tmp_path, monkeypatch):
    figures = {"pixel_roc_auc": 0.9, "au_pro": 0.8, "picture_roc_auc": None}
    part = {"good_pictures": 4, "training_seconds": 90.0, **figures}
    write_json(
        tmp_path / "rough-peers.json", {"name": "rough", "anomalib": "2.7.0", "parts": {"PaDiM": part}}
    )
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (line,) = tables.peers()
    head, rule = tables.accuracy().splitlines()[:2]
    assert line.count("|") == head.count("|") == rule.count("|")
    assert line in tables.accuracy()
    assert "PaDiM of anomalib 2.7.0 | - | 4 | 2 min | 0.900 | 0.800 | - |" in line
