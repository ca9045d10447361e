"""Small runtimes for graphs in the ONNX format: one function that makes a graph callable, for each.

A callable takes arrays by name and gives the outputs in the order in which the graph lists them; several threads may
call it at once. Told to, it gives back the memory that it has kept for larger ones; OpenVINO offers no way to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import ArtifactError

__all__ = ["ANEW", "RUNTIMES", "Graph"]

ANEW = "make it anew with `fmrnet graphs`"


class Graph(Protocol):
    """A graph that can be called."""

    def __call__(
        self, arrays: Mapping[str, NDArray[Any]], give_back: bool = False
    ) -> list[NDArray[np.float32]]: ...


def _onnxruntime(graph: bytes, inputs: tuple[str, ...]) -> Graph:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # nobody else hears of pictures
    _share_memory()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False  # it holds a plan's worth of memory for each size of picture
    options.log_severity_level = 4  # what is wrong is raised
    options.intra_op_num_threads = threads()
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds, one for each that can be wrong with a graph
        raise ArtifactError(f"a graph cannot be read ({_first_line(error)}); {ANEW}") from error
    _check_inputs(tuple(given.name for given in session.get_inputs()), inputs)

    giving_back = onnxruntime.RunOptions()
    giving_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(arrays: Mapping[str, NDArray[Any]], give_back: bool = False) -> list[NDArray[np.float32]]:
        try:
            return list(session.run(None, dict(arrays), giving_back if give_back else None))
        except Exception as error:  # as above
            raise ArtifactError(f"a graph cannot be run ({_first_line(error)}); {ANEW}") from error

    return run


@cache
def _share_memory() -> None:
    """One store of memory for all graphs, which grows by what is asked for and not to the next power of two.

    At pixel level a picture of 512 x 512 then takes 336 MB in place of 511, in the same time.
    """
    import onnxruntime

    arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, onnxruntime.OrtMemType.DEFAULT)
    as_asked = {
        "arena_extend_strategy": 1,
        "max_mem": 0,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(as_asked))


@cache
def _core() -> Any:
    """OpenVINO, until the process ends: when it goes, it frees the stack that it gave the system for this thread's
    signals, and the next Ctrl-C would be a crash."""
    import openvino

    return openvino.Core()


def _openvino(graph: bytes, inputs: tuple[str, ...]) -> Graph:
    core = _core()
    try:
        model = core.read_model(graph)
        settings = {"INFERENCE_NUM_THREADS": threads(), "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ArtifactError(f"a graph cannot be read ({_first_line(error)}); {ANEW}") from error
    _check_inputs(tuple(given.get_any_name() for given in compiled.inputs), inputs)

    def run(arrays: Mapping[str, NDArray[Any]], give_back: bool = False) -> list[NDArray[np.float32]]:
        try:
            found = compiled.create_infer_request().infer(dict(arrays))
        except RuntimeError as error:
            raise ArtifactError(f"a graph cannot be run ({_first_line(error)}); {ANEW}") from error
        return [np.array(found[output]) for output in compiled.outputs]

    return run


RUNTIMES: dict[str, Callable[[bytes, tuple[str, ...]], Graph]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def threads() -> int:
    """How many threads an engine may use: OMP_NUM_THREADS, or as many as there are processors for this process."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    limit = int(first) if first.isdecimal() else 0
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(limit, there) if limit > 0 else there


def _check_inputs(found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    if sorted(found) != sorted(expected):
        raise ArtifactError(f"a graph takes {', '.join(found)}: expected {', '.join(expected)}; {ANEW}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
