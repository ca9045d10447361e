"""A model's graphs in the ONNX format, from the network itself."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim

from fmrnet.engines import background
from fmrnet.engines.graph_engine import ENCODED, inputs_of
from fmrnet.network.model import Features, FMRNet

__all__ = ["OPSET", "can_be_graphs", "graphs"]

OPSET = 18
MOST_SIDE = 2**15  # pixels of a picture that passes at once
TRACED = (5, 6)  # multiples of a picture's sides in the tracing; unlike each other, and no 1


class _Glance(nn.Module):
    def __init__(self, model: FMRNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        seen = background.glance(self.model, picture[0])
        if seen.encoded is None:
            assert seen.surprise is not None
            return seen.readings, seen.typical, seen.surprise
        (features,) = seen.encoded.features
        return seen.readings, seen.typical, features.z, *features.skips


class _Restore(nn.Module):
    def __init__(self, model: FMRNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> Tensor:
        features = Features(given[0], (given[1], given[2])) if len(given) > 1 else self.model.encode(given[0])
        decoded = self.model.decode(self.model.restore(features.z), features.skips)
        return self.model.denormalise(decoded).clamp(0, 1)


class _Fuse(nn.Module):
    def __init__(self, model: FMRNet) -> None:
        super().__init__()
        self.model = model
        self.names = inputs_of(model.config)["fuse"]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.names, tensors, strict=True))
        picture = given["picture"][0] if "picture" in given else given["surprise"][None]
        restored = given["background"][0] if "background" in given else None
        found = background.fuse(self.model, picture, restored, given.get("surprise"))
        return found.anomaly_map, found.evidence, found.readings


def can_be_graphs(model: FMRNet) -> bool:
    """Whether a model can be written as graphs: those that cut pictures into patches beforehand stay with PyTorch."""
    return model.config.tile == "picture" or not model.config.generator


@torch.no_grad()
def graphs(model: FMRNet) -> dict[str, bytes]:
    """The graphs of `fmrnet.engines.graph_engine`, by name; weights included. `model` is on the CPU.

    They take pictures (1, C, H, W) in [0, 1] whose sides are multiples of `Config.multiple`, of any size.
    """
    config, made = model.config, {"glance": _Glance(model), "restore": _Restore(model), "fuse": _Fuse(model)}
    multiple = config.multiple
    sides = [multiple * Dim(name, min=2, max=MOST_SIDE // multiple) for name in ("rows", "columns")]
    height, width = (multiple * count for count in TRACED)
    picture = torch.zeros(1, config.image_channels, height, width)
    examples = {"picture": picture, "background": picture, "surprise": picture[0, 0]}
    shapes = {"picture": {2: sides[0], 3: sides[1]}, "surprise": {0: sides[0], 1: sides[1]}}
    shapes["background"] = shapes["picture"]
    if not config.general:
        features = model.encode(picture)
        examples |= zip(ENCODED, (features.z, *features.skips), strict=True)
        raise NotImplementedError
    return {
        name: _exported(
            made[name].eval(), [examples[key] for key in keys], keys, [shapes[key] for key in keys]
        )
        for name, keys in inputs_of(config).items()
    }


def _exported(
    module: nn.Module, inputs: list[Tensor], names: tuple[str, ...], shapes: list[dict[int, Dim]]
) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs),
            dynamo=True,
            verbose=False,
            input_names=list(names),
            dynamic_shapes=(tuple(shapes),) if isinstance(module, _Restore | _Fuse) else tuple(shapes),
            opset_version=OPSET,
        )
    assert program is not None
    stored = io.BytesIO()
    program.save(stored)
    return stored.getvalue()


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
