"""Which engine computes with a model.

"auto" takes a CUDA device, which PyTorch alone uses, if it gives there the scores of a CPU; on a CPU the first small
runtime that can run the graphs of the model file and gives PyTorch's scores, and PyTorch where there is none. On a CPU
onnxruntime is nearly twice as fast at patch level and ahead or level at pixel level (`bench/results/engines.json` in
grey, `speed.json` in colour), and a process that does not load PyTorch has its first verdict sooner.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from importlib.util import find_spec

from fmrnet.artifact import Artifact
from fmrnet.engines.agreement import TOLERANCE, beyond
from fmrnet.engines.engine import Engine
from fmrnet.engines.graph_engine import GraphEngine, why_no_graphs
from fmrnet.engines.probes import off_here
from fmrnet.engines.runtimes import ANEW, RUNTIMES
from fmrnet.errors import ArtifactError, ConfigError, FmrnetError, shown

__all__ = ["ENGINES", "choose", "has_cuda", "installed"]

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
        return _first(content, device)
    if engine == "torch" and not _has("torch"):
        raise ConfigError(_without_torch(content, device))
    if engine in RUNTIMES and not content.graphs:
        raise ConfigError(f"engine {engine} needs graphs, and {_without_graphs(content)}")
    if not _has(engine):
        raise ConfigError(f"engine {engine} is not installed; run pip install {PIP[engine]}")
    if engine == "torch":
        return _of_torch(content, device)
    if (reason := _refusal(content, engine)) is not None:
        raise ConfigError(f"{reason}; use another engine, or {ANEW}")
    return GraphEngine(content, engine)


def _first(content: Artifact, device: str) -> Engine:
    """The first engine that can serve; what is passed over, for its scores are others or it reads no graph, is said."""
    if device not in ("auto", "cpu"):
        return choose(content, device, "torch")
    refused: list[FmrnetError] = []
    cuda = [("torch", "auto")] if device == "auto" and has_cuda() else []
    runtimes = tuple(RUNTIMES) if content.graphs else ()
    for name, where in (*cuda, *((name, "cpu") for name in (*runtimes, "torch") if _has(name))):
        try:
            engine = choose(content, where, name)
        except (ArtifactError, ConfigError) as error:
            refused.append(error)
        else:
            _tell(refused, name)
            return engine
    raise refused[0] if refused else ConfigError(_without_torch(content, device))


def _tell(refused: list[FmrnetError], taken: str) -> None:
    for one in refused:
        logging.getLogger("fmrnet").warning("fmrnet: %s; %s is taken", one, taken)


def has_cuda() -> bool:
    """Whether PyTorch finds a CUDA device; where there is no driver, it is not loaded for that."""
    if not _has("torch"):
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def _of_torch(content: Artifact, device: str) -> Engine:
    """PyTorch; on a CUDA device, if its answers there are those of a CPU, as far as the model file has these."""
    from fmrnet.engines.torch_engine import of_content

    engine = of_content(content, device)
    if engine.device.type == "cuda":
        off = off_here(content, "torch", lambda: engine, engine.machine)
        if off is not None and off > TOLERANCE:
            other = f"gave other scores than on a CPU, by {off:.2g}: expected up to {TOLERANCE}"
            raise ConfigError(f"engine torch on {engine.machine} {other}; use device cpu")
    return engine


def _refusal(content: Artifact, engine: str) -> str | None:
    """Why a runtime's scores are not those of PyTorch, as far as is known or can be seen here."""
    if (difference := beyond(content.provenance, engine)) is not None:
        where = "when this model's graphs were made"
    else:
        off = off_here(content, engine, lambda: GraphEngine(content, engine))
        if off is None or off <= TOLERANCE:
            return None
        difference, where = off, "on this machine"
    return f"engine {engine} gave other scores than torch {where}, by {difference:.2g}: expected up to {TOLERANCE}"


def _without_torch(content: Artifact, device: str) -> str:
    """Why nothing can compute here without PyTorch, and what helps."""
    install = f"run pip install {PIP['torch']}"
    if device not in ("auto", "cpu"):
        return f"device {shown(device)} needs torch, which is not installed; {install}"
    if not content.graphs:
        return f"torch is not installed, and {_without_graphs(content)}"
    there = next(filter(_has, RUNTIMES), None)
    if there is None:
        return "neither onnxruntime nor torch is installed; run pip install onnxruntime"
    return f"torch is not installed; use engine {there}, for this model has graphs, or {install}"


def _without_graphs(content: Artifact) -> str:
    """What helps with a model that has no graphs."""
    install = f"pip install {PIP['torch']}"
    if (reason := why_no_graphs(content.config)) is not None:
        helps = "use engine torch" if _has("torch") else f"run {install}"
        return f"this model runs in torch alone, for it {reason}; {helps}"
    made = "run `fmrnet graphs MODEL --out MODEL`"
    helps = f"{made}, or use engine torch"
    if not _has("torch"):
        helps = f"{made} where {PIP['torch']} is installed, or {install} here"
    return f"this model file has no graphs; {helps}"


def installed() -> tuple[str, ...]:
    """Those of ENGINES whose libraries are here."""
    return tuple(name for name in ENGINES if _has(name))


def _has(module: str) -> bool:
    return find_spec(module) is not None
