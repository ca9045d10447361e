"""Where the time of an inspection goes: each engine's milliseconds stage by stage, and the floor beside them.

    python bench/experiments/stages.py MODEL [--size 512x512] [--threads 1] [--rounds 8] [--name NAME] [--out FOLDER]

MODEL is one of whole pictures with general features. Its graphs are drawn anew, every operator marked with the stage
that it belongs to, and run with the profilers of onnxruntime and OpenVINO; of PyTorch the processors' time is taken
around its modules. The least time over the rounds counts, for others compute on the machine, too.

The floor of a stage is the longer of two times: its multiply-adds at the rate of a matrix product of 1,024 x 1,024, and
the bytes of weights, of what comes in from other stages and of what goes out to them, at the rate of a copy, the
best of 100.
Writes NAME-stages.json; NAME is "general" by default.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import onnx
import onnxruntime
import openvino
import record
import rows
import torch
from numpy.typing import NDArray

from fmrnet import artifact, fast
from fmrnet.config import Config
from fmrnet.engines import background, graphs
from fmrnet.engines.graph_engine import inputs_of, outputs_of
from fmrnet.engines.onnx_bytes import with_weights
from fmrnet.engines.torch_engine import of_content

STAGES = {  # functions of fmrnet.engines.graphs that draw them
    "general backbone": ("_backbone",),
    "Gaussian distance": ("_gaussian",),
    "head": ("_head",),
    "encoder": ("_encoded",),
    "memory": ("_recalled",),
    "textons": ("_rearranged",),
    "decoder": ("_decoded",),
    "fusion's inputs": ("_without_light", "_fusion_inputs"),
    "small U-Net": ("_answers",),
    "joining": ("_surprise", "_alarms", "_means", "_median", "_own", "_logistic"),
    "rest": ("_glance", "_restore", "_fuse"),
}
MODULES: dict[str, Callable[[Any], list[tuple[Any, str]]]] = {  # what PyTorch calls in the same stages
    "general backbone": lambda model: [(model.general.backbone, "forward")],
    "Gaussian distance": lambda model: [(model.general.fine, "forward"), (model.general.coarse, "forward")],
    "head": lambda model: [(model.general.head, "forward")] if model.general.head else [],
    "encoder": lambda model: [(model, "maps")],
    "memory": lambda model: [(model, "restore")],
    "textons": lambda model: [(model, "rearrange")],
    "decoder": lambda model: [(model, "decode")],
    "fusion's inputs": lambda model: [(fast, "without_light"), (fast, "fusion_inputs")],
    "small U-Net": lambda model: [(model.fusion, "forward")],
    "joining": lambda model: [
        (model.general.surprise, "forward"),
        (model.general, "joined"),
        (background, "patch_alarms"),
        (background, "patch_means"),
    ],
}


def main() -> None:
    """Read the command line, profile every engine, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", default="512x512", help="HEIGHTxWIDTH")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--name", default="general")
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    content = artifact.load(given.model)
    height, width = common.size_of(given.size)
    noise = np.random.default_rng(0).normal(0, 1, (1, content.config.image_channels, height, width))
    of_texture = (content.weights[part][:, None, None] for part in ("std", "mean"))
    picture = (noise * next(of_texture) + next(of_texture)).clip(0, 1).astype(np.float32)
    made = marked(content)
    rates = ceilings()
    known = {"picture": picture, "inside": np.ones((height, width), np.float32)}
    floors = _floors(content.config, made, known, rates)
    seconds = {
        "onnxruntime": _onnxruntime(content.config, made, known, given.threads, given.rounds),
        "openvino": _openvino(content.config, made, known, given.threads, given.rounds),
        "torch": _torch(content, picture[0], given.rounds),
    }
    stages = {
        stage: floors[stage] | {f"{name} ms": round(1e3 * found[stage], 2) for name, found in seconds.items()}
        for stage in STAGES
    }
    totals = {key: round(sum(row[key] for row in stages.values()), 2) for key in stages["encoder"]}
    about = {"threads": given.threads, "size": given.size, "load": round(os.getloadavg()[0], 1)} | rates
    rows.write(
        given.out / f"{given.name}-stages.json", record.record() | about | {"stages": stages, "all": totals}
    )
    for stage, row in (stages | {"all": totals}).items():
        print(f"{stage:18}", *(f"{key} {value:8.2f}" for key, value in row.items()), sep="  ")


def ceilings() -> dict[str, float]:
    """Multiply-adds a second of a matrix product in float32, and bytes a second of a copy."""
    a, large = torch.randn(1024, 1024), torch.randn(2**24)
    copied = torch.empty_like(large)
    product, copy = (
        min(_seconds(call) for _ in range(100)) for call in (lambda: a @ a, lambda: copied.copy_(large))
    )
    return {
        "multiply_adds_per_second": float(f"{1024**3 / product:.3g}"),
        "bytes_per_second": float(f"{2 * large.nbytes / copy:.3g}"),
    }


def _seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return (time.process_time() - started) / torch.get_num_threads()


def marked(content: artifact.Artifact) -> dict[str, bytes]:
    """The graphs with their weights, in which the name of each operator begins with its stage."""
    originals = {}
    for stage, functions in STAGES.items():
        for name in functions:
            originals[name] = getattr(graphs, name)
            setattr(graphs, name, _marking(originals[name], stage))
    try:
        drawn = graphs.graphs(content.config)
    finally:
        for name, function in originals.items():
            setattr(graphs, name, function)
    return {
        name: with_weights(graph.template, graph.weights, content.weights) for name, graph in drawn.items()
    }


def _marking(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
    """The same function; what it draws, and no function within it has marked, is marked with the stage."""

    def draw(builder: Any, *given: Any, **named: Any) -> Any:
        before = len(builder.tape.nodes)
        found = function(builder, *given, **named)
        for number, node in enumerate(builder.tape.nodes[before:], before):
            if "|" not in (node.name or ""):
                node.name = f"{stage}|{node.op_type}|{number}"
                for place, value in enumerate(node.outputs):
                    value.name = f"{node.name}|{place}"
        return found

    return draw


def _stage(name: str) -> str:
    stage = name.partition("|")[0]
    return stage if stage in STAGES else "rest"


def _stage_of_several(names: str) -> str:
    """Of what OpenVINO has made one operator of, by the names it gives, most of which are the operators' own."""
    return next((one for one in map(_stage, names.split(",")) if one != "rest"), "rest")


def _floors(
    config: Config, made: dict[str, bytes], known: dict[str, Any], rates: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Millions of multiply-adds, megabytes and milliseconds of each stage; `known` gets what the graphs give."""
    multiplied: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for name, graph in made.items():
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        events, found = _profiled(graph, {one: known[one] for one in inputs_of(config)[name]}, options, 1)
        known |= dict(zip(outputs_of(config)[name], found))
        model = onnx.load_from_string(graph).graph
        sizes: dict[str, tuple[str, int]] = {one: ("", known[one].nbytes) for one in inputs_of(config)[name]}
        sizes |= {one.name: ("", 4 * math.prod(one.dims)) for one in model.initializer}
        readers = defaultdict(set)
        for node in model.node:
            stage = _stage(node.name)
            event = events[node.name][0]["args"]
            given, made_of = (
                [shape for one in event[f"{end}_type_shape"] for shape in one.values()]
                for end in ("input", "output")
            )
            multiplied[stage] += _multiply_adds(node.op_type, given, made_of)
            sizes |= {one: (stage, 4 * math.prod(shape)) for one, shape in zip(node.output, made_of)}
            for one in node.input:
                readers[one].add(stage)
        for one, (within, size) in sizes.items():
            others = readers[one] - {within}
            for stage in others:
                moved[stage] += size
            if within and (others or not readers[one]):
                moved[within] += size
    return {
        stage: {
            "million multiply-adds": round(multiplied[stage] / 1e6, 1),
            "megabytes": round(moved[stage] / 1e6, 2),
            "floor ms": round(
                1e3
                * max(
                    multiplied[stage] / rates["multiply_adds_per_second"],
                    moved[stage] / rates["bytes_per_second"],
                ),
                2,
            ),
        }
        for stage in STAGES
    }


def _multiply_adds(kind: str, given: list[list[int]], made: list[list[int]]) -> int:
    """Of one operator, from the shapes of what it is given and of what it makes."""
    if kind == "Conv":
        return math.prod(made[0]) * math.prod(given[1][1:])
    if kind == "ConvTranspose":
        return math.prod(given[0]) * math.prod(given[1][1:])
    return math.prod(made[0]) * given[0][-1] if kind == "MatMul" else 0


def _profiled(
    graph: bytes, feed: dict[str, Any], options: onnxruntime.SessionOptions, rounds: int
) -> tuple[dict[str, list[dict[str, Any]]], list[Any]]:
    """What onnxruntime tells of each operator, by its name, a dict a round; and what the graph gives."""
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
        for _ in range(rounds):
            found = session.run(None, feed)
        told = json.loads(Path(session.end_profiling()).read_text())
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in told:
        if one["cat"] == "Node" and one["name"].endswith("_kernel_time"):
            events[one["name"].removesuffix("_kernel_time")].append(one)
    return events, found


def _onnxruntime(
    config: Config, made: dict[str, bytes], known: dict[str, Any], threads: int, rounds: int
) -> Counter[str]:
    total: Counter[str] = Counter()
    for name, graph in made.items():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False
        events, _ = _profiled(graph, {one: known[one] for one in inputs_of(config)[name]}, options, rounds)
        for node, each in events.items():
            total[_stage(node)] += min(one["dur"] for one in each) / 1e6
    return total


def _openvino(
    config: Config, made: dict[str, bytes], known: dict[str, Any], threads: int, rounds: int
) -> Counter[str]:
    total: Counter[str] = Counter()
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    for name, graph in made.items():
        compiled = core.compile_model(core.read_model(graph), "CPU", settings)
        stages = {
            one.get_friendly_name(): _stage_of_several(one.get_rt_info()["originalLayersNames"].astype(str))
            for one in compiled.get_runtime_model().get_ops()
            if "originalLayersNames" in one.get_rt_info()
        }
        request = compiled.create_infer_request()
        least: dict[str, float] = {}
        for _ in range(rounds):
            request.infer({one: known[one] for one in inputs_of(config)[name]})
            for one in request.get_profiling_info():
                taken = one.real_time.total_seconds()
                least[one.node_name] = min(taken, least.get(one.node_name, taken))
        for node, taken in least.items():
            total[stages.get(node, "rest")] += taken
    return total


def _torch(content: artifact.Artifact, picture: NDArray[np.float32], rounds: int) -> Counter[str]:
    """Around the modules; what one of them calls counts for that alone."""
    engine = of_content(content, "cpu")
    spent: Counter[str] = Counter()
    within = ["rest"]
    turned = [time.process_time()]

    def turn() -> None:
        now = time.process_time()
        spent[within[-1]] += now - turned[0]
        turned[0] = now

    def timed(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            turn()
            within.append(stage)
            try:
                return function(*given, **named)
            finally:
                turn()
                within.pop()

        return call

    for stage, places in MODULES.items():
        for holder, name in places(engine.model):
            setattr(holder, name, timed(getattr(holder, name), stage))
    each = []
    for _ in range(rounds):
        spent.clear()
        turn()
        engine.compare(engine.glance(picture))
        turn()
        each.append(Counter(spent))
    return Counter({stage: min(one[stage] for one in each) / torch.get_num_threads() for stage in STAGES})


if __name__ == "__main__":
    common.command(main)
