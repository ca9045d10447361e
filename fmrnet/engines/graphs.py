"""A model's graphs in the ONNX format, from the network itself."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxscript
import torch
from torch import Tensor, nn
from torch.export import Dim

from fmrnet import artifact, fast, network
from fmrnet.artifact import Graph
from fmrnet.config import Config
from fmrnet.engines import background
from fmrnet.engines.graph_engine import OPSET, OUTPUTS, inputs_of
from fmrnet.engines.onnx_bytes import PREFIX
from fmrnet.errors import ArtifactError
from fmrnet.files import cache_folder
from fmrnet.network.model import FMRNet

__all__ = ["graphs"]

MOST_SIDE = 2**15  # pixels of a picture that passes at once
OF_GRAPHS = {  # settings
    *{
        "image_channels",
        "patch_size",
        "tile",
        "channels",
        "memory_entries",
        "addressing_width",
        "texton_size",
    },
    *{"mixing", "temperature", "general", "overlap", "median"},
}
TRACED = (5, 6)  # multiples of a picture's sides in the tracing; unlike each other, and no 1


class _Glance(nn.Module):
    def __init__(self, model: FMRNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, picture: Tensor, inside: Tensor) -> tuple[Tensor, ...]:
        seen = background.glance(self.model, picture[0], inside)
        assert seen.surprise is not None
        return seen.readings, seen.typical, seen.surprise


class _Restore(nn.Module):
    def __init__(self, model: FMRNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, picture: Tensor) -> Tensor:
        restored: Tensor = self.model(picture)
        return restored


class _Fuse(nn.Module):
    def __init__(self, model: FMRNet) -> None:
        super().__init__()
        self.model = model
        self.names = inputs_of(model.config)["fuse"]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.names, tensors, strict=True))
        picture = given["picture"][0] if "picture" in given else given["surprise"][None]
        restored = given["background"][0] if "background" in given else None
        found = background.fuse(self.model, picture, restored, given.get("surprise"), given.get("inside"))
        return found.anomaly_map, found.evidence.clone(), found.readings  # an input is no output


@torch.no_grad()
def graphs(model: FMRNet) -> dict[str, Graph]:
    """The graphs of `fmrnet.engines.graph_engine`, by name, without weights. `model` is on the CPU.

    They take pictures (1, C, H, W) in [0, 1] whose sides are multiples of `Config.multiple`, of any size, and what
    counts of them (H, W). Making them
    takes minutes. They depend on the settings alone, not on the weights, and are kept in the user's
    cache (`fmrnet.files.cache_folder`).
    """
    kept = cache_folder() / f"graphs-{_key(model.config)}"
    with suppress(ArtifactError):  # there is none yet, or it was damaged
        tensors, metadata = artifact.read_tensors(kept)
        return {name: Graph(tensors[name].tobytes(), tuple(names)) for name, names in metadata.items()}
    made = _made(model)
    with suppress(OSError, ArtifactError):  # the next model has to make them anew
        kept.parent.mkdir(parents=True, exist_ok=True)
        templates = {name: np.frombuffer(one.template, np.uint8) for name, one in made.items()}
        artifact.write_tensors(kept, templates, {name: list(one.weights) for name, one in made.items()})
    return made


def _key(config: Config) -> str:
    """A digest of all that graphs depend on: the settings of network and inspection, the code, the exporter."""
    settings = {name: getattr(config, name) for name in OF_GRAPHS}
    settings |= {
        "generator": config.generator,
        "fusion": config.learned_fusion,
        "head": config.head_iterations > 0,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(" ".join(version(name) for name in ("torch", "onnx", "onnxscript")).encode())
    here, fmrnet = Path(__file__), Path(__file__).parents[1]
    sources = [source for folder in (network, fast) for source in sorted(_folder(folder).glob("*.py"))]
    for source in (here, here.with_name("background.py"), here.with_name("graph_engine.py"), *sources):
        digest.update(source.read_bytes())
    digest.update((fmrnet / "config.py").read_bytes())
    return digest.hexdigest()[:32]


def _folder(package: ModuleType) -> Path:
    return Path(package.__path__[0])


def _made(model: FMRNet) -> dict[str, Graph]:
    config = model.config
    made = {"glance": _Glance(model), "restore": _Restore(model), "fuse": _Fuse(model)}
    examples = _examples(model)
    sides = [
        config.multiple * Dim(name, min=2, max=MOST_SIDE // config.multiple) for name in ("rows", "columns")
    ]
    dynamic = {
        "picture": {2: sides[0], 3: sides[1]},
        "background": {2: sides[0], 3: sides[1]},
        "surprise": {0: sides[0], 1: sides[1]},
        "inside": {0: sides[0], 1: sides[1]},
    }
    return {
        name: _graph(
            made[name].eval(),
            {key: examples[key] for key in names},
            {key: dynamic[key] for key in names},
            OUTPUTS[name],
        )
        for name, names in inputs_of(config).items()
    }


def _examples(model: FMRNet) -> dict[str, Tensor]:
    """Inputs to trace the graphs with."""
    height, width = (model.config.multiple * count for count in TRACED)
    picture = torch.zeros(1, model.config.image_channels, height, width)
    # Of one tensor given twice the tracer would make one input.
    plane = picture[0, 0]
    return {
        "picture": picture,
        "background": picture.clone(),
        "surprise": plane.clone(),
        "inside": plane.clone(),
    }


def _graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    shapes: dict[str, dict[int, Any]],
    outputs: tuple[str, ...],
) -> Graph:
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            optimize=False,
            input_names=list(inputs),
            output_names=list(outputs),
            # Those of *tensors count as one argument.
            dynamic_shapes=(tuple(shapes.values()),) if isinstance(module, _Fuse) else tuple(shapes.values()),
            opset_version=OPSET,
        )
    assert program is not None
    return _template(
        program.model_proto, {PREFIX + name for name in module.get_submodule("model").state_dict()}
    )


def _template(proto: onnx.ModelProto, names: set[str]) -> Graph:
    """A graph less its weights, which have these names, and less what the exporter notes about each node.

    While it is simplified, the weights are inputs: nothing that is computed from one may stay in the template.
    """
    weights = [one for one in proto.graph.initializer if one.name in names]
    rest = [one for one in proto.graph.initializer if one.name not in names]
    inputs = list(proto.graph.input)
    del proto.graph.initializer[:], proto.graph.value_info[:]
    proto.graph.initializer.extend(rest)
    for one in weights:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(one.name, one.data_type, one.dims))
    proto = onnxscript.optimizer.optimize(proto)
    used = {name for node in proto.graph.node for name in node.input}
    del proto.graph.input[:], proto.graph.value_info[:]
    proto.graph.input.extend(inputs)
    for node in proto.graph.node:
        del node.metadata_props[:]
    needed = tuple(one.name.removeprefix(PREFIX) for one in weights if one.name in used)
    return Graph(proto.SerializeToString(deterministic=True), needed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
