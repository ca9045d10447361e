"""What int8 would give: seconds and changed verdicts of the runtimes on narrower numbers.

    python bench/experiments/narrow.py MODEL=DATASET ... [--calibrated-on 4] [--rounds 6] [--out FOLDER]

Each MODEL is one with general features that sees whole pictures, each DATASET the folder in the MVTec layout that it
was trained on. Its graphs are drawn anew; convolutions and what stands between them are brought to int8 by
onnxruntime's static quantisation, weights for each channel, on good pictures that it was trained on. OpenVINO is timed
in float32 beside it. Processors' seconds are those of the graphs on 512 x 512 pixels of a good picture; verdicts those
of test pictures at pixel level, int8 against float32. Writes narrow.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import record
import rows
import stages
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

import fmrnet
from fmrnet import artifact
from fmrnet.engines import graphs, runtimes
from fmrnet.engines.engine import filled
from fmrnet.engines.graph_engine import GraphEngine, inputs_of
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.inspection.inspector import Inspector
from fmrnet.progress import Bar

NARROWED = [
    "Conv",
    "LeakyRelu",
    "Add",
    "Concat",
    "Clip",
    "Pad",
    "Resize",
]
JUDGED = ("onnxruntime float32", "onnxruntime int8")
SIDE = 512  # pixels of the pictures that are timed
CROP = 256  # least height and width of those that ranges are taken from


def main() -> None:
    """Read the command line, narrow, time and judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL=DATASET")
    parser.add_argument("--calibrated-on", type=int, default=4)
    parser.add_argument("--pictures", type=int, default=1000, help="how many are judged, about; default all")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    given = parser.parse_args()
    found = {}
    with Bar() as bar:
        for entry in given.models:
            model, _, dataset = entry.partition("=")
            found[Path(dataset).name] = measure(Path(model), Path(dataset), given, bar)
    about = {"threads": runtimes.threads(), "load": round(os.getloadavg()[0], 1)}
    rows.write(given.out / "narrow.json", record.record() | about | {"sets": found})


def measure(model: Path, dataset: Path, given: argparse.Namespace, bar: Bar) -> dict[str, Any]:
    """Seconds of each graph, by kind of numbers, and how the verdicts on test pictures differ."""
    inspector = fmrnet.load(model, "cpu", engine="torch")
    content = artifact.load(model)
    content = replace(content, graphs=graphs.graphs(content.config))
    plain = GraphEngine(content, "onnxruntime")
    good = sorted((dataset / "train" / "good").iterdir())[: given.calibrated_on]
    pictures = [inspector._picture(path) for path in good]
    wide = stages.marked(content)  # of operators with names, which the quantisation tells apart
    narrow = {name: _int8(wide[name], list(_known(plain, name, pictures))) for name in wide}
    engines = {"onnxruntime float32": plain}
    engines["openvino float32"] = GraphEngine(content, "openvino")
    engines["onnxruntime int8"] = _with(content, "onnxruntime", narrow)
    for name in narrow:
        engines[f"onnxruntime int8, {name} alone"] = _with(
            content, "onnxruntime", wide | {name: narrow[name]}
        )
    picture = pictures[0][:, :SIDE, :SIDE]
    picture = np.pad(picture, ((0, 0), *((0, SIDE - side) for side in picture.shape[1:])), mode="reflect")
    seconds = _seconds(engines, picture, given.rounds)
    every = load_dataset(dataset).examples
    examples = every[:: max(1, len(every) // given.pictures)]
    verdicts: dict[str, list[tuple[float, bool]]] = {name: [] for name in JUDGED}
    for done, example in enumerate(examples):
        for name in JUDGED:
            bar.show(f"{dataset.name}, {name}", done, len(examples))
            result = Inspector(engines[name], inspector.calibration, {}).inspect(example.picture, "pixel")
            verdicts[name].append((result.score, result.defective))
    plainly, narrowly = verdicts.values()
    return {
        "pictures": len(examples),
        "changed_verdicts": sum(one[1] != other[1] for one, other in zip(plainly, narrowly)),
        "largest_difference": max(abs(one[0] - other[0]) for one, other in zip(plainly, narrowly)),
        "engines": {
            name: {f"{graph}_processor_seconds": one for graph, one in taken.items()}
            | {"processor_seconds": sum(taken.values())}
            for name, taken in seconds.items()
        },
    }


def _known(engine: GraphEngine, name: str, pictures: list[NDArray[np.float32]]) -> Iterator[dict[str, Any]]:
    """What a graph is given of good pictures."""
    for picture in pictures:
        cut = filled(picture[:, :CROP, :CROP], engine.config.multiple)
        seen = engine.glance(cut)
        known = dict(seen.kept) | {"background": engine.restore(cut)[None]}
        yield {one: known[one] for one in inputs_of(engine.config)[name]}


class _Calibrating(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, given: list[dict[str, Any]]) -> None:
        self.given = iter(given)

    def get_next(self) -> dict[str, Any] | None:
        """What the graph is to be run on next."""
        return next(self.given, None)


def _int8(graph: bytes, given: list[dict[str, Any]]) -> bytes:
    """A graph with integers in place of floating-point numbers, by the ranges that it takes on good pictures.

    7 bits for weights: without VNNI a product of two bytes and its neighbour's are added in 16 bits.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, folded, narrow = (Path(folder) / f"{name}.onnx" for name in ("plain", "folded", "narrow"))
        plain.write_bytes(graph)
        quant_pre_process(plain, folded, skip_symbolic_shape=True, skip_onnx_shape=True)
        quantization.quantize_static(
            folded,
            narrow,
            _Calibrating(given),
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=NARROWED,
        )
        return narrow.read_bytes()


def _with(content: artifact.Artifact, runtime: str, made: dict[str, bytes]) -> GraphEngine:
    engine = GraphEngine(content, runtime)
    for name, graph in made.items():
        engine._graphs[name] = runtimes.RUNTIMES[runtime](graph, inputs_of(content.config)[name])
    return engine


def _seconds(
    engines: dict[str, GraphEngine], picture: NDArray[np.float32], rounds: int
) -> dict[str, dict[str, float]]:
    """The least processor time of each graph over the rounds, in which all take turns; the first warms up."""
    calls = {}
    for name, engine in engines.items():
        seen = engine.glance(picture)
        known = dict(seen.kept) | {"background": engine.restore(picture)[None]}
        calls |= {
            (name, graph): (engine, {one: known[one] for one in inputs})
            for graph, inputs in inputs_of(engine.config).items()
        }
    found: dict[str, dict[str, float]] = {name: {} for name in engines}
    for turn in range(rounds + 1):
        for (name, graph), (engine, known) in calls.items():
            before = time.process_time()
            engine._run(graph, known)
            taken = time.process_time() - before
            if turn:
                found[name][graph] = min(taken, found[name].get(graph, taken))
    return found


if __name__ == "__main__":
    common.command(main)
