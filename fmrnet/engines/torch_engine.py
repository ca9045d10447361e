"""The engine that computes in PyTorch, on a CPU or a GPU."""

from __future__ import annotations

import threading
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmrnet import devices, fast
from fmrnet.artifact import Artifact
from fmrnet.config import Config
from fmrnet.engines import background
from fmrnet.engines.engine import Engine, Found, Part, Seen, all_readings
from fmrnet.engines.graph_engine import OPSET, GraphEngine, why_no_graphs
from fmrnet.engines.meeting import Meeting
from fmrnet.engines.probes import answers, difference, pictures
from fmrnet.errors import ArtifactError, ConfigError
from fmrnet.extras import explained
from fmrnet.network import weights
from fmrnet.network.model import FMRNet

__all__ = [
    "COUNTED",
    "TorchEngine",
    "content_of",
    "graphs_missing",
    "modality_maps",
    "model_of",
    "of_content",
    "with_graphs",
]

COUNTED = 512  # pixels of a side of the picture whose operations are counted
GATHERED = 2**23  # pixels of pictures that pass at once
TOLERANCE = 1e-3  # of the graphs' readings, which are surprises of 1 to 100


class TorchEngine:
    """Computes with the network itself.

    Parameters
    ----------
    model : FMRNet
        On the device where it is to compute.
    """

    def __init__(self, model: FMRNet) -> None:
        self.model = model.eval().requires_grad_(False)
        self._evidence: Meeting | None = None
        self._restored: Meeting | None = None

    def gather(self) -> bool:
        """As `fmrnet.engines.engine.OfNetwork`.

        What is computed of a picture then depends on those beside it in the last bits.
        """
        if self.model.general is not None:
            turn = threading.Lock()
            self._evidence = Meeting(self.model.general.evidence, GATHERED, turn)
            if self.config.generator and self.config.tile == "picture":
                self._restored = Meeting(lambda pictures: [self.model(pictures)], GATHERED, turn)
        return self._evidence is not None

    @property
    def name(self) -> str:
        """Such as "torch cpu"."""
        return f"torch {self.device}"

    @property
    def config(self) -> Config:
        """The settings of the model."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.mean.device

    @property
    def machine(self) -> str:
        """Device and release of PyTorch, such as "NVIDIA H100, torch 2.13.0"."""
        return f"{devices.describe(self.device)}, torch {torch.__version__}"

    def glance(
        self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None, part: Part | None = None
    ) -> Seen:
        """As `fmrnet.engines.engine.Engine`."""
        filled = self._filled(picture)
        seen = background.glance(
            self.model,
            filled,
            None if inside is None else self._counting(inside, filled),
            self._evidence(filled) if self._evidence else None,
            self._usual(picture, filled, part),
        )
        return Seen(picture, _array(seen.readings), seen.typical.item(), seen, inside, part)

    def compare(self, seen: Seen) -> Found:
        """As `fmrnet.engines.engine.Engine`."""
        restored = self._restored(seen.kept.picture)[0][0] if self._restored else None
        return self._found(seen, background.compare(self.model, seen.kept, restored))

    def compare_with(self, seen: Seen, restored: NDArray[np.float32]) -> Found:
        """As `fmrnet.engines.engine.Divided`."""
        given = torch.from_numpy(restored).to(self.device)
        return self._found(seen, background.fuse(self.model, seen.kept, given))

    def _found(self, seen: Seen, found: background.Comparison) -> Found:
        _, height, width = seen.picture.shape
        anomaly_map, evidence = (_array(one[:height, :width]) for one in (found.anomaly_map, found.evidence))
        if seen.inside is not None:
            anomaly_map, evidence = anomaly_map * seen.inside, evidence * seen.inside
        return Found(
            anomaly_map,
            evidence,
            all_readings(self.config, seen.readings, _array(found.readings)),
            None if found.background is None else _array(found.background[:, :height, :width]),
        )

    def recalled(
        self,
        picture: NDArray[np.float32],
        readings: NDArray[np.float32],
        typical: float,
        surprise: NDArray[np.float32] | None,
        inside: NDArray[np.bool_] | None = None,
        part: Part | None = None,
    ) -> Seen:
        """As `fmrnet.engines.engine.InParts`."""
        filled = self._filled(picture)
        kept = background.Glance(
            filled,
            filled.new_zeros(0),
            filled.new_tensor(typical),
            None,
            None if surprise is None else torch.from_numpy(np.ascontiguousarray(surprise)).to(self.device),
            None if inside is None else self._counting(inside, filled),
            self._usual(picture, filled, part),
        )
        return Seen(picture, readings, typical, kept, inside, part)

    def surprise(self, seen: Seen) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.InParts`."""
        return _array(seen.kept.surprise)

    def give_back(self) -> None:
        """As `fmrnet.engines.engine.InParts`; on a CPU nothing is kept."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def restore(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.Engine`."""
        restored = background.restore(self.model, background.encode(self.model, self._filled(picture)))
        return _array(restored[:, : picture.shape[1], : picture.shape[2]])

    def features(self, picture: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """As `fmrnet.engines.engine.Divided`: see `background.features`."""
        return tuple(map(_array, background.features(self.model, self._filled(picture))))

    def decode(self, maps: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.Divided`."""
        deepest, middle, shallow = (torch.from_numpy(one.astype(np.float32)).to(self.device) for one in maps)
        return _array(background.decode(self.model, (deepest, middle, shallow)))

    def _counting(self, inside: NDArray[np.bool_], filled: Tensor) -> Tensor:
        """1 where a pixel of a filled picture counts, else 0: (H', W'). What it was filled up with does not."""
        whole = torch.zeros(filled.shape[1:], device=self.device)
        whole[: inside.shape[0], : inside.shape[1]] = torch.from_numpy(inside).to(self.device)
        return whole

    def _usual(self, picture: NDArray[np.float32], filled: Tensor, part: Part | None) -> Tensor | None:
        if self.model.general is None:
            return None
        part = part or Part((picture.shape[1], picture.shape[2]), (0, 0))
        return background.usual_of(self.model, filled, part.size, part.corner)

    def _filled(self, picture: NDArray[np.float32]) -> Tensor:
        given = torch.from_numpy(np.ascontiguousarray(picture)).to(self.device)
        return self.model.filled(given[None])[0]


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().contiguous().cpu().numpy()


def of_content(content: Artifact, device: str) -> TorchEngine:
    """The engine of a model file on a device, such as "auto" or "cuda:1".

    Raises
    ------
    ArtifactError
        If the weights do not fit the settings.
    ConfigError
        If there is no such device.
    """
    where = devices.choose_device(device)
    try:
        model = weights.restore(content.config, content.weights)
    except ArtifactError as error:
        raise ArtifactError(f"the weights do not fit the settings: {error}") from error
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEngine(model)


def content_of(engine: Engine) -> Artifact:
    """What a model file is to hold of a network, without graphs, calibration and provenance.

    Raises
    ------
    ArtifactError
        If the weights are such that `of_content` would not take them.
    ConfigError
        If the engine is another one.
    """
    held = weights.arrays(model_of(engine).state_dict())
    weights.restore(engine.config, held)
    return Artifact(engine.config, {}, {}, held)


def with_graphs(content: Artifact) -> tuple[Artifact, dict[str, Any]]:
    """The content of a model file with its graphs (`fmrnet.engines.graphs`), which have been held against the network.

    Beside it what is noted of them, JSON-ready: operator set, versions, operations of a picture, and the answers that
    every engine is to give (`fmrnet.engines.probes`).

    Raises
    ------
    ArtifactError
        If what the graphs say of a picture is not what the network says.
    ConfigError
        If what this needs is not installed, or the model cuts pictures into patches beforehand.
    """
    try:
        from fmrnet.engines import graphs
    except ModuleNotFoundError as error:
        raise explained(error) from None
    if (reason := why_no_graphs(content.config)) is not None:
        raise ConfigError(f"this model cannot be written as graphs: it {reason}")
    network = of_content(content, "cpu")
    made = replace(content, graphs=graphs.graphs(network.config))
    runtime = GraphEngine(made, "onnxruntime")
    given = pictures(content.config.image_channels, content.weights)
    expected = answers(network, given)
    if (worst := difference(answers(runtime, given), expected)) > TOLERANCE:
        raise ArtifactError(f"the graphs differ from the network by {worst:.2g}: expected up to {TOLERANCE}")
    return made, _about_graphs(network.model) | {"answers": expected}


def graphs_missing(config: Config) -> str | None:
    """Why no graphs of such a model can be made here, in words that follow "this model"; None if some can."""
    if find_spec("onnx_ir") is None:
        return (
            "gets none, for onnx-ir is not installed; run pip install 'fmrnet[train]', then `fmrnet graphs`"
        )
    return why_no_graphs(config)


def _about_graphs(model: FMRNet) -> dict[str, Any]:
    """What is noted of graphs when they are made, JSON-ready: operator set, versions, operations of a picture."""
    from fmrnet.engines.operations import operations

    return {
        "opset": OPSET,
        "versions": {name: version(name) for name in ("torch", "onnx-ir")},
        "operations": operations(model, COUNTED, COUNTED),
    }


def model_of(engine: Engine) -> FMRNet:
    """The network that an engine computes with; ConfigError if it is not one of PyTorch."""
    if not isinstance(engine, TorchEngine):
        raise ConfigError(
            f"the network is not loaded: the engine is {engine.name}; load it with engine torch"
        )
    return engine.model


def modality_maps(
    picture: NDArray[np.float32], background: NDArray[np.float32], median: int
) -> dict[str, NDArray[np.float32]]:
    """Each modality's map of a picture and its background (C, H, W): (H, W) by name."""
    given = (torch.from_numpy(np.ascontiguousarray(one))[None] for one in (picture, background))
    _, maps = fast.anomaly_map(*given, median=median, return_modalities=True)
    return {name: _array(values[0]) for name, values in maps.items()}
