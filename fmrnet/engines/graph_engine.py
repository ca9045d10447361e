"""The engine that runs the graphs of a model file, without PyTorch.

    glance   picture, inside -> readings, typical, surprise
    restore  picture -> background
    fuse     picture, background, surprise, inside -> anomaly map, evidence, readings

`inside` is 1 where a pixel counts and 0 elsewhere. A model without a generator has no `restore`, and its `fuse` takes
the surprise alone. `fmrnet.engines.graphs` makes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.artifact import Artifact
from fmrnet.config import Config
from fmrnet.engines.engine import Found, Seen, all_readings, filled
from fmrnet.engines.onnx_bytes import with_weights
from fmrnet.engines.runtimes import ANEW, RUNTIMES, Graph
from fmrnet.errors import ArtifactError, shown

__all__ = ["OPSET", "OUTPUTS", "GraphEngine", "can_be_graphs", "inputs_of", "whole"]

OPSET = 18  # of the operators in the graphs
OUTPUTS = {
    "glance": ("readings", "typical", "surprise"),
    "restore": ("background",),
    "fuse": ("anomaly_map", "evidence", "readings"),
}


def inputs_of(config: Config) -> dict[str, tuple[str, ...]]:
    """The names of the inputs of each graph that a model of these settings has."""
    if not config.generator:
        return {"glance": ("picture", "inside"), "fuse": ("surprise",)}
    return {
        "glance": ("picture", "inside"),
        "restore": ("picture",),
        "fuse": ("picture", "background", "surprise", "inside"),
    }


def whole(content: Artifact, name: str) -> bytes:
    """A graph of a model file with its weights, in the ONNX format."""
    graph = content.graphs[name]
    return with_weights(graph.template, graph.weights, content.weights)


def can_be_graphs(config: Config) -> bool:
    """Whether a model can be written as graphs: it has general features, and cuts no pictures into patches."""
    return config.general and (config.tile == "picture" or not config.generator)


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
        self._graph("glance")

    def glance(self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> Seen:
        """As `fmrnet.engines.engine.Engine`."""
        whole = self._filled(picture)
        known = {"picture": whole, "inside": np.ones(whole.shape[2:], np.float32)}
        if inside is not None:  # what the picture was filled up with does not count either
            known["inside"][:] = 0
            known["inside"][: inside.shape[0], : inside.shape[1]] = inside
        readings, typical, known["surprise"] = self._run("glance", known)
        return Seen(picture, readings, float(typical), known, inside)

    def compare(self, seen: Seen) -> Found:
        """As `fmrnet.engines.engine.Engine`."""
        known: dict[str, NDArray[Any]] = dict(seen.kept)
        if self.config.generator:
            (known["background"],) = self._run("restore", known)
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

    def restore(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.Engine`."""
        (background,) = self._run("restore", {"picture": self._filled(picture)})
        return background[0, :, : picture.shape[1], : picture.shape[2]]

    def _run(self, name: str, known: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        given = {key: known[key] for key in inputs_of(self.config)[name]}
        found = self._graph(name)(given)
        if len(found) != (expected := len(OUTPUTS[name])):
            raise ArtifactError(f"the graph {name} gives {len(found)} arrays: expected {expected}; {ANEW}")
        return found

    def _graph(self, name: str) -> Graph:
        """A graph, made when it is first needed: the early exit is not to wait for the others."""
        if name not in self._graphs:
            self._graphs[name] = self._make(whole(self._content, name), inputs_of(self.config)[name])
        return self._graphs[name]

    def _filled(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return filled(picture, self.config.multiple)[None]
