"""The service holds to its own description, as schemathesis reads it (`pip install schemathesis`, anywhere on PATH)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import Process

ROOT = Path(__file__).parents[1]
PROGRAM = shutil.which(
    "schemathesis", path=f"{ROOT / 'build/schemathesis/bin'}{os.pathsep}{os.environ['PATH']}"
)
EXAMPLES = {"quick": 30, "long": 10_000}[os.environ.get("FUZZ", "quick")]


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="schemathesis is not installed")
def test_the_service_is_as_it_describes_itself(model: Path, tmp_path: Path) -> None:
    server = Process(model)
    # No schema tells which pictures a model takes: what it allows may be refused, with a status that it names.
    options = [f"--max-examples={EXAMPLES}", "--exclude-checks=positive_data_acceptance", "--no-color"]
    command = [str(PROGRAM), "run", f"http://{server.address}/openapi.json", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert server.stop() == 0
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9]\d* generated", done.stdout), done.stdout
    assert not [line for line in server.log if "traceback" in line]
