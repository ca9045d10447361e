"""The wheel: it holds the three packages and nothing else, and works outside the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"fmrnet": "fmrnet", "reference": "fmrnet/reference", "fast": "fmrnet/fast"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tracked sources, so that the build leaves nothing in the repository."""
    import shutil

    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, copy], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_holds_every_module_and_nothing_else(wheel):
    expected = {
        f"{package}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, package in SOURCES.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    pages = {
        f"fmrnet/{file.relative_to(ROOT / 'fmrnet').as_posix()}"
        for room in ("pages", "deployment")
        for file in (ROOT / "fmrnet" / room).rglob("*.*")
        if file.suffix not in (".py", ".pyc")
    }
    assert names == expected | pages | {"fmrnet/py.typed"}


def test_works_outside_the_repository(wheel, tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            tmp_path / "site",
            wheel,
        ],
        check=True,
        capture_output=True,
    )
    script = """
import numpy as np, torch, fmrnet
from fmrnet import fast, reference
assert "site" in fmrnet.__file__ and "site" in fast.__file__ and "site" in reference.__file__
a, b = np.random.default_rng(0).random((2, 20, 24, 1))
found = fast.anomaly_map(*(torch.from_numpy(x.transpose(2, 0, 1))[None] for x in (a, b)))[0].numpy()
assert np.allclose(found, reference.fusion.anomaly_map(a, b))
assert fmrnet.Config and fmrnet.train and fmrnet.load
"""
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
    console = subprocess.run(
        [sys.executable, "-m", "fmrnet", "--version"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert console.returncode == 0, console.stderr
    assert "0.1.0" in console.stdout
