"""The wheel: it holds the three packages and nothing else, and works outside the repository."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny import ground

import fmrnet
from fmrnet.pictures import write_picture

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


@pytest.mark.slow
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


MEGABYTES = (
    450  # of what an inspection needs, as pip installs it; 80 of them are bytecode, which uv leaves out
)


@pytest.fixture(scope="module")
def inspecting(wheel, tmp_path_factory):
    """The programs of an environment with the wheel and what it needs by default, from the package index."""
    folder = tmp_path_factory.mktemp("inspecting")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    programs = folder / "env" / "bin"
    pip = [programs / "pip", "--quiet", "--disable-pip-version-check"]
    reached = subprocess.run(
        [*pip, "download", "--no-deps", "--dest", folder, "filelock"], capture_output=True, text=True
    )
    if reached.returncode:
        pytest.skip(f"no package index is reached: {reached.stderr.strip().splitlines()[-1]}")
    subprocess.run([*pip, "install", "--constraint", ROOT / "constraints.txt", wheel], check=True)
    return programs


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_default_install_is_small_and_gives_the_verdicts_of_torch(inspecting, tmp_path, monkeypatch):
    monkeypatch.setenv("FMRNET_CACHE", str(tmp_path / "cache"))
    for name in ("good", "in"):
        (tmp_path / name).mkdir()
    for seed in range(10):
        write_picture(tmp_path / "good" / f"{seed}.png", ground(128, 160, seed=seed))
    inspector = fmrnet.train(
        tmp_path / "good", tmp_path / "a.fmr", config=fmrnet.preset("instant"), device="cpu"
    )
    inspector.add_graphs()
    inspector.save(tmp_path / "a.fmr")
    for seed in range(6):
        picture = ground(100, 130, seed=20 + seed)
        picture[40 : 40 + 4 * seed, 50:80] = 255
        write_picture(tmp_path / "in" / f"{seed}.png", picture)
    environment = {"PATH": "", "HOME": str(tmp_path)}
    command = [inspecting / "fmrnet", "inspect", "a.fmr", "in", "--out", "out"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = json.loads((tmp_path / "out" / "report.json").read_text())["pictures"]
    assert len(lines) == 6
    for line in lines:
        expected = inspector.inspect(tmp_path / line["picture"])
        assert line["defective"] == expected.defective
        assert line["score"] == pytest.approx(expected.score, rel=1e-3, abs=1e-3)
    assert {line["defective"] for line in lines} == {True, False}

    code = "import importlib.util as u; print([n for n in ('torch', 'triton', 'numba', 'sklearn') if u.find_spec(n)])"
    ended = subprocess.run(
        [inspecting / "python", "-c", code], env=environment, capture_output=True, text=True
    )
    assert ended.stdout == "[]\n"
    (packages,) = inspecting.parent.glob("lib/python*/site-packages")
    of_pip = {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
    sizes = [
        file.stat().st_size
        for file in packages.rglob("*")
        if file.is_file() and file.relative_to(packages).parts[0].partition("-")[0] not in of_pip
    ]
    assert sum(sizes) < MEGABYTES * 1e6
