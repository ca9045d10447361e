"""The smallest model with graphs: its graphs are written by hand, for the export of real ones takes minutes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tiny import ground

from fmrnet.artifact import Artifact, Graph
from fmrnet.config import Config, preset
from fmrnet.engines.graph_engine import GraphEngine
from fmrnet.inspection.calibration import calibrate
from fmrnet.inspection.inspector import Inspector
from fmrnet.usual import BANDS

CONFIG: Config = dataclasses.replace(preset("instant"), image_channels=1)
SHADE, OPERATIONS = 0.47, {"patch": 1_500_000_000, "pixel": 2_500_000_000}


def graphs() -> dict[str, Graph]:
    """Of a model that finds each pixel as surprising as it is unlike SHADE."""
    node, patches = helper.make_node, {"kernel_shape": [64, 64], "strides": [32, 32]}
    glance = [
        node("Sub", ["picture", "shade"], ["off"]),
        node("Abs", ["off"], ["far"]),
        node("Div", ["far", "unit"], ["all"]),
        node("Mul", ["all", "inside"], ["counted"]),
        node("ReduceSum", ["usual"], ["usually"], keepdims=0),
        node("Mul", ["usually", "hardly"], ["there"]),  # runtimes drop an input that nothing reads
        node("Add", ["counted", "there"], ["each"]),
        node("Squeeze", ["each", "first_two"], ["surprise"]),
        node("MaxPool", ["each"], ["worst"], **patches),
        node("Concat", ["worst"] * 5, ["five"], axis=1),
        node("Squeeze", ["five", "first"], ["readings"]),
        node("ReduceSum", ["each"], ["sum"], keepdims=0),
        node("ReduceSum", ["inside"], ["count"], keepdims=0),
        node("Div", ["sum", "count"], ["typical"]),
    ]
    fuse = [
        node("Identity", ["surprise"], ["evidence"]),
        node("Sub", ["surprise", "half"], ["above"]),
        node("Sigmoid", ["above"], ["map"]),
        node("Identity", ["none"], ["readings"]),
    ]
    axes = {"first": np.array([0]), "first_two": np.array([0, 1])}
    of_glance = axes | {"shade": np.float32(SHADE), "unit": np.float32(0.05), "hardly": np.float32(1e-30)}
    of_fuse = {"half": np.float32(6), "none": np.zeros(0, np.float32)}
    size = ["height", "width"]
    picture = {"picture": [1, 1, *size], "inside": size, "usual": [2, "down", "across"]}
    surprise = {"surprise": ["height", "width"]}
    maps = {"map": [None, None], "evidence": [None, None], "readings": [None]}
    seen = {"readings": [None] * 3, "typical": [], "surprise": [None, None]}
    return {
        "glance": _graph(glance, of_glance, picture, seen),
        "fuse": _graph(fuse, of_fuse, surprise, maps),
    }


def _graph(
    nodes: list[Any], constants: dict[str, Any], given: dict[str, Any], found: dict[str, Any]
) -> Graph:
    """A graph of the names and shapes of its inputs and outputs."""
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in some.items()]
        for some in (given, found)
    ]
    graph = helper.make_graph(nodes, "handmade", *ends, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return Graph(model.SerializeToString(), ("general.surprise.rate",))


def make_inspector() -> Inspector:
    """Calibrated on pictures of `ground`, on onnxruntime."""
    weights = {
        "general.surprise.rate": np.ones(2, np.float32),
        "general.near": np.linspace(-1, 1, 2 * BANDS, dtype=np.float32).reshape(2, BANDS),
        "general.place": np.linspace(-1, 1, 2 * 18 * 23, dtype=np.float32).reshape(
            2, 18, 23
        ),  # of 70 x 90 pixels
    }
    content = Artifact(CONFIG, {}, {}, weights, graphs())
    engine = GraphEngine(content, "onnxruntime")
    good = [(f"{seed}.png", ground(seed=seed)[None].astype(np.float32) / 255) for seed in range(5)]
    return Inspector(engine, calibrate(engine, good), {"graphs": {"operations": OPERATIONS}}, content)
