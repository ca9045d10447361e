"""Where only what inspection needs is installed: a model with graphs is used as ever, the rest says what it lacks."""

from __future__ import annotations

import json
from types import SimpleNamespace

import handmade
import numpy as np
import pytest
import without
from commands import run
from tiny import ground

from fmrnet.artifact import load, save
from fmrnet.pictures import write_picture

COMMANDS = """
import json
from typer.testing import CliRunner
from fmrnet.cli import app

ended = []
for command in json.loads(sys.argv[1]):
    seen = CliRunner().invoke(app, command)
    ended.append([seen.exit_code, seen.stdout, seen.stderr])
loaded = [name for name in hidden if name in sys.modules]
print(json.dumps({"ended": ended, "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with models, good and defective pictures, and what each command there does without PyTorch."""
    folder = tmp_path_factory.mktemp("without")
    mask = np.zeros((96, 112), bool)
    mask[30:60, 40:70] = True
    for name in ("test/good", "test/hole", "ground_truth/hole"):
        (folder / "set" / name).mkdir(parents=True)
    for seed in range(5):
        write_picture(folder / "set" / "test" / "good" / f"{seed}.png", ground(seed=seed))
    write_picture(folder / "set" / "test" / "hole" / "0.png", np.where(mask, 0, ground()).astype(np.uint8))
    write_picture(folder / "set" / "ground_truth" / "hole" / "0_mask.png", mask)
    write_picture(folder / "mask.png", np.hypot(*np.ogrid[-48:48, -56:56]) < 55)
    handmade.make_inspector().save(folder / "a.fmr")
    bare = load(folder / "a.fmr")
    bare.graphs.clear()
    save(bare, folder / "bare.fmr")
    model, good, out = (str(folder / name) for name in ("a.fmr", "set/test/good", "out"))
    commands = {
        "info": ["info", model],
        "calibrate": ["calibrate", model, good, "--out", str(folder / "b.fmr")],
        "inspect": ["inspect", str(folder / "b.fmr"), good, str(folder / "set/test/hole"), "--out", out],
        "mask": ["inspect", model, good, "--roi", str(folder / "mask.png"), "--out", str(folder / "within")],
        "evaluate": ["evaluate", model, str(folder / "set"), "--out", str(folder / "figures.json")],
        "train": ["train", good, "--out", str(folder / "c.fmr")],
        "demo": ["demo", "--out", str(folder / "demo")],
        "selfcheck": ["selfcheck"],
        "bench": ["bench"],
        "graphs": ["graphs", model, "--out", str(folder / "c.fmr")],
        **{
            f"bare {verb}": [verb, str(folder / "bare.fmr"), *more]
            for verb, more in {
                "info": [],
                "calibrate": [good],
                "inspect": [good, "--out", str(folder / "none")],
                "evaluate": [str(folder / "set")],
                "export": ["--to", "onnx", "--out", str(folder / "none")],
                "serve": [],
                "plan": [good, "--link", "10"],
            }.items()
        },
    }
    done = without.python(COMMANDS, json.dumps(list(commands.values())))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    ended = dict(zip(commands, told["ended"], strict=True))
    return SimpleNamespace(folder=folder, ended=ended, loaded=told["loaded"])


@pytest.mark.parametrize("name", ["info", "calibrate", "inspect", "mask", "evaluate"])
def test_a_model_with_graphs_is_used_as_ever(place, name):
    code, _, errors = place.ended[name]
    assert code == 0, errors
    assert "fmrnet: " not in errors


def test_nothing_of_the_extra_was_loaded(place):
    assert place.loaded == []


def test_verdicts_and_figures_are_those_of_an_environment_with_everything(place, tmp_path):
    pictures = (place.folder / "set/test" / name for name in ("good", "hole"))
    seen = run("inspect", place.folder / "b.fmr", *pictures, "--out", tmp_path, "--engine", "onnxruntime")
    assert seen.exit_code == 0
    expected, found = (
        json.loads((folder / "report.json").read_text())["pictures"]
        for folder in (tmp_path, place.folder / "out")
    )
    assert len(found) == 6
    for one, other in zip(expected, found, strict=True):
        assert (one["picture"], one["score"], one["defective"]) == (
            other["picture"],
            other["score"],
            other["defective"],
        )
    figures = json.loads((place.folder / "figures.json").read_text())
    assert figures["picture"]["roc_auc"] == figures["pixel"]["roc_auc"] == 1.0


def test_info_shows_the_operations_that_were_counted_where_the_graphs_were_made(place):
    told = place.ended["info"][1]
    assert "patch level  1.5" in told
    assert "pixel level  2.5" in told


@pytest.mark.parametrize("name", ["train", "demo", "selfcheck", "bench", "graphs"])
def test_what_needs_torch_says_in_one_line_what_to_install(place, name):
    code, _, errors = place.ended[name]
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("fmrnet: ")
    assert "torch" in line
    assert line.endswith("run pip install 'fmrnet[train]'")
    assert not (place.folder / "c.fmr").exists()
    assert not (place.folder / "demo").exists()


@pytest.mark.parametrize("verb", ["info", "calibrate", "inspect", "evaluate", "export", "serve", "plan"])
def test_a_model_without_graphs_says_in_one_line_how_it_gets_some(place, verb):
    code, told, errors = place.ended[f"bare {verb}"]
    assert (code, told) == (2, "")
    (line,) = errors.splitlines()
    assert "run `fmrnet graphs MODEL --out MODEL` where 'fmrnet[train]' is installed, or pip install" in line
    assert not (place.folder / "none").exists()


@pytest.mark.parametrize(
    "code",
    ["import fmrnet.fast", "from fmrnet import fast", "import fmrnet; fmrnet.train"],
)
def test_python_says_in_one_line_what_to_install(code):
    ended = without.python(code)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(
        "torch, which is not installed; run pip install 'fmrnet[train]'"
    )
    assert "import torch" not in ended.stderr
