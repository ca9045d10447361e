"""What the README and the pages show, works: Python and commands are run, and links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import CONFIG, ground, make_inspector
from typer.main import get_command
from typer.testing import CliRunner

from fmrnet import config
from fmrnet.cli import app
from fmrnet.pictures import write_picture

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md")), *DOCS]
# Commands on these pages are only parsed, as they need a server, a broker, graphs, larger pictures or other data; the
# tests of their rooms run the like. Examples for programs that are not installed, or that ask a server, are not run.
PARSED = (
    "a-day-on-a-line",
    "cluster",
    "commands",
    "edge",
    "engines",
    "evaluate",
    "inspect",
    "report",
    "serve",
)
FOREIGN = ("fiftyone", "label_studio_sdk", "mlflow", "tritonclient", "wandb")
RUN = [page for page in (README, *DOCS) if page.stem not in PARSED]


def code(pages: list[Path], language: str) -> list[str]:
    """The blocks of a language on these pages, each once."""
    found = (re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL) for page in pages)
    return list(dict.fromkeys(block for blocks in found for block in blocks))


def commands(pages: list[Path]) -> list[str]:
    """The commands of `fmrnet` and of make on these pages, in blocks and within sentences, each once."""
    lines = [line for block in code(pages, "sh") for line in block.replace("\\\n", " ").splitlines()]
    shown = [line for block in code(pages, "console") for line in block.splitlines()]
    lines += [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
    lines = [line.partition("|")[0].partition(" <")[0].strip() for line in lines]
    for page in pages:
        lines += re.findall(
            r"`(fmrnet [a-z]+ [^\sA-Z`][^`]*)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        )
    return list(dict.fromkeys(line for line in lines if line.startswith(("fmrnet ", "make "))))


SNIPPETS = [
    block
    for block in code([README, *DOCS], "python")
    if not re.search(rf"^(import|from) ({'|'.join(FOREIGN)})", block, re.M)
]
KERNEL = next(snippet for snippet in SNIPPETS if snippet.startswith("import torch\nimport torch.nn"))
MAKE = [line.split()[1] for line in commands([README]) if line.startswith("make ")]
COMMANDS = [line for line in commands(RUN) if line.startswith("fmrnet ")]
ONLY_PARSED = [line for line in commands(DOCS) if line.startswith("fmrnet ") and line not in COMMANDS]


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """The folder of a reader who has good pictures, panels to inspect, a data set and, by now, a model."""
    monkeypatch.chdir(tmp_path)
    for preset in ("general", "edge", "instant"):
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
    for folder in ("new_good", "panels"):
        write_picture(Path(folder) / "8.png", ground(seed=8))
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
    assert len(ONLY_PARSED) >= 10
    assert MAKE[:2] == ["demo", "test"]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(factory, snippet):
    exec(compile(snippet, "page", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(factory, command):
    seen = CliRunner().invoke(app, shlex.split(command)[1:])
    assert seen.exit_code == 0, seen.output


@pytest.mark.parametrize("command", ONLY_PARSED)
def test_other_commands_are_understood(command):
    group = get_command(app)
    name, *arguments = shlex.split(command)[1:]
    group.commands[name].make_context(name, arguments)


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        *(ROOT / name for name in ("bench/README.md", "bench/decisions.md", "reference/README.md")),
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
    text = README.read_text()
    assert all(f"<!-- {name} -->" in text for name in tables.TABLES)
    assert tables.filled(text) == text, "run python bench/tables.py"
