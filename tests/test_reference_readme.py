"""The oracle's README: complete, and every name in it exists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from fmrnet import reference

ROOT = Path(__file__).parent.parent
README = (ROOT / "reference" / "README.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in README.splitlines()
    if line[:1] == "|"
]
MAP = [row for row in ROWS if len(row) == 5 and row[0] not in ("eq", "section", "---")]


def names(cell):
    """The names in backticks, without arguments."""
    return [name for name in re.findall(r"`([^`]+)`", cell) if "=" not in name]


def exists(module, name):
    parts = name.split(".")
    return hasattr(importlib.import_module(f"{module}.{'.'.join(parts[:-1])}"), parts[-1])


def test_every_equation_has_one_row():
    assert [row[0] for row in MAP if row[0].isdigit()] == [str(n) for n in range(1, 24)]


@pytest.mark.parametrize("row", MAP, ids=lambda row: f"{row[0]} {row[1][:30]}")
def test_every_function_of_the_map_exists_and_every_row_has_a_test(row):
    _, _, oracle, tensors, tests = row
    assert all(exists("fmrnet.reference", name) for name in names(oracle))
    assert all(exists("fmrnet", name) for name in names(tensors))
    assert names(tests)
    for name in names(tests):
        file, _, function = name.partition("::")
        text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert f"def {function}(" in text if function else "def test_" in text


def test_every_public_function_of_the_oracle_is_in_the_map():
    listed = {name for row in MAP for name in names(row[2])}
    public = {
        f"{module}.{name}"
        for module in reference.__all__
        for name, value in vars(getattr(reference, module)).items()
        if inspect.isfunction(value) and value.__module__ == f"fmrnet.reference.{module}" and name[0] != "_"
    }
    assert listed == public


def test_every_public_function_says_what_it_takes_and_gives():
    for row in MAP:
        for name in names(row[2]):
            module, function = name.split(".")
            doc = inspect.getdoc(getattr(getattr(reference, module), function))
            assert doc, name
            if function != "leaky_relu":
                assert "Parameters\n----------" in doc, name
                assert "Returns\n-------" in doc, name


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    space = {}
    exec(example, space)
    assert space["A"].shape == (128, 128)
    assert space["G"].shape == (512, 4, 4)
