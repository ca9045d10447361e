"""The engine that runs the graphs of a model file, without PyTorch.

    glance   picture, inside, usual -> readings, typical, surprise
    restore  picture -> background
    fuse     picture, background, surprise, inside, usual -> anomaly map, evidence, readings

`inside` is 1 where a pixel counts and 0 elsewhere, `usual` what the witnesses usually say there (`fmrnet.usual`). A
model without a generator has no `restore`, and its `fuse` takes the surprise alone. Without general features a picture
is cut into patches beforehand: then `glance` gives their distances to memory and the encoder's maps, `restore` the
backgrounds of such maps, and there is neither surprise nor `usual`.
`fmrnet.engines.graphs` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.artifact import Artifact
from fmrnet.config import Config
from fmrnet.engines.engine import Found, Part, Seen, all_readings, filled
from fmrnet.engines.onnx_bytes import with_weights
from fmrnet.engines.patches import corners, cut, laid
from fmrnet.engines.runtimes import ANEW, RUNTIMES, Graph
from fmrnet.errors import ArtifactError, shown
from fmrnet.usual import Usual

__all__ = ["OPSET", "OUTPUTS", "GraphEngine", "inputs_of", "outputs_of", "whole", "why_no_graphs"]

OPSET = 18  # of the operators in the graphs
OUTPUTS = {
    "glance": ("readings", "typical", "surprise"),
    "restore": ("background",),
    "fuse": ("anomaly_map", "evidence", "readings"),
}
MAPS = ("deepest", "middle", "shallow")  # of the encoder: EL_5, EL_4 and EL_3
BATCH = 256  # patches at a time: bounds the memory that the network's inner layers take


def inputs_of(config: Config) -> dict[str, tuple[str, ...]]:
    """The names of the inputs of each graph that a model of these settings has."""
    if not config.general:
        return {"glance": ("patches",), "restore": MAPS, "fuse": ("picture", "background", "inside")}
    if not config.generator:
        return {"glance": ("picture", "inside", "usual"), "fuse": ("surprise",)}
    return {
        "glance": ("picture", "inside", "usual"),
        "restore": ("picture",),
        "fuse": ("picture", "background", "surprise", "inside", "usual"),
    }


def outputs_of(config: Config) -> dict[str, tuple[str, ...]]:
    """The names of the outputs of each graph."""
    every = OUTPUTS if config.general else OUTPUTS | {"glance": ("distances", *MAPS)}
    return {name: every[name] for name in inputs_of(config)}


def whole(content: Artifact, name: str) -> bytes:
    """A graph of a model file with its weights, in the ONNX format."""
    graph = content.graphs[name]
    return with_weights(graph.template, graph.weights, content.weights)


def why_no_graphs(config: Config) -> str | None:
    """Why a model of these settings cannot be written as graphs, in words that follow "this model"; None if it can."""
    if not config.generator:
        return None
    if config.general != (config.tile == "picture"):
        return "has other tiles than its preset: with general features graphs need tile = picture, without tile = patch"
    if config.general and not config.learned_fusion:
        return "has general features and no learned fusion"
    if config.rearrange and config.mixing == "dense":
        return "mixes textons densely; graphs need mixing = shared or none"
    if config.rearrange and config.tile == "picture" and config.stride // 16 % config.texton_size:
        return (
            f"has textons of {config.texton_size}, which do not divide the step between patches of its maps"
        )
    return None


class GraphEngine:
    """Runs a model's graphs in a small runtime.

    Parameters
    ----------
    content : Artifact
        With graphs.
    runtime : str
        One of `fmrnet.engines.runtimes.RUNTIMES`.

    Raises
    ------
    ArtifactError
        If a graph is missing, cannot be read, or takes something else than the settings tell.
    """

    def __init__(self, content: Artifact, runtime: str) -> None:
        self.config: Config = content.config
        self.name = f"{runtime} cpu"
        expected = inputs_of(self.config)
        if content.graphs.keys() != expected.keys():
            named = ", ".join(content.graphs) or "none"
            raise ArtifactError(
                f"the model has the graphs {shown(named)}: expected {', '.join(expected)}; {ANEW}"
            )
        self._make = RUNTIMES[runtime]
        self._content = content
        self._graphs: dict[str, Graph] = {}
        self._usual = Usual.of(content.weights) if self.config.general else None
        self._graph("glance")

    def glance(
        self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None, part: Part | None = None
    ) -> Seen:
        """As `fmrnet.engines.engine.Engine`."""
        known = self._known(picture, inside, part)
        if not self.config.general:
            whole = known["picture"]
            places, rows = self._places(whole)
            found = []
            for given in self._encoded(whole, places):
                found.append(given[0])
            if len(found) == 1:  # maps of more patches are made again later: memory is bounded
                known |= dict(zip(MAPS, given[1:]))
            distances = np.concatenate(found)
            shares = cut(known["inside"][None], places, self.config.patch_size).mean((1, 2, 3))
            counts = shares >= 0.5
            typical = float(np.median(distances[counts])) if counts.any() else np.inf
            return Seen(picture, (distances * counts).reshape(1, rows, -1), typical, known, inside, part)
        readings, middle, known["surprise"] = self._run("glance", known)
        return Seen(picture, readings, float(middle), known, inside, part)

    def compare(self, seen: Seen) -> Found:
        """As `fmrnet.engines.engine.Engine`."""
        known: dict[str, NDArray[Any]] = dict(seen.kept)
        if self.config.generator:
            known["background"] = self._restored(known["picture"], known)
        anomaly_map, evidence, own = self._run("fuse", known)
        _, height, width = seen.picture.shape
        anomaly_map, evidence = (values[:height, :width] for values in (anomaly_map, evidence))
        if seen.inside is not None:
            anomaly_map, evidence = anomaly_map * seen.inside, evidence * seen.inside
        return Found(
            anomaly_map,
            evidence,
            all_readings(self.config, seen.readings, own),
            known["background"][0, :, :height, :width] if self.config.generator else None,
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
        known = self._known(picture, inside, part)
        if surprise is not None:
            known["surprise"] = np.ascontiguousarray(surprise)
        return Seen(picture, readings, typical, known, inside, part)

    def surprise(self, seen: Seen) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.InParts`."""
        found: NDArray[np.float32] = seen.kept["surprise"]
        return found

    def give_back(self) -> None:
        """As `fmrnet.engines.engine.InParts`: once a small picture has passed, no more is kept than that took."""
        small = self._known(
            np.zeros((self.config.image_channels, *2 * (self.config.patch_size,)), np.float32), None
        )
        given = small if self.config.general else {"patches": small["picture"]}
        self._graph("glance")(
            {name: given[name] for name in inputs_of(self.config)["glance"]}, give_back=True
        )

    def restore(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.Engine`."""
        restored = self._restored(self._filled(picture))
        return restored[0, :, : picture.shape[1], : picture.shape[2]]

    def _restored(
        self, picture: NDArray[np.float32], known: Mapping[str, NDArray[Any]] | None = None
    ) -> NDArray[np.float32]:
        """The background of a filled picture, (1, C, H, W) both; of patches whose maps are known they are taken."""
        if self.config.general:
            return self._run("restore", {"picture": picture})[0]
        places, _ = self._places(picture)
        maps = [known[name] for name in MAPS if name in known] if known else []
        if maps and len(maps[0]) == len(places):
            batches: Iterable[list[NDArray[Any]]] = [maps]
        else:
            batches = (given[1:] for given in self._encoded(picture, places))
        patches = [self._run("restore", dict(zip(MAPS, one)))[0] for one in batches]
        return laid(np.concatenate(patches), places, (picture.shape[2], picture.shape[3]))[None]

    def _places(self, picture: NDArray[np.float32]) -> tuple[list[tuple[int, int]], int]:
        return corners((picture.shape[2], picture.shape[3]), self.config.patch_size, self.config.stride)

    def _encoded(
        self, picture: NDArray[np.float32], places: list[tuple[int, int]]
    ) -> Iterator[list[NDArray[np.float32]]]:
        """What the graph glance gives of all patches, BATCH of them at a time: distances, and the encoder's maps."""
        for start in range(0, len(places), BATCH):
            patches = cut(picture[0], places[start : start + BATCH], self.config.patch_size)
            yield self._run("glance", {"patches": patches})

    def _run(self, name: str, known: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        given = {key: known[key] for key in inputs_of(self.config)[name]}
        found = self._graph(name)(given)
        if len(found) != (expected := len(outputs_of(self.config)[name])):
            raise ArtifactError(f"the graph {name} gives {len(found)} arrays: expected {expected}; {ANEW}")
        return found

    def _graph(self, name: str) -> Graph:
        """A graph, made when it is first needed: the early exit is not to wait for the others."""
        if name not in self._graphs:
            self._graphs[name] = self._make(whole(self._content, name), inputs_of(self.config)[name])
        return self._graphs[name]

    def _known(
        self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None, part: Part | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """A picture, filled, which of its pixels count, and what is usual there."""
        whole = self._filled(picture)
        _, _, *size = whole.shape
        known = {"picture": whole, "inside": np.ones(size, np.float32)}
        if self._usual is not None:
            part = part or Part((picture.shape[1], picture.shape[2]), (0, 0))
            known["usual"] = self._usual.at((size[0], size[1]), part.size, part.corner)
        if inside is not None:  # what the picture was filled up with does not count either
            known["inside"][:] = 0
            known["inside"][: inside.shape[0], : inside.shape[1]] = inside
        return known

    def _filled(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return filled(picture, self.config.multiple)[None]
