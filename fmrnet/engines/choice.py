"""Which engine computes with a model.

"auto" takes PyTorch where it is installed, for at pixel level it is the fastest so far (`bench/results/engines.json`);
else a small runtime on the graphs of the model file.
"""

from __future__ import annotations

from importlib.util import find_spec

from fmrnet.artifact import Artifact
from fmrnet.engines.agreement import TOLERANCE, beyond
from fmrnet.engines.engine import Engine
from fmrnet.engines.graph_engine import GraphEngine, can_be_graphs
from fmrnet.engines.runtimes import ANEW, RUNTIMES
from fmrnet.errors import ConfigError, shown

__all__ = ["ENGINES", "choose", "installed"]

ENGINES = (*RUNTIMES, "torch")
PIP = {"onnxruntime": "onnxruntime", "openvino": "'fmrnet[openvino]'", "torch": "'fmrnet[train]'"}


def choose(content: Artifact, device: str = "auto", engine: str = "auto") -> Engine:
    """The engine for a model file's content.

    Parameters
    ----------
    content : Artifact
    device : str
        "auto", "cpu", or "cuda" or "cuda:N", which PyTorch alone uses.
    engine : str
        "auto" or one of ENGINES.

    Raises
    ------
    ArtifactError
        If the weights or the graphs do not fit the settings.
    ConfigError
        If there is no such device or engine, or what it needs is not installed or not in the file.
    """
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"engine {shown(engine)}: expected auto, {', '.join(ENGINES)}")
    if device not in ("auto", "cpu") and engine in RUNTIMES:
        raise ConfigError(f"device {shown(device)} with engine {engine}: expected cpu, or engine torch")
    if engine == "auto":
        there = [
            name
            for name in RUNTIMES
            if content.graphs and _has(name) and not beyond(content.provenance, name)
        ]
        engine = "torch" if device not in ("auto", "cpu") or _has("torch") or not there else there[0]
        if engine == "torch" and not _has("torch"):
            raise ConfigError(_without_torch(content, device))
    if not _has(engine):
        raise ConfigError(f"engine {engine} is not installed; run pip install {PIP[engine]}")
    if engine == "torch":
        from fmrnet.engines.torch_engine import of_content

        return of_content(content, device)
    if not content.graphs:
        raise ConfigError(
            f"engine {engine} needs graphs, and this model file has none; make them with `fmrnet graphs`, or use "
            "engine torch"
        )
    if (difference := beyond(content.provenance, engine)) is not None:
        raise ConfigError(
            f"engine {engine} gave other scores than torch when this model's graphs were made, by {difference:.2g}: "
            f"expected up to {TOLERANCE}; use another engine, or {ANEW}"
        )
    return GraphEngine(content, engine)


def _without_torch(content: Artifact, device: str) -> str:
    """Why nothing can compute here without PyTorch, and what helps."""
    install = f"pip install {PIP['torch']}"
    if device not in ("auto", "cpu"):
        return f"device {shown(device)} needs torch, which is not installed; run {install}"
    if content.graphs:
        return "neither onnxruntime nor torch is installed; run pip install onnxruntime"
    if not can_be_graphs(content.config):
        return f"this model runs in torch alone, which is not installed; run {install}"
    return (
        "this model file has no graphs, and torch is not installed; run `fmrnet graphs MODEL --out MODEL` where "
        f"{PIP['torch']} is installed, or {install} here"
    )


def installed() -> tuple[str, ...]:
    """Those of ENGINES whose libraries are here."""
    return tuple(name for name in ENGINES if _has(name))


def _has(module: str) -> bool:
    return find_spec(module) is not None
