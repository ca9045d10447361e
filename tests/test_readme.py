"""What the README shows, works: its Python and its commands are run, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import CONFIG, ground, make_inspector
from typer.testing import CliRunner

from fmrnet import config
from fmrnet.cli import app
from fmrnet.pictures import write_picture

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/report.md")
]
README = PAGES[0].read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
]
COMMANDS += re.findall(r"`(fmrnet \w+ \S[^`]*)`", README)
KERNEL = next(snippet for snippet in SNIPPETS if snippet.startswith("import torch\nimport torch.nn"))
MAKE = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
COMMANDS = [line for line in COMMANDS if line.startswith("fmrnet ")]


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """The folder of a reader who has good pictures, panels to inspect, a data set and, by now, a model."""
    monkeypatch.chdir(tmp_path)
    for preset in ("general", "edge"):
        monkeypatch.setitem(config.PRESETS, preset, CONFIG)
    for folder in (
        "good",
        "new_good",
        "panels",
        "dataset/test/good",
        "dataset/test/cut",
        "dataset/ground_truth/cut",
    ):
        Path(folder).mkdir(parents=True)
    for index in range(5):
        write_picture(Path("good") / f"{index}.png", ground(seed=index))
    for folder in ("new_good", "panels", "dataset/test/good", "dataset/test/cut"):
        write_picture(Path(folder) / "7.png", ground(seed=7))
    write_picture("new_good/8.png", ground(seed=8))
    mask = np.zeros((96, 112), bool)
    mask[40:44, 20:90] = True
    write_picture("dataset/ground_truth/cut/7_mask.png", mask)
    make_inspector().save("carpet.fmr")
    Path("mykernels.py").write_text(KERNEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mykernels", raising=False)


def test_there_are_snippets_and_commands():
    assert len(SNIPPETS) >= 3
    assert {command.split()[1] for command in COMMANDS} == {
        "train",
        "inspect",
        "info",
        "calibrate",
        "evaluate",
        "selfcheck",
        "bench",
    }
    assert MAKE[:2] == ["demo", "test"]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(factory, snippet):
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(factory, command):
    seen = CliRunner().invoke(app, shlex.split(command)[1:])
    assert seen.exit_code == 0, seen.output


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        *(
            ROOT / name
            for name in ("bench/README.md", "bench/decisions.md", "reference/README.md", "docs/evaluate.md")
        ),
    ],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", page.read_text(), re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_tables_are_those_of_the_results():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "bench" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert all(f"<!-- {name} -->" in README for name in tables.TABLES)
    assert tables.filled(README) == README, "run python bench/tables.py"
