"""Shared fixtures. Without a GPU the Triton kernels run in its interpreter, asked for before its import."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # before any import that looks at these
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers share the cores, and so do the programs that they start
    # Two processes that compile one function at once may each put their code in the other's place on the disk.
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "numba" / worker)

import pytest
import torch
from hypothesis import HealthCheck, settings
from tiny import ground, make_inspector

from fmrnet.pictures import write_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile(
    "fmrnet", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=30
)
settings.register_profile("ci", parent=settings.get_profile("fmrnet"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "fmrnet")


@pytest.fixture(scope="session", params=["eager", "numba", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    return str(request.param)


def device_of(backend: str) -> torch.device:
    """Where a backend is tested: numba on the CPU, the others on the GPU if there is one."""
    return torch.device("cuda" if backend != "numba" and torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def fresh_memory_is_nan() -> Iterator[None]:
    """torch.empty hands out NaN, so that a result that is not written everywhere shows."""
    torch.use_deterministic_algorithms(True, warn_only=False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny, untrained model; whoever changes it takes a copy."""
    path = tmp_path_factory.mktemp("models") / "tiny.fmr"
    make_inspector().save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures in a folder."""
    (tmp_path / "in").mkdir()
    for index in range(3):
        write_picture(tmp_path / "in" / f"{index}.png", ground(seed=index))
    return tmp_path / "in"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A real browser without a screen, the system's or Playwright's own; skips where there is none."""
    from playwright.sync_api import Error, sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error:
            pytest.skip("no Chromium: apt-get install chromium")
        yield browser
        browser.close()


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A real disk with room for 32 kB, or for as much as is asked for."""
    size = getattr(request, "param", "32k")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if not done or done.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)
