"""What every result file says of where it comes from: machine, versions, commit, command, time."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["record"]

PACKAGES = (
    *("fmrnet", "numpy", "scipy", "onnxruntime", "openvino"),
    *("torch", "numba", "triton", "scikit-learn", "scikit-image"),
)


def record(root: Path) -> dict[str, Any]:
    """The provenance of a result, JSON-ready; the commit is that of the repository that holds `root`, if one does."""
    return {
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(root),
        "command": " ".join([Path(sys.executable).name, *(_relative(word) for word in sys.argv)]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    machine: dict[str, Any] = {"cpu": model, "cores": os.cpu_count()}
    try:
        import torch
    except ModuleNotFoundError:
        return machine
    machine["threads"] = torch.get_num_threads()
    machine["capability"] = torch.backends.cpu.get_cpu_capability()
    machine["amx"] = torch.cpu._is_amx_tile_supported()
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
        machine["cuda"] = torch.version.cuda
    return machine


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit(root: Path) -> str:
    def git(*words: str) -> str:
        try:
            command = ["git", "-C", str(root), *words]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except FileNotFoundError:  # no git here
            return ""

    return git("rev-parse", "HEAD") + (
        " and changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    )


def _relative(word: str) -> str:
    """A path, or each of those that = separates, as in MODEL=FOLDER, without the folders of this machine.

    >>> _relative("/a/b.fmr=/c/d"), _relative("--out=/a/b"), _relative("b/c"), _relative("--rate=3")
    ('b.fmr=d', '--out=b', 'b/c', '--rate=3')
    """
    parts = (Path(part).name if Path(part).is_absolute() else part for part in word.split("="))
    return "=".join(parts)
