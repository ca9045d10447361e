"""One process of `speed.py`: says what it can time, then times what it is asked for, line by line.

python speed_worker.py today|before|peers GOOD SIZE FOLDER
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 6  # of a training whose weights do not matter

Way = tuple[Callable[[], Any], int]  # what inspects, and how many pictures at once


def main() -> None:
    """Make the ways, name them, and answer each line with the seconds it took."""
    role, good, size, folder = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    picture = np.random.default_rng(0).random((size, size, 3), np.float32)
    ways = {"today": today, "before": before, "peers": peers}[role](good, picture, folder)
    print("> " + ";".join(ways), flush=True)
    for line in sys.stdin:
        way, count = ways[line.strip()]
        started = time.perf_counter()
        way()
        print(f"> {(time.perf_counter() - started) / count}", flush=True)


def today(good: Path, picture: Any, folder: Path) -> dict[str, Way]:
    """`edge` and `general` of this version, each engine and level."""
    import fmrnet
    from fmrnet.engines.choice import ENGINES

    ways = {}
    for preset in ("edge", "general"):
        model = folder / f"{preset}.fmr"
        fmrnet.train(good, model, config=preset, iterations=STEPS)
        for engine in ENGINES:
            inspector = fmrnet.load(model, "cpu", engine=engine)
            for level in ("patch", "pixel"):
                ways[f"{preset}, {engine}, {level}"] = _way(inspector, picture, level)
    return ways


def before(good: Path, picture: Any, folder: Path) -> dict[str, Way]:
    """`edge` of the earlier version, both levels."""
    import fmrnet

    inspector = fmrnet.train(good, folder / "before.fmr", config="edge", iterations=STEPS)
    return {f"edge before, {level}": _way(inspector, picture, level) for level in ("patch", "pixel")}


def _way(inspector: Any, picture: Any, level: str) -> Way:
    return partial(inspector.inspect, picture, level), 1


def peers(good: Path, picture: Any, folder: Path) -> dict[str, Way]:
    """anomalib's models as it exports them to OpenVINO."""
    import openvino as ov
    from anomalib import models
    from anomalib.data import Folder
    from anomalib.deploy import ExportType
    from anomalib.engine import Engine

    size = picture.shape[0]
    bare = {"post_processor": False, "evaluator": False, "visualizer": False}
    bare["pre_processor"] = models.Padim.configure_pre_processor(image_size=(size, size))
    resnet = {"backbone": "resnet18", "pre_trained": False, **bare}
    made = {
        "PatchCore": models.Patchcore(layers=("layer2", "layer3"), **resnet),
        "PaDiM": models.Padim(layers=("layer1", "layer2", "layer3"), **resnet),
        "EfficientAD-S": models.EfficientAd(model_size="small", **bare),
    }
    tensor = np.ascontiguousarray(picture.transpose(2, 0, 1)[None])
    ways = {}
    for name, model in made.items():
        out = folder / name
        engine = Engine(max_epochs=1, limit_val_batches=0, devices=1, logger=False, default_root_dir=out)
        if name != "EfficientAD-S":  # whose weights alone are learnt
            splits = {"test_split_mode": "none", "val_split_mode": "none"}
            loading = {"train_batch_size": 4, "num_workers": 0}
            data = Folder(name=name, root=good.parent, normal_dir=good.name, **splits, **loading)
            engine.fit(model, datamodule=data)
        path = engine.export(model, ExportType.OPENVINO, export_root=out, input_size=(size, size))
        graph = ov.Core().read_model(path)
        batch = graph.input(0).partial_shape[0]
        count = batch.get_length() if batch.is_static else 1  # of which some exports make two
        compiled = ov.Core().compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        ways[name] = partial(compiled, np.repeat(tensor, count, axis=0)), count
    return ways


if __name__ == "__main__":
    main()
